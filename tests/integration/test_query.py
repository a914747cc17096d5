"""``sql``: a query through a real ``SqliteHook`` against the sandbox, and its errors."""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from tempfile import TemporaryFile

import pytest

from airflow_provider_bubblehouse.airflow_compat import DAG, task
from airflow_provider_bubblehouse.exceptions import (
    BubblehousePermanentError,
    BubblehouseRejectedError,
    BubblehouseTransientError,
)
from airflow_provider_bubblehouse.operators.customers import DeleteCustomersOperator, UpdateCustomersOperator
from airflow_provider_bubblehouse.operators.query import Query

NUMBER = itertools.count()
ALL = "SELECT id, email, first_name FROM customers ORDER BY id"
SENTINEL = "sentinel@example.com"


class Store:
    """Stores values as JSON between tries, like Airflow's task state store."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def get(self, key):
        return json.loads(self.values.get(key, "null"))

    def set(self, key, value):
        self.values[key] = json.dumps(value)

    def delete(self, key):
        self.values.pop(key, None)


@pytest.fixture
def database(tmp_path, monkeypatch):
    """A database of ten customers, behind the Airflow connection ``shop_database``."""
    path = tmp_path / "shop.db"
    monkeypatch.setenv("AIRFLOW_CONN_SHOP_DATABASE", json.dumps({"conn_type": "sqlite", "host": str(path)}))
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE customers (id INTEGER, email TEXT, first_name TEXT)")
    connection.executemany(
        "INSERT INTO customers VALUES (?, ?, ?)",
        [(number, f"{number}@example.com", f"name {number}") for number in range(1, 11)],
    )
    connection.commit()
    yield connection
    connection.close()


def operator(kind=UpdateCustomersOperator, **kwargs):
    return kind(task_id="push", **{"sql": ALL, "sql_conn_id": "shop_database", **kwargs})


def push(store=None, **kwargs) -> dict:
    return operator(**kwargs).execute({} if store is None else {"task_state_store": store})


def ids(sandbox) -> list[str]:
    return [customer["id"] for call in sandbox.calls for customer in call.customers]


def test_all_rows_of_a_query_arrive_in_order(sandbox, database):
    summary = push(batch_size=4)
    assert (summary["read"], summary["accepted"], summary["batches"], summary["calls"]) == (10, 10, 3, 3)
    assert [customer for call in sandbox.calls for customer in call.customers] == [
        {"id": str(number), "email": f"{number}@example.com", "first_name": f"name {number}"} for number in range(1, 11)
    ]


def test_a_column_map_and_parameters_go_with_a_query(sandbox, database):
    column_map = {"id": "id", "first_name": "extras.name"}
    for sql, parameters in (
        ("SELECT * FROM customers WHERE email = ?", ["3@example.com"]),
        ("SELECT * FROM customers WHERE email = :email", {"email": "3@example.com"}),
    ):
        assert push(sql=sql, sql_parameters=parameters, column_map=column_map)["accepted"] == 1
        assert sandbox.calls[-1].customers == [{"id": "3", "extras": {"name": "name 3"}}]


def test_the_customers_of_a_query_are_deleted_unless_they_are_too_many(sandbox, database):
    with pytest.raises(BubblehousePermanentError, match="max_customers"):
        operator(DeleteCustomersOperator, max_customers=9).execute({})
    assert sandbox.calls == []
    assert operator(DeleteCustomersOperator, max_customers=10).execute({})["accepted"] == 10
    assert sandbox.calls[0].customers[0] == {"id": "1", "deleted": True}


def test_a_query_without_rows_is_success_without_a_call(sandbox, database):
    assert push(sql="SELECT id FROM customers WHERE 0")["read"] == 0
    assert sandbox.calls == []


@pytest.mark.parametrize(("on_invalid", "arrived"), [("fail", 0), ("skip", 9)])
def test_an_invalid_row_is_named_by_its_place_in_the_query(sandbox, database, caplog, on_invalid, arrived):
    database.execute("UPDATE customers SET first_name = x'53454e54494e454c' WHERE id = 3")
    database.commit()
    if on_invalid == "fail":
        with pytest.raises(BubblehousePermanentError, match="the query, row 3: first_name must be text"):
            push()
    else:
        assert push(on_invalid="skip")["invalid"] == 1
    assert "the query, row 3: first_name must be text" in caplog.text
    assert "SENTINEL" not in caplog.text
    assert len(ids(sandbox)) == arrived


def test_an_invalid_row_of_a_query_is_written_to_rejected_path(sandbox, database, tmp_path):
    database.execute("UPDATE customers SET first_name = x'00' WHERE id = 4")
    database.commit()
    folder = tmp_path / "rejected"
    summary = push(on_invalid="skip", rejected_path=folder)
    assert (summary["accepted"], summary["invalid"]) == (9, 1)
    (line,) = [json.loads(line) for file in folder.rglob("*.jsonl") for line in file.read_text().splitlines()]
    assert (line["row"], line["reason"]) == (4, "first_name must be text, not bytes")
    assert line["customer"] == {"id": 4, "email": "4@example.com", "first_name": "b'\\x00'"}


def test_a_retry_resumes_if_the_query_returns_the_same_rows(sandbox, no_waits, database):
    store = Store()
    sandbox.script("ok", "503")
    with pytest.raises(BubblehouseTransientError):
        push(store, batch_size=4, max_attempts=1)
    sandbox.clear()
    summary = push(store, batch_size=4)
    assert (summary["resumed_at"], summary["accepted"], summary["read"]) == (4, 10, 10)
    assert ids(sandbox) == ["5", "6", "7", "8", "9", "10"]
    assert store.values == {}


@pytest.mark.parametrize(
    "change",
    ["UPDATE customers SET first_name = 'another' WHERE id = 10", "DELETE FROM customers WHERE id = 1"],
)
def test_a_retry_starts_over_if_the_query_returns_other_rows(sandbox, no_waits, database, change):
    store = Store()
    sandbox.script("ok", "503")
    with pytest.raises(BubblehouseTransientError):
        push(store, batch_size=4, max_attempts=1)
    database.execute(change)
    database.commit()
    sandbox.clear()
    summary = push(store, batch_size=4)
    assert summary["resumed_at"] == 0
    assert len(ids(sandbox)) == summary["read"] == summary["accepted"]


def test_rows_in_another_order_are_other_rows(sandbox, no_waits, database):
    store = Store()
    sandbox.script("ok", "503")
    with pytest.raises(BubblehouseTransientError):
        push(store, batch_size=4, max_attempts=1)
    sandbox.clear()
    assert push(store, batch_size=4, sql=ALL + " DESC")["resumed_at"] == 0
    assert len(ids(sandbox)) == 10


def test_a_retry_does_not_send_rejected_rows_again(sandbox, database):
    store = Store()
    sandbox.script("ok", "400")
    for calls in (2, 2):
        with pytest.raises(BubblehouseRejectedError):
            push(store, batch_size=4)
        assert len(sandbox.calls) == calls


BREAKS_MIDWAY = (
    "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 3000) "
    f"SELECT n AS id, CASE WHEN n > 2500 THEN json('{SENTINEL}') END AS email FROM numbers"
)


def without_sentinel(error: BaseException, log: str) -> None:
    seen = [error]
    while seen[-1].__cause__ or (seen[-1].__context__ and not seen[-1].__suppress_context__):
        seen.append(seen[-1].__cause__ or seen[-1].__context__)
    assert "sentinel" not in "".join(map(repr, seen)) + log


@pytest.mark.parametrize("on_invalid", ["fail", "skip"])
def test_a_query_that_fails_midway_sends_nothing_and_keeps_the_class_of_its_error_but_not_the_message(
    sandbox, database, caplog, on_invalid
):
    with pytest.raises(
        sqlite3.OperationalError, match=r"failed after 2,000 rows \(sqlite3\.OperationalError\)"
    ) as caught:
        push(sql=BREAKS_MIDWAY, on_invalid=on_invalid)
    assert sandbox.calls == []
    without_sentinel(caught.value, caplog.text)


@pytest.mark.parametrize(
    ("sql", "parameters"),
    [
        (f"SELECT id FROM customers WHERE json('{SENTINEL}')", None),
        ("SELECT id FROM customers WHERE json(:value)", {"value": SENTINEL}),
        ("SELECT id FROM customers WHERE id = :one", {SENTINEL: 5}),
        ("SELECT CAST(x'73656e74696e656cff' AS TEXT) AS id", None),  # text that is not UTF-8, which SQLite quotes
    ],
)
def test_the_message_of_a_database_is_not_shown(sandbox, database, caplog, sql, parameters):
    with pytest.raises(sqlite3.Error, match="The query failed after 0 rows") as caught:
        push(sql=sql, sql_parameters=parameters)
    without_sentinel(caught.value, caplog.text)
    assert not isinstance(caught.value, BubblehousePermanentError)


def test_a_query_that_fails_is_retried_by_airflow(sandbox, database, run_dag, tries_of):
    dag = make_dag()
    operator(sql="SELECT id FROM customers WHERE json('{')", dag=dag)
    run_dag(dag)
    assert tries_of(dag) == {"push": ("failed", 3)}


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"sql": "UPDATE customers SET id = 5"}, "The query returns no rows"),
        ({"sql": "SELECT id, email AS id FROM customers"}, "the same name in column 2"),
        ({"sql": "SELECT first_name FROM customers"}, "no column for id or email"),
        ({"column_map": {"id": "id", "City": "extras.city"}}, "The query lacks columns that column_map names: City"),
        ({"sql": " \n"}, "sql must be one query"),
        ({"sql": ["SELECT 1"]}, "sql must be text"),
        ({"sql_conn_id": "bubblehouse_default"}, "has the type bubblehouse, which is not that of an SQL database"),
    ],
    ids=str,
)
def test_a_query_without_customers_is_refused_before_anything_is_sent(sandbox, database, kwargs, said):
    with pytest.raises(BubblehousePermanentError, match=said):
        push(**kwargs)
    assert sandbox.calls == []
    assert database.execute("SELECT count(*) FROM customers WHERE id = 5").fetchone() == (1,)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"customers": []},
        {"path": "x.csv"},
        {"sql": None},
        {"sql_conn_id": None},
        {"sql": None, "sql_conn_id": None, "customers": [], "sql_parameters": [1]},
    ],
    ids=str,
)
def test_parameters_that_contradict_each_other_are_refused_when_the_dag_is_parsed(kwargs):
    with pytest.raises(BubblehousePermanentError):
        operator(**kwargs)


def test_without_the_extra_the_error_names_it(sandbox, database, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("airflow.providers.common.sql")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "airflow.providers.common.sql", None)
    with pytest.raises(BubblehousePermanentError, match=r"pip install 'airflow-provider-bubblehouse\[sql\]'"):
        push()


@pytest.mark.parametrize(
    ("conn_type", "said"),
    [
        ("mysql", "whose provider is not installed; pip install apache-airflow-providers-mysql."),
        ("mssql", "whose provider is not installed; pip install apache-airflow-providers-microsoft-mssql."),
        ("my-sql", "whose provider is not installed; install the provider of this database, or correct the type."),
    ],
)
def test_a_database_without_a_hook_is_a_permanent_error_that_names_the_connection_and_the_provider(
    sandbox, monkeypatch, conn_type, said
):
    monkeypatch.setenv("AIRFLOW_CONN_OTHER_DATABASE", json.dumps({"conn_type": conn_type, "host": "example.com"}))
    with pytest.raises(BubblehousePermanentError) as caught:
        push(sql_conn_id="other_database")
    connection = f"The connection other_database (sql_conn_id) has the type {conn_type.replace('-', '_')}"
    assert str(caught.value) == f"{connection}, {said}"


def test_a_task_that_is_killed_during_its_query_cancels_it_and_sends_nothing(sandbox, database):
    endless = "WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) SELECT id FROM n WHERE id < 0"
    pushing = operator(sql=endless)
    killing = threading.Timer(0.5, pushing.on_kill)
    killing.start()
    began = time.monotonic()
    with pytest.raises(BubblehouseTransientError, match="told to stop"):
        pushing.execute({})
    assert time.monotonic() - began < 5
    assert sandbox.calls == []


def test_a_task_that_is_killed_while_it_fetches_rows_sends_nothing(sandbox, database, monkeypatch):
    endless = "WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) SELECT id FROM n"
    monkeypatch.setattr(Query, "_interrupt", lambda self: None)  # a driver that cannot cancel
    pushing = operator(sql=endless)
    threading.Timer(0.5, pushing.on_kill).start()
    with pytest.raises(BubblehouseTransientError, match="told to stop"):
        pushing.execute({})
    assert sandbox.calls == []


def test_a_task_that_is_killed_before_its_query_does_not_run_it(sandbox, database):
    pushing = operator()
    pushing.on_kill()
    with pytest.raises(BubblehouseTransientError, match="told to stop"):
        pushing.execute({})
    assert sandbox.calls == []


def test_the_rows_are_gone_however_the_push_ends(sandbox, database, no_waits, monkeypatch):
    files = []

    def open_file(**kwargs):
        files.append(TemporaryFile(**kwargs))  # noqa: SIM115 (the push closes it)
        return files[-1]

    monkeypatch.setattr("airflow_provider_bubblehouse.sources.spool.TemporaryFile", open_file)
    for fault in ("ok", "400", "503", "404"):
        sandbox.script(fault)
        pushing = operator(max_attempts=1)
        try:
            pushing.execute({})
        except (BubblehousePermanentError, BubblehouseTransientError):
            assert fault != "ok"
    assert [file.closed for file in files] == [True] * 4


def make_dag(**kwargs) -> DAG:
    return DAG(
        dag_id=f"query_{next(NUMBER)}",
        schedule=None,
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        default_args={"retries": 2, "retry_delay": timedelta(0)},
        **kwargs,
    )


def stored(dag_id: str, table: str, columns: str) -> list[tuple]:
    with sqlite3.connect(f"{os.environ['AIRFLOW_HOME']}/airflow.db") as connection:
        return connection.execute(f"SELECT {columns} FROM {table} WHERE dag_id = ?", (dag_id,)).fetchall()


def test_query_connection_and_parameters_are_templates_and_airflow_stores_no_parameter(
    sandbox, database, run_dag, tries_of, tmp_path
):
    database.execute("UPDATE customers SET email = ? WHERE id = 3", (SENTINEL,))
    database.commit()
    (tmp_path / "some.sql").write_text("SELECT id FROM {{ params.table }} WHERE email = :email")
    dag = make_dag(template_searchpath=[str(tmp_path)], params={"table": "customers"})
    common = {"sql": "some.sql", "sql_conn_id": "shop_{{ 'database' }}"}
    with dag:

        @task
        def addresses() -> list[dict]:
            return [{"email": "3@example.com".replace("3", "sentinel")}]

        email = "{{ 'senti' ~ 'nel@example.com' }}"
        UpdateCustomersOperator(task_id="push", sql_parameters={"email": email}, **common)
        UpdateCustomersOperator.partial(task_id="push_each", **common).expand(sql_parameters=addresses())
    run_dag(dag)
    assert set(tries_of(dag).values()) == {("success", 1)}
    assert ids(sandbox) == ["3", "3"]
    rendered = dict(stored(dag.dag_id, "rendered_task_instance_fields", "task_id, rendered_fields"))
    assert "sentinel" not in str(rendered)
    assert "1 parameters" in rendered["push"]
    assert "SELECT id FROM customers WHERE email = :email" in rendered["push"]


def test_parameters_that_render_to_text_are_refused(sandbox, database, run_dag, tries_of):
    dag = make_dag()
    operator(sql_parameters="text", dag=dag)
    run_dag(dag)
    assert tries_of(dag) == {"push": ("failed", 1)}


def test_an_argument_of_the_decorator_that_ends_in_sql_is_text(sandbox, run_dag, tries_of):
    dag = make_dag()
    with dag:

        @task.bubblehouse_customers
        def people(name: str) -> list[dict]:
            return [{"id": "1", "first_name": name}]

        people("report.sql")
    run_dag(dag)
    assert tries_of(dag) == {"people": ("success", 1)}
    assert sandbox.calls[0].customers == [{"id": "1", "first_name": "report.sql"}]
