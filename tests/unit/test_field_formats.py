"""``formats``: how a source writes the values of a field."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pytest
from hypothesis import given, strategies as st

from airflow_provider_bubblehouse.customers.converter import Converter
from airflow_provider_bubblehouse.customers.field_formats import fingerprint_of
from airflow_provider_bubblehouse.customers.invalid import InvalidCustomerError
from airflow_provider_bubblehouse.customers.patterns import read_pattern
from airflow_provider_bubblehouse.errors import PermanentError
from airflow_provider_bubblehouse.operators.customers import DeleteCustomersOperator, UpdateCustomersOperator

ABSENT = "absent"
NEXT_YEAR = dt.datetime.now(dt.UTC).year + 1
BERLIN = "Europe/Berlin"


def record_of(field: str, value: object) -> dict:
    """Return a row with a value of a field, which may be one within ``extras``."""
    record = value
    for name in reversed(field.split(".")):
        record = {name: record}
    return {"email": "ada@example.com"} | record


def converted(field: str, how: object, value: object, **options) -> object:
    """Return what is sent for a value of a field."""
    customer = Converter(formats={field: how}, **options).customer(record_of(field, value))
    for name in field.split("."):
        if name not in customer:
            return ABSENT
        customer = customer[name]
    return customer


ACCEPTED = [
    # A strptime pattern for a date or time
    ("birthday", "%d.%m.%Y", "31.01.1990", "1990-01-31"),
    ("birthday", "%d.%m.%Y", "1.2.1990", "1990-02-01"),
    ("birthday", "%d.%m.%Y", " 31.01.1990 ", "1990-01-31"),
    ("birthday", "%d.%m.%Y", "'31.01.1990", "1990-01-31"),
    ("birthday", "%d.%m.%Y", dt.date(1990, 1, 31), "1990-01-31"),
    ("birthday", "%Y%m%d", "19900131", "1990-01-31"),
    ("birthday", "%d.%m.%Y %H:%M", "31.01.1990 00:00", "1990-01-31"),
    ("birthday", "%d/%m", "09/12", "0000-12-09"),
    ("birthday", "%d/%m", "9/12", "0000-12-09"),
    ("birthday", "%d/%m", "29/02", "0000-02-29"),
    ("birthday", "%d. %b", "29. Feb", "0000-02-29"),
    ("birthday", "%m/%d/%y", "01/31/90", "1990-01-31"),
    ("anniversary", "%d %B %Y", "31 January 2010", "2010-01-31"),
    ("anniversary", "%G-W%V-%u", "2020-W05-5", "2020-01-31"),
    ("signed_up_at", "%d.%m.%Y", "31.01.2020", "2020-01-31T00:00:00+01:00"),
    ("signed_up_at", "%m/%d/%Y %I:%M %p", "07/01/2020 05:30 pm", "2020-07-01T17:30:00+02:00"),
    ("signed_up_at", "%d.%m.%Y %H:%M", "31.01.2020 10:30", "2020-01-31T10:30:00+01:00"),
    ("signed_up_at", "%d.%m.%Y %H:%M:%S.%f", "31.01.2020 10:30:05.25", "2020-01-31T10:30:05.25+01:00"),
    ("signed_up_at", "%d.%m.%Y %H:%M:%S %z", "31.01.2020 10:30:05 -0500", "2020-01-31T10:30:05-05:00"),
    ("signed_up_at", "%d.%m.%Y", dt.datetime(2020, 1, 31, 12), "2020-01-31T12:00:00+01:00"),
    # Epochs
    ("signed_up_at", "epoch", 1579084200, "2020-01-15T10:30:00+00:00"),
    ("signed_up_at", "epoch", " 1579084200 ", "2020-01-15T10:30:00+00:00"),
    ("signed_up_at", "epoch", "1579084200.25", "2020-01-15T10:30:00.250000+00:00"),
    ("signed_up_at", "epoch", -1, "1969-12-31T23:59:59+00:00"),
    ("signed_up_at", "epoch", -0.5, "1969-12-31T23:59:59.500000+00:00"),
    ("signed_up_at", "epoch", Decimal("1579084200.5"), "2020-01-15T10:30:00.500000+00:00"),
    ("signed_up_at", "epoch", dt.datetime(2020, 1, 31, 12), "2020-01-31T12:00:00+01:00"),
    ("signed_up_at", "epoch_ms", 1579084200123, "2020-01-15T10:30:00.123000+00:00"),
    ("signed_up_at", "epoch_ms", "1579084200123", "2020-01-15T10:30:00.123000+00:00"),
    ("birthday", "epoch_ms", 633740400000, "1990-01-31"),  # a midnight in Berlin
    # A separator for a list
    ("tags", ",", "vip, gold,,  ", ["vip", "gold"]),
    ("tags", "|", "vip", ["vip"]),
    ("tags", " / ", "vip / a/b", ["vip", "a/b"]),
    ("tags", ",", ["a,b"], ["a,b"]),
    ("alt_emails", ";", "a@example.com; b@example.com", ["a@example.com", "b@example.com"]),
    # number, boolean and json for extras.x
    ("extras.visits", "number", "12", 12),
    ("extras.visits", "number", " 12.50 ", 12.5),
    ("extras.visits", "number", "'-3", -3),
    ("extras.visits", "number", "1e3", 1000),
    ("extras.visits", "number", "9007199254740993", 9007199254740993),
    ("extras.visits", "number", 12.5, 12.5),
    ("extras.visits", "number", Decimal("12.50"), 12.5),
    ("extras.visits", "number", "  ", ""),
    ("extras.vip", "boolean", "Yes", True),
    ("extras.vip", "boolean", "0", False),
    ("extras.vip", "boolean", 1, True),
    ("extras.sizes", "json", '{"shoe": [42]}', {"shoe": [42]}),
    ("extras.sizes", "json", "null", None),
    ("extras.sizes", "json", {"shoe": 42}, {"shoe": 42}),
    ("extras.shoe.size", "number", "42", 42),
    ("tier", "number", "3", 3),
    # units for total_spent
    ("total_spent", "units", 5, "5"),
    ("total_spent", "units", [5, "USD"], ["5", "USD"]),
    ("total_spent", "units", 5.5, "5.5"),
    ("total_spent", "units", "5.00", "5.00"),
    # verbatim for id
    *(
        ("id", "verbatim", text, text)
        for text in ("null", "0", "1001.0", "7.21E+12", "gid://shop/Order/5", " 7 ", "'7", "N/A")
    ),
    ("id", "verbatim", 1001, "1001"),
    ("id", "verbatim", 0, "0"),
    ("id", "verbatim", "  ", ABSENT),
    # A dict that translates values
    ("email_marketing_consent", {"yes": "subscribed", "no": "unsubscribed"}, "yes", "subscribed"),
    ("email_marketing_consent", {"yes": "subscribed", "no": "unsubscribed"}, " no ", "unsubscribed"),
    ("email_marketing_consent", {"true": "subscribed"}, True, "subscribed"),
    ("email_marketing_consent", {True: "subscribed"}, "true", "subscribed"),
    ("email_marketing_consent", {"1": "subscribed"}, 1, "subscribed"),
    ("email_marketing_consent", {1: "subscribed"}, "1", "subscribed"),
    ("email_marketing_consent", {"1": "subscribed"}, 1.0, "subscribed"),
    ("email_marketing_consent", {"1.5": "subscribed"}, 1.5, "subscribed"),
    ("email_marketing_consent", {"yes": "subscribed", "?": None}, "?", ABSENT),
    ("email_marketing_consent", {"yes": "subscribed", "?": ""}, "?", ""),
    ("birthday", {"0000-00-00": None}, "0000-00-00", ABSENT),
    ("birthday", {"0000-00-00": None}, "1990-01-31", "1990-01-31"),
    ("birthday", {"1900-01-01": None}, dt.date(1900, 1, 1), ABSENT),
    ("signed_up_at", {"1900-01-01 00:00:00": None}, dt.datetime(1900, 1, 1), ABSENT),
    ("id", {"0": None}, 0, ABSENT),
    ("optin", {"J": True, "N": False}, "N", False),
    ("deleted", {"Y": True}, "Y", True),
    ("tags", {"a": ["b", "c"]}, "a", ["b", "c"]),
    ("extras.tier", {"1": "gold"}, "1", "gold"),
    ("extras.tier", {"n/a": None}, "n/a", ABSENT),
    ("tier", {"1": {"name": "gold"}}, 1, {"name": "gold"}),
]


@pytest.mark.parametrize(("field", "how", "value", "expected"), ACCEPTED, ids=str)
def test_a_value_is_read_as_its_format_says(field, how, value, expected):
    assert converted(field, how, value, timezone=BERLIN) == expected


REFUSED = [
    ("birthday", "%d.%m.%Y", "1990-01-31", "birthday must be of the form %d.%m.%Y"),
    ("birthday", "%d.%m.%Y", "31.02.1990", "birthday is not in the calendar"),
    ("birthday", "%d.%m.%Y", 19900131, "birthday must be a date"),
    ("birthday", "%d.%m.%Y", "31.01.0000", "birthday must be of the form"),
    ("birthday", "%d/%m", "30/02", "birthday is not in the calendar"),
    ("birthday", "%d.%m.%Y %H:%M", "31.01.1990 10:00", "birthday must be a date"),
    ("birthday", "%d.%m.%y", f"31.01.{NEXT_YEAR % 100:02}", "birthday has a year that lies in the future"),
    ("birthday", "epoch", 86401, "birthday is not a midnight in timezone"),
    ("birthday", "%d.%m.%Y", "31.01.1990\0", "birthday holds a NUL"),
    ("signed_up_at", "epoch", 1579084200123, "signed_up_at is not in the calendar; is it in milliseconds"),
    ("signed_up_at", "epoch", "2020-01-15", "signed_up_at must be a number of seconds since 1970"),
    ("signed_up_at", "epoch", "9" * 31, "signed_up_at must be a number of seconds"),
    ("signed_up_at", "epoch", 10**99, "signed_up_at is not in the calendar"),
    ("signed_up_at", "epoch", True, "signed_up_at must be a time"),
    ("signed_up_at", "epoch_ms", float("nan"), "signed_up_at holds NaN"),
    ("tags", ",", 5, "tags must be a list"),
    ("extras.visits", "number", "1,250", "extras.visits must be a number"),
    ("extras.visits", "number", True, "extras.visits must be a number"),
    ("extras.visits", "number", "1e400", "extras.visits holds a number of more than 100 digits"),
    ("extras.visits", "number", "٣", "extras.visits must be a number"),
    ("extras.vip", "boolean", "maybe", "extras.vip must be true or false"),
    ("extras.sizes", "json", "{", "extras.sizes must be JSON"),
    ("total_spent", "units", True, "total_spent must be an amount"),
    ("id", "verbatim", "id", "id is the name of its column"),
    ("id", "verbatim", float(2**53), "id is a float so large"),
    ("id", {"0": None}, "null", "id is a word for a missing value"),
    ("optin", {"J": True}, "N", "optin has a value that formats does not translate"),
    ("optin", {"J": True}, False, "optin has a value that formats does not translate"),
    ("tags", {"a": ["b"]}, ["a"], "tags has a value that formats does not translate"),
]


@pytest.mark.parametrize(("field", "how", "value", "reason"), REFUSED, ids=lambda value: ascii(value)[:60])
def test_a_value_of_another_form_is_invalid(field, how, value, reason):
    with pytest.raises(InvalidCustomerError) as caught:
        converted(field, how, value)
    assert str(caught.value).startswith(reason)


@pytest.mark.parametrize("blank", [None, "", "  "])
@pytest.mark.parametrize(
    ("field", "how"),
    [("birthday", "%d.%m.%Y"), ("tags", ","), ("optin", {"J": True}), ("signed_up_at", "epoch"), ("phone", {"x": "y"})],
)
def test_null_and_blank_values_are_decided_before_formats(field, how, blank):
    record = {"email": "ada@example.com", field: blank}
    assert Converter(formats={field: how}).customer(record) == Converter().customer(record)


class Raises:
    """Raises when its type is asked for."""

    __hash__ = None

    @property
    def __class__(self):
        raise RuntimeError("of the object's own")


@pytest.mark.parametrize(("field", "how"), {(field, str(how)): (field, how) for field, how, *_ in ACCEPTED}.values())
@pytest.mark.parametrize("make", [Raises, lambda: {1, 2}, lambda: b"x"], ids=["raises", "set", "bytes"])
def test_an_object_that_json_does_not_have_makes_the_row_invalid(field, how, make):
    with pytest.raises(InvalidCustomerError):
        converted(field, how, make())


IMPOSSIBLE = [
    ({"birthday": "%d.%Q.%Y"}, "birthday has a pattern that is not one of datetime.strptime"),
    ({"birthday": "%d.%m.%Y %"}, "birthday has a pattern that is not one of datetime.strptime"),
    ({"birthday": "%-d.%m.%Y"}, "birthday has a pattern that is not one of datetime.strptime"),
    ({"birthday": "%m.%Y"}, "birthday has a pattern that does not say which day it is"),
    ({"birthday": "%d"}, "birthday has a pattern that does not say which day it is"),
    ({"anniversary": "%d.%m"}, "anniversary has a pattern that does not say which day it is"),
    ({"signed_up_at": "%H:%M"}, "signed_up_at has a pattern that does not say which day it is"),
    ({"signed_up_at": "%d.%m.%Y %I:%M"}, "signed_up_at has a pattern that does not say which hour it is"),
    ({"signed_up_at": "%d.%m.%Y %M"}, "signed_up_at has a pattern that does not say which hour it is"),
    ({"signed_up_at": "%d.%m.%Y %H:%M %p"}, "signed_up_at has a pattern with %p, which needs %I"),
    ({"signed_up_at": "%d.%m.%Y %H:%M %Z"}, "signed_up_at has a pattern with %Z, whose meaning depends on the host"),
    ({"signed_up_at": "%c"}, "signed_up_at has a pattern with %c, whose meaning depends on the host"),
    ({"email_marketing_consent_change_time": "%d.%m.%Y"}, "email_marketing_consent_change_time has a pattern without"),
    ({"birthday": "dd.mm.yyyy"}, "birthday takes a strptime pattern"),
    ({"birthday": "number"}, "birthday takes a strptime pattern"),
    ({"first_name": "%d.%m.%Y"}, "first_name takes only a dict"),
    ({"first_name": ","}, "first_name takes only a dict"),
    ({"email": "verbatim"}, "email takes only a dict"),
    ({"tags": ""}, "tags takes a separator"),
    ({"tags": "json"}, "tags takes a separator"),
    ({"extras.visits": "%d.%m.%Y"}, "extras.visits takes 'number', 'boolean' or 'json'"),
    ({"extras.visits": None}, "extras.visits takes 'number', 'boolean' or 'json'"),
    ({"birhday": "%d.%m.%Y"}, "birhday takes 'number', 'boolean' or 'json'"),
    ({"total_spent": "number"}, "total_spent takes 'units'"),
    ({"id": "units"}, "id takes 'verbatim'"),
    ({"optin": {}}, "optin has an empty dict"),
    ({"optin": {"": True}}, "optin translates an empty text"),
    ({"optin": {" ": True}}, "optin translates an empty text"),
    ({"optin": {"1": True, 1: False}}, "optin translates a value twice"),
    ({"optin": {(1, 2): True}}, "optin has a dict whose keys"),
    ({"optin": {"J": "maybe"}}, "optin translates to a value that cannot be sent: it must be true or false"),
    ({"total_spent": {"a": 5}}, "total_spent translates to a value that cannot be sent"),
    ({"extras.a": {"b": {1, 2}}}, "extras.a translates to a value that cannot be sent"),
    ({"tags.a": ","}, "formats names tags.a, but tags is not an object"),
    ({"extras": {"-": None}, "extras.a": "number"}, "formats names extras and extras.a"),
    ({5: ","}, "formats goes from a field's name"),
    ({"extras.": "number"}, "formats goes from a field's name"),
    ([("tags", ",")], "formats must be an object"),
    ("", "formats must be an object"),
]


@pytest.mark.parametrize("operator", [UpdateCustomersOperator, DeleteCustomersOperator])
@pytest.mark.parametrize(("formats", "message"), IMPOSSIBLE, ids=lambda value: ascii(value)[:60])
def test_a_format_that_cannot_work_fails_when_the_dag_is_parsed(operator, formats, message):
    options = {"max_customers": 5} if operator is DeleteCustomersOperator else {}
    with pytest.raises(PermanentError) as caught:
        operator(task_id="push", customers=[], formats=formats, **options)
    assert str(caught.value).removeprefix("formats: ").startswith(message)


def test_a_format_of_a_field_that_the_column_map_does_not_fill_fails_when_the_dag_is_parsed():
    columns = {"Id": "id", "City": "extras.city", "More": "extras.more"}
    for field in ("extras.city", "extras.more.visits"):
        UpdateCustomersOperator(task_id="push", customers=[], column_map=columns, formats={field: "number"})
    for field in ("extras.visits", "tier"):
        with pytest.raises(PermanentError, match=f"formats names {field}, which column_map does not fill"):
            UpdateCustomersOperator(task_id="push", customers=[], column_map=columns, formats={field: "number"})


@pytest.mark.parametrize(
    ("field", "how"),
    [(field, how) for field, how, _, _ in REFUSED if isinstance(how, str) and field != "id"],
    ids=str,
)
def test_no_message_shows_a_value(field, how):
    messages = []
    try:
        Converter(formats={field: how}).customer(record_of(field, "sEnTiNeL"))
    except InvalidCustomerError as error:
        messages.append(str(error))
    assert "sEnTiNeL" not in "".join(messages)


PATTERNS = [
    "%d.%m.%Y",
    "%m/%d/%Y",
    "%Y%m%d",
    "%d-%m-%Y %H:%M",
    "%Y/%m/%d %H:%M:%S",
    "%H%M%S%f %d%m%Y",
    "%d.%m.%YT%H:%M:%S.%f",
]
pieces = st.sampled_from(
    ["0", "1", "2", "3", "9", "31", "12", "1990", "2020", "0000", ".", "/", "-", ":", " ", "T", "٣"]
)


@given(
    st.sampled_from(PATTERNS),
    st.lists(pieces, max_size=9).map("".join) | st.datetimes(),
)
def test_the_quick_way_and_strptime_agree(pattern, text):
    if isinstance(text, dt.datetime):
        text = text.strftime(pattern)
    read = read_pattern("signed_up_at", pattern)
    try:
        expected = dt.datetime.strptime(text.strip(), pattern)
    except ValueError:
        expected = None
    try:
        found = read(text)
    except InvalidCustomerError:
        found = None
    if isinstance(found, str):
        try:
            found = dt.datetime.fromisoformat(found)
        except ValueError:  # no day of the calendar, which the field's rule refuses
            found = None
    if isinstance(found, dt.date) and not isinstance(found, dt.datetime):
        found = dt.datetime.combine(found, dt.time())
    assert found == expected


def test_the_fingerprint_of_formats_does_not_depend_on_the_process():
    formats = {"optin": {"J": True, 1: None}, "tags": ","}
    assert fingerprint_of(formats) == {"optin": ["('J', True)", "(1, None)"], "tags": ","}
    assert fingerprint_of(None) == {}
