"""A sample of the retry contract under a real scheduler and triggerer: states, tries, calls and callbacks."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest

from airflow_provider_bubblehouse.hooks.bubblehouse import BubblehouseHook

DAG = """
    from datetime import timedelta

    import requests
    from airflow.sdk import DAG, task

    from airflow_provider_bubblehouse.callbacks import on_permanent_failure, on_transient_failure
    from airflow_provider_bubblehouse.operators.customers import UpdateCustomersOperator
    from airflow_provider_bubblehouse.retry_policy import BubblehouseRetryPolicy
    from airflow_provider_bubblehouse.sensors.bubblehouse import BubblehouseCustomerSensor, BubblehouseStatusSensor

    def note(name):
        def callback(context):
            with open({notified!r} + context["ti"].task_id, "a") as file:
                file.write(f"{{name}} {{context['bubblehouse']['status']}}\\n")
        return callback

    def post(url):
        requests.post(url).raise_for_status()

    tell = [on_permanent_failure(note("permanent")), on_transient_failure(note("transient"))]
    arguments = dict(
        task_id="task", retries=2, retry_delay=timedelta(seconds=1), on_failure_callback=tell, on_retry_callback=tell
    )
    policy = arguments | dict(retry_policy=BubblehouseRetryPolicy(), retry_delay=timedelta(hours=1))
    with DAG({name!r}, max_active_runs=1):
        {tasks}
"""
PUSH = 'UpdateCustomersOperator(customers=[{"id": "1"}], max_attempts=1, **arguments)'
WAIT = 'BubblehouseCustomerSensor(identity={"shop_id": "1"}, deferrable=True, poke_interval=1, **arguments)'
ASK = 'BubblehouseStatusSensor(on_unavailable="wait", deferrable=True, poke_interval=1, **arguments)'


# Of the following, several are in one run. Airflow fails a task of itself, now and then, whose next look is due about
# when it hears of the end of the last one (apache/airflow#71172): not seen with five seconds between looks.
RESCHEDULED_WAIT = """BubblehouseCustomerSensor(
    identity={"shop_id": "1"}, mode="reschedule", poke_interval=5, **arguments | dict(task_id="wait")
)"""
RESCHEDULED_ASK = """BubblehouseStatusSensor(
    on_unavailable="wait", mode="reschedule", poke_interval=5, **arguments | dict(task_id="ask")
)"""
POLICY_PUSH = 'UpdateCustomersOperator(customers=[{"id": "1"}], max_attempts=1, **policy | dict(task_id="push"))'
POLICY_POST = "task(**policy | dict(task_id={task_id!r}))(post)({url!r})"


@pytest.fixture
def start(deployment, request, tmp_path):
    """Return what starts a run of some tasks; the DAG is named after the test."""

    def begin(*tasks: str):
        name = "".join(letter if letter.isalnum() else "_" for letter in request.node.name)
        lines = "\n".join(tasks).replace("\n", "\n        ")
        source = DAG.format(name=name, tasks=lines, notified=str(tmp_path / "notified_of_"))
        return deployment.trigger(deployment.add_dag(name, source))

    return begin


@pytest.fixture
def notified(deployment, tmp_path):
    """Return a function that waits for the callbacks of a task, and returns the failures that they received."""

    def lines(count: int, task_id: str = "task") -> list[str]:
        file = tmp_path / f"notified_of_{task_id}"
        read = lambda: file.read_text().splitlines() if file.exists() else []  # noqa: E731
        deployment.poll(lambda: len(read()) >= count, "the callbacks were called")  # they come after the state
        return read()

    return lines


def ended(deployment, run, task_id: str = "task") -> tuple[str, int]:
    """Wait until a run has ended, and return a task's state and number of tries."""
    deployment.wait_for_run(run)
    return deployment.task(run, task_id)["state"], len(deployment.tries(run, task_id))


def raised(deployment, run, task_id: str = "task") -> list[str]:
    """Return the class of the error that ended each try of a task, as in its log; a try without an error has none."""
    logs = deployment.logs(run, task_id).values()
    return [kind for text in logs for kind in re.findall(r'"exc_type":"(\w+)"', text)]


@pytest.mark.parametrize(
    ("fault", "state", "tries", "failure"),
    [
        ("400", "failed", 1, "permanent 400"),
        ("401:invalid_token", "failed", 1, "permanent 401"),
        ("429:rate_limit_exceeded", "failed", 1, "permanent 429"),
        ("503", "success", 2, "transient 503"),
        ("reset", "success", 2, "transient None"),
    ],
)
def test_a_push_is_retried_only_after_a_transient_error(
    deployment, sandbox, start, notified, fault, state, tries, failure
):
    sandbox.script(fault)
    run = start(PUSH)
    assert ended(deployment, run) == (state, tries)
    assert len(sandbox.calls) == tries
    assert notified(1) == [failure]


def test_an_outage_in_the_triggerer_is_retried(deployment, sandbox, start, notified):
    sandbox.script("ok", "503")  # the worker's look, which finds nobody, and the first one of the triggerer
    run = start(WAIT)
    deployment.poll(lambda: len(sandbox.calls) == 2, "the triggerer has looked")
    BubblehouseHook().update_customers([{"id": "1"}])
    assert ended(deployment, run) == ("success", 2)
    assert notified(1) == ["transient 503"]


def test_a_token_that_is_not_accepted_in_the_triggerer_fails_without_a_retry(deployment, sandbox, start, notified):
    sandbox.script("ok", "401:invalid_token")
    run = start(WAIT)
    assert ended(deployment, run) == ("failed", 1)
    assert len(sandbox.calls) == 2
    assert notified(1) == ["permanent 401"]
    assert raised(deployment, run) == ["BubblehousePermanentError"]


def test_a_sensor_waits_during_an_outage_in_the_triggerer_within_one_try(deployment, sandbox, start):
    sandbox.script("503", "503")
    run = start(ASK)
    assert ended(deployment, run) == ("success", 1)
    assert len(sandbox.calls) == 3


def test_rescheduled_sensors_wait_retry_and_fail_like_all_others(deployment, sandbox, start, notified):
    for fault in ("ok", "503"):  # nobody yet, an outage, and then the customer
        sandbox.script(f"{fault},for=CustomerDetails1")
    for fault in ("503", "401:invalid_token"):
        sandbox.script(f"{fault},for=Status2")
    run = start(RESCHEDULED_WAIT, RESCHEDULED_ASK)
    for task_id in ("wait", "ask"):
        deployment.wait(run, task_id, states={"up_for_reschedule"})
    BubblehouseHook().update_customers([{"id": "1"}])
    assert ended(deployment, run, "wait") == ("success", 2)
    assert len(sandbox.calls_of("CustomerDetails1")) == 3
    assert notified(1, "wait") == ["transient 503"]
    assert raised(deployment, run, "wait") == ["BubblehouseTransientError"]
    assert ended(deployment, run, "ask") == ("failed", 1)
    assert len(sandbox.calls_of("Status2")) == 2
    assert notified(1, "ask") == ["permanent 401"]
    assert raised(deployment, run, "ask") == ["BubblehousePermanentError"]


def test_the_retry_policy_waits_for_retry_after_and_does_not_retry_a_4xx(deployment, sandbox, start, notified):
    again = {"push": "UpdateCustomers3", "post": "CustomerDetails1"}  # the latter knows nothing of this package
    for function in again.values():
        sandbox.script(f"503,retry_after=3,for={function}", f'json={{"ok": true}},for={function}')
    sandbox.script("429:rate_limit_exceeded,retry_after=3,for=Status2")
    posts = {"post": "CustomerDetails1", "refused": "Status2"}
    api = f"{sandbox.url}/api/v20230601/{sandbox.shop}"
    run = start(
        POLICY_PUSH, *(POLICY_POST.format(task_id=task, url=f"{api}/{function}") for task, function in posts.items())
    )
    for task_id, function in again.items():
        assert ended(deployment, run, task_id) == ("success", 2)  # long before the task's own retry_delay
        first, second = sandbox.calls_of(function)
        assert second.arrived_at - first.arrived_at >= timedelta(seconds=3)
        assert notified(1, task_id) == ["transient 503"]
    assert ended(deployment, run, "refused") == ("failed", 1)
    assert len(sandbox.calls_of("Status2")) == 1
    assert notified(1, "refused") == ["permanent 429"]
