"""One record becomes one Customer2, or a fault that names the field and never the value."""

from __future__ import annotations

import datetime as dt
import enum
import json
import logging
from decimal import Decimal
from uuid import UUID

import pytest
from airflow_provider_bubblehouse.api.customers import CustomerNormaliser, InvalidCustomerError, encode_customer

from airflow_provider_bubblehouse.exceptions import BubblehousePermanentError

BERLIN = CustomerNormaliser(timezone="Europe/Berlin")


class Consent(enum.StrEnum):
    YES = "subscribed"


def normalised(field: str, value: object) -> object:
    """Return a field of a customer as it arrives, through the encoder."""
    return json.loads(encode_customer(BERLIN.normalise({"id": "1", field: value})))[field]


@pytest.mark.parametrize(
    ("field", "given", "sent"),
    [
        ("id", "007", "007"),
        ("id", 7, "7"),
        ("id", 2**70, str(2**70)),
        ("id", UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        ("id", "gid://shopify/Customer/123", "123"),
        ("id", "gid://shopify/Customer/", "gid://shopify/Customer/"),
        ("id", "gid://shopify/Order/1", "gid://shopify/Order/1"),
        ("email_marketing_consent", Consent.YES, "subscribed"),
        ("first_name", "{{ 7*7 }}", "{{ 7*7 }}"),
        ("first_name", "", ""),
        ("first_name", None, None),
        ("deleted", True, True),
        ("tags", ["vip"], ["vip"]),
        ("tags", ("vip",), ["vip"]),
        ("tags", [], []),
        ("order_count", 3, 3),
        ("total_spent", "1250.00", "1250.00"),
        ("total_spent", "5", "5"),
        ("total_spent", 12.5, "12.5"),
        ("total_spent", 1e-7, "0.0000001"),
        ("total_spent", 1e22, "10000000000000000000000"),
        ("total_spent", Decimal("12.50"), "12.50"),
        ("total_spent", [12.5, "USD"], ["12.5", "USD"]),
        ("birthday", "0000-02-29", "0000-02-29"),
        ("birthday", "1990-01-31", "1990-01-31"),
        ("birthday", dt.date(1990, 1, 31), "1990-01-31"),
        ("anniversary", "2020-02-29", "2020-02-29"),
        ("signed_up_at", "2020-01-15T10:30:00Z", "2020-01-15T10:30:00Z"),
        ("signed_up_at", "2020-01-15T10:30:00.123456789-05:00", "2020-01-15T10:30:00.123456789-05:00"),
        ("signed_up_at", "2020-01-15T10:30:00", "2020-01-15T10:30:00+01:00"),
        ("signed_up_at", "2020-07-15 10:30", "2020-07-15T10:30:00+02:00"),
        ("signed_up_at", dt.datetime(2020, 7, 15, 10, 30), "2020-07-15T10:30:00+02:00"),
        ("signed_up_at", dt.datetime(2020, 7, 15, 10, 30, tzinfo=dt.UTC), "2020-07-15T10:30:00+00:00"),
        (
            "signed_up_at",
            dt.datetime(1890, 1, 1, tzinfo=dt.timezone(dt.timedelta(seconds=3208))),
            "1889-12-31T23:06:32+00:00",
        ),
        ("extras", {"a": {"b": [1, 2.5, None, True]}}, {"a": {"b": [1, 2.5, None, True]}}),
        ("extras", {"d": Decimal("1.10"), "u": UUID(int=1)}, {"d": "1.10", "u": str(UUID(int=1))}),
        (
            "extras",
            {"t": dt.datetime(2020, 1, 1), "d": dt.date(2020, 1, 1)},
            {"t": "2020-01-01T00:00:00+01:00", "d": "2020-01-01"},
        ),
        ("extras", {"a": 2**65}, {"a": 2**65}),
        ("loyalty_tier", {"as": "is"}, {"as": "is"}),
    ],
)
def test_a_field_is_sent_in_the_apis_form(field, given, sent):
    assert normalised(field, given) == sent


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", True),
        ("id", 1.0),
        ("id", ["1"]),
        ("email", 5),
        ("phone", 15551234567),
        ("first_name", ["Jane"]),
        ("deleted", "wahr"),
        ("deleted", 1),
        ("optin", "yes"),
        ("tags", "vip"),
        ("tags", ["vip", 1]),
        ("order_count", "3"),
        ("order_count", 3.0),
        ("order_count", True),
        ("order_count", 2**65),
        ("total_spent", 7),
        ("total_spent", [7, "USD"]),
        ("total_spent", ["5.00"]),
        ("total_spent", ["5.00", 1]),
        ("total_spent", "1,250.00"),
        ("total_spent", "$5"),
        ("total_spent", "٣"),
        ("total_spent", float("nan")),
        ("total_spent", Decimal("Infinity")),
        ("birthday", "31.01.1990"),
        ("birthday", "1990-02-30"),
        ("birthday", "0000-02-30"),
        ("birthday", dt.datetime(1990, 1, 31)),
        ("anniversary", "0000-01-31"),
        ("signed_up_at", "2020-01-15"),
        ("signed_up_at", "now"),
        ("signed_up_at", "0001-01-01T00:00:00"),
        ("signed_up_at", 1579084200),
        ("signed_up_at", "2020-13-15T10:30:00Z"),
        ("signed_up_at", "2020-01-15T25:30:00Z"),
        ("extras", "{}"),
        ("extras", [1]),
        ("extras", {1: 2}),
        ("extras", {"a": float("inf")}),
        ("extras", {"a": b"bytes"}),
        ("extras", {"a": {1, 2}}),
        ("loyalty_tier", object()),
        ("first_name", "broken \udcff text"),
        ("extras", {"a": "broken \ud800 text"}),
    ],
)
def test_a_wrong_value_is_a_fault_that_names_the_field_and_not_the_value(field, value):
    with pytest.raises(InvalidCustomerError) as caught:
        normalised(field, value)
    assert caught.value.field == field
    assert str(caught.value).startswith(field)
    assert str(value) not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_number_too_long_to_be_written_out_is_a_fault():
    with pytest.raises(InvalidCustomerError, match="more than 100 digits"):
        normalised("extras", {"a": 10**5000})


@pytest.mark.parametrize(
    "field", ["id", "phone", "tags", "birthday", "optin", "order_count", "signed_up_at", "total_spent"]
)
def test_what_pandas_writes_for_a_missing_value_is_named_in_every_field(field):
    with pytest.raises(InvalidCustomerError, match=f"{field} holds NaN or an infinity"):
        normalised(field, float("nan"))


def test_the_trap_of_whole_amounts_is_named():
    with pytest.raises(InvalidCustomerError, match="millionths"):
        normalised("total_spent", 5)


@pytest.mark.parametrize("record", [{}, {"id": ""}, {"id": None}, {"id": " "}, {"email": ""}, {"first_name": "Jane"}])
def test_a_customer_has_an_id_or_an_email(record):
    with pytest.raises(InvalidCustomerError, match="neither id nor email"):
        BERLIN.normalise(record)
    assert BERLIN.normalise({**record, "email": "jane@example.com"})["email"] == "jane@example.com"


@pytest.mark.parametrize("record", [None, "text", 5, ["id"], {1: "x", "id": "1"}])
def test_what_is_no_object_with_named_fields_is_a_fault(record):
    with pytest.raises(InvalidCustomerError):
        BERLIN.normalise(record)


def test_a_value_nested_too_deeply_is_a_fault():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InvalidCustomerError, match="extras is nested too deeply"):
        normalised("extras", {"deep": deep})


def test_absent_fields_stay_absent():
    assert encode_customer(BERLIN.normalise({"id": "1"})) == b'{"id":"1"}'


def test_unknown_fields_are_warned_of_once_each_and_never_by_a_name_that_may_be_data(caplog):
    normaliser = CustomerNormaliser()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            normaliser.normalise({"id": "1", "tier": "gold", "jane@example.com": 1})
    assert len(caplog.records) == 2
    assert "tier" in caplog.text
    assert "jane" not in caplog.text
    assert "gold" not in caplog.text


def test_an_unknown_time_zone_is_refused():
    with pytest.raises(BubblehousePermanentError, match="timezone"):
        CustomerNormaliser(timezone="Europe/Atlantis")


@pytest.mark.parametrize(
    ("record", "sent"),
    [
        ({"id": 5, "email": "jane@example.com", "total_spent": 5}, {"id": "5", "deleted": True}),
        ({"id": "", "email": "jane@example.com"}, {"email": "jane@example.com", "deleted": True}),
        ({"email": "jane@example.com", "deleted": True}, {"email": "jane@example.com", "deleted": True}),
    ],
)
def test_a_deletion_sends_the_identity_only(record, sent):
    assert BERLIN.normalise_deletion(record) == sent


@pytest.mark.parametrize(
    "record",
    [*({"id": "1", "deleted": no} for no in (False, "false", "true", 0, 1, [])), {"first_name": "Jane"}, None],
)
def test_a_deletion_of_nobody_or_of_one_not_to_be_deleted_is_a_fault(record):
    with pytest.raises(InvalidCustomerError):
        BERLIN.normalise_deletion(record)


def test_a_number_of_more_digits_than_python_writes_out_is_no_id():
    with pytest.raises(InvalidCustomerError, match="id must be text or a whole number of at most 100 digits"):
        CustomerNormaliser().normalise({"id": 10**5000})
