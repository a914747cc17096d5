"""The column map: which column of a source becomes which field of a customer."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_bubblehouse.errors import PermanentError
from airflow_provider_bubblehouse.push.chunks import put

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

log = logging.getLogger(__name__)

ColumnMap = Mapping[str, str]


def targets_of(column_map: ColumnMap | None) -> dict[str, tuple[str, ...]] | None:
    """Read a column map: column to the path of its field, ``extras.city`` being ``("extras", "city")``."""
    if column_map is None:
        return None
    targets: dict[str, tuple[str, ...]] = {}
    for column, field in column_map.items():
        path = tuple(field.split(".")) if isinstance(field, str) else ()
        if not isinstance(column, str) or not path or not all(path):
            raise PermanentError(
                "column_map goes from a column's name to a field's name, such as {'CustomerId': 'id'}."
            )
        for other in targets.values():
            shorter = min(len(path), len(other))
            if path[:shorter] == other[:shorter]:
                raise PermanentError(f"column_map fills {field} from more than one column.")
        targets[column] = path
    if not targets:
        raise PermanentError("column_map is empty; leave it out to send each column under its own name.")
    return targets


def check_columns(name: str, header: Sequence[str], columns: Mapping[str, tuple[str, ...]]) -> None:
    """
    See that the columns to send are there, once each. Names from the source are not shown: they may be a row.

    :param name: what to call the source.
    :param header: its columns.
    :param columns: those to send, with their fields (see ``targets_of``).
    :raises PermanentError: if they are not.
    """
    if missing := [column for column in columns if column not in header]:
        raise PermanentError(f"{name} lacks columns that column_map names: {', '.join(missing)}.")
    twice = [place for place, column in enumerate(header, 1) if column in columns and column in header[: place - 1]]
    if twice:
        raise PermanentError(f"{name} has the same name in column {twice[0]} as before.")
    if not {("id",), ("email",)} & set(columns.values()):
        raise PermanentError(
            f"{name} has no column for id or email; name the column in column_map. (A CSV needs a header.)"
        )
    for place, column in enumerate(header, 1):
        if columns.get(column) == (column,) and column != column.strip():
            raise PermanentError(f"{name}: the name of column {place} has a blank before or after it.")
        if column in columns and not column:
            raise PermanentError(f"{name}: column {place} has no name.")


class Renamer:
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
