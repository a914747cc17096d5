"""Rows of a query mean in the spool what they mean in a list, and the spool is nobody else's to read."""

from __future__ import annotations

import datetime as dt
import json
import os
import stat
from decimal import Decimal
from itertools import islice, product
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, strategies as st

from airflow_provider_bubblehouse.customers.converter import Converter
from airflow_provider_bubblehouse.exceptions import BubblehousePermanentError
from airflow_provider_bubblehouse.sources.query import spool_query
from airflow_provider_bubblehouse.sources.records import ListSource

FIELDS = (
    "id",
    "email",
    "tags",
    "optin",
    "birthday",
    "anniversary",
    "signed_up_at",
    "order_count",
    "total_spent",
    "extras",
    "extras.value",
    "unknown_to_customer2",
)
VALUES = (
    None,
    True,
    False,
    0,
    -7,
    2**70,
    1.5,
    float("nan"),
    float("-inf"),
    Decimal("12.50"),
    Decimal("1E+3"),
    Decimal("NaN"),
    "",
    " ",
    "text",
    "12.50",
    "gid://shopify/Customer/5",
    "J\udce4ne",
    "line\nfeed and a [ at a line's begin\n[",
    b"bytes",
    memoryview(b"bytes"),
    dt.date(2026, 1, 31),
    dt.time(12, 30),
    dt.timedelta(1),
    dt.datetime(2026, 7, 1, 12),
    dt.datetime(2026, 10, 25, 2, 30, fold=1),
    dt.datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=dt.UTC),
    dt.datetime(1890, 1, 1, tzinfo=ZoneInfo("Europe/Berlin")),
    dt.datetime(1, 1, 1),
    UUID(int=5),
    {"a": [1, Decimal("2.50"), {"b": dt.datetime(2026, 7, 1)}]},
    {"nan": float("nan")},
    {5: "no name"},
    ["vip", "new"],
    ["12.50", "USD"],
    [Decimal("12.50"), "USD"],
    (1, 2),
    object(),
)


def converter(**kwargs) -> Converter:
    return Converter(**{"timezone": "Europe/Berlin", "largest": 1_000_000, **kwargs})


def fetched(rows):
    rows = iter(rows)
    while some := list(islice(rows, 1000)):
        yield some


def spooled(columns, rows, *, column_map=None, **kwargs):
    return spool_query(columns, fetched(rows), column_map=column_map, converter=converter(**kwargs))


def pushed(source, **kwargs) -> list[tuple]:
    """Return what a push makes of each row of a source: what it sends and to whom, or what it finds wrong."""
    made = {}
    number = 1
    for chunk in source.chunks():
        checked = converter(**kwargs).check(chunk, number)
        number += checked.count
        made |= dict(
            zip(checked.numbers, zip(checked.identities(), checked.customers().lines, strict=True), strict=True)
        )
        made |= {row.number: (row.error.field, row.error.reason) for row in checked.invalid}
    assert sorted(made) == list(range(1, number))
    return [made[row] for row in range(1, number)]


def listed(columns, rows) -> list[dict]:
    return [dict(zip(columns, row, strict=True)) for row in rows]


@pytest.mark.parametrize("field", FIELDS)
def test_a_value_follows_the_same_rules_as_in_a_list(field):
    names = ("Key", "Mail", "Value") if field != "id" else ("Value", "Mail")
    column_map = dict(zip(names, ("id", "email", field) if field != "id" else ("id", "email"), strict=True))
    if field == "email":
        del column_map["Mail"]
    rows = [(value, f"{place}@example.com") for place, value in enumerate(VALUES)]
    if field != "id":
        rows = [(f"id-{place}", f"{place}@example.com", value) for place, value in enumerate(VALUES)]
    for several in (rows, *([row] for row in rows)):  # all together, and each as the only one of its chunk
        expected = pushed(ListSource(listed(names, several), column_map=column_map))
        assert pushed(spooled(names, several, column_map=column_map)) == expected


@given(st.lists(st.tuples(*[st.sampled_from(VALUES)] * 3), max_size=8))
def test_rows_follow_the_same_rules_as_in_a_list_whatever_rows_surround_them(rows):
    names = ("id", "email", "total_spent")
    assert pushed(spooled(names, rows)) == pushed(ListSource(listed(names, rows)))


def test_a_deletion_follows_the_same_rules_as_in_a_list():
    names = ("id", "email", "deleted")
    rows = list(product((5, "", None, Decimal(5)), ("a@example.com", None), (True, False, None)))
    source = spooled(names, rows, deletions=True)
    assert pushed(source, deletions=True) == pushed(ListSource(listed(names, rows)), deletions=True)


def test_decimals_keep_their_digits_and_null_is_null():
    row = ("1", Decimal("1234567890123456.10"), None, Decimal("0.1"))
    (customer,) = (json.loads(line) for _, line in pushed(spooled(("id", "total_spent", "phone", "x"), [row])))
    assert customer == {"id": "1", "total_spent": "1234567890123456.10", "phone": None, "x": "0.1"}


def test_rows_come_again_in_their_order_with_each_pass():
    source = spooled(("id", "email"), [(place + 1, None if place % 7 else 5) for place in range(5000)])
    first = pushed(source)
    assert len(first) == 5000
    wrong = [place for place, row in enumerate(first) if row == ("email", "must be text, not int")]
    assert wrong == list(range(0, 5000, 7))
    assert pushed(source) == first
    assert source.share_read() == 1


def test_rows_by_name_are_rows():
    assert pushed(spooled(("id", "email"), [{"email": "a@example.com", "id": 5}])) == [
        ("5", b'{"id":"5","email":"a@example.com"}')
    ]


def test_the_error_of_a_row_is_stored_with_the_row():
    source = spooled(("id", "email"), [("1", memoryview(b"x")), ("2", dt.date(2026, 1, 31))])
    (chunk,) = source.chunks()
    assert [row.record for row in chunk.checked(1).invalid] == [
        {"id": "1", "email": "b'x'"},
        {"id": "2", "email": "2026-01-31"},
    ]


def test_the_same_rows_have_one_fingerprint_and_other_rows_or_another_order_have_others():
    def fingerprint(rows, columns=("id", "email")):
        return spooled(columns, rows).fingerprint()

    rows = [(str(number), "a@example.com") for number in range(1, 2501)]
    others = [rows[::-1], rows[:-1], [*rows[:-1], ("2499", "b@example.com")]]
    assert fingerprint(rows) == fingerprint(iter(rows))
    assert fingerprint(rows) not in [fingerprint(other) for other in others]
    assert fingerprint(rows) != fingerprint(rows, columns=("id", "personal_referral_code"))


def test_the_spool_has_no_name_that_others_could_open_and_is_gone_when_it_is_closed(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    source = spooled(("id",), [("1",)])
    kept = os.fstat(source._file.fileno())
    assert stat.S_IMODE(kept.st_mode) == 0o600
    assert kept.st_nlink == 0
    assert os.listdir(tmp_path) == []
    source.close()
    assert source._file.closed


def test_a_query_that_is_interrupted_leaves_no_open_file(monkeypatch):
    opened = []

    def breaking():
        yield ("1",)
        raise ConnectionError

    from airflow_provider_bubblehouse.sources import spool

    make = spool.TemporaryFile
    monkeypatch.setattr(spool, "TemporaryFile", lambda **kwargs: opened.append(make(**kwargs)) or opened[0])
    with pytest.raises(ConnectionError):
        spooled(("id",), breaking())
    assert opened[0].closed


@pytest.mark.parametrize(
    ("columns", "column_map", "said"),
    [
        (("id", "email", "id"), None, "The query has the same name in column 3 as before"),
        (("Jane", "Doe"), None, "The query has no column for id or email"),
        (("Jane", "Doe"), {"id": "id"}, "lacks columns that column_map names: id. It has none of them; is there a he"),
        (("id", ""), None, "The query: column 2 has no name"),
    ],
)
def test_columns_that_give_no_customers_are_refused_before_a_row_is_read(columns, column_map, said):
    with pytest.raises(BubblehousePermanentError, match=said) as caught:
        spooled(columns, iter([(1 / 0 for _ in "x")]), column_map=column_map)
    assert "Jane" not in str(caught.value)


def test_a_duplicate_column_that_is_not_sent_is_accepted():
    source = spooled(("x", "Key", "x"), [(1, "5", 2)], column_map={"Key": "id"})
    assert pushed(source) == [("5", b'{"id":"5"}')]


def test_a_query_without_rows_gives_none():
    assert pushed(spooled(("id",), [])) == []
    assert spooled(("id",), []).share_read() is None


def test_the_log_says_how_many_rows_were_read_valid_or_not(caplog):
    caplog.set_level("INFO")
    spooled(("id",), [("1",), ("0",), ("3",)])
    assert "Read 3 rows of the query into a temporary file of 0.0 MiB." in caplog.messages
