"""The column map, from columns of a source to fields of a customer."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgspec import UNSET

from airflow_provider_bubblehouse.customers.field_formats import read_formats
from airflow_provider_bubblehouse.customers.fields import FIELD_NAMES
from airflow_provider_bubblehouse.customers.times import Calendar
from airflow_provider_bubblehouse.errors import PermanentError
from airflow_provider_bubblehouse.plural import plural

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from airflow_provider_bubblehouse.customers.blocks import Block, Path
    from airflow_provider_bubblehouse.customers.field_formats import Formats

log = logging.getLogger(__name__)

ColumnMap = Mapping[str, str]

_COLUMNS_SHOWN = 50
_PLAIN_WORDS = re.compile(r"[^\W\d][\w ./()-]{0,63}")


def targets_of(column_map: ColumnMap | None) -> dict[str, Path] | None:
    """Read a column map: from a column to the path of its field, such as ``("extras", "city")``."""
    if column_map is None:
        return None
    targets: dict[str, Path] = {}
    for column, field in column_map.items():
        path = tuple(field.split(".")) if isinstance(field, str) else ()
        if not isinstance(column, str) or not path or not all(path):
            raise PermanentError(
                "column_map goes from a column's name to a field's name, such as {'CustomerId': 'id'}."
            )
        if len(path) > 1 and path[0] in FIELD_NAMES - {"extras"}:
            raise PermanentError(f"column_map fills {field}, but {path[0]} is not an object; only extras is one.")
        for other in targets.values():
            shorter = min(len(path), len(other))
            if path[:shorter] == other[:shorter]:
                raise PermanentError(f"column_map fills {field} from more than one column.")
        targets[column] = path
    if not targets:
        raise PermanentError("column_map is empty; leave it out to send each column under its own name.")
    return targets


def check_formats(formats: Formats | None, columns: Mapping[str, Path] | None) -> None:
    """
    Refuse formats that cannot work.

    :param formats: field to format (see ``customers.field_formats``).
    :param columns: column to field (see ``targets_of``), None for a source without a column map.
    :raises PermanentError: if a format cannot work, or names a field that the column map does not fill.
    """
    paths = read_formats(formats, Calendar("UTC"))
    for path in paths:
        if columns is not None and not any(path[: len(target)] == target for target in columns.values()):
            raise PermanentError(f"formats names {'.'.join(path)}, which column_map does not fill.")


def check_columns(
    name: str, header: Sequence[str], columns: Mapping[str, Path], *, objects: Collection[str] | None = None
) -> None:
    """
    Check that each column to send exists once. Messages show names of columns unless they may be values of a row.

    :param name: the source's name in messages.
    :param header: its columns.
    :param columns: the columns to send, with their fields (see ``targets_of``).
    :param objects: the columns that may contain objects with any fields; None for all columns.
    :raises PermanentError: if a column is missing, or exists twice.
    """
    if missing := [column for column in columns if not _is_there(column, header, objects)]:
        raise PermanentError(
            f"{name} lacks columns that column_map names: {', '.join(missing)}. {_advice(missing, header, columns)}"
        )
    if "" in columns and "" in header:
        raise PermanentError(f"{name}: column {header.index('') + 1} has no name.")
    twice = [place for place, column in enumerate(header, 1) if column in columns and column in header[: place - 1]]
    if twice:
        raise PermanentError(f"{name} has the same name in column {twice[0]} as before.")
    if not {("id",), ("email",)} & set(columns.values()):
        is_header = len(FIELD_NAMES.intersection(header)) > 1
        advice = _other_case(("id", "email"), header) or (f" {_list_of(header)}" if is_header else "")
        raise PermanentError(f"{name} has no column for id or email; name the column in column_map.{advice}")
    for place, column in enumerate(header, 1):
        if columns.get(column) == (column,) and column != column.strip():
            raise PermanentError(f"{name}: the name of column {place} has a blank before or after it.")


def _advice(missing: Sequence[str], header: Sequence[str], columns: Mapping[str, Path]) -> str:
    """Return advice about a column map that names missing columns."""
    if all(".".join(columns[column]) in header for column in missing):
        return "The map looks reversed: it goes from a column to a field, such as {'CustomerId': 'id'}."
    if other_case := _other_case(missing, header):
        return other_case.strip()
    if columns.keys().isdisjoint(header):  # the first row may not be a header
        return "It has none of them; is there a header?"
    return _list_of(header)


def _other_case(names: Iterable[str], header: Sequence[str]) -> str:
    """List the columns that differ from names only by case, or by blanks around them."""
    by_name = {column.strip().casefold(): column for column in header}
    found = [by_name[name.strip().casefold()] for name in names if name.strip().casefold() in by_name]
    if not found:
        return ""
    return f" It has {', '.join(map(repr, found))}: only the case or a blank differs."


def _list_of(header: Sequence[str]) -> str:
    """List columns, unless they seem to include a row, as in a file without line ends."""
    if any("@" in column or column.isdecimal() for column in header):
        return "Values seem to be among its names of columns; are its line ends lost?"
    shown = [column for column in header if _PLAIN_WORDS.fullmatch(column)][:_COLUMNS_SHOWN]
    others = len(header) - len(shown)
    more = f" and {plural(others, 'more column')}" if others else ""
    return f"It has: {', '.join(shown)}{more}."


def _is_there(column: str, header: Sequence[str], objects: Collection[str] | None) -> bool:
    head, dot, _ = column.partition(".")
    return column in header or bool(dot and head in (header if objects is None else objects))


def id_column_of(columns: Mapping[str, Path] | None) -> str:
    """Return the name of the column that becomes ``id``."""
    return next((column for column, path in (columns or {}).items() if path == ("id",)), "id")


class UnseenColumns:
    """
    The columns of a column map that no row has so far. Each may be optional, or misspelled.

    :param columns: column to field (see ``targets_of``), None for a source without a column map.
    """

    def __init__(self, columns: Mapping[str, Path] | None) -> None:
        self._unseen = dict(columns or {})
        self._has_rows = False

    def look_at(self, block: Block) -> Block:
        """Note which columns the rows of a block have, and return the block."""
        self._has_rows = self._has_rows or block.count > 0
        for column, path in list(self._unseen.items()):
            if any(cell is not UNSET for cell in block.columns[path]):
                del self._unseen[column]
        return block

    def warn(self) -> None:
        """Log a warning about these columns, once."""
        if self._unseen and self._has_rows:
            log.warning("column_map names columns that no row has: %s", ", ".join(sorted(self._unseen)))
            self._unseen.clear()
