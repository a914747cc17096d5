"""DAGs that push only what has changed, from the examples and the docs: a failed run loses nothing."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from versions import AIRFLOW, importable

try:
    from airflow.dag_processing.dagbag import DagBag
except ImportError:  # Airflow 2
    from airflow.models.dagbag import DagBag

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "dags_examples" / "push_changed_customers.py"


def docs_dag(*, variable: bool) -> str:
    """Return the DAG of the docs, or what the docs make of it for an Airflow before 3.3."""
    section = (ROOT / "docs" / "databases.md").read_text().partition("## Push only changed rows")[2]
    dag, before_3_3 = re.findall(r"```python\n(.*?)```", section, re.DOTALL)[:2]
    head, with_dag, rest = dag.partition("with DAG(")
    return head + before_3_3 * variable + with_dag + rest


needs_asset_state_store = pytest.mark.skipif(AIRFLOW < (3, 3), reason="the asset state store is new in Airflow 3.3")
SOURCES = [
    pytest.param(EXAMPLE.read_text(), marks=needs_asset_state_store, id="example"),
    pytest.param(docs_dag(variable=False), marks=needs_asset_state_store, id="docs"),
    pytest.param(docs_dag(variable=True), id="docs_before_3_3"),
]


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A database with the table of the example, empty."""
    path = tmp_path / "shop.db"
    monkeypatch.setenv("AIRFLOW_CONN_SHOP_DATABASE", json.dumps({"conn_type": "sqlite", "host": str(path)}))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE Customer (CustomerId PRIMARY KEY, Email, FirstName, LastName, UpdatedAt)")
        yield connection


def save(shop, customer: str, name: str, updated_at: str) -> None:
    shop.execute("REPLACE INTO Customer VALUES (?, NULL, ?, NULL, ?)", (customer, name, updated_at))


@pytest.fixture(params=SOURCES)
def push(request, airflow_database, sandbox, run_dag, tmp_path):
    """Return what runs the DAG at some time, with batches of one row, and returns its final state and the ids sent."""
    forget_watermark()
    (tmp_path / "changed.py").write_text(importable(request.param))
    bag = DagBag(dag_folder=str(tmp_path / "changed.py"))
    assert bag.import_errors == {}
    (dag,) = bag.dags.values()

    def run(time: str):
        before = len(sandbox.calls)
        times = iter([time])
        dag.task_dict["upper"].python_callable = lambda: next(times)  # a second call would fail
        operator = dag.task_dict["push_customers"]
        operator.batch_size, operator.max_attempts, operator.retry_delay = 1, 1, timedelta(0)
        state = run_dag(dag).state
        sent = [customer["id"] for call in sandbox.calls[before:] for customer in call.customers]
        return str(state), sent

    yield run
    forget_watermark()


def query_airflow(sql: str) -> list[tuple]:
    with closing(sqlite3.connect(Path(os.environ["AIRFLOW_HOME"]) / "airflow.db", isolation_level=None)) as connection:
        return connection.execute(sql).fetchall()


def forget_watermark() -> None:
    if AIRFLOW >= (3, 3):
        query_airflow("DELETE FROM asset_state_store")
    query_airflow("DELETE FROM variable")


def watermark() -> str | None:
    stored = query_airflow("SELECT json_extract(value, '$') FROM asset_state_store") if AIRFLOW >= (3, 3) else []
    stored += query_airflow("SELECT val FROM variable")
    assert len(stored) <= 1
    return stored[0][0] if stored else None


MONDAY, TUESDAY, WEDNESDAY = (f"2026-03-0{day}T12:00:00+00:00" for day in (2, 3, 4))


@pytest.mark.parametrize(("failure", "tries"), [("400", 1), ("401:invalid_token", 1), ("503", 4)])
def test_a_failed_run_between_two_good_ones_loses_nothing(shop, push, sandbox, failure, tries):
    for customer in "123":
        save(shop, customer, "Ada", "2026-03-01 08:00:00")
    assert push(MONDAY) == ("success", ["1", "2", "3"])
    assert watermark() == MONDAY

    save(shop, "2", "Grace", "2026-03-03 08:00:00")
    save(shop, "4", "Edsger", "2026-03-03 09:00:00")
    sandbox.script("ok", *[failure] * tries)
    state, sent = push(TUESDAY)
    assert state == "failed"
    assert sent[:2] == ["2", "4"]
    assert watermark() == MONDAY

    save(shop, "1", "Barbara", "2026-03-04 08:00:00")
    assert push(WEDNESDAY) == ("success", ["1", "2", "4"])
    assert watermark() == WEDNESDAY
    names = {customer["id"]: customer["first_name"] for customer in sandbox.customers()}
    assert names == dict(shop.execute("SELECT CustomerId, FirstName FROM Customer"))


def test_a_retry_makes_the_same_query(shop, push, sandbox):
    for customer in "123":
        save(shop, customer, "Ada", "2026-03-01 08:00:00")
    sandbox.script("ok", "503")
    resumes = AIRFLOW >= (3, 3)
    assert push(MONDAY) == ("success", ["1", "2", "2", "3"] if resumes else ["1", "2", "1", "2", "3"])


def test_rows_committed_late_are_pushed_by_the_next_run(shop, push):
    assert push(MONDAY) == ("success", [])
    save(shop, "1", "Ada", "2026-03-02 11:50:00")
    assert push(TUESDAY) == ("success", ["1"])


def test_rows_that_change_after_the_upper_bound_was_taken_are_pushed_by_the_next_run(shop, push):
    save(shop, "1", "Ada", "2026-03-02 12:00:01")
    assert push(MONDAY) == ("success", [])
    assert push(TUESDAY) == ("success", ["1"])


def test_an_old_run_that_is_pushed_again_does_not_move_the_watermark_back(shop, push):
    assert push(TUESDAY)[0] == "success"
    assert push(MONDAY)[0] == "success"
    assert watermark() == TUESDAY
