"""CSV in any dialect. An empty cell, or one of blanks, is absent."""

from __future__ import annotations

import csv
import io
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import UNSET

from airflow_provider_bubblehouse.customers.blocks import Block
from airflow_provider_bubblehouse.customers.fields import FIELD_NAMES, CanonicalFields
from airflow_provider_bubblehouse.customers.invalid import InvalidCustomerError
from airflow_provider_bubblehouse.customers.nested import Objects
from airflow_provider_bubblehouse.customers.values import are_clean_texts
from airflow_provider_bubblehouse.errors import PermanentError
from airflow_provider_bubblehouse.formats.blocks import whole_lines
from airflow_provider_bubblehouse.formats.encoding import Utf8Stream, without_utf8_marks
from airflow_provider_bubblehouse.formats.wrong_dialect import (
    better_encoding,
    better_options,
    likely_delimiter,
    option,
    refuse_other_encoding,
    warn_of_likely_utf8,
)
from airflow_provider_bubblehouse.plural import plural
from airflow_provider_bubblehouse.sources.columns import check_columns, id_column_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence, Set

    from airflow_provider_bubblehouse.customers.blocks import Path
    from airflow_provider_bubblehouse.formats.dialect import Dialect

_WITHIN_QUOTES = "unexpected end of data"  # the csv module's words, which has no class for it
_NEVER_CLOSED = "a quote that is never closed"
_TOO_LONG = "a quote that is never closed, or a cell of more than a million characters"
_AFTER_QUOTE = "a closing quote is followed by other text"
_MAX_CELL_CHARACTERS = 1024 * 1024  # a cell in quotes is read again with each further block of it

_BLANKS = "\t\v\f\x1c\x1d\x1e\x1f "  # in ASCII, but for line ends, of which a cell without quotes has none

# A cell's text becomes longer in JSON by escapes and by what a rule adds, such as the offset of a time.
_LONGEST_ESCAPE = len("\\u0000")
_LONGEST_ADDITION = len('":{"":"",') + len("+00:00:00")


def read_csv(
    name: str, stream: io.BufferedReader, columns: Mapping[str, Path] | None, dialect: Dialect
) -> Iterator[Block]:
    """
    Yield the rows of a CSV.

    :param name: the file's name.
    :param stream: the file.
    :param columns: column to field, None to send each column under its own name.
    :param dialect: how the file is written.
    :raises PermanentError: if the rest of the file cannot be read.
    """
    file = _File(name, stream.peek(1), columns, dialect)
    refuse_other_encoding(name, file.start, dialect)
    warn_of_likely_utf8(name, file.start, dialect)
    parser = _Parser(dialect)
    lines, rest = dialect.skip_rows, ""
    table: Table | None = None
    for block in _blocks(name, stream, dialect):
        if table is None and dialect.column_names is not None:
            table = _table(file, dialect.column_names)
        if table is not None and not rest and not parser.is_needed_for(block):
            found = table.block_of_lines(block)
            if found is not None:
                lines += block.count(b"\n") or block.count(b"\r")
                yield found
                continue
        # Bytes that are not UTF-8 become lone surrogates, so that the rules find the field that they are in.
        text = rest + block.decode(errors="surrogateescape")
        rows, whole, rest, fault = parser.rows(text)
        if table is None and rows:
            table = _table(file, [parser.unescaped(column) for column in rows.pop(0)])
        if table is not None and rows:
            yield table.block_of_rows(rows, text)
        lines += whole
        if fault:
            raise _broken_csv_error(file, lines + 1, fault, rest, in_header=table is None)
    if rest:
        raise _broken_csv_error(file, lines + 1, _NEVER_CLOSED, rest, in_header=table is None)


class _File(NamedTuple):
    """
    What is known about a CSV file before its rows are read.

    :param name: its name.
    :param start: its first bytes.
    :param columns: column to field, None to send each column under its own name.
    :param dialect: how it is written.
    """

    name: str
    start: bytes
    columns: Mapping[str, Path] | None
    dialect: Dialect


def _blocks(name: str, stream: io.BufferedReader, dialect: Dialect) -> Iterator[bytes]:
    """Yield whole lines as UTF-8, without the lines to skip and without byte order marks before and after these."""
    to_skip, at_start = dialect.skip_rows, True
    text = stream if dialect.is_utf8 else Utf8Stream(stream, dialect.encoding)
    for lines in whole_lines(name, text, ends=b"\r\n"):
        block = lines
        if at_start:
            block = without_utf8_marks(block)
            if to_skip:
                split = block.splitlines(keepends=True)
                block = without_utf8_marks(b"".join(split[to_skip:]))
                to_skip -= min(to_skip, len(split))
            at_start = not block
        if block:
            yield block


class _Parser:
    """
    Splits text into the cells of its rows, with their escapes, as Python's csv module does.

    :param dialect: how the text is written.
    """

    def __init__(self, dialect: Dialect) -> None:
        quote, escape, delimiter = dialect.quote_char, dialect.escape_char, dialect.delimiter
        self._format: dict[str, Any] = {
            "delimiter": delimiter,
            "quotechar": quote,
            "escapechar": escape,
            "quoting": csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE,
            "strict": True,
        }
        self._escape = escape
        self._escape_pair = re.compile(re.escape(escape or "") + "(.)", re.DOTALL)
        # Without any of these, all delimiters and line ends in a text separate cells and rows.
        special = [quote] if quote else []
        special += [escape + character for character in (delimiter, "\r", "\n")] if escape else []
        self._special = [text.encode() for text in special]

    def is_needed_for(self, block: bytes) -> bool:
        """Say whether splitting at delimiters and line ends may give other cells than this parser."""
        if self._escape is not None and block.endswith(self._escape.encode()):
            return True
        return any(text in block for text in self._special)

    def unescaped(self, cell: str) -> str:
        """Return a cell without its escape characters."""
        return cell if self._escape is None else self._escape_pair.sub(r"\1", cell)

    def rows(self, text: str) -> tuple[list[list[str]], int, str, str]:
        """
        Return the rows of a text.

        :param text: whole lines.
        :return: the rows, the number of their lines, the rest if it ends within quotes or is broken, and its fault.
        """
        lines = list(io.StringIO(text, newline=""))
        rows: list[list[str]] = []
        whole, fault = 0, ""
        limit = csv.field_size_limit(_MAX_CELL_CHARACTERS)
        try:
            reader = csv.reader(self._with_escapes_kept(text, lines), **self._format)
            for row in reader:
                whole = reader.line_num
                if row:
                    rows.append(row)
        except csv.Error as error:
            if str(error) != _WITHIN_QUOTES:
                fault = _TOO_LONG if "limit" in str(error) else _AFTER_QUOTE
        finally:
            csv.field_size_limit(limit)
        return rows, whole, "".join(lines[whole:]), fault

    def _with_escapes_kept(self, text: str, lines: list[str]) -> Iterable[str]:
        """Return lines of which the reader, which removes an escape character, leaves what was escaped and how."""
        if self._escape is None or self._escape not in text:
            return lines
        escape = self._escape
        return io.StringIO(self._escape_pair.sub(lambda pair: escape * 3 + pair[1], text), newline="")


def _table(file: _File, header: Sequence[str]) -> Table:
    """
    Return the columns of a CSV.

    :raises PermanentError: if columns are missing.
    """
    targets = file.columns if file.columns is not None else {column: (column,) for column in header}
    try:
        check_columns(file.name, header, targets)
    except PermanentError as error:
        raise _header_error(file, header, str(error)) or error from None
    places: dict[Path | str, int] = {}
    nested: dict[Path, str] = {}
    for column, path in targets.items():
        if column in header:
            places[path] = header.index(column)
        else:  # a field of the objects in another column
            nested[path], head = column, column.partition(".")[0]
            places[head] = header.index(head)
    return Table(file, len(header), places, nested)


def _header_error(file: _File, header: Sequence[str], fault: str) -> PermanentError | None:
    """Return what to raise if another option would give the columns that are missing; None if none would."""
    if file.dialect.column_names is not None:
        return None
    if better := better_options(file.start, file.columns, file.dialect):
        return _other_dialect_error(file, better)
    columns = file.columns or {name: (name,) for name in FIELD_NAMES}
    names = {name.casefold() for column, path in columns.items() for name in (column, ".".join(path))}
    known = names.intersection(column.strip().casefold() for column in header)
    enough = 1 if file.columns or {"id", "email"} & known else 2  # a row may have a cell such as "phone"
    if len(known) < enough:
        example = [*list(file.columns or ("id", "email"))[:2], "…"]
        return PermanentError(f"{fault} If the file has no header, set {option({'column_names': example})}.")
    return None


def _other_dialect_error(file: _File, better: Mapping[str, Any]) -> PermanentError:
    return PermanentError(f"{file.name} is written in another CSV dialect: set {option(better)}.")


class Table:
    """
    The columns of a CSV.

    :param file: the file.
    :param width: how many cells a row has.
    :param places: of each field that is sent, and of each column that holds objects, the place of its cell in a row.
    :param nested: the column of each field that is within such an object, such as ``traits.email``.
    """

    def __init__(self, file: _File, width: int, places: Mapping[Path | str, int], nested: Mapping[Path, str]) -> None:
        self._file = file
        self._dialect = file.dialect
        self._width = width
        self._places = places
        self._nested = nested
        paths = [path for path in places if isinstance(path, tuple)]
        self._texts = frozenset(paths)
        self._id_column = id_column_of(file.columns)
        self._parser = _Parser(file.dialect)
        names = ",".join(name for path in (*paths, *nested) for name in path)
        self._not_utf8_names = "" if are_clean_texts([names]) else self._not_utf8(names)
        self._canonical = CanonicalFields(paths, texts_only=True)
        self._blanks = _BLANKS.replace(file.dialect.delimiter, "")
        # Bytes that the names in a row do not exceed as JSON, with what rules add to values.
        self._names_size = sum(
            len(name) * _LONGEST_ESCAPE + _LONGEST_ADDITION for path in (*paths, *nested) for name in path
        )

    def block_of_lines(self, block: bytes) -> Block | None:
        """
        Return rows that only have to be split at their delimiters, because they have no quotes.

        :param block: whole lines; empty ones are not rows.
        :return: the rows, None if they are not UTF-8.
        """
        delimiter, width = self._dialect.delimiter, self._width
        try:
            lines = block.decode()
        except UnicodeDecodeError:
            return None
        has_returns = "\r" in lines
        if has_returns:
            text = lines.replace("\r", delimiter).replace("\n", "\n" + delimiter)
        else:
            text = lines.replace("\n", f"{delimiter}\n{delimiter}")
        count, cells = text.count("\n"), text.split(delimiter)
        # All rows have as many cells if all line feeds, now cells of their own, are where that puts them.
        fits = len(cells) == count * (width + 1) + 1 and cells[width :: width + 1].count("\n") == count
        if (
            has_returns
        ):  # which have become delimiters; so each has to be before a line feed, and each line feed after one
            fits = fits and count == lines.count("\r") == lines.count("\r\n")
        if not fits or not block.endswith(b"\n") or (width == 1 and "" in cells[:-1]):
            text = lines.replace("\r\n", "\n").replace("\r", "\n")
            return self.block_of_rows([line.split(delimiter) for line in text.split("\n") if line], text)
        columns = {path: cells[place : -1 : width + 1] for path, place in self._places.items()}
        may_be_blank = not text.isascii() or any(blank in text for blank in self._blanks)
        return self._block(columns, count, text, may_be_blank=may_be_blank)

    def block_of_rows(self, rows: list[list[str]], text: str) -> Block:
        """
        Return rows that are split into cells already.

        :param rows: the cells of each row.
        :param text: the text that they come from.
        """
        broken: dict[int, InvalidCustomerError] = {}
        if set(map(len, rows)) != {self._width}:
            nothing = [""] * self._width
            broken = {place: self._wrong_width(row) for place, row in enumerate(rows) if len(row) != self._width}
            rows = [nothing if place in broken else row for place, row in enumerate(rows)]
        cells = list(zip(*rows, strict=True)) or [()] * self._width
        columns = {path: cells[place] for path, place in self._places.items()}
        return self._block(columns, len(rows), text, broken, may_be_blank=True)

    def _wrong_width(self, row: list[str]) -> InvalidCustomerError:
        names = "the header has" if self._dialect.column_names is None else "column_names has"
        reason = f"the row has {plural(len(row), 'cell')}, but {names} {self._width}"
        if len(row) == 1 and (better := likely_delimiter(row[0], self._dialect)):
            reason += f"; set {option({'delimiter': better})}"
        return InvalidCustomerError(reason, record=row)

    def _block(
        self,
        columns: Mapping[Path | str, Sequence[str]],
        count: int,
        text: str,
        broken: Mapping[int, InvalidCustomerError] | None = None,
        *,
        may_be_blank: bool,
    ) -> Block:
        clean = are_clean_texts([text])
        values = self._values(columns, text)
        cells = {path: _given(some, may_be_blank=may_be_blank) for path, some in values.items()}
        return Block(
            file=self._file.name,
            count=count,
            columns=self._by_field(cells),
            broken=broken or {},
            clean=clean,
            canonical=self._canonical.in_csv(text) if clean else frozenset(),
            texts=self._texts,
            bound=self._names_size + len(text) * _LONGEST_ESCAPE,
            id_column=self._id_column,
            not_utf8=self._not_utf8_names if clean else self._not_utf8(text),
        )

    def _by_field(self, cells: Mapping[Path | str, Sequence[Any]]) -> Mapping[Path, Sequence[Any]]:
        """Return the values of each field, also of those within objects."""
        objects = Objects(lambda head: cells[head])
        by_field = {path: some for path, some in cells.items() if isinstance(path, tuple)}
        return by_field | {path: objects.cells(column) for path, column in self._nested.items()}

    def _values(self, columns: Mapping[Path | str, Sequence[str]], text: str) -> Mapping[Path | str, Sequence[str]]:
        """Return cells without escape characters, and empty ones in place of null values."""
        escape, quote = self._dialect.escape_char, self._dialect.quote_char
        nulls = {null for null in self._dialect.null_values if null in text or (quote and quote in null)}
        if nulls:
            columns = {path: _without(nulls, cells) for path, cells in columns.items()}
        if escape is None or escape not in text:
            return columns
        unescaped = self._parser.unescaped
        return {
            path: [unescaped(cell) if escape in cell else cell for cell in cells] for path, cells in columns.items()
        }

    def _not_utf8(self, text: str) -> str:
        """Say what is wrong with a cell that is not in the file's encoding, and which option would fix it."""
        is_utf8 = self._dialect.is_utf8
        data = text.encode(errors="surrogateescape") if is_utf8 else self._file.start
        better = better_encoding(data, self._dialect)
        advice = option({"encoding": better}) if better else "its encoding in csv"
        if is_utf8:
            return f"is not UTF-8 text; save the source as UTF-8, or set {advice}"
        return f"is not {self._dialect.encoding.upper()} text; set {advice}"


def _without(nulls: Set[str], cells: Sequence[str]) -> Sequence[str]:
    return cells if nulls.isdisjoint(cells) else ["" if cell in nulls else cell for cell in cells]


def _given(cells: Sequence[str], *, may_be_blank: bool) -> Sequence[Any]:
    """Return cells with UNSET in place of the empty and blank ones."""
    if all(cells) and not (may_be_blank and True in map(str.isspace, cells)):
        return cells
    return [cell if cell and not cell.isspace() else UNSET for cell in cells]


def _broken_csv_error(file: _File, line: int, fault: str, rest: str, *, in_header: bool) -> PermanentError:
    """
    Return what to raise for a CSV that is broken.

    :param rest: its text from the beginning of the broken row.
    """
    if in_header and (better := better_options(file.start, file.columns, file.dialect)):
        return _other_dialect_error(file, better)
    advice = ""
    if file.dialect.escape_char is None and f"\\{file.dialect.quote_char}" in rest:
        advice = f" A backslash stands before a quote there; set {option({'escape_char': chr(92)})}."
    return PermanentError(
        f"{file.name}, line {line}: the CSV is broken here, so the rows from there on cannot be read ({fault}).{advice}"
    )
