"""Read CSV in any dialect. An empty or blank cell is absent."""

from __future__ import annotations

import csv
import io
import re
from itertools import chain
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

_WITHIN_QUOTES = "unexpected end of data"  # the message of the csv module, which has no class for this error
_NEVER_CLOSED = "a quote that is never closed"
_TOO_LONG = "a quote that is never closed, or a cell of more than a million characters"
_AFTER_QUOTE = "a closing quote is followed by other text"
_MAX_CELL_CHARACTERS = 1024 * 1024  # a quoted cell is parsed again with each further block

_BLANKS = "\t\v\f\x1c\x1d\x1e\x1f "  # the blanks of ASCII without line ends, which need quotes

# In JSON, a cell is longer by escapes, and by additions of a rule, such as the offset of a time.
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
    :param dialect: the file's dialect.
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
                lines += found.count
                yield found
                continue
        # Bytes that are not UTF-8 become lone surrogates, so that the rules find the field that they are in.
        text = rest + block.decode(errors="surrogateescape")
        rows, whole, rest, fault = parser.rows(text)
        if table is None and rows:
            table = _table(file, [parser.unescaped(column) for column in rows.pop(0)])
        if table is not None and rows:
            yield table.block_of_rows(rows, text, are_lines=len(rows) == whole)
        lines += whole
        if fault:
            raise _broken_csv_error(file, lines + 1, fault, rest, in_header=table is None)
    if rest:
        raise _broken_csv_error(file, lines + 1, _NEVER_CLOSED, rest, in_header=table is None)


class _File(NamedTuple):
    """
    What is known about a CSV file before its rows are read.

    :param name: the file's name.
    :param start: its first bytes.
    :param columns: column to field, None to send each column under its own name.
    :param dialect: its dialect.
    """

    name: str
    start: bytes
    columns: Mapping[str, Path] | None
    dialect: Dialect


def _blocks(name: str, stream: io.BufferedReader, dialect: Dialect) -> Iterator[bytes]:
    """Yield whole lines as UTF-8, without skipped lines, and without byte order marks before or after these."""
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
    Splits text into rows of cells with Python's csv module. Escape characters stay in the cells.

    :param dialect: the dialect of the text.
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
        # In a text without any of these, each delimiter ends a cell, and each line end a row.
        special = [quote] if quote else []
        special += [escape + character for character in (delimiter, "\r", "\n")] if escape else []
        self._special = [text.encode() for text in special]

    def is_needed_for(self, block: bytes) -> bool:
        """Return whether splitting at delimiters and line ends could give other cells than this parser."""
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
        :return: the rows; the number of their lines; the rest of a text that ends within quotes or is broken; and what
            is wrong with this rest.
        """
        lines = list(io.StringIO(text, newline=""))
        rows: list[list[str]] = []
        whole, fault = 0, ""
        quote = self._format["quotechar"]
        may_span_blocks = self._escape is not None or (quote is not None and quote in text)
        limit = csv.field_size_limit(_MAX_CELL_CHARACTERS if may_span_blocks else len(text))
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
        """Return lines with doubled escapes: the reader removes one escape, and ``null_values`` need the other."""
        if self._escape is None or self._escape not in text:
            return lines
        escape = self._escape
        return io.StringIO(self._escape_pair.sub(lambda pair: escape * 3 + pair[1], text), newline="")


def _table(file: _File, header: Sequence[str]) -> Table:
    """
    Return the columns of a CSV file.

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
    """Return the error if another option would find the missing columns; None if no option would."""
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
    The columns of a CSV file.

    :param file: the file.
    :param width: the number of cells in a row.
    :param places: the place in a row of each field that is sent, and of each column that contains objects.
    :param nested: the column of each field within such an object, such as ``traits.email``.
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
        # The maximum size in bytes of the names in a row as JSON, with the additions of rules to values.
        self._names_size = sum(
            len(name) * _LONGEST_ESCAPE + _LONGEST_ADDITION for path in (*paths, *nested) for name in path
        )

    def block_of_lines(self, block: bytes) -> Block | None:
        """
        Split rows without quotes at their delimiters.

        :param block: whole lines.
        :return: the rows, one in each line; None if the csv module has to split them.
        """
        delimiter, width = self._dialect.delimiter, self._width
        try:
            lines = block.decode()
        except UnicodeDecodeError:
            return None
        end, cell = "\r\n" if "\r" in lines else "\n", f"{delimiter}\n{delimiter}"
        text = lines.replace(end, cell)
        count, cells = (len(text) - len(lines)) // (len(cell) - len(end)), text.split(delimiter)
        if "\r" in text or (end == "\r\n" and text.count("\n") > count):  # rows that end in several ways
            return None
        # Each line end is a cell of its own now. If all of them have the right place, all rows have the right width.
        if cells.pop() or len(cells) != count * (width + 1) or cells[width :: width + 1].count("\n") != count:
            return None
        if width == 1 and "" in cells:  # an empty line is not a row
            return None
        columns = {path: cells[place :: width + 1] for path, place in self._places.items()}
        may_be_blank = _may_have_blanks(text, _BLANKS.replace(delimiter, ""))
        return self._block(columns, count, text, may_be_blank=may_be_blank)

    def block_of_rows(self, rows: list[list[str]], text: str, *, are_lines: bool) -> Block:
        """
        Return rows that are already split into cells.

        :param rows: the cells of each row.
        :param text: the text of the rows.
        :param are_lines: whether each of the rows is one line, so that no cell contains a line end.
        """
        broken: dict[int, InvalidCustomerError] = {}
        if set(map(len, rows)) != {self._width}:
            nothing = [""] * self._width
            broken = {place: self._wrong_width(row) for place, row in enumerate(rows) if len(row) != self._width}
            rows = [nothing if place in broken else row for place, row in enumerate(rows)]
        cells = list(chain.from_iterable(rows))
        columns = {path: cells[place :: self._width] for path, place in self._places.items()}
        may_be_blank = not are_lines or _may_have_blanks(text, _BLANKS)  # the delimiter, too: a cell may contain it
        return self._block(columns, len(rows), text, broken, may_be_blank=may_be_blank)

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
        """Return the values of each field, including the fields within objects."""
        objects = Objects(lambda head: cells[head])
        by_field = {path: some for path, some in cells.items() if isinstance(path, tuple)}
        return by_field | {path: objects.cells(column) for path, column in self._nested.items()}

    def _values(self, columns: Mapping[Path | str, Sequence[str]], text: str) -> Mapping[Path | str, Sequence[str]]:
        """Replace null values by empty cells, and remove escape characters."""
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
        """Return the reason for a cell that is not in the file's encoding, with the option that would fix it."""
        is_utf8 = self._dialect.is_utf8
        data = text.encode(errors="surrogateescape") if is_utf8 else self._file.start
        better = better_encoding(data, self._dialect)
        advice = option({"encoding": better}) if better else "its encoding in csv"
        if is_utf8:
            return f"is not UTF-8 text; save the source as UTF-8, or set {advice}"
        return f"is not {self._dialect.encoding.upper()} text; set {advice}"


def _may_have_blanks(text: str, blanks: str) -> bool:
    return not text.isascii() or any(blank in text for blank in blanks)


def _without(nulls: Set[str], cells: Sequence[str]) -> Sequence[str]:
    return cells if nulls.isdisjoint(cells) else ["" if cell in nulls else cell for cell in cells]


def _given(cells: Sequence[str], *, may_be_blank: bool) -> Sequence[Any]:
    """Replace empty and blank cells by UNSET."""
    if all(cells) and not (may_be_blank and True in map(str.isspace, cells)):
        return cells
    return [cell if cell and not cell.isspace() else UNSET for cell in cells]


def _broken_csv_error(file: _File, line: int, fault: str, rest: str, *, in_header: bool) -> PermanentError:
    """
    Return the error for a broken CSV file.

    :param rest: its text from the start of the broken row.
    """
    if in_header and (better := better_options(file.start, file.columns, file.dialect)):
        return _other_dialect_error(file, better)
    advice = ""
    if file.dialect.escape_char is None and f"\\{file.dialect.quote_char}" in rest:
        advice = f" A backslash stands before a quote there; set {option({'escape_char': chr(92)})}."
    return PermanentError(
        f"{file.name}, line {line}: the CSV is broken here, so the rows from there on cannot be read ({fault}).{advice}"
    )
