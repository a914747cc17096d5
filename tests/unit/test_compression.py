"""A file is decompressed by its first bytes, whatever its name says; one that is not text is named as what it is."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sys
import tarfile
import zipfile

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_provider_bubblehouse.exceptions import BubblehousePermanentError
from airflow_provider_bubblehouse.formats.dialect import Dialect
from airflow_provider_bubblehouse.sources.files import FileSource

LOCAL = fsspec.filesystem("file")
ROWS = [{"id": "1", "first_name": "Jane"}, {"id": "2", "first_name": "Zoë"}]
FILES = {
    "csv": "id,first_name\n1,Jane\n2,Zoë\n".encode(),
    "jsonl": '{"id":"1","first_name":"Jane"}\n{"id":"2","first_name":"Zoë"}\n'.encode(),
    "json": '[{"id":"1","first_name":"Jane"},{"id":"2","first_name":"Zoë"}]'.encode(),
}


def zstd_compress(content: bytes) -> bytes:
    """Compress as the command ``zstd`` does, with a checksum."""
    zstd = pytest.importorskip("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    return zstd.compress(content, options={zstd.CompressionParameter.checksum_flag: 1})


COMPRESSIONS = {"gzip": gzip.compress, "zstd": zstd_compress}
compressions = pytest.mark.parametrize("compress", COMPRESSIONS.values(), ids=COMPRESSIONS)


def rows(folder, name: str, content: bytes, **options) -> list[object]:
    (folder / name).write_bytes(content)
    chunked = FileSource(LOCAL, str(folder / name), **options)
    return [block.record(place) for block in chunked.chunks() for place in range(block.count)]


@compressions
@pytest.mark.parametrize("file_format", FILES)
@pytest.mark.parametrize("suffix", ["", ".gz", ".zst", ".GZ"])
def test_a_compressed_file_is_read_under_any_suffix(tmp_path, compress, file_format, suffix):
    assert rows(tmp_path, f"a.{file_format}{suffix}", compress(FILES[file_format])) == ROWS


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_file_that_something_else_has_decompressed_is_read_under_its_old_name(tmp_path, suffix):
    assert rows(tmp_path, f"a.csv{suffix}", FILES["csv"]) == ROWS


@compressions
def test_parts_that_were_compressed_one_by_one_are_one_file(tmp_path, compress):
    assert (
        rows(
            tmp_path, "a.csv.x", compress(b"id,first_name\n1,Jane\n") + compress("2,Zoë\n".encode()), file_format="csv"
        )
        == ROWS
    )


@compressions
def test_a_compressed_file_may_have_a_dialect_and_nothing_in_it(tmp_path, compress):
    content = "1;Jane\n2;Zoë\n".encode("cp1252")
    dialect = Dialect(delimiter=";", encoding="cp1252", column_names=("id", "first_name"))
    assert rows(tmp_path, "a.csv", compress(content), dialect=dialect) == ROWS
    assert rows(tmp_path, "a.csv", compress(b""), dialect=dialect) == []


@compressions
@pytest.mark.parametrize("damage", ["cut off", "changed", "followed by other bytes"])
def test_a_damaged_file_is_refused_by_name_and_compression(tmp_path, compress, damage):
    content = compress(b"id\n" + b"".join(b"%d\n" % number for number in range(50_000)))
    kind = "gzip" if compress is gzip.compress else "zstd"
    damaged = {
        "cut off": content[:-20],
        "changed": content[:5000] + bytes(20) + content[5020:],
        "followed by other bytes": content + b"Jane",
    }
    with pytest.raises(BubblehousePermanentError, match=rf"a\.csv is not a whole {kind} file; compress it again"):
        rows(tmp_path, "a.csv", damaged[damage])


@compressions
def test_a_compressed_file_comes_in_chunks_and_tells_the_share_that_is_read(tmp_path, compress):
    numbers = b"".join(b"%d\n" % (number * 7919) for number in range(600_000))
    (tmp_path / "a.csv").write_bytes(compress(b"id\n" + numbers))
    chunked = FileSource(LOCAL, str(tmp_path / "a.csv"))
    shares = [chunked.share_read() for _ in chunked.chunks()]
    assert len(shares) > 10
    assert shares == sorted(shares)
    assert shares[0] < shares[-1] == 1


def test_without_the_library_a_zstd_file_names_the_extra(tmp_path, monkeypatch):
    content = zstd_compress(FILES["csv"])
    for module in ("compression.zstd", "backports.zstd"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BubblehousePermanentError, match=r"needs Python 3\.14 or: pip install '.*\[zstd\]'"):
        rows(tmp_path, "a.csv", content)


def zipped(*names: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in names:
            archive.writestr(name, "Jane")
    return content.getvalue()


def tarred(name: str) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    return content.getvalue()


def parquet() -> bytes:
    content = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), content)
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (zipped("[Content_Types].xml", "xl/workbook.xml"), "is an Excel workbook, not text; save its sheet as CSV"),
        (zipped("_rels/.rels", "xl/workbook.xml"), "is an Excel workbook, not text"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500), "is an Excel workbook, not text"),
        (zipped("a.csv"), "is a zip archive, not text; unpack it"),
        (tarred("Jane.csv"), "is a tar archive, not text; unpack it"),
        (parquet(), "is a Parquet file, not text; set file_format='parquet'"),
        (bz2.compress(b"Jane"), "is compressed with bzip2, not text; decompress it"),
        (lzma.compress(b"Jane"), "is compressed with xz, not text; decompress it"),
        (b"Obj\x01\x04\x14avro.codec", "is an Avro file, not text"),
        (b"%PDF-1.7\nJane", "is a PDF document, not text"),
        (b"\n<!DOCTYPE html><html>Jane", "is a web page, not text; a download may have led to a login page"),
        (b"<html>Jane", "is a web page, not text"),
        (b'<?xml version="1.0"?><Jane/>', "is an XML document, not text"),
    ],
    ids=lambda value: value if isinstance(value, str) else "file",
)
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "a.csv.gz"])
@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_the_error_of_a_file_that_is_not_text_names_its_kind(tmp_path, content, said, name, compress):
    with pytest.raises(BubblehousePermanentError) as caught:
        rows(tmp_path, name, compress(content))
    assert f"{name} {said}" in str(caught.value)
    assert "Jane" not in str(caught.value)


@pytest.mark.parametrize("header", ["PAR1,id", "BZh9,id", "Obj,id", "PK,id"])
def test_a_header_that_begins_as_another_kind_of_file_does_is_read(tmp_path, header):
    assert rows(tmp_path, "a.csv", f"{header}\nx,1\n".encode())[0]["id"] == "1"
