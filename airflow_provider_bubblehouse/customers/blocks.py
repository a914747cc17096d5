"""Blocks of rows: some consecutive rows of one source, column by column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET

from airflow_provider_bubblehouse.customers.encoded import AsWritten, Unencoded
from airflow_provider_bubblehouse.customers.invalid import InvalidCustomerError

if TYPE_CHECKING:
    from collections.abc import Iterator, Set

    from airflow_provider_bubblehouse.customers.encoded import Customers

Path = tuple[str, ...]  # a field: ``extras.city`` is ("extras", "city")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """
    One or more rows.

    :param file: the name of their file, empty for a list.
    :param count: the number of rows.
    :param columns: the value of each row by field; UNSET for a row that lacks the field, and an
        ``InvalidCustomerError`` for a value that cannot be read.
    :param broken: the rows that the source could not read, by their place in the block.
    :param clean: whether every text is known to be UTF-8 without a NUL.
    :param canonical: the fields whose values are known to be canonical.
    :param texts: the fields whose values are known to be texts, null or UNSET.
    :param times: the fields whose texts are times of the source's own time type, in the form of ``isoformat``.
    :param rows: the same rows as objects that encode as their JSON, None if the source has no such objects.
    :param bound: the maximum size of a row as JSON, in bytes; None if it is not known.
    :param id_column: the name of the source's column for ``id``.
    :param not_utf8: the reason to give for a text that is not UTF-8; empty for the reason of the rules.
    :param is_converted: whether formats have been applied already, as in a customer that the API has rejected.
    """

    file: str
    count: int
    columns: Mapping[Path, Sequence[Any]]
    broken: Mapping[int, InvalidCustomerError] = field(default_factory=dict)
    clean: bool = False
    canonical: Set[Path] = frozenset()
    texts: Set[Path] = frozenset()
    times: Set[Path] = frozenset()
    rows: Rows | None = None
    bound: int | None = None
    id_column: str = "id"
    not_utf8: str = ""
    is_converted: bool = False

    def record(self, place: int) -> object:
        """Return a row as the source has it, by the names of its fields."""
        if place in self.broken:
            return self.broken[place].record
        record: dict[str, Any] = {}
        for path, cells in self.columns.items():
            if cells[place] is not UNSET and type(cells[place]) is not InvalidCustomerError:
                put(record, path, cells[place])
        return record


class Rows:
    """
    Rows as objects whose attributes are the fields of a customer.

    :param objects: one object per row.
    :param attributes: the attribute of each field.
    :param written: the JSON of each row in the source.
    """

    def __init__(self, objects: list[Any], attributes: Mapping[Path, str], written: list[bytes]) -> None:
        self._objects = objects
        self._attributes = attributes
        self._written = written

    def customers(self, changed: Mapping[Path, Sequence[Any]], valid: Sequence[bool] | None) -> Customers:
        """
        Return the rows as customers.

        :param changed: the fields that differ from the source, with their value in each row.
        :param valid: whether each row is a customer; None if all are.
        """
        for path, cells in changed.items():
            attribute = self._attributes[path]
            for row, cell in zip(self._objects, cells, strict=True):
                setattr(row, attribute, cell)
        if changed or valid is not None:
            return Unencoded(self._objects if valid is None else list(compress(self._objects, valid)))
        return AsWritten(self._objects, self._written)


class Columns(Mapping[Path, Sequence[Any]]):
    """
    The values of rows' attributes, collected on first use.

    :param objects: one object per row.
    :param attributes: the attribute of each field.
    :param structs: the fields whose values are Structs instead of dicts.
    """

    def __init__(
        self, objects: Sequence[Any], attributes: Mapping[Path, str], structs: Set[Path] = frozenset()
    ) -> None:
        self._objects = objects
        self._attributes = attributes
        self._structs = structs
        self._collected: dict[Path, list[Any]] = {}

    def __getitem__(self, path: Path) -> list[Any]:
        if path not in self._collected:
            cells = list(map(attrgetter(self._attributes[path]), self._objects))
            self._collected[path] = list(map(_as_dict, cells)) if path in self._structs else cells
        return self._collected[path]

    def __iter__(self) -> Iterator[Path]:
        return iter(self._attributes)

    def __len__(self) -> int:
        return len(self._attributes)


def _as_dict(value: Any) -> Any:
    return msgspec.to_builtins(value) if isinstance(value, msgspec.Struct) else value


def put(record: dict[str, Any], path: Path, value: object) -> None:
    """
    Set a field of a record, and create the objects around it.

    :param record: the record.
    :param path: the field.
    :param value: its value.
    """
    for name in path[:-1]:
        record = record.setdefault(name, {})
    record[path[-1]] = value
