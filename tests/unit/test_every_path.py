"""
A row has the same verdict, the same JSON and the same identity on every path, alone and next to any other row.

A path is a source (a list, a format, a query, with and without ``column_map``). On each one a row is converted in bulk
if its neighbours let it, so each row is compared alone, among its neighbours, and among rows that are all canonical.
"""

from __future__ import annotations

import datetime as dt
import enum
import json
from decimal import Decimal
from uuid import UUID

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from every_path import (
    CSV_PATHS,
    JSON_PATHS,
    PYTHON_PATHS,
    QUERY_PATHS,
    fields_of,
    file,
    files_of,
    in_list,
    in_parquet,
    verdicts,
)
from hypothesis import example, given, strategies as st
from markupsafe import Markup

from airflow_provider_bubblehouse.customers.converter import Converter
from airflow_provider_bubblehouse.customers.values import Float32
from airflow_provider_bubblehouse.sources.query import spool_query
from airflow_provider_bubblehouse.sources.records import ListSource

UPDATE = Converter(timezone="Europe/Berlin", largest=100_000)
CONVERTERS = {
    "update": UPDATE,
    "delete": Converter(timezone="Europe/Berlin", deletions=True, largest=100_000),
}
CANONICAL = {
    "id": "5001",
    "email": "ada@example.com",
    "phone": "+15551234567",
    "first_name": "Ada",
    "tags": ["vip"],
    "alt_emails": [],
    "birthday": "1990-01-31",
    "anniversary": "1990-01-31",
    "signed_up_at": "2020-01-15T10:30:00Z",
    "email_marketing_consent_change_time": "2020-01-15T10:30:00+01:00",
    "optin": True,
    "deleted": True,
    "order_count": 3,
    "total_spent": "12.50",
    "extras": {"city": "London"},
    "tier": "gold",
}


class Word(enum.StrEnum):
    A = "vip"


class Number(enum.IntEnum):
    A = 1


texts = st.text(max_size=6) | st.sampled_from(["x", " x ", "é", "\x00", "\ud800", "\udce4", "a\tb", "'", "=", " ", ""])
numbers = st.integers() | st.sampled_from([0, 1, 3, -1, 2**53, 2**63, 2**64, 2**70, 10**99, 10**100, 10**101])
floats = st.floats() | st.sampled_from([0.0, 1.0, 3.0, 12.5, 1e22, float(2**53), 9007199254740993.0])
scalars = st.none() | st.booleans() | numbers | floats | texts
in_json = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
)
deep = st.sampled_from([50, 98, 99, 100, 101, 150]).map(lambda depth: json.loads("[" * depth + "]" * depth))
python_only = st.sampled_from(
    [
        (1, 2),
        {1, 2},
        {1: 2},
        b"bytes",
        Decimal(1001),
        Decimal("3.0"),
        Decimal("12.50"),
        Decimal("NaN"),
        Decimal("1E+400"),
        UUID(int=5),
        dt.date(2020, 1, 31),
        dt.time(1, 2),
        dt.datetime(2020, 1, 31),
        dt.datetime(2020, 7, 1, 12, 30, 0, 500),
        dt.datetime(2020, 1, 31, 12, tzinfo=dt.UTC),
        dt.datetime(1, 1, 1),
        dt.timedelta(1),
        Word.A,
        Number.A,
        Markup("x"),
        Float32(np.float32(12.3)),
        np.float64(3),
        np.float32(3),
        np.int64(3),
        np.str_("x"),
        np.bool_(True),
        np.array([1, 2]),
        pd.NaT,
        pd.NA,
        pd.Timestamp("2020-01-31 00:00:00"),
        object(),
    ]
)
# fmt: off
identifiers = st.sampled_from([
    "1", "007", "0", "-0", "00", "-5", "a-b_c", "a b", " 1001 ", "'72", "'x", '="72"', '=""', "id", "1001.0",
    "7.2E+12", "123e45", "gid://shopify/Customer/5", "gid://shopify/Order/5", "gid://", "null", "NULL", "\\N",
    "n/a", "NaN", "undefined", "x@y", "0x1", "1,5", "1.5", "é1", "9" * 30,
])
# fmt: on
emails = st.sampled_from(
    ["a@example.com", "A@Example.COM ", "é@example.com", "1", "a@b@c", "@b", "a@", "a b@c", "a\x07@b", "a@b\xa0", "@"]
)
# fmt: off
times = st.sampled_from([
    "2020-01-15T10:30:00Z", "2020-01-15t10:30:00.25+01:00", "2020-07-15 10:30", "2020-07-15T10:30:00", "now",
    "2020-02-30T10:30:00Z", "2020-02-30 10:30:00", "2020-01-15T23:59:60Z", "2020-01-15T24:00:00Z",
    "2024-03-12", "2024-01-31 12:00:00+00", "2024-01-31 12:00:00 +0000", "2024-01-31 12:00:00 UTC",
    "2020-09-11 13:26:15 ", "2024-03-31 02:30:00", "2024-W11-2 11:22:33", "2020-01-15T10:30:00-0000",
    "2020-01-15T10:30:00.5+0100", "2020-01-15T10:30Z", "2020-01-15T10:30:00,5Z", "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00", "'2020-01-15", "0000-01-15T10:30:00Z", "2020-01-15T10:30:00+24:00",
    "2020-01-15T10:30:00+23:60", "2020-01-15  10:30:00", "2020-01-15T10:30:00.Z",
    "2020-01-15T10:30:00.1234567890123Z", "1890-01-01 00:00:00", "2020-01-15T1:30:00Z",
])
dates = st.sampled_from([
    "1990-01-31", "0000-12-09", "0000-02-29", "0000-02-30", "1990-02-30", "31.01.1990", "1985-07-21 00:00:00",
    "1990-01-31T00:00:00.000Z", "1990-01-31 10:00:00", " 1990-01-31 ", "'1990-01-31", "19900131", "1990-1-31",
    "0000-00-00", "0001-01-01", "9999-12-31", "10000-01-01", "-0001-01-01",
])
# fmt: on
booleans = st.sampled_from(["true", "TRUE", "yes", "No", "t", "f", "on", "OFF", "1", "0", " y ", "2", "truth"])
counts = st.sampled_from(["3", "3.0", "3.5", "-3", "'3", " 3 ", "٣", "1e3", "", "9" * 25, "+3"])
amounts = st.sampled_from(
    ["5.00", "5", "-1", "1,5", "5\n", " 5.00 ", "'5", "$5", ".5", "5.", "1e3", "٣", '["5", "USD"]']
)
amount_pairs = st.sampled_from([["5.00", "USD"], [12.5, "USD"], ["5.00", 5], ["5.00"], [5, "USD"]])
# fmt: off
json_texts = st.sampled_from([
    '["vip"]', "[]", "{}", '{vip,"big spender"}', '{"city": "Paris"}', '{"a": "\\u0000"}', '["\\u0000"]',
    '["a", 1]', '["a"] ["b"]', '["a"]\n["b"]', '["a"', '"b"]', " [] ", '{"a": 1e400}', '{"a": NaN}',
    '["\\ud800"]', "[[1]]", '{"a": 1, "a": 2}', "{NULL}", "{a,}", "vip", "null", '{"a":{}}{"b":{}}', '["é"]',
    "[" * 150 + "]" * 150,
])
# fmt: on
lists = st.lists(texts, max_size=3)
objects = st.dictionaries(texts, in_json, max_size=2)

POOLS = {
    "id": identifiers | identifiers | texts,
    "email": emails | texts,
    "phone": st.sampled_from(["+1555", "'+1555", '="+1555"', "'x", " +1 "]) | texts,
    "first_name": texts,
    "tags": json_texts | lists,
    "alt_emails": lists | json_texts,
    "birthday": dates,
    "anniversary": dates,
    "signed_up_at": times,
    "email_marketing_consent_change_time": times,
    "optin": booleans | st.booleans(),
    "deleted": booleans | st.booleans(),
    "order_count": counts | numbers,
    "total_spent": amounts | amount_pairs,
    "extras": objects | json_texts,
    "tier": in_json,
    'odd"\\ name': in_json,
    "surrogate \udce4": scalars,
}


# fmt: off
FORMATTED = {
    "patterns and words": {
        "id": "verbatim", "birthday": "%d.%m.%Y", "anniversary": "epoch", "signed_up_at": "%m/%d/%Y %H:%M",
        "email_marketing_consent_change_time": "epoch_ms", "tags": ",", "alt_emails": " | ",
        "optin": {"J": True, "N": False, "1": None}, "total_spent": "units", "extras.visits": "number",
        "extras.vip": "boolean", "extras.deep.er": "json", "tier": "number", "deleted": {"Y": True},
    },
    "dicts and the rest": {
        "id": {"0": None, "null": None}, "email": {"-": None, "none@example.com": "ada@example.com"},
        "phone": {"0": None}, "first_name": {"Ada": "Grace", "x": ""}, "tags": {"vip": ["a", "b"], "none": []},
        "alt_emails": {"-": None}, "birthday": "%d. %b", "anniversary": {"0000-00-00": None, "2020-01-31": None},
        "signed_up_at": {"2020-01-31 00:00:00": None, "2020-07-01 12:30:00": None},
        "email_marketing_consent_change_time": "%d/%m/%y %I:%M %p %z", "order_count": {"3": 5, "true": 1},
        "total_spent": {"0": "0.00", "5": "5.00"}, "extras": {"[]": None}, "tier": {"1": "gold", "true": {"a": 1}},
    },
}
FORMATTED_VALUES = {
    "id": ["0", 0, "null", "1001.0", "7.2E+12", "id", " 0 ", "gid://x"],
    "email": ["-", " - ", "none@example.com"],
    "phone": ["0", 0],
    "first_name": ["Ada", " Ada ", "x"],
    "tags": ["a,b", ",", " a , ,b", "vip", "none", "a,\x00", ["vip"]],
    "alt_emails": ["a@example.com | b@example.com", "-"],
    "birthday": ["31.01.1990", "1.2.1990", " 31.01.1990 ", "31.02.1990", "'31.01.1990", "29. Feb", "01. jan",
                 "31.01.0000"],
    "anniversary": [0, "0", 86400, "86400", 86401, -86400, "1e5", 10**12, "0000-00-00", "2020-01-31", 86400.0],
    "signed_up_at": ["01/31/2020 10:30", "1/31/2020 1:30", "31/01/2020 10:30", "2020-01-31 00:00:00",
                     "03/29/2026 02:30"],
    "email_marketing_consent_change_time": [
        1579084200123, "1579084200123", 1579084200123.5, "1579084200123.5", True, 10**16, "01/02/20 01:30 pm +0100",
        "01/02/68 01:30 AM Z", "-1.5",
    ],
    "optin": ["J", "N", " J ", "1", 1, True, "j"],
    "deleted": ["Y", "N", True],
    "order_count": ["3", 3, 3.0, True, 4],
    "total_spent": [5, "5", 0, [5, "USD"], 5.5, Decimal("5.0")],
    "extras": [
        {"visits": "12"}, {"visits": "1.50"}, {"visits": " "}, {"visits": 3}, {"visits": "x"}, {"visits": "1e400"},
        {"vip": "Y"}, {"vip": "maybe"}, {"deep": {"er": "[1]"}}, {"deep": {"er": "{"}}, {"deep": "er"}, "[]",
        '{"visits": "7", "deep": {"er": "null"}}', {"visits": None, "vip": "", "other": "12"},
    ],
    "tier": ["1", 1, 1.0, "12", "1.50", " ", "-.5", True, "x", Decimal("12.50"), Decimal(12)],
}
# fmt: on
FORMATTED_POOLS = {
    name: pool | st.sampled_from(FORMATTED_VALUES[name]) | st.sampled_from(FORMATTED_VALUES[name])
    for name, pool in POOLS.items()
    if name in FORMATTED_VALUES
}
FORMATTED_CONVERTERS = {
    (kind, name): Converter(timezone="Europe/Berlin", largest=100_000, formats=formats, deletions=kind == "delete")
    for name, formats in FORMATTED.items()
    for kind in ("update", "delete")
}


def rows_of(
    others: st.SearchStrategy, *, all_fields: bool = False, pools: dict[str, st.SearchStrategy] = POOLS
) -> st.SearchStrategy:
    """Return rows of which most values are like those of their field, and some are others."""
    optional = {name: pool | others for name, pool in pools.items()}
    required = {
        "id": st.just("1001") | st.just("1001") | optional.pop("id"),
        "email": st.just("jane@example.com") | optional.pop("email"),
    }
    if all_fields:
        chosen = st.lists(st.sampled_from(sorted(optional)), max_size=4, unique=True)
        return chosen.flatmap(
            lambda names: st.lists(
                st.fixed_dictionaries(required | {name: optional[name] for name in names}), min_size=1, max_size=4
            )
        )
    return st.lists(st.fixed_dictionaries({}, optional=required | optional), min_size=1, max_size=4)


def assert_same(paths, rows, *, reference=in_list, converters=CONVERTERS):
    """Compare rows together, alone and among canonical ones on every path with the reference, where each is alone."""
    for mode, converter in converters.items():
        alone = [reference([row], converter)[0] for row in rows]
        among = [{"id": "5001"} | {name: CANONICAL.get(name) for name in fields_of(rows)}] * 12
        for name, path in paths.items():
            assert path(rows, converter) == alone, (mode, name, "together")
            assert path([*among, *rows], converter)[12:] == alone, (mode, name, "among canonical rows")
            assert [path([row], converter)[0] for row in rows] == alone, (mode, name, "alone")


@given(rows_of(in_json | deep | python_only))
def test_python_objects(rows):
    assert_same(PYTHON_PATHS, rows)


@given(rows_of(in_json | python_only, all_fields=True))
def test_the_rows_of_a_query(rows):
    every = dict.fromkeys(fields_of(rows))
    assert_same(QUERY_PATHS, [{**every, **row} for row in rows])


@given(rows_of(in_json | deep))
def test_json(rows):
    assert_same(JSON_PATHS, rows)


@given(rows_of(in_json | python_only, pools=FORMATTED_POOLS))
def test_python_objects_with_formats(rows):
    assert_same(PYTHON_PATHS, rows, converters=FORMATTED_CONVERTERS)


@given(rows_of(python_only, all_fields=True, pools=FORMATTED_POOLS))
def test_the_rows_of_a_query_with_formats(rows):
    every = dict.fromkeys(fields_of(rows))
    assert_same(QUERY_PATHS, [{**every, **row} for row in rows], converters=FORMATTED_CONVERTERS)


def without_decimals(value: object) -> object:
    return float(value) if isinstance(value, Decimal) else value


@given(rows_of(in_json, pools={name: pool.map(without_decimals) for name, pool in FORMATTED_POOLS.items()}))
def test_json_with_formats(rows):
    assert_same(JSON_PATHS, rows, converters=FORMATTED_CONVERTERS)


def cells(pool: st.SearchStrategy) -> st.SearchStrategy:
    """Return the texts that a CSV can hold, also bytes that are not UTF-8."""
    texts = pool.map(lambda value: value if isinstance(value, str) else json.dumps(value))
    return texts.filter(lambda text: not any("\ud800" <= character < "\udc80" for character in text))


@given(
    st.lists(
        st.fixed_dictionaries(
            {"id": st.just("1001") | cells(POOLS["id"]), "email": st.just("a@example.com") | cells(POOLS["email"])},
            optional={name: cells(pool) for name, pool in POOLS.items() if name not in ("id", "email")},
        ),
        min_size=1,
        max_size=4,
    )
)
def test_the_cells_of_a_csv(rows):
    def given_in_list(some, converter):
        return in_list([{name: text for name, text in row.items() if text.strip()} for row in some], converter)

    assert_same(CSV_PATHS, rows, reference=given_in_list)


@given(
    st.lists(
        st.fixed_dictionaries(
            {"id": st.just("1001") | cells(FORMATTED_POOLS["id"])},
            optional={name: cells(pool.map(str)) for name, pool in FORMATTED_POOLS.items() if name != "id"},
        ),
        min_size=1,
        max_size=4,
    )
)
def test_the_cells_of_a_csv_with_formats(rows):
    def given_in_list(some, converter):
        return in_list([{name: text for name, text in row.items() if text.strip()} for row in some], converter)

    assert_same(CSV_PATHS, rows, reference=given_in_list, converters=FORMATTED_CONVERTERS)


PARQUET_TYPES = {
    "text": (pa.string(), st.text(st.characters(codec="utf-8"), max_size=5)),
    "whole": (pa.int64(), st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, 1, 1001])),
    "float": (pa.float64(), floats),
    "float32": (pa.float32(), st.floats(width=32) | st.sampled_from([3.0, 12.5, float(np.float32(12.3)), 2.0**24])),
    "boolean": (pa.bool_(), st.booleans()),
    "decimal": (pa.decimal128(20, 2), st.decimals(-1000, 1000, places=2)),
    "date": (pa.date32(), st.dates()),
    "time": (pa.timestamp("us"), st.datetimes() | st.dates().map(lambda day: dt.datetime(*day.timetuple()[:3]))),
    "seconds": (pa.timestamp("s"), st.datetimes().map(lambda time: time.replace(microsecond=0))),
    "moment": (
        pa.timestamp("us", "UTC"),
        st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2100, 1, 1), timezones=st.just(dt.UTC)),
    ),
    "texts": (pa.list_(pa.string()), st.lists(st.text(st.characters(codec="utf-8"), max_size=5), max_size=3)),
    "map": (
        pa.map_(pa.string(), pa.float32()),
        st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=3), st.floats(width=32), max_size=3),
    ),
    "struct": (
        pa.struct([("a", pa.string()), ("b", pa.list_(pa.float32()))]),
        st.fixed_dictionaries(
            {"a": st.none() | st.just("x"), "b": st.none() | st.lists(st.floats(width=32), max_size=2)}
        ),
    ),
    "bytes": (pa.binary(), st.binary(max_size=3)),
}


def as_in_list(kind: str, value: object) -> object:
    """Return what a value of a Parquet type is as a Python object."""
    if kind == "float32" and value is not None:
        return Float32(value)
    if kind == "map" and value is not None:
        return {name: Float32(inner) for name, inner in value.items()}
    if kind == "struct" and value is not None:
        return {"a": value["a"], "b": value["b"] and list(map(Float32, value["b"]))}
    return value


@st.composite
def parquet_columns(draw):
    count = draw(st.integers(1, 4))
    fields = draw(st.lists(st.sampled_from(sorted(set(POOLS) - {"surrogate \udce4"})), max_size=5, unique=True))
    columns = {}
    for field in ["id", *fields]:
        kind = draw(st.sampled_from(sorted(PARQUET_TYPES)))
        values = st.none() | PARQUET_TYPES[kind][1]
        columns[field] = (kind, draw(st.lists(values, min_size=count, max_size=count)))
    return columns


@given(parquet_columns())
@example({"id": ("whole", [1001]), "birthday": ("time", [dt.datetime(1985, 7, 21)])})
@example(
    {"id": ("whole", [1]), "email_marketing_consent_change_time": ("moment", [dt.datetime(2000, 1, 1, tzinfo=dt.UTC)])}
)
@example({"id": ("whole", [1]), "signed_up_at": ("moment", [dt.datetime(2000, 1, 1, tzinfo=dt.UTC)])})
@example({"id": ("float32", [2.0**24]), "total_spent": ("float32", [float(np.float32(12.3))])})
@example({"id": ("decimal", [Decimal("1001.00")]), "signed_up_at": ("date", [dt.date(2024, 3, 12)])})
@example({"id": ("whole", [1001]), "signed_up_at": ("seconds", [dt.datetime(2020, 1, 31)])})
@example({"id": ("whole", [1001]), "email_marketing_consent_change_time": ("seconds", [dt.datetime(2020, 1, 31)])})
@example({"id": ("whole", [1001]), "anniversary": ("time", [dt.datetime(2020, 1, 31)])})
def test_the_columns_of_parquet(columns):
    count = len(columns["id"][1])
    arrays = {
        field: pa.array(
            [list(value.items()) if kind == "map" and value is not None else value for value in values],
            PARQUET_TYPES[kind][0],
        )
        for field, (kind, values) in columns.items()
    }
    rows = [
        {field: as_in_list(kind, values[place]) for field, (kind, values) in columns.items()} for place in range(count)
    ]
    table = pa.table(arrays)
    for converter in (*CONVERTERS.values(), *FORMATTED_CONVERTERS.values()):
        alone = [in_list([row], converter)[0] for row in rows]
        assert in_parquet(table, converter) == alone
        assert [in_parquet(table.slice(place, 1), converter)[0] for place in range(count)] == alone
        assert in_parquet(pa.concat_tables([table] * 12), converter) == alone * 12


@given(st.lists(st.sampled_from([b'{"id":"1"}', b'{"id":', b'"2"}', b"{}", b"", b" ", b"\r", b"\n", b",", b"[", b"x"])))
def test_whatever_the_lines_hold_each_is_one_row(pieces):
    content = b'{"id":"5"}\n' + b"".join(pieces)
    lines = [line for line in content.split(b"\n") if line.strip()]
    alone = [verdicts(file("a.jsonl", b'{"id":"5"}\n' + line), UPDATE)[-1] for line in lines]
    assert verdicts(file("a.jsonl", content), UPDATE) == alone


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"id":"1","id":"2"}', ("sent", "2", {"id": "2"})),
        (b'{"id":"1","tags":["a"],"tags":["b"]}', ("sent", "1", {"id": "1", "tags": ["b"]})),
        (b'{"id":"0","id":"2"}', ("sent", "2", {"id": "2"})),
        (b'{"id":"2","id":"0"}', ("invalid", "id")),
        (b'{"id":"1","extras":{"a":1e400}}', ("invalid", "extras")),
        (b'{"id":"1","extras":{"a":NaN}}', ("invalid", "extras")),
        (b'{"id":"1","extras":{"a":1' + b"0" * 200 + b"}}", ("invalid", "extras")),
        (b'{"id":1' + b"0" * 5000 + b"}", ("invalid", "id")),
        (b'{"id":"1","first_name":"\\u0000"}', ("invalid", "first_name")),
        (b'{"id":"1","first_name":"\\ud800"}', ("invalid", "first_name")),
        (b'{"id":"1","first_name":"\xff"}', ("invalid", "first_name")),
        (b'{"id":"1","fi\\u0072st_name":"x"}', ("sent", "1", {"id": "1", "first_name": "x"})),
        (b'{"id":"1","phone":"\\u00275"}', ("sent", "1", {"id": "1", "phone": "5"})),
        (b'{"id":"1","extras":' + b"[" * 5000 + b"]" * 5000 + b"}", ("invalid", "")),
        (b'{"id":"1","extras":{"a":' + b'["}",' * 5000 + b"1" + b"]" * 5000 + b"}}", ("invalid", "")),
        (b'{"id":"1","first_name":"' + b"x" * 100_000 + b'"}', ("invalid", "")),
    ],
    ids=lambda value: str(value[:30]),
)
@pytest.mark.parametrize("padding", [0, 12])
@pytest.mark.parametrize(
    "column_map", [None, {"id": "id", "phone": "phone", "first_name": "first_name", "tags": "tags", "extras": "extras"}]
)
def test_values_that_only_json_can_express(line, expected, padding, column_map):
    lines = [b'{"id":"7","phone":"5","first_name":"Ada","tags":[],"extras":{}}'] * padding + [line]
    for name, content in (("a.jsonl", b"\n".join(lines)), ("a.json", b"[" + b",".join(lines) + b"]")):
        assert verdicts(file(name, content, column_map=column_map), UPDATE)[-1] == expected


def test_a_repeated_header_is_invalid_on_every_path():
    column_map = {"Customer ID": "id", "City": "extras.city"}
    rows = [{"Customer ID": text, "City": text} for text in ("5", "Customer ID", "id", "City")]
    sources = [
        ListSource(rows, column_map=column_map),
        spool_query(list(column_map), [[tuple(row.values()) for row in rows]], column_map=column_map, converter=UPDATE),
        *(file(name, content, column_map=column_map) for name, content in files_of(rows).items()),
    ]
    for source in sources:
        assert [verdict[0] for verdict in verdicts(source, UPDATE)] == ["sent", "invalid", "invalid", "sent"]


def test_equal_values_of_other_types_keep_their_own_verdict_next_to_each_other():
    values = [1] * 8 + [True] * 8 + [1.0] * 8 + ["1"] * 8
    rows = [{"id": str(number), "order_count": value} for number, value in enumerate(values, 1)]
    together = in_list(rows, UPDATE)
    assert together == [in_list([row], UPDATE)[0] for row in rows]
    assert {verdict[0] for verdict in together[8:16]} == {"invalid"}
    assert {verdict[0] for verdict in together[:8] + together[16:]} == {"sent"}
