"""Every path that a row can take to the API, for tests that compare them."""

from __future__ import annotations

import csv
import io
import json
from collections import UserDict
from typing import TYPE_CHECKING, Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from airflow_provider_bubblehouse.formats.dialect import Dialect
from airflow_provider_bubblehouse.sources.files import FileSource
from airflow_provider_bubblehouse.sources.query import spool_query
from airflow_provider_bubblehouse.sources.records import ListSource

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_bubblehouse.customers.converter import Converter

Row = dict[str, Any]
Verdict = tuple[Any, ...]
Path = "Callable[[Sequence[Row], Converter], list[Verdict]]"

MEMORY = fsspec.filesystem("memory")


def verdicts(source: Any, converter: Converter) -> list[Verdict]:
    """Return what a push makes of each row: the customer that it sends and to whom, or the field at fault."""
    found: dict[int, Verdict] = {}
    first = 1
    for chunk in source.chunks():
        checked = converter.check(chunk, first)
        customers = checked.customers()
        lines = [json.loads(line) for line in customers.lines]
        assert json.loads(b"[" + customers.joined() + b"]") == lines
        for number, identity, line in zip(checked.numbers, checked.identities(), lines, strict=True):
            found[number] = ("sent", identity, line)
        for row in checked.invalid:
            found[row.number] = ("invalid", (row.error.field or "").partition(".")[0])
        first += checked.count
    assert sorted(found) == list(range(1, first))
    return [found[number] for number in range(1, first)]


def fields_of(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row)) or ["id"]


def renamed(rows: Sequence[Row]) -> tuple[list[Row], dict[str, str]]:
    """Return rows under other names, with a column that is not sent, and the column map for them."""
    names = {name: f"Column {place}" for place, name in enumerate(fields_of(rows))}
    others = [{"Fax": "not sent", **{names[name]: value for name, value in row.items()}} for row in rows]
    return others, {column: name for name, column in names.items()}


def nested(rows: Sequence[Row]) -> tuple[list[Row], dict[str, str]]:
    """Return rows whose fields are within objects, and the column map that reaches into these."""
    others, column_map = renamed(rows)
    return (
        [{"Box": {"Inner box": row, "Fax": "not sent"}} for row in others],
        {f"Box.Inner box.{column}": field for column, field in column_map.items()},
    )


def file(name: str, content: bytes, **options: Any) -> FileSource:
    """Return the rows of a file in memory."""
    MEMORY.pipe(f"/{name}", content)
    return FileSource(MEMORY, f"/{name}", **options)


def in_list(rows: Sequence[Row], converter: Converter) -> list[Verdict]:
    return verdicts(ListSource(rows), converter)


def in_list_of_mappings(rows: Sequence[Row], converter: Converter) -> list[Verdict]:
    return verdicts(ListSource([UserDict(row) for row in rows]), converter)


def in_list_with_map(rows: Sequence[Row], converter: Converter) -> list[Verdict]:
    others, column_map = renamed(rows)
    return verdicts(ListSource(others, column_map=column_map), converter)


def in_list_of_nested(rows: Sequence[Row], converter: Converter) -> list[Verdict]:
    others, column_map = nested(rows)
    return verdicts(ListSource(others, column_map=column_map), converter)


def in_query(rows: Sequence[Row], converter: Converter) -> list[Verdict]:
    """Rows that all have the same fields."""
    names = fields_of(rows)
    values = [tuple(row[name] for name in names) for row in rows]
    return verdicts(spool_query(names, [values], converter=converter), converter)


def in_query_with_map(rows: Sequence[Row], converter: Converter) -> list[Verdict]:
    others, column_map = renamed(rows)
    names = ["Fax", *column_map]
    values = [tuple(row[name] for name in names) for row in others]
    return verdicts(spool_query(names, [values], column_map=column_map, converter=converter), converter)


def in_query_of_nested(rows: Sequence[Row], converter: Converter) -> list[Verdict]:
    others, column_map = nested(rows)
    values = [(row["Box"],) for row in others]
    return verdicts(spool_query(["Box"], [values], column_map=column_map, converter=converter), converter)


def jsonl(rows: Sequence[Row]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def in_jsonl(rows: Sequence[Row], converter: Converter) -> list[Verdict]:
    return verdicts(file("a.jsonl", jsonl(rows)), converter)


def in_compact_jsonl(rows: Sequence[Row], converter: Converter) -> list[Verdict]:
    """UTF-8 instead of escapes, no blanks, and line ends of Windows."""
    lines = [json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows]
    return verdicts(file("a.jsonl", "\r\n".join(lines).encode("utf-8", "surrogatepass")), converter)


def in_jsonl_with_map(rows: Sequence[Row], converter: Converter) -> list[Verdict]:
    others, column_map = renamed(rows)
    return verdicts(file("a.jsonl", jsonl(others), column_map=column_map), converter)


def in_json(rows: Sequence[Row], converter: Converter) -> list[Verdict]:
    return verdicts(file("a.json", json.dumps(rows).encode()), converter)


def in_json_with_map(rows: Sequence[Row], converter: Converter) -> list[Verdict]:
    others, column_map = renamed(rows)
    return verdicts(file("a.json", json.dumps(others, indent=1).encode(), column_map=column_map), converter)


def in_json_of_nested(rows: Sequence[Row], converter: Converter) -> list[Verdict]:
    others, column_map = nested(rows)
    return verdicts(file("a.json", json.dumps(others).encode(), column_map=column_map), converter)


def in_jsonl_of_nested(rows: Sequence[Row], converter: Converter) -> list[Verdict]:
    others, column_map = nested(rows)
    return verdicts(file("a.jsonl", jsonl(others), column_map=column_map), converter)


def in_rejected_rows(rows: Sequence[Row], converter: Converter) -> list[Verdict]:
    lines = [{"row": 1, "reason": "rejected", "customer": row} for row in rows]
    return verdicts(file("a.jsonl", jsonl(lines), file_format="rejected"), converter)


def csv_text(rows: Sequence[Row], *, encoding: str = "utf-8", **options: Any) -> bytes:
    text = io.StringIO()
    names = fields_of(rows)
    writer = csv.writer(text, **options)
    writer.writerow(names)
    writer.writerows([row.get(name, "") for name in names] for row in rows)
    return text.getvalue().encode(encoding, "surrogateescape" if encoding == "utf-8" else "surrogatepass")


def in_csv(rows: Sequence[Row], converter: Converter) -> list[Verdict]:
    return verdicts(file("a.csv", csv_text(rows)), converter)


def in_quoted_csv(rows: Sequence[Row], converter: Converter) -> list[Verdict]:
    return verdicts(file("a.csv", csv_text(rows, quoting=csv.QUOTE_ALL, lineterminator="\n")), converter)


def in_semicolon_csv(rows: Sequence[Row], converter: Converter) -> list[Verdict]:
    """The encoding has no way to write what is not UTF-8: half a pair of characters stands for it."""
    content = csv_text(rows, encoding="utf-16", delimiter=";", quotechar="'")
    dialect = Dialect(encoding="utf-16", delimiter=";", quote_char="'")
    return verdicts(file("a.csv", content, dialect=dialect), converter)


def in_escaped_csv(rows: Sequence[Row], converter: Converter) -> list[Verdict]:
    content = csv_text(rows, delimiter="\t", escapechar="\\", doublequote=False)
    return verdicts(file("a.csv", content, dialect=Dialect(delimiter="\t", escape_char="\\")), converter)


def in_csv_with_null_values(rows: Sequence[Row], converter: Converter) -> list[Verdict]:
    names = fields_of(rows)
    filled = [{name: row.get(name) or "<none>" for name in names} for row in rows]
    return verdicts(file("a.csv", csv_text(filled), dialect=Dialect(null_values=("<none>",))), converter)


def in_csv_with_map(rows: Sequence[Row], converter: Converter) -> list[Verdict]:
    others, column_map = renamed(rows)
    return verdicts(file("a.csv", csv_text(others), column_map=column_map), converter)


def in_parquet(table: pa.Table, converter: Converter) -> list[Verdict]:
    content = io.BytesIO()
    pq.write_table(table, content)
    return verdicts(file("a.parquet", content.getvalue()), converter)


def files_of(rows: Sequence[Row]) -> dict[str, bytes]:
    """Return rows of texts as files of every format that holds texts, by name."""
    parquet = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), parquet)
    return {
        "a.jsonl": jsonl(rows),
        "a.json": json.dumps(rows).encode(),
        "a.csv": csv_text(rows),
        "quoted.csv": csv_text(rows, quoting=csv.QUOTE_ALL),
        "a.parquet": parquet.getvalue(),
    }


PYTHON_PATHS = {path.__name__: path for path in (in_list, in_list_of_mappings, in_list_with_map, in_list_of_nested)}
QUERY_PATHS = {path.__name__: path for path in (in_list, in_query, in_query_with_map, in_query_of_nested)}
JSON_PATHS = {
    path.__name__: path
    for path in (
        in_list,
        in_jsonl,
        in_compact_jsonl,
        in_jsonl_with_map,
        in_json,
        in_json_with_map,
        in_json_of_nested,
        in_jsonl_of_nested,
        in_rejected_rows,
    )
}
CSV_PATHS = {
    path.__name__: path
    for path in (in_csv, in_quoted_csv, in_semicolon_csv, in_escaped_csv, in_csv_with_null_values, in_csv_with_map)
}
