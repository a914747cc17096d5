"""Convert columns back to rows: objects that encode as the JSON of a customer."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, UnsetType

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_bubblehouse.customers.blocks import Path

_FEW_ROWS = 10  # fewer rows are built as dicts: creating a type takes as long as building hundreds of rows


class Layout:
    """
    The fields of an object. Some of them may be objects themselves.

    :param paths: the fields, in the order in which they are sent.
    :param parent: the object's own path.
    """

    def __init__(self, paths: Sequence[Path], parent: Path = ()) -> None:
        by_name: dict[str, list[Path]] = {}
        for path in paths:
            by_name.setdefault(path[len(parent)], []).append(path)
        self._names = list(by_name)
        self._parts = [
            some[0] if some[0] == (*parent, name) else Layout(some, (*parent, name)) for name, some in by_name.items()
        ]

    def rows(self, columns: Mapping[Path, Sequence[Any]], count: int) -> list[Any]:
        """
        Return each row as an object without its absent fields.

        :param columns: the value of each row by field, UNSET for a row that lacks the field.
        :param count: the number of rows.
        """
        return self._objects([self._cells(part, columns, count) for part in self._parts], count)

    def _cells(self, part: Path | Layout, columns: Mapping[Path, Sequence[Any]], count: int) -> Sequence[Any]:
        if not isinstance(part, Layout):
            return columns[part]
        cells = [part._cells(inner, columns, count) for inner in part._parts]
        objects = part._objects(cells, count)
        if all(UnsetType in set(map(type, some)) for some in cells):
            return [
                made if any(cell is not UNSET for cell in values) else UNSET
                for made, *values in zip(objects, *cells, strict=True)
            ]
        return objects

    def _objects(self, cells: list[Sequence[Any]], count: int) -> list[Any]:
        if count < _FEW_ROWS or self._type is None:
            return [
                {name: cell for name, cell in zip(self._names, values, strict=True) if cell is not UNSET}
                for values in zip(*cells, strict=True)
            ] or [{} for _ in range(count)]
        return list(map(self._type, *cells))

    @cached_property
    def _type(self) -> type[msgspec.Struct] | None:
        fields = {f"field_{place}": name for place, name in enumerate(self._names)}  # a name may be no identifier
        try:
            return msgspec.defstruct("Row", [(attribute, Any, UNSET) for attribute in fields], rename=fields, gc=False)
        except ValueError:  # a name that JSON has to escape
            return None
