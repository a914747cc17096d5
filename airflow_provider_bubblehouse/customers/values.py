"""Values of JSON types: text that UTF-8 can encode, numbers, and the nested values of ``extras``."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from decimal import Decimal
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_provider_bubblehouse.customers.invalid import InvalidCustomerError, wrong_type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

MAX_DEPTH = 100  # fixed, because the depth at which Python's recursion limit applies depends on the caller
MAX_DIGITS = 100
FIRST_HUGE_NUMBER = 10**MAX_DIGITS  # Python refuses to format a number of more than 4300 digits
FIRST_INEXACT_FLOAT = 2**53  # from here on a float skips whole numbers
_FIRST_INEXACT_FLOAT32 = 2**24
_FLOAT32 = struct.Struct("<f")

_MARKED = re.compile('\'(?=[-+0-9])(.*)|="(.*)"', re.DOTALL)
_POSTGRES_ELEMENT = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|([^"{},\\]*[^"{},\\\s]))\s*(?:,(?=.)|$)', re.DOTALL)
_LAST_ESCAPE = re.compile(r"\\(.)", re.DOTALL)

_NUL = "holds a NUL character"
NOT_UTF8 = "is not UTF-8 text; save the source as UTF-8"
NOT_FINITE = "holds NaN or an infinity, which JSON does not have; leave it out"
_HUGE = f"holds a number of more than {MAX_DIGITS} digits"
TOO_DEEP = "is nested too deeply"


class Float32(float):
    """
    A float of 32 bits.

    As a 64-bit float it would get digits that the source does not have: 12.3 would become 12.300000190734863.
    """

    def __new__(cls, value: float) -> Float32:
        """Create the 64-bit float with the shortest decimal of a 32-bit float."""
        return super().__new__(cls, _shortest_decimal(value) if math.isfinite(value) else value)


def _shortest_decimal(value: float) -> str:
    packed = _FLOAT32.pack(value)
    return next(text for digits in range(6, 10) if _FLOAT32.pack(float(text := f"{value:.{digits}g}")) == packed)


def exact_text(value: object) -> str:
    """Return text as plain ``str``: the encoder rejects subclasses, such as those of enum or numpy."""
    if type(value) is not str:
        if not isinstance(value, str):
            raise wrong_type("must be text", value)
        value = str.__str__(value)
    if "\0" in value:
        raise InvalidCustomerError(_NUL)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InvalidCustomerError(NOT_UTF8) from None
    return value


def are_clean_texts(texts: Iterable[str]) -> bool:
    """Return whether ``exact_text`` accepts all of these texts."""
    joined = "".join(texts)
    if "\0" in joined:
        return False
    if not joined.isascii():
        try:
            joined.encode()
        except UnicodeEncodeError:
            return False
    return True


def unmarked(text: str) -> str:
    """Remove a spreadsheet's marker for a text cell: ``'7`` and ``="7"`` become ``7``."""
    if text[:1] in ("'", "=") and (match := _MARKED.fullmatch(text)):
        return (match[1] if match[2] is None else match[2]).strip()
    return text


def require_finite(value: float | Decimal) -> None:
    """Raise if a number is NaN or an infinity."""
    if not (value.is_finite() if isinstance(value, Decimal) else math.isfinite(value)):
        raise InvalidCustomerError(NOT_FINITE)


def require_written_out(value: int) -> None:
    """Raise if a number has more digits than any customer's number."""
    if abs(value) >= FIRST_HUGE_NUMBER:
        raise InvalidCustomerError(_HUGE)


def whole_number(value: float | Decimal) -> int | None:
    """
    Return a whole number as ``int``, and None for any other number.

    :raises InvalidCustomerError: if the number has lost digits, or is not finite.
    """
    if isinstance(value, int):
        require_written_out(value)
        return int(value)
    require_finite(value)
    if isinstance(value, float):
        first_inexact = _FIRST_INEXACT_FLOAT32 if isinstance(value, Float32) else FIRST_INEXACT_FLOAT
        if abs(value) >= first_inexact:
            raise InvalidCustomerError("is a float so large that it has lost digits; read the column as text")
    elif value.adjusted() >= MAX_DIGITS:
        raise InvalidCustomerError(_HUGE)
    whole = int(value)
    return whole if whole == value else None


def decimal_text(value: float | Decimal) -> str:
    """Return a number in decimal digits, without an exponent."""
    require_finite(value)
    number = Decimal(float.__repr__(value)) if isinstance(value, float) else value
    exponent = number.as_tuple().exponent
    if max(number.adjusted(), 0) - min(int(exponent), 0) >= MAX_DIGITS:
        raise InvalidCustomerError(_HUGE)
    return format(number, "f")


def from_json_text(text: str, kind: type) -> Any:
    """
    Decode a text that is JSON, or the literal of a Postgres array.

    :param kind: ``list`` or ``dict``.
    :raises ValueError: if the text is not a value of this kind.
    """
    text = text.strip()
    if kind is list and text.startswith("{"):
        return _from_postgres_array(text)
    try:
        value = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise ValueError from None
    if type(value) is not kind:
        raise ValueError
    return value


def _from_postgres_array(text: str) -> list[str]:
    if not text.endswith("}"):
        raise ValueError
    inside, place = text[1:-1], 0
    elements: list[str] = []
    while place < len(inside.rstrip()):
        match = _POSTGRES_ELEMENT.match(inside, place)
        if match is None or (match[2] is not None and match[2].upper() == "NULL"):
            raise ValueError
        elements.append(match[2] if match[1] is None else _LAST_ESCAPE.sub(r"\1", match[1]))
        place = match.end()
    return elements


def decode_all(texts: Sequence[str], kind: type) -> list[Any] | None:
    """
    Decode many JSON texts at once; return None if ``from_json_text`` has to decode each text.

    :param texts: the texts; all of them are non-empty.
    :param kind: ``list`` or ``dict``.
    """
    first, last = ("[", "]") if kind is list else ("{", "}")
    # If a text ends with ] and the next one begins with [, no value spans both. So each text has at least one value,
    # and equal numbers of texts and values mean one value per text.
    if {*map(itemgetter(0), texts)} != {first} or {*map(itemgetter(-1), texts)} != {last}:
        return None
    lines = "\n".join(texts)
    if "\\u0000" in lines:  # JSON can contain a NUL only as an escape
        return None
    try:
        values = _ANYTHING.decode_lines(lines)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    return values if len(values) == len(texts) and set(map(type, values)) == {kind} else None


_ANYTHING = msgspec.json.Decoder()


def plain_value(value: object, convert_other: Callable[[object], object], depth: int = MAX_DEPTH) -> Any:
    """
    Return any value in JSON types.

    :param value: the value.
    :param convert_other: converts a value of another type, such as a time, or raises.
    :param depth: the maximum depth of nesting.
    :raises InvalidCustomerError: if JSON cannot hold it without loss.
    """
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return exact_text(value)
    if isinstance(value, int):
        require_written_out(value)
        return int(value)
    if isinstance(value, float):
        require_finite(value)
        return float(value)
    if isinstance(value, Decimal):
        return decimal_text(value)
    if isinstance(value, Mapping | list | tuple):
        if not depth:
            raise InvalidCustomerError(TOO_DEEP)
        if isinstance(value, Mapping):
            return {_name(name): plain_value(inner, convert_other, depth - 1) for name, inner in value.items()}
        return [plain_value(inner, convert_other, depth - 1) for inner in value]
    return convert_other(value)


def _name(name: object) -> str:
    if not isinstance(name, str):
        raise InvalidCustomerError("has a name that is not text")
    return exact_text(name)


def are_plain(values: Iterable[Any], *, clean: bool) -> bool:
    """
    Return whether ``plain_value`` returns all of these values unchanged.

    :param values: the values.
    :param clean: whether every text in them is known to be UTF-8 without a NUL.
    """
    for _ in range(MAX_DEPTH + 1):
        level = list(values)
        kinds = set(map(type, level))
        if not kinds <= _JSON_TYPES:
            return False
        if str in kinds and not clean and not are_clean_texts(value for value in level if type(value) is str):
            return False
        if float in kinds and not all(math.isfinite(value) for value in level if type(value) is float):
            return False
        if int in kinds and not all(abs(value) < FIRST_HUGE_NUMBER for value in level if type(value) is int):
            return False
        if dict not in kinds and list not in kinds:
            return True
        objects = [value for value in level if type(value) is dict]
        if not _are_plain_names(objects, clean=clean):
            return False
        values = chain(
            chain.from_iterable(map(dict.values, objects)),
            chain.from_iterable(value for value in level if type(value) is list),
        )
    return False


def _are_plain_names(objects: Sequence[dict[Any, Any]], *, clean: bool) -> bool:
    names = list(chain.from_iterable(objects))
    return set(map(type, names)) <= {str} and (clean or are_clean_texts(names))


_JSON_TYPES = {str, int, float, bool, type(None), list, dict}
