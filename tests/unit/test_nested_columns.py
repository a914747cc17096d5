"""``column_map`` reaches into objects: ``{"traits.email": "email"}``."""

from __future__ import annotations

import dataclasses
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from every_path import csv_text, file, jsonl, verdicts

from airflow_provider_bubblehouse.customers.converter import Converter
from airflow_provider_bubblehouse.errors import PermanentError
from airflow_provider_bubblehouse.formats.dialect import Dialect
from airflow_provider_bubblehouse.sources.query import spool_query
from airflow_provider_bubblehouse.sources.records import ListSource

CONVERTER = Converter()
MAP = {"userId": "id", "traits.email": "email", "traits.address.city": "extras.city"}


def sources(row: dict, column_map: dict[str, str] = MAP) -> dict:
    """Return every source in which a row of JSON can stand, by name."""
    names = list(row)
    return {
        "list": ListSource([row], column_map=column_map),
        "jsonl": file("a.jsonl", jsonl([row]), column_map=column_map),
        "json": file("a.json", json.dumps([row]).encode(), column_map=column_map),
        "query": spool_query(names, [[tuple(row.values())]], column_map=column_map, converter=CONVERTER),
        "query of dicts": spool_query(names, [[row]], column_map=column_map, converter=CONVERTER),
    }


def parquet(table: pa.Table, column_map: dict[str, str] = MAP):
    content = io.BytesIO()
    pq.write_table(table, content)
    return file("a.parquet", content.getvalue(), column_map=column_map)


ROWS = [
    (
        {"userId": "1", "traits": {"email": "a@example.com", "address": {"city": "Rome"}}},
        {"id": "1", "email": "a@example.com", "extras": {"city": "Rome"}},
    ),
    (  # objects as JSON text, at any depth
        {"userId": "1", "traits": '{"email": "a@example.com", "address": "{\\"city\\": \\"Rome\\"}"}'},
        {"id": "1", "email": "a@example.com", "extras": {"city": "Rome"}},
    ),
    ({"userId": "1", "traits": {"email": "a@example.com"}}, {"id": "1", "email": "a@example.com"}),
    ({"userId": "1", "traits": {"email": None, "address": None}}, {"id": "1", "email": None}),
    ({"userId": "1", "traits": None}, {"id": "1"}),
    ({"userId": "1", "traits": " "}, {"id": "1"}),
    ({"userId": "1", "traits": {}}, {"id": "1"}),
    (  # the exact name goes before, at each level
        {"userId": "1", "traits.email": "a@example.com", "traits": {"email": "b@example.com", "address.city": "Rome"}},
        {"id": "1", "email": "a@example.com", "extras": {"city": "Rome"}},
    ),
    ({"userId": "1", "traits.email": None, "traits": {"email": "b@example.com"}}, {"id": "1", "email": None}),
]


@pytest.mark.parametrize(("row", "customer"), ROWS, ids=lambda value: str(value)[:60])
def test_a_dot_in_a_column_reaches_into_an_object_unless_a_column_has_that_exact_name(row, customer):
    for name, source in sources(row).items():
        assert verdicts(source, CONVERTER) == [("sent", "1", customer)], name


@pytest.mark.parametrize(("row", "customer"), ROWS, ids=lambda value: str(value)[:60])
@pytest.mark.parametrize("delimiter", [",", "|"])
def test_csv_has_objects_as_json_text(row, customer, delimiter):
    cells = [json.dumps(value) if isinstance(value, dict) else value or "" for value in row.values()]
    content = csv_text([dict(zip(row, cells, strict=True))] * 3, delimiter=delimiter)
    source = file("a.csv", content, column_map=MAP, dialect=Dialect(delimiter=delimiter))
    if row.get("traits.email", "") is None:  # an empty cell of CSV is absent
        customer = {"id": "1"}
    assert verdicts(source, CONVERTER) == [("sent", "1", customer)] * 3


def test_a_csv_without_quotes_may_have_objects_too():
    content = b"userId|traits\n" + b'1|{"email": "a@example.com"}\n2|\n3|no object\n' * 2
    source = file("a.csv", content, column_map=MAP, dialect=Dialect(delimiter="|", quote_char=None))
    expected = [("sent", "1", {"id": "1", "email": "a@example.com"}), ("sent", "2", {"id": "2"}), ("invalid", "email")]
    assert verdicts(source, CONVERTER) == expected * 2


@pytest.mark.parametrize("value", ["no object", 5, [], ["a"], True, '["a"]', "{", {"address": "Rome"}])
def test_a_value_that_is_not_an_object_makes_the_row_invalid(value):
    field = "extras" if isinstance(value, dict) else "email"
    for name, source in sources({"userId": "1", "traits": value}).items():
        assert verdicts(source, CONVERTER) == [("invalid", field)], name
    (block,) = ListSource([{"userId": "1", "traits": value}], column_map=MAP).chunks()
    (row,) = CONVERTER.check(block, 1).invalid
    assert row.error.reason.startswith("cannot be read: column_map reaches into an object")
    assert row.record == {"id": "1"}


def test_rows_of_one_source_may_differ():
    rows = [{"id": str(number), **row} for number, (row, _) in enumerate(ROWS)]
    together = verdicts(ListSource(rows, column_map=MAP), CONVERTER)
    assert together == [verdicts(ListSource([row], column_map=MAP), CONVERTER)[0] for row in rows]
    assert verdicts(file("a.jsonl", jsonl(rows), column_map=MAP), CONVERTER) == together


def test_objects_may_be_of_any_type_that_a_record_may_be():
    @dataclasses.dataclass
    class Traits:
        email: str

    source = ListSource([{"userId": "1", "traits": Traits("a@example.com")}], column_map=MAP)
    assert verdicts(source, CONVERTER) == [("sent", "1", {"id": "1", "email": "a@example.com"})]


def test_parquet_has_structs_maps_and_json_text():
    rows = [{"userId": "1", "traits": {"email": "a@example.com", "address": {"city": "Rome"}}}, {"userId": "2"}]
    expected = [
        ("sent", "1", {"id": "1", "email": "a@example.com", "extras": {"city": "Rome"}}),
        ("sent", "2", {"id": "2"}),
    ]
    assert verdicts(parquet(pa.Table.from_pylist(rows)), CONVERTER) == expected
    texts = [{**row, "traits": json.dumps(row.get("traits"))} for row in rows[:1]]
    assert verdicts(parquet(pa.Table.from_pylist(texts)), CONVERTER) == expected[:1]
    maps = pa.table(
        {"userId": ["1"], "traits": pa.array([[("email", "a@example.com")]], pa.map_(pa.string(), pa.string()))}
    )
    assert verdicts(parquet(maps), CONVERTER) == [("sent", "1", {"id": "1", "email": "a@example.com"})]


def test_a_parquet_column_may_have_a_dot_in_its_name():
    table = pa.table({"userId": ["1"], "traits.email": ["a@example.com"], "traits": [{"address": {"city": "Rome"}}]})
    expected = {"id": "1", "email": "a@example.com", "extras": {"city": "Rome"}}
    assert verdicts(parquet(table), CONVERTER) == [("sent", "1", expected)]


@pytest.mark.parametrize("column", ["trait.email", "traits.emial"])
def test_a_column_that_the_schema_does_not_have_is_missing(column):
    table = pa.table({"userId": ["1"], "traits": [{"email": "a@example.com"}]})
    with pytest.raises(PermanentError, match=f"lacks columns that column_map names: {column}"):
        list(parquet(table, {"userId": "id", column: "email"}).chunks())
    with pytest.raises(PermanentError, match=r"lacks columns that column_map names: trait\.email"):
        spool_query(["userId"], [], column_map={"userId": "id", "trait.email": "email"}, converter=CONVERTER)


def test_a_column_that_no_row_has_is_warned_of(caplog):
    source = file("a.jsonl", jsonl([{"id": "1", "traits": {}}]), column_map={"id": "id", "traits.emial": "email"})
    list(source.chunks())
    assert "column_map names columns that no row has: traits.emial" in caplog.text


def test_formats_apply_to_values_from_within_objects():
    converter = Converter(formats={"birthday": "%d.%m.%Y"})
    column_map = {"userId": "id", "traits.born": "birthday"}
    for name, source in sources({"userId": "1", "traits": {"born": "31.01.1990"}}, column_map).items():
        if not name.startswith("query"):
            assert verdicts(source, converter) == [("sent", "1", {"id": "1", "birthday": "1990-01-31"})], name
