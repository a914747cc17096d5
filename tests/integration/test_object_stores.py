"""A push from and to S3: what its faults become, what identifies an object, and its cost in requests and memory."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from object_store import ANONYMOUS_CONNECTION

from airflow_provider_bubblehouse.api.client import Client
from airflow_provider_bubblehouse.exceptions import (
    BubblehousePermanentError,
    BubblehouseRejectedError,
    BubblehouseTransientError,
)
from airflow_provider_bubblehouse.operators.customers import UpdateCustomersOperator
from airflow_provider_bubblehouse.sources import files, stored

KIB = 1024


class StateStore:
    """Keeps what Airflow's task state store would, as JSON."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def get(self, key):
        return json.loads(self.values.get(key, "null"))

    def set(self, key, value):
        self.values[key] = json.dumps(value)

    def delete(self, key):
        self.values.pop(key, None)


class TaskInstance:
    dag_id, run_id, task_id, map_index, try_number, max_tries = (
        "dag",
        "manual__2026-01-31T00:00:00+00:00",
        "push",
        0,
        1,
        3,
    )


def update(state_store=None, **kwargs) -> dict:
    context = {"ti": TaskInstance()} | ({} if state_store is None else {"task_state_store": state_store})
    return UpdateCustomersOperator(task_id="push", **kwargs).execute(context)


def failed(kind, said: str, **kwargs) -> dict:
    """Push, see it fail with this kind of error and these words, and return its summary."""
    with pytest.raises(kind, match=said) as caught:
        update(**kwargs)
    assert isinstance(caught.value, kind)
    assert "object-store-secret" not in str(caught.value)
    summary = caught.value.summary
    assert summary["read"] == sum(summary[name] for name in ("invalid", "accepted", "rejected", "unsent"))
    return summary


def lines(count: int, *, first: int = 1, size: int = 10) -> bytes:
    return b"".join(
        json.dumps({"id": str(number), "first_name": "x" * size}).encode() + b"\n"
        for number in range(first, first + count)
    )


def once_at_the_first_call(monkeypatch, change) -> None:
    """Have something happen to the store while the first batch is sent."""
    call, happened = Client.call, []

    def change_and_call(*args, **kwargs):
        if not happened:
            happened.append(change())
        return call(*args, **kwargs)

    monkeypatch.setattr(Client, "call", change_and_call)


@pytest.fixture
def small_steps(monkeypatch):
    """Read an object of some MiB in many requests, and not far ahead of the calls."""
    monkeypatch.setattr(stored, "READ_AHEAD", 16 * KIB)
    monkeypatch.setattr(files, "_CHUNKS_AHEAD", 1)
    monkeypatch.setattr("airflow_provider_bubblehouse.formats.parquet.CHUNK_ROWS", 100)


# Faults of the store


@pytest.mark.parametrize("key", ["a.jsonl", "*.jsonl", "folder/*/*.jsonl", "**/a.jsonl"])
@pytest.mark.parametrize("fault", ["outage", "forbidden", "no credentials", "no bucket"])
def test_a_store_that_cannot_be_listed_is_an_error_that_says_why(object_store, sandbox, fault, key):
    object_store.put(key.replace("**/", "").replace("*", "a"), lines(1))
    buckets = object_store.buckets()
    shown = rf"^s3://{object_store.bucket}/{key} cannot be listed ".replace("*", r"\*")
    if fault == "outage":
        with object_store.outage():
            kind, said = BubblehouseTransientError, shown + r"\(EndpointConnectionError\): the store is unavailable"
            summary = failed(kind, said, path=object_store.url(key))
    elif fault == "forbidden":
        with object_store.forbidden():
            summary = failed(
                BubblehousePermanentError, shown + r"\(403.*\): access is denied", path=object_store.url(key)
            )
    elif fault == "no credentials":
        path = object_store.url(key, connection=ANONYMOUS_CONNECTION)
        summary = failed(BubblehousePermanentError, shown + r"\(403.*\): access is denied; .*credentials", path=path)
    else:
        path = object_store.url(key, bucket="tpyo")
        summary = failed(BubblehousePermanentError, r"^s3://tpyo/.*\(404 NoSuchBucket\): there is no such", path=path)
    assert summary["read"] == 0
    assert sandbox.calls == []
    assert object_store.buckets() == buckets


def test_a_folder_that_cannot_be_listed_is_not_left_out(object_store, sandbox, monkeypatch):
    from s3fs import S3FileSystem

    for folder in ("day-1", "day-2"):
        object_store.put(f"{folder}/a.jsonl", lines(1))
    lsdir = S3FileSystem._lsdir

    async def lsdir_unless_overloaded(self, path, *args, **kwargs):
        if path.endswith("day-2"):
            raise OSError(errno.EBUSY, "Please reduce your request rate.")
        return await lsdir(self, path, *args, **kwargs)

    monkeypatch.setattr(S3FileSystem, "_lsdir", lsdir_unless_overloaded)
    failed(BubblehouseTransientError, r"cannot be listed \(OSError EBUSY\)", path=object_store.url("*/*.jsonl"))
    assert sandbox.calls == []


@pytest.mark.parametrize("on_invalid", ["skip", "fail"])
@pytest.mark.parametrize("key", ["a.jsonl", "a.csv", "a.jsonl.gz", "a.json", "a.parquet"])
def test_an_outage_while_reading_is_transient_and_the_error_has_the_summary(
    object_store, sandbox, monkeypatch, small_steps, on_invalid, key
):
    object_store.put(key, content(key, 3000, size=500))
    once_at_the_first_call(monkeypatch, object_store.stop)
    said = rf"^s3://{object_store.bucket}/{key} cannot be read \(\w+\): the store is unavailable"
    summary = failed(BubblehouseTransientError, said, path=object_store.url(key), batch_size=10, on_invalid=on_invalid)
    assert 0 < summary["accepted"] < 3000


def content(key: str, count: int, *, size: int, first: int = 1) -> bytes:
    """Return rows in the format that the suffix says, so different that no compression makes them small."""
    import gzip
    import io
    import random

    chosen = random.Random(first)
    rows = [
        {"id": str(number), "first_name": chosen.randbytes(size // 2).hex()} for number in range(first, first + count)
    ]
    jsonl = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    if key.endswith(".csv"):
        return b"id,first_name\n" + b"".join(f"{row['id']},{row['first_name']}\n".encode() for row in rows)
    if key.endswith(".json"):
        return json.dumps(rows).encode()
    if key.endswith(".parquet"):
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), buffer := io.BytesIO(), row_group_size=100)
        return buffer.getvalue()
    return gzip.compress(jsonl, 1) if key.endswith(".gz") else jsonl


@pytest.mark.parametrize("key", ["a.jsonl", "a.parquet"])
def test_access_denied_while_reading_is_permanent(object_store, sandbox, monkeypatch, small_steps, key):
    object_store.put(key, content(key, 3000, size=500))
    withdrawn = object_store.forbidden("GET")
    once_at_the_first_call(monkeypatch, withdrawn.__enter__)
    said = rf"^s3://{object_store.bucket}/{key} cannot be read \(403 AccessDenied\): access is denied"
    summary = failed(BubblehousePermanentError, said, path=object_store.url(key), batch_size=10, on_invalid="skip")
    assert 0 < summary["accepted"] < 3000


@pytest.mark.parametrize("on_invalid", ["skip", "fail"])
@pytest.mark.parametrize("key", ["a.jsonl", "a.csv", "a.jsonl.gz", "a.json", "a.parquet"])
@pytest.mark.parametrize("how", ["replaced", "shortened", "deleted"])
def test_an_object_that_changes_while_being_read_is_a_permanent_error_and_no_row_is_sent(
    object_store, sandbox, monkeypatch, small_steps, how, key, on_invalid
):
    object_store.put(key, content(key, 3000, size=500))

    def change() -> None:
        if how == "deleted":
            object_store.delete(key)
        else:
            count = 3000 if how == "replaced" else 10
            object_store.put(key, content(key, count, size=500, first=5001))

    once_at_the_first_call(monkeypatch, change)
    path = object_store.url(key)
    summary = failed(
        BubblehousePermanentError, "changed while being read", path=path, batch_size=10, on_invalid=on_invalid
    )
    assert 0 < summary["accepted"] < 3000
    assert all(int(customer["id"]) <= 3000 for call in sandbox.calls for customer in call.customers)


@pytest.mark.parametrize("on_invalid", ["skip", "fail"])
@pytest.mark.parametrize("how", ["replaced", "deleted"])
@pytest.mark.parametrize("key", ["1.jsonl", "2.jsonl", "3.jsonl"])
def test_an_object_that_is_changed_after_or_before_it_is_read_is_a_permanent_error(
    object_store, sandbox, monkeypatch, on_invalid, how, key
):
    monkeypatch.setattr(files, "_CHUNKS_AHEAD", 1)
    monkeypatch.setattr("airflow_provider_bubblehouse.formats.parquet.CHUNK_ROWS", 100)
    for number in (1, 2, 3):
        object_store.put(f"{number}.jsonl", lines(20, first=number * 100))
    change = {
        "replaced": lambda: object_store.put(key, lines(20, first=5001)),
        "deleted": lambda: object_store.delete(key),
    }
    once_at_the_first_call(monkeypatch, change[how])
    path = object_store.url("*.jsonl")
    failed(BubblehousePermanentError, "changed while being read", path=path, batch_size=10, on_invalid=on_invalid)


# Rejected rows in the store


@pytest.mark.parametrize("fault", ["outage", "forbidden", "no credentials", "no bucket"])
def test_a_store_that_refuses_rejected_rows_is_an_error_and_no_bucket_is_created(object_store, sandbox, fault):
    buckets = object_store.buckets()
    rows = [{"id": "1"}, {"first_name": "nobody"}]
    options = {"customers": rows, "on_invalid": "skip", "rejected_path": object_store.url("rejected")}
    shown = rf"^s3://object_store@{object_store.bucket}/rejected/dag/manual.*/push/0/2\.jsonl cannot be written "
    if fault == "outage":
        with object_store.outage():
            kind, said = BubblehouseTransientError, shown + r"\(EndpointConnectionError\): the store is unavailable"
            summary = failed(kind, said, **options)
    elif fault == "forbidden":
        with object_store.forbidden("PUT"):
            summary = failed(
                BubblehousePermanentError, shown + r"\(403 AccessDenied\): .* check rejected_path", **options
            )
    elif fault == "no credentials":
        options["rejected_path"] = object_store.url("rejected", connection=ANONYMOUS_CONNECTION)
        summary = failed(
            BubblehousePermanentError, r"cannot be written \(403 AccessDenied\): access is denied", **options
        )
    else:
        options["rejected_path"] = object_store.url("rejected", bucket="tpyo")
        summary = failed(
            BubblehousePermanentError, r"cannot be written \(404 NoSuchBucket\): there is no such", **options
        )
    assert (summary["invalid"], summary["rejected_path"]) == (1, None)
    assert object_store.buckets() == buckets
    assert object_store.keys() == []


@pytest.mark.parametrize("where", ["object store", "plain path", "local URL"])
def test_the_rejected_path_of_the_summary_is_taken_as_a_path(object_store, sandbox, tmp_path, where):
    base = {
        "object store": object_store.url("rejected"),
        "plain path": str(tmp_path),
        "local URL": f"file://{tmp_path}/",
    }[where]
    rows = [{"id": "1", "extras": {"version": number}} for number in range(12)]
    sandbox.script(*["400"] * 12)
    with pytest.raises(BubblehouseRejectedError) as caught:
        update(customers=rows, rejected_path=base, on_rejected="continue", batch_size=1)
    again = caught.value.summary["rejected_path"]
    folder = "dag/manual__2026-01-31T00:00:00+00:00/push/0"
    assert again == (f"{object_store.url('rejected')}/{folder}" if where == "object store" else f"{tmp_path}/{folder}")
    assert again in str(caught.value)
    sandbox.clear()
    assert update(path=again, file_format="rejected")["accepted"] == 12
    assert [customer for call in sandbox.calls for customer in call.customers] == rows  # the last one has the last word


# What identifies an object


@pytest.mark.parametrize("key", ["a.jsonl", "*.jsonl"])
@pytest.mark.parametrize("how", ["left alone", "written again", "replaced"])
def test_progress_belongs_to_the_objects_content(object_store, sandbox, no_waits, key, how):
    object_store.put("a.jsonl", lines(100))
    options = {"path": object_store.url(key), "batch_size": 10, "max_attempts": 1}
    sandbox.script("ok", "503")
    state_store = StateStore()
    with pytest.raises(BubblehouseTransientError):
        update(state_store, **options)
    if how != "left alone":
        object_store.put("a.jsonl", lines(100, first=1 if how == "written again" else 101))
    assert update(state_store, **options)["resumed_at"] == (0 if how == "replaced" else 10)


def test_the_cache_of_the_library_does_not_hide_a_change(object_store):
    object_store.put("a.jsonl", lines(1))
    for number, key in enumerate(("a.jsonl", "*.jsonl"), 2):
        operator = UpdateCustomersOperator(task_id="push", path=object_store.url(key), dry_run=True)
        source = operator._prepare({}).source
        version = source.version()
        source._filesystem.ls(object_store.bucket)
        object_store.put("a.jsonl", lines(1, first=number))
        assert source.version() != version


# Requests, memory, and a store that is slow


@pytest.mark.parametrize(("on_invalid", "passes"), [("skip", 1), ("fail", 2)])
@pytest.mark.parametrize("pattern", ["shards/*.jsonl", "shards/s*.jsonl", "*/*.jsonl", "**/*.jsonl"])
def test_each_object_of_a_glob_takes_one_request_a_pass(object_store, sandbox, on_invalid, passes, pattern):
    for number in range(40):
        object_store.put(f"shards/s{number}.jsonl", lines(3, first=number * 3 + 1))
    object_store.clear_requests()
    assert update(path=object_store.url(pattern), on_invalid=on_invalid)["accepted"] == 120
    counts = object_store.counts()
    assert counts["GET"] == 40 * passes
    assert counts["HEAD"] + counts["LIST"] <= 20  # of the listings, whatever the number of objects


def test_one_object_needs_no_listing(object_store, sandbox):
    object_store.put("a.jsonl", lines(10))
    object_store.clear_requests()
    update(path=object_store.url("a.jsonl"), on_invalid="skip")
    assert object_store.counts() == {"HEAD": 3, "GET": 1}


_MEASURE = """
    import re, sys
    from pathlib import Path
    from airflow_provider_bubblehouse.operators.customers import UpdateCustomersOperator

    def push(path):
        operator = UpdateCustomersOperator(task_id="push", path=path, dry_run=True, on_invalid="skip")
        return operator.execute({})["read"]

    def memory(name):
        return int(re.search(rf"{name}:\\\\s+(\\\\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024

    push(sys.argv[1])
    Path("/proc/self/clear_refs").write_text("5")
    before, rows = memory("VmRSS"), push(sys.argv[2])
    print("grown by", memory("VmHWM") - before, "for", rows)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="memory is measured as Linux counts it")
def test_memory_does_not_grow_with_the_size_of_an_object(object_store):
    object_store.put("few.jsonl", lines(10))
    object_store.put("many.jsonl", lines(60_000, size=1000))
    urls = [object_store.url(f"{name}.jsonl") for name in ("few", "many")]
    command = [sys.executable, "-c", textwrap.dedent(_MEASURE).replace("\\\\", "\\"), *urls]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    said = done.stdout.splitlines()[-1].split()
    assert said[-1] == "60000"
    assert int(said[2]) <= 48, said


def test_a_store_that_hangs_does_not_keep_the_push_from_stopping(object_store, sandbox, monkeypatch):
    from s3fs.core import S3File

    for number in (1, 2):
        object_store.put(f"{number}.jsonl", lines(20, first=number * 100))
    fetch, hang, asked = S3File._fetch_range, threading.Event(), threading.Event()

    def fetch_or_hang(self, *args):
        if self.path.endswith("2.jsonl"):
            asked.set()
            hang.wait(60)
        return fetch(self, *args)

    monkeypatch.setattr(S3File, "_fetch_range", fetch_or_hang)
    operator = UpdateCustomersOperator(
        task_id="push", path=object_store.url("*.jsonl"), batch_size=10, on_invalid="skip"
    )
    stopped_at: list[float] = []

    def stop_when_it_hangs() -> None:
        assert asked.wait(60)
        while not sandbox.calls:  # of the rows that were read before
            time.sleep(0.01)
        stopped_at.append(time.monotonic())
        operator.on_kill()

    stopper = threading.Thread(target=stop_when_it_hangs)
    stopper.start()
    with pytest.raises(BubblehouseTransientError, match="told to stop") as caught:
        operator.execute({})
    ended_at = time.monotonic()
    hang.set()
    stopper.join()
    assert ended_at - stopped_at[0] < 4.5  # after 5 s Airflow kills the process
    assert caught.value.summary["accepted"] == 10


@pytest.mark.parametrize("listings", [0, 1, 2, 3])  # at the start there are two, and one after each pass
def test_a_listing_that_hangs_does_not_keep_the_push_from_stopping(object_store, sandbox, monkeypatch, listings):
    object_store.put("a.jsonl", lines(20))
    hang, listed, list_files = threading.Event(), [], files.list_files
    operator = UpdateCustomersOperator(task_id="push", path=object_store.url("*.jsonl"))

    def list_or_hang(*args, **kwargs):
        if len(listed) == listings:
            operator.on_kill()
            hang.wait(60)
        listed.append(1)
        return list_files(*args, **kwargs)

    monkeypatch.setattr(files, "list_files", list_or_hang)
    began = time.monotonic()
    with pytest.raises(BubblehouseTransientError, match="told to stop") as caught:
        operator.execute({})
    hang.set()
    assert time.monotonic() - began < 20
    assert caught.value.summary["accepted"] == (20 if listings == 3 else 0)


def test_progress_is_saved_while_the_store_hangs(object_store, sandbox, monkeypatch):
    from s3fs.core import S3File

    for number in (1, 2):
        object_store.put(f"{number}.jsonl", lines(20, first=number * 100))
    fetch, saved = S3File._fetch_range, threading.Event()

    class Watched(StateStore):
        def set(self, key, value):
            super().set(key, value)
            saved.set()

    def fetch_once_saved(self, *args):
        if self.path.endswith("2.jsonl"):
            assert saved.wait(60)
        return fetch(self, *args)

    monkeypatch.setattr(S3File, "_fetch_range", fetch_once_saved)
    summary = update(Watched(), path=object_store.url("*.jsonl"), batch_size=10, on_invalid="skip")
    assert summary["accepted"] == 40
