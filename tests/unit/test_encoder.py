"""The quick way to encode a chunk and the careful one agree, on whatever rows there are."""

from __future__ import annotations

import datetime as dt
import json
from contextlib import suppress
from decimal import Decimal

import pytest
from airflow_provider_bubblehouse.api.customers import CustomerNormaliser, InvalidCustomerError
from airflow_provider_bubblehouse.push.chunks import NOT_PLAIN, Cell, CsvLines, JsonLines, Layout, Records, Table
from airflow_provider_bubblehouse.push.encoder import CheckedChunk, CustomerEncoder
from hypothesis import given, strategies as st

NORMALISE = CustomerNormaliser(timezone="Europe/Berlin").normalise

text = st.text(max_size=8)
scalar = st.none() | st.booleans() | st.integers() | st.floats() | text
anything = st.recursive(
    scalar,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
moments = st.sampled_from(
    [
        "2020-01-15T10:30:00Z",
        "2020-01-15t10:30:00.25+01:00",
        "2020-07-15 10:30",
        "2020-07-15T10:30:00",
        "2020-02-30T10:30:00Z",
        "2020-01-15T23:59:60Z",
        "now",
    ]
)
days = st.sampled_from(["1990-01-31", "0000-12-09", "1990-02-30", "31.01.1990"])
identifiers = st.sampled_from(["1", "a b", " ", "", "gid://shopify/Customer/5", "gid://"]) | st.integers() | text
customers = st.fixed_dictionaries(
    {},
    optional={
        "id": identifiers | scalar,
        "email": st.sampled_from(["A@example.com", "", " "]) | scalar,
        "first_name": scalar,
        "signed_up_at": moments | scalar,
        "birthday": days | scalar,
        "anniversary": days | scalar,
        "total_spent": st.sampled_from(["5.00", "-1", "1,5", "5\n"]) | scalar,
        "order_count": scalar,
        "deleted": scalar,
        "tags": st.lists(text, max_size=2) | scalar,
        "extras": st.dictionaries(text, anything, max_size=2) | scalar,
        "tier": anything,
    },
)


def encoded(chunk, *, plain_pass: bool) -> CheckedChunk:
    return CustomerEncoder(NORMALISE, plain_pass=plain_pass, largest=10_000).check(chunk, 7)


def comparable(chunk: CheckedChunk) -> tuple:
    """Return what a chunk says, times as moments: an offset may be written in more than one way."""

    def moment(customer: dict) -> dict:
        spelled = customer.get("signed_up_at")
        return customer | ({"signed_up_at": dt.datetime.fromisoformat(spelled.upper())} if spelled else {})

    return (
        chunk.count,
        list(chunk.numbers),
        [moment(json.loads(customer)) for customer in chunk.customers().lines],
        list(chunk.identities),
        [(row.number, row.error.reason, row.error.field) for row in chunk.invalid],
    )


@given(st.lists(customers, max_size=5))
def test_objects_come_to_the_same_customers_on_either_way(rows):
    chunk = Records("", rows)
    assert comparable(encoded(chunk, plain_pass=True)) == comparable(encoded(chunk, plain_pass=False))


@given(st.lists(customers, max_size=5))
def test_lines_come_to_the_same_customers_on_either_way(rows):
    chunk = JsonLines("a.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    assert comparable(encoded(chunk, plain_pass=True)) == comparable(encoded(chunk, plain_pass=False))


@given(st.lists(st.sampled_from([b'{"id":"1"}', b'{"id":', b'"2"}', b"{}", b"", b" ", b"\r", b"\n", b",", b"[", b"x"])))
def test_whatever_the_lines_hold_each_is_one_row_on_either_way(pieces):
    chunk = JsonLines("a.jsonl", b"".join(pieces))
    quick, careful = encoded(chunk, plain_pass=True), encoded(chunk, plain_pass=False)
    lines = [line for line in chunk.text.split(b"\n") if line.strip()]
    assert quick.count == careful.count == len(lines)


def refuse(_record):
    raise InvalidCustomerError("the careful way")


@pytest.mark.parametrize(
    "rows",
    [
        [{"id": "1", "email": "a@example.com", "tags": ["x"], "signed_up_at": "2020-01-15T10:30:00Z"}],
        [{"id": 1}, {"email": "b@example.com"}],
        [{"id": "1", "extras": {"city": "Oslo", "vip": True, "visits": 3}}, {"id": "2", "first_name": None}],
    ],
)
def test_rows_that_need_no_change_never_meet_the_careful_way(rows):
    lines = [json.dumps(row).encode() for row in rows]
    encoder = CustomerEncoder(refuse, plain_pass=True, largest=max(map(len, lines)))  # which all of them exceed
    for chunk in (Records("", rows), JsonLines("a.jsonl", b"\n".join(lines))):
        assert encoder.check(chunk, 1).invalid == []


def test_cells_that_need_no_change_never_meet_the_careful_way_however_small_calls_are():
    layout = Layout([Cell(0, ("id",)), Cell(1, ("first_name",))], width=2)
    encoder = CustomerEncoder(refuse, plain_pass=True, largest=len('{"id":"1","first_name":"Ada"}'))
    checked = encoder.check(CsvLines("a.csv", layout, "1,Ada\n2,Bob\n", 2), 1)
    assert checked.customers().lines == [b'{"id":"1","first_name":"Ada"}', b'{"id":"2","first_name":"Bob"}']


def test_a_row_that_is_too_large_is_invalid_and_its_neighbours_are_not():
    rows = [{"id": "1"}, {"id": "2", "first_name": "x" * 200}, {"id": "3"}]
    chunk = CustomerEncoder(NORMALISE, plain_pass=True, largest=100).check(Records("", rows), 1)
    assert (list(chunk.numbers), chunk.identities) == ([1, 3], ["1", "3"])
    assert [(row.number, row.record) for row in chunk.invalid] == [(2, rows[1])]


def test_what_python_can_say_and_json_cannot_goes_the_careful_way():
    rows = [{"id": "1", "extras": {"ltv": Decimal("1.10"), "seen": dt.datetime(2020, 7, 1)}, "total_spent": 2.5}]
    (customer,) = encoded(Records("", rows), plain_pass=True).customers().lines
    assert json.loads(customer) == {
        "id": "1",
        "extras": {"ltv": "1.10", "seen": "2020-07-01T00:00:00+02:00"},
        "total_spent": "2.5",
    }


cells = st.sampled_from(
    ["", "1", "a b", "gid://shop/Customer/7", "x@example.com", '"', "é", "\udce4", "true", "5.00", "x"]
)
HEADERS = [
    {"A": ("id",), "B": ("email",), "C": ("first_name",)},
    {"A": ("id",), "B": ("signed_up_at",), "C": ("birthday",)},
    {"A": ("email",), "B": ("extras", "city"), "C": ("extras", "home town")},
    {"A": ("id",), "B": ("optin",), "C": ("tags",)},
    {"A": ("id",), "B": ("total_spent",), "C": ("tier",)},
    {"A": ("id",), "C": ("extras", "deep", "inside")},
    {"A": ("id",), "C": ("extras", 'said "so" \udce4')},
]


@pytest.mark.parametrize("columns", HEADERS, ids=str)
@given(rows=st.lists(st.lists(cells | moments | days, min_size=3, max_size=3) | st.just(["1"]), min_size=1, max_size=5))
def test_cells_come_to_the_same_customers_on_either_way(columns, rows):
    chosen = [Cell("ABC".index(column), path) for column, path in columns.items()]
    layout = Layout(chosen, width=3)
    chunks = [Table("a.csv", layout, rows)]
    lines = [",".join(row) for row in rows]
    if lines and not any('"' in line or "\udce4" in line for line in lines):
        chunks.append(CsvLines("a.csv", layout, "".join(f"{line}\n" for line in lines), len(lines)))
    for chunk in chunks:
        quick, careful = encoded(chunk, plain_pass=True), encoded(chunk, plain_pass=False)
        assert comparable(quick) == comparable(careful) == comparable(encoded(chunks[0], plain_pass=False))
        with suppress(*NOT_PLAIN):
            plain = chunk.plain_rows()
            assert max(map(len, plain.customers().lines)) <= plain.bound


@pytest.mark.parametrize(
    "text",
    [
        "1,a,x\n2,b\n3,c,y,z\n",  # as many cells in all as if each had three
        "1,a,x,2\nb,y\n3,c,z\n",
        "1,a,x\n\n2,b,y\n",
        "1,a,x,\n2,b\n",
    ],
)
def test_a_row_of_a_csv_that_is_too_short_or_too_long_moves_no_cell_into_another_row(text):
    layout = Layout([Cell(0, ("id",)), Cell(1, ("first_name",)), Cell(2, ("last_name",))], width=3)
    rows = [line.split(",") for line in text.split("\n") if line]
    quick = encoded(CsvLines("a.csv", layout, text, text.count("\n")), plain_pass=True)
    assert comparable(quick) == comparable(encoded(Table("a.csv", layout, rows), plain_pass=False))


def test_a_time_is_sent_as_every_reader_of_rfc_3339_takes_it():
    for spelled in ("2020-01-15t10:30:00z", "2020-01-15 10:30:00+00:00"):
        row = {"id": "1", "signed_up_at": spelled}
        table = Table("a.csv", Layout([Cell(0, ("id",)), Cell(1, ("signed_up_at",))], width=2), [["1", spelled]])
        for chunk in (Records("", [row]), JsonLines("a.jsonl", json.dumps(row).encode()), table):
            for plain_pass in (True, False):
                (customer,) = encoded(chunk, plain_pass=plain_pass).customers().lines
                assert json.loads(customer)["signed_up_at"] in ("2020-01-15T10:30:00Z", "2020-01-15T10:30:00+00:00")


@pytest.mark.parametrize("offset", ["+0100", "-0000", ".5+0100"])
def test_a_time_is_refused_for_an_offset_without_a_colon_whatever_stands_beside_it(offset):
    for others in ([], ["2020-01-15T10:30:00Z"], ["2020-01-15 10:30"]):
        times = [*others, f"2020-01-15T10:30:00{offset}"]
        rows = [{"id": "1", "signed_up_at": spelled} for spelled in times]
        lines = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
        layout = Layout([Cell(0, ("id",)), Cell(1, ("signed_up_at",))], width=2)
        table = Table("a.csv", layout, [["1", spelled] for spelled in times])
        for chunk in (Records("", rows), JsonLines("a.jsonl", lines), table):
            checked = encoded(chunk, plain_pass=True)
            (invalid,) = checked.invalid
            assert invalid.error.field == "signed_up_at"
            assert invalid.number not in checked.numbers
            assert len(checked.numbers) == len(others)
