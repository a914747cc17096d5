"""
The parameter ``formats``: how a source writes the values of a field.

A format is a function of one value that runs before the field's rule. It returns a value for the rule, or UNSET for
"absent", or raises ``InvalidCustomerError``. It is not called for null, empty and blank values.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import msgspec
from msgspec import UNSET

from airflow_provider_bubblehouse.customers.fields import (
    CALENDAR_FIELDS,
    FIELD_NAMES,
    LIST_FIELDS,
    boolean,
    customer_fields,
    other_field,
)
from airflow_provider_bubblehouse.customers.invalid import InvalidCustomerError, wrong_type
from airflow_provider_bubblehouse.customers.patterns import read_pattern
from airflow_provider_bubblehouse.customers.values import (
    decimal_text,
    exact_text,
    from_json_text,
    require_finite,
    unmarked,
    whole_number,
)
from airflow_provider_bubblehouse.errors import PermanentError

if TYPE_CHECKING:
    from airflow_provider_bubblehouse.customers.blocks import Path
    from airflow_provider_bubblehouse.customers.times import Calendar

Formats = Mapping[str, "str | Mapping[Any, object]"]

VERBATIM = "verbatim"

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_UNITS = {"epoch": ("seconds", 1_000_000), "epoch_ms": ("milliseconds", 1_000)}
_LONGEST_NUMBER = 30  # characters; no time has as many digits
_DECIMAL = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_WHOLE = re.compile(r"[-+]?[0-9]+")
_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_NOT_IN_CALENDAR = "is not in the calendar"
_NOT_A_NUMBER = "must be a number such as 12.5, without thousands separators"
_NOT_TRANSLATED = "has a value that formats does not translate"

_DATE_FORMATS = "a strptime pattern such as '%d.%m.%Y', 'epoch' or 'epoch_ms'"
_LIST_FORMATS = "a separator such as ','"
_OTHER_FORMATS = "'number', 'boolean' or 'json'"
_A_DICT = "a dict that translates values, such as {'value': 'other value'}"


class Format(NamedTuple):
    """
    How a source writes the values of one field.

    :param convert: returns a value for the field's rule, UNSET for "absent".
    :param blank_is_empty: whether a text of blanks is sent as an empty one.
    """

    convert: Callable[[Any], object]
    blank_is_empty: bool = False


def read_formats(formats: Formats | None, calendar: Calendar) -> dict[Path, Format]:
    """
    Return the format of each field.

    :param formats: the parameter ``formats`` of the operators.
    :param calendar: the rules for times and dates.
    :raises PermanentError: if a format cannot work.
    """
    if formats is None:
        return {}
    if not isinstance(formats, Mapping):
        raise PermanentError("formats must be a dict such as {'birthday': '%d.%m.%Y'}.")
    read: dict[Path, Format] = {}
    for field, how in formats.items():
        path = _path_of(field)
        for other in read:
            if path[: len(other)] == other or other[: len(path)] == path:
                raise PermanentError(f"formats names {'.'.join(other)} and {field}, which is a part of it.")
        try:
            read[path] = _read_format(path, how, calendar)
        except ValueError as error:
            raise PermanentError(f"formats: {field} {error}.") from None
    return read


def fingerprint_of(formats: Formats | None) -> object:
    """Return formats as JSON types, equal in every process."""
    return {
        field: list(map(repr, how.items())) if isinstance(how, Mapping) else how
        for field, how in (formats or {}).items()
    }


def _path_of(field: object) -> Path:
    path = tuple(field.split(".")) if isinstance(field, str) else ()
    if not path or not all(path):
        raise PermanentError("formats goes from a field's name to its format, such as {'birthday': '%d.%m.%Y'}.")
    if len(path) > 1 and path[0] in FIELD_NAMES - {"extras"}:
        raise PermanentError(f"formats names {field}, but {path[0]} is not an object; only extras is one.")
    return path


def _read_format(path: Path, how: object, calendar: Calendar) -> Format:
    """
    Return the format of a field.

    :raises ValueError: if it cannot work.
    """
    name = path[0] if path[0] in FIELD_NAMES and len(path) == 1 else ""
    if isinstance(how, Mapping):
        return Format(_translation(name, how, calendar))
    if name in CALENDAR_FIELDS and isinstance(how, str):
        if how in _UNITS:
            zone = calendar.zone if name in ("birthday", "anniversary") else None
            return Format(partial(_moment, *_UNITS[how], zone))
        if "%" in how:
            return Format(read_pattern(name, how))
    if name in LIST_FIELDS and isinstance(how, str) and how and not any(map(str.isalnum, how)):
        return Format(partial(_split, how))
    if not name and how in _BY_WORD:
        return Format(_BY_WORD[str(how)], blank_is_empty=True)
    if (name, how) == ("total_spent", "units"):
        return Format(_units)
    if (name, how) == ("id", VERBATIM):
        return Format(_unchanged)
    raise ValueError(f"takes {_what_fits(name)}")


def _what_fits(name: str) -> str:
    others = {"total_spent": "'units'", "id": f"'{VERBATIM}'", "": _OTHER_FORMATS}
    others |= dict.fromkeys(CALENDAR_FIELDS, _DATE_FORMATS) | dict.fromkeys(LIST_FIELDS, _LIST_FORMATS)
    return f"{others[name]}, or {_A_DICT}" if name in others else f"only {_A_DICT}"


def _translation(name: str, how: Mapping[Any, object], calendar: Calendar) -> Callable[[Any], object]:
    """Return a function that translates values by a dict. Other values are errors, unless all targets are None."""
    rule = (customer_fields(calendar, "id").get(name) or other_field(calendar)).rule
    targets: dict[str, object] = {}
    for value, target in how.items():
        text = _text_of(value) if isinstance(value, str | int) else None
        if text is None:
            raise ValueError("has a dict whose keys are not texts")
        if not text:
            raise ValueError("translates an empty text, but empty and blank values are sent before formats apply")
        if text in targets:
            raise ValueError("translates a value twice (blanks around it do not count)")
        targets[text] = _target(target, rule)
    if not targets:
        raise ValueError("has an empty dict")
    if all(target is UNSET for target in targets.values()):
        return partial(_without, frozenset(targets))
    return partial(_translate, targets)


def _target(target: object, rule: Callable[[Any], object]) -> object:
    if target is None:
        return UNSET
    if target == "":
        return target
    try:
        return rule(target)
    except InvalidCustomerError as error:
        raise ValueError(f"translates to a value that cannot be sent: it {error.reason}") from None


def _text_of(value: object) -> str | None:
    """Return the text that a dict of translations is searched for; None for a value without one."""
    if isinstance(value, str):
        return exact_text(value).strip()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float | Decimal):
        number = whole_number(value)
        return decimal_text(value) if number is None and not isinstance(value, int) else str(number)
    if isinstance(value, dt.datetime):
        return value.isoformat(" ")
    if isinstance(value, dt.date):
        return value.isoformat()
    return str(value) if isinstance(value, UUID) else None


def _translate(targets: Mapping[str, object], value: Any) -> object:
    if type(value) is str and value in targets:
        return targets[value]
    text = _text_of(value)
    if text is None or text not in targets:
        raise InvalidCustomerError(_NOT_TRANSLATED)
    return targets[text]


def _without(absent: frozenset[str], value: object) -> object:
    try:
        return UNSET if _text_of(value) in absent else value
    except InvalidCustomerError:  # the field's rule decides whether this is an error
        return value


def _moment(unit: str, microseconds: int, zone: dt.tzinfo | None, value: object) -> object:
    """
    Convert a number of units since 1970 to a time, or to a date.

    :param unit: the name of the unit in messages.
    :param microseconds: the length of the unit in microseconds.
    :param zone: for a date, the time zone in which the time must be midnight; None for a time.
    :param value: the number.
    """
    number: int | Decimal
    if isinstance(value, str):
        text = unmarked(exact_text(value).strip())
        if not _DECIMAL.fullmatch(text) or len(text) > _LONGEST_NUMBER:
            raise InvalidCustomerError(f"must be a number of {unit} since 1970")
        number = Decimal(text) if "." in text else int(text)
    elif isinstance(value, float | Decimal):
        number = Decimal(decimal_text(value))
    elif isinstance(value, int) and not isinstance(value, bool):
        number = value
    else:
        return value
    try:
        moment = _EPOCH + dt.timedelta(microseconds=int(number * microseconds))
        if zone is None:
            return moment.isoformat()
        local = moment.astimezone(zone)
    except (OverflowError, ValueError):
        hint = "; is it in milliseconds (epoch_ms)?" if unit == "seconds" else ""
        raise InvalidCustomerError(_NOT_IN_CALENDAR + hint) from None
    if local.time() != dt.time():
        raise InvalidCustomerError("is not a midnight in timezone, so it does not say a date")
    return local.date()


def _split(separator: str, value: object) -> object:
    if not isinstance(value, str):
        return value
    return [element for part in exact_text(value).split(separator) if (element := part.strip())]


def _units(value: object) -> object:
    """Return an amount in whole units as text, because the API reads integers as millionths."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(whole_number(value))
    if isinstance(value, list | tuple) and len(value) == 2:
        return [_units(value[0]), value[1]]
    return value


def _number(value: object) -> object:
    if isinstance(value, str):
        text = unmarked(exact_text(value).strip())
        if not _NUMBER.fullmatch(text):
            raise InvalidCustomerError(_NOT_A_NUMBER)
        value = Decimal(text)
        if _WHOLE.fullmatch(text):
            return whole_number(value)
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise wrong_type(_NOT_A_NUMBER, value)
    if not isinstance(value, Decimal):
        return value
    require_finite(value)
    is_whole = value.as_tuple().exponent >= 0  # type: ignore[operator]  # of a number that is finite
    return whole_number(value) if is_whole else float(value)


def _json(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return msgspec.json.decode(exact_text(value).strip())
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise InvalidCustomerError("must be JSON") from None


def _unchanged(value: object) -> object:
    return value


_BY_WORD: dict[str, Callable[[Any], object]] = {"number": _number, "boolean": boolean, "json": _json}


def is_blank(value: object) -> bool:
    """Return whether a value is null, absent or a blank text, so that no format applies to it."""
    return value is None or value is UNSET or (issubclass(type(value), str) and not str.strip(value))  # type: ignore[arg-type]


def formats_within(path: Path, formats: Mapping[Path, Format]) -> Format | None:
    """
    Return the format of a column: its own, or one that applies the formats of fields within its objects.

    :param path: the column's field.
    :param formats: the formats of all fields.
    """
    if path in formats:
        return formats[path]
    depth = len(path)
    inner = {other[depth:]: how for other, how in formats.items() if other[:depth] == path}
    return Format(partial(_format_within, path, inner)) if inner else None


def _format_within(parent: Path, formats: Mapping[Path, Format], value: object) -> object:
    if isinstance(value, str):
        try:
            value = from_json_text(exact_text(value), dict)
        except ValueError:
            return value
    if not isinstance(value, Mapping):
        return value
    for path, how in formats.items():
        value = _with_formatted((*parent, *path), value, path, how)
    return value


def _with_formatted(name: Path, value: Mapping[Any, Any], path: Path, how: Format) -> Mapping[Any, Any]:
    """Return an object in which the format of one field is applied."""
    inner = value.get(path[0], UNSET)
    if is_blank(inner):
        return {**value, path[0]: ""} if how.blank_is_empty and isinstance(inner, str) else value
    if len(path) > 1:
        if not isinstance(inner, Mapping):
            return value
        return {**value, path[0]: _with_formatted(name, inner, path[1:], how)}
    try:
        converted = how.convert(inner)
    except InvalidCustomerError as error:
        raise InvalidCustomerError(error.reason, ".".join(name)) from None
    if converted is UNSET:
        return {field: other for field, other in value.items() if field != path[0]}
    return {**value, path[0]: converted}
