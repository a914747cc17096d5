"""A CSV is read in the dialect that is set for it. A file in another one is refused with the option that would do."""

from __future__ import annotations

import csv
import io
from contextlib import nullcontext

import fsspec
import pytest
from hypothesis import assume, given, strategies as st
from msgspec import UNSET

from airflow_provider_bubblehouse.customers.converter import Converter
from airflow_provider_bubblehouse.customers.invalid import InvalidCustomerError
from airflow_provider_bubblehouse.exceptions import BubblehousePermanentError
from airflow_provider_bubblehouse.formats.dialect import Dialect
from airflow_provider_bubblehouse.sources.files import FileSource

MEMORY = fsspec.filesystem("memory")
LOCAL = fsspec.filesystem("file")
SECRET = "Jane"  # a value, which no message may show


def source(content: bytes, column_map=None, **options) -> FileSource:
    MEMORY.pipe("/a.csv", content)
    return FileSource(MEMORY, "/a.csv", column_map=column_map, dialect=Dialect.of(options))


def rows(source: FileSource) -> list[object]:
    return [block.broken.get(place) or block.record(place) for block in source.chunks() for place in range(block.count)]


def faults(source: FileSource) -> dict[int, str]:
    """Return what is wrong with each invalid row."""
    found, first = {}, 1
    for block in source.chunks():
        checked = Converter().check(block, first)
        found |= {row.number: str(row.error) for row in checked.invalid}
        first += checked.count
    return found


JOSE = [{"id": "1", "first_name": "José"}, {"id": "2", "first_name": "Zoë; Ann"}]


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ("id;first_name\n1;José\n2;'Zoë; Ann'\n", {"delimiter": ";", "quote_char": "'"}),
        ("id\tfirst_name\r\n1\tJosé\r\n2\tZoë; Ann\r\n", {"delimiter": "\t", "quote_char": None}),
        ("id|first_name\r1|José\r2|Zoë; Ann", {"delimiter": "|"}),
        ("id§first_name\n1§José\n2§Zoë; Ann\n", {"delimiter": "§"}),
        ("id first_name\n1 José\n2 'Zoë; Ann'\n", {"delimiter": " ", "quote_char": "'"}),
        ("id;first_name\n1;José\n2;Zoë\\; Ann\n", {"delimiter": ";", "escape_char": "\\"}),
        ("id;first_name\n1;Jos\\é\n2;Zoë\\; Ann", {"delimiter": ";", "escape_char": "\\", "quote_char": None}),
        ("1,José\n2,Zoë; Ann\n", {"column_names": ["id", "first_name"]}),
        ('"1","José"\n"2","Zoë; Ann"\n', {"column_names": ["id", "first_name"]}),
        ("Customers\n\nid,first_name\n1,José\n2,Zoë; Ann\n", {"skip_rows": 2}),
        ('A "quote\r\nid,first_name\r\n1,José\r\n2,Zoë; Ann\r\n', {"skip_rows": 1}),
        ("sep=,\rid,first_name\r1,José\r2,Zoë; Ann\r", {"skip_rows": 1}),
        ("old,names\n1,José\n2,Zoë; Ann\n", {"skip_rows": 1, "column_names": ["id", "first_name"]}),
        ("\ufeff\ufeffnote\n\ufeffid,first_name\n1,José\n2,Zoë; Ann\n", {"skip_rows": 1}),
        ("id,first_name,phone\n1,José,NULL\n2,Zoë; Ann,-\n", {"null_values": ["NULL", "-"]}),
        ('id,first_name,phone\n1,José,"NULL"\n2,Zoë; Ann,"a""b"\n', {"null_values": ["NULL", 'a"b']}),
        ("id,first_name,phone\n1,José,\\N\n2,Zoë; Ann,\\N\n", {"null_values": ["\\N"], "escape_char": "\\"}),
        ('id,first_name,phone\n1,José,\\N\n2,"Zoë; Ann","\\N"\n', {"null_values": ["\\N"], "escape_char": "\\"}),
        ("id,first_name,phone\n1,José,\\N\n2,Zoë; Ann,\n", {"null_values": ["\\N"]}),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16", "utf-16-be", "utf-32", "utf-7"])
def test_each_dialect_gives_the_same_rows_in_each_encoding(content, options, encoding):
    if "\ufeff" in content and encoding == "cp1252":
        return
    assert rows(source(content.encode(encoding), encoding=encoding, **options)) == JOSE


def test_a_null_value_is_compared_before_escapes_are_removed():
    content = b"id,first_name,last_name\n1,\\N,N\n2,\\\\N,x\\N\n3,a\\\nb,\\ \n"
    assert rows(source(content, escape_char="\\", null_values=["\\N"])) == [
        {"id": "1", "last_name": "N"},
        {"id": "2", "first_name": "\\N", "last_name": "xN"},
        {"id": "3", "first_name": "a\nb"},
    ]


def test_names_of_columns_lose_their_escapes_too():
    assert rows(source(b"i\\d,first\\_name\n1,x\n", escape_char="\\")) == [{"id": "1", "first_name": "x"}]


@pytest.mark.parametrize(
    ("content", "options"),
    [(b"1;2\r\n\r\n3;4\r\n5\r\n", {"delimiter": ";"}), (b"'1';2\n\n3;4\n5\n", {"delimiter": ";", "quote_char": "'"})],
)
def test_row_numbers_count_neither_skipped_lines_nor_header_nor_blank_lines(content, options):
    with_header = b"note\n\nid;phone\n" + content
    assert faults(source(with_header, skip_rows=2, **options)) == {3: "the row has 1 cell, but the header has 2"}
    without = b"note\n\n" + content
    assert faults(source(without, skip_rows=2, column_names=["id", "phone"], **options)) == {
        3: "the row has 1 cell, but column_names has 2"
    }


@pytest.mark.parametrize(
    ("content", "options", "line"),
    [
        (b'id,phone\n1,"2"x\n', {}, 2),
        (b'note\n\nid,phone\n1,2\n3,"4"x\n', {"skip_rows": 2}, 5),
        (b'note\r\n\r\n1,2\r\n3,"4"x\r\n', {"skip_rows": 2, "column_names": ["id", "phone"]}, 4),
        (b"note\rid;phone\r1;'2\r3;4\r", {"skip_rows": 1, "quote_char": "'", "delimiter": ";"}, 3),
        (b"id,phone\n1,2\n" + b"1,2\n" * 150_000 + b'3,"4"x\n', {}, 150_003),
        (b"id,phone\r\n1,2\r\n" + b"1,2\r\n" * 150_000 + b'3,"4"x\r\n', {}, 150_003),
    ],
)
def test_a_broken_row_is_named_by_the_line_of_the_file(content, options, line):
    with pytest.raises(BubblehousePermanentError, match=f"line {line}: the CSV is broken here"):
        rows(source(content, **options))


@pytest.mark.parametrize(
    ("content", "names", "invalid"),
    [
        (b"1,2,\r\n3\r4\r\n5,6,\r\n", ["id", "phone", "email"], [2, 3]),
        (b"1,2\r\n3,4,\n5,6\r\n", ["id", "phone"], [2]),
        (b"1,2,\n,3,4\r\n5,6\r\n", ["id", "phone"], [1, 2]),
        (b"1,2\r\n3\r4\r\n5,6,\n", ["id", "phone"], [2, 3, 4]),
        (b"1\r2,\n", ["id", "phone"], [1]),
        (b"1,2\n3,4\r\n5,6\n", ["id", "phone"], []),
        (b"1,2\n3\r\n4,5\r\n", ["id", "phone"], [2]),
        (b"1\r2,3\r\n4,5\r\n", ["id", "phone"], [1]),
        (b"1,2,3\n4\n", ["id", "phone"], [1, 2]),  # as many cells as two rows should have
        (b"1\n\n2\n0\n", ["id"], [3]),
    ],
)
def test_lines_are_the_rows_that_python_sees(content, names, invalid):
    assert list(faults(source(content, column_names=names))) == invalid


@pytest.mark.parametrize("other", [b"", b",x"])
def test_a_cell_of_more_than_a_million_characters_without_quotes_ends_no_file(other):
    long = b"2," + b"x" * 1_100_000 + other + b"\n"
    found = faults(source(b"1,2\n" + long + b"0,4\n", column_names=["id", "phone"]))
    assert found.keys() == ({2, 3} if other else {3})


MAP = {"CustomerId": "id", "City": "extras.city"}


@pytest.mark.parametrize(
    ("content", "options", "column_map", "said"),
    [
        ("id;first_name\n1;Jane\n", {}, None, 'set csv={"delimiter": ";"}'),
        ("id\tfirst_name\n1\tJane\n", {}, None, r'set csv={"delimiter": "\t"}'),
        ("id|first_name\n1|Jane\n", {}, None, 'set csv={"delimiter": "|"}'),
        ('"id";"first_name"\n"1";"Jane"\n', {}, None, 'set csv={"delimiter": ";"}'),
        ('"id"\t"first_name"\n"1"\t"Jane"\n', {}, None, r'set csv={"delimiter": "\t"}'),
        ('id;"name, first"\n1;Jane\n', {}, None, 'set csv={"delimiter": ";"}'),
        ("id;name, first\n1;Jane\n", {}, None, 'set csv={"delimiter": ";"}'),
        ("id,first_name\n1,Jane\n", {"delimiter": ";"}, None, 'set csv={"delimiter": ","}'),
        ("CustomerId;City\n1;Jane\n", {}, MAP, 'set csv={"delimiter": ";"}'),
        ("CustomerId;Name, City\n1;Jane\n", {}, {"CustomerId": "id"}, 'set csv={"delimiter": ";"}'),
        ("Id;traits\n1;{}\n", {}, {"Id": "id", "traits.email": "email"}, 'set csv={"delimiter": ";"}'),
        ("Number;Town\n1;Jane\n", {}, MAP, 'set csv={"delimiter": ";"}'),
        ("sep=;\nid;first_name\n1;Jane\n", {}, None, 'set csv={"delimiter": ";", "skip_rows": 1}'),
        ("Export of today\n\nid,first_name\n1,Jane\n", {}, None, 'set csv={"skip_rows": 2}'),
        ("id,first_name\n1,Jane\n", {"skip_rows": 1}, None, 'set csv={"skip_rows": 0}'),
        ("'id','first_name'\n'1','Jane'\n", {}, None, """set csv={"quote_char": "'"}"""),
        ("'id';'first_name'\n'1';'Jane'\n", {}, None, """set csv={"quote_char": "'", "delimiter": ";"}"""),
        ("1,Jane\n2,Joe\n", {}, None, 'set csv={"column_names": ["id", "email", "…"]}'),
        ("1,Jane\n2,Joe\n", {}, MAP, 'set csv={"column_names": ["CustomerId", "City", "…"]}'),
        ('id,first_name\n1,"Jane \\"J\\" Doe"\n', {}, None, r'set csv={"escape_char": "\\"}'),
        ('id,first_name\n1,"Jane \\"J\\""\n2,x\n', {}, None, r'set csv={"escape_char": "\\"}'),
        ("Größe,id\n1,Jane\n".encode("cp1252"), {}, {"id": "id", "Größe": "extras.x"}, '{"encoding": "cp1252"}'),
        ("Größe;id\n1;Jane\n".encode("cp1252"), {}, {"id": "id", "Größe": "extras.x"}, '"encoding": "cp1252", "del'),
        ("id,first_name\n1,Jane\n".encode("utf-16"), {}, None, 'UTF-16, not UTF-8; set csv={"encoding": "utf-16"}'),
        ("id,first_name\n1,Jane\n".encode("utf-16-le"), {}, None, 'set csv={"encoding": "utf-16-le"}'),
        ("id,first_name\n1,Jane\n".encode("utf-16-be"), {}, None, 'set csv={"encoding": "utf-16-be"}'),
        ("id,first_name\n1,Jane\n".encode("utf-16"), {"encoding": "cp1252"}, None, 'set csv={"encoding": "utf-16"}'),
        ("id,first_name\n1,Jane\n".encode("utf-32"), {}, None, 'set csv={"encoding": "utf-32"}'),
        ("id,first_name\n1,Jane\n".encode("utf-32-le"), {}, None, 'set csv={"encoding": "utf-32-le"}'),
        ("id,first_name\n1,Jane\n".encode("utf-32-be"), {}, None, 'set csv={"encoding": "utf-32-be"}'),
        (
            "\ufeffid,first_name\n1,Jane\n",
            {"encoding": "cp1252"},
            None,
            'UTF-8, not CP1252; set csv={"encoding": "utf-8"}',
        ),
        (
            "id,first_name\n1,Jane\n" * 9,
            {"encoding": "utf-16"},
            None,
            'UTF-8, not UTF-16; set csv={"encoding": "utf-8"}',
        ),
        ("id,é\n1,Jane\n".encode("cp1252"), {"encoding": "utf-16"}, None, 'set csv={"encoding": "cp1252"}'),
        ("id,first_name\n1,Jane\n" * 9, {"encoding": "utf-16-le"}, None, 'set csv={"encoding": "utf-8"}'),
    ],
)
def test_a_file_in_another_dialect_is_refused_with_the_option_to_set(content, options, column_map, said):
    content = content.encode() if isinstance(content, str) else content
    with pytest.raises(BubblehousePermanentError) as caught:
        rows(source(content, column_map, **options))
    assert said in str(caught.value)
    assert "a.csv" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        (
            b"1,J\xe4ne\n",
            {},
            'first_name is not UTF-8 text; save the source as UTF-8, or set csv={"encoding": "cp1252"}',
        ),
        (b'"1","J\xe4ne"\n', {}, 'save the source as UTF-8, or set csv={"encoding": "cp1252"}'),
        ("1,Jäne Zoë\n".encode() + b"2,J\xe4ne\n", {}, "save the source as UTF-8, or set its encoding in csv"),
        (b"1,J\x81ne\n", {}, "save the source as UTF-8, or set its encoding in csv"),
        (b"1,J\x81ne\n", {"encoding": "cp1252"}, "first_name is not CP1252 text; set its encoding in csv"),
        ("1,Jäne\n".encode(), {"encoding": "ascii"}, 'is not ASCII text; set csv={"encoding": "utf-8"}'),
        (b"1;Jane;x\n", {}, 'the row has 1 cell, but column_names has 2; set csv={"delimiter": ";"}'),
    ],
)
def test_a_row_in_another_dialect_is_invalid_and_names_the_option_to_set(content, options, said):
    found = faults(source(content, column_names=["id", "first_name"], **options))
    (reason,) = found.values()
    assert reason.endswith(said)
    assert "J\xe4ne" not in reason


@pytest.mark.parametrize(
    ("content", "encoding", "is_warned"),
    [
        ("Zoë".encode(), "cp1252", True),
        ("Zoë".encode(), "utf-8", False),
        ("Zoë".encode(), "utf-8-sig", False),
        ("Zoë".encode("cp1252"), "cp1252", False),
        ("Zoë".encode("utf-16-le"), "utf-16-le", False),
        (b"Ada", "cp1252", False),
    ],
)
def test_utf8_that_is_read_in_another_encoding_is_warned_of(caplog, content, encoding, is_warned):
    wide = encoding.startswith("utf-16")
    names = "id,first_name\n1,".encode(encoding if wide or encoding == "utf-8-sig" else "ascii")
    rows(source(names + content, encoding=encoding))
    said = "/a.csv looks like UTF-8, but is read as CP1252, which gives other letters. Check the encoding in csv."
    assert [record.getMessage() for record in caplog.records] == [said] * is_warned


def test_bytes_that_are_not_of_the_encoding_leave_the_other_rows_alone():
    content = "id,first_name\n1,Jäne\n2,Zoë\n".encode("utf-16-le")
    broken = content.replace("J".encode("utf-16-le"), b"\x00\xd8")  # half of a pair
    assert list(faults(source(broken, encoding="utf-16-le"))) == [1]


def test_a_column_whose_name_is_not_utf8_says_which_encoding_would_do():
    (reason,) = faults(source("id,Größe\n1,x\n".encode("cp1252"))).values()
    assert reason == 'a field\'s name is not UTF-8 text; save the source as UTF-8, or set csv={"encoding": "cp1252"}'


@pytest.mark.parametrize(
    ("header", "column_map", "said"),
    [
        ("customerid,Mail", {"CustomerId": "id"}, "It has 'customerid': only the case or a blank differs"),
        ("CustomerId ,Mail", {"CustomerId": "id"}, "It has 'CustomerId ': only the case or a blank differs"),
        ("ID,Mail", None, "It has 'ID': only the case or a blank differs"),
        ("CustomerId,Mail", {"id": "CustomerId", "email": "Mail"}, "The map looks reversed: it goes from a column to"),
        ("CustomerId,id", {"email": "id"}, "The map looks reversed"),
        (
            "CustomerId,First Name,Größe,#",
            {"CustomerId": "id", "City": "x"},
            "CustomerId, First Name, Größe and 1 more column",
        ),
        (
            "CustomerId,City1,j@example.com,Jane2",
            {"CustomerId": "id", "City": "x"},
            "Values seem to be among its names",
        ),
        ("first_name,phone,City", None, "no column for id or email; name the column in column_map. It has: first_name"),
        ("Jane,phone", None, "no column for id or email; name the column in column_map. If the file has no header"),
        ("Jane,phone", {"City": "id"}, "It has none of them; is there a header? If the file has no header"),
    ],
)
def test_a_missing_column_is_explained(header, column_map, said):
    with pytest.raises(BubblehousePermanentError) as caught:
        rows(source(f"{header}\n1,2,3\n".encode(), column_map))
    assert said in str(caught.value)
    assert ("no header" in str(caught.value)) is (header == "Jane,phone")
    assert SECRET not in str(caught.value)
    assert "@" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"delimiter": ";"},
        {"encoding": "cp1252"},
        {"encoding": "utf-16"},
        {"quote_char": "'"},
        {"escape_char": "\\"},
        {"null_values": ["NULL"]},
        {"column_names": ["id", "first_name"]},
        {"skip_rows": 2000},
    ],
    ids=str,
)
def test_a_file_in_any_dialect_comes_in_chunks(tmp_path, options):
    dialect = Dialect.of(options)
    cells = ["7", "'it''s \\, NULL'" if "quote_char" in options else "NULL" if dialect.null_values else "x\\y"]
    line = dialect.delimiter.join(cells) + "\n"
    text = "note\n" * dialect.skip_rows
    text += "" if dialect.column_names else dialect.delimiter.join(["id", "first_name"]) + "\n"
    (tmp_path / "a.csv").write_bytes((text + line * 200_000).encode(dialect.encoding))
    chunked = FileSource(LOCAL, str(tmp_path / "a.csv"), dialect=dialect)
    read = [(block.count, chunked.share_read()) for block in chunked.chunks()]
    shares = [share for _, share in read]
    assert sum(count for count, _ in read) == 200_000
    assert max(count for count, _ in read) < 50_000
    assert shares == sorted(shares)
    assert shares[0] < 0.5
    assert shares[-1] == 1


PIECES = [
    "a",
    ",",
    ";",
    ";",
    '"',
    "'",
    '""',
    "\\",
    "\\N",
    "N",
    "\n",
    "\n",
    "\r\n",
    "\r",
    " ",
    "é",
    "x;y",
    '";"',
    "\x1f",
]


@pytest.mark.parametrize("blank", ["\t", " ", "\n", "\r\n", "\xa0", "\t \n"])
@pytest.mark.parametrize("delimiter", ["\t", " ", ","])
def test_a_cell_of_blanks_in_quotes_is_absent_even_if_they_are_delimiters(blank, delimiter):
    rows = "".join(f'"{number}"{delimiter}"{blank}"\n' for number in (1, 2))
    chunked = source(rows.encode(), delimiter=delimiter, column_names=["id", "phone"])
    (block,) = chunked.chunks()
    assert list(block.columns["phone",]) == [UNSET, UNSET]


@given(
    pieces=st.lists(st.sampled_from(PIECES)),
    delimiter=st.sampled_from([",", ";", "\t", "é", " "]),
    quote=st.sampled_from(['"', "'", None]),
    escape=st.sampled_from(["\\", None, None]),
    encoding=st.sampled_from(["utf-8", "cp1252", "utf-16"]),
    skip=st.integers(0, 2),
    has_header=st.booleans(),
)
def test_a_csv_gives_the_rows_of_pythons_reader_in_any_dialect_wherever_a_block_ends(
    pieces, delimiter, quote, escape, encoding, skip, has_header
):
    names = ["id", "email", "phone"]
    text = "".join(pieces)
    header = delimiter.join(names) + "\n" if has_header else ""
    options = {"delimiter": delimiter, "quotechar": quote, "escapechar": escape, "strict": True}
    expected: list[list[str]] = []
    fault = False
    try:
        quoting = csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE
        reader = csv.reader(io.StringIO(text, newline=""), quoting=quoting, **options)
        expected.extend(filter(None, reader))
    except csv.Error:
        fault = True
    assume(fault or not text.startswith("\n") or not has_header)
    seen: list[list[str]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("airflow_provider_bubblehouse.formats.blocks.BLOCK_BYTES", 16)
        chunked = source(
            ("note\r\n" * skip + header + text).encode(encoding),
            delimiter=delimiter,
            quote_char=quote,
            escape_char=escape,
            encoding=encoding,
            skip_rows=skip,
            column_names=None if has_header else names,
        )
        with nullcontext() if not fault else pytest.raises(BubblehousePermanentError, match="broken here"):
            for block in chunked.chunks():
                for place, cells in enumerate(zip(*[block.columns[name,] for name in names], strict=True)):
                    broken = block.broken.get(place)
                    seen.append(broken if broken else ["" if cell is UNSET else cell for cell in cells])
    if not fault:
        assert len(seen) == len(expected)
        for row, wanted in zip(seen, expected, strict=True):
            assert isinstance(row, InvalidCustomerError) is (len(wanted) != 3)
            # Cells of blanks are absent, like empty ones.
            assert isinstance(row, InvalidCustomerError) or row == [cell if cell.strip() else "" for cell in wanted]
