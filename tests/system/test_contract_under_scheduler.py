"""A sample of the contract under a real scheduler and triggerer: states, tries, calls, and who is told."""

from __future__ import annotations

import pytest

from airflow_provider_bubblehouse.hooks.bubblehouse import BubblehouseHook

DAG = """
    from datetime import timedelta

    from airflow.sdk import DAG

    from airflow_provider_bubblehouse.callbacks import on_permanent_failure, on_transient_failure
    from airflow_provider_bubblehouse.operators.customers import UpdateCustomersOperator
    from airflow_provider_bubblehouse.sensors.bubblehouse import BubblehouseCustomerSensor, BubblehouseStatusSensor

    def note(name):
        def callback(context):
            with open({told!r}, "a") as file:
                file.write(f"{{name}} {{context['bubblehouse']['status']}}\\n")
        return callback

    tell = [on_permanent_failure(note("permanent")), on_transient_failure(note("transient"))]
    arguments = dict(
        task_id="task", retries=2, retry_delay=timedelta(seconds=1), on_failure_callback=tell, on_retry_callback=tell
    )
    with DAG({name!r}, max_active_runs=1):
        {task}
"""
PUSH = 'UpdateCustomersOperator(customers=[{"id": "1"}], max_attempts=1, **arguments)'
WAIT = 'BubblehouseCustomerSensor(identity={"shop_id": "1"}, deferrable=True, poke_interval=2, **arguments)'
ASK = 'BubblehouseStatusSensor(on_unavailable="wait", deferrable=True, poke_interval=2, **arguments)'


@pytest.fixture
def start(deployment, request, tmp_path):
    """Return what starts a run of one task; the DAG is named after the test."""

    def begin(task: str):
        name = "".join(letter if letter.isalnum() else "_" for letter in request.node.name)
        source = DAG.format(name=name, task=task, told=str(tmp_path / "told"))
        return deployment.trigger(deployment.add_dag(name, source))

    return begin


@pytest.fixture
def told(deployment, tmp_path):
    """Return what waits until somebody was told of a failure, and returns of what."""

    def lines(count: int) -> list[str]:
        file = tmp_path / "told"
        read = lambda: file.read_text().splitlines() if file.exists() else []  # noqa: E731
        deployment.poll(lambda: len(read()) >= count, "the callbacks were called")  # they come after the state
        return read()

    return lines


def ended(deployment, run) -> tuple[str, int]:
    state = deployment.wait_for_run(run)
    return state, len(deployment.tries(run, "task"))


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
def test_a_push_is_retried_after_what_a_retry_can_help_only(
    deployment, sandbox, start, told, fault, state, tries, failure
):
    sandbox.script(fault)
    run = start(PUSH)
    assert ended(deployment, run) == (state, tries)
    assert len(sandbox.calls) == tries
    assert told(1) == [failure]


def test_an_outage_in_the_triggerer_is_retried(deployment, sandbox, start, told):
    sandbox.script("ok", "503")  # the worker's look, which finds nobody, and the first one of the triggerer
    run = start(WAIT)
    deployment.poll(lambda: len(sandbox.calls) == 2, "the triggerer has looked")
    BubblehouseHook().update_customers([{"id": "1"}])
    assert ended(deployment, run) == ("success", 2)
    assert told(1) == ["transient 503"]


def test_a_token_that_is_not_accepted_in_the_triggerer_fails_without_a_retry(deployment, sandbox, start, told):
    sandbox.script("ok", "401:invalid_token")
    run = start(WAIT)
    assert ended(deployment, run) == ("failed", 1)
    assert len(sandbox.calls) == 2
    assert told(1) == ["permanent 401"]
    assert "BubblehousePermanentError" in deployment.logs(run, "task")[1]


def test_an_outage_is_waited_out_in_the_triggerer_within_one_try(deployment, sandbox, start):
    sandbox.script("503", "503")
    run = start(ASK)
    assert ended(deployment, run) == ("success", 1)
    assert len(sandbox.calls) == 3
