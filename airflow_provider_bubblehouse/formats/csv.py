"""CSV with a header. An empty cell, or one of blanks, is absent."""

from __future__ import annotations

import csv
import io
import re
from typing import TYPE_CHECKING, Any, BinaryIO

from msgspec import UNSET

from airflow_provider_bubblehouse.customers.blocks import Block
from airflow_provider_bubblehouse.customers.fields import CanonicalFields
from airflow_provider_bubblehouse.customers.invalid import InvalidCustomerError
from airflow_provider_bubblehouse.customers.values import are_clean_texts
from airflow_provider_bubblehouse.errors import PermanentError
from airflow_provider_bubblehouse.formats.blocks import whole_lines
from airflow_provider_bubblehouse.sources.columns import check_columns, id_column_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from airflow_provider_bubblehouse.customers.blocks import Path

_WITHIN_QUOTES = "unexpected end of data"  # the csv module's words, which has no class for it
_TOO_LONG = "a quote that is never closed, or a cell of more than a million characters"
_MAX_CELL_CHARACTERS = 1024 * 1024  # a cell in quotes is read again with each further block of it

_CARRIAGE_RETURN_AS_COMMA = bytes.maketrans(b"\r", b",")
_BLANKS = "\t\v\f\x1c\x1d\x1e\x1f "  # in ASCII, but for line ends, of which a cell without quotes has none

# A cell's text becomes longer in JSON by escapes and by what a rule adds, such as the offset of a time.
_LONGEST_ESCAPE = len("\\u0000")
_LONGEST_ADDITION = len('":{"":"",') + len("+00:00:00")


def read_csv(name: str, stream: BinaryIO, columns: Mapping[str, Path] | None) -> Iterator[Block]:
    """
    Yield the rows of a CSV.

    :param name: the file's name.
    :param stream: the file.
    :param columns: column to field, None to send each column under its own name.
    :raises PermanentError: if the rest of the file cannot be read.
    """
    lines, rest = 0, ""
    table: Table | None = None
    for block in whole_lines(name, stream, ends=b"\r\n"):
        if table is not None and not rest and b'"' not in block:
            found = table.block_of_lines(block)
            if found is not None:
                lines += block.count(b"\n") or block.count(b"\r")
                yield found
                continue
        # Bytes that are not UTF-8 become lone surrogates, so that the rules find the field that they are in.
        text = rest + block.decode(errors="surrogateescape")
        rows, whole, rest, fault = _csv_rows(text)
        if table is None and rows:
            table = _table(name, rows.pop(0), columns)
        if table is not None and rows:
            yield table.block_of_rows(rows, text)
        lines += whole
        if fault:
            raise _broken_csv_error(name, lines + 1, fault)
    if rest:
        raise _broken_csv_error(name, lines + 1, "a quote that is never closed")


def _csv_rows(text: str) -> tuple[list[list[str]], int, str, str]:
    """Return a text's rows, the number of their lines, the rest if it ends within quotes, and a fault if any."""
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


def _table(name: str, header: list[str], columns: Mapping[str, Path] | None) -> Table:
    if len(header) == 1 and re.search(r"[;\t|]", header[0]):
        raise PermanentError(f"{name} has no commas between its cells; save it with commas.")
    targets = columns if columns is not None else {column: (column,) for column in header}
    check_columns(name, header, targets)
    places = {path: header.index(column) for column, path in targets.items()}
    return Table(name, len(header), places, id_column_of(columns))


class Table:
    """
    The columns of a CSV.

    :param file: the file's name.
    :param width: how many cells a row has.
    :param places: of each field that is sent, the place of its cell in a row.
    :param id_column: the name of the column of ``id``.
    """

    def __init__(self, file: str, width: int, places: Mapping[Path, int], id_column: str) -> None:
        self._file = file
        self._width = width
        self._places = places
        self._id_column = id_column
        self._canonical = CanonicalFields(places, texts_only=True)
        # Bytes that the names in a row do not exceed as JSON, with what rules add to values.
        self._names_size = sum(len(name) * _LONGEST_ESCAPE + _LONGEST_ADDITION for path in places for name in path)

    def block_of_lines(self, block: bytes) -> Block | None:
        """
        Return rows that only have to be split at their commas, because they have no quotes.

        :param block: whole lines; empty ones are not rows.
        :return: the rows, None if they are not UTF-8.
        """
        try:
            if b"\r" in block:
                text = block.translate(_CARRIAGE_RETURN_AS_COMMA).decode().replace("\n", "\n,")
            else:
                text = block.decode().replace("\n", ",\n,")
        except UnicodeDecodeError:
            return None
        width, count, cells = self._width, text.count("\n"), text.split(",")
        # All rows have as many cells if all line feeds, now cells of their own, are where that puts them.
        fits = len(cells) == count * (width + 1) + 1 and cells[width :: width + 1].count("\n") == count
        if not fits or not block.endswith(b"\n") or (width == 1 and "" in cells[:-1]):
            text = block.decode().replace("\r\n", "\n").replace("\r", "\n")
            return self.block_of_rows([line.split(",") for line in text.split("\n") if line], text)
        columns = {path: cells[place : -1 : width + 1] for path, place in self._places.items()}
        may_be_blank = not text.isascii() or any(blank in text for blank in _BLANKS)
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
            for place, row in enumerate(rows):
                if len(row) != self._width:
                    reason = f"the row has {len(row)} cells, but the header has {self._width}"
                    broken[place] = InvalidCustomerError(reason, record=row)
            rows = [nothing if place in broken else row for place, row in enumerate(rows)]
        cells = list(zip(*rows, strict=True)) or [()] * self._width
        columns = {path: cells[place] for path, place in self._places.items()}
        return self._block(columns, len(rows), text, broken, may_be_blank=True)

    def _block(
        self,
        columns: Mapping[Path, Sequence[str]],
        count: int,
        text: str,
        broken: Mapping[int, InvalidCustomerError] | None = None,
        *,
        may_be_blank: bool,
    ) -> Block:
        clean = are_clean_texts([text])
        return Block(
            file=self._file,
            count=count,
            columns={path: _given(cells, may_be_blank=may_be_blank) for path, cells in columns.items()},
            broken=broken or {},
            clean=clean,
            canonical=self._canonical.in_csv(text) if clean else frozenset(),
            texts=self._places.keys(),
            bound=self._names_size + len(text) * _LONGEST_ESCAPE,
            id_column=self._id_column,
        )


def _given(cells: Sequence[str], *, may_be_blank: bool) -> Sequence[Any]:
    """Return cells with UNSET in place of the empty and blank ones."""
    if all(cells) and not (may_be_blank and True in map(str.isspace, cells)):
        return cells
    return [cell if cell and not cell.isspace() else UNSET for cell in cells]


def _broken_csv_error(name: str, line: int, fault: str) -> PermanentError:
    return PermanentError(
        f"{name}, line {line}: the CSV is broken here, so the rows from there on cannot be read ({fault})."
    )
