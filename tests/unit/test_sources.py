"""Files of every format give the same rows; what is wrong with a file is said by file and row."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
from contextlib import nullcontext
from typing import TYPE_CHECKING

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, strategies as st
from msgspec import UNSET

from airflow_provider_bubblehouse.customers.converter import Converter
from airflow_provider_bubblehouse.customers.invalid import InvalidCustomerError
from airflow_provider_bubblehouse.exceptions import BubblehousePermanentError, BubblehouseTransientError
from airflow_provider_bubblehouse.sources.files import FileSource
from airflow_provider_bubblehouse.sources.records import ListSource

if TYPE_CHECKING:
    from airflow_provider_bubblehouse.customers.blocks import Block

LOCAL = fsspec.filesystem("file")
ROWS = [{"id": "1", "first_name": "Luís"}, {"id": "2", "first_name": "Léa"}]


def source(path, **kwargs) -> FileSource:
    return FileSource(LOCAL, str(path), **kwargs)


def rows(source) -> list[object]:
    """Return each row of a source as it stands there, or the error of one that could not be read."""
    return [row for block in source.chunks() for row in rows_of(block)]


def rows_of(block: Block) -> list[object]:
    return [block.broken.get(place) or block.record(place) for place in range(block.count)]


def written(folder, name: str, content: bytes):
    path = folder / name
    path.write_bytes(gzip.compress(content) if name.lower().endswith(".gz") else content)
    return path


JSONL = b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in ROWS)
JSON = json.dumps(ROWS, indent=1).encode()
CSV = "id,first_name\n1,Luís\n2,Léa\n".encode()
BOM = b"\xef\xbb\xbf"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", JSONL),
        ("a.ndjson", JSONL),
        ("a.JSONL", JSONL),
        ("a.jsonl.gz", JSONL),
        ("bom.jsonl", BOM + JSONL),
        ("boms.jsonl", BOM + BOM + JSONL),
        ("crlf.jsonl", JSONL.replace(b"\n", b"\r\n")),
        ("blank.jsonl", b"\n\n" + JSONL.replace(b"\n", b"\n \n")),
        ("cut.jsonl", JSONL.rstrip()),
        ("a.json", JSON),
        ("a.json.gz", JSON),
        ("bom.json", BOM + JSON),
        ("boms.json", BOM + BOM + JSON),
        ("crlf.json", JSON.replace(b"\n", b"\r\n")),
        ("a.csv", CSV),
        ("a.csv.gz", CSV),
        ("A.CSV.GZ", CSV),
        ("bom.csv", BOM + CSV),
        ("boms.csv", BOM + BOM + CSV),
        ("boms.csv.gz", BOM + BOM + CSV),
        ("crlf.csv", CSV.replace(b"\n", b"\r\n")),
        ("mac.csv", CSV.replace(b"\n", b"\r")),
        ("blank.csv", b"\n" + CSV.replace(b"\n", b"\n\n")),
        ("cut.csv", CSV.rstrip()),
        ("quoted.csv", b'"id","first_name"\n"1","Lu\xc3\xads"\n"2",L\xc3\xa9a\n'),
    ],
)
def test_text_files_give_their_rows_whatever_their_line_ends(tmp_path, name, content):
    assert rows(source(written(tmp_path, name, content))) == ROWS


def test_parquet_gives_its_rows(tmp_path):
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    assert rows(source(tmp_path / "a.parquet")) == ROWS


@pytest.mark.parametrize("path", ["bucket/a.csv", "bucket/*.csv", "bucket/**/a.csv"])
def test_a_store_that_does_not_answer_is_not_mistaken_for_an_empty_one(path):
    class Outage(fsspec.AbstractFileSystem):
        cachable = False

        def ls(self, path, detail=True, **_kwargs):
            raise ConnectionError

    with pytest.raises(BubblehouseTransientError, match=r"bucket/.* cannot be listed \(ConnectionError\)"):
        rows(FileSource(Outage(), path))


@pytest.mark.parametrize("pattern", ["*.csv", "*/*.csv", "**/*.csv"])
def test_a_folder_that_cannot_be_listed_is_not_mistaken_for_an_empty_one(tmp_path, monkeypatch, pattern):
    for name in ("readable", "forbidden"):
        (tmp_path / name).mkdir()
        written(tmp_path / name, "a.csv", CSV)
    ls = type(LOCAL).ls

    def ls_if_permitted(self, path, detail=False, **kwargs):
        if str(path).endswith("forbidden") or pattern == "*.csv":
            raise PermissionError(13, "Permission denied")
        return ls(self, path, detail=detail, **kwargs)

    monkeypatch.setattr(type(LOCAL), "ls", ls_if_permitted)
    with pytest.raises(
        BubblehousePermanentError, match=r"cannot be listed \(PermissionError EACCES\): access is denied"
    ):
        rows(source(tmp_path / pattern))


def test_parquet_with_a_broken_page_is_refused_by_name(tmp_path):
    pq.write_table(pa.Table.from_pylist(ROWS * 5000), tmp_path / "a.parquet")
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    content[4:40] = bytes(36)
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(BubblehousePermanentError, match=r"a\.parquet, after row 0: this is no whole Parquet file"):
        rows(source(tmp_path / "a.parquet"))


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet", "a.jsonl.gz"])
def test_a_file_without_bytes_has_no_rows(tmp_path, name):
    assert rows(source(written(tmp_path, name, b""))) == []


@pytest.mark.parametrize(("name", "content"), [("a.json", b" [ ] \n"), ("a.csv", b"id,email\n"), ("a.jsonl", b"\n\n")])
def test_a_file_without_rows_has_no_rows(tmp_path, name, content):
    assert rows(source(written(tmp_path, name, content))) == []


def test_files_of_a_glob_are_read_in_the_order_of_their_names(tmp_path):
    for name in ("b.csv", "a.csv", "c.jsonl"):
        written(tmp_path, name, CSV if name.endswith("csv") else JSONL)
    assert [chunk.file[-5:] for chunk in source(tmp_path / "*").chunks()] == ["a.csv", "b.csv", "jsonl"]


@pytest.mark.parametrize(
    ("name", "content"), [("a.jsonl", b'{"id": "1"}\n' * 200_000), ("a.csv", b"id\n" + b"1\n" * 400_000)]
)
def test_a_file_comes_in_chunks_and_tells_the_share_that_is_read(tmp_path, name, content):
    chunked = source(written(tmp_path, name, content))
    shares = [chunked.share_read() for _ in chunked.chunks()]
    assert len(shares) > 1
    assert shares == sorted(shares)
    assert 0 < shares[0] < 1
    assert chunked.share_read() == 1


def test_parquet_is_not_read_as_a_whole_first(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.Table.from_pylist([{"id": f"{number:040}"} for number in range(20_000)]), path, row_group_size=1000
    )
    chunked = source(path)
    shares = [chunked.share_read() for _ in chunked.chunks()]
    assert 0 < shares[0] < 0.5 < shares[-1] <= 1


def test_long_rows_cross_the_blocks_they_are_read_in(tmp_path):
    long = [{"id": str(number), "first_name": "é" * 300_000} for number in range(5)]
    content = {
        "a.json": json.dumps(long, ensure_ascii=False).encode(),
        "a.jsonl": b"\n".join(json.dumps(row, ensure_ascii=False).encode() for row in long),
    }
    for name, text in content.items():
        assert rows(source(written(tmp_path, name, text))) == long


def test_a_json_array_needs_not_fit_in_memory_nor_a_value_in_a_block(tmp_path):
    many = [{"id": str(number), "extras": {"text": '}],"\\' * 5}} for number in range(20_000)]
    assert rows(source(written(tmp_path, "a.json", json.dumps(many).encode()))) == many


def test_a_file_of_exactly_that_name_takes_precedence_over_a_glob(tmp_path):
    written(tmp_path, "a[1].csv", CSV)
    written(tmp_path, "a1.csv", b"id\n9\n")
    assert rows(source(tmp_path / "a[1].csv")) == ROWS


def customers(source) -> list[object]:
    """Return each row of a source as it is sent, or its error."""
    found: dict[int, object] = {}
    first = 1
    for block in source.chunks():
        checked = Converter().check(block, first)
        found |= dict(zip(checked.numbers, map(json.loads, checked.customers().lines), strict=True))
        found |= {row.number: row.error for row in checked.invalid}
        first += checked.count
    return [found[number] for number in range(1, first)]


def test_cells_get_the_type_of_their_field_and_empty_cells_are_absent(tmp_path):
    content = (
        b"id,email,deleted,order_count,tags,extras,total_spent,tier\n"
        b'1,,true,3,"[""vip"", ""x""]","{""a"": 1}",5,gold\n'
        b"2,b@example.com, ,\t,,\xc2\xa0,,\n"
    )
    assert customers(source(written(tmp_path, "a.csv", content))) == [
        {
            "id": "1",
            "deleted": True,
            "order_count": 3,
            "tags": ["vip", "x"],
            "extras": {"a": 1},
            "total_spent": "5",
            "tier": "gold",
        },
        {"id": "2", "email": "b@example.com"},
    ]


@pytest.mark.parametrize(
    ("field", "cell"),
    [
        ("deleted", "yes"),
        ("deleted", "1"),
        ("optin", "maybe"),
        ("order_count", "3.5"),
        ("order_count", "-1"),
        ("order_count", "٣"),
        ("order_count", "9" * 5000),
        ("tags", "gold"),
        ("extras", "[1]"),
        ("extras", "[" * 100_000),
    ],
)
def test_a_cell_that_is_not_of_its_fields_type_is_a_fault_of_its_row(tmp_path, field, cell):
    (record,) = customers(source(written(tmp_path, "a.csv", f"id,{field}\n1,{cell}\n".encode())))
    assert isinstance(record, InvalidCustomerError)
    assert record.field == field
    assert cell not in record.reason


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b"id,first_name\n1,Jane,more\n2,ok\n"),
        ("a.csv", b"id,first_name\n1\n2,ok\n"),
        ("a.jsonl", b'{"id": 1, "first_name": "Jane"\n{"id":"2","first_name":"ok"}\n'),
        ("a.jsonl", b"[" * 100_000 + b'\n{"id":"2","first_name":"ok"}\n'),
    ],
)
def test_a_broken_row_is_a_fault_of_its_own_and_the_next_one_is_read(tmp_path, name, content):
    if content.startswith(b"["):
        content = b'{"id":"2","first_name":"ok"}\n' + content
        assert rows(source(written(tmp_path, name, content)))[2] == {"id": "2", "first_name": "ok"}
        return
    first, second = rows(source(written(tmp_path, name, content)))
    assert isinstance(first, InvalidCustomerError)
    assert "Jane" not in str(first)
    assert second == {"id": "2", "first_name": "ok"}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", b'id,first_name\n1,"Jane\n2,Joe\n', "line 2: the CSV is broken"),
        ("a.csv", b'id,first_name\n1,Joe\n2,"Jane"x\n', "line 3: the CSV is broken"),
        ("a.csv", b'id,first_name\n1,"' + b"x" * 2_000_000 + b'"\n', "line 2: the CSV is broken"),
        ("a.csv", b'id,first_name\n1,"Jane\n' + b"2,Joe\n" * 300_000, "line 2: the CSV is broken"),
        ("a.csv", b'id,first_name\n1,"Jane\n' + b"2,Joe\n" * 20 + b'3,"Jim"\n', "line 2: the CSV is broken"),
        ("a.csv", b"Jane,Doe\n1,2\n", "no column for id or email"),
        ("a.csv", b"id,email,id\n1,2,3\n", "same name in column 3"),
        ("a.csv", b"id,,x\n1,2,3\n", "column 2 has no name"),
        ("a.csv", b"id,x,,\n1,2,,\n", "column 3 has no name"),
        ("a.csv", b"id, email\n1,2\n", "the name of column 2 has a blank before or after it"),
        ("a.csv", "id,email\n".encode("utf-16"), "UTF-16"),
        ("a.csv", "id,email\n".encode("utf-16-le"), "UTF-16"),
        ("a.jsonl", '{"id": "Jane"}\n'.encode("utf-16-be"), "UTF-16"),
        ("a.csv.gz", b"", "not a whole gzip file"),
        ("a.json", b'{"id": "Jane"}', "file_format='jsonl'"),
        ("a.json", b'[{"id": "1"}, {"id": "Jane"', "row 2: the JSON array is broken"),
        ("a.json", b'[{"id": "1"} {"id": "Jane"}]', "row 1: the JSON array is broken"),
        ("a.json", b'[{"id": "1"},]', "row 2: the JSON array is broken"),
        ("a.json", b'[{"id": "1"}] Jane', "the JSON array is broken"),
        ("a.json", b"[" * 100_000, "the JSON array is broken"),
        ("a.jsonl", b'[{"id": "Jane"}]', "file_format='json'"),
        ("a.jsonl", b'"' + b"x" * 20_000_000, "a line of more than 16 MiB"),
        ("a.parquet", b"Jane", "no whole Parquet file"),
        ("a.xlsx", b"Jane", "set file_format"),
    ],
)
def test_a_file_that_cannot_be_read_on_is_refused_by_name_and_row_without_a_value(tmp_path, name, content, said):
    path = tmp_path / name
    path.write_bytes(content if content or not name.endswith(".gz") else gzip.compress(CSV * 1000)[:-20])
    with pytest.raises(BubblehousePermanentError) as caught:
        rows(source(path))
    assert name in str(caught.value)
    assert said in str(caught.value)
    assert "Jane" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_cell_in_quotes_may_be_as_long_as_a_call_and_the_process_keeps_its_own_limit(tmp_path):
    limit, long = csv.field_size_limit(), "x,\n" * 100_000
    (record,) = rows(source(written(tmp_path, "a.csv", f'id,first_name\n1,"{long}"\n'.encode())))
    assert record == {"id": "1", "first_name": long}
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize("form", ["json", "jsonl with a column_map", "rejected"])
def test_of_large_rows_fewer_are_held_at_once(tmp_path, form):
    large = [{"id": str(number), "extras": "x" * 100_000} for number in range(50)]
    if form == "json":
        many = source(written(tmp_path, "a.json", json.dumps(large).encode()))
    elif form == "rejected":
        lines = [json.dumps({"customer": row}) for row in large]
        many = source(written(tmp_path, "a.jsonl", "\n".join(lines).encode()), file_format="rejected")
    else:
        lines = [json.dumps(row) for row in large]
        many = source(
            written(tmp_path, "a.jsonl", "\n".join(lines).encode()), column_map={"id": "id", "extras": "extras"}
        )
    assert max(block.count for block in many.chunks()) <= 4
    assert rows(many) == large


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b"id,first_name\n1,J\xe4ne\n2,ok\n"),
        ("a.json", b'[{"id":"1","first_name":"J\xe4ne"},{"id":"2","first_name":"ok"}]'),
        ("a.jsonl", b'{"id":"1","first_name":"J\xe4ne"}\n{"id":"2","first_name":"ok"}\n'),
    ],
)
def test_text_that_is_not_utf8_is_an_error_of_its_row_that_names_the_field(tmp_path, name, content):
    first, second = customers(source(written(tmp_path, name, content)))
    assert str(first).startswith("first_name is not UTF-8 text; save the source as UTF-8")
    assert second == {"id": "2", "first_name": "ok"}


@pytest.mark.parametrize(
    ("path", "said"), [("none.csv", "There is no file"), ("*.csv", "No file matches"), ("", "is a folder")]
)
def test_a_missing_file_is_an_error_that_names_it(tmp_path, path, said):
    with pytest.raises(BubblehousePermanentError, match=said):
        rows(source(tmp_path / path))


COLUMN_MAP = {"CustomerId": "id", "Mail": "email", "City": "extras.city", "Country": "extras.country"}


def test_a_column_map_renames_nests_and_sends_exactly_its_columns(tmp_path):
    record = {"CustomerId": "1", "Mail": "a@example.com", "City": "Oslo", "Country": "Norway", "Fax": "5"}
    sent = [{"id": "1", "email": "a@example.com", "extras": {"city": "Oslo", "country": "Norway"}}]
    written(tmp_path, "a.csv", (",".join(record) + "\n" + ",".join(record.values()) + "\n").encode())
    written(tmp_path, "a.jsonl", json.dumps(record).encode())
    written(tmp_path, "a.json", json.dumps([record]).encode())
    pq.write_table(pa.Table.from_pylist([record]), tmp_path / "a.parquet")
    for suffix in ("csv", "jsonl", "json", "parquet"):
        assert rows(source(tmp_path / f"a.{suffix}", column_map=COLUMN_MAP)) == sent
    assert rows(ListSource([record], column_map=COLUMN_MAP)) == sent


def test_a_column_that_a_table_lacks_is_an_error_that_names_it(tmp_path):
    written(tmp_path, "a.csv", b"CustomerId,Mail,City,Jane\n1,2,3,4\n")
    pq.write_table(pa.Table.from_pylist([{"CustomerId": "1", "Mail": "2", "City": "3"}]), tmp_path / "a.parquet")
    for suffix in ("csv", "parquet"):
        said = r"lacks columns that column_map names: Country\. It has: CustomerId, Mail, City"
        with pytest.raises(BubblehousePermanentError, match=said):
            rows(source(tmp_path / f"a.{suffix}", column_map=COLUMN_MAP))


def test_a_name_that_no_row_has_is_warned_of_once(caplog):
    listed = ListSource([{"CustomerId": "1", "Mail": "x", "City": "y"}], column_map=COLUMN_MAP)
    assert rows(listed) == rows(listed) == [{"id": "1", "email": "x", "extras": {"city": "y"}}]
    assert [record.getMessage() for record in caplog.records] == ["column_map names columns that no row has: Country"]


@pytest.mark.parametrize(
    "column_map",
    [
        {},
        {"a": "id", "b": "id"},
        {"a": "extras", "b": "extras.x"},
        {"a": ""},
        {"a": "extras."},
        {"a": 1},
        {"a": "first_name.x"},
    ],
)
def test_a_column_map_that_contradicts_itself_is_refused(column_map):
    with pytest.raises(BubblehousePermanentError, match="column_map"):
        ListSource([], column_map=column_map)


def test_other_stores_are_read_as_the_local_one():
    memory = fsspec.filesystem("memory")
    memory.pipe("/bucket/a.csv.gz", gzip.compress(CSV))
    remote = FileSource(memory, "/bucket/*.csv.gz")
    assert rows(remote) == ROWS
    assert remote.version() == remote.version()


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_row_that_is_cut_off_as_its_file_becomes_shorter_is_not_a_row(tmp_path, name):
    row = {"a.csv": "1234567\n", "a.jsonl": '{"id": "1"}\n'}[name]
    path = written(tmp_path, name, (("id\n" if name == "a.csv" else "") + row * 100_000).encode())
    chunks = source(path).chunks()
    seen = rows_of(next(chunks))
    os.truncate(path, 300_001)
    with pytest.raises(BubblehousePermanentError, match=rf"{name} was changed while being read"):
        seen.extend(row for block in chunks for row in rows_of(block))
    assert len({str(record) for record in seen}) == 1


def test_reading_leaves_nothing_of_a_single_file_in_the_librarys_listings():
    memory = fsspec.filesystem("memory")
    memory.pipe("/alone/a.csv", CSV)
    remote = FileSource(memory, "/alone/a.csv")
    assert rows(remote) == ROWS
    assert "/alone" not in memory.dircache


@given(st.lists(st.sampled_from(["a", ",", ",", '"', '""', "\n", "\n", "\r\n", "\r", " ", "é", "x\ny", '","', '"\n'])))
def test_a_csv_gives_the_same_rows_as_pythons_reader_wherever_a_block_ends(tmp_path_factory, pieces):
    text = "id,email,phone\n" + "".join(pieces)
    expected: list[list[str]] = []
    fault = False
    try:
        expected.extend(filter(None, csv.reader(io.StringIO(text, newline=""), strict=True)))
    except csv.Error:
        fault = True
    path = written(tmp_path_factory.mktemp("csv"), "a.csv", text.encode())
    seen: list[list[str]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("airflow_provider_bubblehouse.formats.blocks.BLOCK_BYTES", 16)
        with nullcontext() if not fault else pytest.raises(BubblehousePermanentError, match="broken here"):
            for block in source(path).chunks():
                columns = [block.columns[name,] for name in ("id", "email", "phone")]
                for place, cells in enumerate(zip(*columns, strict=True)):
                    broken = block.broken.get(place)
                    seen.append(broken.record if broken else ["" if cell is UNSET else cell for cell in cells])
    # Cells of blanks are absent, like empty ones.
    wanted = [row if len(row) != 3 else [cell if cell.strip() else "" for cell in row] for row in expected[1:]]
    assert fault or seen == wanted
