"""Convert one column: a canonical column as a whole, any other value by value."""

from __future__ import annotations

import datetime as dt
import math
from contextlib import suppress
from itertools import compress
from types import NoneType
from typing import TYPE_CHECKING, Any

from msgspec import UNSET, UnsetType

from airflow_provider_bubblehouse.customers.field_formats import is_blank
from airflow_provider_bubblehouse.customers.invalid import InvalidCustomerError, type_name
from airflow_provider_bubblehouse.customers.values import NOT_FINITE, TOO_DEEP, are_clean_texts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow_provider_bubblehouse.customers.blocks import Block, Path
    from airflow_provider_bubblehouse.customers.field_formats import Format
    from airflow_provider_bubblehouse.customers.fields import Field

_ABSENT = {NoneType, UnsetType}
_REPEATED_TYPES = ({str}, {int})
_REPEATED = 4  # if values occur at least so often on average, a look-up is faster than a conversion


def convert_column(
    path: Path, field: Field, how: Format | None, block: Block, faults: dict[int, InvalidCustomerError]
) -> Sequence[Any]:
    """
    Convert the values of one field. Null and an empty text stay as they are.

    :param path: the field's path.
    :param field: the field.
    :param how: how the source writes the values; None for the spellings that the field's rule accepts.
    :param block: the rows.
    :param faults: receives the first fault of each row.
    :return: the values in canonical form, UNSET for an invalid value.
    """
    cells, clean = block.columns[path], block.clean
    if how is not None:
        cells, clean = _apply_format(path, how, block, faults), False
    elif path in block.texts and field.kind is str and _are_canonical_texts(field, cells, clean=clean):
        return cells
    kinds = set(map(type, cells))
    absent = not _ABSENT.isdisjoint(kinds)
    kinds -= _ABSENT
    if not kinds or (
        (field.kind is None or kinds == {field.kind}) and _are_canonical(field, cells, absent=absent, clean=clean)
    ):
        return cells
    at_once = field.at_once.get(next(iter(kinds))) if len(kinds) == 1 else None

    def convert(values: Sequence[Any], places: Sequence[int]) -> Sequence[Any]:
        converted = at_once(values) if at_once is not None and values else None
        if converted is not None:
            return converted
        return _convert_each(".".join(path), field.rule, values, places, faults, blank_is_empty=field.blank_is_empty)

    if absent or (str in kinds and (kinds != {str} or not all(cells))):
        given = [not (cell is None or cell is UNSET or (type(cell) is str and not cell)) for cell in cells]
        return _convert_given(convert, cells, given)
    return convert(cells, range(len(cells)))


def _apply_format(path: Path, how: Format, block: Block, faults: dict[int, InvalidCustomerError]) -> Sequence[Any]:
    """Apply a format to the values of a field, and return UNSET for an invalid value."""
    name, cells = ".".join(path), block.columns[path]
    if path in block.times:
        cells = list(map(_as_time, cells))

    def convert(values: Sequence[Any], places: Sequence[int]) -> Sequence[Any]:
        return _convert_each(name, how.convert, values, places, faults)

    if set(map(type, cells)) == {str} and all(map(str.strip, cells)):
        return convert(cells, range(len(cells)))
    given = [not is_blank(cell) for cell in cells]
    if how.blank_is_empty:
        cells = [
            "" if issubclass(type(cell), str) and not one else cell for one, cell in zip(given, cells, strict=True)
        ]
    return _convert_given(convert, cells, given)


def _as_time(cell: Any) -> Any:
    if isinstance(cell, str):
        with suppress(ValueError):
            return dt.datetime.fromisoformat(cell)
    return cell


def _are_canonical_texts(field: Field, cells: Sequence[Any], *, clean: bool) -> bool:
    texts = cells if all(cells) else list(filter(None, cells))
    return not texts or ((clean or are_clean_texts(texts)) and field.are_canonical(texts, True))


def _are_canonical(field: Field, cells: Sequence[Any], *, absent: bool, clean: bool) -> bool:
    if field.kind is str:
        return _are_canonical_texts(field, cells, clean=clean)
    values = [cell for cell in cells if cell is not None and cell is not UNSET] if absent else cells
    return field.are_canonical(values, clean)


def _convert_given(
    convert: Callable[[Sequence[Any], Sequence[int]], Sequence[Any]], cells: Sequence[Any], given: Sequence[bool]
) -> Sequence[Any]:
    """Convert the given values, and return the others unchanged."""
    places = list(compress(range(len(cells)), given))
    converted = list(cells)
    for place, value in zip(places, convert([cells[place] for place in places], places), strict=True):
        converted[place] = value
    return converted


def _convert_each(
    name: str,
    convert: Callable[[Any], Any],
    cells: Sequence[Any],
    places: Sequence[int],
    faults: dict[int, InvalidCustomerError],
    *,
    blank_is_empty: bool = False,
) -> list[Any]:
    """
    Convert values one by one, and collect their faults.

    :param name: the field's name.
    :param convert: converts a value.
    :param cells: the values.
    :param places: the row of each of them.
    :param faults: receives the first fault of each row.
    :param blank_is_empty: whether a blank text that cannot be converted becomes an empty text.
    """
    converted: list[Any] = []
    results = map(_each_once(convert, cells), cells)
    while len(converted) < len(cells):
        fault: Exception | None = None
        try:
            converted.extend(results)  # keeps what comes before a value that cannot be converted
        except Exception as error:  # noqa: BLE001  an object may raise anything when it is inspected
            fault = error
        if len(converted) == len(cells):
            break
        cell = cells[len(converted)]  # has raised the fault, or StopIteration, which ends the iteration silently
        if blank_is_empty and issubclass(type(cell), str) and not str.strip(cell):
            converted.append("")
        else:
            within = fault.field if isinstance(fault, InvalidCustomerError) else None  # an object of the column
            faults.setdefault(places[len(converted)], InvalidCustomerError(_reason(cell, fault), within or name))
            converted.append(UNSET)
    return converted


class _KnownValues(dict[Any, Any]):
    """The converted values of a column, so that each different value is converted once."""

    def __init__(self, rule: Callable[[Any], Any]) -> None:
        super().__init__()
        self._rule = rule

    def __missing__(self, value: Any) -> Any:
        converted = self[value] = self._rule(value)
        return converted


def _each_once(rule: Callable[[Any], Any], cells: Sequence[Any]) -> Callable[[Any], Any]:
    # Of one type only: 1 equals True and 1.0, which a rule may treat differently.
    if set(map(type, cells)) in _REPEATED_TYPES and len(set(cells)) * _REPEATED <= len(cells):
        return _KnownValues(rule).__getitem__
    return rule


def _reason(cell: object, error: Exception | None) -> str:
    if type(cell) is InvalidCustomerError:  # the source could not read this cell
        return cell.reason
    if issubclass(type(cell), float) and not math.isfinite(cell):  # type: ignore[arg-type]
        return NOT_FINITE  # pandas uses NaN for a missing value
    if isinstance(error, InvalidCustomerError):
        return error.reason
    if isinstance(error, RecursionError):
        return TOO_DEEP
    return f"holds a {type_name(cell)}, which cannot be read"
