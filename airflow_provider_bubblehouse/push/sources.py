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
import re
import zlib
from collections.abc import Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import msgspec

from airflow_provider_bubblehouse.api.customers import InvalidCustomerError
from airflow_provider_bubblehouse.exceptions import BubblehousePermanentError
from airflow_provider_bubblehouse.push.chunks import Cell, CsvLines, JsonLines, Layout, Records, Table, fields_of, put

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from airflow_provider_bubblehouse.push.chunks import Chunk

log = logging.getLogger(__name__)

FILE_FORMATS = ("auto", "jsonl", "json", "csv", "parquet", "rejected")
ColumnMap = Mapping[str, str]

_FORMAT_BY_SUFFIX = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
CHUNK_ROWS = 1000  # rows held at once, so that the work a chunk costs is small beside that of its rows
BLOCK_BYTES = 64 * 1024  # what is worked on at once: of more, the C library asks the system for memory each time
_READ_BYTES = 4 * BLOCK_BYTES  # what is read at once: at each read the lanes take over, which costs more than it does
_MAX_ROW_BYTES = 16 * 1024 * 1024  # far beyond any call; bounds the memory that a file without line ends takes
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_UTF8_MARK = b"\xef\xbb\xbf"
_BLANKS = b" \t\r\n"


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

    def urls(self) -> Mapping[str, str]:
        """Return the URL of every file by its name, in the order in which they are read."""


class ListSource:
    """
    Rows in memory.

    :param records: mappings of Customer2's fields, or of the columns that ``column_map`` names.
    :param column_map: see ``FileSource``.
    """

    def __init__(self, records: Sequence[object], *, column_map: ColumnMap | None = None) -> None:
        self._records = records
        self._renamer = _Renamer(targets_of(column_map))
        self._read = 0

    def chunks(self) -> Iterator[Chunk]:
        self._read = 0
        records = self._renamer(self._records)
        while some := list(islice(records, CHUNK_ROWS)):
            self._read += len(some)
            yield Records("", some)
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

    def urls(self) -> Mapping[str, str]:
        return {}


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
        self._columns = targets_of(column_map)
        self._renamer = _Renamer(self._columns)
        self._files = [(name, _format_of(name, file_format)) for name in _find(filesystem, path)]
        self._sizes: list[int | None] = []
        self._position: Callable[[], int] = int

    def chunks(self) -> Iterator[Chunk]:
        self._sizes = [size for _, size, _ in self.version()]
        before = 0
        for (name, file_format), size in zip(self._files, self._sizes, strict=True):
            with _open(self._filesystem, name, seekable=file_format == "parquet") as (raw, stream):
                if stream is not None:
                    self._position = partial(_position, raw, before)
                    yield from self._read(name, file_format, stream)
            before += size or 0
            self._position = partial(int, before)
        self._renamer.warn_of_unseen()

    def _read(self, name: str, file_format: str, stream: BinaryIO) -> Iterator[Chunk]:
        if file_format == "jsonl" and self._columns is None:
            return _read_jsonl(name, stream)
        if file_format == "csv":
            return _read_csv(name, stream, self._columns)
        blocks: Iterator[Iterable[object]]
        if file_format == "json":
            blocks = _read_json(name, stream)
        elif file_format == "parquet":
            blocks = _read_parquet(name, stream, self._columns)
        else:
            blocks = (lines.records() for lines in _read_jsonl(name, stream))
            if file_format == "rejected":
                blocks = (map(_mended, records) for records in blocks)
        return (Records(name, list(self._renamer(records))) for records in blocks)

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

    def urls(self) -> Mapping[str, str]:
        """Return the URL of every file by its name, such as ``s3://bucket/key.csv``, without what lets one in."""
        return {name: self._filesystem.unstrip_protocol(name) for name, _ in self._files}


def _position(raw: BinaryIO, before: int) -> int:
    return before + (0 if raw.closed else raw.tell())  # what reads text closes its file at the end


def no_filesystem_error(path: object) -> BubblehousePermanentError:
    """Return what to raise where there is no file system for a URL."""
    return BubblehousePermanentError(
        f"There is no file system for {path}; s3:// needs pip install 'airflow-provider-bubblehouse[s3]', gs:// needs "
        "[gcs], others the provider of their own."
    )


def _find(filesystem: Any, path: str) -> list[str]:
    kind = _kind(filesystem, path)
    if kind == "file":
        return [path]
    if kind is not None:
        raise BubblehousePermanentError(f"{path} is a folder; add a pattern such as /*.csv for the files in it.")
    wildcard = re.search(r"[*?[]", path)
    if wildcard is None:
        raise BubblehousePermanentError(f"There is no file {path}.")
    found = filesystem.glob(path, detail=True)
    names = sorted(name for name, info in found.items() if info.get("type") == "file")
    if not names:
        folder = path[: wildcard.start()].rpartition("/")[0]
        if folder and _kind(filesystem, folder) is not None:
            filesystem.ls(folder)  # fsspec's glob takes a folder that cannot be listed for an empty one
        raise BubblehousePermanentError(f"No file matches {path}.")
    return names


def _kind(filesystem: Any, path: str) -> str | None:
    """Return whether a path is a file or a directory, None where there is neither; ``isfile`` hides an outage."""
    try:
        kind: str = filesystem.info(path)["type"]
    except FileNotFoundError:
        return None
    return kind


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
            stream: Any = gzip.GzipFile(fileobj=raw) if name.lower().endswith(".gz") else raw
            with io.BufferedReader(stream, _READ_BYTES) as buffered:
                start = buffered.peek(4)
                if start.startswith(_UTF16_MARKS) or b"\0" in start[:2]:
                    raise BubblehousePermanentError(f"{name} is UTF-16, not UTF-8; save it as UTF-8.")
                if start.startswith(_UTF8_MARK):
                    buffered.read(len(_UTF8_MARK))
                yield raw, buffered if start else None
    except FileNotFoundError:
        raise BubblehousePermanentError(f"There is no file {name} any more.") from None
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise BubblehousePermanentError(f"{name} is no whole gzip file; compress it again.") from None


def _read_jsonl(name: str, stream: BinaryIO) -> Iterator[JsonLines]:
    fields: frozenset[str] | None = None
    begun = False
    for text in _whole_lines(name, stream):
        if not begun and (start := text.lstrip()):
            begun = True
            fields = fields_of(start.partition(b"\n")[0])
            if start.startswith(b"["):
                raise BubblehousePermanentError(
                    f"{name} begins as a JSON array, not as one JSON object a line; set file_format='json'."
                )
        yield JsonLines(name, text, fields)


def _whole_lines(name: str, stream: BinaryIO, *, ends: bytes = b"\n") -> Iterator[bytes]:
    """Yield blocks of whole lines; each of ``ends`` ends a line."""
    rest: list[bytes] = []
    size = 0
    while block := stream.read(BLOCK_BYTES):
        end = max(map(block.rfind, ends)) + 1
        if end:
            yield b"".join((*rest, memoryview(block)[:end]))
            rest, size = [], 0
        rest.append(block[end:])
        size += len(block) - end
        if size > _MAX_ROW_BYTES:
            raise BubblehousePermanentError(f"{name} has a line of more than 16 MiB; are its line ends lost?")
    if size:
        yield b"".join(rest)


def _mended(record: object) -> object:
    """Return the customer in a line of a rejected row (see ``push.rejected``)."""
    if isinstance(record, InvalidCustomerError):
        return record
    if not isinstance(record, Mapping) or "customer" not in record:
        return InvalidCustomerError("the line is no rejected row: it has no customer", record=record)
    return record["customer"]


def _read_json(name: str, stream: BinaryIO) -> Iterator[list[object]]:
    scanner = _JsonScanner(io.TextIOWrapper(stream, encoding="utf-8", errors="surrogateescape", newline=""))
    if not (start := scanner.next_token()):
        return
    if start != "[":
        raise BubblehousePermanentError(
            f"{name} is not a JSON array; if it has one JSON object a line, set file_format='jsonl'."
        )
    scanner.take()
    row, begin = 0, scanner.taken
    some: list[object] = []
    try:
        separator = scanner.take() if scanner.next_token() == "]" else ","
        while separator == ",":
            row += 1
            some.append(scanner.value())
            separator = scanner.take()
            if len(some) == CHUNK_ROWS or scanner.taken - begin >= _READ_BYTES:
                yield some
                some, begin = [], scanner.taken
        if separator != "]" or scanner.next_token():
            raise ValueError
        yield some
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
        self._dropped = 0

    @property
    def taken(self) -> int:
        """How many characters have been taken."""
        return self._dropped + self._position

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
        more = self._text.read(max(BLOCK_BYTES, len(rest)))  # doubling: a long value is not decoded too often
        self._dropped += self._position
        self._buffer, self._position = rest + more, 0
        return bool(more)


def _read_csv(name: str, stream: BinaryIO, columns: Mapping[str, tuple[str, ...]] | None) -> Iterator[CsvLines | Table]:
    lines, rest = 0, ""
    layout: Layout | None = None
    for block in _whole_lines(name, stream, ends=b"\r\n"):
        if layout is not None and not rest and (text := _text_without_quotes(block)) is not None:
            count = text.count("\n")
            lines += count
            yield CsvLines(name, layout, text, count)
            continue
        # Bytes that are no UTF-8 become lone surrogates, so that encoding the customer finds the field they stand in.
        rows, whole, rest, fault = _csv_rows(rest + block.decode(errors="surrogateescape"))
        if layout is None and rows:
            layout = _layout(name, rows.pop(0), columns)
        if layout is not None and rows:
            yield Table(name, layout, rows)
        lines += whole
        if fault:
            raise _broken_csv_error(name, lines + 1, fault)
    if rest:
        raise _broken_csv_error(name, lines + 1, "a quote that is never closed")


_WITHIN_QUOTES = "unexpected end of data"  # the csv module's words, which has no class for it
_TOO_LONG = "a quote that is never closed, or a cell of more than a million characters"
_MAX_CELL_CHARACTERS = 1024 * 1024  # a cell in quotes is read again with each further block of it


def _text_without_quotes(block: bytes) -> str | None:
    """Return the lines of a block that need no more than to be split at their commas, which takes less than half."""
    if b'"' in block:
        return None
    try:
        text = block.decode()
    except UnicodeDecodeError:
        return None
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text if text.endswith("\n") else text + "\n"


def _csv_rows(text: str) -> tuple[list[list[str]], int, str, str]:
    """Return a text's rows, the number of their lines, the rest where it ends within quotes, and a fault if any."""
    lines = list(io.StringIO(text, newline=""))
    rows: list[list[str]] = []
    whole, fault = 0, ""
    limit = csv.field_size_limit(_MAX_CELL_CHARACTERS)
    try:
        reader = csv.reader(lines, strict=True)
        for row in reader:
            whole = reader.line_num
            if row:
                rows.append(row)
    except csv.Error as error:
        if str(error) != _WITHIN_QUOTES:
            fault = _TOO_LONG if "limit" in str(error) else str(error)
    finally:
        csv.field_size_limit(limit)
    return rows, whole, "".join(lines[whole:]), fault


def _layout(name: str, header: list[str], columns: Mapping[str, tuple[str, ...]] | None) -> Layout:
    if len(header) == 1 and re.search(r"[;\t|]", header[0]):
        raise BubblehousePermanentError(f"{name} has no commas between its cells; save it with commas.")
    if columns is None:
        columns = {column: (column,) for column in header}
    check_columns(name, header, columns)
    cells = [Cell(place, columns[column]) for place, column in enumerate(header) if column in columns]
    return Layout(cells, width=len(header))


def _broken_csv_error(name: str, line: int, fault: str) -> BubblehousePermanentError:
    return BubblehousePermanentError(
        f"{name}, line {line}: the CSV is broken here, so the rows from there on cannot be read ({fault})."
    )


def check_columns(name: str, header: Sequence[str], columns: Mapping[str, tuple[str, ...]]) -> None:
    """
    See that the columns to send are there, once each. Names from the source are not shown: they may be a row.

    :param name: what to call the source.
    :param header: its columns.
    :param columns: those to send, with their fields (see ``targets_of``).
    :raises BubblehousePermanentError: if they are not.
    """
    if missing := [column for column in columns if column not in header]:
        raise BubblehousePermanentError(f"{name} lacks columns that column_map names: {', '.join(missing)}.")
    twice = [place for place, column in enumerate(header, 1) if column in columns and column in header[: place - 1]]
    if twice:
        raise BubblehousePermanentError(f"{name} has the same name in column {twice[0]} as before.")
    if not {("id",), ("email",)} & set(columns.values()):
        raise BubblehousePermanentError(
            f"{name} has no column for id or email; name the column in column_map. (A CSV needs a header.)"
        )
    for place, column in enumerate(header, 1):
        if columns.get(column) == (column,) and column != column.strip():
            raise BubblehousePermanentError(f"{name}: the name of column {place} has a blank before or after it.")
        if column in columns and not column:
            raise BubblehousePermanentError(f"{name}: column {place} has no name.")


def _read_parquet(name: str, stream: BinaryIO, columns: Mapping[str, tuple[str, ...]] | None) -> Iterator[list[object]]:
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
        check_columns(name, header, wanted)
        for batch in file.iter_batches(batch_size=CHUNK_ROWS, columns=list(wanted)):
            records = batch.to_pylist()
            row += len(records)
            yield records
    except (pyarrow.ArrowException, ValueError, OSError) as error:
        if isinstance(error, OSError) and (type(error) is not OSError or error.errno is not None):
            raise  # the store's; pyarrow's own, of a page that is broken, has neither class nor number
        raise BubblehousePermanentError(
            f"{name}, after row {row}: this is no whole Parquet file, or holds times finer than a microsecond."
        ) from None


def _canonical(record: object) -> bytes:
    """Return a record as bytes that are the same in every process."""
    try:
        return msgspec.json.encode(record, enc_hook=repr)
    except (TypeError, ValueError, RecursionError):  # names that are no text, or text that UTF-8 cannot hold
        with suppress(ValueError):  # a number that is too long to be written out, and no row is sent with
            return repr(record).encode(errors="surrogatepass")
        return b""


def targets_of(column_map: ColumnMap | None) -> dict[str, tuple[str, ...]] | None:
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
                put(renamed, path, record[column])
        return renamed

    def warn_of_unseen(self) -> None:
        """Warn, once, of names that no record had: each may be optional there, or a slip."""
        if self._unseen:
            log.warning("column_map names what no row has: %s", ", ".join(sorted(self._unseen)))
            self._unseen.clear()
