"""The conversion of one column: as a whole if it is canonical, else value by value."""

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
from airflow_provider_bubblehouse.customers.values import NOT_FINITE, TOO_DEEP, are_clean_texts, decode_all

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow_provider_bubblehouse.customers.blocks import Block, Path
    from airflow_provider_bubblehouse.customers.field_formats import Format
    from airflow_provider_bubblehouse.customers.fields import Field

_ABSENT = {NoneType, UnsetType}
_REPEATED_TYPES = ({str}, {int})
_REPEATED = 4  # how often a value has to occur on average, so that it takes less time to look it up than to convert it


def convert_column(
    path: Path, field: Field, how: Format | None, block: Block, faults: dict[int, InvalidCustomerError]
) -> Sequence[Any]:
    """
    Convert the values of one field. Null and an empty text stay as they are.

    :param path: the field's path.
    :param field: the field.
    :param how: how the source writes the values; None for the spellings that the field's rule knows.
    :param block: the rows.
    :param faults: gets what is wrong with a row, unless something else is.
    :return: the values in canonical form, UNSET in place of an invalid one.
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
    if kinds == {str} and field.kind in (list, dict) and (decoded := _decoded(field, cells)) is not None:
        return decoded
    name, some_empty = ".".join(path), absent or (str in kinds and (kinds != {str} or not all(cells)))
    if some_empty:
        return _convert_given(name, field, cells, faults)
    return _convert_all(name, field, cells, range(len(cells)), faults)


def _apply_format(path: Path, how: Format, block: Block, faults: dict[int, InvalidCustomerError]) -> Sequence[Any]:
    """Return the values of a field as its rule expects them, UNSET in place of an invalid one."""
    cells: Sequence[Any] = block.columns[path]
    if path in block.times:
        cells = list(map(_as_time, cells))
    if set(map(type, cells)) == {str} and all(map(str.strip, cells)):
        return _format_all(path, how, cells, range(len(cells)), faults)
    given = [not is_blank(cell) for cell in cells]
    formatted = ["" if how.blank_is_empty and issubclass(type(cell), str) else cell for cell in cells]
    places = list(compress(range(len(cells)), given))
    values = _format_all(path, how, [cells[place] for place in places], places, faults)
    for place, value in zip(places, values, strict=True):
        formatted[place] = value
    return formatted


def _as_time(cell: Any) -> Any:
    if isinstance(cell, str):
        with suppress(ValueError):
            return dt.datetime.fromisoformat(cell)
    return cell


def _format_all(
    path: Path, how: Format, cells: Sequence[Any], places: Sequence[int], faults: dict[int, InvalidCustomerError]
) -> list[Any]:
    formatted: list[Any] = []
    add, results = formatted.append, map(_rule_for(how.convert, cells), cells)
    while len(formatted) < len(cells):
        try:
            for value in results:
                add(value)
        except Exception as error:  # noqa: BLE001  an object may raise anything when it is inspected
            name = getattr(error, "field", None) or ".".join(path)
            reason = _reason(cells[len(formatted)], error)
            faults.setdefault(places[len(formatted)], InvalidCustomerError(reason, name))
            add(UNSET)
    return formatted


def _are_canonical_texts(field: Field, cells: Sequence[Any], *, clean: bool) -> bool:
    texts = cells if all(cells) else list(filter(None, cells))
    return not texts or ((clean or are_clean_texts(texts)) and field.are_canonical(texts, True))


def _are_canonical(field: Field, cells: Sequence[Any], *, absent: bool, clean: bool) -> bool:
    if field.kind is str:
        return _are_canonical_texts(field, cells, clean=clean)
    values = [cell for cell in cells if cell is not None and cell is not UNSET] if absent else cells
    return field.are_canonical(values, clean)


def _decoded(field: Field, cells: Sequence[Any]) -> Sequence[Any] | None:
    """Return cells of JSON texts with their values, if all of these are canonical."""
    texts = cells if all(cells) else list(filter(None, cells))
    values = decode_all(texts, field.kind) if texts and field.kind else None
    # A NUL can stand in these texts only as an escape, and nothing else can that is not UTF-8.
    if values is None or not field.are_canonical(values, not any("\\u0000" in text for text in texts)):
        return None
    if len(values) == len(cells):
        return values
    in_order = iter(values)
    return [next(in_order) if cell else cell for cell in cells]


def _convert_given(
    name: str, field: Field, cells: Sequence[Any], faults: dict[int, InvalidCustomerError]
) -> Sequence[Any]:
    """Convert the values that are not null, empty or UNSET."""
    given = [not (cell is None or cell is UNSET or (type(cell) is str and not cell)) for cell in cells]
    places = list(compress(range(len(cells)), given))
    converted = list(cells)
    values = _convert_all(name, field, [cells[place] for place in places], places, faults)
    for place, value in zip(places, values, strict=True):
        converted[place] = value
    return converted


def _convert_all(
    name: str,
    field: Field,
    cells: Sequence[Any],
    places: Sequence[int],
    faults: dict[int, InvalidCustomerError],
) -> list[Any]:
    converted: list[Any] = []
    add, results = converted.append, map(_rule_for(field.rule, cells), cells)
    while len(converted) < len(cells):
        try:
            for value in results:
                add(value)
        except Exception as error:  # noqa: BLE001  an object may raise anything when it is inspected
            cell = cells[len(converted)]
            if field.blank_is_empty and issubclass(type(cell), str) and not str.strip(cell):
                add("")
            else:
                faults.setdefault(places[len(converted)], InvalidCustomerError(_reason(cell, error), name))
                add(UNSET)
    return converted


class _KnownValues(dict[Any, Any]):
    """The converted values of a column, so that each different value is converted once."""

    def __init__(self, rule: Callable[[Any], Any]) -> None:
        super().__init__()
        self._rule = rule

    def __missing__(self, value: Any) -> Any:
        converted = self[value] = self._rule(value)
        return converted


def _rule_for(rule: Callable[[Any], Any], cells: Sequence[Any]) -> Callable[[Any], Any]:
    # Of one type only: 1 equals True and 1.0, which a rule may treat differently.
    if set(map(type, cells)) in _REPEATED_TYPES and len(set(cells)) * _REPEATED <= len(cells):
        return _KnownValues(rule).__getitem__
    return rule


def _reason(cell: object, error: Exception) -> str:
    if type(cell) is InvalidCustomerError:  # what the source could not read
        return cell.reason
    if issubclass(type(cell), float) and not math.isfinite(cell):  # type: ignore[arg-type]
        return NOT_FINITE  # what pandas writes for a missing value
    if isinstance(error, InvalidCustomerError):
        return error.reason
    if isinstance(error, RecursionError):
        return TOO_DEEP
    return f"holds a {type_name(cell)}, which cannot be read"
