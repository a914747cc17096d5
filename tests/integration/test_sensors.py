"""The sensors in all modes: when they wait, when they end, and what Airflow stores and shows of the customers."""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
import os
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from versions import AIRFLOW, tells_callbacks

from airflow_provider_bubblehouse.airflow_compat import (
    DAG,
    AirflowException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferred,
    task,
)
from airflow_provider_bubblehouse.exceptions import (
    BubblehouseError,
    BubblehousePermanentError,
    BubblehouseRejectedError,
    BubblehouseTransientError,
)
from airflow_provider_bubblehouse.hooks.bubblehouse import BubblehouseHook
from airflow_provider_bubblehouse.sensors.bubblehouse import BubblehouseCustomerSensor, BubblehouseStatusSensor

NUMBER = itertools.count()
NOT_YET = "404:no_customers_match_customer_identity"
MODES = {"poke": {"mode": "poke"}, "reschedule": {"mode": "reschedule"}, "deferred": {"deferrable": True}}
# In reschedule mode, dag.test() of Airflow 3.0 counts a try for each check.
MODES_OF_ONE_TRY = [mode for mode in MODES if mode != "reschedule" or AIRFLOW != (3, 0)]
SENTINEL = "sentinel@example.com"


@pytest.fixture
def dag() -> DAG:
    return DAG(
        dag_id=f"sensors_{next(NUMBER)}",
        schedule=None,
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        default_args={"retries": 2, "retry_delay": timedelta(0)},
    )


@pytest.fixture(params=["poke", "deferred"])
def mode(request) -> dict:
    return MODES[request.param]


def status_sensor(**how) -> BubblehouseStatusSensor:
    return BubblehouseStatusSensor(**{"task_id": "wait", "poke_interval": 0.01, "timeout": 30} | how)


def customer_sensor(identity=None, **how) -> BubblehouseCustomerSensor:
    how = {"task_id": "wait", "poke_interval": 0.01, "timeout": 30} | how
    return BubblehouseCustomerSensor(identity=identity or {"shop_id": "1"}, **how)


def run(sensor) -> None:
    """Execute a sensor as a worker, a triggerer and a worker again do."""
    try:
        sensor.execute({})
    except TaskDeferred as deferred:
        event = json.loads(json.dumps(asyncio.run(first_event(deferred.trigger))))
        sensor.resume_execution(deferred.method_name, {"event": event}, {})


async def first_event(trigger) -> dict | None:
    async for event in trigger.run():
        return event.payload
    return None


def outcome(sensor) -> type | None:
    try:
        run(sensor)
    except Exception as error:  # noqa: BLE001 (whichever it is)
        return type(error)
    return None


@pytest.mark.parametrize("mode", MODES_OF_ONE_TRY)
def test_a_sensor_waits_for_a_customer_within_one_try(sandbox, run_dag, tries_of, dag, mode):
    BubblehouseHook().update_customers([{"id": "1", "first_name": "Ada"}])
    sandbox.script(f"{NOT_YET},for=CustomerDetails1", f"{NOT_YET},for=CustomerDetails1")
    customer_sensor(dag=dag, expected={"first_name": "Ada"}, **MODES[mode])
    run_dag(dag)
    assert tries_of(dag) == {"wait": ("success", 1)}
    assert len(sandbox.calls_of("CustomerDetails1")) == 3


@pytest.mark.parametrize("mode", MODES_OF_ONE_TRY)
def test_on_unavailable_wait_waits_during_an_outage_and_fails_on_a_4xx(sandbox, run_dag, tries_of, dag, mode):
    sandbox.script("503", "reset", "cut", "401")
    status_sensor(dag=dag, on_unavailable="wait", **MODES[mode])
    run_dag(dag)
    assert tries_of(dag) == {"wait": ("failed", 1)}
    assert len(sandbox.calls) == 4


def test_silent_fail_waits_during_an_outage_and_fails_on_a_4xx(sandbox, mode):
    BubblehouseHook().update_customers([{"id": "1"}])
    sandbox.script("503", "503", "503")
    run(customer_sensor(silent_fail=True, **mode))
    assert len(sandbox.calls_of("CustomerDetails1")) == 4
    sandbox.script(NOT_YET, "403")
    with pytest.raises(BubblehousePermanentError):
        run(customer_sensor(silent_fail=True, **mode))


def test_a_sensor_waits_for_all_customers_of_a_list_and_checks_a_found_one_only_once(sandbox, mode):
    BubblehouseHook().update_customers([{"id": "1"}, {"id": "2"}, {"id": "3"}])
    sandbox.clear()
    BubblehouseHook().update_customers([{"id": "1"}, {"id": "3", "email": "c@example.com"}])
    sandbox.script("ok,for=CustomerDetails1", f"{NOT_YET},for=CustomerDetails1", f"{NOT_YET},for=CustomerDetails1")
    BubblehouseHook().update_customers([{"id": "2"}])
    run(customer_sensor([{"shop_id": "1"}, {"shop_id": "2"}, {"email": "c@example.com"}], **mode))
    assert len(sandbox.calls_of("CustomerDetails1")) == 5  # 1, 2 not found twice, 2, 3


def test_an_empty_list_succeeds_without_a_call(sandbox, mode):
    run(BubblehouseCustomerSensor(task_id="wait", identity=[], **mode))
    assert sandbox.calls == []


def test_a_sensor_waits_for_expected_values(sandbox, mode):
    old = json.dumps({"id": "1", "extras": {"plan": "silver"}})
    new = json.dumps({"id": "1", "extras": {"plan": "gold", "city": "Oslo"}})
    sandbox.script(f"json={old}", f"json={old}", f"json={new}")
    run(customer_sensor(expected={"extras": {"plan": "gold"}}, **mode))
    assert len(sandbox.calls) == 3


REFUSED, DOWN = "401", "503"


@pytest.mark.parametrize("deferrable", [False, True], ids=["poke", "deferred"])
@pytest.mark.parametrize("looks", [0, 1], ids=["first_look", "later_look"])
@pytest.mark.parametrize(
    ("fault", "options", "result"),
    [
        (REFUSED, {}, BubblehousePermanentError),
        (REFUSED, {"soft_fail": True}, AirflowSkipException),
        (REFUSED, {"never_fail": True}, AirflowSkipException),
        (REFUSED, {"silent_fail": True}, BubblehousePermanentError),
        (DOWN, {}, BubblehouseTransientError),
        (DOWN, {"soft_fail": True}, BubblehouseTransientError),
        (DOWN, {"never_fail": True}, AirflowSkipException),
        (DOWN, {"silent_fail": True}, None),
    ],
)
def test_soft_never_and_silent_fail_mean_the_same_in_poke_and_deferred_mode(
    sandbox, deferrable, looks, fault, options, result
):
    sandbox.script(*[NOT_YET] * looks, fault, 'json={"id": "1"}')
    assert outcome(customer_sensor(deferrable=deferrable, **options)) is result


TIMED_OUT = {"error": "Trigger timeout" if "airflow.sdk" in sys.modules else "Trigger/execution timeout"}


@pytest.mark.parametrize(
    ("options", "result"),
    [
        ({}, AirflowSensorTimeout),
        ({"soft_fail": True}, AirflowSkipException),
        ({"never_fail": True}, AirflowSensorTimeout),
        ({"silent_fail": True}, AirflowSensorTimeout),
    ],
)
def test_a_timeout_means_the_same_in_poke_and_deferred_mode(sandbox, options, result):
    sandbox.rates({NOT_YET: 1.0})
    assert outcome(customer_sensor(timeout=0, **options)) is result
    with pytest.raises(result):
        customer_sensor(deferrable=True, **options).resume_execution("__fail__", TIMED_OUT, {})


def test_the_deferral_ends_when_the_sensor_has_to(sandbox):
    sandbox.script(NOT_YET)
    with pytest.raises(TaskDeferred) as caught:
        customer_sensor(deferrable=True, timeout=90).execute({})
    assert caught.value.timeout == timedelta(seconds=90)


@pytest.mark.parametrize("event", [None, {}, [], "success", {"status": None}, {"status": "done"}, {"state": "success"}])
def test_an_event_without_success_is_an_error(event):
    with pytest.raises(BubblehouseTransientError, match="sent no result"):
        status_sensor(deferrable=True).execute_complete({}, event)


def test_an_event_of_another_version_stays_permanent_or_transient():
    for permanent, kind in ((True, BubblehousePermanentError), (False, BubblehouseTransientError)):
        event = {"status": "error", "error": "BubblehouseNewError", "permanent": permanent}
        with pytest.raises(kind):
            status_sensor(deferrable=True).execute_complete({}, event)


def test_the_event_carries_the_details_of_the_answer(sandbox):
    sandbox.script(NOT_YET, "429:rate_limit_exceeded,retry_after=7")
    with pytest.raises(BubblehouseError) as caught:
        run(customer_sensor(deferrable=True))
    error = caught.value
    assert (error.status, error.error_id, error.retry_after, error.attempts) == (429, "rate_limit_exceeded", 7.0, 1)
    sandbox.script(NOT_YET, "422:bad_input")
    with pytest.raises(BubblehouseRejectedError, match="bad_input"):
        run(customer_sensor(deferrable=True))


@tells_callbacks
def test_the_error_of_the_last_try_names_retries(sandbox, run_dag, dag):
    said = []
    dag.default_args.update(retries=0, on_failure_callback=lambda context: said.append(str(context["exception"])))
    sandbox.script("503,for=Status2", f"{NOT_YET},for=CustomerDetails1", "503,for=CustomerDetails1")
    status_sensor(dag=dag)
    BubblehouseCustomerSensor(
        task_id="customer", identity={"shop_id": "1"}, poke_interval=0.01, deferrable=True, dag=dag
    )
    run_dag(dag)
    assert len(said) == 2
    assert all(text.endswith("set retries= to have this retried.") for text in said)


@pytest.mark.parametrize(
    ("sensor", "parameters", "said"),
    [
        (status_sensor, {"on_unavailable": "sometimes"}, "on_unavailable must be one of retry, wait"),
        (status_sensor, {"on_unavailable": None}, "on_unavailable must be one of retry, wait"),
        (status_sensor, {"deferrable": "False"}, "deferrable must be True or False"),
        (status_sensor, {"bubblehouse_conn_id": None}, "bubblehouse_conn_id must be text"),
        (customer_sensor, {"identity": 5}, "identity must be an object or a list of objects"),
        (customer_sensor, {"identity": b"[]"}, "identity must be an object or a list of objects"),
        (customer_sensor, {"expected": [SENTINEL]}, "expected must be an object of fields and values"),
        (customer_sensor, {"expected": 5}, "expected must be an object of fields and values"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_parameter_that_cannot_work_fails_when_the_dag_is_parsed(sensor, parameters, said):
    with pytest.raises(BubblehousePermanentError, match=said) as caught:
        sensor(**parameters)
    assert "sentinel" not in str(caught.value)


def test_every_template_field_may_be_a_template_or_the_output_of_a_task():
    with DAG("sensor_outputs", schedule=None):

        @task
        def give():
            return {}

        output = give()
        sensor = customer_sensor(output, expected=output, bubblehouse_conn_id=output)
        assert sensor.upstream_task_ids == {"give"}
        assert (sensor.identity, sensor.expected, sensor.bubblehouse_conn_id) == (output,) * 3
        template = "{{ params.x | tojson }}"
        assert customer_sensor(template, expected=template, task_id="text").identity is template


def test_a_sensor_can_be_copied_after_execute(sandbox, mode):
    BubblehouseHook().update_customers([{"id": "1", "first_name": "Ada"}])
    sensor = customer_sensor(expected={"first_name": "Ada"}, **mode)
    sensor.render_template_fields({})
    run(sensor)
    run(copy.deepcopy(sensor))
    assert len(sandbox.calls_of("CustomerDetails1")) == 2


@pytest.mark.parametrize("how", [{"identity": {"id": SENTINEL}}, {"expected": {"total_spent": 5}}], ids=str)
def test_a_value_that_no_customer_can_have_is_refused_before_a_call(sandbox, how):
    with pytest.raises(BubblehousePermanentError):
        customer_sensor(**how).execute({})
    assert sandbox.calls == []


def test_an_invalid_identity_fails_the_task_on_its_first_try(sandbox, run_dag, tries_of, dag):
    BubblehouseCustomerSensor(task_id="wait", identity="{{ params.get('x') | tojson }}", dag=dag)
    run_dag(dag)
    assert tries_of(dag) == {"wait": ("failed", 1)}
    assert sandbox.calls == []


def test_the_default_of_deferrable_is_airflows_setting():
    code = (
        "from airflow_provider_bubblehouse.sensors.bubblehouse import BubblehouseStatusSensor as Sensor;"
        "assert Sensor(task_id='x').deferrable and not Sensor(task_id='x', deferrable=False).deferrable"
    )
    environment = {**os.environ, "AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE": "True"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert status_sensor().deferrable is False


def test_a_dag_file_loads_no_http_library_and_nothing_that_reads_or_pushes_rows():
    code = (
        "import sys;"
        "from airflow_provider_bubblehouse.airflow_compat import BaseSensorOperator, conf, DecoratedOperator;"
        "from airflow.triggers.base import BaseTrigger;"
        "before = set(sys.modules);"
        "import airflow_provider_bubblehouse.sensors.bubblehouse, airflow_provider_bubblehouse.triggers.bubblehouse;"
        "import airflow_provider_bubblehouse.callbacks, airflow_provider_bubblehouse.retry_policy;"
        "import airflow_provider_bubblehouse.operators.customers, airflow_provider_bubblehouse.decorators.bubblehouse;"
        "import airflow_provider_bubblehouse.assets.customers;"
        "own = 'airflow_provider_bubblehouse';"
        "slow = {'requests', 'httpx', 'jwt', 'pyarrow', 'cryptography', 'sqlite3',"
        " own + '.customers.fields', own + '.sources.files', own + '.push.push', own + '.ledger.changes'};"
        "new = set(sys.modules) - before;"
        "assert not slow & new, slow & new"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def stored(dag_id: str, table: str, columns: str) -> list[tuple]:
    with sqlite3.connect(f"{os.environ['AIRFLOW_HOME']}/airflow.db") as connection:
        return connection.execute(f"SELECT {columns} FROM {table} WHERE dag_id = ?", (dag_id,)).fetchall()


@pytest.mark.parametrize("mode", ["poke", "deferred"])
def test_airflow_shows_how_many_customers_and_which_fields_and_no_value(sandbox, run_dag, tries_of, dag, mode):
    BubblehouseHook().update_customers([{"email": SENTINEL, "first_name": "Sentinel {{ 7*7 }}"}, {"id": "2"}])
    sandbox.script(f"{NOT_YET},for=CustomerDetails1")
    with dag:

        @task
        def sample() -> list[dict]:
            return [{"email": SENTINEL}]

        @task
        def fields() -> dict:
            return {"first_name": "Sentinel {{ 7*7 }}"}

        how = {"poke_interval": 0.01, **MODES[mode]}
        BubblehouseCustomerSensor(task_id="wait", identity=sample(), expected=fields(), **how)
        BubblehouseCustomerSensor.partial(task_id="mapped", **how).expand(identity=[{"shop_id": "2"}])
    run_dag(dag)
    assert {state for state, _ in tries_of(dag).values()} == {"success"}
    shown = {
        task_id: json.loads(rendered)
        for task_id, rendered in stored(dag.dag_id, "rendered_task_instance_fields", "task_id, rendered_fields")
    }
    assert (shown["wait"]["identity"], shown["wait"]["expected"]) == ("1 customer", "first_name")
    assert shown["mapped"]["identity"] == "1 customer"
    kept = [row for row in stored(dag.dag_id, "xcom", "task_id, value") if row[0] in ("wait", "mapped")]
    assert "sentinel" not in str([shown["wait"], kept]).lower()


def test_a_deferred_sensor_stores_no_value_of_a_customer(sandbox):
    sandbox.script(NOT_YET)
    with pytest.raises(TaskDeferred) as caught:
        customer_sensor([{"email": SENTINEL}], expected={"first_name": "Sentinel"}, deferrable=True).execute({})
    _, parameters = caught.value.trigger.serialize()
    assert "sentinel" not in str(parameters).lower()


def test_after_a_change_of_the_secret_the_retry_defers_again(sandbox, monkeypatch):
    BubblehouseHook().update_customers([{"id": "1"}])
    sandbox.script(f"{NOT_YET},for=CustomerDetails1", f"{NOT_YET},for=CustomerDetails1")
    sensor = customer_sensor(deferrable=True)
    with pytest.raises(TaskDeferred) as caught:
        sensor.execute({})
    extra = {"key_id": sandbox.key_id, "shared_secret": sandbox.shared_secret}
    monkeypatch.setenv("AIRFLOW_CONN_BUBBLEHOUSE_DEFAULT", sandbox.connection(password="", extra=extra))
    event = asyncio.run(first_event(caught.value.trigger))
    with pytest.raises(BubblehouseTransientError, match="of the Airflow connection changed"):
        sensor.resume_execution(caught.value.method_name, {"event": event}, {})
    run(sensor)
    assert len(sandbox.calls_of("CustomerDetails1")) == 3  # one check of each try, and one of the second trigger


def test_logs_and_errors_name_positions_and_fields_and_no_value(sandbox, mode, caplog, capfd):
    caplog.set_level("DEBUG")
    found = json.dumps({"email": SENTINEL, "first_name": "Sentinel"})
    sandbox.script(f"json={found}", NOT_YET, f"json={found}", f"400,message={SENTINEL}")
    sensor = customer_sensor([{"email": SENTINEL}], expected={"first_name": "Sentinel II"}, **mode)
    with pytest.raises(BubblehouseRejectedError) as caught:
        run(sensor)
    logged = "".join(capfd.readouterr()) + caplog.text  # Airflow 3 does not use logging
    assert "Customer 1 of 1 does not have the expected values yet: first_name." in logged
    assert "Customer 1 of 1 does not exist yet." in logged
    assert "sentinel" not in (logged + str(caught.value)).lower()


def test_an_unknown_connection_raises_airflows_own_error(sandbox, mode):
    sensor = status_sensor(bubblehouse_conn_id="nowhere", **mode)
    with pytest.raises(AirflowException, match="nowhere"):
        run(sensor)
