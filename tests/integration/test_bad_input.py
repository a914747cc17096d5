"""Whatever stands in a source: an error is one of this package's, shows no value, and every row is accounted for."""

from __future__ import annotations

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, strategies as st

from airflow_provider_bubblehouse.exceptions import BubblehouseError, BubblehousePermanentError
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


@pytest.mark.parametrize("on_invalid", ["fail", "skip"])
@pytest.mark.parametrize("file_format", FILES)
@given(data=st.data())
def test_mutated_files_end_in_this_packages_errors_only_and_lose_no_row(
    running_sandbox, folder, file_format, on_invalid, data
):
    running_sandbox.clear()
    path = folder / f"a.{file_format}"
    path.write_bytes(data.draw(mutated(FILES[file_format])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_BUBBLEHOUSE_DEFAULT", running_sandbox.connection())
        operator = UpdateCustomersOperator(
            task_id="push",
            path=str(path),
            file_format=file_format,
            on_invalid=on_invalid,
            batch_size=2,
            timezone="Europe/Berlin",
            rejected_path=folder / "rejected",
        )
        summary, error = outcome(operator)
    if error is not None:
        assert SENTINEL not in str(error)
        assert error.__cause__ is None
        assert on_invalid == "skip" or running_sandbox.calls == []
    if summary is not None:  # None: the file could not even be opened
        assert summary["read"] == sum(summary[name] for name in ("accepted", "rejected", "invalid", "unsent"))
        assert summary["accepted"] == sum(call.rows for call in running_sandbox.calls)


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
