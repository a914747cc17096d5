"""What converts many values at once returns what the rule returns for each of them, or leaves them to the rule."""

from __future__ import annotations

import pytest
from hypothesis import example, given, strategies as st

from airflow_provider_bubblehouse.customers.fields import customer_fields
from airflow_provider_bubblehouse.customers.invalid import InvalidCustomerError
from airflow_provider_bubblehouse.customers.times import Calendar

BERLIN = "Europe/Berlin"
TYPICAL = {
    ("id", int): [1, 7210448301122],
    ("tags", str): ['["vip", "wholesale"]', "[]"],
    ("alt_emails", str): ['["ada@example.com"]'],
    ("signed_up_at", str): ["2024-01-31 12:00:00", "2024-07-31T00:00:00", "2024-03-31 02:30:00"],
    ("email_marketing_consent_change_time", str): ["2024-01-31 12:00:00"],
    ("extras", str): ['{"city": "London"}', "{}"],
}
FIELDS = {
    (name, kind): field for name, field in customer_fields(Calendar(BERLIN), "id").items() for kind in field.at_once
}

# fmt: off
json_texts = st.sampled_from([
    '["vip"]', '["vip", 1]', '["\\u0000"]', '[["vip"]]', "[", "{vip}", " []", "[] []", "[]", '{"a": 1}', "{}", "{} {}",
    '{"a": {"b": 1}}', '{"\\u0000": 1}', "\udce4", "null", '{"a": 1e400}', '{"a":', "1}",
])
local_times = st.datetimes().map(lambda moment: moment.isoformat(" ", "seconds")) | st.sampled_from([
    "2024-01-31 24:00:00", "2024-02-30 12:00:00", "2024-W11-2 11:22:33", "2024-03-12T10:00+01", "20240312T101112.123",
    "2024-01-31t12:00:00", "2024-01-31_12:00:00", "2024-01-31 12:00", "2024-10-27 02:30:00", "0001-01-01 00:00:00",
    "2024T01-31 12:00:00", "2024-01-31 12T00:00", "2024-01-31 12:00:0é", "2024-01-31 12:00:6\x00", "yesterday",
])
# fmt: on
VALUES = {int: st.integers() | st.sampled_from([0, 1, -1, 10**99, 10**100]), str: json_texts | local_times}


def one_by_one(rule, values):
    """Return what a rule makes of each value, None if one of them is invalid."""
    try:
        return [rule(value) for value in values]
    except InvalidCustomerError:
        return None


def test_typical_values_are_listed_for_every_field_that_is_converted_at_once():
    assert FIELDS.keys() == TYPICAL.keys()


@pytest.mark.parametrize(("name", "kind"), TYPICAL, ids=lambda part: part if isinstance(part, str) else part.__name__)
def test_typical_values_are_converted_at_once(name, kind):
    field, values = FIELDS[name, kind], TYPICAL[name, kind]

    assert field.at_once[kind](values) == one_by_one(field.rule, values) is not None


@pytest.mark.parametrize(("name", "kind"), TYPICAL, ids=lambda part: part if isinstance(part, str) else part.__name__)
@given(data=st.data())
def test_values_that_are_converted_at_once_are_what_the_rule_returns_for_each(name, kind, data):
    field = FIELDS[name, kind]
    values = data.draw(st.lists(VALUES[kind], min_size=1, max_size=4))

    at_once = field.at_once[kind](values)

    assert at_once is None or at_once == one_by_one(field.rule, values)


@given(st.lists(local_times, min_size=1, max_size=3), st.sampled_from(["UTC", BERLIN, "Australia/Lord_Howe"]))
@example(["1890-01-01 00:00:00"], BERLIN)  # local mean time, whose offset has seconds
@example(["0001-01-01 00:00:00"], BERLIN)
def test_local_times_are_converted_at_once_in_every_time_zone(values, timezone):
    calendar = Calendar(timezone)

    at_once = calendar.local_times(values)

    assert at_once is None or at_once == one_by_one(calendar.time, values)
