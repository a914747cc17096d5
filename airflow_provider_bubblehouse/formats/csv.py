"""CSV with a header."""

from __future__ import annotations

import csv
import io
import re
from typing import TYPE_CHECKING, BinaryIO

from airflow_provider_bubblehouse.errors import PermanentError
from airflow_provider_bubblehouse.formats.blocks import whole_lines
from airflow_provider_bubblehouse.push.chunks import Cell, CsvLines, Layout, Table
from airflow_provider_bubblehouse.sources.columns import check_columns

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def read_csv(name: str, stream: BinaryIO, columns: Mapping[str, tuple[str, ...]] | None) -> Iterator[CsvLines | Table]:
    lines, rest = 0, ""
    layout: Layout | None = None
    for block in whole_lines(name, stream, ends=b"\r\n"):
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
        raise PermanentError(f"{name} has no commas between its cells; save it with commas.")
    if columns is None:
        columns = {column: (column,) for column in header}
    check_columns(name, header, columns)
    cells = [Cell(place, columns[column]) for place, column in enumerate(header) if column in columns]
    return Layout(cells, width=len(header))


def _broken_csv_error(name: str, line: int, fault: str) -> PermanentError:
    return PermanentError(
        f"{name}, line {line}: the CSV is broken here, so the rows from there on cannot be read ({fault})."
    )
