"""The push under faults: nothing is lost, nothing that is completed is sent again, and it ends when it is stopped."""

from __future__ import annotations

import itertools
import json
import random
import socket
import threading
import time
from collections import defaultdict

import pytest
from pushes import (
    Started,
    Store,
    failed,
    people,
    sent,
    summed,
    update,
    wait_until,
    write_lines,
)

from airflow_provider_bubblehouse.api.client import Client
from airflow_provider_bubblehouse.exceptions import (
    BubblehousePermanentError,
    BubblehouseRateLimitError,
    BubblehouseRejectedError,
    BubblehouseTransientError,
)
from airflow_provider_bubblehouse.operators.customers import UpdateCustomersOperator
from airflow_provider_bubblehouse.push import loop, pacing, workers


@pytest.fixture
def store() -> Store:
    return Store()


# Lanes


def test_lanes_keep_the_updates_of_a_customer_in_order_and_calls_run_side_by_side(sandbox):
    chosen = random.Random(1)
    rows = [{"id": str(chosen.randrange(1, 51)), "extras": {"version": number}} for number in range(3000)]
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


def test_permanent_errors_take_precedence_over_transient_ones(sandbox, no_waits):
    sandbox.script("503,delay=0.2", "401,delay=0.2", "503,delay=0.2", "503,delay=0.2")
    failed(BubblehousePermanentError, customers=people(400), in_flight=4, batch_size=10, max_attempts=1)


def test_an_error_is_not_chained_to_that_of_another_lane(sandbox, no_waits):
    sandbox.script("reset,delay=0.5", "401,delay=1")
    with pytest.raises(BubblehousePermanentError) as caught:
        update(customers=people(400), in_flight=2, batch_size=10, max_attempts=1)
    assert (caught.value.status, caught.value.__cause__) == (401, None)


# Rejected and invalid rows


class TaskInstance:
    dag_id, run_id, task_id, map_index, try_number, max_tries = "dag", "run", "push", 3, 1, 0


def update_in_a_task(**kwargs) -> dict:
    return UpdateCustomersOperator(task_id="push", **kwargs).execute({"ti": TaskInstance()})


def lines_of(folder) -> list[dict]:
    files = sorted(folder.rglob("*.jsonl"), key=lambda file: int(file.stem))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_rejected_and_invalid_rows_are_written_and_can_be_pushed_again(sandbox, tmp_path):
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


def test_formats_apply_to_invalid_rows_that_are_pushed_again_and_not_to_rejected_rows(sandbox, tmp_path):
    swapped = {"yes": "no", "no": "yes"}
    options = {"formats": {"birthday": "%d.%m.%Y", "email_verified": swapped}}
    (tmp_path / "a.csv").write_text("id,birthday,email_verified\n1,31.12.1990,yes\n2,31.13.1990,yes\n")
    sandbox.script("400")
    with pytest.raises(BubblehouseRejectedError):
        update(path=tmp_path / "a.csv", on_invalid="skip", rejected_path=tmp_path / "out", **options)
    sandbox.clear()
    for file in (tmp_path / "out").rglob("*.jsonl"):
        file.write_text(file.read_text().replace("31.13.", "30.11."))
    assert update(path=tmp_path / "out", file_format="rejected", **options)["accepted"] == 2
    assert [customer for call in sandbox.calls for customer in call.customers] == [
        {"id": "1", "birthday": "1990-12-31", "email_verified": "no"},
        {"id": "2", "birthday": "1990-11-30", "email_verified": "no"},
    ]


def test_an_invalid_cell_is_written_under_its_fields_name_and_can_be_pushed_once_corrected(sandbox, tmp_path):
    (tmp_path / "a.csv").write_text(
        'Id,Optin,Tags,Secret,City,Orders\n1,maybe,"[""vip""]",s,Rome,3\n2,,vip,s,,x\n3,true,,s,,\n'
    )
    columns = {"Id": "id", "Optin": "optin", "Tags": "tags", "City": "extras.city", "Orders": "order_count"}
    summary = update(path=tmp_path / "a.csv", column_map=columns, on_invalid="skip", rejected_path=tmp_path / "out")
    assert (summary["accepted"], summary["invalid"]) == (1, 2)
    kept = lines_of(tmp_path / "out")
    assert [line["customer"] for line in kept] == [
        {"id": "1", "optin": "maybe", "tags": '["vip"]', "extras": {"city": "Rome"}, "order_count": "3"},
        {"id": "2", "tags": "vip", "order_count": "x"},
    ]
    kept[0]["customer"]["optin"] = True
    (tmp_path / "corrected.jsonl").write_text(json.dumps(kept[0]))
    assert update(path=tmp_path / "corrected.jsonl", file_format="rejected")["accepted"] == 1
    assert sorted(sent(sandbox)) == ["1", "3"]


@pytest.mark.parametrize("field", ["extras", "id"])
def test_a_number_that_json_cannot_express_makes_an_invalid_row_also_with_progress(sandbox, store, field):
    rows = [{"id": "1"}, {"id": "2", field: 10**5000 if field == "id" else {"a": 10**5000}}]
    with pytest.raises(BubblehousePermanentError, match=rf"row 2: {field} .* 100 digits"):
        update(store, customers=rows)
    assert sandbox.calls == []


def test_a_file_that_is_refused_as_a_whole_leaves_its_invalid_rows_too_whatever_they_hold(sandbox, tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"id": "1"}\nnonsense\n{"id": "J\xe4ne"}\n[1]\n')
    with pytest.raises(BubblehousePermanentError, match="3 of 4 rows are invalid; fix them first"):
        update(path=tmp_path / "a.jsonl", rejected_path=tmp_path / "out")
    assert [(line["row"], line["customer"]) for line in lines_of(tmp_path / "out")] == [
        (2, "nonsense"),
        (3, {"id": "J\udce4ne"}),
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


def test_a_store_with_errors_of_its_own_fails_the_task_without_a_retry(sandbox, tmp_path, monkeypatch):
    class HttpError(Exception):
        pass

    def makedirs(*_args, **_kwargs):
        raise HttpError

    monkeypatch.setattr("fsspec.implementations.local.LocalFileSystem.makedirs", makedirs)
    sandbox.script("400")
    with pytest.raises(BubblehousePermanentError, match=r"cannot be written \(HttpError\)"):
        update(customers=people(3), rejected_path=tmp_path)


def test_an_invalid_row_is_written_whatever_its_values(sandbox, tmp_path):
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
    pacer.pause(60)
    assert not pacer.pause_for_limit(BubblehouseRateLimitError("Over."), began=0, limited_before=0)


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


def test_with_rate_limit_wait_the_push_waits_as_long_as_retry_after_asks(sandbox, monkeypatch):
    monkeypatch.setattr(pacing, "_FIRST_PAUSE", 0.01)
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
    assert pacer.pause_for_limit(error, began=0, limited_before=0)
    assert pacer.pause_for_limit(error, began=0, limited_before=0)  # the same wait, in another lane: it counts once
    started = time.monotonic()
    pacer.wait_for_turn()
    assert time.monotonic() - started >= 1.9
    assert not pacer.pause_for_limit(error, began=0, limited_before=0)


def test_a_rate_limit_without_a_wait_does_not_cause_a_flood_of_calls(sandbox):
    sandbox.rates({"429:rate_limit_exceeded,retry_after=0": 1.0})
    summary = failed(BubblehouseRateLimitError, customers=people(3), rate_limit_wait=2)
    assert summary["calls"] <= 3


def test_all_lanes_honour_the_retry_after_of_an_outage(sandbox, no_waits):
    sandbox.script("503,retry_after=0.4")
    update(customers=people(200), batch_size=10, in_flight=4)
    hold = sandbox.calls[0].arrived_at
    later = [call for call in sandbox.calls if (call.arrived_at - hold).total_seconds() >= 0.35]
    assert len(later) > len(sandbox.calls) - 12  # but for what the lanes had begun when the answer came


# The end of it


@pytest.mark.parametrize("script", ["503,retry_after=60", "delay=60", "reset"])
@pytest.mark.parametrize("in_flight", [1, 4])
def test_a_stopped_push_ends_soon_in_a_wait_and_in_a_slow_answer_with_its_progress_saved(
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


def test_a_task_stopped_before_its_push_makes_no_call(sandbox):
    operator = UpdateCustomersOperator(task_id="push", customers=people(3))
    operator.on_kill()
    with pytest.raises(BubblehouseTransientError, match="told to stop"):
        operator.execute({})
    assert sandbox.calls == []


def test_a_push_stopped_while_validating_makes_no_call(sandbox, tmp_path):
    operator = UpdateCustomersOperator(task_id="push", path=write_lines(tmp_path / "a.jsonl", people(5000)))
    prepared = operator._prepare({})
    prepared.stop()
    with pytest.raises(BubblehouseTransientError, match="told to stop"):
        prepared.run()
    assert sandbox.calls == []


def test_a_call_that_is_cut_off_at_the_end_is_counted(sandbox, monkeypatch):
    monkeypatch.setattr(loop, "_STOP_GRACE", 0.1)
    monkeypatch.setattr(workers, "_JOIN_TIMEOUT", 30.0)  # so that how long a thread takes to end does not count
    sandbox.script("delay=60")
    started = Started(customers=people(3))
    wait_until(lambda: sandbox.calls)
    started.kill()
    assert (started.summary["calls"], started.summary["unsent"]) == (1, 3)


def test_whatever_a_call_that_is_cut_off_raises_the_push_ends_with_its_own_error(sandbox, monkeypatch):
    is_called, is_cut_off = threading.Event(), threading.Event()

    def call(*_args, **_kwargs):
        is_called.set()
        is_cut_off.wait(30)
        raise ValueError("I/O operation on closed file")

    monkeypatch.setattr(Client, "call", call)
    monkeypatch.setattr(Client, "abort", lambda _client: is_cut_off.set())
    monkeypatch.setattr(loop, "_STOP_GRACE", 0.1)
    monkeypatch.setattr(workers, "_JOIN_TIMEOUT", 30.0)
    started = Started(customers=people(3))
    assert is_called.wait(30)
    started.kill()
    assert started.summary["unsent"] == 3


def test_no_thread_outlives_a_push_that_was_cut_off(sandbox):
    others = set(threading.enumerate())
    sandbox.script("delay=60")
    started = Started(customers=people(3))
    wait_until(lambda: sandbox.calls)
    started.kill()
    own = set(threading.enumerate()) - others
    wait_until(lambda: not any(thread.is_alive() for thread in own if thread.name.startswith("bubblehouse-lane")))


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


# Messages and logs


def test_progress_is_logged_while_it_runs_and_a_summary_at_the_end(sandbox, caplog, monkeypatch, tmp_path):
    monkeypatch.setattr(loop, "_LOG_EVERY", 0.0)
    path = write_lines(tmp_path / "a.jsonl", people(3000))
    with caplog.at_level("INFO"):
        update(path=path, batch_size=100)
    lines = [record.getMessage() for record in caplog.records]
    assert any("rows/s" in line and "% of the source read" in line for line in lines)
    assert len([line for line in lines if line.startswith("Summary of the push")]) == 1


def test_a_rejected_batch_is_reported_by_file_and_rows_without_a_value(sandbox, tmp_path, caplog):
    for number, name in enumerate(("a", "b")):
        write_lines(tmp_path / f"{name}.jsonl", [{"id": f"sentinel{number}{row}"} for row in range(15)])
    sandbox.script("ok", "400:bad,message=sentinel is bad")
    failed(BubblehouseRejectedError, path=f"{tmp_path}/*.jsonl", batch_size=20)
    assert f"10 rows: {tmp_path}/b.jsonl, row 6 to {tmp_path}/b.jsonl, row 15" in caplog.text
    assert "sentinel" not in caplog.text


def test_calls_that_are_never_made_are_not_counted(sandbox):
    assert failed(BubblehousePermanentError, customers=people(3), debug=True)["calls"] == 0


# All of it together


def test_under_chaos_the_api_ends_with_exactly_the_input(sandbox, store, no_waits, tmp_path):
    chosen = random.Random(3)
    rows = [
        {"id": str(chosen.randrange(1, 15_001)), "extras": {"version": number, "note": "x" * chosen.randrange(60)}}
        for number in range(50_000)
    ]
    expected = {row["id"]: row for row in rows}
    path = write_lines(tmp_path / "a.jsonl", rows)
    sandbox.rates(
        {"503": 0.05, "500": 0.05, "reset": 0.05, "reset,processed": 0.05, "cut": 0.02, "cut,processed": 0.02}
        | {"delay=0.02": 0.1},
        seed=4,
    )
    tries, completed = [], 0
    for _ in range(500):
        before = len(sandbox.calls)
        try:
            tries.append(update(store, path=path, in_flight=8, batch_size=100, max_attempts=2))
        except BubblehouseTransientError as error:
            tries.append(error.summary)
        summary = summed(tries[-1])
        answered = [call for call in sandbox.calls[before:] if call.status == 200]
        assert summary["resumed_at"] == completed
        assert sum(call.rows for call in answered) == summary["accepted"] - completed  # no completed row is sent again
        completed = summary["accepted"]
        if not summary["unsent"]:
            break
    assert len(tries) > 3
    assert completed == 50_000
    assert {customer["id"]: customer for customer in sandbox.customers()} == expected
    assert store.values == {}


def test_the_order_of_lanes_is_the_same_in_every_process():
    from airflow_provider_bubblehouse.push.batches import lane_of

    assert [lane_of(identity, 8) for identity in ("1", "2", "ada@example.com", "ADA@example.com")] == [7, 5, 0, 0]


def test_batches_are_dealt_evenly():
    from airflow_provider_bubblehouse.push.batches import lane_of

    dealt = [lane_of(str(number), 8) for number in range(80_000)]
    counts = [len(list(group)) for _, group in itertools.groupby(sorted(dealt))]
    assert len(counts) == 8
    assert max(counts) < 1.1 * min(counts)
