"""The push under faults: nothing is lost, nothing that is settled is sent again, and it ends when it is told to."""

from __future__ import annotations

import itertools
import json
import random
import socket
import threading
import time
from collections import defaultdict

import pytest
from airflow.exceptions import AirflowTaskTimeout

from airflow_provider_bubblehouse.exceptions import (
    BubblehousePermanentError,
    BubblehouseRateLimitError,
    BubblehouseRejectedError,
    BubblehouseTransientError,
)
from airflow_provider_bubblehouse.operators.customers import DeleteCustomersOperator, UpdateCustomersOperator
from airflow_provider_bubblehouse.push import lanes, pacing, push
from airflow_provider_bubblehouse.push.rejected import RejectedRows


class Store:
    """Keeps what Airflow's task state store would, as JSON, from one try to the next."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.sets = 0

    def get(self, key):
        return json.loads(self.values.get(key, "null"))

    def set(self, key, value):
        self.sets += 1
        self.values[key] = json.dumps(value)

    def delete(self, key):
        self.values.pop(key, None)


class FullStore(Store):
    def set(self, key, value):
        raise ConnectionError("no room")


class SilentStore(Store):
    def get(self, key):
        raise ConnectionError("no store")


class Breaking:
    """A source that breaks off after its first chunk."""

    def __init__(self, source, error: BaseException) -> None:
        self._source, self._error = source, error
        self.version, self.fingerprint, self.share_read = source.version, source.fingerprint, source.share_read

    def chunks(self):
        yield next(self._source.chunks())
        raise self._error


@pytest.fixture
def store() -> Store:
    return Store()


def update(store=None, **kwargs) -> dict:
    operator = UpdateCustomersOperator(task_id="push", **kwargs)
    return operator.execute({} if store is None else {"task_state_store": store})


class Started:
    """A push in a thread of its own, past Airflow 2's guard, which knows none but the task's."""

    def __init__(self, store=None, **kwargs) -> None:
        self._operator = UpdateCustomersOperator(task_id="push", **kwargs)
        self._operator._push = self._operator._prepare({} if store is None else {"task_state_store": store})
        self.summary: dict = {}
        self.ended_at = 0.0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with pytest.raises(BubblehouseTransientError) as caught:
            self._operator._push.run()
        self.summary, self.ended_at = caught.value.summary, time.monotonic()

    def kill(self) -> float:
        """Tell it to stop, wait until it has, and return how long that took."""
        told = time.monotonic()
        self._operator.on_kill()
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self.ended_at - told


def failed(kind, store=None, **kwargs) -> dict:
    """Push, see it fail with exactly this kind of error, and return its summary."""
    with pytest.raises(kind) as caught:
        update(store, **kwargs)
    assert type(caught.value) is kind or (issubclass(type(caught.value), kind) and kind is BubblehouseTransientError)
    summed(caught.value.summary)
    return caught.value.summary


def summed(summary: dict) -> dict:
    assert summary["read"] == sum(summary[name] for name in ("invalid", "accepted", "rejected", "unsent"))
    return summary


def people(count: int, first: int = 1) -> list[dict]:
    return [{"id": str(number), "first_name": f"name {number}"} for number in range(first, first + count)]


def write_lines(path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def sent(sandbox) -> list[str]:
    return [customer.get("id") or customer["email"] for call in sandbox.calls for customer in call.customers]


def wait_until(condition, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


# Lanes


def test_lanes_keep_the_updates_of_a_customer_in_order_and_calls_run_side_by_side(sandbox):
    chosen = random.Random(1)
    rows = [{"id": str(chosen.randrange(50)), "extras": {"version": number}} for number in range(3000)]
    rows += [{"email": f"C{chosen.randrange(9)}@Example.com", "extras": {"version": number}} for number in range(300)]
    sandbox.rates({"delay=0.02": 0.3}, seed=2)
    assert update(customers=rows, in_flight=8, batch_size=20)["accepted"] == len(rows)
    versions = defaultdict(list)
    for call in sandbox.calls:
        for customer in call.customers:
            versions[customer.get("id") or customer["email"].lower()].append(customer["extras"]["version"])
    assert all(seen == sorted(seen) for seen in versions.values())
    assert sum(map(len, versions.values())) == len(rows)


def test_in_flight_calls_are_under_way_at_once_and_no_more(sandbox):
    sandbox.script(*["delay=60"] * 4)
    started = Started(customers=people(400), in_flight=4, batch_size=10)
    wait_until(lambda: len(sandbox.calls) == 4)
    started.kill()
    assert len(sandbox.calls) == 4


@pytest.mark.parametrize(("fault", "kind"), [("401", BubblehousePermanentError), ("503", BubblehouseTransientError)])
def test_a_fault_in_one_lane_ends_the_others_and_every_call_is_accounted_for(sandbox, no_waits, fault, kind):
    sandbox.script(*["ok"] * 9, fault)
    summary = failed(kind, customers=people(1000), in_flight=4, batch_size=10, max_attempts=1)
    accepted = sum(call.rows for call in sandbox.calls if call.status == 200)
    assert (summary["accepted"], summary["calls"]) == (accepted, len(sandbox.calls))
    assert len(sandbox.calls) < 20


def test_what_no_retry_can_help_goes_before_what_one_can(sandbox, no_waits):
    sandbox.script("503,delay=0.2", "401,delay=0.2", "503,delay=0.2", "503,delay=0.2")
    failed(BubblehousePermanentError, customers=people(400), in_flight=4, batch_size=10, max_attempts=1)


# Resume


@pytest.mark.parametrize("in_flight", [1, 4])
@pytest.mark.parametrize("source", ["list", "file"])
def test_the_next_try_goes_on_after_the_rows_that_are_settled(sandbox, store, no_waits, tmp_path, in_flight, source):
    rows = people(200)
    given = {"customers": rows} if source == "list" else {"path": write_lines(tmp_path / "a.jsonl", rows)}
    options = {**given, "in_flight": in_flight, "batch_size": 10, "max_attempts": 1}
    sandbox.script(*["ok"] * 7, "503")
    first = failed(BubblehouseTransientError, store, **options)
    sandbox.script(*["ok"] * 3, "reset")
    second = failed(BubblehouseTransientError, store, **options)
    assert second["resumed_at"] == first["accepted"] > 0
    last = summed(update(store, **options))
    assert last["resumed_at"] == second["accepted"] > first["accepted"]
    assert (last["read"], last["accepted"], last["unsent"]) == (200, 200, 0)
    settled = [customer["id"] for call in sandbox.calls if call.status == 200 for customer in call.customers]
    assert sorted(settled, key=int) == [row["id"] for row in rows]
    assert store.values == {}


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 20},
        {"in_flight": 2},
        {"timezone": "Europe/Berlin"},
        {"column_map": {"id": "id"}},
        {"on_invalid": "skip"},
        {"max_batch_bytes": 2048},
        {"customers": people(101)},
        {"resume": False},
    ],
    ids=str,
)
def test_another_source_or_other_settings_start_over(sandbox, store, no_waits, change):
    options = {"customers": people(100), "batch_size": 10, "max_attempts": 1}
    sandbox.script("ok", "503")
    failed(BubblehouseTransientError, store, **options)
    assert update(store, **(options | change))["resumed_at"] == 0


def test_another_shop_starts_over(sandbox, store, no_waits, monkeypatch):
    options = {"customers": people(100), "batch_size": 10, "max_attempts": 1}
    sandbox.script("ok", "503")
    failed(BubblehouseTransientError, store, **options)
    minted = {"key_id": sandbox.key_id, "shared_secret": sandbox.shared_secret}
    elsewhere = sandbox.connection(login="another-shop", password=None, extra=minted)
    monkeypatch.setenv("AIRFLOW_CONN_BUBBLEHOUSE_DEFAULT", elsewhere)
    assert failed(BubblehousePermanentError, store, **options)["resumed_at"] == 0


def test_another_operator_starts_over(sandbox, store, no_waits):
    options = {"customers": people(100), "batch_size": 10, "max_attempts": 1}
    sandbox.script("ok", "503")
    failed(BubblehouseTransientError, store, **options)
    delete = DeleteCustomersOperator(task_id="push", max_customers=100, **options)
    assert delete.execute({"task_state_store": store})["resumed_at"] == 0


@pytest.mark.parametrize("how", ["touched", "grown"])
def test_a_file_that_was_changed_between_two_tries_starts_over(sandbox, store, no_waits, tmp_path, how):
    path = tmp_path / "a.jsonl"
    options = {"path": write_lines(path, people(100)), "batch_size": 10, "max_attempts": 1}
    sandbox.script("ok", "503")
    failed(BubblehouseTransientError, store, **options)
    if how == "touched":
        import os

        os.utime(path, (1, 1))
    else:
        write_lines(path, people(101))
    assert update(store, **options)["resumed_at"] == 0


def test_a_dry_run_leaves_the_progress_alone(sandbox, store, no_waits):
    options = {"customers": people(100), "batch_size": 10, "max_attempts": 1}
    sandbox.script("ok", "503")
    failed(BubblehouseTransientError, store, **options)
    before = dict(store.values)
    assert update(store, dry_run=True, **options)["resumed_at"] == 0
    assert store.values == before


def test_progress_holds_no_row(sandbox, store, no_waits):
    sandbox.script("ok", "503")
    rows = [{"id": f"sentinel-{n}", "email": f"sentinel{n}@example.com"} for n in range(100)]
    failed(BubblehouseTransientError, store, customers=rows, batch_size=10, max_attempts=1)
    assert store.values
    assert "sentinel" not in str(store.values)


def test_invalid_rows_are_counted_once_over_all_tries(sandbox, store, no_waits):
    rows = [*people(50), {"first_name": "nobody"}, *people(49, first=51)]
    options = {"customers": rows, "batch_size": 10, "max_attempts": 1, "on_invalid": "skip"}
    sandbox.script(*["ok"] * 7, "503")
    failed(BubblehouseTransientError, store, **options)
    summary = summed(update(store, **options))
    assert (summary["read"], summary["invalid"], summary["accepted"]) == (100, 1, 99)


def test_without_a_store_a_retry_starts_over(sandbox, no_waits):
    options = {"customers": people(100), "batch_size": 10, "max_attempts": 1}
    sandbox.script("ok", "503")
    failed(BubblehouseTransientError, None, **options)
    assert update(**options)["resumed_at"] == 0


def test_a_store_that_takes_nothing_costs_the_progress_and_not_the_push(sandbox, caplog, monkeypatch):
    monkeypatch.setattr(push, "_SAVE_EVERY", 0.0)
    assert update(FullStore(), customers=people(30), batch_size=10)["accepted"] == 30
    assert caplog.text.count("cannot be kept") == 1


def test_where_it_is_not_known_what_was_refused_nothing_is_sent(sandbox):
    options = {"customers": people(3)}
    failed(BubblehouseTransientError, SilentStore(), **options)
    assert sandbox.calls == []
    assert update(SilentStore(), resume=False, **options)["accepted"] == 3


@pytest.mark.parametrize("stored", ['"text"', "[1]", "{}", '{"fingerprint": "a", "progress": {"lanes": 7}}'])
def test_progress_that_cannot_be_understood_is_not_taken_up(sandbox, store, stored):
    store.values["bubblehouse_push"] = stored
    assert update(store, customers=people(3))["resumed_at"] == 0


# Rejected and invalid rows


@pytest.mark.parametrize("status", ["400", "422"])
@pytest.mark.parametrize("on_rejected", ["stop", "continue"])
def test_a_rejection_never_turns_green_and_is_never_sent_again(sandbox, store, tmp_path, status, on_rejected):
    path = tmp_path / "a.jsonl"
    options = {"path": write_lines(path, people(50)), "batch_size": 10, "on_rejected": on_rejected}
    sandbox.script("ok", status)
    first = failed(BubblehouseRejectedError, store, **options)
    left = 30 if on_rejected == "stop" else 0
    assert (first["accepted"], first["rejected"], first["unsent"]) == (40 - left, 10, left)
    calls = len(sandbox.calls)
    assert calls == (2 if on_rejected == "stop" else 5)
    again = failed(BubblehouseRejectedError, store, **options)
    assert (again["accepted"], again["rejected"], len(sandbox.calls)) == (40 - left, 10, calls)
    assert update(store, **options | {"resume": False})["accepted"] == 50
    write_lines(path, people(51))
    assert update(store, **options)["accepted"] == 51


def test_after_stop_a_try_with_continue_sends_the_rest_and_still_fails(sandbox, store):
    options = {"customers": people(50), "batch_size": 10}
    sandbox.script("ok", "400")
    failed(BubblehouseRejectedError, store, **options)
    summary = failed(BubblehouseRejectedError, store, on_rejected="continue", **options)
    assert (summary["accepted"], summary["rejected"], summary["unsent"]) == (40, 10, 0)
    assert sorted(map(int, sent(sandbox))) == list(range(1, 51))


def test_without_a_store_an_outage_after_a_rejection_is_not_retried_for_that_would_send_it_again(sandbox, no_waits):
    sandbox.script("400", "503")
    options = {"customers": people(50), "batch_size": 10, "max_attempts": 1, "on_rejected": "continue"}
    summary = failed(BubblehouseRejectedError, None, **options)
    assert (summary["rejected"], summary["unsent"]) == (10, 40)


def test_with_a_store_an_outage_after_a_rejection_is_retried_and_then_fails(sandbox, store, no_waits):
    sandbox.script("400", "503")
    options = {"customers": people(50), "batch_size": 10, "max_attempts": 1, "on_rejected": "continue"}
    failed(BubblehouseTransientError, store, **options)
    summary = failed(BubblehouseRejectedError, store, **options)
    assert (summary["rejected"], summary["accepted"], summary["unsent"]) == (10, 40, 0)
    assert sent(sandbox).count("1") == 1


@pytest.mark.parametrize("keeps", [None, FullStore()], ids=["no store", "a store that takes nothing"])
@pytest.mark.parametrize("error", [OSError("gone"), AirflowTaskTimeout("late"), KeyboardInterrupt()], ids=repr)
def test_nothing_that_ends_a_push_after_a_rejection_brings_a_retry_that_would_send_it_again(sandbox, keeps, error):
    summary = failed_as_it_breaks_off(BubblehouseRejectedError, sandbox, keeps, error)
    assert summary["rejected"] == 10


@pytest.mark.parametrize("error", [OSError("gone"), AirflowTaskTimeout("late")], ids=repr)
def test_what_breaks_off_goes_on_in_the_next_try_where_the_rejection_is_kept(sandbox, store, error):
    failed_as_it_breaks_off(type(error), sandbox, store, error)
    options = {"customers": people(1500), "batch_size": 10, "on_rejected": "continue", "on_invalid": "skip"}
    last = failed(BubblehouseRejectedError, store, **options)
    assert (last["rejected"], last["accepted"], last["unsent"]) == (10, 1490, 0)
    assert sent(sandbox).count("1") == 1


def failed_as_it_breaks_off(kind, sandbox, store, error) -> dict | None:
    sandbox.script("400")
    context = {} if store is None else {"task_state_store": store}
    operator = UpdateCustomersOperator(
        task_id="push", customers=people(1500), batch_size=10, on_rejected="continue", on_invalid="skip"
    )
    prepared = operator._prepare(context)
    prepared.source = Breaking(prepared.source, error)
    with pytest.raises(kind) as caught:
        prepared.run()
    return getattr(caught.value, "summary", None)


def test_a_rejection_is_kept_at_once_for_the_process_may_be_killed_next(sandbox, store, monkeypatch):
    monkeypatch.setattr(push, "_SAVE_EVERY", 1e6)
    sandbox.script("400", "delay=60")
    started = Started(store, customers=people(100), batch_size=10, on_rejected="continue")
    wait_until(lambda: '"rejected": 10' in store.values.get("bubblehouse_push", ""))
    started.kill()


class TaskInstance:
    dag_id, run_id, task_id, map_index, try_number, max_tries = "dag", "run", "push", 3, 1, 0


def update_in_a_task(**kwargs) -> dict:
    return UpdateCustomersOperator(task_id="push", **kwargs).execute({"ti": TaskInstance()})


def lines_of(folder) -> list[dict]:
    files = sorted(folder.rglob("*.jsonl"), key=lambda file: int(file.stem))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_rejected_and_invalid_rows_are_kept_and_can_be_pushed_again(sandbox, tmp_path):
    folder = tmp_path / "rejected"
    rows = [*people(4), {"first_name": "nobody"}, *people(5, first=6), {"id": "11", "total_spent": 5}]
    options = {"customers": rows, "batch_size": 4, "on_invalid": "skip", "on_rejected": "continue"}
    sandbox.script("ok", "400:bad_rows")
    with pytest.raises(BubblehouseRejectedError) as caught:
        update_in_a_task(rejected_path=str(folder), **options)
    own = folder / "dag" / "run" / "push" / "3"
    assert caught.value.summary["rejected_path"] == str(own)
    assert str(own) in str(caught.value)
    assert [(line["row"], line["status"], line["error_id"]) for line in lines_of(own)] == [
        (5, None, None),
        (11, None, None),
        *((row, 400, "bad_rows") for row in range(6, 10)),
    ]
    assert [line["customer"] for line in lines_of(own)] == [rows[4], rows[10], *rows[5:9]]
    with pytest.raises(BubblehousePermanentError, match="the row has neither id nor email"):
        update(path=f"{folder}/**/*.jsonl", file_format="rejected")
    sandbox.clear()
    summary = update(path=f"{folder}/**/*.jsonl", file_format="rejected", on_invalid="skip")
    assert (summary["accepted"], summary["invalid"]) == (4, 2)
    assert sorted(sent(sandbox)) == ["6", "7", "8", "9"]


def test_a_cell_that_is_wrong_is_kept_under_its_fields_name_and_can_be_pushed_once_it_is_mended(sandbox, tmp_path):
    (tmp_path / "a.csv").write_text(
        'Id,Optin,Tags,Secret,City,Orders\n1,TRUE,"[""vip""]",s,Rome,3\n2,,vip,s,,x\n3,true,,s,,\n'
    )
    columns = {"Id": "id", "Optin": "optin", "Tags": "tags", "City": "extras.city", "Orders": "order_count"}
    summary = update(path=tmp_path / "a.csv", column_map=columns, on_invalid="skip", rejected_path=tmp_path / "out")
    assert (summary["accepted"], summary["invalid"]) == (1, 2)
    kept = lines_of(tmp_path / "out")
    assert [line["customer"] for line in kept] == [
        {"id": "1", "optin": "TRUE", "tags": ["vip"], "extras": {"city": "Rome"}, "order_count": 3},
        {"id": "2", "tags": "vip", "order_count": "x"},
    ]
    kept[0]["customer"]["optin"] = True
    (tmp_path / "mended.jsonl").write_text(json.dumps(kept[0]))
    assert update(path=tmp_path / "mended.jsonl", file_format="rejected")["accepted"] == 1
    assert sorted(sent(sandbox)) == ["1", "3"]


@pytest.mark.parametrize("field", ["extras", "id"])
def test_a_number_that_cannot_be_written_out_makes_an_invalid_row_also_where_progress_is_kept(sandbox, store, field):
    rows = [{"id": "1"}, {"id": "2", field: 10**5000 if field == "id" else {"a": 10**5000}}]
    with pytest.raises(BubblehousePermanentError, match=rf"row 2: {field} .* 100 digits"):
        update(store, customers=rows)
    assert sandbox.calls == []


def test_a_file_that_is_refused_whole_leaves_its_invalid_rows_too_whatever_they_hold(sandbox, tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"id": "1"}\nnonsense\n{"id": "J\xe4ne"}\n[1]\n')
    with pytest.raises(BubblehousePermanentError, match="3 of 4 rows are invalid; mend them first"):
        update(path=tmp_path / "a.jsonl", rejected_path=tmp_path / "out")
    assert [(line["row"], line["customer"]) for line in lines_of(tmp_path / "out")] == [
        (2, "nonsense"),
        (3, '{"id": "J\udce4ne"}'),
        (4, [1]),
    ]
    assert sandbox.calls == []


def test_a_retry_writes_the_same_files_again(sandbox, store, tmp_path, no_waits):
    rows = [{"first_name": "nobody"}, *people(20)]
    options = {
        "customers": rows,
        "batch_size": 10,
        "on_invalid": "skip",
        "max_attempts": 1,
        "rejected_path": tmp_path / "out",
    }
    sandbox.script("ok", "503")
    failed(BubblehouseTransientError, store, **options)
    before = lines_of(tmp_path / "out")
    update(store, **options)
    assert lines_of(tmp_path / "out") == before
    assert len(before) == 1


def test_a_folder_that_cannot_be_written_fails_the_task_before_the_batch_counts_as_done(sandbox, tmp_path):
    (tmp_path / "file").write_text("")
    sandbox.script("400")
    with pytest.raises(BubblehousePermanentError, match="check rejected_path"):
        update(customers=people(3), rejected_path=tmp_path / "file")


def test_a_batch_behind_one_that_is_not_kept_does_not_count_in_its_place(sandbox, store, tmp_path, monkeypatch):
    add_rejected = RejectedRows.add_rejected

    def add_late(*args):
        wait_until(lambda: len(sandbox.calls) == 2 and sandbox.calls[1].status == 200)
        add_rejected(*args)

    monkeypatch.setattr(RejectedRows, "add_rejected", add_late)
    (tmp_path / "file").write_text("")
    options = {"customers": people(20), "batch_size": 10, "on_rejected": "continue"}
    sandbox.script("400")
    first = failed(BubblehousePermanentError, store, rejected_path=tmp_path / "file", **options)
    assert (first["accepted"], first["rejected"], first["unsent"]) == (0, 0, 20)
    monkeypatch.setattr(RejectedRows, "add_rejected", add_rejected)
    sandbox.script("400")
    again = failed(BubblehouseRejectedError, store, rejected_path=tmp_path / "out", **options)
    assert (again["accepted"], again["rejected"]) == (10, 10)
    assert [line["row"] for line in lines_of(tmp_path / "out")] == list(range(1, 11))


def test_a_store_with_errors_of_its_own_fails_the_task_without_a_retry(sandbox, tmp_path, monkeypatch):
    class HttpError(Exception):
        pass

    def makedirs(*_args, **_kwargs):
        raise HttpError

    monkeypatch.setattr("fsspec.implementations.local.LocalFileSystem.makedirs", makedirs)
    sandbox.script("400")
    with pytest.raises(BubblehousePermanentError, match=r"cannot be written \(HttpError\)"):
        update(customers=people(3), rejected_path=tmp_path)


def test_an_invalid_row_is_kept_whatever_it_holds(sandbox, tmp_path):
    class Untold:
        def __repr__(self) -> str:
            raise RuntimeError

    rows = [
        {"first_name": "x", "extras": {"a": float("nan"), "b": [float("inf")], None: b"x", ("a", 1): 2}},
        {"id": "1", "first_name": Untold()},
        {"id": 10**5000},
        [{"id": "1"}],
    ]
    with pytest.raises(BubblehousePermanentError, match="4 of 4 rows are invalid"):
        update(customers=rows, rejected_path=tmp_path / "out")
    first, *others, last = lines_of(tmp_path / "out")
    assert first["customer"] == {"first_name": "x", "extras": {"a": "nan", "b": ["inf"], "None": "b'x'", "('a', 1)": 2}}
    assert [line["customer"] for line in others] == [None, None]
    assert last["customer"] == [{"id": "1"}]
    with pytest.raises(BubblehousePermanentError, match="4 of 4 rows are invalid"):
        update(path=f"{tmp_path}/out/*.jsonl", file_format="rejected")


# Pace


def test_without_rate_limit_wait_no_wait_of_another_lane_hides_a_limit():
    pacer = pacing.Pacer(rate_limit_wait=0, stop=threading.Event())
    pacer.hold(60)
    assert not pacer.wait_for_limit(BubblehouseRateLimitError("Over."), before=0)


def test_max_calls_per_second_is_one_limit_for_all_lanes(sandbox, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_BUBBLEHOUSE_DEFAULT", sandbox.connection(extra={"max_calls_per_second": 20}))
    started = time.monotonic()
    update(customers=people(100), batch_size=10, in_flight=4)
    assert len(sandbox.calls) >= 10
    assert time.monotonic() - started >= (len(sandbox.calls) - 1) / 20


def test_a_rate_limit_fails_at_once_by_default(sandbox, store):
    sandbox.script("ok", "429:rate_limit_exceeded,retry_after=1")
    summary = failed(BubblehouseRateLimitError, store, customers=people(30), batch_size=10)
    assert (summary["accepted"], summary["unsent"], summary["calls"]) == (10, 20, 2)


def test_with_rate_limit_wait_the_push_waits_as_long_as_it_is_asked_to(sandbox, monkeypatch):
    monkeypatch.setattr(pacing, "_FIRST_RATE_LIMIT_WAIT", 0.01)
    sandbox.script("ok", "429:rate_limit_exceeded,retry_after=0.3", "429:rate_limit_exceeded,retry_after=0.2")
    started = time.monotonic()
    summary = update(customers=people(30), batch_size=10, rate_limit_wait=5)
    assert time.monotonic() - started >= 0.5
    assert (summary["accepted"], summary["calls"], summary["retries"]) == (30, 5, 2)


@pytest.mark.parametrize("asked", ["retry_after=3", "retry_after=99999"])
def test_a_rate_limit_that_does_not_fit_fails_at_once(sandbox, asked):
    sandbox.script("429:rate_limit_exceeded,retry_after=0.1", f"429:rate_limit_exceeded,{asked}")
    summary = failed(BubblehouseRateLimitError, customers=people(30), batch_size=10, rate_limit_wait=3)
    assert summary["calls"] == 2


def test_a_rate_limit_in_one_lane_holds_all():
    pacer = pacing.Pacer(rate_limit_wait=3.5, stop=threading.Event())
    error = BubblehouseRateLimitError("Over.", retry_after=2)
    assert pacer.wait_for_limit(error, before=0)
    assert pacer.wait_for_limit(error, before=0)  # the same wait, in another lane: it counts once
    started = time.monotonic()
    pacer.wait_for_turn()
    assert time.monotonic() - started >= 1.9
    assert not pacer.wait_for_limit(error, before=0)


def test_a_rate_limit_that_asks_for_no_wait_is_not_answered_with_a_flood(sandbox):
    sandbox.rates({"429:rate_limit_exceeded,retry_after=0": 1.0})
    summary = failed(BubblehouseRateLimitError, customers=people(3), rate_limit_wait=2)
    assert summary["calls"] <= 3


def test_a_retry_after_of_an_outage_is_kept_to_by_all_lanes(sandbox, no_waits):
    sandbox.script("503,retry_after=0.4")
    update(customers=people(200), batch_size=10, in_flight=4)
    hold = sandbox.calls[0].arrived_at
    later = [call for call in sandbox.calls if (call.arrived_at - hold).total_seconds() >= 0.35]
    assert len(later) > len(sandbox.calls) - 12  # but for what the lanes had begun when the answer came


# The end of it


@pytest.mark.parametrize("script", ["503,retry_after=60", "delay=60", "reset"])
@pytest.mark.parametrize("in_flight", [1, 4])
def test_told_to_stop_it_ends_soon_in_a_wait_and_in_a_slow_answer_with_its_progress_kept(
    sandbox, store, monkeypatch, script, in_flight
):
    monkeypatch.setattr("airflow_provider_bubblehouse.push.attempts._jitter", lambda _state: 60.0)
    sandbox.script(*["ok"] * 5, *[script] * in_flight)
    started = Started(store, customers=people(200), in_flight=in_flight, batch_size=10)
    wait_until(lambda: len(sandbox.calls) >= 6)
    assert started.kill() < 4.5  # after 5 s Airflow kills the process
    assert started.summary["accepted"] >= 50
    sandbox.clear()
    summary = update(store, customers=people(200), in_flight=in_flight, batch_size=10)
    assert summary["resumed_at"] == started.summary["accepted"]
    assert sum(call.rows for call in sandbox.calls) == 200 - summary["resumed_at"]


def test_told_to_stop_before_there_is_a_push_it_makes_no_call(sandbox):
    operator = UpdateCustomersOperator(task_id="push", customers=people(3))
    operator.on_kill()
    with pytest.raises(BubblehouseTransientError, match="told to stop"):
        operator.execute({})
    assert sandbox.calls == []


def test_told_to_stop_while_it_validates_it_ends_before_any_call(sandbox, tmp_path):
    operator = UpdateCustomersOperator(task_id="push", path=write_lines(tmp_path / "a.jsonl", people(5000)))
    prepared = operator._prepare({})
    prepared.stop()
    with pytest.raises(BubblehouseTransientError, match="told to stop"):
        prepared.run()
    assert sandbox.calls == []


def test_a_call_that_is_cut_off_at_the_end_is_counted(sandbox, monkeypatch):
    monkeypatch.setattr(push, "_STOP_GRACE", 0.1)
    monkeypatch.setattr(lanes, "_LAST_WORDS", 30.0)  # so that how long a thread takes to end does not count
    sandbox.script("delay=60")
    started = Started(customers=people(3))
    wait_until(lambda: sandbox.calls)
    started.kill()
    assert (started.summary["calls"], started.summary["unsent"]) == (1, 3)


def test_no_thread_outlives_a_push_that_was_cut_off(sandbox):
    sandbox.script("delay=60")
    started = Started(customers=people(3))
    wait_until(lambda: sandbox.calls)
    started.kill()
    wait_until(lambda: not any(other.name.startswith("bubblehouse-lane") for other in threading.enumerate()))


def test_a_name_look_up_that_hangs_does_not_keep_the_push_from_ending(sandbox, monkeypatch):
    hang = threading.Event()
    asked = threading.Event()

    def getaddrinfo(*_args, **_kwargs):
        asked.set()
        hang.wait(30)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    started = Started(customers=people(3), max_attempts=1)
    assert asked.wait(30)
    assert started.kill() < 4.5
    hang.set()


# What is told of it


def test_progress_is_logged_while_it_runs_and_a_summary_at_the_end(sandbox, caplog, monkeypatch, tmp_path):
    monkeypatch.setattr(push, "_LOG_EVERY", 0.0)
    path = write_lines(tmp_path / "a.jsonl", people(3000))
    with caplog.at_level("INFO"):
        update(path=path, batch_size=100)
    lines = [record.getMessage() for record in caplog.records]
    assert any("rows/s" in line and "% of the source read" in line for line in lines)
    assert len([line for line in lines if line.startswith("Summary of the push")]) == 1


def test_metrics_are_counted(sandbox, monkeypatch, no_waits):
    counted: dict[str, int] = defaultdict(int)

    def incr(name, count=1, **_kwargs):
        counted[name] += count

    from airflow_provider_bubblehouse.airflow_compat import Stats

    monkeypatch.setattr(Stats, "incr", incr)
    sandbox.script("503", "ok", "400")
    rows = [*people(20), {"first_name": "nobody"}, *people(4, first=21)]
    failed(BubblehouseRejectedError, customers=rows, batch_size=10, on_invalid="skip", on_rejected="continue")
    assert counted == {
        "bubblehouse.customers.accepted": 14,
        "bubblehouse.customers.rejected": 10,
        "bubblehouse.customers.invalid": 1,
        "bubblehouse.calls": 4,
        "bubblehouse.retries": 1,
    }


def test_a_refused_batch_is_told_by_file_and_rows_and_no_value_is_shown(sandbox, tmp_path, caplog):
    for number, name in enumerate(("a", "b")):
        write_lines(tmp_path / f"{name}.jsonl", [{"id": f"sentinel{number}{row}"} for row in range(15)])
    sandbox.script("ok", "400:bad,message=sentinel is bad")
    failed(BubblehouseRejectedError, path=f"{tmp_path}/*.jsonl", batch_size=20)
    assert f"from {tmp_path}/b.jsonl, row 6 to {tmp_path}/b.jsonl, row 15" in caplog.text
    assert "sentinel" not in caplog.text


def test_calls_that_are_never_made_are_not_counted(sandbox):
    assert failed(BubblehousePermanentError, customers=people(3), debug=True)["calls"] == 0


# All of it together


def test_under_chaos_the_api_ends_with_exactly_the_input(sandbox, store, no_waits, tmp_path):
    chosen = random.Random(3)
    rows = [
        {"id": str(chosen.randrange(15_000)), "extras": {"version": number, "note": "x" * chosen.randrange(60)}}
        for number in range(50_000)
    ]
    expected = {row["id"]: row for row in rows}
    path = write_lines(tmp_path / "a.jsonl", rows)
    sandbox.rates(
        {"503": 0.05, "500": 0.05, "reset": 0.05, "reset,processed": 0.05, "cut": 0.02, "cut,processed": 0.02}
        | {"delay=0.02": 0.1},
        seed=4,
    )
    tries, settled = [], 0
    for _ in range(500):
        before = len(sandbox.calls)
        try:
            tries.append(update(store, path=path, in_flight=8, batch_size=100, max_attempts=2))
        except BubblehouseTransientError as error:
            tries.append(error.summary)
        summary = summed(tries[-1])
        answered = [call for call in sandbox.calls[before:] if call.status == 200]
        assert summary["resumed_at"] == settled
        assert sum(call.rows for call in answered) == summary["accepted"] - settled  # no settled row is sent again
        settled = summary["accepted"]
        if not summary["unsent"]:
            break
    assert len(tries) > 3
    assert settled == 50_000
    assert {customer["id"]: customer for customer in sandbox.customers()} == expected
    assert store.values == {}


def test_the_order_of_lanes_is_the_same_in_every_process():
    from airflow_provider_bubblehouse.push.lanes import lane_of

    assert [lane_of(identity, 8) for identity in ("1", "2", "ada@example.com", "ADA@example.com")] == [7, 5, 0, 0]


def test_batches_are_dealt_evenly():
    from airflow_provider_bubblehouse.push.lanes import lane_of

    dealt = [lane_of(str(number), 8) for number in range(80_000)]
    counts = [len(list(group)) for _, group in itertools.groupby(sorted(dealt))]
    assert len(counts) == 8
    assert max(counts) < 1.1 * min(counts)
