"""
One table for every component of the package: an answer means the same wherever it arrives.

Each component is a task with its own sandbox, so that its calls can be counted. All tasks of a row run
in one DAG run, with ``retries=2``.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import requests
from airflow.providers.http.operators.http import HttpOperator
from airflow.providers.http.sensors.http import HttpSensor
from faulty_sandbox import Sandbox
from versions import AIRFLOW, TELLS_CALLBACKS

from airflow_provider_bubblehouse.airflow_compat import DAG, task
from airflow_provider_bubblehouse.api.classifier import find_error
from airflow_provider_bubblehouse.callbacks import check_response
from airflow_provider_bubblehouse.exceptions import (
    BubblehousePermanentError,
    BubblehouseRateLimitError,
    BubblehouseRejectedError,
    BubblehouseTransientError,
)
from airflow_provider_bubblehouse.hooks.bubblehouse import BubblehouseHook
from airflow_provider_bubblehouse.operators.customers import UpdateCustomersOperator
from airflow_provider_bubblehouse.retry_policy import BubblehouseRetryPolicy
from airflow_provider_bubblehouse.sensors.bubblehouse import BubblehouseCustomerSensor, BubblehouseStatusSensor
from airflow_provider_bubblehouse.triggers.bubblehouse import (
    BubblehouseCustomerTrigger,
    BubblehouseStatusTrigger,
    error_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

TABLE = {
    "200": ('json={"ok": true}', None),
    "200 with HTML": ("html", BubblehousePermanentError),
    "202": ("202", BubblehousePermanentError),
    "302": ("redirect", BubblehousePermanentError),
    "400": ("400", BubblehouseRejectedError),
    "400 of the global version": ("400:invalid_global_api_version", BubblehousePermanentError),
    "401": ("401", BubblehousePermanentError),
    "403": ("403", BubblehousePermanentError),
    "404": ("404", BubblehousePermanentError),
    "405": ("405", BubblehousePermanentError),
    "413": ("413", BubblehousePermanentError),
    "422": ("422", BubblehouseRejectedError),
    "429": ("429:rate_limit_exceeded", BubblehouseRateLimitError),
    "429 with Retry-After": ("429:rate_limit_exceeded,retry_after=1", BubblehouseRateLimitError),
    "500": ("500", BubblehouseTransientError),
    "502": ("502", BubblehouseTransientError),
    "503": ("503", BubblehouseTransientError),
    "504": ("504", BubblehouseTransientError),
    "reset": ("reset", BubblehouseTransientError),
    "timeout": ("delay=30", BubblehouseTransientError),
    "cut-off body": ("cut", BubblehouseTransientError),
}

NOT_YET = "404:no_customers_match_customer_identity"
TRIES = 3  # retries=2
TIMEOUT = 0.7  # seconds; every component waits as long for the one answer that does not come
NUMBER = itertools.count()

try:
    from airflow.sdk import RetryPolicy  # noqa: F401
except ImportError:
    HAS_RETRY_POLICIES = False
else:
    HAS_RETRY_POLICIES = True


def call_with_hook(name: str) -> None:
    @task(task_id=name)
    def call() -> None:
        BubblehouseHook(name).call("UpdateCustomers3", {"customers": [{"id": "1"}]})

    call()


def push_with_operator(name: str) -> None:
    UpdateCustomersOperator(task_id=name, customers=[{"id": "1"}], bubblehouse_conn_id=name, max_attempts=1)


def push_with_decorator(name: str) -> None:
    @task.bubblehouse_customers(task_id=name, bubblehouse_conn_id=name, max_attempts=1)
    def customers() -> list[dict]:
        return [{"id": "1"}]

    customers()


def sense_status(name: str, **how) -> None:
    BubblehouseStatusSensor(task_id=name, bubblehouse_conn_id=name, **how)


def sense_customer(name: str, **how) -> None:
    BubblehouseCustomerSensor(
        task_id=name, bubblehouse_conn_id=name, identity={"shop_id": "1"}, poke_interval=0.01, **how
    )


def post_with_http_operator(name: str) -> None:
    HttpOperator(task_id=name, http_conn_id=name, **http_parameters())


def poke_with_http_sensor(name: str) -> None:
    HttpSensor(task_id=name, http_conn_id=name, **http_parameters())


def http_parameters() -> dict:
    return {
        "endpoint": "api/v20230601/demo-shop/Status2",
        "method": "POST",
        "response_check": check_response,
        "extra_options": {"check_response": False, "allow_redirects": False, "timeout": TIMEOUT},
    }


def post_under_the_policy(name: str, post: Callable[..., Any], **how) -> None:
    """Add a task that uses only the policy of this package."""

    @task(task_id=name, retry_policy=BubblehouseRetryPolicy())
    def call() -> None:
        url = f"{BubblehouseHook(name).connection.base_url}/api/v20230601/demo-shop/Status2"
        post(url, timeout=TIMEOUT, **how).raise_for_status()

    call()


def post_with_http_hook_under_the_policy(name: str) -> None:
    """Add a task whose hook replaces the error that has the answer."""
    how = {"extra_options": {"allow_redirects": False, "timeout": TIMEOUT}, "response_check": None}
    HttpOperator(task_id=name, http_conn_id=name, retry_policy=BubblehouseRetryPolicy(), **http_parameters() | how)


COMPONENTS = {
    "hook": call_with_hook,
    "operator": push_with_operator,
    "decorator": push_with_decorator,
    "status_poke": sense_status,
    "status_reschedule": lambda name: sense_status(name, mode="reschedule"),
    "status_deferred": lambda name: sense_status(name, deferrable=True),
    "customer_poke": sense_customer,
    "customer_reschedule": lambda name: sense_customer(name, mode="reschedule"),
    "customer_deferred": lambda name: sense_customer(name, deferrable=True),
    "http_operator": post_with_http_operator,
    "http_sensor": poke_with_http_sensor,
}
if HAS_RETRY_POLICIES:
    COMPONENTS |= {
        "policy_requests": lambda name: post_under_the_policy(name, requests.post, allow_redirects=False),
        "policy_httpx": lambda name: post_under_the_policy(name, httpx.post),
        "http_policy_hook": post_with_http_hook_under_the_policy,
    }

# What these see is what raise_for_status() raises for, which is an error status; to httpx a redirect is one, too.
NOTHING_RAISED = {
    "policy_requests": ["200 with HTML", "202", "302"],
    "policy_httpx": ["200 with HTML", "202"],
    "http_policy_hook": ["200 with HTML", "202", "302"],
}

# The answer to the check in the worker, before the task defers; the trigger then gets the answer of the row.
FIRST_LOOKS = {"customer_deferred": [NOT_YET]}


# Where dag.test() passes no exception to callbacks, it also takes seconds for each task, so only a sample runs.
ROWS = list(TABLE) if TELLS_CALLBACKS else ["200", "400", "503"]


def expected_of(component: str, row: str) -> tuple[str, int, int, list[type]]:
    """Return a task's final state, its tries, the calls that arrived, and the class of the error of each try."""
    kind = None if row in NOTHING_RAISED.get(component, []) else TABLE[row][1]
    if kind is None:
        state, tries, errors = "success", 1, []
    elif kind is BubblehouseTransientError:
        state, tries, errors = "failed", TRIES, [kind] * TRIES
    else:
        state, tries, errors = "failed", 1, [kind]
    if not TELLS_CALLBACKS:
        errors = []
    looks = 1 + len(FIRST_LOOKS.get(component, []))
    # Airflow 3.0 gives the further tries of a task that was deferred the event of the first one.
    calls = looks if looks > 1 and AIRFLOW == (3, 0) else tries * looks
    return state, tries, calls, errors


@pytest.fixture(scope="module")
def sandboxes():
    with ExitStack() as stack:
        yield {component: stack.enter_context(Sandbox()) for component in COMPONENTS}


@pytest.mark.parametrize("row", ROWS)
def test_a_task_ends_as_the_table_says_with_every_component(sandboxes, run_dag, tries_of, monkeypatch, row):
    fault, _ = TABLE[row]
    errors = {component: [] for component in COMPONENTS}

    def remember(context) -> None:
        errors[context["ti"].task_id].append(type(find_error(context["exception"])))

    for component, sandbox in sandboxes.items():
        sandbox.clear()
        sandbox.script(*[*FIRST_LOOKS.get(component, []), fault] * TRIES)
        connection = sandbox.connection(extra={"timeout": TIMEOUT})
        if component.startswith("http"):
            connection = sandbox.connection(conn_type="http", login=None, password=None)
        monkeypatch.setenv(f"AIRFLOW_CONN_{component.upper()}", connection)
    with DAG(
        dag_id=f"contract_{next(NUMBER)}",
        schedule=None,
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        default_args={
            "retries": TRIES - 1,
            "retry_delay": timedelta(0),
            "on_failure_callback": remember,
            "on_retry_callback": remember,
        },
    ) as dag:
        for component, add_task in COMPONENTS.items():
            add_task(component)
    run_dag(dag)
    seen = {
        component: (*state_and_tries, len(sandboxes[component].calls), errors[component])
        for component, state_and_tries in tries_of(dag).items()
    }
    assert seen == {component: expected_of(component, row) for component in COMPONENTS}


TRIGGERS = {
    "status": lambda **how: BubblehouseStatusTrigger(**how),
    "customer": lambda **how: BubblehouseCustomerTrigger(identities=[{"shop_id": "1"}], expected={}, **how),
}


@pytest.mark.parametrize("trigger", TRIGGERS)
@pytest.mark.parametrize("row", TABLE)
def test_a_triggers_event_raises_the_error_of_the_table_after_one_call(sandbox, monkeypatch, trigger, row):
    fault, kind = TABLE[row]
    monkeypatch.setenv("AIRFLOW_CONN_BUBBLEHOUSE_DEFAULT", sandbox.connection(extra={"timeout": TIMEOUT}))
    sandbox.script(fault)

    async def run() -> list[dict]:
        waiting = TRIGGERS[trigger](bubblehouse_conn_id="bubblehouse_default", poke_interval=0)
        return [event.payload async for event in waiting.run()]

    (event,) = asyncio.run(run())
    error = error_of(json.loads(json.dumps(event)))
    assert type(error) is (kind or type(None))
    assert len(sandbox.calls) == 1
