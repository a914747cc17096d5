"""Convert rows that are Python objects, of any type of record, to blocks."""

from __future__ import annotations

from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from airflow_provider_bubblehouse.customers.blocks import Block, Path
from airflow_provider_bubblehouse.customers.invalid import InvalidCustomerError, type_name
from airflow_provider_bubblehouse.customers.nested import Objects, as_dict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# A block has a cell for every field of any of its rows. A block with too many empty cells is split in two.
_CELLS_PER_VALUE = 4
_FEW_CELLS = 1000

_NO_NAME = "the row has a field whose name is not text"


def record_of(row: object) -> dict[Any, Any]:
    """
    Return a row as a dict: a mapping, a dataclass, an attrs class, a msgspec Struct, or an object with ``model_dump()``
    (pydantic) or ``_asdict()`` (a named tuple).

    :raises InvalidCustomerError: if it is anything else.
    """
    try:
        if isinstance(row, InvalidCustomerError):  # the source could not read this row
            raise row
        record = as_dict(row)
    except InvalidCustomerError:
        raise
    except Exception:  # noqa: BLE001  an object may raise anything
        raise InvalidCustomerError(f"the row cannot be read: it is a {type_name(row)}", record=row) from None
    if record is None:
        what = "bytes; decode it first" if isinstance(row, bytes | bytearray | memoryview) else type_name(row)
        raise InvalidCustomerError(f"the row is not an object with the fields of a customer, but {what}", record=row)
    return record


def blocks_of(
    rows: Sequence[object], *, file: str = "", columns: Mapping[str, Path] | None = None, **options: Any
) -> Iterator[Block]:
    """
    Yield rows as blocks, in their order.

    :param rows: some rows.
    :param file: the name of their file.
    :param columns: which of their fields are sent as which field of a customer, None for each under its own name.
    :param options: further parameters of ``Block``.
    """
    broken: dict[int, InvalidCustomerError] = {}
    records: list[Any] = list(rows)
    if not set(map(type, records)) <= {dict}:
        records = [_record(place, row, broken) for place, row in enumerate(records)]
    if columns is not None:
        objects = Objects(lambda head: _cells(records, head))
        cells = {path: _cells_or_nested(records, column, objects) for column, path in columns.items()}
        yield Block(file=file, count=len(records), columns=cells, broken=broken, **options)
    elif rows:
        yield from _blocks_by_own_names(records, broken, file, options)


def _record(place: int, row: object, broken: dict[int, InvalidCustomerError]) -> dict[Any, Any]:
    try:
        return record_of(row)
    except InvalidCustomerError as error:
        broken[place] = error
        return {}


def _blocks_by_own_names(
    records: list[dict[Any, Any]], broken: dict[int, InvalidCustomerError], file: str, options: dict[str, Any]
) -> Iterator[Block]:
    sizes = set(map(len, records))
    names = list(records[0])
    uniform = len(sizes) == 1
    columns: dict[Path, Sequence[Any]] = {}
    if uniform and set(map(type, names)) <= {str}:
        try:
            columns = _columns_of(records, names)
        except KeyError:
            uniform = False
    if not uniform or set(map(type, names)) - {str}:
        records = [_with_text_names(place, record, broken) for place, record in enumerate(records)]
        names = list(dict.fromkeys(chain.from_iterable(records)))
        count = len(records)
        if count > 1 and len(names) * count > max(_FEW_CELLS, _CELLS_PER_VALUE * sum(map(len, records))):
            half = count // 2
            later = {place - half: error for place, error in broken.items() if place >= half}
            yield from _blocks_by_own_names(
                records[:half], {p: e for p, e in broken.items() if p < half}, file, options
            )
            yield from _blocks_by_own_names(records[half:], later, file, options)
            return
        columns = {(name,): _cells(records, name) for name in names}
    yield Block(file=file, count=len(records), columns=columns, broken=broken, **options)


def _columns_of(records: list[dict[Any, Any]], names: list[str]) -> dict[Path, Sequence[Any]]:
    """Return the values of records that all have these fields."""
    if len(names) < 2:
        return {(name,): [record[name] for record in records] for name in names}
    cells = zip(*map(itemgetter(*names), records), strict=True)  # record by record: this uses the CPU's cache best
    return {(name,): some for name, some in zip(names, cells, strict=True)}


def _with_text_names(place: int, record: dict[Any, Any], broken: dict[int, InvalidCustomerError]) -> dict[str, Any]:
    if set(map(type, record)) <= {str}:
        return record
    if not all(isinstance(name, str) for name in record):
        broken[place] = InvalidCustomerError(_NO_NAME, record=record)
        return {}
    return {str.__str__(name): value for name, value in record.items()}


def _cells(records: Sequence[dict[Any, Any]], column: str) -> list[Any]:
    try:
        return list(map(itemgetter(column), records))
    except KeyError:
        return [record.get(column, UNSET) for record in records]


def _cells_or_nested(records: Sequence[dict[Any, Any]], column: str, objects: Objects) -> list[Any]:
    """Return the values of a column; if a record has no key of that name, the value within its objects."""
    cells = _cells(records, column)
    if "." not in column or UNSET not in cells:
        return cells
    return [nested if cell is UNSET else cell for cell, nested in zip(cells, objects.cells(column), strict=True)]
