"""The operators inside a run of Airflow: retries, XCom input, mapping, and what Airflow keeps of it all."""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from airflow_provider_bubblehouse.airflow_compat import DAG, task
from airflow_provider_bubblehouse.operators.customers import DeleteCustomersOperator, UpdateCustomersOperator

NUMBER = itertools.count()
EXAMPLES = Path(__file__).parents[2] / "dags_examples"


@pytest.fixture
def dag() -> DAG:
    return DAG(
        dag_id=f"test_{next(NUMBER)}",
        schedule=None,
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        default_args={"retries": 3, "retry_delay": timedelta(0)},
    )


def stored(dag_id: str, table: str, columns: str) -> list[tuple]:
    """Return what Airflow's database holds of a DAG's run."""
    with sqlite3.connect(f"{os.environ['AIRFLOW_HOME']}/airflow.db") as connection:
        return connection.execute(f"SELECT {columns} FROM {table} WHERE dag_id = ?", (dag_id,)).fetchall()


def states_and_tries(dag_id: str) -> dict[str, tuple[str, int]]:
    return {row[0]: row[1:] for row in stored(dag_id, "task_instance", "task_id, state, try_number")}


def summary_of(dag_id: str, task_id: str = "push") -> dict:
    for name, value in stored(dag_id, "xcom", "task_id, value"):
        if name == task_id:
            return json.loads(value)
    raise LookupError(f"{task_id} left no XCom.")


@pytest.mark.parametrize(
    "fault", ["400", "401:invalid_token", "404", "413", "429:rate_limit_exceeded", "redirect", "html", "202"]
)
def test_an_answer_that_a_retry_cannot_fix_fails_the_task_on_its_first_try_with_one_call(sandbox, run_dag, dag, fault):
    sandbox.script(fault)
    UpdateCustomersOperator(task_id="push", customers=[{"id": "1"}], dag=dag)
    run_dag(dag)
    assert states_and_tries(dag.dag_id) == {"push": ("failed", 1)}
    assert len(sandbox.calls) == 1


@pytest.mark.parametrize("fault", ["500", "503", "reset", "reset,processed", "cut"])
def test_a_transient_fault_is_tried_again_and_then_the_task_is_retried(sandbox, run_dag, dag, no_waits, fault):
    sandbox.script(*[fault] * 5)
    UpdateCustomersOperator(task_id="push", customers=[{"id": "1"}], max_attempts=2, dag=dag)
    run_dag(dag)
    assert states_and_tries(dag.dag_id) == {"push": ("success", 3)}
    assert len(sandbox.calls) == 6
    assert summary_of(dag.dag_id)["accepted"] == 1


def test_a_transient_fault_that_lasts_fails_the_task_after_its_last_try(sandbox, run_dag, dag, no_waits):
    sandbox.rates({"503": 1.0})
    UpdateCustomersOperator(task_id="push", customers=[{"id": "1"}], max_attempts=1, dag=dag)
    run_dag(dag)
    assert states_and_tries(dag.dag_id) == {"push": ("failed", 4)}
    assert len(sandbox.calls) == 4


@pytest.mark.parametrize("customers", ["no JSON", "{{ [] }} x"])
def test_bad_input_fails_the_task_on_its_first_try_without_a_call(sandbox, run_dag, dag, customers):
    UpdateCustomersOperator(task_id="push", customers=customers, dag=dag)
    run_dag(dag)
    assert states_and_tries(dag.dag_id) == {"push": ("failed", 1)}
    assert sandbox.calls == []


PEOPLE = [
    {"id": "sentinel-1", "email": "sentinel@example.com", "phone": "+15550000001", "first_name": "Sentinel {{ 7*7 }}"},
    {"id": "sentinel-2", "last_name": "{{ dag.dag_id }}"},
]


def by_xcom_arg(dag: DAG) -> None:
    with dag:

        @task
        def extract() -> list[dict]:
            return PEOPLE

        UpdateCustomersOperator(task_id="push", customers=extract())


def by_template(dag: DAG) -> None:
    with dag:

        @task
        def extract() -> list[dict]:
            return PEOPLE

        extract() >> UpdateCustomersOperator(
            task_id="push", customers="{{ ti.xcom_pull(task_ids='extract') | tojson }}"
        )


def by_mapping(dag: DAG) -> None:
    with dag:

        @task
        def extract() -> list[list[dict]]:
            return [[person] for person in PEOPLE]

        UpdateCustomersOperator.partial(task_id="push").expand(customers=extract())


def by_list_of_xcom_args(dag: DAG) -> None:
    with dag:

        @task
        def extract(number: int) -> dict:
            return PEOPLE[number]

        UpdateCustomersOperator(task_id="push", customers=[extract(0), extract(1)])


def by_literal(dag: DAG) -> None:
    UpdateCustomersOperator(task_id="push", customers=PEOPLE, dag=dag)


WAYS = [by_xcom_arg, by_template, by_mapping, by_list_of_xcom_args, by_literal]


@pytest.mark.parametrize("way", WAYS)
def test_rows_arrive_as_they_are_whichever_way_they_come(sandbox, run_dag, dag, way):
    way(dag)
    assert run_dag(dag).state == "success"
    arrived = [customer for call in sandbox.calls for customer in call.customers]
    assert sorted(arrived, key=lambda customer: customer["id"]) == PEOPLE


@pytest.mark.parametrize("way", WAYS)
def test_airflow_stores_no_row_of_a_task(sandbox, run_dag, dag, way):
    way(dag)
    run_dag(dag)
    rendered = stored(dag.dag_id, "rendered_task_instance_fields", "task_id, rendered_fields")
    pushed = [fields for name, fields in rendered if name == "push"]
    kept = [value for name, value in stored(dag.dag_id, "xcom", "task_id, value") if name == "push"]
    assert len(pushed) == len(kept) == (2 if way is by_mapping else 1)
    assert all("customers" in fields for fields in pushed)
    assert "sentinel" not in str(pushed + kept).lower()
    assert "+1555" not in str(pushed + kept)


def test_a_path_may_be_a_template(sandbox, run_dag, dag, tmp_path):
    (tmp_path / f"{dag.dag_id}.jsonl").write_text('{"id": "1"}\n')
    UpdateCustomersOperator(task_id="push", path=f"{tmp_path}/{{{{ dag.dag_id }}}}.jsonl", dag=dag)
    assert run_dag(dag).state == "success"
    assert len(sandbox.customers()) == 1


def test_files_may_be_mapped_over(sandbox, run_dag, dag, tmp_path):
    for number in (1, 2, 3):
        (tmp_path / f"{number}.jsonl").write_text(json.dumps({"id": str(number)}))
    UpdateCustomersOperator.partial(task_id="push", dag=dag).expand(path=[f"{tmp_path}/{n}.jsonl" for n in (1, 2, 3)])
    assert run_dag(dag).state == "success"
    assert len(sandbox.customers()) == 3


def test_deletions_come_from_xcom_too(sandbox, run_dag, dag):
    with dag:

        @task
        def extract() -> list[dict]:
            return [{"id": "1"}]

        DeleteCustomersOperator(task_id="push", customers=extract(), max_customers=1)
    assert run_dag(dag).state == "success"
    assert sandbox.calls[0].customers == [{"id": "1", "deleted": True}]


def test_defaults_of_a_dag_reach_every_parameter(dag):
    dag.default_args.update(batch_size=7, timezone="Europe/Berlin", max_attempts=2)
    operator = UpdateCustomersOperator(task_id="push", path="x", dag=dag)
    assert (operator.batch_size, operator.timezone, operator.max_attempts, operator.retries) == (
        7,
        "Europe/Berlin",
        2,
        3,
    )
