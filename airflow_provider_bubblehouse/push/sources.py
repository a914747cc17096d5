"""
Where rows come from: a list, or files of JSONL, JSON, CSV or Parquet in any fsspec store, streamed in chunks.

What concerns one row (a ragged CSV row, a JSON line that is no JSON) is handed on as an ``InvalidCustomerError`` in the
row's place; what makes the rest of a file unreadable is a ``BubblehousePermanentError``. Neither shows a value.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import logging
import zlib
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import msgspec

from airflow_provider_bubblehouse.api.customers import (
    BOOLEAN_FIELDS,
    LIST_FIELDS,
    Customer2,
    Customer2OfObjects,
    InvalidCustomerError,
)
from airflow_provider_bubblehouse.exceptions import BubblehousePermanentError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

log = logging.getLogger(__name__)

FILE_FORMATS = ("auto", "jsonl", "json", "csv", "parquet", "rejected")
ColumnMap = Mapping[str, str]

_FORMAT_BY_SUFFIX = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
_CHUNK_ROWS = 1000  # rows held at once, so that the work a chunk costs is small beside that of its rows
_BLOCK_BYTES = 64 * 1024  # what is worked on at once: of more, the C library asks the system for memory each time
_MAX_ROW_BYTES = 16 * 1024 * 1024  # far beyond any call; bounds the memory that a file without line ends takes
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_UTF8_MARK = b"\xef\xbb\xbf"
_BLANKS = b" \t\r\n"


class Chunk(Protocol):
    """Some consecutive rows of one file."""

    @property
    def file(self) -> str:
        """The file's name, empty for a list."""

    def customers(self) -> tuple[list[Customer2], list[bytes] | None]:
        """
        Return the rows as customers that can be sent as they stand, by far the quickest way to read them.

        :return: the customers, and each as the JSON that it stands in, None where it stands in none.
        :raises ValueError: if not all rows are such customers.
        """

    def records(self) -> Iterable[object]:
        """Return the rows as mappings, each that is none as it is or as an ``InvalidCustomerError``."""


@dataclass(frozen=True, slots=True)
class Records:
    """
    Rows as Python's objects.

    :param file: the file's name, empty for a list.
    :param rows: the rows.
    """

    file: str
    rows: Sequence[object]

    def customers(self) -> tuple[list[Customer2], None]:
        return msgspec.convert(self.rows, list[Customer2OfObjects]), None

    def records(self) -> Iterable[object]:
        return self.rows


@dataclass(frozen=True, slots=True)
class JsonLines:
    """
    Rows as text, one JSON object a line.

    :param file: the file's name.
    :param text: whole lines.
    """

    file: str
    text: bytes

    def customers(self) -> tuple[list[Customer2], list[bytes]]:
        customers = _CUSTOMERS.decode_lines(self.text)
        lines = self.text.removesuffix(b"\n").split(b"\n")
        # The decoder goes by JSON's ends, not by the lines': one object a line is seen from where the lines break.
        if not len(customers) == len(lines) == self.text.count(b"}\n{") + 1:
            lines = list(self._lines())
            if len(lines) != len(customers) or not all(line[:1] == b"{" and line[-1:] == b"}" for line in lines):
                raise ValueError
        return customers, lines

    def records(self) -> Iterable[object]:
        return map(_parse_line, self._lines())

    def _lines(self) -> Iterator[bytes]:
        return filter(None, map(bytes.strip, self.text.split(b"\n")))


_CUSTOMERS = msgspec.json.Decoder(Customer2)


class Source(Protocol):
    """Rows that can be read more than once, each time in the same order."""

    def chunks(self) -> Iterator[Chunk]:
        """Yield all rows in order."""

    def version(self) -> object:
        """Return what differs once the rows may have changed."""

    def fingerprint(self) -> object | None:
        """Return what tells these rows from all others, also in a later process; None if nothing does."""

    def share_read(self) -> float | None:
        """Return the share of the source that the pass under way has read, from 0 to 1; None if not known."""


class ListSource:
    """
    Rows in memory.

    :param records: mappings of Customer2's fields, or of the columns that ``column_map`` names.
    :param column_map: see ``FileSource``.
    """

    def __init__(self, records: Sequence[object], *, column_map: ColumnMap | None = None) -> None:
        self._records = records
        self._renamer = _Renamer(_targets(column_map))
        self._read = 0

    def chunks(self) -> Iterator[Chunk]:
        self._read = 0
        for chunk in _chunked("", self._renamer(self._records)):
            self._read += len(chunk.rows)
            yield chunk
        self._renamer.warn_of_unseen()

    def version(self) -> object:
        return None

    def fingerprint(self) -> object:
        """Return a hash of the rows, which are personal data."""
        digest = hashlib.sha256()
        for record in self._records:
            digest.update(_canonical(record) + b"\n")
        return digest.hexdigest()

    def share_read(self) -> float | None:
        return self._read / len(self._records) if self._records else None


class FileSource:
    """
    Rows in files.

    :param filesystem: the fsspec file system that holds the files.
    :param path: a file's path there, or a glob; a file of exactly that name goes before a glob.
    :param file_format: one of ``FILE_FORMATS``; ``auto`` goes by the suffix, which may be followed by ``.gz``.
    :param column_map: column in the file to field of Customer2, such as ``{"CustomerId": "id"}``; a dot nests, as in
        ``extras.city``. Exactly these columns are sent. None sends each column under its own name.
    :raises BubblehousePermanentError: if there is no such file, or its format is not known.
    """

    def __init__(
        self, filesystem: Any, path: str, *, file_format: str = "auto", column_map: ColumnMap | None = None
    ) -> None:
        self._filesystem = filesystem
        self._columns = _targets(column_map)
        self._renamer = _Renamer(self._columns)
        self._files = [(name, _format_of(name, file_format)) for name in _find(filesystem, path)]
        self._sizes: list[int | None] = []
        self._position: Callable[[], float] = float

    def chunks(self) -> Iterator[Chunk]:
        self._sizes = [size for _, size, _ in self.version()]
        before = 0
        for (name, file_format), size in zip(self._files, self._sizes, strict=True):
            with _open(self._filesystem, name, seekable=file_format == "parquet") as (raw, stream):
                if stream is not None:
                    self._position = lambda before=before, raw=raw: before + raw.tell()  # type: ignore[misc]
                    yield from self._read(name, file_format, stream)
            before += size or 0
            self._position = lambda before=before: before  # type: ignore[misc]
        self._renamer.warn_of_unseen()

    def _read(self, name: str, file_format: str, stream: BinaryIO) -> Iterator[Chunk]:
        if file_format == "jsonl" and self._columns is None:
            return _read_jsonl(name, stream)
        if file_format == "csv":
            return _read_csv(name, stream, self._columns)
        records: Iterator[object]
        if file_format == "jsonl":
            records = (record for lines in _read_jsonl(name, stream) for record in lines.records())
        elif file_format == "rejected":
            records = (_mended(record) for lines in _read_jsonl(name, stream) for record in lines.records())
        elif file_format == "json":
            records = _read_json(name, stream)
        else:
            records = _read_parquet(name, stream, self._columns)
        return _chunked(name, self._renamer(records))

    def version(self) -> list[tuple[str, int | None, str | None]]:
        """Return path, size and ETag or time of change of every file; a file that is gone has neither."""
        return [(name, *_stat(self._filesystem, name)) for name, _ in self._files]

    def fingerprint(self) -> object | None:
        version = self.version()
        return None if any(changed is None for _, _, changed in version) else version

    def share_read(self) -> float | None:
        if not self._sizes or None in self._sizes:
            return None
        total = sum(size or 0 for size in self._sizes)
        return min(1.0, self._position() / total) if total else None


def _find(filesystem: Any, path: str) -> list[str]:
    if filesystem.isfile(path):
        return [path]
    if filesystem.isdir(path):
        raise BubblehousePermanentError(f"{path} is a folder; add a pattern such as /*.csv for the files in it.")
    if not any(wildcard in path for wildcard in "*?["):
        raise BubblehousePermanentError(f"There is no file {path}.")
    found = filesystem.glob(path, detail=True)
    names = sorted(name for name, info in found.items() if info.get("type") == "file")
    if not names:
        raise BubblehousePermanentError(f"No file matches {path}.")
    return names


def _format_of(name: str, file_format: str) -> str:
    if file_format != "auto":
        return file_format
    stem = name.lower().removesuffix(".gz")
    for suffix, known in _FORMAT_BY_SUFFIX.items():
        if stem.endswith(suffix):
            return known
    raise BubblehousePermanentError(f"The suffix of {name} does not tell its format; set file_format.")


def _stat(filesystem: Any, name: str) -> tuple[int | None, str | None]:
    filesystem.invalidate_cache()  # object stores remember listings, which would hide a change
    try:
        info = filesystem.info(name)
    except FileNotFoundError:
        return None, None
    marks = ("ETag", "etag", "mtime", "LastModified", "updated", "created")
    changed = next((str(info[mark]) for mark in marks if info.get(mark) is not None), None)
    return info.get("size"), changed


@contextmanager
def _open(filesystem: Any, name: str, *, seekable: bool) -> Iterator[tuple[BinaryIO, BinaryIO | None]]:
    """Open a file for reading: as it lies in its store, and decompressed, which is None for one without bytes."""
    try:
        with filesystem.open(name, "rb") as raw:
            if seekable:
                yield raw, raw if raw.read(1) else None
                return
            stream: Any = gzip.GzipFile(fileobj=raw) if name.endswith(".gz") else raw
            with io.BufferedReader(stream, _BLOCK_BYTES) as buffered:
                start = buffered.peek(4)
                if start.startswith(_UTF16_MARKS):
                    raise BubblehousePermanentError(f"{name} is UTF-16, not UTF-8; save it as UTF-8.")
                if start.startswith(_UTF8_MARK):
                    buffered.read(len(_UTF8_MARK))
                yield raw, buffered if start else None
    except FileNotFoundError:
        raise BubblehousePermanentError(f"There is no file {name} any more.") from None
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise BubblehousePermanentError(f"{name} is no whole gzip file; compress it again.") from None


def _chunked(file: str, records: Iterator[object]) -> Iterator[Records]:
    while some := list(islice(records, _CHUNK_ROWS)):
        yield Records(file, some)


def _read_jsonl(name: str, stream: BinaryIO) -> Iterator[JsonLines]:
    begun = False
    for text in _whole_lines(name, stream):
        if not begun and (start := text.lstrip()):
            begun = True
            if start.startswith(b"["):
                raise BubblehousePermanentError(
                    f"{name} begins as a JSON array, not as one JSON object a line; set file_format='json'."
                )
        yield JsonLines(name, text)


def _whole_lines(name: str, stream: BinaryIO) -> Iterator[bytes]:
    rest: list[bytes] = []
    size = 0
    while block := stream.read(_BLOCK_BYTES):
        end = block.rfind(b"\n") + 1
        if end:
            yield b"".join((*rest, block[:end]))
            rest, size = [], 0
        rest.append(block[end:])
        size += len(block) - end
        if size > _MAX_ROW_BYTES:
            raise BubblehousePermanentError(f"{name} has a line of more than 16 MiB; is it one JSON object a line?")
    if size:
        yield b"".join(rest)


def _parse_line(line: bytes) -> object:
    try:
        return _ANYTHING.decode(line)
    except UnicodeDecodeError:
        reason = "the line is not UTF-8 text; save the file as UTF-8"
    except RecursionError:
        reason = "the line is nested too deeply"
    except msgspec.DecodeError:
        reason = "the line is not valid JSON"
    return InvalidCustomerError(reason, record=line.decode(errors="surrogateescape"))


_ANYTHING = msgspec.json.Decoder()


def _mended(record: object) -> object:
    """Return the customer in a line of a rejected row (see ``push.rejected``)."""
    if isinstance(record, InvalidCustomerError):
        return record
    if not isinstance(record, Mapping) or "customer" not in record:
        return InvalidCustomerError("the line is no rejected row: it has no customer", record=record)
    return record["customer"]


def _read_json(name: str, stream: BinaryIO) -> Iterator[object]:
    scanner = _JsonScanner(io.TextIOWrapper(stream, encoding="utf-8", errors="surrogateescape", newline=""))
    if not (start := scanner.next_token()):
        return
    if start != "[":
        raise BubblehousePermanentError(
            f"{name} is not a JSON array; if it has one JSON object a line, set file_format='jsonl'."
        )
    scanner.take()
    row = 0
    try:
        separator = scanner.take() if scanner.next_token() == "]" else ","
        while separator == ",":
            row += 1
            yield scanner.value()
            separator = scanner.take()
        if separator != "]" or scanner.next_token():
            raise ValueError
    except (ValueError, RecursionError):
        raise BubblehousePermanentError(
            f"{name}, row {row}: the JSON array is broken or cut off here, so the rows after it cannot be read."
        ) from None


class _JsonScanner:
    """
    Reads a JSON array value by value, holding about one value at a time.

    Python's own decoder, because ijson's turns what UTF-8 cannot hold into question marks.
    """

    def __init__(self, text: io.TextIOBase) -> None:
        self._text = text
        self._buffer = ""
        self._position = 0
        self._decoder = json.JSONDecoder()

    def next_token(self) -> str:
        """Skip blanks and return the next character without taking it, empty at the end."""
        while True:
            while self._position < len(self._buffer):
                if self._buffer[self._position] not in " \t\r\n":
                    return self._buffer[self._position]
                self._position += 1
            if not self._read_more():
                return ""

    def take(self) -> str:
        """Skip blanks and take the next character, empty at the end."""
        token = self.next_token()
        self._position += len(token)
        return token

    def value(self) -> object:
        """Take the next value; ValueError if there is none, or it is longer than 16 MiB."""
        self.next_token()
        while True:
            try:
                value, self._position = self._decoder.raw_decode(self._buffer, self._position)
            except ValueError:  # broken, or not all of it is read yet
                if len(self._buffer) - self._position > _MAX_ROW_BYTES or not self._read_more():
                    raise
            else:
                return value

    def _read_more(self) -> bool:
        rest = self._buffer[self._position :]
        more = self._text.read(max(_BLOCK_BYTES, len(rest)))  # doubling: a long value is not decoded too often
        self._buffer, self._position = rest + more, 0
        return bool(more)


def _read_csv(name: str, stream: BinaryIO, columns: Mapping[str, tuple[str, ...]] | None) -> Iterator[Records]:
    # Bytes that are no UTF-8 become lone surrogates, so that encoding the customer finds the field they stand in.
    text = io.TextIOWrapper(stream, encoding="utf-8", errors="surrogateescape", newline="")
    rows = filter(None, csv.reader(text, strict=True))
    read = 0
    try:
        header = next(rows, None)
        if header is None:
            return
        record = _csv_recorder(_csv_cells(name, header, columns), len(header))
        for some in _csv_chunks(rows):
            read += len(some)
            yield Records(name, list(map(record, some)))
    except csv.Error as error:
        raise BubblehousePermanentError(
            f"{name}, after row {read}: the CSV is broken here, so the rows after it cannot be read ({error})."
        ) from None


def _csv_chunks(rows: Iterator[list[str]]) -> Iterator[list[list[str]]]:
    while True:
        some: list[list[str]] = []
        try:
            some.extend(islice(rows, _CHUNK_ROWS))  # not list(…), which would drop what stands before a fault
        except csv.Error:
            if some:
                yield some
            raise
        if not some:
            return
        yield some


_Cell = tuple[int, tuple[str, ...], "Callable[[str], object] | None"]


def _csv_cells(name: str, header: list[str], columns: Mapping[str, tuple[str, ...]] | None) -> list[_Cell]:
    """Return of each cell to send its place in the row, its field, and what turns its text into the field's type."""
    if columns is None:
        columns = {column: (column,) for column in header}
    _check_columns(name, header, columns)
    return [
        (place, columns[column], _cell_type(columns[column]))
        for place, column in enumerate(header)
        if column in columns
    ]


def _check_columns(name: str, header: Sequence[str], columns: Mapping[str, tuple[str, ...]]) -> None:
    """See that the columns to send are there, once each. Names from the file are not shown: they may be a row."""
    if missing := [column for column in columns if column not in header]:
        raise BubblehousePermanentError(f"{name} lacks columns that column_map names: {', '.join(missing)}.")
    twice = [place for place, column in enumerate(header, 1) if column in columns and column in header[: place - 1]]
    if twice:
        raise BubblehousePermanentError(f"{name}: the header has the same name in column {twice[0]} as before.")
    if not {("id",), ("email",)} & set(columns.values()):
        raise BubblehousePermanentError(
            f"{name} has no column for id or email; does it have a header? Name the column in column_map."
        )
    if nameless := [place for place, column in enumerate(header, 1) if column in columns and not column.strip()]:
        raise BubblehousePermanentError(f"{name}: column {nameless[0]} has no name in the header.")


def _csv_recorder(cells: list[_Cell], width: int) -> Callable[[list[str]], object]:
    """
    Return what makes a record of a row's cells; an empty cell is absent.

    :param cells: the cells to send.
    :param width: how many cells a row has.
    """
    plain = [(place, path[0]) for place, path, convert in cells if len(path) == 1 and convert is None]
    nested: dict[str, list[tuple[int, str]]] = {}
    for place, path, _ in cells:
        if len(path) == 2:
            nested.setdefault(path[0], []).append((place, path[1]))
    others = [cell for cell in cells if len(cell[1]) > 2 or cell[2] is not None]

    def record(values: list[str]) -> object:
        if len(values) != width:
            return InvalidCustomerError(f"the row has {len(values)} cells where the header has {width}", record=values)
        made: dict[str, Any] = {name: text for place, name in plain if (text := values[place])}
        for parent, inner in nested.items():
            if fields := {name: text for place, name in inner if (text := values[place])}:
                made[parent] = fields
        for place, path, convert in others:
            if text := values[place]:
                try:
                    _put(made, path, convert(text) if convert else text)
                except (ValueError, RecursionError):
                    return InvalidCustomerError(_CELL_REASON[path[0]], path[0], record=values)
        return made

    return record


def _cell_type(path: tuple[str, ...]) -> Callable[[str], object] | None:
    if len(path) > 1:
        return None
    return _CELL_TYPE.get(path[0])


def _cell_boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError
    return text == "true"


def _cell_number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError
    return int(text)


def _cell_json(kind: type) -> Callable[[str], object]:
    def parse(text: str) -> object:
        value = json.loads(text)
        if not isinstance(value, kind):
            raise ValueError  # noqa: TRY004  one kind of error for every cell that does not fit
        return value

    return parse


_CELL_TYPE: dict[str, Callable[[str], object]] = {
    **dict.fromkeys(BOOLEAN_FIELDS, _cell_boolean),
    **dict.fromkeys(LIST_FIELDS, _cell_json(list)),
    "extras": _cell_json(dict),
    "order_count": _cell_number,
}
_CELL_REASON = {
    **dict.fromkeys(BOOLEAN_FIELDS, "must be true or false"),
    **dict.fromkeys(LIST_FIELDS, 'must be a JSON array of texts, such as ["vip"]'),
    "extras": "must be a JSON object",
    "order_count": "must be a whole number in digits",
}


def _read_parquet(name: str, stream: BinaryIO, columns: Mapping[str, tuple[str, ...]] | None) -> Iterator[object]:
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise BubblehousePermanentError(
            f"{name} is Parquet, which needs: pip install 'airflow-provider-bubblehouse[parquet]'"
        ) from None
    row = 0
    try:
        file = ParquetFile(stream)
        header = file.schema_arrow.names
        wanted = columns if columns is not None else {column: (column,) for column in header}
        _check_columns(name, header, wanted)
        for batch in file.iter_batches(batch_size=_CHUNK_ROWS, columns=list(wanted)):
            records = batch.to_pylist()
            row += len(records)
            yield from records
    except (pyarrow.ArrowException, ValueError):
        raise BubblehousePermanentError(
            f"{name}, after row {row}: this is no whole Parquet file, or holds times finer than a microsecond."
        ) from None


def _canonical(record: object) -> bytes:
    """Return a record as bytes that are the same in every process."""
    try:
        return msgspec.json.encode(record, enc_hook=repr)
    except (TypeError, ValueError, RecursionError):  # names that are no text, or text that UTF-8 cannot hold
        return repr(record).encode(errors="surrogatepass")


def _targets(column_map: ColumnMap | None) -> dict[str, tuple[str, ...]] | None:
    """Read a column map: column to the path of its field, ``extras.city`` being ``("extras", "city")``."""
    if column_map is None:
        return None
    targets: dict[str, tuple[str, ...]] = {}
    for column, field in column_map.items():
        path = tuple(field.split(".")) if isinstance(field, str) else ()
        if not isinstance(column, str) or not path or not all(path):
            raise BubblehousePermanentError(
                "column_map goes from a column's name to a field's name, such as {'CustomerId': 'id'}."
            )
        for other in targets.values():
            shorter = min(len(path), len(other))
            if path[:shorter] == other[:shorter]:
                raise BubblehousePermanentError(f"column_map fills {field} from more than one column.")
        targets[column] = path
    if not targets:
        raise BubblehousePermanentError("column_map is empty; leave it out to send each column under its own name.")
    return targets


class _Renamer:
    """Brings records under the names of a column map; ``None`` leaves them as they are."""

    def __init__(self, targets: Mapping[str, tuple[str, ...]] | None) -> None:
        self._targets = targets
        self._unseen: set[str] | None = None  # until there is a record

    def __call__(self, records: Iterable[object]) -> Iterator[object]:
        if self._targets is None:
            return iter(records)
        return (self._renamed(record, self._targets) for record in records)

    def _renamed(self, record: object, targets: Mapping[str, tuple[str, ...]]) -> object:
        if not isinstance(record, Mapping):
            return record
        if self._unseen is None:
            self._unseen = set(targets)
        if self._unseen:
            self._unseen.difference_update(record)
        renamed: dict[str, Any] = {}
        for column, path in targets.items():
            if column in record:
                _put(renamed, path, record[column])
        return renamed

    def warn_of_unseen(self) -> None:
        """Warn, once, of names that no record had: each may be optional there, or a slip."""
        if self._unseen:
            log.warning("column_map names what no row has: %s", ", ".join(sorted(self._unseen)))
            self._unseen.clear()


def _put(record: dict[str, Any], path: tuple[str, ...], value: object) -> None:
    for name in path[:-1]:
        record = record.setdefault(name, {})
    record[path[-1]] = value
