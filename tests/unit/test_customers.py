"""A record becomes a customer, or an error that names the field and never the value."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import logging
import re
from collections import UserDict, namedtuple
from decimal import Decimal
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs
import msgspec
import numpy as np
import pandas as pd
import pytest
from markupsafe import Markup

from airflow_provider_bubblehouse.customers.converter import Converter
from airflow_provider_bubblehouse.customers.invalid import InvalidCustomerError
from airflow_provider_bubblehouse.customers.values import Float32
from airflow_provider_bubblehouse.exceptions import BubblehousePermanentError
from airflow_provider_bubblehouse.sources.records import ListSource

BERLIN = Converter(timezone="Europe/Berlin")
DELETE = Converter(deletions=True)
ABSENT = object()


class Consent(enum.StrEnum):
    YES = "subscribed"


class Count(enum.IntEnum):
    THREE = 3


class Key(enum.StrEnum):
    ID = "id"
    TAGS = "tags"


def sent(field: str, value: object) -> object:
    """Return a field of a customer as it is sent, ABSENT if it is left out."""
    row = {field: value} if field == "email" else {"id": "1", "email": "jane@example.com", field: value}
    return BERLIN.customer(row).get(field, ABSENT)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("id", "007", "007"),
        ("id", " 1001 ", "1001"),
        ("id", "'7210448301122", "7210448301122"),
        ("id", '="7210448301122"', "7210448301122"),
        ("id", "'abc", "'abc"),
        ("id", "123e45", "123e45"),
        ("id", "1.2.3", "1.2.3"),
        ("id", "user 5", "user 5"),
        ("id", 7, "7"),
        ("id", -7, "-7"),
        ("id", 1001.0, "1001"),
        ("id", float(2**53 - 1), str(2**53 - 1)),
        ("id", Float32(2**24 - 1), str(2**24 - 1)),
        ("id", Decimal(1001), "1001"),
        ("id", Decimal("1E+3"), "1000"),
        ("id", Decimal(2**70), str(2**70)),
        ("id", 2**70, str(2**70)),
        ("id", Count.THREE, "3"),
        ("id", np.float64(5), "5"),
        ("id", UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        ("id", "gid://shopify/Customer/123", "123"),
        ("id", " gid://shopify/Customer/123 ", "123"),
        ("id", "", ABSENT),
        ("id", "  ", ABSENT),
        ("id", '=""', ABSENT),
        ("id", None, ABSENT),
        ("email", "  MixedCase@Example.com  ", "MixedCase@Example.com"),
        ("email", "jürgen@exämple.de", "jürgen@exämple.de"),
        ("phone", "'+61412000999", "+61412000999"),
        ("phone", '="+61412000999"', "+61412000999"),
        ("phone", " +61 412 ", " +61 412 "),
        ("email_marketing_consent", Consent.YES, "subscribed"),
        ("first_name", Markup("Ada"), "Ada"),
        ("first_name", np.str_("Ada"), "Ada"),
        ("first_name", "{{ 7*7 }}", "{{ 7*7 }}"),
        ("first_name", " Ada ", " Ada "),
        ("first_name", "'7", "'7"),
        ("first_name", "", ""),
        ("first_name", "  ", "  "),
        ("first_name", None, None),
        ("deleted", True, True),
        ("deleted", "TRUE", True),
        ("deleted", " false ", False),
        ("optin", False, False),
        ("optin", "TRUE", True),
        ("optin", "t", True),
        ("optin", " Yes ", True),
        ("optin", "on", True),
        ("optin", "1", True),
        ("optin", 1, True),
        ("optin", 1.0, True),
        ("optin", "N", False),
        ("optin", "off", False),
        ("optin", 0, False),
        ("optin", Decimal(0), False),
        ("optin", "", ""),
        ("optin", " ", ""),
        ("tags", ["vip"], ["vip"]),
        ("tags", ("vip",), ["vip"]),
        ("tags", [Consent.YES], ["subscribed"]),
        ("tags", [], []),
        ("tags", '["vip", "é"]', ["vip", "é"]),
        ("tags", ' [ "vip" ] ', ["vip"]),
        ("tags", '{vip,"big spender"}', ["vip", "big spender"]),
        ("tags", r'{"a \"b\"",c d , "e,f","g\\h",""}', ['a "b"', "c d", "e,f", r"g\h", ""]),
        ("tags", "{}", []),
        ("alt_emails", '{"NULL"}', ["NULL"]),
        ("order_count", 3, 3),
        ("order_count", -3, -3),
        ("order_count", 2**64 - 1, 2**64 - 1),
        ("order_count", "3", 3),
        ("order_count", " '3.0 ", 3),
        ("order_count", "003", 3),
        ("order_count", 3.0, 3),
        ("order_count", Decimal("3.00"), 3),
        ("order_count", Count.THREE, 3),
        ("total_spent", "1250.00", "1250.00"),
        ("total_spent", " 1250.00 ", "1250.00"),
        ("total_spent", "'-5", "-5"),
        ("total_spent", "5", "5"),
        ("total_spent", 12.5, "12.5"),
        ("total_spent", 5.0, "5.0"),
        ("total_spent", Float32(np.float32(12.3)), "12.3"),
        ("total_spent", 1e-7, "0.0000001"),
        ("total_spent", 1e22, "10000000000000000000000"),
        ("total_spent", Decimal("12.50"), "12.50"),
        ("total_spent", [12.5, "USD"], ["12.5", "USD"]),
        ("total_spent", (" 5.00", "USD"), ["5.00", "USD"]),
        ("birthday", "0000-02-29", "0000-02-29"),
        ("birthday", " '0000-12-09 ", "0000-12-09"),
        ("birthday", "1990-01-31", "1990-01-31"),
        ("birthday", "1985-07-21 00:00:00", "1985-07-21"),
        ("birthday", "1990-01-31T00:00:00.000Z", "1990-01-31"),
        ("birthday", "0000-01-31 00:00", "0000-01-31"),
        ("birthday", dt.date(1990, 1, 31), "1990-01-31"),
        ("birthday", dt.datetime(1990, 1, 31), "1990-01-31"),
        ("birthday", dt.datetime(1990, 1, 31, tzinfo=ZoneInfo("Europe/Berlin")), "1990-01-31"),
        ("birthday", pd.Timestamp("1990-01-31"), "1990-01-31"),
        ("anniversary", "2020-02-29", "2020-02-29"),
        ("signed_up_at", "2020-01-15T10:30:00Z", "2020-01-15T10:30:00Z"),
        ("signed_up_at", "2020-01-15T10:30:00.123456789-05:00", "2020-01-15T10:30:00.123456789-05:00"),
        ("signed_up_at", "2020-01-15t10:30:00z", "2020-01-15T10:30:00Z"),
        ("signed_up_at", "2024-01-31 12:00:00+00", "2024-01-31T12:00:00+00:00"),
        ("signed_up_at", "2024-01-31 12:00:00.5 -0330", "2024-01-31T12:00:00.5-03:30"),
        ("signed_up_at", "2024-01-31 12:00 UTC", "2024-01-31T12:00:00Z"),
        ("signed_up_at", "'2020-01-15T10:30:00", "2020-01-15T10:30:00+01:00"),
        ("signed_up_at", "2020-01-15T10:30:00.25", "2020-01-15T10:30:00.25+01:00"),
        ("signed_up_at", "2020-07-15 10:30", "2020-07-15T10:30:00+02:00"),
        ("signed_up_at", "2024-03-12", "2024-03-12T00:00:00+01:00"),
        ("signed_up_at", dt.date(2024, 3, 12), "2024-03-12T00:00:00+01:00"),
        ("signed_up_at", "2024-03-31 02:30:00", "2024-03-31T02:30:00+01:00"),  # a gap
        ("signed_up_at", "2024-10-27 02:30:00", "2024-10-27T02:30:00+02:00"),  # a fold
        ("signed_up_at", dt.datetime(2024, 10, 27, 2, 30, fold=1), "2024-10-27T02:30:00+01:00"),
        ("signed_up_at", dt.datetime(2020, 7, 15, 10, 30), "2020-07-15T10:30:00+02:00"),
        ("signed_up_at", dt.datetime(2020, 7, 15, 10, 30, tzinfo=dt.UTC), "2020-07-15T10:30:00+00:00"),
        ("signed_up_at", pd.Timestamp("2020-07-15 10:30:00.5"), "2020-07-15T10:30:00.500000+02:00"),
        ("signed_up_at", "1890-01-01 00:00:00.125", "1889-12-31T23:06:32.125+00:00"),  # a local mean time
        (
            "signed_up_at",
            dt.datetime(1890, 1, 1, tzinfo=dt.timezone(dt.timedelta(seconds=3208))),
            "1889-12-31T23:06:32+00:00",
        ),
        ("email_marketing_consent_change_time", "2024-03-12 00:00:00", "2024-03-12T00:00:00+01:00"),
        ("extras", {"a": {"b": [1, 2.5, None, True]}}, {"a": {"b": [1, 2.5, None, True]}}),
        ("extras", {"d": Decimal("1.10"), "u": UUID(int=1)}, {"d": "1.10", "u": str(UUID(int=1))}),
        ("extras", {"f": Float32(np.float32(12.3)), "e": Count.THREE}, {"f": 12.3, "e": 3}),
        (
            "extras",
            {"t": dt.datetime(2020, 1, 1), "d": dt.date(2020, 1, 1), "x": dt.time(1, 2)},
            {"t": "2020-01-01T00:00:00+01:00", "d": "2020-01-01", "x": "01:02:00"},
        ),
        ("extras", {"a": 2**65}, {"a": 2**65}),
        ("extras", {Consent.YES: 1}, {"subscribed": 1}),
        ("extras", UserDict(a=(1,)), {"a": [1]}),
        ("extras", '{"city": "Paris"}', {"city": "Paris"}),
        ("extras", " {} ", {}),
        ("loyalty_tier", {"as": "is"}, {"as": "is"}),
        ("loyalty_tier", "", ""),
    ],
)
def test_a_field_is_sent_in_its_canonical_form(field, value, expected):
    assert sent(field, value) == expected


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", True),
        ("id", 1.5),
        ("id", ["1"]),
        ("id", 0),
        ("id", "0"),
        ("id", "-000"),
        ("id", 0.0),
        ("id", "'0"),
        ("id", "id"),
        ("id", " \\N "),
        ("id", "NULL"),
        ("id", "none"),
        ("id", "NaN"),
        ("id", "NaT"),
        ("id", "N/A"),
        ("id", "Undefined"),
        ("id", "<NA>"),
        ("id", '="null"'),
        ("id", "1001.0"),
        ("id", "7.21045E+12"),
        ("id", "7,21045e+12"),
        ("id", 9007199254740993.0),
        ("id", Float32(2**24)),
        ("id", Decimal("1.5")),
        ("id", Decimal("NaN")),
        ("id", Decimal("1E+200")),
        ("id", "gid://shopify/MailingAddress/9?model_name=CustomerAddress"),
        ("id", "gid://shopify/Customer/"),
        ("id", "gid://shopify/Customer/0"),
        ("id", "1\x002"),
        ("email", 5),
        ("email", "1"),
        ("email", "@example.com"),
        ("email", "jane@"),
        ("email", "jane@doe@example.com"),
        ("email", "jane doe@example.com"),
        ("email", "jane@exam\tple.com"),
        ("email", "jane@exam\x07ple.com"),
        ("email", "jane@exam\x00ple.com"),
        ("phone", 15551234567),
        ("first_name", ["Jane"]),
        ("first_name", b"Jane"),
        ("first_name", "Ja\x00ne"),
        ("deleted", "wahr"),
        ("deleted", "y"),
        ("deleted", "1"),
        ("deleted", 1),
        ("optin", "maybe"),
        ("optin", 2),
        ("optin", np.bool_(True)),
        ("tags", "vip"),
        ("tags", '{"a": 1}'),
        ("tags", "{a,NULL}"),
        ("tags", "{a,}"),
        ("tags", "{{a},{b}}"),
        ("tags", '{"a}'),
        ("tags", "[1]"),
        ("tags", '["a"] ["b"]'),
        ("tags", {"vip"}),
        ("tags", ["vip", 1]),
        ("tags", ["v\x00ip"]),
        ("order_count", "3.5"),
        ("order_count", "-1"),
        ("order_count", "٣"),
        ("order_count", "9" * 5000),
        ("order_count", 3.5),
        ("order_count", True),
        ("order_count", 2**65),
        ("order_count", np.int64(3)),
        ("total_spent", 7),
        ("total_spent", [7, "USD"]),
        ("total_spent", ["5.00"]),
        ("total_spent", ["5.00", 1]),
        ("total_spent", "1,250.00"),
        ("total_spent", "$5"),
        ("total_spent", "٣"),
        ("total_spent", "5\n5"),
        ("total_spent", float("nan")),
        ("total_spent", Decimal("Infinity")),
        ("total_spent", Decimal("sNaN")),
        ("total_spent", Decimal("1E+1000000")),
        ("total_spent", 1e300),
        ("birthday", "31.01.1990"),
        ("birthday", "1990-02-30"),
        ("birthday", "0000-02-30"),
        ("birthday", "1990-01-31 10:00:00"),
        ("birthday", dt.datetime(1990, 1, 31, 10)),
        ("birthday", pd.NaT),
        ("anniversary", "0000-01-31"),
        ("anniversary", 19900131),
        ("signed_up_at", "now"),
        ("signed_up_at", "0001-01-01T00:00:00"),
        ("signed_up_at", 1579084200),
        ("signed_up_at", "2020-13-15T10:30:00Z"),
        ("signed_up_at", "2020-01-15T25:30:00Z"),
        ("signed_up_at", "2020-01-15T24:00:00Z"),
        ("signed_up_at", "2020-02-30 10:30:00"),
        ("signed_up_at", "2024-W11-2 11:22:33"),
        ("signed_up_at", "2020-01-15_10:30:00"),
        ("signed_up_at", "20200115T103000Z"),
        ("signed_up_at", "2020-01-15T10:30:00+25:00"),
        ("signed_up_at", "2020-01-15T23:59:60Z"),
        ("signed_up_at", pd.NaT),
        ("email_marketing_consent_change_time", "2024-03-12"),
        ("email_marketing_consent_change_time", " '2024-03-12"),
        ("email_marketing_consent_change_time", dt.date(2024, 3, 12)),
        ("extras", "[]"),
        ("extras", "{a}"),
        ("extras", [1]),
        ("extras", {1: 2}),
        ("extras", {"a": float("inf")}),
        ("extras", {"a": b"bytes"}),
        ("extras", {"a": {1, 2}}),
        ("extras", {"a": "\x00"}),
        ("extras", {"\x00": "a"}),
        ("extras", {"a": pd.NaT}),
        ("extras", '{"a": "\\u0000"}'),
        ("loyalty_tier", object()),
        ("loyalty_tier", {"a": np.float32(1)}),
        ("first_name", "broken \udcff text"),
        ("extras", {"a": "broken \ud800 text"}),
    ],
)
def test_a_wrong_value_is_an_error_that_names_the_field_and_not_the_value(field, value):
    with pytest.raises(InvalidCustomerError) as caught:
        sent(field, value)
    assert caught.value.field == field
    assert str(caught.value).startswith(field)
    if len(shown := str(value)[:1000]) > 4:  # others may be part of a word, as vip is of the example
        assert shown not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "field", ["id", "phone", "tags", "birthday", "optin", "order_count", "signed_up_at", "total_spent", "extras"]
)
def test_a_missing_value_of_pandas_is_reported_in_every_field(field):
    with pytest.raises(InvalidCustomerError, match=f"{field} holds NaN or an infinity"):
        sent(field, float("nan"))


@pytest.mark.parametrize("text", ["1001.0", "7.21045E+12"])
def test_an_id_that_a_spreadsheet_has_changed_is_named_as_such(text):
    with pytest.raises(InvalidCustomerError, match="id is damaged by a spreadsheet"):
        sent("id", text)


def test_the_trap_of_whole_amounts_is_named():
    with pytest.raises(InvalidCustomerError, match="millionths"):
        sent("total_spent", 5)


class Broken:
    """Raises whatever is done with it."""

    def _raise(self, *_args):
        raise RuntimeError("of the object's own")

    __eq__ = __bool__ = __iter__ = __str__ = __repr__ = __len__ = __int__ = __float__ = __index__ = _raise
    __hash__ = None

    @property
    def __class__(self):
        raise RuntimeError("of the object's own")


class Exhausted:
    """Raises what ends an iteration without a word."""

    @property
    def __class__(self):
        raise StopIteration


class BrokenText(str):
    """Text whose methods raise."""

    __slots__ = ()

    def _raise(self, *_args):
        raise RuntimeError("of the object's own")

    __eq__ = __str__ = __repr__ = __len__ = __iter__ = strip = lower = isascii = encode = _raise
    __hash__ = None


FIELDS = (
    "id",
    "email",
    "phone",
    "first_name",
    "tags",
    "birthday",
    "signed_up_at",
    "email_marketing_consent_change_time",
    "optin",
    "order_count",
    "total_spent",
    "extras",
    "deleted",
    "loyalty_tier",
)


OF_NO_FIELD = {
    "pandas.*NaTType": pd.NaT,
    "pandas.*NAType": pd.NA,
    "numpy.float32": np.float32(1.5),
    "numpy.int64": np.int64(5),
    "numpy.bool": np.bool_(True),
    "numpy.datetime64": np.datetime64("2020-01-01"),
    "numpy.ndarray": np.array([1, 2]),
    "pandas.*Series": pd.Series([1, 2]),
    "Broken": Broken(),
    "Exhausted": Exhausted(),
    "object": object(),
    "bytes": b"bytes",
    "set": {1, 2},
}


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("type_name", OF_NO_FIELD)
def test_a_value_of_a_type_that_no_field_has_is_named_by_its_type_whatever_it_raises(field, type_name):
    value = OF_NO_FIELD[type_name]
    wrong = {"id": "7", "email": "a@example.com", field: value}
    right = {"id": "1", "email": "a@example.com", field: None if field != "id" else "2"}
    for rows in ([wrong], [right, wrong, right], [right, wrong] * 20):
        (block,) = ListSource(rows).chunks()
        checked = BERLIN.check(block, 1)
        assert [row.number for row in checked.invalid] == [number for number, row in enumerate(rows, 1) if row is wrong]
        assert {row.error.field for row in checked.invalid} == {field}
        assert re.search(type_name, checked.invalid[0].error.reason)
        assert len(checked.customers()) == sum(row is right for row in rows)


@pytest.mark.parametrize("field", FIELDS)
def test_text_whose_methods_raise_never_ends_a_push(field):
    (block,) = ListSource([{"id": "1", field: BrokenText("x@y")}, {"id": "2"}]).chunks()
    assert BERLIN.check(block, 1).count == 2


@pytest.mark.parametrize("record", [{}, {"id": ""}, {"id": None}, {"id": " "}, {"email": ""}, {"first_name": "Jane"}])
def test_a_customer_has_an_id_or_an_email(record):
    with pytest.raises(InvalidCustomerError, match="neither id nor email"):
        BERLIN.customer(record)
    assert BERLIN.customer({**record, "email": "jane@example.com"})["email"] == "jane@example.com"


def test_a_wrong_id_makes_the_row_invalid_even_if_there_is_an_email():
    with pytest.raises(InvalidCustomerError, match="id is a word for a missing value"):
        BERLIN.customer({"id": "NULL", "email": "jane@example.com"})


@dataclasses.dataclass
class DataCustomer:
    id: str
    tags: tuple


@attrs.define
class AttrsCustomer:
    id: str
    tags: tuple


class StructCustomer(msgspec.Struct, rename={"key": "id"}):
    key: str
    tags: tuple
    phone: str | msgspec.UnsetType = msgspec.UNSET


class PydanticCustomer:
    def model_dump(self):
        return {"id": "1", "tags": ("vip",)}


TupleCustomer = namedtuple("TupleCustomer", ["id", "tags"])


@pytest.mark.parametrize(
    "record",
    [
        UserDict(id="1", tags=["vip"]),
        DataCustomer("1", ("vip",)),
        AttrsCustomer("1", ("vip",)),
        StructCustomer("1", ("vip",)),
        PydanticCustomer(),
        TupleCustomer("1", ("vip",)),
        {Key("id"): "1", Key("tags"): ["vip"]},
    ],
    ids=lambda record: type(record).__name__,
)
def test_a_record_may_be_of_any_type_that_names_its_fields(record):
    assert BERLIN.customer(record) == {"id": "1", "tags": ["vip"]}


class BrokenMapping(UserDict):
    def __iter__(self):
        raise RuntimeError("of the object's own")


NO_RECORDS = [None, "text", 5, ["id"], {1: "x", "id": "1"}, DataCustomer, BrokenMapping(id="1"), Broken(), pd.NA]


@pytest.mark.parametrize("place", range(len(NO_RECORDS)))
def test_a_row_that_is_not_a_record_with_named_fields_is_an_error(place):
    record = NO_RECORDS[place]
    with pytest.raises(InvalidCustomerError) as caught:
        BERLIN.customer(record)
    assert caught.value.field is None


def test_bytes_are_refused_in_words():
    with pytest.raises(InvalidCustomerError, match="but bytes; decode it first"):
        BERLIN.customer(b'{"id": "1"}')


@pytest.mark.parametrize("rows", [b'[{"id": "1"}]', '[{"id": "1"}]', {"id": "1"}])
def test_rows_that_are_not_a_list_are_refused_as_a_whole(rows):
    with pytest.raises(BubblehousePermanentError, match="must be a list of customers, not "):
        ListSource(rows)


def nested(depth: int) -> list:
    deep: list = []
    for _ in range(depth):
        deep = [deep]
    return deep


@pytest.mark.parametrize("depth", [200, 100_000])
def test_a_value_nested_too_deeply_is_an_error(depth):
    with pytest.raises(InvalidCustomerError, match="extras is nested too deeply"):
        sent("extras", {"deep": nested(depth)})


def test_a_value_may_be_nested_a_hundred_times():
    assert sent("extras", {"deep": nested(97)}) == {"deep": nested(97)}


def test_absent_fields_stay_absent():
    assert BERLIN.customer({"id": "1"}) == {"id": "1"}


def test_unknown_fields_are_warned_of_once_each_and_never_by_a_name_that_may_be_data(caplog):
    converter = Converter()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            converter.customer({"id": "1", "tier": "gold", "jane@example.com": 1, "none": None})
    assert len(caplog.records) == 2
    assert "tier" in caplog.text
    assert "jane" not in caplog.text
    assert "gold" not in caplog.text


@pytest.mark.parametrize("timezone", ["Europe/Atlantis", "", "/etc/passwd", "../x", "Europe"])
def test_an_unknown_time_zone_is_refused(timezone):
    with pytest.raises(BubblehousePermanentError, match="timezone"):
        Converter(timezone=timezone)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"id": 5, "email": "jane@example.com", "total_spent": 5}, {"id": "5", "deleted": True}),
        ({"id": "", "email": "jane@example.com"}, {"email": "jane@example.com", "deleted": True}),
        ({"email": "jane@example.com", "deleted": True}, {"email": "jane@example.com", "deleted": True}),
        ({"id": "5", "deleted": "TRUE"}, {"id": "5", "deleted": True}),
        ({"id": "5", "deleted": " ", "tags": object()}, {"id": "5", "deleted": True}),
        ({"id": "5", "email": ""}, {"id": "5", "deleted": True}),
    ],
)
def test_a_deletion_sends_the_identity_only(record, expected):
    assert DELETE.customer(record) == expected


@pytest.mark.parametrize(
    "record",
    [
        *({"id": "1", "deleted": no} for no in (False, "false", "y", "1", 0, 1, [])),
        {"id": "1", "email": "no address"},
        {"id": "0", "email": "jane@example.com"},
        {"first_name": "Jane"},
        None,
    ],
)
def test_a_deletion_without_an_identity_or_with_deleted_false_is_an_error(record):
    with pytest.raises(InvalidCustomerError):
        DELETE.customer(record)


@pytest.mark.parametrize(
    ("field", "value"),
    [("id", 10**5000), ("extras", {"a": [10**5000]}), ("tier", -(10**100))],
    ids=["id", "extras", "tier"],
)
def test_a_number_of_more_digits_than_python_writes_out_is_an_error(field, value):
    with pytest.raises(InvalidCustomerError, match=f"{field} holds a number of more than 100 digits"):
        Converter().customer({"id": "1", field: value})


def test_a_row_that_is_too_large_is_invalid_and_its_neighbours_are_not():
    rows = [{"id": "1"}, {"id": "2", "first_name": "x" * 200}, {"id": "3"}, {"id": "0"}]
    (block,) = ListSource(rows).chunks()
    checked = Converter(largest=100).check(block, 1)
    assert (list(checked.numbers), checked.identities()) == ([1, 3], ["1", "3"])
    assert checked.customers().lines == [b'{"id":"1"}', b'{"id":"3"}']
    assert [(row.number, row.record) for row in checked.invalid] == [(2, rows[1]), (4, rows[3])]


def test_rows_with_ever_other_fields_are_converted_without_a_cell_for_each_field_of_each_row():
    rows = [{"id": str(number), f"field_{number}": number} for number in range(1, 1001)]
    blocks = list(ListSource(rows).chunks())
    assert sum(len(block.columns) * block.count for block in blocks) < 40_000
    first, sent = 1, []
    for block in blocks:
        checked = Converter().check(block, first)
        first += checked.count
        sent += map(msgspec.json.decode, checked.customers().lines)
    assert sent == rows
