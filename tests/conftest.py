"""An Airflow in a temporary folder, and a sandbox that is empty at the start of each test."""

from __future__ import annotations

import atexit
import csv
import os
import shutil
import socket
import sqlite3
import tempfile
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from versions import AIRFLOW

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from deployment import Deployment
    from object_store import ObjectStore

CHINOOK = Path(__file__).parents[1] / "dags_examples" / "data" / "chinook_customers.csv"
AIRFLOW_HOME = tempfile.mkdtemp(prefix="bubblehouse-tests-")
atexit.register(shutil.rmtree, AIRFLOW_HOME, ignore_errors=True)
for name in [name for name in os.environ if name.startswith("AIRFLOW_")]:
    del os.environ[name]
os.environ.update(  # before anything imports Airflow, which reads them on import
    AIRFLOW_HOME=AIRFLOW_HOME,
    AIRFLOW__CORE__DAGS_FOLDER=os.path.join(AIRFLOW_HOME, "dags"),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__CORE__UNIT_TEST_MODE="False",
    AIRFLOW__OPENLINEAGE__DISABLED="True",  # except in tests of it
    NO_PROXY="127.0.0.1,localhost",
)

from faulty_sandbox import Sandbox  # noqa: E402

# The speed of the machine must not matter.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI, a missing browser, Airflow or S3 is a failure, not a reason to skip."""
    report = yield
    needed = item.path.parent.name in ("system", "ui") or "object_store" in getattr(item, "fixturenames", ())
    if report.skipped and os.environ.get("CI") and needed:
        report.outcome = "failed"
        report.longrepr = f"Nothing is skipped here in CI: {call.excinfo and call.excinfo.value}"
    return report


@pytest.fixture(scope="session")
def running_sandbox() -> Iterator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """An empty sandbox, behind the connection ``bubblehouse_default``."""
    running_sandbox.clear()
    monkeypatch.setenv("AIRFLOW_CONN_BUBBLEHOUSE_DEFAULT", running_sandbox.connection())
    return running_sandbox


@pytest.fixture(scope="session")
def running_object_store() -> Iterator[ObjectStore]:
    from object_store import ObjectStore

    for name in ("moto.moto_server", "s3fs"):
        pytest.importorskip(name, reason=f"there is no {name.partition('.')[0]}; install the extras s3 and dev")
    with ObjectStore() as store:
        yield store


@pytest.fixture
def object_store(running_object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """A local S3 with an empty bucket and without faults; ``object_store.url("key")`` works in ``path=``."""
    running_object_store.start_test()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in running_object_store.connections().items():
        monkeypatch.setenv(name, value)
    return running_object_store


@pytest.fixture(scope="session")
def chinook_database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of an SQLite database with the customers of the examples' CSV, and when each was written."""
    path = str(tmp_path_factory.mktemp("chinook") / "chinook.db")
    with CHINOOK.open(encoding="utf-8", newline="") as file, closing(sqlite3.connect(path)) as connection:
        header, *rows = csv.reader(file)
        connection.execute(f"CREATE TABLE Customer ({', '.join(header)}, UpdatedAt DEFAULT CURRENT_TIMESTAMP)")
        columns, places = ", ".join(header), ", ".join("?" * len(header))
        connection.executemany(f"INSERT INTO Customer ({columns}) VALUES ({places})", rows)
        connection.commit()
    return path


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port that nothing listens on and nothing else can bind."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.fixture
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the waits between attempts, except those of a ``Retry-After``."""
    from airflow_provider_bubblehouse.push import attempts

    monkeypatch.setattr(attempts, "_jitter", lambda _state: 0.0)


@pytest.fixture(scope="session")
def deployment(running_sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A whole Airflow 3 for all tests; its ``bubblehouse_default`` is the connection to the sandbox."""
    from deployment import Deployment

    environment = {"AIRFLOW_CONN_BUBBLEHOUSE_DEFAULT": running_sandbox.connection()}
    with Deployment(tmp_path_factory.mktemp("airflow"), environment) as running:
        yield running


@pytest.fixture(scope="session")
def airflow_database() -> None:
    from airflow.utils.db import initdb

    initdb()


@pytest.fixture
def run_dag(airflow_database: None, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Any]:
    """Return a function that runs a DAG like ``dag.test()``, with retries and mapping, and returns the run."""
    if (3, 0) <= AIRFLOW < (3, 3):  # dag.test() makes its API anew for every task there, which takes some seconds
        monkeypatch.setattr("airflow.sdk.execution_time.supervisor.in_process_api_server", _api_of_airflow)
    try:
        from airflow.dag_processing.collection import AssetModelOperation, update_dag_parsing_results_in_db
    except ImportError:  # Airflow 2
        return lambda dag: dag.test()
    from airflow.models.dagbundle import DagBundleModel
    from airflow.serialization.serialized_objects import LazyDeserializedDAG, SerializedDAG
    from airflow.utils.session import create_session

    def run_with_assets(dag: Any) -> Any:
        with create_session() as session:
            assets = AssetModelOperation.collect({dag.dag_id: LazyDeserializedDAG(data=SerializedDAG.to_dict(dag))})
            known = assets.sync_assets(session=session).values()
            session.flush()
            assets.activate_assets_if_possible(known, session=session)
        return dag.test()

    if not hasattr(LazyDeserializedDAG, "from_dag"):  # Airflow 3.0, which runs what it is given, but knows of no asset
        return run_with_assets

    def run(dag: Any) -> Any:
        with create_session() as session:  # Airflow 3.1 and later run what they have in their database only
            if not session.get(DagBundleModel, "tests"):
                session.add(DagBundleModel(name="tests"))
                session.flush()
            update_dag_parsing_results_in_db(
                bundle_name="tests",
                bundle_version=None,
                dags=[LazyDeserializedDAG.from_dag(dag)],
                import_errors={},
                parse_duration=None,
                warnings=set(),
                session=session,
            )
        return dag.test()

    return run


@cache
def _api_of_airflow() -> Any:
    from airflow.api_fastapi.execution_api.app import InProcessExecutionAPI

    return InProcessExecutionAPI()


@pytest.fixture
def tries_of() -> Callable[[Any], dict[str, tuple[str, int]]]:
    """Return a function from a DAG that was run to the state and the number of tries of each task."""

    def tries(dag: Any) -> dict[str, tuple[str, int]]:
        with sqlite3.connect(os.path.join(AIRFLOW_HOME, "airflow.db")) as connection:
            rows = connection.execute(
                "SELECT task_id, state, try_number FROM task_instance WHERE dag_id = ?", (dag.dag_id,)
            )
            return {task_id: (state, number) for task_id, state, number in rows}

    return tries
