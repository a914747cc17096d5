"""Which customer a sensor waits for, and when a customer has the expected values."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal

import pytest

from airflow_provider_bubblehouse.api.details import details_payload, read_expected, read_identities, why_not_yet
from airflow_provider_bubblehouse.exceptions import BubblehousePermanentError

SENTINEL = "sentinel@example.com"


def test_an_identity_becomes_the_apis_own_names():
    assert details_payload(shop_id="1", email="a@example.com", bubblehouse_id="b") == {
        "customer": {"shopid": "1", "email": "a@example.com", "bhid": "b"}
    }
    assert details_payload(email="a@example.com") == {"customer": {"email": "a@example.com"}}


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({"shop_id": "1"}, [{"shop_id": "1"}]),
        ({"shop_id": 1}, [{"shop_id": "1"}]),
        ({"shop_id": "1", "email": None}, [{"shop_id": "1"}]),
        ([{"shop_id": "1"}, {"email": SENTINEL}], [{"shop_id": "1"}, {"email": SENTINEL}]),
        (({"bubblehouse_id": "b"},), [{"bubblehouse_id": "b"}]),
        ('[{"shop_id": "1"}]', [{"shop_id": "1"}]),
        ([], []),
    ],
)
def test_one_identity_or_a_list_of_them_is_read(given, read):
    assert read_identities(given) == read


@pytest.mark.parametrize(
    "given",
    [
        None,
        1,
        {},
        {"id": SENTINEL},
        {"shop_id": ""},
        {"shop_id": True},
        {"email": SENTINEL, "first_name": SENTINEL},
        {"email": [SENTINEL]},
        [{"shop_id": "1"}, SENTINEL],
        [None],
        SENTINEL,
        f'"{SENTINEL}"',
    ],
)
def test_anything_else_is_refused_without_repeating_it(given):
    with pytest.raises(BubblehousePermanentError) as caught:
        read_identities(given)
    assert SENTINEL not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_expected_values_are_converted_to_the_form_of_a_push():
    given = {"total_spent": Decimal("2.50"), "signed_up_at": datetime(2026, 1, 1), "birthday": date(2000, 1, 2)}
    assert read_expected(given) == {
        "total_spent": "2.50",
        "signed_up_at": "2026-01-01T00:00:00+00:00",
        "birthday": "2000-01-02",
    }
    assert read_expected('{"id": 1}') == {"id": "1"}
    assert read_expected(None) == {}


@pytest.mark.parametrize("given", [[SENTINEL], SENTINEL, {"optin": SENTINEL}, {"total_spent": 5}])
def test_an_invalid_expected_value_is_refused_without_repeating_it(given):
    with pytest.raises(BubblehousePermanentError) as caught:
        read_expected(given)
    assert SENTINEL not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "expected", "actual"),
    [
        ("first_name", "Ada", "Ada"),
        ("email", "Ada@Example.com", "ada@example.com"),
        ("total_spent", 129.9, "129.90"),
        ("total_spent", "129.90", 129.9),
        ("total_spent", ["5.0", "USD"], ["5.00", "USD"]),
        ("signed_up_at", "2026-01-15T10:30:00", "2026-01-15T10:30:00Z"),
        ("signed_up_at", "2026-01-15T10:30:00+01:00", "2026-01-15T09:30:00.000Z"),
        ("tags", ["a", "b"], ["b", "a"]),
        ("extras", {"city": "Oslo"}, {"city": "Oslo", "plan": "gold"}),
        ("extras", {"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}),
        ("first_name", "", None),
        ("first_name", None, None),
        ("order_count", 3, 3),
        ("optin", True, True),
    ],
)
def test_two_spellings_of_one_value_are_equal(field, expected, actual):
    assert why_not_yet({field: actual}, read_expected({field: expected})) is None


@pytest.mark.parametrize(
    ("field", "expected", "actual"),
    [
        ("first_name", "Ada", "ada"),
        ("phone", "0123", "123"),
        ("total_spent", "129.90", 129),
        ("total_spent", ["5.0", "USD"], ["5.0", "EUR"]),
        ("total_spent", ["5.0", "USD"], "5.0"),
        ("signed_up_at", "2026-01-15T10:30:00Z", "2026-01-15T10:30:00+01:00"),
        ("tags", ["a", "b"], ["a"]),
        ("extras", {"city": "Oslo"}, {"plan": "gold"}),
        ("extras", {"city": "Oslo"}, None),
        ("extras", {"city": "Oslo"}, "Oslo"),
        ("optin", True, None),
        ("optin", False, None),
        ("order_count", 3, 4),
    ],
)
def test_a_field_that_differs_is_named_and_its_value_is_not(field, expected, actual):
    reason = why_not_yet({field: actual}, read_expected({field: expected}))
    assert reason == f"does not have the expected values yet: {field}"


def test_a_field_whose_name_may_be_data_is_not_named():
    assert SENTINEL not in why_not_yet({}, read_expected({SENTINEL: "x"}))


def test_only_a_missing_customer_means_not_yet():
    missing = BubblehousePermanentError("x", status=404, error_id="no_customers_match_customer_identity")
    assert why_not_yet(missing, {}) == "does not exist yet"
    for status, error_id in ((404, None), (404, "empty_customer_identity"), (403, missing.error_id), (401, None)):
        error = BubblehousePermanentError("x", status=status, error_id=error_id)
        with pytest.raises(BubblehousePermanentError) as caught:
            why_not_yet(error, {})
        assert caught.value is error
