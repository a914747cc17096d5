"""
One customer as the API takes it: the type Customer2, checked and brought into its form.

The rules come from https://app.bubblehouse.com/apidocs/apis/order/Customer2 and …/calling/values. What these pages do
not say is not guessed: fields unknown here pass as they are, and so do ``null`` and ``""``.
"""

from __future__ import annotations

import datetime as dt
import logging
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from decimal import Decimal
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Any, cast
from uuid import UUID

import msgspec
import pendulum

from airflow_provider_bubblehouse.errors import PermanentError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

log = logging.getLogger(__name__)

RULES_VERSION = 2  # of the rules here, of identities and of lanes: progress that other rules have made does not fit

_SHOP_PREFIX = re.compile(r"gid://[^/]+/Customer/(?=.)")
AMOUNT_PATTERN = r"^-?[0-9]+(\.[0-9]+)?\Z"
_AMOUNT = re.compile(AMOUNT_PATTERN)
_DATE = re.compile(r"(\d{4})-(\d{2})-(\d{2})", re.ASCII)
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}([Tt ])\d{2}:\d{2}(:\d{2}(?:\.\d+)?)?([Zz]|[+-]\d{2}:\d{2})?", re.ASCII)
_LEAP_YEAR = 2000  # stands in for the unknown year of a birthday, so that 29 February is one

_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,63}")
_UNKNOWN_FIELDS_WARNED = 50  # names that go on and on are data in the names' place

_FIRST_HUGE_NUMBER = 10**100  # Python does not even write a number of more than 4300 digits out
_INT64_MIN, _UINT64_MAX = -(2**63), 2**64 - 1


class InvalidCustomerError(ValueError):
    """
    A record that is no Customer2.

    :param reason: what is wrong and what to do, in words that fit every value; never the value.
    :param field: the field at fault, None where it is the record as a whole.
    :param record: what a source could read of the row, where it could not make a record of it.
    """

    def __init__(self, reason: str, field: str | None = None, *, record: object = None) -> None:
        super().__init__(f"{printable_name(field)} {reason}" if field else reason)
        self.reason = reason
        self.field = field
        self.record = record


_Text = str | None | msgspec.UnsetType
_Texts = list[str] | None | msgspec.UnsetType
_Flag = bool | None | msgspec.UnsetType
_Day = dt.date | None | msgspec.UnsetType


class Customer2(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """
    A customer as it stands in JSON that can be sent as it is, decoded and checked without a line of Python for each.

    It takes less than ``CustomerNormaliser`` does; with ``identities_of`` and ``check_plain_times``, nothing that this
    would refuse or change.
    """

    id: str | int | msgspec.UnsetType | None = msgspec.UNSET
    email: _Text = msgspec.UNSET
    phone: _Text = msgspec.UNSET
    first_name: _Text = msgspec.UNSET
    last_name: _Text = msgspec.UNSET
    full_name: _Text = msgspec.UNSET
    extras: dict[str, Any] | msgspec.UnsetType | None = msgspec.UNSET
    deleted: _Flag = msgspec.UNSET
    tags: _Texts = msgspec.UNSET
    birthday: _Day = msgspec.UNSET
    anniversary: _Day = msgspec.UNSET
    signed_up_at: _Text = msgspec.UNSET
    email_marketing_consent: _Text = msgspec.UNSET
    sms_marketing_consent: _Text = msgspec.UNSET
    email_marketing_consent_change_time: _Text = msgspec.UNSET
    email_verified: _Text = msgspec.UNSET
    optin: _Flag = msgspec.UNSET
    alt_emails: _Texts = msgspec.UNSET
    personal_referral_code: _Text = msgspec.UNSET
    order_count: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | msgspec.UnsetType | None = msgspec.UNSET
    total_spent: Annotated[str, msgspec.Meta(pattern=AMOUNT_PATTERN)] | msgspec.UnsetType | None = msgspec.UNSET


class Customer2OfObjects(Customer2, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """The same from Python's objects, whose ``extras`` may hold what JSON cannot say."""

    extras: dict[str, str | int | bool | None] | msgspec.UnsetType | None = msgspec.UNSET


@cache
def narrowed(names: frozenset[str]) -> type[Customer2]:
    """
    Return a type for customers that have no fields but these, which takes less time to decode.

    :param names: names of fields, which need not all be known.
    """
    fields = [field for field in msgspec.structs.fields(Customer2) if field.name in names | {"id", "email"}]
    narrow = msgspec.defstruct(
        "Customer2",
        [(field.name, field.type, field.default) for field in fields],
        omit_defaults=True,
        forbid_unknown_fields=True,
        gc=False,
    )
    return cast(
        "type[Customer2]", narrow
    )  # no subclass, for that would have all fields; but what can be asked of it is the same


def identities_of(customers: Sequence[Customer2]) -> tuple[Sequence[str], bool]:
    """
    Return the id of each customer, or else its email, and whether an id was a number, of which it has made text.

    :param customers: customers, changed in place.
    :raises ValueError: if not all are plain enough to be sent as they stand; or else TypeError.
    """
    identities: list[Any] = [customer.id for customer in customers]
    with suppress(ValueError, TypeError):  # all are text, as they mostly are
        return plain_identities(identities), False
    kinds = set(map(type, identities))
    if int in kinds:
        for customer in customers:
            if type(customer.id) is int:
                customer.id = str(customer.id)
    if kinds != {str} or not all(identities):
        identities = [customer.id or customer.email for customer in customers]
    return plain_identities(identities), int in kinds


def plain_identities(identities: Sequence[Any]) -> Sequence[str]:
    """
    Return what tells customers apart, if no closer look at it is needed.

    :param identities: of each customer the id, or else the email.
    :raises ValueError: if one is missing, or has blanks or a prefix that would have to go; or else TypeError.
    """
    joined = "".join(identities)
    if not (all(identities) and joined.isprintable() and " " not in joined and "gid://" not in joined):
        raise ValueError
    return identities


def times_of(customers: Sequence[Customer2]) -> list[str]:
    """
    Return all times of some customers.

    :param customers: customers, all of one type.
    """
    times: list[Any] = []
    for name in TIME_FIELDS:
        if customers and hasattr(customers[0], name):
            times += filter(None, map(attrgetter(name), customers))
    return times


def check_plain_times(times: Sequence[str]) -> None:
    """
    See that times can be sent as they stand: RFC 3339 with an offset, in the one spelling that all readers of it know.

    :param times: as they stand in a source.
    :raises ValueError: if one cannot.
    """
    if times:
        msgspec.convert(times, _MOMENTS)
        spelled = "".join(times)  # of which the other spellings have a blank, a small letter, or no colon in the offset
        if " " in spelled or "t" in spelled or "z" in spelled:
            raise ValueError
        if spelled.count(":") != 3 * len(times) - spelled.count("Z"):
            raise ValueError


_MOMENTS = list[Annotated[dt.datetime, msgspec.Meta(tz=True)]]


def identity_of(customer: Mapping[str, Any]) -> str:
    """Return the id of a normalised customer, or else its email."""
    identity: str = customer["id"] if _names_somebody(customer.get("id")) else customer["email"]
    return identity


class CustomerNormaliser:
    """
    Checks records and brings them into the form of Customer2.

    :param timezone: the time zone of times without an offset, such as ``Europe/Berlin``.
    :raises PermanentError: if there is no such time zone.
    """

    def __init__(self, *, timezone: str = "UTC") -> None:
        try:
            self._timezone = pendulum.timezone(timezone)
        except (ValueError, KeyError, OSError):
            raise PermanentError("timezone must be the name of a time zone such as Europe/Berlin.") from None
        self._unknown_fields: set[str] = set()
        self._rules: dict[str, Callable[[Any], Any]] = {
            "id": _identifier,
            **dict.fromkeys(TEXT_FIELDS, _text),
            **dict.fromkeys(LIST_FIELDS, _texts),
            **dict.fromkeys(BOOLEAN_FIELDS, _boolean),
            **dict.fromkeys(TIME_FIELDS, self._time),
            "order_count": _whole_number,
            "total_spent": _money,
            "birthday": _birthday,
            "anniversary": _date,
            "extras": self._extras,
        }

    def normalise(self, record: object) -> dict[str, Any]:
        """
        Return the customer that a record describes.

        :param record: a mapping of Customer2's fields.
        :raises InvalidCustomerError: if it is no Customer2.
        """
        if isinstance(record, InvalidCustomerError):  # what the source could not read is a fault of the row, too
            raise record
        if not isinstance(record, Mapping):
            raise InvalidCustomerError("the row is no object with the fields of a customer")
        customer = {_exact(name): self._value(name, value) for name, value in record.items()}
        require_identity(customer)
        return customer

    def normalise_deletion(self, record: object) -> dict[str, Any]:
        """
        Return the update that deletes the customer whom a record describes; only its identity is looked at.

        :param record: a mapping with ``id`` or ``email``.
        :raises InvalidCustomerError: if it names nobody, or has a ``deleted`` that is not true.
        """
        if isinstance(record, Mapping):
            deleted = record.get("deleted")
            if deleted not in (None, "") and deleted is not True:
                raise InvalidCustomerError("is there and not true, which a row for deletion must be", "deleted")
            record = {name: record[name] for name in ("id", "email") if name in record}
        customer = self.normalise(record)
        name = "id" if _names_somebody(customer.get("id")) else "email"
        return {name: customer[name], "deleted": True}

    def _value(self, name: str, value: object) -> object:
        if value is None or (isinstance(value, str) and not value):
            return value
        rule = self._rules.get(name)
        try:
            if isinstance(value, float):
                _require_finite(value)
            if rule is not None:
                return rule(value)
            self._warn_of_unknown(name)
            return self._plain(value)
        except InvalidCustomerError as error:
            raise InvalidCustomerError(error.reason, name) from None
        except RecursionError:
            raise InvalidCustomerError("is nested too deeply", name) from None

    def _warn_of_unknown(self, name: str) -> None:
        shown = printable_name(name)
        if shown not in self._unknown_fields and len(self._unknown_fields) < _UNKNOWN_FIELDS_WARNED:
            self._unknown_fields.add(shown)
            log.warning(
                "Customer2 is not known to have %s; it is sent as it stands. If it is another field's name, use "
                "column_map.",
                shown,
            )

    def _extras(self, value: object) -> object:
        if not isinstance(value, Mapping):
            raise InvalidCustomerError("must be an object")
        return self._plain(value)

    def _plain(self, value: object) -> object:
        """Return a value of any shape in JSON's own types; what JSON cannot say without loss is a fault."""
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return _exact(value)
        if isinstance(value, int):
            if abs(value) >= _FIRST_HUGE_NUMBER:
                raise InvalidCustomerError("holds a number of more than 100 digits")
            return int(value)
        if isinstance(value, float):
            _require_finite(value)
            return float(value)
        if isinstance(value, Decimal):
            return _decimal_text(value)
        if isinstance(value, dt.datetime):
            return self._time(value)
        if isinstance(value, dt.date | dt.time):
            return value.isoformat()
        if isinstance(value, UUID):
            return str(value)
        if isinstance(value, Mapping):
            return {_exact(name): self._plain(inner) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self._plain(inner) for inner in value]
        raise InvalidCustomerError("holds a value of a type that JSON does not have")

    def _time(self, value: object) -> str:
        if isinstance(value, dt.datetime):
            moment = value
        else:
            match = _TIME.fullmatch(value) if isinstance(value, str) else None
            if match is None or not isinstance(value, str):
                raise InvalidCustomerError("must be a time such as 2026-01-31T12:00:00+01:00")
            try:
                moment = dt.datetime.fromisoformat(value.upper())
            except ValueError:
                raise InvalidCustomerError("is no time of the calendar") from None
            if match[1] != " " and match[2] and match[3]:
                return value.upper()  # RFC 3339 as it came
        try:
            if moment.tzinfo is None:
                moment = pendulum.instance(moment, tz=self._timezone)
            offset = moment.utcoffset()
            if offset is None or offset.total_seconds() % 60:  # a local mean time, whose offset RFC 3339 cannot say
                moment = moment.astimezone(dt.UTC)
        except (ValueError, OverflowError):  # at an end of the calendar, such as 0001-01-01, which stands for none
            raise InvalidCustomerError("is no time of the calendar") from None
        return moment.isoformat()


TEXT_FIELDS = (
    "email",
    "phone",
    "first_name",
    "last_name",
    "full_name",
    "email_marketing_consent",
    "sms_marketing_consent",
    "email_verified",
    "personal_referral_code",
)
LIST_FIELDS = ("tags", "alt_emails")
BOOLEAN_FIELDS = ("deleted", "optin")
TIME_FIELDS = ("signed_up_at", "email_marketing_consent_change_time")
DATE_FIELDS = ("birthday", "anniversary")


def encode_customer(customer: Mapping[str, Any]) -> bytes:
    """
    Return a normalised customer as JSON.

    :param customer: what ``CustomerNormaliser`` returned.
    :raises InvalidCustomerError: if a field holds text that UTF-8 cannot hold.
    """
    try:
        return msgspec.json.encode(customer)
    except (UnicodeEncodeError, RecursionError):
        for name, value in customer.items():
            try:
                msgspec.json.encode(value)
            except UnicodeEncodeError:
                raise InvalidCustomerError("is not UTF-8 text; save the source as UTF-8", name) from None
            except RecursionError:
                raise InvalidCustomerError("is nested too deeply", name) from None
        raise InvalidCustomerError("a field's name is not UTF-8 text; save the source as UTF-8") from None


def printable_name(name: str) -> str:
    """Return a field's name for a message; what is no plain word may be data in a name's place and is not shown."""
    return name if _PLAIN_NAME.fullmatch(name) else "a field whose name is no plain word"


def require_identity(customer: Mapping[str, Any]) -> None:
    """
    See that a customer can be told from all others.

    :raises InvalidCustomerError: if neither ``id`` nor ``email`` says anything.
    """
    if not (_names_somebody(customer.get("id")) or _names_somebody(customer.get("email"))):
        raise InvalidCustomerError("the row has neither id nor email")


def _names_somebody(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


_NOT_FINITE = "holds NaN or an infinity, which JSON does not have; leave it out"


def _require_finite(value: float) -> None:
    if not math.isfinite(value):
        raise InvalidCustomerError(_NOT_FINITE)


def _exact(value: object) -> str:
    """Return text as plain ``str``: the encoder takes no subclass, such as those of enum or numpy."""
    if type(value) is str:
        return value
    if not isinstance(value, str):
        raise InvalidCustomerError("the row has a field whose name is not text")
    return str.__str__(value)


def _identifier(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < _FIRST_HUGE_NUMBER:
        return str(value)
    if isinstance(value, UUID):  # as databases have them
        return str(value)
    if not isinstance(value, str):
        raise InvalidCustomerError("must be text or a whole number of at most 100 digits")
    return _SHOP_PREFIX.sub("", value, count=1) if value.startswith("gid://") else _exact(value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise InvalidCustomerError("must be text")
    return _exact(value)


def _texts(value: object) -> list[str]:
    if not isinstance(value, list | tuple) or not all(isinstance(inner, str) for inner in value):
        raise InvalidCustomerError("must be a list of texts")
    return [_exact(inner) for inner in value]


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidCustomerError("must be true or false")
    return value


def _whole_number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not _INT64_MIN <= value <= _UINT64_MAX:
        raise InvalidCustomerError("must be a whole number")
    return int(value)


def _money(value: object) -> object:
    """Return an amount as a decimal string, with its currency where it has one: ``[amount, "USD"]``."""
    if isinstance(value, list | tuple):
        if len(value) != 2 or not isinstance(value[1], str):
            raise InvalidCustomerError('with a currency must be two values, such as ["12.50", "USD"]')
        return [_amount(value[0]), _exact(value[1])]
    return _amount(value)


def _amount(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        raise InvalidCustomerError('is a whole number, which the API takes for millionths; write 5 as the text "5.00"')
    if isinstance(value, float):
        value = Decimal(repr(float(value)))
    if isinstance(value, Decimal):
        return _decimal_text(value)
    if not isinstance(value, str) or not _AMOUNT.fullmatch(value):
        raise InvalidCustomerError('must be an amount such as "1250.00", without currency or thousands separators')
    return _exact(value)


def _decimal_text(value: Decimal) -> str:
    if not value.is_finite():
        raise InvalidCustomerError(_NOT_FINITE)
    return format(value, "f")


def _date(value: object) -> str:
    if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
        return value.isoformat()
    match = _DATE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise InvalidCustomerError("must be a date such as 2026-01-31")
    year, month, day = map(int, match.groups())
    try:
        dt.date(year, month, day)
    except ValueError:
        raise InvalidCustomerError("is no day of the calendar") from None
    return match[0]


def _birthday(value: object) -> str:
    if isinstance(value, str) and value.startswith("0000-"):
        _date(f"{_LEAP_YEAR}{value[4:]}")
        return value
    return _date(value)
