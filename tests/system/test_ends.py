"""Pushes that a real Airflow ends in every way it knows: nothing is lost, and the next try goes on from there."""

from __future__ import annotations

import json
import time
from contextlib import suppress

import psutil
import pytest

ROWS, BATCH, LANES = 20_000, 100, 2
DELAY = 0.1  # seconds an answer takes, so that a push lasts for some seconds
AIRFLOW_KILLS_AFTER = 5.0  # seconds from SIGTERM to SIGKILL

DAG = """
    from datetime import timedelta

    from airflow.sdk import DAG

    from airflow_provider_bubblehouse.operators.customers import UpdateCustomersOperator

    with DAG({name!r}, max_active_runs=1):
        UpdateCustomersOperator(task_id="push", retry_delay=timedelta(seconds=1), **{options!r})
"""


@pytest.fixture
def start(deployment, sandbox, request, tmp_path):
    """Return what starts a run that pushes a file of so many rows; the DAG is named after the test."""

    def begin(rows: int = ROWS, **options):
        path = tmp_path / "customers.jsonl"
        write_customers(path, rows)
        name = "".join(letter if letter.isalnum() else "_" for letter in request.node.name)
        options = {"path": str(path), "batch_size": BATCH, "retries": 3} | options
        return deployment.trigger(deployment.add_dag(name, DAG.format(name=name, options=options)))

    return begin


def write_customers(path, rows: int) -> None:
    path.write_text("".join(json.dumps({"id": str(row), "first_name": "Ada"}) + "\n" for row in range(1, rows + 1)))


def accepted_rows(sandbox) -> int:
    return sum(call.rows for call in sandbox.calls if call.status == 200)


def identifiers(sandbox) -> set[str]:
    return {customer["id"] for customer in sandbox.customers()}


def wait_for_end(process: psutil.Process) -> float:
    """Wait until a task's process is gone, and return how long that took."""
    started = time.monotonic()
    with suppress(psutil.NoSuchProcess):
        process.wait(timeout=60)
    return time.monotonic() - started


def test_a_process_killed_three_times_loses_nothing_and_sends_little_again(deployment, sandbox, start):
    sandbox.rates({f"delay={DELAY}": 1.0})
    run = start(in_flight=LANES, retries=5)
    for kill in range(1, 4):
        process = deployment.task_process(run, "push", try_number=kill)
        before = accepted_rows(sandbox)
        deployment.poll(lambda before=before: accepted_rows(sandbox) > before + ROWS // 5, "a fifth more is pushed")
        process.kill()
        wait_for_end(process)
    assert deployment.wait_for_run(run) == "success"
    assert identifiers(sandbox) == {str(row) for row in range(1, ROWS + 1)}
    summary = deployment.xcom(run, "push")
    assert (summary["read"], summary["accepted"], summary["unsent"]) == (ROWS, ROWS, 0)
    assert summary["resumed_at"] > 0
    assert [each.number for each in deployment.tries(run, "push")] == [1, 2, 3, 4]
    sent_again = sum(call.rows for call in sandbox.calls if call.processed) - ROWS
    fastest = LANES * BATCH / DELAY  # rows a second
    under_way = LANES * BATCH
    assert sent_again <= 3 * (under_way + 1.5 * fastest)


def test_a_push_that_has_lost_its_supervisor_stops_and_the_next_try_resumes(deployment, sandbox, start):
    sandbox.rates({f"delay={DELAY}": 1.0})
    run = start(in_flight=LANES)
    process = deployment.task_process(run, "push")
    deployment.poll(lambda: accepted_rows(sandbox) > ROWS // 5, "a fifth is pushed")
    process.parent().kill()
    assert deployment.wait_for_run(run) == "success"
    assert identifiers(sandbox) == {str(row) for row in range(1, ROWS + 1)}
    sent_again = sum(call.rows for call in sandbox.calls if call.processed) - ROWS
    fastest = LANES * BATCH / DELAY  # rows a second
    under_way = LANES * BATCH
    assert sent_again <= under_way + 2 * fastest


@pytest.mark.parametrize("busy_with", ["503,retry_after=60", "delay=60"], ids=["backoff", "slow_answer"])
def test_sigterm_ends_the_process_before_airflow_would_kill_it_and_the_next_try_goes_on(
    deployment, sandbox, start, busy_with
):
    sandbox.script(*["ok"] * 10, busy_with)
    run = start(rows=3000)
    process = deployment.task_process(run, "push")
    deployment.poll(lambda: len(sandbox.calls) == 11, "the push is busy")
    deployment.poll(lambda: sandbox.calls[-1].fault, "the fault is met")
    process.terminate()
    assert wait_for_end(process) < AIRFLOW_KILLS_AFTER
    assert deployment.wait_for_run(run) == "success"
    summary = deployment.xcom(run, "push")
    assert (summary["accepted"], summary["resumed_at"]) == (3000, 1000)
    assert accepted_rows(sandbox) == 3000  # no completed row was sent again
    assert [each.number for each in deployment.tries(run, "push")] == [1, 2]


@pytest.mark.parametrize("how", ["marked_failed", "cleared"])
def test_a_task_that_is_marked_failed_or_cleared_while_it_runs_keeps_its_progress(deployment, sandbox, start, how):
    sandbox.script(*["ok"] * 10, "delay=60")
    run = start(rows=3000)
    process = deployment.task_process(run, "push")
    deployment.poll(lambda: len(sandbox.calls) == 11, "the push waits for an answer")
    # A task that is cleared is another to Airflow at once, and what it was can write nothing more.
    stored = "SELECT count(*) FROM task_state_store WHERE dag_id = ?"
    deployment.poll(lambda: deployment.query(stored, run.dag_id)[0][0], "the progress is kept")
    if how == "marked_failed":
        deployment.mark(run, "push", "failed")
        wait_for_end(process)
        assert "Summary of the push" in deployment.logs(run, "push")[1]  # it ended by itself
        assert deployment.wait_for_run(run) == "failed"
    deployment.clear(run, "push")
    deployment.wait(run, "push", states={"success"}, try_number=2)
    summary = deployment.xcom(run, "push")
    assert (summary["accepted"], summary["resumed_at"]) == (3000, 1000)
    assert accepted_rows(sandbox) == 3000


@pytest.mark.parametrize("on_rejected", ["stop", "continue"])
def test_a_rejected_batch_fails_the_task_without_retry_until_its_source_is_mended(
    deployment, sandbox, start, tmp_path, on_rejected
):
    folder = tmp_path / "rejected"
    sandbox.script("ok", "400:bad_rows")
    run = start(rows=500, on_rejected=on_rejected, rejected_path=str(folder))
    assert deployment.wait_for_run(run) == "failed"
    assert [each.number for each in deployment.tries(run, "push")] == [1]
    calls = len(sandbox.calls)
    assert calls == (2 if on_rejected == "stop" else 5)

    deployment.clear(run, "push")
    deployment.wait(run, "push", states={"failed"}, try_number=2)
    assert len(sandbox.calls) == calls

    name = f"rejected_rows_after_{on_rejected}"
    options = {"path": f"{folder}/**/*.jsonl", "file_format": "rejected"}
    again = deployment.trigger(deployment.add_dag(name, DAG.format(name=name, options=options)))
    assert deployment.wait_for_run(again) == "success"
    assert deployment.xcom(again, "push")["accepted"] == BATCH

    write_customers(tmp_path / "customers.jsonl", 501)
    deployment.clear(run, "push")
    deployment.wait(run, "push", states={"success"}, try_number=3)
    assert identifiers(sandbox) == {str(row) for row in range(1, 502)}
