"""What shops really export: which spellings are accepted, and which rows are invalid, through every source."""

from __future__ import annotations

import datetime as dt
import io
import json
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from every_path import csv_text, file, jsonl, verdicts

from airflow_provider_bubblehouse.customers.converter import Converter
from airflow_provider_bubblehouse.sources.query import spool_query
from airflow_provider_bubblehouse.sources.records import ListSource

UPDATE = Converter(timezone="Europe/Berlin")
DELETE = Converter(timezone="Europe/Berlin", deletions=True)
EMAIL = {"email": "jane@example.com"}


def sources(record: dict[str, Any], column_map: dict[str, str] | None, converter: Converter) -> dict[str, Any]:
    """Return every source that can express a record, by name."""
    found: dict[str, Any] = {
        "list": ListSource([record], column_map=column_map),
        "query": spool_query(list(record), [[tuple(record.values())]], column_map=column_map, converter=converter),
    }
    kinds = set(map(type, record.values()))
    if kinds <= {str, int, float, bool, list, dict, type(None)}:
        found["jsonl"] = file("a.jsonl", jsonl([record]), column_map=column_map)
        found["json"] = file("a.json", json.dumps([record]).encode(), column_map=column_map)
    if kinds <= {str, type(None)}:
        found["csv"] = file("a.csv", csv_text([record]), column_map=column_map)
        found["quoted csv"] = file("b.csv", csv_text([record], quoting=1), column_map=column_map)
    if kinds <= {str, int, float, bool, list, type(None), Decimal, dt.date, dt.datetime}:
        content = io.BytesIO()
        pq.write_table(pa.Table.from_pylist([record]), content)
        found["parquet"] = file("a.parquet", content.getvalue(), column_map=column_map)
    return found


SHOPIFY = {"Customer ID": "id", "Phone": "phone", "Accepts Email Marketing": "optin"}
SENT = [
    (
        {"Customer ID": "'7210448301122", "Phone": "'+61412000999", "Accepts Email Marketing": "yes"},
        {"id": "7210448301122", "phone": "+61412000999", "optin": True},
    ),
    ({"id": 1001.0}, {"id": "1001"}),
    ({"id": Decimal("1001")}, {"id": "1001"}),
    ({"id": " 1001 ", "email": "  MixedCase@Example.com  "}, {"id": "1001", "email": "MixedCase@Example.com"}),
    *(({"id": blank, **EMAIL}, EMAIL) for blank in ("  ", "", None)),
    *(({"id": "1", "optin": true}, {"id": "1", "optin": True}) for true in ("TRUE", "True", "t", "1", 1)),
    *(
        ({"id": "1", "signed_up_at": f"2024-01-31 12:00:00{offset}"}, {"id": "1", "signed_up_at": sent})
        for offset, sent in {
            "+00": "2024-01-31T12:00:00+00:00",
            " +0000": "2024-01-31T12:00:00+00:00",
            " +00:00": "2024-01-31T12:00:00+00:00",
            " UTC": "2024-01-31T12:00:00Z",
        }.items()
    ),
    ({"id": "1", "signed_up_at": "2020-09-11 13:26:15 "}, {"id": "1", "signed_up_at": "2020-09-11T13:26:15+02:00"}),
    ({"id": "1", "birthday": "1985-07-21 00:00:00"}, {"id": "1", "birthday": "1985-07-21"}),
    ({"id": "1", "birthday": "1990-01-31T00:00:00.000Z"}, {"id": "1", "birthday": "1990-01-31"}),
    ({"id": "1", "birthday": dt.datetime(1990, 1, 31)}, {"id": "1", "birthday": "1990-01-31"}),
    ({"id": "1", "signed_up_at": "2024-03-12"}, {"id": "1", "signed_up_at": "2024-03-12T00:00:00+01:00"}),
    ({"id": "1", "signed_up_at": "2024-03-31 02:30:00"}, {"id": "1", "signed_up_at": "2024-03-31T02:30:00+01:00"}),
    *(({"id": "1", "order_count": three}, {"id": "1", "order_count": 3}) for three in ("3", 3.0, Decimal("3"))),
    *(
        ({"id": "1", "tags": text}, {"id": "1", "tags": tags})
        for text, tags in {'["vip"]': ["vip"], '{vip,"big spender"}': ["vip", "big spender"]}.items()
    ),
    ({"id": "1", "extras": '{"city": "Paris"}'}, {"id": "1", "extras": {"city": "Paris"}}),
]
INVALID = [
    *(
        ({"id": word, **others}, "id")
        for word in (r"\N", "NULL", "nan", "None", "1001.0", "7.21045E+12", "0", 0, 9007199254740993.0)
        for others in ({}, EMAIL)
    ),
    ({"id": "gid://shopify/MailingAddress/9?model_name=CustomerAddress"}, "id"),
    ({"id": "id", "email": "email"}, "id"),
    ({"email": "1"}, "email"),
    ({"id": "1", "first_name": "Ja\x00ne"}, "first_name"),
    ({"id": "1", "birthday": pd.NaT}, "birthday"),
    ({"id": "1", "signed_up_at": "2024-W11-2 11:22:33"}, "signed_up_at"),
    *(({"id": "1", "deleted": word}, "deleted") for word in ("y", "1")),
]


@pytest.mark.parametrize(("record", "sent"), SENT, ids=lambda value: str(value)[:60])
def test_a_spelling_that_can_mean_only_one_thing_is_accepted_from_every_source(record, sent):
    column_map = SHOPIFY if "Customer ID" in record else None
    for name, source in sources(record, column_map, UPDATE).items():
        ((verdict, _, customer),) = verdicts(source, UPDATE)
        # A column of Parquet and of a query is null where a CSV has an empty cell.
        assert (verdict, customer) == ("sent", sent), name
    identity = {"id": sent["id"]} if "id" in sent else EMAIL
    for name, source in sources(record, column_map, DELETE).items():
        assert verdicts(source, DELETE)[0][2] == {**identity, "deleted": True}, name


@pytest.mark.parametrize(("record", "field"), INVALID, ids=lambda value: str(value)[:60])
def test_an_identity_of_nobody_or_an_ambiguous_value_makes_the_row_invalid(record, field):
    for name, source in sources(record, None, UPDATE).items():
        assert verdicts(source, UPDATE) == [("invalid", field)], name
    if field in ("id", "email", "deleted"):
        for name, source in sources(record, None, DELETE).items():
            assert verdicts(source, DELETE) == [("invalid", field)], name


def parquet(**columns: pa.Array) -> Any:
    content = io.BytesIO()
    pq.write_table(pa.table({"id": ["1"], **columns}), content)
    return content.getvalue()


def test_a_map_of_parquet_is_an_object():
    entries = pa.array([[("city", "Paris"), ("tier", None)]], pa.map_(pa.string(), pa.string()))
    customer = {"id": "1", "extras": {"city": "Paris", "tier": None}}
    assert verdicts(file("a.parquet", parquet(extras=entries)), UPDATE)[0][2] == customer
    nested = file("b.parquet", parquet(attrs=entries), column_map={"id": "id", "attrs": "extras.attrs"})
    assert verdicts(nested, UPDATE)[0][2] == {"id": "1", "extras": {"attrs": {"city": "Paris", "tier": None}}}


def test_an_amount_of_32_bits_has_the_digits_that_it_was_written_with():
    amounts = pa.array(np.array([12.3], dtype="float32"))
    assert verdicts(file("a.parquet", parquet(total_spent=amounts)), UPDATE)[0][2]["total_spent"] == "12.3"


def test_times_of_parquet_are_sent_as_those_of_a_list():
    times = [dt.datetime(2024, 1, 31, 12), dt.datetime(2024, 1, 31, 12, 0, 0, 250_000)]
    listed = [
        customer for _, _, customer in verdicts(ListSource([{"id": "1", "signed_up_at": t} for t in times]), UPDATE)
    ]
    for unit in ("ms", "us", "ns"):
        content = io.BytesIO()
        pq.write_table(pa.table({"id": ["1", "1"], "signed_up_at": pa.array(times, pa.timestamp(unit))}), content)
        assert [row[2] for row in verdicts(file("a.parquet", content.getvalue()), UPDATE)] == listed


def test_a_header_that_is_repeated_and_a_footer_are_invalid_rows():
    text = "Customer ID,Email\n5,a@example.com\nCustomer ID,Email\n6,b@example.com\n,1\n"
    for content in (text, text.replace("5,a@example.com", '"5",a@example.com')):
        source = file("a.csv", content.encode(), column_map={"Customer ID": "id", "Email": "email"})
        for converter in (UPDATE, DELETE):
            assert [verdict[0] for verdict in verdicts(source, converter)] == ["sent", "invalid", "sent", "invalid"]


def test_a_second_byte_order_mark_is_removed():
    for name, content in (("a.csv", "id\n5\n"), ("a.jsonl", '{"id": "5"}'), ("a.json", '[{"id": "5"}]')):
        assert verdicts(file(name, ("\ufeff\ufeff" + content).encode()), UPDATE) == [("sent", "5", {"id": "5"})]
