"""A query to a real PostgreSQL, by each of its drivers: types, errors, a kill, and the memory of a million rows."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from servers import running_postgres

from airflow_provider_bubblehouse.exceptions import BubblehouseTransientError
from airflow_provider_bubblehouse.operators.customers import UpdateCustomersOperator

ROOT = Path(__file__).parents[2]
SENTINEL = "sentinel@example.com"


@pytest.fixture(scope="module")
def postgres():
    """A server of the tests' own; yields the folder of its socket."""
    with running_postgres() as folder:
        yield folder


@pytest.fixture
def database(postgres, monkeypatch) -> None:
    """The Airflow connection ``shop_database`` leads to the server."""
    monkeypatch.setenv("AIRFLOW_CONN_SHOP_DATABASE", connection(postgres))


@pytest.fixture(params=["psycopg", "psycopg2"])
def driver(request, monkeypatch) -> str:
    """The driver that the hook takes: the new one, or that of an Airflow with SQLAlchemy 1.4."""
    hook = pytest.importorskip("airflow.providers.postgres.hooks.postgres")
    if request.param == "psycopg2":
        monkeypatch.setattr(hook, "USE_PSYCOPG3", False)
    elif not hook.USE_PSYCOPG3:
        pytest.skip("this Airflow has SQLAlchemy 1.4, with which the hook takes psycopg2")
    return request.param


def connection(folder: str, **extra) -> str:
    return json.dumps(
        {"conn_type": "postgres", "host": folder, "login": "shop", "schema": "postgres", "extra": json.dumps(extra)}
    )


def operator(sql: str, **kwargs) -> UpdateCustomersOperator:
    return UpdateCustomersOperator(task_id="push", sql=sql, sql_conn_id="shop_database", **kwargs)


TYPES = """
    SELECT
        5::bigint AS id,
        NULL::text AS phone,
        true AS optin,
        12.50::numeric AS total_spent,
        7::int AS order_count,
        date '1990-12-31' AS birthday,
        timestamp '2026-07-01 12:00:00' AS signed_up_at,
        timestamptz '2026-07-01 12:00:00.25+05:30' AS email_marketing_consent_change_time,
        ARRAY['vip', 'new'] AS tags,
        '{"score": 1.5, "since": "2026"}'::jsonb AS extras;
"""


@pytest.mark.parametrize("cursor", [{}, {"cursor": "dictcursor"}], ids=str)
def test_values_of_a_database_arrive_as_what_they_are(sandbox, postgres, driver, cursor, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_SHOP_DATABASE", connection(postgres, options="-c timezone=Asia/Tokyo", **cursor))
    operator(TYPES, timezone="Europe/Berlin").execute({})
    assert sandbox.calls[0].customers == [
        {
            "id": "5",
            "phone": None,
            "optin": True,
            "total_spent": "12.50",
            "order_count": 7,
            "birthday": "1990-12-31",
            "signed_up_at": "2026-07-01T12:00:00+02:00",
            "email_marketing_consent_change_time": "2026-07-01T15:30:00.250000+09:00",
            "tags": ["vip", "new"],
            "extras": {"score": 1.5, "since": "2026"},
        }
    ]


def test_parameters_and_a_percent_sign_go_as_the_driver_has_them(sandbox, database, driver):
    many = "SELECT n AS id FROM generate_series(1, 2500) n WHERE n %% 2 = %(rest)s ORDER BY n"
    assert operator(many, sql_parameters={"rest": 1}).execute({})["accepted"] == 1250
    assert operator(many.replace("%(rest)s", "%s"), sql_parameters=[1]).execute({})["accepted"] == 1250
    assert operator("SELECT n AS id FROM generate_series(1, 9) n WHERE n % 2 = 1").execute({})["accepted"] == 5


def test_the_condition_of_the_docs_selects_what_has_changed(sandbox, database, driver):
    conditions = re.findall(r"`(updated_at [<>].*?)`", (ROOT / "docs" / "databases.md").read_text())
    assert len(conditions) == 2
    condition = " AND ".join(conditions)
    changes = """
        SELECT id FROM (VALUES
            (1, timestamptz '2026-03-02 11:44:59.999+00'), (2, timestamptz '2026-03-02 12:45:00.001+01'),
            (3, timestamptz '2026-03-03 12:00:00+00'), (4, timestamptz '2026-03-03 12:00:00.001+00')
        ) AS customer (id, updated_at)
    """
    bounds = {"watermark": "2026-03-02T12:00:00+00:00", "upper": "2026-03-03T12:00:00+00:00"}
    operator(f"{changes} WHERE {condition} ORDER BY id", sql_parameters=bounds).execute({})
    assert [customer["id"] for customer in sandbox.calls[0].customers] == ["2", "3"]


def test_a_query_without_rows_is_success(sandbox, database, driver):
    assert operator("SELECT 1 AS id WHERE false").execute({})["read"] == 0


def failure(sql: str, **kwargs) -> Exception:
    with pytest.raises(Exception, match=r"\w") as caught:
        operator(sql, **kwargs).execute({})
    assert caught.value.__cause__ is None
    return caught.value


def test_a_fault_of_the_statement_is_told_in_the_databases_words(sandbox, database, driver):
    error = failure("SELECT emial AS email FROM generate_series(1, 2)")
    assert type(error).__name__ == "UndefinedColumn"
    assert 'column "emial" does not exist' in str(error)
    assert "syntax error" in str(failure("UPDATE x SET y = 1"))


def test_a_fault_of_the_data_or_of_parameters_is_told_without_the_databases_words(sandbox, database, driver):
    midway = "SELECT n AS id, CASE WHEN n > 1500 THEN ('{}' || n)::int END AS x FROM generate_series(1, 3000) n"
    for sql, parameters, kind in (
        (midway.format(SENTINEL), None, "InvalidTextRepresentation, SQLSTATE 22P02"),
        ("SELECT %(value)s::int AS id", {"value": SENTINEL}, "InvalidTextRepresentation, SQLSTATE 22P02"),
        ("SELECT %(value)s::text AS id FROM", {"value": SENTINEL}, "SyntaxError, SQLSTATE 42601"),
    ):
        error = failure(sql, sql_parameters=parameters)
        assert kind in str(error)
        assert "sentinel" not in str(error)
    assert sandbox.calls == []


def test_a_database_that_does_not_answer_is_an_error_of_its_driver(sandbox, postgres, driver, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_SHOP_DATABASE", connection(f"{postgres}/none"))
    error = failure("SELECT 1 AS id")
    assert type(error).__name__ == "OperationalError"
    assert f"{postgres}/none" in str(error)


def test_a_task_that_is_killed_ends_its_query_on_the_server(sandbox, database, driver):
    pushing = operator("SELECT n AS id, pg_sleep(0.01)::text FROM generate_series(1, 10000) n")
    threading.Timer(0.5, pushing.on_kill).start()
    began = time.monotonic()
    with pytest.raises(BubblehouseTransientError, match="told to stop"):
        pushing.execute({})
    assert time.monotonic() - began < 5
    assert sandbox.calls == []


@pytest.mark.parametrize("driver", ["psycopg"], indirect=True)  # psycopg2 keeps signals waiting for its answer
def test_a_signal_ends_a_query_that_has_given_no_row_yet(sandbox, database, driver):
    pushing = operator("SELECT 1 AS id, pg_sleep(30)::text")
    handler = signal.signal(signal.SIGTERM, lambda *_: pushing.on_kill())
    try:
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
        began = time.monotonic()
        with pytest.raises(BubblehouseTransientError, match="told to stop"):
            pushing.execute({})
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert time.monotonic() - began < 5


PUSH = """
import json, sys
import airflow_provider_bubblehouse.api.client
import airflow_provider_bubblehouse.push.push
import airflow_provider_bubblehouse.sources.query
import airflow.providers.postgres.hooks.postgres as hook
from airflow_provider_bubblehouse.operators.customers import UpdateCustomersOperator
from benchmarks.contenders import MemoryStore, measure_from_here, memory, _started

driver, rows = sys.argv[1:]
hook.USE_PSYCOPG3 = driver == "psycopg"
push = UpdateCustomersOperator(task_id="push", batch_size=1000, sql_conn_id="shop_database", sql=f'''
    SELECT
        n::text AS id,
        'customer.' || n || '@example.com' AS email,
        '+1555' || n AS phone,
        'Ada' AS first_name,
        'Lovelace' AS last_name,
        ARRAY['vip'] AS tags,
        timestamptz '2020-01-15T10:30:00Z' + n * interval '1 second' AS signed_up_at
    FROM generate_series(1, {rows}) n
''')
measure_from_here()
accepted = push.execute({"task_state_store": MemoryStore()})["accepted"]
print(json.dumps({"accepted": accepted, "peak_mib": memory("VmHWM") - _started["memory"]}))
"""


def peak_of(rows: int, driver: str, environment: dict[str, str]) -> float:
    done = subprocess.run(
        [sys.executable, "-c", PUSH, driver, str(rows)],
        cwd=ROOT,
        env=os.environ | environment,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["accepted"] == rows
    return figures["peak_mib"]


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_a_million_rows_take_no_more_memory_than_a_few_thousand(postgres, driver):
    pytest.importorskip("airflow.providers.postgres")
    from benchmarks.sink import running_sink

    with running_sink() as port:
        sink = {"conn_type": "bubblehouse", "host": f"http://127.0.0.1:{port}", "login": "shop", "password": "token"}
        environment = {
            "AIRFLOW_CONN_BUBBLEHOUSE_DEFAULT": json.dumps(sink),
            "AIRFLOW_CONN_SHOP_DATABASE": connection(postgres),
        }
        few, many = (peak_of(rows, driver, environment) for rows in (10_000, 1_000_000))
    assert many < 48
    assert many < few + 4
