"""The example DAGs: Airflow takes them without a warning, they retry, and they run."""

from __future__ import annotations

import json

import pytest
from airflow.models.pool import Pool
from versions import AIRFLOW, EXAMPLE_NAMES, importable_examples, warnings_of

try:
    from airflow.dag_processing.dagbag import DagBag
except ImportError:  # Airflow 2
    from airflow.models.dagbag import DagBag

WAITS_FOR_A_PERSON = "delete_after_approval"  # whom tests/system/test_approval.py stands in for
NEWER_AIRFLOW = {"push_changed_customers": ((3, 3), "the asset state store is new in Airflow 3.3")}


@pytest.fixture(params=EXAMPLE_NAMES)
def bag(request, airflow_database, tmp_path) -> DagBag:
    return DagBag(dag_folder=str(importable_examples(tmp_path / "examples") / f"{request.param}.py"))


def test_an_example_is_parsed_without_a_warning_and_retries(bag):
    assert bag.import_errors == {}
    assert warnings_of(bag) == []
    (dag,) = bag.dags.values()
    assert dag.max_active_runs == 1
    assert dag.catchup is False
    sending = [one for one in dag.tasks if "extract" not in one.task_id and "list_" not in one.task_id]
    assert {one.retries for one in sending} == {3}


def test_an_example_runs(bag, sandbox, run_dag, tries_of, monkeypatch, chinook_database):
    monkeypatch.setenv("AIRFLOW_CONN_SHOP_DATABASE", json.dumps({"conn_type": "sqlite", "host": chinook_database}))
    monkeypatch.setenv("AIRFLOW_CONN_BUBBLEHOUSE_HTTP", sandbox.connection(conn_type="http", login=None))
    (dag,) = bag.dags.values()
    if dag.dag_id == WAITS_FOR_A_PERSON:
        pytest.skip("dag.test() waits until somebody answers")
    needed, reason = NEWER_AIRFLOW.get(dag.dag_id, (AIRFLOW, ""))
    if needed > AIRFLOW:
        pytest.skip(reason)
    # Without its pool a task waits for ever.
    Pool.create_or_update_pool("bubblehouse", slots=4, description="", include_deferred=False)
    for one in dag.tasks:
        if hasattr(one, "endpoint"):
            one.endpoint = one.endpoint.replace("my-shop", sandbox.shop)
    run_dag(dag)
    assert set(tries_of(dag).values()) == {("success", 1)}
    assert {call.status for call in sandbox.calls} == {200}
