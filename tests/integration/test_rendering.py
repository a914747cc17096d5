"""What Airflow renders: templates in the DAG file, and never a value that arrives while the DAG runs."""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
from datetime import UTC, datetime

import pytest
from versions import AIRFLOW

from airflow_provider_bubblehouse.airflow_compat import DAG, task, task_group
from airflow_provider_bubblehouse.hooks.bubblehouse import BubblehouseHook
from airflow_provider_bubblehouse.operators.customers import UpdateCustomersOperator
from airflow_provider_bubblehouse.sensors.bubblehouse import BubblehouseCustomerSensor

NUMBER = itertools.count()
TOKEN = "{{ conn.bubblehouse_default.password }}"
SUM = "{{ 7*7 }}"
ROWS = [{"id": "1", "first_name": TOKEN, "extras": {"x": [{"y": SUM}]}}, {"id": "2", "last_name": SUM}]
DAG_ID = "{{ dag.dag_id }}"


@pytest.fixture
def dag() -> DAG:
    return make_dag()


def make_dag(**how) -> DAG:
    return DAG(dag_id=f"rendering_{next(NUMBER)}", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), **how)


def arrived(sandbox) -> list[dict]:
    customers = [customer for call in sandbox.calls_of("UpdateCustomers3") for customer in call.customers]
    return sorted(customers, key=lambda customer: customer["id"])


def states(dag: DAG) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for task_id, state in stored(dag, "task_instance", "task_id, state"):
        found.setdefault(task_id, set()).add(state)
    return found


def stored(dag: DAG, table: str, columns: str) -> list[tuple]:
    with sqlite3.connect(f"{os.environ['AIRFLOW_HOME']}/airflow.db") as connection:
        return connection.execute(f"SELECT {columns} FROM {table} WHERE dag_id = ?", (dag.dag_id,)).fetchall()


def later(value):
    """Return an XComArg that stands for a value."""

    @task(task_id="give", show_return_value_in_logs=False)
    def give():
        return value

    return give()


@task.bubblehouse_customers
def push(rows=(), text="[]", **_more):
    return [*rows, *json.loads(text)]


@task.bubblehouse_customers
def join(text, more=()):
    return [{"id": "-".join([text, *more])}]


def operator(**kwargs):
    return UpdateCustomersOperator.partial(task_id="push", **kwargs)


def one_by_one(name, values):
    return later([{name: [value]} for value in values])


WAYS = {
    "arguments of a function": lambda: push.expand_kwargs(later([{"rows": ROWS}])),
    "JSON text for a function": lambda: push.expand_kwargs(later([{"text": json.dumps(ROWS)}])),
    "an argument beside partial": lambda: push.partial(text="[]").expand_kwargs(later([{"rows": ROWS}])),
    "an argument instead of partial": lambda: push.partial(rows=[SUM]).expand_kwargs(
        later([{"rows": ROWS}]), strict=False
    ),
    "a list that holds the output": lambda: push.expand_kwargs([later({"rows": ROWS[:1]}), later({"rows": ROWS[1:]})]),
    "output mapped by a function": lambda: push.expand_kwargs(later([ROWS]).map(lambda rows: {"rows": rows})),
    "expand of a function": lambda: push.expand(rows=later([ROWS])),
    "output as an argument": lambda: push(later(ROWS)),
    "output inside arguments": lambda: push([*map(later, ROWS)], extra={"deep": [later(ROWS)]}),
    "rows": lambda: operator().expand_kwargs(later([{"customers": ROWS}])),
    "JSON text": lambda: operator().expand_kwargs(later([{"customers": json.dumps(ROWS)}])),
    "JSON text as output": lambda: UpdateCustomersOperator(task_id="push", customers=later(json.dumps(ROWS))),
    "JSON text in expand": lambda: operator().expand(customers=later([json.dumps(ROWS)])),
    "one row each": lambda: operator(batch_size=1).expand_kwargs(one_by_one("customers", ROWS)),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_customers_text_arrives_unchanged(sandbox, run_dag, dag, way):
    with dag:
        WAYS[way]()
    run_dag(dag)
    assert arrived(sandbox) == ROWS
    assert states(dag)["push"] == {"success"}


def test_rows_in_a_mapped_task_group_arrive_as_they_are(sandbox, run_dag, dag):
    with dag:

        @task_group
        def group(rows):
            UpdateCustomersOperator(task_id="push", customers=rows)

        group.expand_kwargs(later([{"rows": ROWS}]))
    run_dag(dag)
    assert arrived(sandbox) == ROWS


@pytest.fixture
def database(tmp_path, monkeypatch) -> None:
    path = tmp_path / "shop.db"
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", json.dumps({"conn_type": "sqlite", "host": str(path)}))
    sqlite3.connect(path).close()


@pytest.mark.parametrize("parameters", [[SUM], {"name": SUM}], ids=["list", "object"])
@pytest.mark.parametrize("by", ["expand_kwargs", "expand", "output"])
def test_parameters_of_a_query_arrive_as_they_are(sandbox, run_dag, dag, database, parameters, by):
    sql = f"SELECT '1' AS id, {'?' if isinstance(parameters, list) else ':name'} AS first_name"
    query = {"sql": sql, "sql_conn_id": "shop"}
    with dag:
        if by == "expand_kwargs":
            operator(**query).expand_kwargs(later([{"sql_parameters": parameters}]))
        elif by == "expand":
            operator(**query).expand(sql_parameters=later([parameters]))
        else:
            UpdateCustomersOperator(task_id="push", sql_parameters=later(parameters), **query)
    run_dag(dag)
    assert arrived(sandbox) == [{"id": "1", "first_name": SUM}]


@pytest.mark.parametrize("by", ["expand_kwargs", "expand", "output"])
def test_a_path_from_another_task_is_not_rendered(sandbox, run_dag, dag, tmp_path, by):
    path = tmp_path / f"{SUM}.jsonl"
    path.write_text('{"id": "1"}')
    with dag:
        if by == "expand_kwargs":
            operator().expand_kwargs(later([{"path": str(path)}]))
        elif by == "expand":
            operator().expand(path=later([str(path)]))
        else:
            UpdateCustomersOperator(task_id="push", path=later(str(path)))
    run_dag(dag)
    assert arrived(sandbox) == [{"id": "1"}]


@pytest.mark.parametrize(
    "how",
    [
        {"identity": [{"shop_id": SUM}], "expected": {"first_name": TOKEN}},
        {"identity": json.dumps({"shop_id": SUM}), "expected": json.dumps({"first_name": TOKEN, "extras": {"x": SUM}})},
        {"identity": {"shop_id": SUM}},
    ],
    ids=["list", "JSON", "object"],
)
def test_the_identity_of_a_sensor_is_not_rendered(sandbox, run_dag, dag, how):
    BubblehouseHook().update_customers([{"id": SUM, "first_name": TOKEN, "extras": {"x": SUM}}])
    options = {"poke_interval": 0.01, "timeout": 0.1}
    with dag:
        BubblehouseCustomerSensor.partial(task_id="kwargs", **options).expand_kwargs(later([how]))
        BubblehouseCustomerSensor.partial(task_id="each", **options).expand(identity=later([how["identity"]]))
        BubblehouseCustomerSensor(task_id="output", **{name: later(value) for name, value in how.items()}, **options)
    run_dag(dag)
    assert {name: states(dag)[name] for name in ("kwargs", "each", "output")} == {
        "kwargs": {"success"},
        "each": {"success"},
        "output": {"success"},
    }


@pytest.mark.parametrize("empty", [{"identity": []}, {"identity": {"shop_id": "1"}, "expected": {}}], ids=str)
def test_a_sensor_takes_an_output_that_is_empty(sandbox, run_dag, dag, empty):
    BubblehouseHook().update_customers([{"id": "1"}])
    with dag:
        BubblehouseCustomerSensor(
            task_id="wait",
            timeout=0.1,
            poke_interval=0.01,
            **{name: value or later(value) for name, value in empty.items()},
        )
    run_dag(dag)
    assert states(dag)["wait"] == {"success"}


def test_templates_in_partial_and_in_literal_lists_are_rendered(sandbox, run_dag, dag, database):
    query = {"sql": "SELECT ? AS id", "sql_conn_id": "shop"}
    with dag:
        UpdateCustomersOperator.partial(task_id="a", sql_parameters=[f"a-{DAG_ID}"], sql_conn_id="shop").expand_kwargs(
            later([{"sql": "SELECT ? AS id"}])
        )
        UpdateCustomersOperator.partial(task_id="b", **query).expand(sql_parameters=[[f"b-{DAG_ID}"]])
        UpdateCustomersOperator.partial(task_id="c", **query).expand_kwargs([{"sql_parameters": [f"c-{DAG_ID}"]}])
        UpdateCustomersOperator(task_id="e", sql_parameters=[f"e-{DAG_ID}"], **query)
        join.override(task_id="d").expand_kwargs([{"text": f"d-{DAG_ID}", "more": ["{{ 7*7 }}"]}])
        join.override(task_id="f").partial(text=f"f-{DAG_ID}").expand_kwargs(later([{"more": [SUM]}]))
        join.override(task_id="g").expand_kwargs([{"text": f"g-{DAG_ID}"}])
        join.override(task_id="h").expand(text=[f"h-{DAG_ID}"])
        join.override(task_id="i")(f"i-{DAG_ID}", more=later([SUM]))
    run_dag(dag)
    ends = {"d": "-49", "f": f"-{SUM}", "i": f"-{SUM}"}
    assert [customer["id"] for customer in arrived(sandbox)] == [
        f"{name}-{dag.dag_id}{ends.get(name, '')}" for name in "abcdefghi"
    ]


def test_templates_in_default_args_are_rendered(sandbox, run_dag, database):
    dag = make_dag(default_args={"sql_parameters": [f"1-{DAG_ID}"], "sql_conn_id": "shop"})
    query = [{"sql": "SELECT ? AS id"}]
    with dag:
        operator().expand_kwargs(later(query))

        @task_group(default_args={"sql_parameters": [f"2-{DAG_ID}"]})
        def group():
            UpdateCustomersOperator.partial(task_id="push").expand_kwargs(later(query))

        group()
    run_dag(dag)
    assert [customer["id"] for customer in arrived(sandbox)] == [f"1-{dag.dag_id}", f"2-{dag.dag_id}"]


@pytest.mark.skipif(AIRFLOW < (3, 0), reason="Airflow 2 refuses a default argument that no operator has")
def test_a_template_in_default_args_is_rendered_for_an_argument_of_a_function(sandbox, run_dag):
    dag = make_dag(default_args={"text": DAG_ID})
    with dag:
        join.expand_kwargs(later([{"more": [SUM]}]))
    run_dag(dag)
    assert [customer["id"] for customer in arrived(sandbox)] == [f"{dag.dag_id}-{SUM}"]


def test_a_template_that_fails_logs_nothing_of_the_rows_beside_it(sandbox, run_dag, dag, caplog, capfd):
    with dag:
        rows = [{"id": "1", "first_name": "Sentinel"}]
        push.override(task_id="one").partial(text="{{ nothing.at.all }}").expand_kwargs(later([{"rows": rows}]))
        push.override(task_id="two").partial(text="{{ nothing.at.all }}").expand(rows=later([rows]))
    run_dag(dag)
    assert states(dag)["one"] == states(dag)["two"] == {"failed"}
    logged = (caplog.text + "".join(capfd.readouterr())).splitlines()
    failures = [line for line in logged if "Exception rendering Jinja template" in line]
    assert failures
    assert "Sentinel" not in str(failures)


PEOPLE = [{"id": "1", "first_name": "Zoë 😀 <&>", "last_name": None, "email_marketing": True}, {"id": "2"}]
OUTPUT = "ti.xcom_pull(task_ids='give')"


@pytest.mark.parametrize("native", [False, True], ids=["text", "native"])
@pytest.mark.parametrize("template", [f"{{{{ {OUTPUT} | tojson }}}}", f"{{{{ {OUTPUT} | tojson }}}}\n"])
@pytest.mark.parametrize("people", [PEOPLE, [{"id": "1", "first_name": "Zoë 😀"}]], ids=["with null", "plain"])
def test_a_template_that_ends_with_tojson_works(sandbox, run_dag, native, template, people):
    dag = make_dag(render_template_as_native_obj=native)
    with dag:
        later(people) >> UpdateCustomersOperator(task_id="push", customers=template)
    run_dag(dag)
    assert states(dag)["push"] == {"success"}
    assert arrived(sandbox) == people


@pytest.mark.parametrize("native", [False, True], ids=["text", "native"])
def test_a_sensors_template_that_ends_with_tojson_works(sandbox, run_dag, native):
    BubblehouseHook().update_customers(PEOPLE)
    dag = make_dag(render_template_as_native_obj=native)
    with dag:
        later(PEOPLE) >> BubblehouseCustomerSensor(
            task_id="wait",
            identity="{{ [{'shop_id': '1', 'email': none}] | tojson }}",
            expected=f"{{{{ {{'first_name': {OUTPUT}[0]['first_name']}} | tojson }}}}",
            timeout=0.1,
            poke_interval=0.01,
        )
    run_dag(dag)
    assert states(dag)["wait"] == {"success"}


def test_a_native_template_may_render_to_rows(sandbox, run_dag):
    dag = make_dag(render_template_as_native_obj=True)
    with dag:
        later(PEOPLE) >> UpdateCustomersOperator(task_id="push", customers=f"{{{{ {OUTPUT} }}}}")
    run_dag(dag)
    assert arrived(sandbox) == PEOPLE
