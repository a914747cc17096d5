"""Three days of a daily DAG with a ledger on S3, under a real scheduler; a task is killed on the second day."""

from __future__ import annotations

import json

import pytest
from deployment import Deployment, Run

CUSTOMERS, CHANGED, BATCH = 2000, 20, 10

DAILY = """
    from datetime import UTC, datetime, timedelta

    from airflow.sdk import DAG

    from airflow_provider_bubblehouse.operators.customers import UpdateCustomersOperator

    with DAG(
        "daily",
        schedule="@daily",
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        end_date=datetime(2026, 1, 3, tzinfo=UTC),
        catchup=True,
        max_active_runs=1,
    ):
        UpdateCustomersOperator(
            task_id="push",
            path={exports!r} + "/{{{{ ds }}}}.jsonl",
            ledger_path={ledger!r},
            ledger_days=365,
            batch_size={batch},
            retries=3,
            retry_delay=timedelta(seconds=1),
        )
"""


@pytest.fixture
def own_deployment(running_sandbox, object_store, tmp_path):
    environment = {"AIRFLOW_CONN_BUBBLEHOUSE_DEFAULT": running_sandbox.connection()} | object_store.connections()
    with Deployment(tmp_path / "airflow", environment) as running:
        yield running


def names_on(day: int) -> dict[str, str]:
    """Return the customers of a day: some change on the second."""
    every = CUSTOMERS // CHANGED
    return {str(n): "new" if day > 1 and n % every == 0 else "old" for n in range(1, CUSTOMERS + 1)}


def run_of(day: int) -> Run:
    return Run("daily", f"scheduled__2026-01-0{day}T00:00:00+00:00")


def calls_for(rows: int) -> int:
    return rows // BATCH


def test_everything_is_sent_then_only_the_changes_and_then_nothing(own_deployment, sandbox, object_store):
    for day in (1, 2, 3):
        rows = ({"id": number, "first_name": name} for number, name in names_on(day).items())
        object_store.put(f"exports/2026-01-0{day}.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    sandbox.script(*["ok"] * calls_for(CUSTOMERS), "delay=60")  # the first call of the second day
    source = DAILY.format(exports=object_store.url("exports"), ledger=object_store.url("ledger"), batch=BATCH)
    own_deployment.add_dag("daily", source)
    own_deployment.api("PATCH", "/dags/daily", json={"is_paused": False})

    own_deployment.wait(run_of(1), "push")
    killed = own_deployment.task_process(run_of(2), "push")
    own_deployment.poll(lambda: len(sandbox.calls) > calls_for(CUSTOMERS), "the second day calls")
    own_deployment.poll(lambda: sandbox.calls[-1].fault, "its call waits for an answer")
    killed.kill()

    summaries = []
    for day in (1, 2, 3):
        own_deployment.wait(run_of(day), "push")
        assert own_deployment.wait_for_run(run_of(day)) == "success"
        summaries.append(own_deployment.xcom(run_of(day), "push"))
    assert [summary["read"] for summary in summaries] == [CUSTOMERS] * 3
    assert [summary["accepted"] for summary in summaries] == [CUSTOMERS, CHANGED, 0]
    assert [summary["unchanged"] for summary in summaries] == [0, CUSTOMERS - CHANGED, CUSTOMERS]
    assert [summary["calls"] for summary in summaries] == [calls_for(CUSTOMERS), calls_for(CHANGED), 0]
    assert [len(own_deployment.tries(run_of(day), "push")) for day in (1, 2, 3)] == [1, 2, 1]
    assert {customer["id"]: customer["first_name"] for customer in sandbox.customers()} == names_on(3)
    assert sum(call.rows for call in sandbox.calls) == CUSTOMERS + BATCH + CHANGED
    stored = object_store.keys()
    ledger = [key for key in stored if key.startswith("ledger/")]
    assert [key.rpartition("/")[2] for key in ledger] == ["ledger-00000001.sqlite", "ledger-00000002.sqlite"]
