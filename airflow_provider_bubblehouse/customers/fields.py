"""
The table of fields: the canonical type of each field, its rule, and a fast test of whether all values are canonical.

*Canonical* is what is sent. A rule converts every accepted spelling to canonical form, returns canonical values
unchanged, and raises ``InvalidCustomerError`` for anything else. The fields come from
https://app.bubblehouse.com/apidocs/apis/order/Customer2 and …/calling/values. The rules do not guess what these pages
leave open: ``null``, ``""`` and unknown fields are sent unchanged.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from functools import partial
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple
from uuid import UUID

from msgspec import Meta

from airflow_provider_bubblehouse.customers.identity import (
    are_email_addresses,
    are_identifiers,
    email_address,
    identifier,
    identifiers_of_numbers,
    verbatim_identifier,
)
from airflow_provider_bubblehouse.customers.invalid import InvalidCustomerError, type_name, wrong_type
from airflow_provider_bubblehouse.customers.times import Calendar, are_dates, are_times
from airflow_provider_bubblehouse.customers.values import (
    are_clean_texts,
    are_plain,
    decimal_text,
    decode_all,
    exact_text,
    from_json_text,
    plain_value,
    unmarked,
    whole_number,
)

if TYPE_CHECKING:
    from airflow_provider_bubblehouse.customers.blocks import Path

_AMOUNT = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_WHOLE = re.compile(r"([0-9]+)(?:\.0+)?")
_NOT_A_BOOLEAN = "must be true or false"
_NOT_AN_AMOUNT = 'must be an amount such as "1250.00", without currency or thousands separators'

_INT64_MIN, _INT64_MAX, _UINT64_MAX = -(2**63), 2**63 - 1, 2**64 - 1
_LONGEST_COUNT = len(str(_UINT64_MAX))

_TRUE, _FALSE = ("true", "t", "yes", "y", "on", "1", 1), ("false", "f", "no", "n", "off", "0", 0)
_BOOLEANS: dict[str | float | Decimal, bool] = {**dict.fromkeys(_TRUE, True), **dict.fromkeys(_FALSE, False)}
_EXPLICIT_BOOLEANS = {"true": True, "false": False}


_SCALAR = str | Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | float | bool | None
_SHALLOW = _SCALAR | list[_SCALAR] | dict[str, _SCALAR]
_JSON = _SCALAR | list[_SHALLOW] | dict[str, _SHALLOW]  # the rule checks deeper values one by one

AtOnce = Mapping[type, Callable[[Sequence[Any]], Sequence[Any] | None]]
_NOT_AT_ONCE: AtOnce = MappingProxyType({})


class Field(NamedTuple):
    """
    The definition of one field.

    :param kind: the type of most canonical values, None for any JSON type.
    :param rule: returns the canonical form of a value that is not null or empty.
    :param are_canonical: returns whether the rule would return all of these values unchanged. They are of exactly
        ``kind``, and not empty texts. False negatives are allowed. If ``kind`` is ``str``, the texts are clean (see
        ``are_clean_texts``); for other kinds, the second argument says whether they are.
    :param json_type: a type for decoding JSON that makes every value with clean texts canonical; None if there is no
        such type.
    :param marks: a text of ``json_type`` is canonical unless it contains one of these characters.
    :param blank_is_empty: whether a text of blanks is sent as an empty text.
    :param at_once: by type, a function that converts many values of it as the rule does, but faster. It returns None
        if the rule has to convert each value.
    """

    kind: type | None
    rule: Callable[[Any], object]
    are_canonical: Callable[[Sequence[Any], bool], bool]
    json_type: Any = None
    marks: str = ""
    blank_is_empty: bool = True
    at_once: AtOnce = _NOT_AT_ONCE


def customer_fields(calendar: Calendar, id_column: str, *, verbatim_id: bool = False) -> dict[str, Field]:
    """
    Return the fields of a customer, in the order in which they are sent.

    :param calendar: the rules for times and dates.
    :param id_column: the name of the column that ``id`` comes from.
    :param verbatim_id: whether every text is an ``id`` and is sent unchanged.
    """
    text = Field(str, exact_text, _always, str, blank_is_empty=False)
    texts = Field(
        list,
        _texts,
        _are_lists_of_texts,
        list[str],
        at_once={str: partial(_from_json_texts, list, _are_lists_of_texts)},
    )
    local_times: AtOnce = {str: calendar.local_times}
    return {
        "id": _identifier(id_column, verbatim=verbatim_id),
        "email": _EMAIL,
        "phone": Field(str, _phone, _are_phones, str, marks="'=", blank_is_empty=False),
        "first_name": text,
        "last_name": text,
        "full_name": text,
        "tags": texts,
        "alt_emails": texts,
        "birthday": Field(str, calendar.birthday, _are_dates),
        "anniversary": Field(str, calendar.date, _are_dates),
        "signed_up_at": Field(str, calendar.time, _are_times, at_once=local_times),
        "email_marketing_consent": text,
        "email_marketing_consent_change_time": Field(str, calendar.time_of_change, _are_times, at_once=local_times),
        "sms_marketing_consent": text,
        "email_verified": text,
        "optin": Field(bool, boolean, _always, bool),
        "personal_referral_code": text,
        "order_count": Field(int, _count, _are_counts, Annotated[int, Meta(ge=_INT64_MIN, le=_INT64_MAX)]),
        "total_spent": Field(str, _money, _are_amounts),
        "extras": Field(
            dict,
            partial(_extras, calendar),
            _are_plain,
            dict[str, _JSON],
            at_once={str: partial(_from_json_texts, dict, _are_plain)},
        ),
        "deleted": Field(bool, _explicit_boolean, _always, bool),
    }


def deletion_fields(id_column: str, *, verbatim_id: bool = False) -> dict[str, Field]:
    """
    Return the fields of a row that names a customer to delete; its other fields are ignored.

    :param id_column: the name of the column that ``id`` comes from.
    :param verbatim_id: whether every text is an ``id`` and is sent unchanged.
    """
    return {
        "id": _identifier(id_column, verbatim=verbatim_id),
        "email": _EMAIL,
        "deleted": Field(bool, _true, lambda values, _clean: all(values)),
    }


def other_field(calendar: Calendar) -> Field:
    """Return the definition of fields that Customer2 is not known to have, and of the fields within ``extras``."""
    return Field(None, partial(_json_value, calendar), _are_plain, _JSON, blank_is_empty=False)


def _identifier(column: str, *, verbatim: bool) -> Field:
    if verbatim:
        return Field(str, partial(verbatim_identifier, column), _never)
    return Field(
        str,
        partial(identifier, column),
        lambda values, _clean: are_identifiers(values, column),
        at_once={int: identifiers_of_numbers},
    )


_EMAIL = Field(str, email_address, lambda values, _clean: are_email_addresses(values))


def _always(_values: Sequence[Any], _clean: bool) -> bool:
    return True


def _never(_values: Sequence[Any], _clean: bool) -> bool:
    return False


def _phone(value: object) -> str:
    return unmarked(exact_text(value))


def _are_phones(values: Sequence[str], _clean: bool) -> bool:
    joined = "".join(values)
    return "'" not in joined and "=" not in joined


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        value = _from_json_text(value, list, 'must be a JSON array of texts, such as ["vip"]')
    if not isinstance(value, list | tuple):
        raise wrong_type("must be a list of texts", value)
    return [exact_text(inner) for inner in value]


def _are_lists_of_texts(lists: Sequence[list[Any]], clean: bool) -> bool:
    texts = list(chain.from_iterable(lists))
    return set(map(type, texts)) <= {str} and (clean or are_clean_texts(texts))


def _from_json_text(value: str, kind: type, otherwise: str) -> object:
    text = exact_text(value)
    try:
        return from_json_text(text, kind)
    except ValueError:
        raise InvalidCustomerError(otherwise) from None


def _from_json_texts(
    kind: type, are_canonical: Callable[[Sequence[Any], bool], bool], texts: Sequence[str]
) -> list[Any] | None:
    values = decode_all(texts, kind)
    return values if values is not None and are_canonical(values, True) else None


def _are_times(values: Sequence[str], _clean: bool) -> bool:
    return are_times(values)


def _are_dates(values: Sequence[str], _clean: bool) -> bool:
    return are_dates(values)


def boolean(value: object) -> bool:
    if isinstance(value, str):
        found = _BOOLEANS.get(value) if type(value) is str else None
        found = _BOOLEANS.get(exact_text(value).strip().lower()) if found is None else found
    elif isinstance(value, int | float | Decimal):  # bool is a subclass of int
        found = _BOOLEANS.get(value)
    else:
        raise wrong_type(_NOT_A_BOOLEAN, value)
    if found is None:
        raise InvalidCustomerError(_NOT_A_BOOLEAN)
    return found


def _explicit_boolean(value: object) -> bool:
    """Convert only the spellings true and false: a loose spelling must not delete customers."""
    if value is True or value is False:
        return value
    if not isinstance(value, str):
        raise wrong_type(_NOT_A_BOOLEAN, value)
    found = _EXPLICIT_BOOLEANS.get(exact_text(value).strip().lower())
    if found is None:
        raise InvalidCustomerError(_NOT_A_BOOLEAN)
    return found


def _true(value: object) -> bool:
    if not _explicit_boolean(value):
        raise InvalidCustomerError("must be true or left out in a row that names a customer to delete")
    return True


def _count(value: object) -> int:
    number: int | None = None
    if isinstance(value, str):
        match = _WHOLE.fullmatch(unmarked(exact_text(value).strip()))
        number = whole_number(int(match[1])) if match and len(match[1]) <= _LONGEST_COUNT else None
    elif isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        number = whole_number(value)
    else:
        raise wrong_type("must be a whole number", value)
    if number is None or not _INT64_MIN <= number <= _UINT64_MAX:
        raise InvalidCustomerError("must be a whole number")
    return number


def _are_counts(values: Sequence[int], _clean: bool) -> bool:
    return min(values) >= _INT64_MIN and max(values) <= _UINT64_MAX


def _money(value: object) -> object:
    """Return an amount as a decimal text, with its currency if it has one: ``[amount, "USD"]``."""
    if not isinstance(value, list | tuple):
        return _amount(value)
    if len(value) != 2 or not isinstance(value[1], str):
        raise InvalidCustomerError('with a currency must be two values, such as ["12.50", "USD"]')
    return [_amount(value[0]), exact_text(value[1])]


def _amount(value: object) -> str:
    if isinstance(value, float | Decimal):
        return decimal_text(value)
    if isinstance(value, int) and not isinstance(value, bool):
        raise InvalidCustomerError('is a whole number, which the API reads as millionths; write 5 as the text "5.00"')
    if not isinstance(value, str):
        raise wrong_type(_NOT_AN_AMOUNT, value)
    text = unmarked(exact_text(value).strip())
    if not _AMOUNT.fullmatch(text):
        raise InvalidCustomerError(_NOT_AN_AMOUNT)
    return text


def _are_amounts(values: Sequence[str], _clean: bool) -> bool:
    return all(map(_AMOUNT.fullmatch, values))


def _extras(calendar: Calendar, value: object) -> object:
    if isinstance(value, str):
        value = _from_json_text(value, dict, "must be a JSON object")
    if not isinstance(value, Mapping):
        raise wrong_type("must be an object", value)
    return _json_value(calendar, value)


def _json_value(calendar: Calendar, value: object) -> object:
    return plain_value(value, partial(_of_other_type, calendar))


def _of_other_type(calendar: Calendar, value: object) -> str:
    if isinstance(value, dt.datetime):
        return calendar.time(value)
    if isinstance(value, dt.date | dt.time):
        return str(value.isoformat())
    if isinstance(value, UUID):
        return str(value)
    raise InvalidCustomerError(f"holds a {type_name(value)}, which JSON does not have")


def _are_plain(values: Sequence[Any], clean: bool) -> bool:
    return are_plain(values, clean=clean)


_UTC = Calendar("UTC")
_FIELDS = customer_fields(_UTC, "id")
_OTHER = other_field(_UTC)
_ORDER = {name: place for place, name in enumerate(_FIELDS)}

FIELD_NAMES = frozenset(_ORDER)
LIST_FIELDS = frozenset({"tags", "alt_emails"})
CALENDAR_FIELDS = frozenset({"birthday", "anniversary", "signed_up_at", "email_marketing_consent_change_time"})


def in_order(paths: Iterable[Path]) -> list[Path]:
    """Return fields in the order in which they are sent: those of Customer2 first, then others by their names."""
    return sorted(paths, key=lambda path: (_ORDER.get(path[0], len(_ORDER)), path[0]))


def json_type(path: Path) -> Any:
    """Return the type for decoding the JSON values of a field that has its expected type."""
    field = _field(path)
    return field.kind if field.json_type is None else field.json_type


class CanonicalFields:
    """
    The fields whose values are canonical by their type, so that no value has to be checked.

    :param paths: the fields of the source.
    :param texts_only: whether all values are texts, as in CSV; otherwise they have the field's ``json_type``.
    """

    def __init__(self, paths: Iterable[Path], *, texts_only: bool = False) -> None:
        fields = {path: _field(path) for path in paths}
        known = {
            path: field.marks
            for path, field in fields.items()
            if field.json_type is not None and (field.kind in (str, None) or not texts_only)
        }
        self._all = frozenset(known)
        self._without_marks = frozenset(path for path, marks in known.items() if not marks)
        self._marks = set("".join(known.values()))

    def in_csv(self, text: str) -> frozenset[Path]:
        """Return those fields whose values in a clean text are canonical."""
        return self._without_marks if any(mark in text for mark in self._marks) else self._all

    def in_json(self, text: bytes) -> frozenset[Path]:
        """Return those fields whose values in a clean JSON text are canonical."""
        hidden = self._marks and b"\\" in text  # an escape may encode a mark
        return self._without_marks if hidden or any(mark.encode() in text for mark in self._marks) else self._all


def _field(path: Path) -> Field:
    return _FIELDS.get(path[0], _OTHER) if len(path) == 1 else _OTHER
