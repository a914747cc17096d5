"""``@task.bubblehouse_customers``: the operator's parameters and promises for what a function returns."""

from __future__ import annotations

import errno
import io
import itertools
import json
import os
import sqlite3
from datetime import UTC, datetime, timedelta

import pandas
import pytest

from airflow_provider_bubblehouse.airflow_compat import DAG, task
from airflow_provider_bubblehouse.exceptions import BubblehousePermanentError, BubblehouseTransientError
from tests.pushes import Store, people, summed

NUMBER = itertools.count()
PEOPLE = [
    {"id": "sentinel-1", "email": "sentinel@example.com", "first_name": "Sentinel {{ 7*7 }}"},
    {"id": "sentinel-2", "last_name": "{{ dag.dag_id }}", "extras": {"x": ["{{ 7*7 }}"]}},
]


@pytest.fixture
def dag() -> DAG:
    return DAG(
        dag_id=f"decorator_{next(NUMBER)}",
        schedule=None,
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        default_args={"retries": 2, "retry_delay": timedelta(0)},
    )


def stored(dag_id: str, table: str, columns: str) -> list[tuple]:
    with sqlite3.connect(f"{os.environ['AIRFLOW_HOME']}/airflow.db") as connection:
        return connection.execute(f"SELECT {columns} FROM {table} WHERE dag_id = ?", (dag_id,)).fetchall()


def test_returned_customers_arrive_unchanged_and_are_not_stored_by_airflow(sandbox, run_dag, tries_of, dag):
    with dag:

        @task.bubblehouse_customers
        def push() -> list[dict]:
            return PEOPLE

        push()
    run_dag(dag)
    assert tries_of(dag) == {"push": ("success", 1)}
    assert sandbox.calls[0].customers == PEOPLE
    kept = [
        stored(dag.dag_id, "rendered_task_instance_fields", "rendered_fields"),
        stored(dag.dag_id, "xcom", "value"),
    ]
    assert json.loads(kept[1][0][0])["accepted"] == 2
    assert "sentinel" not in str(kept).lower()


def test_rows_passed_to_the_function_arrive_unchanged_and_are_not_stored_by_airflow(sandbox, run_dag, tries_of, dag):
    with dag:

        @task
        def extract() -> list[dict]:
            return PEOPLE

        @task.bubblehouse_customers
        def push(first: list[dict], number: int, second: list[dict]) -> list[dict]:
            assert number == 7
            return [*first, *second]

        push(extract(), 7, second=extract())

        @task.bubblehouse_customers
        def push_one(one: dict) -> list[dict]:
            return [one]

        push_one.expand(one=extract())
    run_dag(dag)
    assert {state for state, _ in tries_of(dag).values()} == {"success"}
    assert sorted(map(len, (call.customers for call in sandbox.calls))) == [1, 1, 4]
    pushed = [customer for call in sandbox.calls for customer in call.customers]
    assert all(pushed.count(person) == 3 for person in PEOPLE)
    kept = stored(dag.dag_id, "rendered_task_instance_fields", "rendered_fields")
    assert "sentinel" not in str(kept).lower()
    assert "<list>" in str(kept)
    assert "<dict>" in str(kept)
    assert "7" in str(kept)


def test_the_decorator_takes_the_parameters_of_the_operator(sandbox, run_dag, tries_of, dag):
    with dag:

        @task.bubblehouse_customers(
            column_map={"Number": "id", "Since": "signed_up_at"},
            timezone="Europe/Berlin",
            batch_size=1,
            on_invalid="skip",
        )
        def push(number: int, ds: str | None = None) -> list[dict]:
            return [{"Number": number, "Since": "2026-01-15T10:30:00"}, {"Number": ""}, {"Number": ds}]

        push(7)
    run_dag(dag)
    assert tries_of(dag) == {"push": ("success", 1)}
    first, second = sandbox.calls
    assert first.customers == [{"id": "7", "signed_up_at": "2026-01-15T10:30:00+01:00"}]
    assert len(second.customers[0]["id"]) == len("2026-01-15")


def test_arguments_may_come_from_other_tasks_and_be_mapped_over(sandbox, run_dag, tries_of, dag):
    with dag:

        @task
        def numbers() -> list[int]:
            return [1, 2, 3]

        @task.bubblehouse_customers(max_attempts=1)
        def push(number: int) -> list[dict]:
            return [{"id": str(number)}]

        push.expand(number=numbers())
    run_dag(dag)
    assert sorted(customer["id"] for customer in sandbox.customers()) == ["1", "2", "3"]


@pytest.mark.parametrize("returned", [None, {"id": "1"}, 7, "no JSON"])
def test_anything_but_a_list_fails_the_task_on_its_first_try_without_a_call(sandbox, run_dag, tries_of, dag, returned):
    with dag:

        @task.bubblehouse_customers
        def push():
            return returned

        push()
    run_dag(dag)
    assert tries_of(dag) == {"push": ("failed", 1)}
    assert sandbox.calls == []


def test_yielded_customers_are_validated_before_the_first_call_and_pushed(sandbox, run_dag, tries_of, dag):
    calls_while_yielding = []
    with dag:

        @task.bubblehouse_customers(on_invalid="skip", column_map={"Number": "id"}, batch_size=1000)
        def push():
            for number in range(1, 2502):
                calls_while_yielding.append(len(sandbox.calls))
                yield {"Number": "" if number == 1200 else number}

        push()
    run_dag(dag)
    assert tries_of(dag) == {"push": ("success", 1)}
    assert set(calls_while_yielding) == {0}
    pushed = [customer["id"] for call in sandbox.calls for customer in call.customers]
    assert pushed == [str(number) for number in range(1, 2502) if number != 1200]
    summary = json.loads(stored(dag.dag_id, "xcom", "value")[0][0])
    assert (summary["read"], summary["invalid"], summary["accepted"]) == (2501, 1, 2500)


@pytest.mark.parametrize(
    "returned",
    [
        lambda: ({"id": "1"},),
        lambda: iter([{"id": "1"}]),
        lambda: ({"id": number} for number in [1]),
        lambda: {1: {"id": "1"}}.values(),
        lambda: map(dict, [[("id", "1")]]),
    ],
    ids=["tuple", "iterator", "generator", "view", "map"],
)
def test_any_iterable_of_customers_is_pushed(sandbox, run_dag, dag, returned):
    with dag:

        @task.bubblehouse_customers
        def push():
            return returned()

        push()
    run_dag(dag)
    assert [call.customers for call in sandbox.calls] == [[{"id": "1"}]]


def operator_for(function, **kwargs):
    with DAG(dag_id=f"decorator_{next(NUMBER)}", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)):
        return task.bubblehouse_customers(task_id="push", **kwargs)(function)().operator


@pytest.mark.parametrize(
    ("returned", "says"),
    [
        (None, "The function returned None; return a list of customers, or yield them."),
        (pandas.DataFrame({"id": [1]}), "frame.to_dict('records')"),
        ({"id": 1}, "must be a list of objects"),
    ],
    ids=["None", "DataFrame", "dict"],
)
def test_the_error_of_a_function_that_returns_another_type_names_the_type(sandbox, returned, says):
    with pytest.raises(BubblehousePermanentError) as caught:
        operator_for(lambda: returned).execute({})
    assert says in str(caught.value)
    assert sandbox.calls == []


async def coroutine():
    return [{"id": 1}]


async def asynchronous_generator():
    yield {"id": 1}


@pytest.mark.parametrize("function", [coroutine, asynchronous_generator], ids=lambda function: function.__name__)
@pytest.mark.filterwarnings("error")
def test_an_async_function_is_refused_as_such(sandbox, function):
    with pytest.raises(BubblehousePermanentError, match="The function is async") as caught:
        operator_for(function).execute({})
    assert caught.value.summary is None
    assert sandbox.calls == []


def test_an_error_of_the_function_while_it_yields_is_its_own_and_nothing_is_sent(sandbox):
    def push():
        yield {"id": 1}
        raise TimeoutError("the warehouse")

    with pytest.raises(TimeoutError, match="the warehouse"):
        operator_for(push).execute({})
    assert sandbox.calls == []


def test_a_generator_is_closed_if_its_rows_cannot_be_stored(sandbox, monkeypatch):
    closed = []

    def push():
        try:
            for number in itertools.count(1):
                yield {"id": number}
        finally:
            closed.append(True)

    class FullDisk(io.BytesIO):
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("airflow_provider_bubblehouse.sources.spool.TemporaryFile", lambda **_: FullDisk())
    with pytest.raises(OSError, match="No space left") as caught:
        operator_for(push).execute({})
    assert caught.tb is not None  # its frames refer to the generator, so nothing else closes it
    assert closed == [True]
    assert sandbox.calls == []


def test_an_invalid_row_that_is_yielded_refuses_the_whole_source_before_the_first_call(sandbox):
    def push():
        yield from ({"id": number} for number in (1, 2, 0, 4))

    with pytest.raises(BubblehousePermanentError, match="row 3") as caught:
        operator_for(push).execute({})
    assert sandbox.calls == []
    assert summed(caught.value.summary)["read"] == 4


@pytest.mark.parametrize(("second", "sent_again"), [(40, []), (41, [str(number) for number in range(1, 42)])])
def test_a_retry_that_yields_the_same_customers_sends_only_the_rest(sandbox, no_waits, second, sent_again):
    store = Store()

    def yielding(count):
        return lambda: (person for person in people(count))

    options = {"batch_size": 10, "max_attempts": 1}
    sandbox.script("ok", "ok", "503")
    with pytest.raises(BubblehouseTransientError):
        operator_for(yielding(40), **options).execute({"task_state_store": store})
    before = len(sandbox.calls)
    summary = operator_for(yielding(second), **options).execute({"task_state_store": store})
    again = [customer["id"] for call in sandbox.calls[before:] for customer in call.customers]
    assert again == (sent_again or [str(number) for number in range(21, 41)])
    assert summed(summary)["accepted"] == second


def test_a_killed_task_stops_while_its_function_still_yields(sandbox, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    yielded = []

    def push():
        for number in itertools.count(1):
            yielded.append(number)
            if number == 1500:
                operator.on_kill()
            yield {"id": number}

    operator = operator_for(push)
    with pytest.raises(BubblehouseTransientError, match="told to stop"):
        operator.execute({})
    assert len(yielded) == 1500
    assert sandbox.calls == []
    assert operator._spool is None


@pytest.mark.parametrize("yields", [False, True], ids=["returned", "yielded"])
def test_column_map_and_formats_apply_to_the_rows_of_a_function(sandbox, run_dag, tries_of, dag, yields):
    rows = [{"traits": {"key": number, "born": "31.01.1990"}, "optin": "JN"[number % 2]} for number in (1, 2)]
    column_map = {"traits.key": "id", "traits.born": "birthday", "optin": "optin"}
    formats = {"birthday": "%d.%m.%Y", "optin": {"J": True, "N": False}}
    with dag:

        @task.bubblehouse_customers(column_map=column_map, formats=formats)
        def push():
            return iter(rows) if yields else rows

        push()
    run_dag(dag)
    assert tries_of(dag) == {"push": ("success", 1)}
    assert sandbox.calls[0].customers == [
        {"id": "1", "birthday": "1990-01-31", "optin": False},
        {"id": "2", "birthday": "1990-01-31", "optin": True},
    ]
