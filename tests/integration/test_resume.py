"""The next try of a push continues after the rows that are completed, and a rejection never turns green."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import threading
import time
from dataclasses import replace

import pytest
from pushes import (
    Breaking,
    FullStore,
    SilentStore,
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

from airflow_provider_bubblehouse.airflow_compat import AirflowTaskTimeout
from airflow_provider_bubblehouse.customers.converter import Converter, InvalidRow
from airflow_provider_bubblehouse.customers.invalid import InvalidCustomerError
from airflow_provider_bubblehouse.exceptions import (
    BubblehousePermanentError,
    BubblehouseRejectedError,
    BubblehouseTransientError,
)
from airflow_provider_bubblehouse.operators.customers import DeleteCustomersOperator, UpdateCustomersOperator
from airflow_provider_bubblehouse.push import loop, saver
from airflow_provider_bubblehouse.push.rejected import RejectedRows

RULES = "airflow_provider_bubblehouse.customers"


@pytest.fixture
def store() -> Store:
    return Store()


# Resume


@pytest.mark.parametrize("in_flight", [1, 4])
@pytest.mark.parametrize("source", ["list", "file"])
def test_the_next_try_continues_after_the_completed_rows(sandbox, store, no_waits, tmp_path, in_flight, source):
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
    completed = [customer["id"] for call in sandbox.calls if call.status == 200 for customer in call.customers]
    assert sorted(completed, key=int) == [row["id"] for row in rows]
    assert store.values == {}


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 20},
        {"in_flight": 2},
        {"timezone": "Europe/Berlin"},
        {"column_map": {"id": "id"}},
        {"formats": {"id": "verbatim"}},
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


def test_a_rejection_of_another_operator_does_not_count(sandbox, store):
    options = {"customers": people(30), "batch_size": 10}
    sandbox.script("400")
    failed(BubblehouseRejectedError, store, **options)
    delete = DeleteCustomersOperator(task_id="push", max_customers=100, **options)
    assert delete.execute({"task_state_store": store})["accepted"] == 30


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


def test_a_source_that_is_continued_is_not_validated_again(sandbox, store, no_waits, monkeypatch):
    from airflow_provider_bubblehouse.sources.records import ListSource

    options = {"customers": people(100), "batch_size": 10, "max_attempts": 1}
    sandbox.script("ok", "503")
    failed(BubblehouseTransientError, store, **options)
    passes = []
    chunks = ListSource.chunks
    monkeypatch.setattr(ListSource, "chunks", lambda source: passes.append(1) or chunks(source))
    assert update(store, **options)["accepted"] == 100
    assert len(passes) == 1


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


def test_a_store_that_refuses_writes_loses_the_progress_but_not_the_push(sandbox, caplog, monkeypatch):
    monkeypatch.setattr(loop, "_TICK", 0.0)
    assert update(FullStore(), customers=people(30), batch_size=10)["accepted"] == 30
    assert caplog.text.count("cannot be saved") <= 1  # none if the push ends first


def test_nothing_is_sent_while_the_stored_rejections_are_unknown(sandbox):
    options = {"customers": people(3)}
    failed(BubblehouseTransientError, SilentStore(), **options)
    assert sandbox.calls == []
    assert update(SilentStore(), resume=False, **options)["accepted"] == 3


@pytest.mark.parametrize("stored", ['"text"', "[1]", "{}", '{"fingerprint": "a", "progress": {"lanes": 7}}'])
def test_progress_that_cannot_be_understood_is_ignored(sandbox, store, stored):
    store.values["bubblehouse_push"] = stored
    assert update(store, customers=people(3))["resumed_at"] == 0


# Rejections


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
def test_an_interrupted_rejection_is_resumed_by_the_next_try(sandbox, store, error):
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


def test_a_rejection_is_saved_at_once_because_the_process_may_be_killed(sandbox, store, monkeypatch):
    monkeypatch.setattr(loop, "_TICK", 1e6)
    sandbox.script("400", "delay=60")
    started = Started(store, customers=people(100), batch_size=10, on_rejected="continue")
    wait_until(lambda: '"rejected": 10' in store.values.get("bubblehouse_push", ""))
    started.kill()


@pytest.mark.parametrize("after", [{}, {"batch_size": 20}, {"in_flight": 2}, {"on_invalid": "skip"}], ids=str)
@pytest.mark.parametrize("on_rejected", ["stop", "continue"])
def test_a_rejection_outlives_changed_settings_and_is_not_sent_again(sandbox, store, after, on_rejected):
    options = {"customers": people(50), "batch_size": 10, "on_rejected": on_rejected}
    sandbox.script("ok", "400")
    failed(BubblehouseRejectedError, store, **options)
    calls = len(sandbox.calls)
    failed(BubblehouseRejectedError, store, **options | after)
    assert len(sandbox.calls) == calls


def test_a_rejection_outlives_an_upgrade_with_other_rules(sandbox, store, monkeypatch):
    options = {"customers": people(50), "batch_size": 10, "on_rejected": "continue"}
    sandbox.script("ok", "400")
    failed(BubblehouseRejectedError, store, **options)
    calls = len(sandbox.calls)
    monkeypatch.setattr(f"{RULES}.RULES_VERSION", 99)
    failed(BubblehouseRejectedError, store, **options)
    assert len(sandbox.calls) == calls


def interrupted(kind):
    def write(*_args):
        raise kind("late")

    return write


@pytest.mark.parametrize("on_rejected", ["stop", "continue"])
@pytest.mark.parametrize("in_flight", [1, 3])
@pytest.mark.parametrize("error", [AirflowTaskTimeout, KeyboardInterrupt, SystemExit, OSError])
def test_rejected_rows_whose_writing_was_interrupted_are_written_by_the_next_try_and_not_sent_again(
    sandbox, store, tmp_path, monkeypatch, on_rejected, in_flight, error
):
    rows = people(60)
    options = {"customers": rows, "batch_size": 10, "on_rejected": on_rejected, "in_flight": in_flight}
    options["rejected_path"] = tmp_path / "out"
    sandbox.script("400")
    with monkeypatch.context() as patch:
        patch.setattr(RejectedRows, "add_rejected", interrupted(error))
        with pytest.raises(error):
            update(store, **options)
    rejected = next(call for call in sandbox.calls if call.status == 400)
    before = len(sandbox.calls)
    summary = failed(BubblehouseRejectedError, store, **options)
    written = [json.loads(line) for file in (tmp_path / "out").iterdir() for line in file.read_text().splitlines()]
    assert [line["customer"] for line in written] == rejected.customers
    assert {line["status"] for line in written} == {400}
    again = {customer["id"] for call in sandbox.calls[before:] for customer in call.customers}
    assert not again & {customer["id"] for customer in rejected.customers}
    assert summary["rejected"] == len(rejected.customers)
    assert (summary["unsent"] == 0) == (on_rejected == "continue")


def test_a_second_rejection_that_is_not_saved_causes_no_retry_that_would_send_it_again(sandbox, no_waits):
    class FullSoon(Store):
        def set(self, key, value):
            if self.sets:
                raise ConnectionError
            super().set(key, value)

    sandbox.script("400", "400", "503")
    options = {"customers": people(50), "batch_size": 10, "max_attempts": 1, "on_rejected": "continue"}
    summary = failed(BubblehouseRejectedError, FullSoon(), **options)
    assert (summary["rejected"], summary["unsent"]) == (20, 30)


@pytest.fixture
def execution_timeout():
    """Make SIGALRM raise what Airflow raises at a task's ``execution_timeout``."""

    def strike(_number, _frame):
        raise AirflowTaskTimeout("late")

    handler = signal.signal(signal.SIGALRM, strike)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, handler)


@pytest.mark.usefixtures("execution_timeout")
def test_a_timeout_while_rejected_rows_are_written_loses_no_rejection(sandbox, store, tmp_path, monkeypatch):
    def write_slowly(*_args):
        os.kill(os.getpid(), signal.SIGALRM)
        threading.Event().wait(30)

    options = {"customers": people(30), "batch_size": 10, "rejected_path": tmp_path / "out"}
    sandbox.script("400")
    with monkeypatch.context() as patch:
        patch.setattr(RejectedRows, "add_rejected", write_slowly)
        with pytest.raises(AirflowTaskTimeout):
            update(store, **options)
    failed(BubblehouseRejectedError, store, **options)
    assert len(sandbox.calls) == 1
    assert (tmp_path / "out" / "1.jsonl").read_text().count("\n") == 10


def test_rows_rejected_while_their_folder_cannot_be_written_are_written_once_it_can(sandbox, store, tmp_path):
    (tmp_path / "file").write_text("")
    options = {"customers": people(20), "batch_size": 10, "on_rejected": "continue"}
    sandbox.script("400")
    first = failed(BubblehousePermanentError, store, rejected_path=tmp_path / "file", **options)
    assert first["rejected"] == 10
    again = failed(BubblehouseRejectedError, store, rejected_path=tmp_path / "out", **options)
    assert (again["accepted"], again["rejected"]) == (10, 10)
    assert (tmp_path / "out" / "1.jsonl").read_text().count("\n") == 10
    assert sorted(map(int, sent(sandbox))) == list(range(1, 21))


class StrikingStore(Store):
    """Fails at first. At its second call the task's timeout strikes, and the call hangs."""

    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()

    def set(self, key, value):
        self.sets += 1
        if self.sets > 1:
            os.kill(os.getpid(), signal.SIGALRM)
            self.released.wait(30)
        raise ConnectionError


@pytest.mark.usefixtures("execution_timeout")
@pytest.mark.parametrize("on_rejected", ["stop", "continue"])
def test_a_timeout_while_the_push_ends_brings_no_retry_that_would_send_a_rejected_batch_again(sandbox, on_rejected):
    store = StrikingStore()
    sandbox.script("ok", "400")
    try:
        failed(BubblehouseRejectedError, store, customers=people(20), batch_size=10, on_rejected=on_rejected)
    finally:
        store.released.set()
    assert store.sets == 2


@pytest.fixture
def timeout_while_others_wait(execution_timeout, monkeypatch):
    """Strike soon after a push has begun to wait for the calls that are under way when it fails."""
    wind_down = loop.Loop._wind_down

    def strike_soon(*args):
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        return wind_down(*args)

    monkeypatch.setattr(loop.Loop, "_wind_down", strike_soon)


@pytest.mark.usefixtures("timeout_while_others_wait", "no_waits")
def test_a_timeout_while_the_push_waits_for_the_other_lanes_does_not_hide_a_permanent_error(sandbox):
    sandbox.script("401,delay=0.5", "ok,delay=1")
    failed(BubblehousePermanentError, customers=people(60), batch_size=10, max_attempts=1, in_flight=2)


@pytest.mark.usefixtures("timeout_while_others_wait", "no_waits")
def test_a_timeout_while_the_push_waits_for_the_other_lanes_loses_no_rejection(sandbox, store):
    options = {"customers": people(60), "batch_size": 10, "max_attempts": 1, "in_flight": 2}
    sandbox.script("503,delay=0.5", "400,delay=1")
    with pytest.raises((AirflowTaskTimeout, BubblehouseRejectedError)):
        update(store, **options)
    calls = len(sandbox.calls)
    failed(BubblehouseRejectedError, store, **options)
    assert len(sandbox.calls) == calls == 2


class Interruption:
    """A trace function that raises once, at the line of ``push`` with this number, as a signal handler may."""

    FOLDER = os.path.dirname(loop.__file__)

    def __init__(self, line: int) -> None:
        self.lines_left = line

    def __call__(self, frame, event, _arg):
        if os.path.dirname(frame.f_code.co_filename) != self.FOLDER:
            return None
        if event == "line":
            self.lines_left -= 1
            if self.lines_left == 0:
                raise AirflowTaskTimeout("late")
        return self


def test_wherever_a_push_is_interrupted_no_row_is_lost_and_no_rejection_is_sent_again(sandbox, tmp_path):
    for line in range(1, 10_000, 11):  # each line takes too long; which ones these are differs between runs anyway
        sandbox.clear()
        sandbox.script("ok", "400")
        store, folder = Store(), tmp_path / str(line)
        options = {"customers": people(40), "batch_size": 10, "on_rejected": "continue", "rejected_path": folder}
        interruption, tracer = Interruption(line), sys.gettrace()
        sys.settrace(interruption)
        try:
            update(store, **options)
        except (AirflowTaskTimeout, BubblehouseRejectedError):
            pass
        finally:
            sys.settrace(tracer)
        failed(BubblehouseRejectedError, store, **options)
        ids = [int(identity) for identity in sent(sandbox)]
        assert set(ids) == set(range(1, 41)), f"interrupted at line {line}"
        assert all(ids.count(rejected) == 1 for rejected in range(11, 21)), f"interrupted at line {line}"
        assert (folder / "11.jsonl").read_text().count("\n") == 10, f"interrupted at line {line}"
        if interruption.lines_left > 0:
            return
    raise AssertionError("the push has more lines")


def test_a_try_that_only_writes_rejected_rows_leaves_no_progress_to_continue_from(
    sandbox, store, tmp_path, monkeypatch
):
    options = {"customers": people(50), "batch_size": 10, "on_invalid": "skip", "rejected_path": tmp_path / "out"}
    sandbox.script("ok", "400")
    with monkeypatch.context() as patch:
        patch.setattr(RejectedRows, "add_rejected", interrupted(AirflowTaskTimeout))
        with pytest.raises(AirflowTaskTimeout):
            update(store, **options)
    for on_rejected in ("stop", "continue"):
        failed(BubblehouseRejectedError, store, **options | {"batch_size": 20, "on_rejected": on_rejected})
    assert (tmp_path / "out" / "11.jsonl").read_text().count("\n") == 10
    assert len(sandbox.calls) == 2


@pytest.mark.parametrize("in_flight", [1, 2])
def test_a_push_that_is_stopped_before_it_writes_rejected_rows_is_retried_and_then_writes_them(
    sandbox, store, tmp_path, in_flight
):
    options = {"customers": people(50), "batch_size": 10, "rejected_path": tmp_path / "out", "in_flight": in_flight}
    sandbox.script(*["400,delay=0.7"] * in_flight)
    started = Started(store, **options)
    wait_until(lambda: len(sandbox.calls) == in_flight)
    started.kill()
    assert started.summary["rejected"] == 10 * in_flight
    assert not (tmp_path / "out").exists()
    failed(BubblehouseRejectedError, store, **options)
    assert len(sandbox.calls) == in_flight
    assert rows_in(tmp_path / "out") == sorted(map(int, sent(sandbox)))


def test_without_a_store_a_push_that_is_stopped_writes_rejected_rows(sandbox, tmp_path):
    sandbox.script("400,delay=0.7")
    started = Started(
        ends_with=BubblehouseRejectedError, customers=people(50), batch_size=10, rejected_path=tmp_path / "out"
    )
    wait_until(lambda: sandbox.calls)
    started.kill()
    assert rows_in(tmp_path / "out") == list(range(1, 11))


def test_rejected_rows_that_are_written_are_not_written_again(sandbox, store, tmp_path, monkeypatch):
    options = {"customers": people(50), "batch_size": 10, "rejected_path": tmp_path / "out"}
    sandbox.script("400")
    failed(BubblehouseRejectedError, store, **options)
    monkeypatch.setattr(RejectedRows, "add_rejected", interrupted(AssertionError))
    failed(BubblehouseRejectedError, store, **options)


def test_rejected_rows_are_found_again_wherever_they_are_in_the_source(sandbox, store, tmp_path, monkeypatch):
    options = {"customers": people(3000), "batch_size": 900, "rejected_path": tmp_path / "out"}
    sandbox.script("ok", "400")
    with monkeypatch.context() as patch:
        patch.setattr(RejectedRows, "add_rejected", interrupted(OSError))
        with pytest.raises(OSError, match="late"):
            update(store, **options)
    failed(BubblehouseRejectedError, store, **options)
    assert rows_in(tmp_path / "out") == list(range(901, 1801))


def rows_in(folder) -> list[int]:
    lines = [line for file in folder.iterdir() for line in file.read_text().splitlines()]
    return sorted(json.loads(line)["row"] for line in lines)


def test_a_rejection_from_before_there_was_a_folder_does_not_claim_to_be_written(sandbox, store, tmp_path):
    options = {"customers": people(30), "batch_size": 10}
    sandbox.script("400")
    failed(BubblehouseRejectedError, store, **options)
    with pytest.raises(BubblehouseRejectedError) as caught:
        update(store, rejected_path=tmp_path / "out", **options)
    assert "They are in" not in str(caught.value)


# What progress depends on


def refuse(monkeypatch, *ids: str) -> None:
    """Make rows with these ids invalid, as a rule of another version might."""
    check = Converter.check

    def strict_check(self, chunk, first_number):
        checked = check(self, chunk, first_number)
        identities = checked.identities()
        places = [place for place, identity in enumerate(identities) if identity not in ids]
        refused = [number for number, identity in zip(checked.numbers, identities, strict=True) if identity in ids]
        customers = checked.customers().pick(places)
        return replace(
            checked,
            numbers=[checked.numbers[place] for place in places],
            identities=lambda: [identities[place] for place in places],
            customers=lambda: customers,
            invalid=[InvalidRow(number, InvalidCustomerError("is not accepted", "id"), None) for number in refused],
        )

    monkeypatch.setattr(Converter, "check", strict_check)


@pytest.mark.parametrize(("in_flight", "accepted"), [(1, 4), (3, 6)])  # one batch at least of the lane of row 3
@pytest.mark.parametrize("upgraded", [True, False], ids=["the rules have another version", "nobody said so"])
def test_a_row_that_becomes_valid_between_two_tries_shifts_no_other_row(
    sandbox, store, no_waits, monkeypatch, upgraded, in_flight, accepted
):
    options = {"customers": people(30), "batch_size": 5, "max_attempts": 1, "on_invalid": "skip"}
    options["in_flight"] = in_flight
    with monkeypatch.context() as patch:
        refuse(patch, "3")
        sandbox.script(*["ok"] * accepted, "503")
        failed(BubblehouseTransientError, store, **options)
    if upgraded:
        monkeypatch.setattr(f"{RULES}.RULES_VERSION", 99)
    else:
        failed(BubblehouseTransientError, store, **options)
    summary = summed(update(store, **options))
    assert (summary["accepted"], summary["resumed_at"]) == (30, 0)
    assert {customer["id"] for customer in sandbox.customers()} == {row["id"] for row in people(30)}


def test_progress_that_does_not_fit_is_deleted_and_a_rejection_stays(sandbox, store, no_waits, monkeypatch):
    options = {"customers": people(30), "batch_size": 5, "max_attempts": 1, "on_invalid": "skip"}
    options["on_rejected"] = "continue"
    with monkeypatch.context() as patch:
        refuse(patch, "3")
        sandbox.script("ok", "400", "503")
        failed(BubblehouseTransientError, store, **options)
    for kind in (BubblehouseTransientError, BubblehouseRejectedError, BubblehouseRejectedError):
        failed(kind, store, **options)
    assert len(sandbox.calls) == 3


def test_progress_counts_rows_of_the_source_and_not_valid_ones(sandbox, store, no_waits, monkeypatch):
    refuse(monkeypatch, "3")
    sandbox.script("ok", "503")
    options = {"customers": people(30), "batch_size": 10, "max_attempts": 1, "on_invalid": "skip"}
    failed(BubblehouseTransientError, store, **options)
    (lane,) = json.loads(store.values["bubblehouse_push"])["lanes"]
    assert lane == {"row": 11, "accepted": 10, "rejected": 0, "unchanged": 0}


def test_progress_under_other_settings_is_deleted_before_the_first_call(sandbox, store, no_waits):
    a, b = ({"customers": people(30), "batch_size": size, "max_attempts": 1} for size in (10, 15))
    sandbox.script("ok", "503")
    failed(BubblehouseTransientError, store, **a)

    class DeletesOnly(Store):
        values = store.values

        def __init__(self) -> None:
            pass

        def set(self, key, value):
            raise ConnectionError

    sandbox.script("ok", "503")
    failed(BubblehouseTransientError, DeletesOnly(), **b)
    assert update(store, **a)["resumed_at"] == 0


@pytest.mark.parametrize("resume", [True, False])
def test_if_older_progress_cannot_be_deleted_nothing_is_sent_and_the_task_is_retried(sandbox, store, no_waits, resume):
    sandbox.script("ok", "503")
    failed(BubblehouseTransientError, store, customers=people(30), batch_size=10, max_attempts=1)

    class Stuck(Store):
        values = store.values

        def __init__(self) -> None:
            pass

        def delete(self, key):
            raise ConnectionError

    calls = len(sandbox.calls)
    with pytest.raises(BubblehouseTransientError, match="cannot be deleted"):
        update(Stuck(), customers=people(30), batch_size=15, resume=resume)
    assert len(sandbox.calls) == calls


def test_a_source_that_cannot_be_identified_deletes_older_progress(sandbox, store, no_waits, monkeypatch):
    from airflow_provider_bubblehouse.sources.records import ListSource

    options = {"customers": people(30), "batch_size": 10, "max_attempts": 1}
    sandbox.script("ok", "503")
    failed(BubblehouseTransientError, store, **options)
    with monkeypatch.context() as patch:
        patch.setattr(ListSource, "fingerprint", lambda _self: None)
        sandbox.script("ok", "503")
        failed(BubblehouseTransientError, store, **options)
    assert update(store, **options)["resumed_at"] == 0


def test_progress_of_another_format_is_not_continued(sandbox, store, no_waits, caplog):
    options = {"customers": people(30), "batch_size": 10, "max_attempts": 1}
    sandbox.script("ok", "503")
    failed(BubblehouseTransientError, store, **options)
    store.set("bubblehouse_push", store.get("bubblehouse_push") | {"format": 99})
    assert update(store, **options)["resumed_at"] == 0
    assert "another version of this package" in caplog.text


def test_a_row_that_becomes_invalid_after_the_progress_is_never_left_out(sandbox, store, no_waits, monkeypatch):
    options = {"customers": people(30), "batch_size": 10, "max_attempts": 1}
    sandbox.script("ok", "503")
    failed(BubblehouseTransientError, store, **options)
    refuse(monkeypatch, "25")
    failed(BubblehousePermanentError, store, **options)


def test_progress_of_the_first_release_is_not_continued_and_a_log_line_says_so(sandbox, store, caplog):
    first_release = {"fingerprint": "0" * 64, "progress": {"lanes": [{"accepted": 7, "rejected": 0}], "read": 9}}
    store.set("bubblehouse_push", first_release)
    assert update(store, customers=people(3))["resumed_at"] == 0
    assert "another version of this package" in caplog.text
    assert store.values == {}


def test_another_host_starts_over(sandbox, store, no_waits, monkeypatch):
    options = {"customers": people(30), "batch_size": 10, "max_attempts": 1}
    sandbox.script("ok", "503")
    failed(BubblehouseTransientError, store, **options)
    host = sandbox.connection().replace("127.0.0.1", "localhost")
    monkeypatch.setenv("AIRFLOW_CONN_BUBBLEHOUSE_DEFAULT", host)
    assert update(store, **options)["resumed_at"] == 0


def test_another_file_format_starts_over(sandbox, store, no_waits, tmp_path):
    path = write_lines(tmp_path / "a.jsonl", people(30))
    options = {"path": path, "batch_size": 10, "max_attempts": 1}
    sandbox.script("ok", "503")
    failed(BubblehouseTransientError, store, **options)
    assert update(store, file_format="jsonl", **options)["resumed_at"] == 0


DIALECTS = [
    {"delimiter": ";"},
    {"encoding": "cp1252"},
    {"quote_char": "'"},
    {"escape_char": "\\"},
    {"null_values": ["NULL"]},
    {"column_names": ["id"]},
    {"skip_rows": 1},
]


@pytest.mark.parametrize(
    ("dialect", "starts_over"), [*((dialect, True) for dialect in DIALECTS), (None, False), ({"delimiter": ","}, False)]
)
def test_another_csv_dialect_starts_over(sandbox, store, no_waits, tmp_path, dialect, starts_over):
    path = tmp_path / "a.csv"
    path.write_text("id\nid\n" + "".join(f"{number}\n" for number in range(30)))  # each dialect finds a header
    options = {"path": path, "batch_size": 10, "max_attempts": 1, "on_invalid": "skip"}
    sandbox.script("ok", "503")
    failed(BubblehouseTransientError, store, **options)
    assert (update(store, csv=dialect, **options)["resumed_at"] == 0) is starts_over


def test_another_limit_of_deletions_starts_over_and_is_checked(sandbox, store, no_waits):
    def delete(max_customers):
        operator = DeleteCustomersOperator(
            task_id="push", customers=people(30), batch_size=10, max_attempts=1, max_customers=max_customers
        )
        return operator.execute({"task_state_store": store})

    sandbox.script("ok", "503")
    with pytest.raises(BubblehouseTransientError):
        delete(30)
    calls = len(sandbox.calls)
    with pytest.raises(BubblehousePermanentError, match="more than the 20 rows"):
        delete(20)
    assert len(sandbox.calls) == calls


@pytest.mark.parametrize(
    ("limit", "match"),
    [({"min_customers": 41}, "fewer than the 41 that min_customers requires"), ({"max_invalid": 0}, "allows 0")],
    ids=str,
)
def test_another_limit_of_the_source_starts_over_and_is_checked(sandbox, store, no_waits, limit, match):
    rows = [*people(39), {"first_name": "nobody"}]
    options = {"customers": rows, "batch_size": 10, "max_attempts": 1, "on_invalid": "skip"}
    sandbox.script("ok", "503")
    failed(BubblehouseTransientError, store, **options)
    push = UpdateCustomersOperator(task_id="push", **options)._prepare({"task_state_store": store})
    push.plan = replace(push.plan, **limit)
    with pytest.raises(BubblehousePermanentError, match=match):
        push.run()
    assert len(sandbox.calls) == 2


# The source must not change


class Changing:
    """A source that changes after it was read so many times: it has other rows then, and another version or not."""

    def __init__(self, source, *, reads: int, rows: list, version: object = None) -> None:
        self._source, self._left, self._rows, self._version = source, reads, rows, version
        self.fingerprint, self.share_read = source.fingerprint, source.share_read

    def version(self):
        return self._version if self._left <= 0 else "first"

    def chunks(self):
        from airflow_provider_bubblehouse.sources.records import ListSource

        source = self._source if self._left > 0 else ListSource(self._rows)
        yield from source.chunks()
        self._left -= 1


@pytest.mark.parametrize(
    ("on_invalid", "reads", "rows", "version", "calls"),
    [
        ("fail", 1, people(30), "second", 0),
        ("fail", 1, people(29), "first", None),
        ("fail", 1, people(31), "first", None),
        ("fail", 2, people(30), "second", 3),
        ("skip", 1, people(30), "second", 3),
    ],
    ids=[
        "newer after it was validated",
        "fewer rows than validated",
        "more rows than validated",
        "newer at the end",
        "newer at the end of its only pass",
    ],
)
def test_a_source_that_changes_is_never_a_success(sandbox, on_invalid, reads, rows, version, calls):
    operator = UpdateCustomersOperator(task_id="push", customers=people(30), batch_size=10, on_invalid=on_invalid)
    push = operator._prepare({})
    push.source = Changing(push.source, reads=reads, rows=rows, version=version)
    with pytest.raises(BubblehousePermanentError, match="changed while being read"):
        push.run()
    assert calls is None or len(sandbox.calls) == calls


def test_a_source_whose_rows_become_invalid_after_they_were_counted_is_never_a_success(sandbox):
    options = {"customers": people(30), "on_invalid": "skip", "min_customers": 30}
    push = UpdateCustomersOperator(task_id="push", **options)._prepare({})
    push.source = Changing(push.source, reads=1, rows=[*people(29), {"first_name": "nobody"}], version="first")
    with pytest.raises(BubblehousePermanentError, match="changed while being read"):
        push.run()


def test_a_source_that_changes_while_it_is_validated_is_not_judged_by_its_rows(sandbox):
    rows = [{"first_name": "nobody"}]
    push = UpdateCustomersOperator(task_id="push", customers=rows)._prepare({})
    push.source = Changing(push.source, reads=1, rows=rows, version="second")
    with pytest.raises(BubblehousePermanentError, match="changed while being read"):
        push.run()


def test_a_source_that_has_fewer_rows_than_an_earlier_try_has_read_is_never_a_success(sandbox, store, no_waits):
    options = {"customers": people(30), "batch_size": 10, "max_attempts": 1}
    sandbox.script("ok", "503")
    failed(BubblehouseTransientError, store, **options)
    push = UpdateCustomersOperator(task_id="push", **options)._prepare({"task_state_store": store})
    push.source = Changing(push.source, reads=0, rows=people(25), version="first")
    with pytest.raises(BubblehousePermanentError, match="changed while being read"):
        push.run()


# Saving


class HangingStore(Store):
    """Hangs whenever it is to store something, until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.is_asked, self.released = threading.Event(), threading.Event()

    def set(self, key, value):
        self.is_asked.set()
        self.released.wait(60)
        super().set(key, value)


def test_a_store_that_hangs_does_not_delay_the_push(sandbox, monkeypatch):
    monkeypatch.setattr(loop, "_TICK", 0.0)
    store = HangingStore()
    try:
        assert update(store, customers=people(200), batch_size=10)["accepted"] == 200
    finally:
        store.released.set()


@pytest.mark.parametrize(
    ("script", "ends_with"),
    [(["ok", "delay=60"], BubblehouseTransientError), (["400", "delay=60"], BubblehouseRejectedError)],
    ids=["in a call", "in a call, with a rejection that cannot be saved"],
)
def test_a_store_that_hangs_does_not_keep_a_push_from_stopping(sandbox, script, ends_with):
    store = HangingStore()
    sandbox.script(*script)
    started = Started(store, ends_with=ends_with, customers=people(30), batch_size=10, on_rejected="continue")
    try:
        wait_until(lambda: len(sandbox.calls) == 2)
        wait_until(store.is_asked.is_set)
        assert started.kill() < 4.5  # after 5 s Airflow kills the process
    finally:
        store.released.set()


class OutageStore(Store):
    """Fails at once, and after that each call takes as long as a client that gives up."""

    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()

    def set(self, key, value):
        self.sets += 1
        if self.sets > 1:
            self.released.wait(60)
        raise ConnectionError


def test_a_failing_store_delays_no_batch_after_a_rejection(sandbox, monkeypatch):
    monkeypatch.setattr(saver, "_FIRST_WAIT", 0.01)
    store = OutageStore()
    sandbox.script("400", "ok,delay=0.2", "400", "ok", "400")
    started = time.monotonic()
    operator = UpdateCustomersOperator(task_id="push", customers=people(60), batch_size=10, on_rejected="continue")
    push = operator._prepare({"task_state_store": store})
    monkeypatch.setattr(push._loop, "save_at_end", lambda **_kwargs: store.released.set())
    with pytest.raises(BubblehouseRejectedError):
        push.run()
    assert time.monotonic() - started < loop._SAVE_TIMEOUT / 2
    assert len(sandbox.calls) == 6


def test_a_store_that_hangs_delays_one_batch_after_a_rejection(sandbox, monkeypatch):
    monkeypatch.setattr(loop, "_SAVE_TIMEOUT", 0.5)
    store = HangingStore()
    sandbox.script(*["400"] * 20)
    started = time.monotonic()
    try:
        failed(BubblehouseRejectedError, store, customers=people(200), batch_size=10, on_rejected="continue")
    finally:
        store.released.set()
    assert time.monotonic() - started < 5  # not 20 times 0.5 s


def test_a_timeout_while_the_progress_is_deleted_does_not_wait_for_a_last_save(sandbox, monkeypatch):
    class Interrupted(Store):
        def delete(self, key):
            raise AirflowTaskTimeout("late")

    started = time.monotonic()
    with pytest.raises(AirflowTaskTimeout):
        update(Interrupted(), customers=people(30), batch_size=10)
    assert time.monotonic() - started < loop._SAVE_TIMEOUT / 2


def test_a_state_is_saved_once(sandbox, store, monkeypatch):
    monkeypatch.setattr(loop, "_TICK", 0.01)
    sandbox.script("ok", "delay=0.5")
    update(store, customers=people(20), batch_size=10)
    assert store.sets <= 2  # one for each batch


class CountingStore(Store):
    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures = failures

    def set(self, key, value):
        self.sets += 1
        if self.sets <= self.failures:
            raise ConnectionError
        self.values[key] = json.dumps(value)


def test_a_failing_store_is_retried_after_growing_waits_and_logged_once(monkeypatch, caplog):
    monkeypatch.setattr(saver, "_FIRST_WAIT", 0.01)
    store = CountingStore(failures=4)
    saving = saver.Saver(store, on_broken_pipe=lambda: None)
    saving.save({"row": 1})
    wait_until(lambda: "bubblehouse_push" in store.values)
    assert store.sets == 5
    assert saving.close(timeout=30)
    assert caplog.text.count("cannot be saved") == 1


def test_requests_do_not_hurry_a_failing_store(monkeypatch):
    monkeypatch.setattr(saver, "_FIRST_WAIT", 1000.0)
    store = CountingStore(failures=1)
    saving = saver.Saver(store, on_broken_pipe=lambda: None)
    for row in range(100):
        assert saving.save_now({"row": row}, timeout=lambda: 30) is False
        wait_until(saving._requests.empty)
    assert store.sets == 1
    assert saving.save_now({"row": 100}, timeout=lambda: 30, even_if_failing=True) is True
    assert json.loads(store.values["bubblehouse_push"]) == {"row": 100}
    saving.close(timeout=30)


def test_the_waits_for_a_failing_store_double_up_to_a_limit(monkeypatch):
    monkeypatch.setattr(saver, "_FIRST_WAIT", 0.02)
    monkeypatch.setattr(saver, "_MAX_WAIT", 0.08)
    tries = []

    class Failing(Store):
        def set(self, key, value):
            tries.append(time.monotonic())
            raise ConnectionError

    saving = saver.Saver(Failing(), on_broken_pipe=lambda: None)
    saving.save({"row": 1})
    wait_until(lambda: len(tries) >= 8)
    saving.close(timeout=30)
    waits = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert all(wait >= least for wait, least in zip(waits, [0.02, 0.04, 0.08, 0.08], strict=False))
    assert min(waits[3:]) < 0.16  # the least that the fourth one would be without the limit


# A lost supervisor


@pytest.mark.parametrize("in_flight", [1, 4])
def test_without_its_supervisor_a_push_stops_and_saves_nothing(sandbox, store, monkeypatch, in_flight):
    monkeypatch.setattr(loop, "_TICK", 0.001)
    operator = UpdateCustomersOperator(task_id="push", customers=people(5000), batch_size=10, in_flight=in_flight)
    push = operator._prepare({"task_state_store": store})
    sets_when_lost: list[int] = []

    def is_lost() -> bool:
        if len(sandbox.calls) >= 20 and not sets_when_lost:
            wait_until(lambda: store.values)
            sets_when_lost.append(store.sets)
        return bool(sets_when_lost)

    push._loop._is_orphan = is_lost
    with pytest.raises(BubblehouseTransientError, match="supervises this task has ended"):
        push.run()
    assert len(sandbox.calls) < 60
    assert store.sets <= sets_when_lost[0] + 1  # one may have been under way


def test_a_failing_push_without_its_supervisor_does_not_overwrite_the_progress_of_its_retry(
    sandbox, store, no_waits, monkeypatch
):
    monkeypatch.setattr(loop, "_TICK", 1e6)
    sandbox.script("ok", "503")
    options = {"customers": people(30), "batch_size": 10, "max_attempts": 1}
    push = UpdateCustomersOperator(task_id="push", **options)._prepare({"task_state_store": store})
    push._loop._is_orphan = lambda: True
    with pytest.raises(BubblehouseTransientError):
        push.run()
    assert store.sets == 0


@pytest.mark.parametrize("error", [BrokenPipeError, ConnectionResetError, EOFError])
def test_a_broken_pipe_to_the_supervisor_stops_the_push(sandbox, monkeypatch, error):
    class Broken(Store):
        def set(self, key, value):
            raise error

    monkeypatch.setattr(loop, "_TICK", 0.0)
    sandbox.rates({"delay=0.05": 1.0})
    summary = failed(BubblehouseTransientError, Broken(), customers=people(2000), batch_size=10)
    assert 0 < summary["accepted"] < 1000


def test_a_task_in_dags_test_needs_no_supervisor(monkeypatch):
    from airflow_provider_bubblehouse.operators.supervision import orphan_check

    is_orphan = orphan_check({})
    monkeypatch.setattr(os, "getppid", lambda: 1)
    assert not is_orphan()


def test_the_supervisor_of_a_task_of_airflow_2_is_its_parent_process(monkeypatch):
    from airflow_provider_bubblehouse.operators.supervision import orphan_check

    class TaskInstance:
        job_id = 7

    is_orphan = orphan_check({"ti": TaskInstance()})
    assert not is_orphan()
    monkeypatch.setattr(os, "getppid", lambda: 1)
    assert is_orphan()
