"""Whatever stands in a source: an error is one of this package's, shows no value, and every row is accounted for."""

from __future__ import annotations

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, strategies as st

from airflow_provider_bubblehouse.exceptions import BubblehouseError, BubblehousePermanentError
from airflow_provider_bubblehouse.formats.dialect import Dialect
from airflow_provider_bubblehouse.operators.customers import UpdateCustomersOperator


def parquet_of(rows: list[dict]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


SENTINEL = "sEnTiNeL"
ROWS = [{"id": f"{SENTINEL}{number}", "email": f"{SENTINEL}{number}@example.com", "tags": ["x"]} for number in range(4)]
FILES = {
    "jsonl": "".join(json.dumps(row) + "\n" for row in ROWS).encode(),
    "json": json.dumps(ROWS, indent=1).encode(),
    "csv": ("id,email,first_name\n" + "".join(f"{row['id']},{row['email']},J\n" for row in ROWS)).encode(),
    "parquet": parquet_of(ROWS),
    "rejected": "".join(json.dumps({"row": 1, "customer": row}) + "\n" for row in ROWS).encode(),
}
NOISE = [
    *(b"\x00", b"\xff", b"\xc3", b"\n", b"\r", b",", b'"', b"{", b"}", b"[", b"]", b":", b"\\", b"\\ud800", b"null"),
    *(b";", b"\t", b"'", b"\\N", b"\xff\xfe", b"\x1f\x8b", b"\r\n", b"PK\x03\x04"),
    *(b"1e999", b"-", b"NaN", b'{"id":', b"gid://", b"\xef\xbb\xbf", b" ", b"[" * 2000, b"9" * 5000),
]


@st.composite
def mutated(draw, content: bytes) -> bytes:
    for _ in range(draw(st.integers(min_value=1, max_value=4))):
        start = draw(st.integers(min_value=0, max_value=len(content)))
        end = draw(st.integers(min_value=start, max_value=min(len(content), start + 12)))
        content = content[:start] + draw(st.sampled_from(NOISE) | st.binary(max_size=3)) + content[end:]
    return content


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("mutated")


def outcome(operator: UpdateCustomersOperator) -> tuple[dict | None, BubblehouseError | None]:
    """Return the summary of a push, and the error that it ended with; any other error is not caught."""
    try:
        return operator.execute({}), None
    except BubblehouseError as error:
        return error.summary, error


def check_outcome(sandbox, folder, **parameters) -> None:
    """Push a file, and check that any error is one of this package's, shows no value, and that no row is lost."""
    sandbox.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_BUBBLEHOUSE_DEFAULT", sandbox.connection())
        operator = UpdateCustomersOperator(
            task_id="push", batch_size=2, timezone="Europe/Berlin", rejected_path=folder / "rejected", **parameters
        )
        summary, error = outcome(operator)
    if error is not None:
        assert SENTINEL not in str(error)
        assert error.__cause__ is None
        assert parameters["on_invalid"] == "skip" or sandbox.calls == []
    if summary is not None:  # None: the file could not even be opened
        assert summary["read"] == sum(summary[name] for name in ("accepted", "rejected", "invalid", "unsent"))
        assert summary["accepted"] == sum(call.rows for call in sandbox.calls)


@pytest.mark.parametrize("on_invalid", ["fail", "skip"])
@pytest.mark.parametrize("file_format", FILES)
@given(data=st.data())
def test_mutated_files_end_in_this_packages_errors_only_and_lose_no_row(
    running_sandbox, folder, file_format, on_invalid, data
):
    path = folder / f"a.{file_format}"
    path.write_bytes(data.draw(mutated(FILES[file_format])))
    check_outcome(running_sandbox, folder, path=path, file_format=file_format, on_invalid=on_invalid)


ENCODINGS = ["utf-8", "ascii", "cp1252", "utf-16", "utf-16-be", "utf-32", "utf-7", "shift_jis", "gb18030", "iso2022_jp"]
ENCODINGS += ["hz", "cp037", "koi8_r", "unicode_escape", "raw_unicode_escape", "big5hkscs", "johab"]
NAMES = ["id", "email", "first_name"]
dialects = st.fixed_dictionaries(
    {},
    optional={
        "delimiter": st.sampled_from(";\t| ,é\x01"),
        "encoding": st.sampled_from(ENCODINGS),
        "quote_char": st.sampled_from(["'", '"', None]),
        "escape_char": st.sampled_from(["\\", "'", "e"]),
        "null_values": st.sampled_from([["J"], ["\\N", "null", ""]]),
        "column_names": st.sampled_from([NAMES, ["email", "x"], ["x", "id"]]),
        "skip_rows": st.integers(0, 7),
    },
)


@pytest.mark.parametrize("on_invalid", ["fail", "skip"])
@given(
    dialect=dialects,
    written=dialects,
    column_map=st.sampled_from(
        [None, {"id": "id"}, {"Id": "id"}, {"id": "Id"}, {"email": "id", "first_name": "extras.x"}]
    ),
    data=st.data(),
)
def test_mutated_csv_files_in_any_dialect_end_in_this_packages_errors_only_and_lose_no_row(
    running_sandbox, folder, on_invalid, dialect, written, column_map, data
):
    try:
        Dialect.of(dialect)
    except BubblehousePermanentError:
        assume(False)
    delimiter, quote = written.get("delimiter", ","), written.get("quote_char") or ""
    lines = [NAMES, *([row["id"], row["email"], "J"] for row in ROWS)]
    text = "".join(delimiter.join(quote + cell + quote for cell in line) + "\n" for line in lines)
    content = text.encode(written.get("encoding", "utf-8"), "ignore")
    path = folder / "a.csv"
    path.write_bytes(data.draw(mutated(content) | st.just(content)))
    check_outcome(running_sandbox, folder, path=path, csv=dialect, column_map=column_map, on_invalid=on_invalid)


BOXED = [
    {"key": number, "box": {"mail": f"{SENTINEL}{number}@example.com", "born": born, "in": {"at": at, "tags": tags}}}
    for number, (born, at, tags) in enumerate(
        [
            ("31.01.1990", "1579084200", "a,b"),
            ("1.2.1985", "1579084200.5", "vip"),
            ("NULL", "x", ""),
            (None, None, None),
        ]
    )
]
BOXED_FILES = {
    "jsonl": "".join(json.dumps(row) + "\n" for row in BOXED).encode(),
    "json": json.dumps(BOXED).encode(),
    "csv": b"key;box\n" + "".join(f"{row['key']};{json.dumps(row['box'])}\n" for row in BOXED).encode(),
    "parquet": parquet_of(BOXED),
}
BOX_MAP = {
    "key": "id", "box.mail": "email", "box.born": "birthday", "box.in.at": "signed_up_at", "box.in.tags": "tags",
    "box.in": "extras.inner",
}  # fmt: skip
box_formats = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from(["verbatim", {"0": None}, {"1": "2", "0": None}]),
        "birthday": st.sampled_from(["%d.%m.%Y", "%d.%m.", "epoch", "%d.%m.%y", {"NULL": None}]),
        "signed_up_at": st.sampled_from(["epoch", "epoch_ms", "%Y%m%d %H:%M %z", {"x": None}]),
        "tags": st.sampled_from([",", "|", {"vip": ["vip", "gold"]}]),
        "extras.inner": st.sampled_from(["json", "number"]),
    },
)


@pytest.mark.parametrize("on_invalid", ["fail", "skip"])
@pytest.mark.parametrize("file_format", BOXED_FILES)
@given(formats=box_formats, data=st.data())
def test_mutated_files_with_formats_and_objects_end_in_this_packages_errors_only_and_lose_no_row(
    running_sandbox, folder, file_format, on_invalid, formats, data
):
    path = folder / f"boxed.{file_format}"
    content = BOXED_FILES[file_format]
    path.write_bytes(data.draw(mutated(content) | st.just(content)))
    csv = {"delimiter": ";", "quote_char": None} if file_format == "csv" else None
    check_outcome(
        running_sandbox, folder, path=path, csv=csv, column_map=BOX_MAP, formats=formats, on_invalid=on_invalid
    )


no_customer = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists)


@given(st.lists(no_customer, max_size=4))
def test_a_list_of_anything_ends_in_this_packages_errors_only(running_sandbox, folder, rows):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_BUBBLEHOUSE_DEFAULT", running_sandbox.connection())
        operator = UpdateCustomersOperator(
            task_id="push", customers=rows, on_invalid="skip", rejected_path=folder / "rejected"
        )
        if not rows:
            assert operator.execute({})["read"] == 0
            return
        with pytest.raises(BubblehousePermanentError, match="invalid, so nothing was sent") as caught:
            operator.execute({})
    assert (caught.value.summary["read"], caught.value.summary["invalid"]) == (len(rows), len(rows))
