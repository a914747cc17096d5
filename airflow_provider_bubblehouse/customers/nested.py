"""Columns within objects: ``traits.email`` is the field ``email`` of the object in the column ``traits``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET

from airflow_provider_bubblehouse.customers.invalid import InvalidCustomerError
from airflow_provider_bubblehouse.customers.values import from_json_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_NO_OBJECT = InvalidCustomerError("cannot be read: column_map reaches into an object, and the row has something else")


def as_dict(row: Any) -> dict[Any, Any] | None:
    """Return the fields of an object (see ``records.record_of``); None if it is not one."""
    if isinstance(row, Mapping):
        return dict(row)
    if isinstance(row, msgspec.Struct):
        names = zip(row.__struct_encode_fields__, row.__struct_fields__, strict=True)
        return {name: getattr(row, attribute) for name, attribute in names}
    kind = type(row)
    if dataclasses.is_dataclass(kind):
        return {field.name: getattr(row, field.name) for field in dataclasses.fields(kind)}
    if hasattr(kind, "__attrs_attrs__"):
        return {field.name: getattr(row, field.name) for field in kind.__attrs_attrs__}
    for method in ("model_dump", "_asdict"):
        if callable(getattr(kind, method, None)):
            return dict(getattr(row, method)())
    return None


class Objects:
    """
    The objects in the columns of some rows. JSON text is decoded.

    A cell that is not an object yields an ``InvalidCustomerError`` in place of the value; a row that needs the value is
    then invalid.

    :param cells_of: returns the cells of a column.
    """

    def __init__(self, cells_of: Callable[[str], Sequence[Any]]) -> None:
        self._cells_of = cells_of
        self._opened: dict[str, list[Any]] = {}

    def cells(self, column: str) -> list[Any]:
        """
        Return the values of a column within objects, UNSET for a missing value.

        :param column: the column's name, with a dot.
        """
        head, _, rest = column.partition(".")
        if head not in self._opened:
            self._opened[head] = list(map(_opened, self._cells_of(head)))
        return [_field_of(opened, rest) for opened in self._opened[head]]


def _opened(value: Any) -> Any:
    """Return a cell as a dict, UNSET for a null or blank cell, and an error for any other cell."""
    if type(value) is dict:
        return value
    if value is None or value is UNSET:
        return UNSET
    try:
        if isinstance(value, str):
            return from_json_text(value, dict) if value.strip() else UNSET
        opened = as_dict(value)
    except Exception:  # noqa: BLE001  an object may raise anything
        return _NO_OBJECT
    return _NO_OBJECT if opened is None else opened


def _field_of(opened: Any, name: str) -> Any:
    if type(opened) is not dict:
        return opened
    if name in opened:
        return opened[name]
    head, dot, rest = name.partition(".")
    return _field_of(_opened(opened[head]), rest) if dot and head in opened else UNSET
