"""
The shapes that files really have: renamed columns, numbers as ids, times without an offset, booleans, lists.

Each shape is pushed by the operator and by a careful loop of its own, which sends the same values with ``HttpHook``,
one call a batch. Every run is a process of its own, which prints its figures as JSON.
"""

from __future__ import annotations

import csv
import json
import os
import sqlite3
import sys
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from benchmarks.contenders import http_hook_for, measure_from_here, operator, send_batches, time_used

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ROWS = 100_000
INVALID_EVERY = 100
TIMEZONE = "Europe/Berlin"
TYPED_COLUMNS = ("id", "email", "first_name", "last_name", "signed_up_at", "optin", "tags")
COLUMN_MAP = {
    "CustomerId": "id",
    "Mail": "email",
    "Phone": "phone",
    "First": "first_name",
    "Last": "last_name",
    "City": "extras.city",
}
EUROPEAN_MAP = {
    "Kundennummer": "id",
    "E-Mail": "email",
    "Vorname": "first_name",
    "Nachname": "last_name",
    "Geburtstag": "birthday",
    "Kunde seit": "signed_up_at",
    "Newsletter": "optin",
    "Gruppen": "tags",
}
_DAY, _TIME, _ENCODING, _DELIMITER = "%d.%m.%Y", "%d.%m.%Y %H:%M:%S", "cp1252", ";"
_WORDS = {"J": True, "N": False}
_ZONE = ZoneInfo(TIMEZONE)
_FIRST_ID = 7_210_448_301_122
_BATCH = 1000

Row = dict[str, Any]


def typed(number: int) -> Row:
    """Return a row with a time without an offset, a boolean and a list."""
    return {
        "id": str(_FIRST_ID + number),
        "email": f"customer.{number}@example.com",
        "first_name": "Ada",
        "last_name": "Lovelace",
        "signed_up_at": f"20{number % 24:02}-{number % 12 + 1:02}-{number % 28 + 1:02} 10:{number % 60:02}:00",
        "optin": number % 3 > 0,
        "tags": ["vip", "wholesale"],
    }


def canonical(number: int) -> Row:
    """Return a row of texts that can be sent as it is."""
    return {
        "id": str(_FIRST_ID + number),
        "email": f"customer.{number}@example.com",
        "phone": f"+1555{number:07d}",
        "first_name": "Ada",
        "last_name": "Lovelace",
        "extras": {"city": "London"},
    }


def exported(number: int) -> Row:
    """Return a row under a shop's own names, with a column that is not sent."""
    row = canonical(number)
    return {
        "CustomerId": _FIRST_ID + number,
        "Mail": row["email"],
        "Phone": row["phone"],
        "First": row["first_name"],
        "Last": row["last_name"],
        "City": "London",
        "Fax": "none",
    }


def european(number: int) -> Row:
    """Return a row as a European Excel writes it."""
    return {
        "Kundennummer": str(_FIRST_ID + number),
        "E-Mail": f"customer.{number}@example.com",
        "Vorname": "Zoë",
        "Nachname": "Müller",
        "Geburtstag": f"{number % 28 + 1:02}.{number % 12 + 1:02}.19{number % 100:02}",
        "Kunde seit": f"{number % 28 + 1:02}.{number % 12 + 1:02}.20{number % 24:02} 10:{number % 60:02}:00",
        "Newsletter": "N" if number % 3 else "J",
        "Gruppen": "vip, wholesale",
    }


def without_identity(row: Row) -> None:
    """Make a row invalid that has no typed text."""
    row.update(dict.fromkeys(row.keys() & {"id", "email", "CustomerId", "Mail"}))


def without_birthday(row: Row) -> None:
    """Make a row invalid that has a birthday."""
    row["Geburtstag"] = "unknown"


def without_time(row: Row) -> None:
    """Make a row invalid that has a time."""
    row["signed_up_at"] = "yesterday"


def rows_of(make: Callable[[int], Row], count: int, fault: Callable[[Row], None] | None) -> Iterator[Row]:
    """Yield rows. If a fault is given, one in a hundred is invalid."""
    for number in range(count):
        row = make(number)
        if fault is not None and number % INVALID_EVERY == INVALID_EVERY // 2:
            fault(row)
        yield row


def write_jsonl(path: Path, rows: Iterator[Row]) -> None:
    with path.open("w") as file:
        file.writelines(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)


def write_csv(path: Path, rows: Iterator[Row], quoting: int = csv.QUOTE_MINIMAL) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, quoting=quoting)  # type: ignore[arg-type]
        for place, row in enumerate(rows):
            if not place:
                writer.writerow(row)
            writer.writerow([json.dumps(value) if isinstance(value, list | bool) else value for value in row.values()])


def write_quoted_csv(path: Path, rows: Iterator[Row]) -> None:
    write_csv(path, rows, csv.QUOTE_ALL)


def write_european_csv(path: Path, rows: Iterator[Row]) -> None:
    with path.open("w", newline="", encoding=_ENCODING) as file:
        writer = csv.DictWriter(file, EUROPEAN_MAP, delimiter=_DELIMITER)
        writer.writeheader()
        writer.writerows(rows)


def write_parquet(path: Path, rows: Iterator[Row]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    records = list(rows)
    for row in records:
        row["signed_up_at"] = datetime.fromisoformat(row["signed_up_at"])
    pq.write_table(pa.Table.from_pylist(records), path)


def write_sqlite(path: Path, rows: Iterator[Row]) -> None:
    with sqlite3.connect(path) as database:
        database.execute(
            "create table customers (id integer, email text, first_name text, last_name text, "
            "signed_up_at text, optin boolean, tags text)"
        )
        database.executemany(
            "insert into customers values (?, ?, ?, ?, ?, ?, ?)",
            ((row["id"] and int(row["id"]), *list(row.values())[1:-1], json.dumps(row["tags"])) for row in rows),
        )


def canonical_loop(rows: Iterator[Row]) -> Iterator[Row]:
    for row in rows:
        if row["id"] or row["email"]:
            yield row


def mapped_loop(rows: Iterator[Row]) -> Iterator[Row]:
    for row in rows:
        if row["CustomerId"] or row["Mail"]:
            yield {
                "id": str(row["CustomerId"]),
                "email": row["Mail"],
                "phone": row["Phone"],
                "first_name": row["First"],
                "last_name": row["Last"],
                "extras": {"city": row["City"]},
            }


def typed_loop(rows: Iterator[Row]) -> Iterator[Row]:
    for row in rows:
        try:
            signed_up_at = datetime.fromisoformat(row["signed_up_at"])
        except ValueError:
            continue
        row["signed_up_at"] = signed_up_at.replace(tzinfo=_ZONE).isoformat()
        yield row


def typed_csv_loop(rows: Iterator[Row]) -> Iterator[Row]:
    for row in typed_loop(rows):
        row["optin"] = row["optin"] == "true"
        row["tags"] = json.loads(row["tags"])
        yield row


def european_loop(rows: Iterator[Row]) -> Iterator[Row]:
    for row in rows:
        try:
            birthday = datetime.strptime(row["Geburtstag"], _DAY)  # noqa: DTZ007  a date
            signed_up_at = datetime.strptime(row["Kunde seit"], _TIME)  # noqa: DTZ007  localized below
        except ValueError:
            continue
        yield {
            "id": row["Kundennummer"],
            "email": row["E-Mail"],
            "first_name": row["Vorname"],
            "last_name": row["Nachname"],
            "birthday": birthday.date().isoformat(),
            "signed_up_at": signed_up_at.replace(tzinfo=_ZONE).isoformat(),
            "optin": _WORDS[row["Newsletter"]],
            "tags": [tag.strip() for tag in row["Gruppen"].split(",")],
        }


def parquet_loop(rows: Iterator[Row]) -> Iterator[Row]:
    for row in rows:
        if row["id"] or row["email"]:
            row["signed_up_at"] = row["signed_up_at"].replace(tzinfo=_ZONE).isoformat()
            yield row


def query_loop(rows: Iterator[Row]) -> Iterator[Row]:
    for row in typed_loop(rows):
        row["id"] = str(row["id"])
        row["optin"] = bool(row["optin"])
        row["tags"] = json.loads(row["tags"])
        yield row


def read_jsonl(path: str) -> Iterator[Row]:
    with open(path, "rb") as file:
        yield from map(json.loads, file)


def read_csv(path: str) -> Iterator[Row]:
    with open(path, newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def read_european_csv(path: str) -> Iterator[Row]:
    with open(path, newline="", encoding=_ENCODING) as file:
        yield from csv.DictReader(file, delimiter=_DELIMITER)


def read_parquet(path: str) -> Iterator[Row]:
    from pyarrow.parquet import ParquetFile

    for batch in ParquetFile(path).iter_batches(batch_size=_BATCH):
        yield from batch.to_pylist()


def read_sqlite(path: str) -> Iterator[Row]:
    cursor = sqlite3.connect(path).execute("select * from customers")
    names = [column[0] for column in cursor.description]
    while block := cursor.fetchmany(_BATCH):
        for row in block:
            yield dict(zip(names, row, strict=True))


@dataclass(frozen=True)
class Shape:
    """
    A shape of rows.

    :param make: makes a row.
    :param suffix: of its file.
    :param write: writes rows to a file.
    :param read: reads the rows of a file, as a loop would.
    :param loop: brings rows into the values that the operator sends, and leaves invalid ones out.
    :param fault: makes a row invalid.
    :param options: the operator's parameters.
    """

    make: Callable[[int], Row]
    suffix: str
    write: Callable[[Path, Iterator[Row]], None]
    read: Callable[[str], Iterator[Row]]
    loop: Callable[[Iterator[Row]], Iterator[Row]]
    fault: Callable[[Row], None]
    options: Row = field(default_factory=dict)


_MAPPED: Row = {"column_map": COLUMN_MAP}
_TYPED: Row = {"timezone": TIMEZONE}
_EUROPEAN: Row = {
    "column_map": EUROPEAN_MAP,
    "csv": {"delimiter": _DELIMITER, "encoding": _ENCODING},
    "formats": {"birthday": _DAY, "signed_up_at": _TIME, "optin": _WORDS, "tags": ","},
    "timezone": TIMEZONE,
}
SHAPES = {
    "JSONL, canonical": Shape(canonical, "jsonl", write_jsonl, read_jsonl, canonical_loop, without_identity),
    "CSV, texts": Shape(exported, "csv", write_csv, read_csv, mapped_loop, without_identity, _MAPPED),
    "CSV, every cell quoted": Shape(
        exported, "csv", write_quoted_csv, read_csv, mapped_loop, without_identity, _MAPPED
    ),
    "JSONL, column_map": Shape(exported, "jsonl", write_jsonl, read_jsonl, mapped_loop, without_identity, _MAPPED),
    "JSONL, typed": Shape(typed, "jsonl", write_jsonl, read_jsonl, typed_loop, without_time, _TYPED),
    "CSV, typed": Shape(typed, "csv", write_csv, read_csv, typed_csv_loop, without_time, _TYPED),
    "CSV, dialect and formats": Shape(
        european, "csv", write_european_csv, read_european_csv, european_loop, without_birthday, _EUROPEAN
    ),
    "Parquet, typed": Shape(typed, "parquet", write_parquet, read_parquet, parquet_loop, without_identity, _TYPED),
    "list of dicts, typed": Shape(typed, "jsonl", write_jsonl, read_jsonl, typed_loop, without_time, _TYPED),
    "query, typed": Shape(typed, "sqlite", write_sqlite, read_sqlite, query_loop, without_time, _TYPED),
}

SHAPES_OF_BASE = ("JSONL, canonical", "CSV, texts", "CSV, every cell quoted")  # as fast before the rules were one set


def import_reader(shape: Shape) -> None:
    """Import what a file is read with: that takes as long as many rows."""
    if shape.suffix == "parquet":
        import pyarrow.parquet  # noqa: F401
    if shape.suffix == "sqlite":
        import airflow.providers.sqlite.hooks.sqlite  # noqa: F401


def push(shape: Shape, title: str, path: str, port: int) -> int:
    """Push a file of a shape with the operator."""
    import_reader(shape)
    options: Row = {"batch_size": _BATCH, "on_invalid": "skip", **shape.options}
    if title.startswith("list"):
        return operator(port, customers=list(read_jsonl(path)), **options)
    if title.startswith("query"):
        os.environ["AIRFLOW_CONN_SHOP_DB"] = json.dumps({"conn_type": "sqlite", "host": path})
        return operator(port, sql="select * from customers", sql_conn_id="shop_db", **options)
    return operator(port, path=path, **options)


def loop(shape: Shape, title: str, path: str, port: int) -> int:
    """Push a file of a shape with the loop that one would write for it."""
    import_reader(shape)
    send = http_hook_for(port)
    rows = iter(list(shape.read(path))) if title.startswith("list") else shape.read(path)
    measure_from_here()
    return send_batches(shape.loop(rows), send)


def main() -> None:
    """Run one contender: ``push`` or ``loop``, the shape, its file and the sink's port."""
    contender, title, path, port = sys.argv[1:]
    sent = {"push": push, "loop": loop}[contender](SHAPES[title], title, path, int(port))
    print(json.dumps({"rows": sent, **time_used()}))


if __name__ == "__main__":
    main()
