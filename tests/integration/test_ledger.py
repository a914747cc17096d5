"""Changes only: a push with a ledger sends what has changed, and the ledger never claims what is not so."""

from __future__ import annotations

import itertools
import json
import random
import sqlite3
from contextlib import closing, suppress
from hashlib import blake2b
from typing import TYPE_CHECKING

import pytest
from pushes import Store, people, sent, summed, write_lines

from airflow_provider_bubblehouse.errors import BubblehouseError, PermanentError
from airflow_provider_bubblehouse.exceptions import (
    BubblehousePermanentError,
    BubblehouseRejectedError,
    BubblehouseTransientError,
)
from airflow_provider_bubblehouse.ledger.changes import Changes
from airflow_provider_bubblehouse.ledger.entries import FORMAT, Entries, hashes_of, is_whole
from airflow_provider_bubblehouse.ledger.folder import LedgerFolder, LedgerTakenError
from airflow_provider_bubblehouse.operators.customers import DeleteCustomersOperator, UpdateCustomersOperator
from airflow_provider_bubblehouse.push.rejected import RejectedRows

if TYPE_CHECKING:
    from pathlib import Path

TODAY = 20_000
DAYS = 30


def local(folder: Path) -> LedgerFolder:
    from fsspec.implementations.local import LocalFileSystem

    return LedgerFolder(LocalFileSystem(), str(folder))


def prepared(
    folder: LedgerFolder, *, store=None, today: int = TODAY, run: str = "run", kind=UpdateCustomersOperator, **options
):
    """Return a push with a ledger on a day, as the operator makes it of its ledger_path."""
    operator = kind(task_id="push", batch_size=options.pop("batch_size", 10), **options)
    push = operator._prepare({} if store is None else {"task_state_store": store})
    push.changes = push._loop._changes = Changes(folder, days=DAYS, today=today, deletes=kind.deletes, run=run)
    return push


def push(folder: LedgerFolder, **options) -> dict:
    return summed(prepared(folder, **options).run())


def pushing_fails(error, folder: LedgerFolder, **options) -> dict:
    with pytest.raises(error) as caught:
        prepared(folder, **options).run()
    return summed(caught.value.summary)


@pytest.fixture
def folder(tmp_path) -> LedgerFolder:
    return local(tmp_path / "ledger")


@pytest.fixture(params=["local", "s3", "memory", "a store that knows no exclusive creation"])
def any_folder(request, tmp_path) -> LedgerFolder:
    if request.param == "local":
        return local(tmp_path / "ledger")
    if request.param != "s3":
        from fsspec.implementations.memory import MemoryFileSystem

        class Plain(MemoryFileSystem):
            def put_file(self, lpath, rpath, **kwargs):
                super().put_file(lpath, rpath)

        return LedgerFolder((MemoryFileSystem if request.param == "memory" else Plain)(), str(tmp_path / "ledger"))
    from airflow_provider_bubblehouse.airflow_compat import ObjectStoragePath

    location = ObjectStoragePath(request.getfixturevalue("object_store").url("ledger"))
    return LedgerFolder(location.fs, location.path)


def stored(folder: LedgerFolder, tmp_path) -> dict[int, int]:
    """Return the entries of the newest ledger."""
    import sqlite3
    from uuid import uuid4

    copy = tmp_path / uuid4().hex
    folder.download(folder.numbers()[-1], copy)
    return dict(sqlite3.connect(copy).execute("SELECT identity, customer FROM entries").fetchall())


# What is sent


@pytest.mark.parametrize("in_flight", [1, 8])
@pytest.mark.parametrize("source", ["list", "jsonl", "csv"])
def test_the_first_push_sends_all_rows_and_later_ones_only_the_changed_rows(
    sandbox, any_folder, tmp_path, in_flight, source
):
    folder = any_folder

    def given(rows):
        if source == "list":
            return {"customers": rows}
        if source == "jsonl":
            return {"path": write_lines(tmp_path / "a.jsonl", rows)}
        (tmp_path / "a.csv").write_text(
            "id,first_name\n" + "".join(f"{row['id']},{row['first_name']}\n" for row in rows)
        )
        return {"path": tmp_path / "a.csv"}

    rows = people(200)
    first = push(folder, in_flight=in_flight, **given(rows))
    assert (first["accepted"], first["unchanged"]) == (200, 0)
    calls = len(sandbox.calls)
    second = push(folder, in_flight=in_flight, **given(rows))
    assert (second["accepted"], second["unchanged"], second["calls"]) == (0, 200, 0)
    assert len(sandbox.calls) == calls
    rows[7]["first_name"] = "new"
    third = push(folder, in_flight=in_flight, **given([*rows, {"id": "201", "first_name": "added"}]))
    assert (third["accepted"], third["unchanged"], third["calls"]) == (2, 199, len(sandbox.calls) - calls)
    assert {customer["id"] for call in sandbox.calls[calls:] for customer in call.customers} == {"8", "201"}


def test_a_value_that_changes_back_is_sent_again(sandbox, folder):
    for name in ("a", "b", "a"):
        push(folder, customers=[{"id": "1", "first_name": name}])
    assert sandbox.customers()[0]["first_name"] == "a"
    assert len(sandbox.calls) == 3


def test_of_a_customer_in_several_rows_the_last_one_wins(sandbox, folder):
    a, b = ({"id": "1", "first_name": name} for name in "ab")
    push(folder, customers=[*people(30), b])
    summary = push(folder, customers=[*people(30), a, b])
    assert {customer["id"]: customer for customer in sandbox.customers()}["1"] == b
    assert summary["unchanged"] == 29


@pytest.mark.parametrize("fault", ["reset,processed", "503,processed", "400"])
def test_an_accepted_row_is_forgotten_once_a_later_row_of_its_customer_is_sent(
    sandbox, folder, no_waits, monkeypatch, fault
):
    monkeypatch.setattr("airflow_provider_bubblehouse.sources.records.CHUNK_ROWS", 5)
    a, b = ({"id": "1", "first_name": name} for name in "ab")
    sandbox.script(*["ok"] * 6, fault)
    with pytest.raises(BubblehouseError):
        push(folder, customers=[a, *people(29, first=2), b], batch_size=5, max_attempts=1)
    push(folder, customers=[a, *people(29, first=2)])
    assert {customer["id"]: customer for customer in sandbox.customers()}["1"] == a


def test_emails_are_one_customer_in_any_case(sandbox, folder):
    push(folder, customers=[{"email": "A@Example.com", "first_name": "x"}])
    summary = push(folder, customers=[{"email": "a@example.com", "first_name": "x"}])
    assert summary["accepted"] == 1  # the text has changed
    assert push(folder, customers=[{"email": "a@example.com", "first_name": "x"}])["unchanged"] == 1


@pytest.mark.parametrize("kind", [UpdateCustomersOperator, DeleteCustomersOperator])
def test_a_source_that_names_some_customers_by_id_and_some_by_email_is_refused(sandbox, folder, kind):
    options = {"max_customers": 100} if kind is DeleteCustomersOperator else {}
    rows = [*people(20), {"id": "", "email": "a@example.com"}]
    summary = pushing_fails(BubblehousePermanentError, folder, kind=kind, customers=rows, **options)
    assert (summary["unsent"], sandbox.calls, folder.pending()) == (21, [], [])
    assert push(folder, kind=kind, customers=rows[20:], **options)["accepted"] == 1


@pytest.mark.parametrize("source", ["jsonl", "mapped jsonl", "csv", "typed list", "query"])
def test_the_ledger_knows_a_customer_whatever_its_source(
    sandbox, folder, tmp_path, chinook_database, monkeypatch, source
):
    (tmp_path / "a.csv").write_text("id,optin\n1,yes\n2,no\n")
    (tmp_path / "a.jsonl").write_text('{"optin": true, "id": 1}\n{"id":"2",  "optin":false}\n')
    database = {"conn_type": "sqlite", "host": chinook_database}
    monkeypatch.setenv("AIRFLOW_CONN_CHINOOK", json.dumps(database))
    query = "SELECT CustomerId AS id, CustomerId % 2 AS optin FROM Customer WHERE CustomerId IN ('1', '2') ORDER BY 1"
    given = {
        "jsonl": {"path": tmp_path / "a.jsonl"},
        "mapped jsonl": {"path": tmp_path / "a.jsonl", "column_map": {"id": "id", "optin": "optin"}},
        "csv": {"path": tmp_path / "a.csv"},
        "typed list": {"customers": [{"id": 1, "optin": True}, {"optin": "No", "id": 2}]},
        "query": {"sql": query, "sql_conn_id": "chinook"},
    }[source]
    assert push(folder, customers=[{"id": "1", "optin": True}, {"id": "2", "optin": False}])["accepted"] == 2
    assert push(folder, **given)["unchanged"] == 2


def test_a_deletion_removes_the_entry_so_that_a_return_is_sent(sandbox, folder):
    rows = people(3)
    push(folder, customers=rows)
    deleted = push(folder, kind=DeleteCustomersOperator, max_customers=3, customers=[{"id": "2"}])
    assert (deleted["accepted"], deleted["unchanged"]) == (1, 0)
    assert push(folder, customers=rows)["accepted"] == 1


def test_a_rejected_batch_has_no_entry(sandbox, folder, tmp_path):
    sandbox.script("ok", "400")
    pushing_fails(BubblehouseRejectedError, folder, customers=people(30), on_rejected="continue")
    accepted = hashes_of(str(number).encode() for number in [*range(1, 11), *range(21, 31)])
    assert set(accepted) == set(stored(folder, tmp_path))
    assert push(folder, customers=people(30))["accepted"] == 10


def test_invalid_rows_are_counted_and_sent_when_they_are_fixed(sandbox, folder):
    rows = [*people(5), {"first_name": "nobody"}]
    summary = push(folder, customers=rows, on_invalid="skip")
    assert (summary["invalid"], summary["accepted"]) == (1, 5)
    summary = push(folder, customers=[*people(5), {"id": "6"}], on_invalid="skip")
    assert (summary["unchanged"], summary["accepted"]) == (5, 1)


# Old entries


@pytest.mark.parametrize(("later", "sends"), [(0, 0), (DAYS // 2 - 1, 0), (DAYS + 1, 200), (-1, 200)])
def test_entries_expire_and_entries_from_the_future_are_ignored(sandbox, folder, later, sends):
    push(folder, customers=people(200))
    assert push(folder, customers=people(200), today=TODAY + later)["accepted"] == sends


def test_entries_of_one_day_do_not_all_end_on_one_day(tmp_path):
    keys = hashes_of(str(number).encode() for number in range(10_000))
    Entries(tmp_path / "a", today=TODAY, days=DAYS).write((key, 0) for key in keys)
    left = []
    for later in range(DAYS + 2):
        copied = tmp_path / str(later)
        copied.write_bytes((tmp_path / "a").read_bytes())
        left.append(sum(Entries(copied, today=TODAY + later, days=DAYS).find_unchanged(keys, [0] * len(keys))))
    assert left[: DAYS // 2 + 1] == [10_000] * (DAYS // 2 + 1)
    assert left[DAYS + 1] == 0
    assert max(before - after for before, after in itertools.pairwise(left)) < 1000


def test_unchanged_does_not_renew_an_entry(sandbox, folder):
    for day in range(0, DAYS + 1, 5):
        push(folder, customers=people(20), today=TODAY + day)
    assert push(folder, customers=people(20), today=TODAY + DAYS + 1)["accepted"] + len(sent(sandbox)) > 20


# Pending files


def test_trust_is_withdrawn_before_the_first_call(sandbox, folder, tmp_path, no_waits):
    push(folder, customers=people(30))
    changed = [{"id": "1", "first_name": "new"}, *people(30)[1:]]
    running = prepared(folder, customers=changed, max_attempts=1)
    seen = []
    upload_pending = folder.upload_pending
    folder.upload_pending = lambda *args, **kwargs: seen.append(len(sandbox.calls)) or upload_pending(*args, **kwargs)
    running.run()
    assert seen == [3]


@pytest.mark.parametrize("how", ["killed", "reset after it was processed"])
def test_after_a_push_that_ended_halfway_its_customers_are_sent_again(sandbox, folder, no_waits, how):
    rows = people(30)
    push(folder, customers=rows)
    changed = [{"id": row["id"], "first_name": "new"} for row in rows]
    running = prepared(folder, customers=changed, max_attempts=1)
    if how == "killed":  # nothing after the calls happens
        running.changes.upload = lambda: None
        running.run()
    else:
        sandbox.script("reset,processed")
        with pytest.raises(BubblehouseTransientError):
            running.run()
    push(folder, customers=rows)  # the old values are back
    assert {customer["first_name"] for customer in sandbox.customers()} == {row["first_name"] for row in rows}
    assert {c["id"]: c["first_name"] for c in sandbox.customers()} == {r["id"]: r["first_name"] for r in rows}
    assert folder.pending() == []


def label_of(number: int, run: str) -> str:
    return f"{number:08}-{blake2b(run.encode(), digest_size=8).hexdigest()}"


def test_a_push_deletes_the_pending_files_of_pushes_that_have_ended_and_no_other(sandbox, any_folder, tmp_path):
    folder = any_folder
    push(folder, customers=people(3))
    (tmp_path / "keys").write_bytes(b"")
    ended = [label_of(0, "another run"), label_of(1, "this run"), label_of(7, "before the ledgers were deleted")]
    for label in ended:
        folder.upload_pending(tmp_path / "keys", label=label)
    may_be_running = folder.upload_pending(tmp_path / "keys", label=label_of(1, "another run"))
    running = prepared(folder, run="this run", customers=people(5))
    begin, begun_meanwhile = running.changes.begin, []

    def another_push_begins_too():
        begin()
        begun_meanwhile.append(folder.upload_pending(tmp_path / "keys", label=label_of(0, "begun meanwhile")))

    running.changes.begin = another_push_begins_too
    running.run()
    assert folder.pending() == sorted([may_be_running, *begun_meanwhile])


def test_a_push_that_is_killed_after_another_one_has_stored_its_ledger_leaves_no_claim(sandbox, any_folder):
    folder = any_folder
    push(folder, customers=people(10))
    slow = prepared(folder, run="slow", customers=[{**row, "first_name": "slow"} for row in people(10)])
    slow.changes.upload = lambda: None  # killed
    overlapping(slow, prepared(folder, run="another", customers=[*people(10), {"id": "11"}])).run()
    assert {customer["first_name"] for customer in sandbox.customers() if customer["id"] != "11"} == {"slow"}
    assert push(folder, run="next", customers=people(10))["accepted"] == 10
    assert sandbox.customers()[:10] == people(10)
    assert folder.pending() == []


def test_a_push_that_sends_nothing_writes_nothing(sandbox, folder):
    push(folder, customers=people(3))
    before = folder.numbers()
    push(folder, customers=people(3))
    assert (folder.numbers(), folder.pending()) == (before, [])


def test_two_ledgers_are_left(sandbox, any_folder):
    folder = any_folder
    for number in range(1, 6):
        push(folder, customers=[{"id": str(number)}])
    assert folder.numbers() == [4, 5]


# Two writers, faults of the store


def test_of_two_pushes_at_once_the_later_one_fails_and_can_be_retried(sandbox, any_folder):
    folder = any_folder
    push(folder, customers=people(10))
    slow = prepared(folder, customers=[{"id": "1", "first_name": "slow"}, *people(10)[1:]])
    begin = slow.changes.begin
    slow.changes.begin = lambda: (begin(), push(folder, customers=[*people(10), {"id": "11"}]))
    with pytest.raises(BubblehouseTransientError, match="used the ledger"):
        slow.run()
    assert len(folder.pending()) == 1
    push(folder, customers=[{"id": "1", "first_name": "slow"}, *people(10)[1:]])
    assert {c["id"]: c for c in sandbox.customers()}["1"]["first_name"] == "slow"
    assert folder.pending() == []


@pytest.mark.parametrize("exclusive", [True, False], ids=["exclusive creation", "no exclusive creation"])
def test_a_store_that_remembers_its_listings_sees_a_ledger_that_another_push_has_stored(tmp_path, exclusive):
    from fsspec.implementations.memory import MemoryFileSystem

    class Remembering(MemoryFileSystem):
        """Answers from the last listing, as object stores do, until it has to list again."""

        listed: dict[str, list] = {}  # noqa: RUF012

        def ls(self, path, detail=True, **kwargs):
            if path not in self.listed:
                self.listed[path] = super().ls(path, detail=True, **kwargs)
            return self.listed[path]

        def exists(self, path, **kwargs):
            parent = path.rpartition("/")[0]
            names = [entry["name"] for entry in self.listed.get(parent, ())]
            return path in names if parent in self.listed else super().exists(path, **kwargs)

        def invalidate_cache(self, path=None):
            self.listed.clear()

        def put_file(self, lpath, rpath, **kwargs):
            super().put_file(lpath, rpath)

    if exclusive:
        Remembering.put_file = lambda self, lpath, rpath, mode="overwrite": MemoryFileSystem.put_file(
            self, lpath, rpath, mode=mode
        )
    folder, other = LedgerFolder(Remembering(), f"{tmp_path}/a"), LedgerFolder(MemoryFileSystem(), f"{tmp_path}/a")
    (tmp_path / "file").write_bytes(b"one")
    other.upload(1, tmp_path / "file")
    assert folder.numbers() == [1]
    other.upload(2, tmp_path / "file")
    with pytest.raises(LedgerTakenError):
        folder.upload(2, tmp_path / "file")
    folder.upload(3, tmp_path / "file")


def test_a_ledger_that_cannot_be_stored_is_a_warning_and_its_customers_are_sent_again(sandbox, any_folder, caplog):
    folder = any_folder
    running = prepared(folder, customers=people(10))

    def fails(*_args):
        raise PermanentError("s3://bucket/ledger cannot be written (403): access is denied.")

    upload = folder.upload
    folder.upload = fails
    summary = summed(running.run())
    folder.upload = upload
    assert (summary["accepted"], len(folder.pending()), folder.numbers()) == (10, 1, [])
    assert "The ledger cannot be stored" in caplog.text
    assert push(folder, customers=people(10))["accepted"] == 10
    assert folder.pending() == []


@pytest.mark.parametrize("cut", [0, 50, 4096, -1])
def test_a_damaged_ledger_is_a_warning_and_all_customers_are_sent(sandbox, folder, tmp_path, caplog, cut):
    push(folder, customers=people(500), batch_size=500)
    path = tmp_path / "ledger" / "ledger-00000001.sqlite"
    path.write_bytes(path.read_bytes()[:cut])
    assert push(folder, customers=people(500))["accepted"] == 500
    assert "damaged" in caplog.text
    assert push(folder, customers=people(500))["accepted"] == 0


@pytest.mark.parametrize("page", [1, 2, 3, -1])
def test_a_ledger_with_a_damaged_page_is_a_warning_and_all_customers_are_sent(sandbox, folder, tmp_path, caplog, page):
    push(folder, customers=people(2000), batch_size=500)
    path = tmp_path / "ledger" / "ledger-00000001.sqlite"
    content = bytearray(path.read_bytes())
    start = page % (len(content) // 4096) * 4096
    content[start : start + 600] = bytes([0x55]) * 600
    path.write_bytes(content)
    assert push(folder, customers=people(2000))["accepted"] == 2000
    assert "damaged" in caplog.text
    assert push(folder, customers=people(2000))["accepted"] == 0


def test_a_ledger_of_a_newer_version_is_refused(sandbox, folder, tmp_path):
    import sqlite3

    push(folder, customers=people(5))
    with sqlite3.connect(tmp_path / "ledger" / "ledger-00000001.sqlite") as database:
        database.execute(f"PRAGMA user_version = {FORMAT + 1}")
    pushing_fails(BubblehousePermanentError, folder, customers=people(5))
    assert len(sandbox.calls) == 1


def test_an_exported_ledger_is_whole_and_small(tmp_path):
    entries = Entries(tmp_path / "a", today=TODAY, days=DAYS)
    for start in range(0, 50_000, 500):
        entries.write((key, 0) for key in hashes_of(str(number).encode() for number in range(start, start + 500)))
    entries.export(tmp_path / "b")
    assert is_whole(tmp_path / "b")
    assert (tmp_path / "b").stat().st_size <= 40 * 50_000


# Resume


def source_of(kind: str, rows: list[dict], tmp_path, monkeypatch) -> dict:
    """Return the parameters of an operator for rows of one source; a query gets a database of its own."""
    if kind == "list":
        return {"customers": rows}
    if kind == "files":
        half = len(rows) // 2
        for name, some in (("a", rows[:half]), ("b", rows[half:])):
            write_lines(tmp_path / f"{name}.jsonl", some)
        return {"path": f"{tmp_path}/*.jsonl"}
    database = tmp_path / "shop.db"
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", json.dumps({"conn_type": "sqlite", "host": str(database)}))
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("DROP TABLE IF EXISTS customers")
        connection.execute("CREATE TABLE customers (place INTEGER, id TEXT, first_name TEXT)")
        values = [(place, row["id"], row["first_name"]) for place, row in enumerate(rows)]
        connection.executemany("INSERT INTO customers VALUES (?, ?, ?)", values)
        connection.commit()
    return {"sql": "SELECT id, first_name FROM customers ORDER BY place", "sql_conn_id": "shop"}


@pytest.mark.parametrize("source", ["list", "files", "query"])
@pytest.mark.parametrize("in_flight", [1, 8])
@pytest.mark.parametrize("stores", [True, False], ids=["the ledger is stored", "the process was killed"])
def test_a_retry_continues_and_its_counts_add_up(
    sandbox, folder, no_waits, tmp_path, monkeypatch, source, in_flight, stores
):
    rows = people(300)
    push(folder, customers=rows)
    changed = [{**row, "first_name": "new"} if int(row["id"]) % 3 == 0 else row for row in rows]
    store = Store()
    given = source_of(source, changed, tmp_path, monkeypatch)
    options = {**given, "in_flight": in_flight, "max_attempts": 1, "batch_size": 5}
    sandbox.clear()
    sandbox.script(*["ok"] * 9, "503")
    running = prepared(folder, store=store, **options)
    if not stores:
        running.changes.upload = lambda: None
    with pytest.raises(BubblehouseTransientError) as caught:
        running.run()
    first = summed(caught.value.summary)
    last = summed(prepared(folder, store=store, **options).run())
    assert (last["unsent"], last["accepted"] + last["unchanged"]) == (0, 300)
    assert last["resumed_at"] == first["accepted"] + first["unchanged"]
    accepted = [c["id"] for call in sandbox.calls if call.status == 200 for c in call.customers]
    assert set(accepted) == {row["id"] for row in changed if row["first_name"] == "new"}
    assert store.values == {}


@pytest.mark.parametrize("source", ["list", "files", "query"])
@pytest.mark.parametrize("in_flight", [1, 8])
def test_a_retry_of_a_deletion_continues_and_forgets_all_who_were_deleted(
    sandbox, folder, no_waits, tmp_path, monkeypatch, source, in_flight
):
    rows, store = people(300), Store()
    push(folder, customers=rows)
    given = source_of(source, rows[:200], tmp_path, monkeypatch)
    options = {**given, "in_flight": in_flight, "max_attempts": 1, "batch_size": 5, "max_customers": 200}
    sandbox.clear()
    sandbox.script(*["ok"] * 9, "503")
    with pytest.raises(BubblehouseTransientError) as caught:
        prepared(folder, store=store, kind=DeleteCustomersOperator, **options).run()
    first = summed(caught.value.summary)
    last = summed(prepared(folder, store=store, kind=DeleteCustomersOperator, **options).run())
    assert (last["accepted"], last["unchanged"], last["resumed_at"]) == (200, 0, first["accepted"])
    back = push(folder, customers=rows)
    assert (back["accepted"], back["unchanged"]) == (200, 100)


@pytest.mark.parametrize("source", ["list", "files", "query"])
def test_counts_add_up_with_invalid_and_rejected_rows_in_eight_lanes(sandbox, folder, tmp_path, monkeypatch, source):
    rows = people(300)
    push(folder, customers=rows)
    for row in rows[::3]:
        row["first_name"] = "new"
    rows[50]["id"] = "null"
    sandbox.script("ok", "400", "ok", "400")
    options = {"in_flight": 8, "batch_size": 5, "on_invalid": "skip", "on_rejected": "continue"}
    given = source_of(source, rows, tmp_path, monkeypatch)
    summary = pushing_fails(BubblehouseRejectedError, folder, **given, **options)
    assert (summary["read"], summary["invalid"], summary["unsent"]) == (300, 1, 0)
    assert summary["accepted"] + summary["rejected"] == 100
    assert push(folder, **given, **options)["accepted"] == summary["rejected"]


# All of it together


@pytest.mark.parametrize("seed", range(6))
def test_under_chaos_every_successful_push_leaves_the_last_value_of_every_customer(
    sandbox, tmp_path, no_waits, monkeypatch, seed
):
    """
    Many days of values that change back, rejections, resets, kills, lost uploads and a clock that is set back.

    Now and then another push with the same ledger overlaps. Which of the two comes last at the API is then chance, so
    the next push alone has to put it right.
    """
    monkeypatch.setattr("airflow_provider_bubblehouse.sources.records.CHUNK_ROWS", 5)  # rows are read as they are sent
    chosen = random.Random(seed)
    folder = local(tmp_path / "ledger")
    rows = {number: chosen.randrange(3) for number in range(1, 61)}
    truth_checked = 0
    for day in range(25):
        for number in chosen.sample(range(1, 61), 12):
            rows[number] = chosen.randrange(3)  # which changes back often
        order = [*rows.items(), *((n, chosen.randrange(3)) for n in chosen.sample(range(1, 61), 5))]
        rows |= dict(order[60:])  # later rows of the same customers
        customers = [{"id": str(number), "first_name": f"v{value}"} for number, value in order]
        sandbox.rates({"400": 0.04, "503": 0.06, "reset,processed": 0.06, "reset": 0.03}, seed=seed * 100 + day)
        store = Store()
        options = {"customers": customers, "batch_size": 7, "max_attempts": 1, "in_flight": chosen.choice([1, 4])}
        today = TODAY + day - (3 if chosen.random() < 0.1 else 0)
        for _ in range(8):
            running = prepared(folder, store=store, today=today, run=f"day {day}", **options)
            kill = chosen.random()
            if kill < 0.15:
                running.changes.upload = lambda: None  # killed before it stores the ledger
            elif kill < 0.25:
                upload = running.changes.upload
                running.changes.upload = lambda upload=upload: (_truncate_newest(tmp_path, chosen), upload())
            overlaps = chosen.random() < 0.25
            if overlaps:
                other = [
                    {"id": str(n), "first_name": f"v{chosen.randrange(3)}"} for n in chosen.sample(range(1, 61), 25)
                ]
                another = prepared(folder, today=today, run="another", customers=other, batch_size=7, max_attempts=1)
                both = [running, another]
                chosen.shuffle(both)
                running = overlapping(*both)
                store = Store()  # rows that were completed before may hold the other push's values
            try:
                summed(running.run())
            except BubblehouseError as error:
                summed(error.summary)
                if isinstance(error, BubblehouseRejectedError):
                    break
                if chosen.random() < 0.3:
                    store = Store()
                continue
            if overlaps:
                continue
            held = {customer["id"]: customer["first_name"] for customer in sandbox.customers()}
            assert held == {str(number): f"v{value}" for number, value in rows.items()}, f"day {day}"
            truth_checked += 1
            break
    assert truth_checked > 5


def overlapping(outer, inner):
    """Return the outer push, which has the inner one run between its withdrawal of trust and its first call."""
    begin = outer.changes.begin

    def begin_and_run():
        begin()
        with suppress(BubblehouseError):
            summed(inner.run())

    outer.changes.begin = begin_and_run
    return outer


def _truncate_newest(tmp_path, chosen) -> None:
    """Cut the newest ledger off, as a writer that was interrupted may leave it."""
    ledgers = sorted((tmp_path / "ledger").glob("ledger-*.sqlite"))
    if ledgers:
        data = ledgers[-1].read_bytes()
        ledgers[-1].write_bytes(data[: chosen.randrange(len(data))])


def test_no_value_of_a_customer_is_in_the_ledger(sandbox, folder, tmp_path):
    push(folder, customers=[{"id": "sentinel-1", "email": "sentinel@example.com"}])
    for file in (tmp_path / "ledger").rglob("*"):
        assert file.is_dir() or b"sentinel" not in file.read_bytes()
    assert json.dumps(folder.url)


def test_the_operator_has_a_ledger_for_each_shop(sandbox, tmp_path):
    def push(customers, kind=UpdateCustomersOperator, **options):
        return kind(task_id="push", customers=customers, ledger_path=tmp_path / "ledger", **options).execute({})

    assert push(people(3))["accepted"] == 3
    assert push(people(3))["unchanged"] == 3
    (folder,) = {file.parent for file in (tmp_path / "ledger").rglob("*.sqlite")}
    host, shop = folder.relative_to(tmp_path / "ledger").parts
    assert host.startswith("127.0.0.1")
    assert shop == sandbox.shop
    assert push([{"id": "2"}], DeleteCustomersOperator, max_customers=1)["accepted"] == 1
    assert push(people(3))["accepted"] == 1


def test_a_dry_run_leaves_the_ledger_alone(sandbox, tmp_path):
    operator = UpdateCustomersOperator(
        task_id="push", customers=people(3), ledger_path=tmp_path / "ledger", dry_run=True
    )
    assert operator.execute({})["unchanged"] == 0
    assert not (tmp_path / "ledger").exists()


def test_rejected_rows_that_an_earlier_try_could_not_write_are_written_without_the_unchanged_ones_between(
    sandbox, folder, tmp_path, monkeypatch
):
    store, rows = Store(), people(40)
    push(folder, customers=rows)
    rows[4]["first_name"] = rows[14]["first_name"] = "changed"
    options = {"store": store, "customers": rows, "rejected_path": tmp_path / "rejected"}
    sandbox.script("400")
    with monkeypatch.context() as patch:
        patch.setattr(RejectedRows, "add_rejected", interrupt)
        with pytest.raises(KeyboardInterrupt):
            prepared(folder, **options).run()
    pushing_fails(BubblehouseRejectedError, folder, **options)
    (file,) = (tmp_path / "rejected").iterdir()
    assert [json.loads(line)["row"] for line in file.read_text().splitlines()] == [5, 15]


def test_the_progress_of_a_push_that_fails_is_saved_before_the_ledger_is_stored(sandbox, folder, monkeypatch):
    store, seen = Store(), []
    failing = prepared(folder, store=store, customers=people(20), max_attempts=1)
    sandbox.script("ok", "503")
    monkeypatch.setattr(failing.changes, "upload", lambda: seen.append(store.values.get("bubblehouse_push", "")))
    with pytest.raises(BubblehouseTransientError):
        failing.run()
    assert '"accepted": 10' in seen[0]


def interrupt(*_args: object) -> None:
    raise KeyboardInterrupt
