"""OpenLineage's own provider tells of pushes what they read and wrote, and of no row; assets of the scheme work."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from airflow.providers.openlineage.extractors import OperatorLineage
from versions import AIRFLOW

from airflow_provider_bubblehouse.airflow_compat import HookLineageCollector
from airflow_provider_bubblehouse.exceptions import BubblehousePermanentError, BubblehouseRejectedError
from airflow_provider_bubblehouse.hooks.bubblehouse import BubblehouseHook
from airflow_provider_bubblehouse.lineage import report_lineage
from airflow_provider_bubblehouse.operators.customers import UpdateCustomersOperator
from airflow_provider_bubblehouse.sources.records import ListSource

if TYPE_CHECKING:
    from pathlib import Path

# The tasks run one after the other, so that the sandbox's faults meet the calls that they are meant for.
DAG_FILE = """
from datetime import UTC, datetime, timedelta

from airflow_provider_bubblehouse.airflow_compat import DAG, Asset, task
from airflow_provider_bubblehouse.hooks.bubblehouse import BubblehouseHook
from airflow_provider_bubblehouse.operators.customers import DeleteCustomersOperator, UpdateCustomersOperator

CUSTOMERS = Asset("{uri}")
ROWS = [{{"id": "sentinel-1", "first_name": "Sentinel"}}, {{"id": "sentinel-2"}}]

with DAG(
    dag_id="lineage",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    default_args={{"trigger_rule": "all_done", "batch_size": 2, "max_attempts": 1, "retry_delay": timedelta(0)}},
) as dag:

    @task
    def rows() -> list:
        return ROWS

    @task.bubblehouse_customers
    def of_function() -> list:
        return ROWS

    @task
    def of_hook() -> None:
        BubblehouseHook().update_customers(ROWS)

    tasks = [
        of_hook(),  # first, for in this one process hook lineage is kept from task to task
        UpdateCustomersOperator(task_id="of_files", path="{folder}/good-*.csv", outlets=[CUSTOMERS]),
        UpdateCustomersOperator(task_id="refused", path="{folder}/six.csv"),
        UpdateCustomersOperator(task_id="in_two_tries", path="{folder}/six.csv", retries=1),
        UpdateCustomersOperator(task_id="invalid", path="{folder}/invalid.csv"),
        UpdateCustomersOperator(task_id="in_a_dry_run", path="{folder}/six.csv", dry_run=True),
        UpdateCustomersOperator(task_id="of_many_files", path="{folder}/many/*.csv"),
        UpdateCustomersOperator(task_id="of_xcom", customers=rows()),
        of_function(),
        UpdateCustomersOperator(task_id="all_changed", path="{folder}/six.csv", ledger_path="{folder}/ledger"),
        UpdateCustomersOperator(task_id="one_changed", path="{folder}/changed.csv", ledger_path="{folder}/ledger"),
        DeleteCustomersOperator(task_id="deletion", path="{folder}/good-2.csv", max_customers=1),
    ]
    for before, after in zip(tasks, tasks[1:]):
        before >> after

with DAG(
    dag_id="scheduled_on_it",
    schedule=[CUSTOMERS],
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    is_paused_upon_creation=False,
):
    rows()

if __name__ == "__main__":
    dag.test()
"""
# of_hook, two batches of of_files, then refused and in_two_tries, whose second batch each meets its fault.
FAULTS = ("ok", "ok", "ok", "ok", "400", "ok", "503")


class Lineage(NamedTuple):
    folder: Path
    host: str
    shop: str
    token: str
    text: str

    def ends(self, task_id: str) -> list[dict[str, Any]]:
        """Return the last event of every try of a task."""
        events = map(json.loads, self.text.splitlines())
        return [
            event
            for event in events
            if event["job"]["name"] == f"lineage.{task_id}" and event["eventType"] in ("COMPLETE", "FAIL")
        ]

    def inputs(self, task_id: str, of_try: int = 0) -> list[tuple[str, str, dict | None]]:
        return [
            (one["namespace"], one["name"], shown(one.get("inputFacets"), "inputStatistics"))
            for one in self.ends(task_id)[of_try]["inputs"]
        ]

    def unchanged(self, task_id: str) -> dict | None:
        """Return the counts of this package's own facet."""
        return shown(self.ends(task_id)[0]["outputs"][0]["outputFacets"], "bubblehouse_customers")

    def outputs(self, task_id: str, of_try: int = 0) -> list[tuple[str, str, dict | None]]:
        return [
            (one["namespace"], one["name"], shown(one.get("outputFacets"), "outputStatistics"))
            for one in self.ends(task_id)[of_try]["outputs"]
        ]

    def customers(self, rows: int | None) -> list[tuple[str, str, dict | None]]:
        """Return the output that a push of so many rows is to have."""
        return [(f"bubblehouse://{self.host}", f"{self.shop}/customers", None if rows is None else {"rowCount": rows})]


def shown(facets: dict | None, name: str) -> dict | None:
    if not facets:
        return None
    return {key: value for key, value in facets[name].items() if not key.startswith("_") and value is not None}


@pytest.fixture(scope="module")
def lineage(running_sandbox, airflow_database, tmp_path_factory) -> Lineage:
    folder = tmp_path_factory.mktemp("lineage")
    (folder / "dags").mkdir()
    (folder / "many").mkdir()
    (folder / "good-1.csv").write_text("id,first_name\nsentinel-1,Sentinel\nsentinel-2,Sentinel\n")
    (folder / "good-2.csv").write_text("id,first_name\nsentinel-3,Sentinel\n")
    (folder / "six.csv").write_text("id\n" + "".join(f"sentinel-{number}\n" for number in range(6)))
    (folder / "changed.csv").write_text("id\n" + "".join(f"sentinel-{number}\n" for number in range(1, 7)))
    (folder / "invalid.csv").write_text("id,deleted\nsentinel-1,true\nsentinel-2,Sentinel\n")
    for number in range(60):
        (folder / "many" / f"{number}.csv").write_text(f"id\nsentinel-{number}\n")
    host = running_sandbox.url.partition("://")[2]
    uri = f"bubblehouse://{host}/{running_sandbox.shop}/customers"
    (folder / "dags" / "lineage.py").write_text(DAG_FILE.format(folder=folder, uri=uri))
    running_sandbox.clear()
    running_sandbox.script(*FAULTS)
    events = folder / "events.jsonl"
    environment = os.environ | {
        "AIRFLOW__CORE__DAGS_FOLDER": str(folder / "dags"),
        "AIRFLOW__OPENLINEAGE__DISABLED": "False",
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps({"type": "file", "log_file_path": str(events), "append": True}),
        # Everything that it can report of a task. The versions in the constraints of Airflow 3.0 to 3.2 recurse without
        # end then, whatever the task.
        "AIRFLOW__OPENLINEAGE__INCLUDE_FULL_TASK_INFO": str(not (3, 0) <= AIRFLOW <= (3, 2)),
        "AIRFLOW_CONN_BUBBLEHOUSE_DEFAULT": running_sandbox.connection(),
    }
    if AIRFLOW < (3, 1):  # whose dag.test() does not enter the DAGs of the folder into the database
        subprocess.run([sys.executable, "-m", "airflow", "dags", "reserialize"], env=environment, check=True)
    done = subprocess.run(
        [sys.executable, folder / "dags" / "lineage.py"], env=environment, capture_output=True, check=False, text=True
    )
    assert events.exists(), done.stdout + done.stderr
    return Lineage(folder, host, running_sandbox.shop, running_sandbox.token, events.read_text())


def test_a_push_of_files_names_each_with_its_rows_and_the_shop_with_those_accepted(lineage):
    assert lineage.inputs("of_files") == [
        ("file", f"{lineage.folder}/good-1.csv", {"rowCount": 2, "fileCount": 1}),
        ("file", f"{lineage.folder}/good-2.csv", {"rowCount": 1, "fileCount": 1}),
    ]
    assert lineage.outputs("of_files") == lineage.customers(3)


def test_a_push_that_fails_halfway_reports_the_accepted_rows(lineage):
    (end,) = lineage.ends("refused")
    assert end["eventType"] == "FAIL"
    assert lineage.inputs("refused") == [("file", f"{lineage.folder}/six.csv", {"rowCount": 6, "fileCount": 1})]
    assert lineage.outputs("refused") == lineage.customers(2)


def test_each_try_counts_the_rows_that_it_had_accepted_itself(lineage):
    assert [end["eventType"] for end in lineage.ends("in_two_tries")] == ["FAIL", "COMPLETE"]
    assert lineage.outputs("in_two_tries", 0) == lineage.customers(2)
    assert lineage.outputs("in_two_tries", 1) == lineage.customers(4 if AIRFLOW >= (3, 3) else 6)


def test_a_source_that_is_refused_as_a_whole_has_written_no_row(lineage):
    assert lineage.inputs("invalid") == [("file", f"{lineage.folder}/invalid.csv", {"rowCount": 2, "fileCount": 1})]
    assert lineage.outputs("invalid") == lineage.customers(0)


def test_a_dry_run_reads_and_writes_nothing(lineage):
    assert len(lineage.inputs("in_a_dry_run")) == 1
    assert lineage.outputs("in_a_dry_run") == []


def test_many_files_are_reported_as_their_common_folder(lineage):
    assert lineage.inputs("of_many_files") == [("file", f"{lineage.folder}/many", {"rowCount": 60, "fileCount": 60})]
    assert lineage.outputs("of_many_files") == lineage.customers(60)


@pytest.mark.parametrize("task_id", ["of_xcom", "of_function"])
def test_rows_that_come_from_no_file_have_no_input(lineage, task_id):
    assert lineage.inputs(task_id) == []
    assert lineage.outputs(task_id) == lineage.customers(2)


def test_a_deletion_is_reported_like_an_update(lineage):
    assert lineage.inputs("deletion") == [("file", f"{lineage.folder}/good-2.csv", {"rowCount": 1, "fileCount": 1})]
    assert lineage.outputs("deletion") == lineage.customers(1)


@pytest.mark.parametrize(("task_id", "accepted", "unchanged"), [("all_changed", 6, 0), ("one_changed", 1, 5)])
def test_unchanged_rows_are_counted_beside_those_accepted(lineage, task_id, accepted, unchanged):
    assert lineage.outputs(task_id) == lineage.customers(accepted)
    assert lineage.unchanged(task_id) == {"accepted": accepted, "unchanged": unchanged}


def test_a_function_that_calls_the_hook_is_reported_by_airflows_hook_lineage(lineage):
    assert lineage.outputs("of_hook") == lineage.customers(None)


def test_no_row_and_no_token_is_in_any_event(lineage):
    assert "sentinel" not in lineage.text.lower()
    assert lineage.token not in lineage.text
    assert lineage.token.rpartition(".")[2] not in lineage.text


def test_a_dag_that_is_scheduled_on_the_shops_customers_is_queued_when_they_were_pushed(lineage):
    kind = "asset" if AIRFLOW >= (3, 0) else "dataset"
    with sqlite3.connect(f"{os.environ['AIRFLOW_HOME']}/airflow.db") as connection:
        events = connection.execute(
            f"SELECT source_dag_id, source_task_id, uri FROM {kind}_event JOIN {kind} ON {kind}.id = {kind}_id "
            "WHERE source_dag_id = 'lineage'"
        ).fetchall()
        queued = connection.execute(f"SELECT target_dag_id FROM {kind}_dag_run_queue").fetchall()
    assert events == [("lineage", "of_files", f"bubblehouse://{lineage.host}/{lineage.shop}/customers")]
    assert queued == [("scheduled_on_it",)]


class Reader:
    """Stands in for ``get_hook_lineage_collector``, with a collector that stores its calls."""

    def __init__(self) -> None:
        self.collector = HookLineageCollector()

    def __call__(self) -> HookLineageCollector:
        return self.collector

    @property
    def inputs(self) -> list[str]:
        return [event.asset.uri for event in self.collector.collected_assets.inputs]

    @property
    def outputs(self) -> list[str]:
        return [event.asset.uri for event in self.collector.collected_assets.outputs]


@pytest.fixture
def reader(monkeypatch) -> Reader:
    """Read hook lineage, as any plugin can."""
    reader = Reader()
    monkeypatch.setattr(sys.modules[HookLineageCollector.__module__], "get_hook_lineage_collector", reader)
    return reader


def test_a_push_tells_hook_lineage_of_its_files_and_of_the_shop(sandbox, reader, tmp_path):
    (tmp_path / "a.csv").write_text("id\n1\n")
    UpdateCustomersOperator(task_id="push", path=tmp_path / "a.csv").execute({})
    assert reader.inputs == [f"file://{tmp_path}/a.csv"]
    assert reader.outputs == [BubblehouseHook().customers_uri]


def test_a_push_that_made_no_call_tells_hook_lineage_of_its_files_only(sandbox, reader, tmp_path):
    (tmp_path / "a.csv").write_text("id,deleted\n1,perhaps\n")
    with pytest.raises(BubblehousePermanentError):
        UpdateCustomersOperator(task_id="push", path=tmp_path / "a.csv").execute({})
    assert reader.inputs == [f"file://{tmp_path}/a.csv"]
    assert reader.outputs == []


def test_a_push_that_fails_halfway_tells_hook_lineage_of_the_shop(sandbox, reader):
    sandbox.script("ok", "400")
    with pytest.raises(BubblehouseRejectedError):
        UpdateCustomersOperator(task_id="push", customers=[{"id": "1"}, {"id": "2"}], batch_size=1).execute({})
    assert reader.outputs == [BubblehouseHook().customers_uri]


def test_a_call_of_the_hook_tells_hook_lineage_of_the_shop(sandbox, reader):
    hook = BubblehouseHook()
    hook.update_customers([])
    assert reader.outputs == []
    hook.update_customers([{"id": "1"}])
    assert reader.outputs == [hook.customers_uri]


def test_a_failing_lineage_reader_does_not_fail_the_push(sandbox, reader, monkeypatch, caplog):
    def fail(*_args, **_kwargs):
        raise RuntimeError

    monkeypatch.setattr(type(reader.collector), "create_asset", fail, raising=False)
    monkeypatch.setattr(type(reader.collector), "create_dataset", fail, raising=False)
    assert UpdateCustomersOperator(task_id="push", customers=[{"id": "1"}]).execute({})["accepted"] == 1
    assert "lineage of this push could not be reported" in caplog.text


def test_a_file_that_airflow_does_not_accept_as_an_asset_does_not_hide_others(reader):
    class Files(ListSource):
        def urls(self):
            return {"long": f"file:///{'long' * 400}.csv", "z": "file:///z.csv"}

    report_lineage(BubblehouseHook(), source=Files([]))
    assert reader.inputs[-1] == "file:///z.csv"


@pytest.mark.parametrize("sends", [True, False])
def test_openlineage_gets_an_empty_result_from_a_task_that_fails_before_its_push(sandbox, monkeypatch, sends):
    monkeypatch.delenv("AIRFLOW_CONN_BUBBLEHOUSE_DEFAULT")
    operator = UpdateCustomersOperator(task_id="push", path="none.csv", dry_run=not sends)
    assert operator.get_openlineage_facets_on_complete(None) == OperatorLineage()
    with pytest.raises(Exception, match=r"bubblehouse_default|There is no file"):
        operator.execute({})
    assert operator.get_openlineage_facets_on_complete(None) == OperatorLineage()
