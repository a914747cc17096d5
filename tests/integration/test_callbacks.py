"""Callbacks in real runs: which wrapper runs, when, and what its context contains."""

from __future__ import annotations

import itertools
import logging
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import httpx
import pytest
import requests
from airflow.providers.http.operators.http import HttpOperator
from airflow.providers.http.sensors.http import HttpSensor
from versions import tells_callbacks

from airflow_provider_bubblehouse import callbacks
from airflow_provider_bubblehouse.airflow_compat import (
    DAG,
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowTaskTimeout,
    BaseNotifier,
    task,
)
from airflow_provider_bubblehouse.api.classifier import find_error
from airflow_provider_bubblehouse.callbacks import check_response, on_permanent_failure, on_transient_failure
from airflow_provider_bubblehouse.exceptions import (
    BubblehousePermanentError,
    BubblehouseRejectedError,
    BubblehouseTransientError,
)
from airflow_provider_bubblehouse.operators.customers import UpdateCustomersOperator
from airflow_provider_bubblehouse.sensors.bubblehouse import BubblehouseStatusSensor

NUMBER = itertools.count()
PERMANENT, TRANSIENT = "permanent", "transient"
SENTINEL = "sentinel@example.com"


class Calls(list):
    """Records the outcomes that wrapped callbacks receive, by the kind that they are for."""

    def to(self, kind: str):
        return lambda context: self.append((kind, context["bubblehouse"]))


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture
def dag(calls) -> DAG:
    both = [on_permanent_failure(calls.to(PERMANENT)), on_transient_failure(calls.to(TRANSIENT))]
    return DAG(
        dag_id=f"callbacks_{next(NUMBER)}",
        schedule=None,
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        default_args={
            "retries": 1,
            "retry_delay": timedelta(0),
            "on_failure_callback": both,
            "on_retry_callback": both,
        },
    )


@tells_callbacks
def test_a_rejected_batch_is_reported_once_with_its_counts_and_without_its_rows(sandbox, run_dag, dag, calls):
    sandbox.script("ok", f"400:bad_customers,message={SENTINEL}")
    rows = [{"email": f"{number}-{SENTINEL}"} for number in range(5)]
    UpdateCustomersOperator(task_id="push", customers=rows, batch_size=2, dag=dag)
    run_dag(dag)
    ((kind, outcome),) = calls
    assert kind == PERMANENT
    assert outcome["summary"].items() >= {"read": 5, "accepted": 2, "rejected": 2, "unsent": 1}.items()
    assert (outcome["status"], outcome["error_id"], outcome["attempts"]) == (400, "bad_customers", 1)
    assert (outcome["retryable"], outcome["will_retry"]) == (False, False)
    assert outcome["message"].startswith(
        f"Task push of DAG {dag.dag_id} failed and will not be retried: The Bubblehouse"
    )
    assert "sentinel" not in str(outcome)


@tells_callbacks
def test_an_outage_is_reported_on_every_try_with_whether_a_retry_follows(sandbox, run_dag, dag, calls, no_waits):
    sandbox.rates({"503": 1.0})
    UpdateCustomersOperator(task_id="push", customers=[{"id": "1"}], max_attempts=2, dag=dag)
    run_dag(dag)
    assert [kind for kind, _ in calls] == [TRANSIENT, TRANSIENT]
    assert [(outcome["retryable"], outcome["will_retry"], outcome["attempts"]) for _, outcome in calls] == [
        (True, True, 2),
        (True, False, 2),
    ]
    assert "failed and will be retried: " in calls[0][1]["message"]


@tells_callbacks
@pytest.mark.parametrize(("fault", "kind"), [("422", PERMANENT), ("502", TRANSIENT), ("reset", TRANSIENT)])
def test_the_original_error_is_found_behind_that_of_another_hook(
    sandbox, run_dag, dag, calls, monkeypatch, fault, kind
):
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", sandbox.connection(conn_type="http", login=None, password=None))
    sandbox.rates({fault: 1.0})
    endpoint = "api/v20230601/demo-shop/UpdateCustomers3"
    HttpOperator(task_id="push", http_conn_id="other", endpoint=endpoint, extra_options={"timeout": 30}, dag=dag)
    run_dag(dag)
    assert [called for called, _ in calls] == [kind, kind]  # HttpHook makes all of them retryable
    assert [outcome["will_retry"] for _, outcome in calls] == [True, False]
    assert "UpdateCustomers3" in calls[0][1]["message"]


@tells_callbacks
def test_a_bug_is_permanent_and_its_text_is_not_shown(run_dag, dag, calls):
    with dag:

        @task
        def fail() -> None:
            raise KeyError(SENTINEL)

        fail()
    run_dag(dag)
    assert [(kind, outcome["retryable"], outcome["will_retry"]) for kind, outcome in calls] == [
        (PERMANENT, False, True),  # Airflow retries it, although the classifier calls it permanent
        (PERMANENT, False, False),
    ]
    assert "KeyError" in calls[0][1]["message"]
    assert "sentinel" not in str(calls)


@tells_callbacks
def test_a_connection_that_is_not_defined_is_permanent(run_dag, dag, calls):
    UpdateCustomersOperator(task_id="push", customers=[{"id": "1"}], bubblehouse_conn_id="nowhere", dag=dag)
    run_dag(dag)
    assert [(kind, outcome["will_retry"]) for kind, outcome in calls] == [(PERMANENT, True), (PERMANENT, False)]
    assert "AirflowNotFoundException" in calls[0][1]["message"]


@tells_callbacks
@pytest.mark.parametrize("fault", ["503,retry_after=60", "delay=60"], ids=["backoff", "slow answer"])
def test_an_execution_timeout_is_transient(sandbox, run_dag, dag, calls, fault):
    sandbox.rates({fault: 1.0})
    UpdateCustomersOperator(
        task_id="push", customers=[{"id": "1"}], execution_timeout=timedelta(seconds=1), retries=0, dag=dag
    )
    with suppress(AirflowTaskTimeout):  # it leaves dag.test() of Airflow 2
        run_dag(dag)
    ((kind, outcome),) = calls
    assert kind == TRANSIENT
    assert (outcome["retryable"], outcome["will_retry"], outcome["status"]) == (True, False, None)
    assert "AirflowTaskTimeout" in outcome["message"]


@tells_callbacks
def test_the_timeout_of_a_sensor_is_transient(sandbox, run_dag, dag, calls, monkeypatch, unused_port):
    monkeypatch.setenv("AIRFLOW_CONN_DOWN", sandbox.connection(host=f"http://127.0.0.1:{unused_port}"))
    how = {"bubblehouse_conn_id": "down", "on_unavailable": "wait", "poke_interval": 0.01, "timeout": 0.1}
    BubblehouseStatusSensor(task_id="wait", dag=dag, **how)
    run_dag(dag)
    ((kind, outcome),) = calls
    assert (kind, outcome["retryable"], outcome["will_retry"]) == (TRANSIENT, True, False)


def test_a_dag_that_failed_is_permanent_and_not_retried(sandbox, run_dag, calls):
    dag = DAG(
        dag_id=f"callbacks_{next(NUMBER)}",
        schedule=None,
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        on_failure_callback=[on_permanent_failure(calls.to(PERMANENT)), on_transient_failure(calls.to(TRANSIENT))],
    )
    sandbox.rates({"400": 1.0})
    UpdateCustomersOperator(task_id="push", customers=[{"id": "1"}], retries=1, retry_delay=timedelta(0), dag=dag)
    run_dag(dag)
    ((kind, outcome),) = calls
    assert (kind, outcome["retryable"], outcome["will_retry"]) == (PERMANENT, False, False)
    assert outcome["message"].startswith(f"DAG {dag.dag_id} failed and will not be retried: ")
    assert "task_failure" in outcome["message"]


def task_instance(state=None, try_number=1, max_tries=0) -> SimpleNamespace:
    return SimpleNamespace(task_id="push", dag_id="d", state=state, try_number=try_number, max_tries=max_tries)


TEXT = "Detected zombie job: sentinel@example.com"
# What Airflow passes to callbacks, seen under real schedulers.
CONTEXTS = {
    "2.11: process killed, no retries": ({"exception": TEXT, "ti": task_instance("failed")}, TRANSIENT, False),
    "2.11: supervisor killed, retries left": (
        {"exception": TEXT, "ti": task_instance("up_for_retry", max_tries=1)},
        TRANSIENT,
        True,
    ),
    "3.0 and 3.3: supervisor killed, retries left": ({"ti": task_instance(max_tries=1)}, TRANSIENT, True),
    "supervisor killed in the last try": ({"ti": task_instance(try_number=2, max_tries=1)}, TRANSIENT, False),
    "2.11: DAG level": ({"reason": "task_failure", "ti": task_instance("failed")}, PERMANENT, False),
    "3: DAG level, max_tries is 0 although the task has retries": (
        {"reason": "task_failure", "ti": task_instance("success", max_tries=0)},
        PERMANENT,
        False,
    ),
    "DAG level, retries left": ({"reason": "task_failure", "ti": task_instance(max_tries=3)}, PERMANENT, False),
    "3: DAG level, the task is gone": ({"reason": "timed_out", "run_id": "r"}, PERMANENT, False),
    "nothing at all": ({}, TRANSIENT, False),
    "a task instance without attributes": ({"exception": KeyError("x"), "ti": object()}, PERMANENT, False),
}


@pytest.mark.parametrize("case", CONTEXTS)
def test_exactly_one_wrapper_runs_whatever_airflow_passes(calls, case):
    context, expected, will_retry = CONTEXTS[case]
    for wrap, kind in ((on_permanent_failure, PERMANENT), (on_transient_failure, TRANSIENT)):
        wrap(calls.to(kind))(dict(context))
    ((kind, outcome),) = calls
    assert (kind, outcome["retryable"], outcome["will_retry"]) == (expected, expected == TRANSIENT, will_retry)
    assert (outcome["status"], outcome["summary"], outcome["attempts"]) == (None, None, 0)
    assert "sentinel" not in outcome["message"]


class TaskDeferralTimeout(AirflowException):
    """As of Airflow 3, for the deferral of any operator."""


class TaskDeferralError(AirflowException):
    """As of Airflow 2, for the deferral of any operator."""


@pytest.mark.parametrize(
    ("exception", "expected", "will_retry"),
    [
        (AirflowTaskTimeout("x"), TRANSIENT, True),
        (AirflowSensorTimeout("x"), TRANSIENT, False),
        (TaskDeferralTimeout("Trigger timeout"), TRANSIENT, True),
        (TaskDeferralError("Trigger/execution timeout"), TRANSIENT, True),
        (TaskDeferralError("Trigger failure"), PERMANENT, True),
        (AirflowFailException("x"), PERMANENT, False),
        (AirflowException("x"), PERMANENT, True),
        (SystemExit(1), PERMANENT, True),
        (TimeoutError("x"), PERMANENT, True),
        (BubblehouseTransientError("x"), TRANSIENT, True),
        (BubblehousePermanentError("x"), PERMANENT, False),
    ],
    ids=repr,
)
@pytest.mark.parametrize("state", [None, "running"])
def test_exactly_one_is_called_for_every_exception(calls, exception, expected, will_retry, state):
    context = {"exception": exception, "ti": task_instance(state, max_tries=1)}
    for wrap, kind in ((on_permanent_failure, PERMANENT), (on_transient_failure, TRANSIENT)):
        wrap(calls.to(kind))(context)
    assert [(kind, outcome["will_retry"]) for kind, outcome in calls] == [(expected, will_retry)]


def test_a_timeout_is_transient_even_while_a_permanent_error_is_handled(calls):
    timeout = AirflowTaskTimeout("x")
    timeout.__context__ = BubblehousePermanentError("x", status=400)
    for wrap, kind in ((on_permanent_failure, PERMANENT), (on_transient_failure, TRANSIENT)):
        wrap(calls.to(kind))({"exception": timeout})
    assert [(kind, outcome["status"]) for kind, outcome in calls] == [(TRANSIENT, None)]


def test_an_error_that_cannot_be_read_is_permanent(calls, monkeypatch):
    def fail(_exception):
        raise ValueError("broken")

    monkeypatch.setattr(callbacks, "find_error", fail)
    for wrap, kind in ((on_permanent_failure, PERMANENT), (on_transient_failure, TRANSIENT)):
        wrap(calls.to(kind))({"exception": requests.ConnectionError("x")})
    assert [kind for kind, _ in calls] == [PERMANENT]


@pytest.mark.parametrize(
    ("state", "error", "try_number", "will_retry"),
    [
        ("up_for_retry", BubblehouseTransientError("x"), 9, True),
        ("failed", BubblehouseTransientError("x"), 1, False),
        (None, BubblehouseTransientError("x"), 3, True),
        (None, BubblehouseTransientError("x"), 4, False),
        (None, BubblehousePermanentError("x"), 1, False),
    ],
)
def test_will_retry_is_the_decision_of_airflow(calls, state, error, try_number, will_retry):
    ti = task_instance(state, try_number, max_tries=3)
    for wrap in (on_permanent_failure, on_transient_failure):
        wrap(calls.to("any"))({"exception": error, "ti": ti})
    assert [outcome["will_retry"] for _, outcome in calls] == [will_retry]


def test_a_callback_that_fails_is_logged_and_the_next_one_is_called(calls, caplog):
    def fail(_context) -> None:
        raise RuntimeError("no route to the chat")

    wrapped = on_permanent_failure([fail, calls.to(PERMANENT)])
    with caplog.at_level(logging.ERROR):
        wrapped({"exception": BubblehousePermanentError("x")})
    assert len(calls) == 1
    assert "no route to the chat" in caplog.text


def test_an_unusable_context_raises_nothing(calls):
    for wrap in (on_permanent_failure, on_transient_failure):
        wrap(calls.to("any"))(None)
    assert calls == []


class Notifier(BaseNotifier):
    """Records the messages that it would send."""

    template_fields = ("text",)
    sent: list[str] = []  # noqa: RUF012 (shared on purpose)

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def notify(self, context) -> None:
        self.sent.append(self.text)


@tells_callbacks
def test_a_notifier_shared_by_tasks_renders_the_outcome_of_each(sandbox, run_dag, dag):
    Notifier.sent.clear()
    notifier = Notifier("{{ ti.task_id }}: {{ bubblehouse.status }} {{ bubblehouse.summary.rejected }}")
    dag.default_args["on_failure_callback"] = on_permanent_failure(notifier)
    sandbox.rates({"400": 1.0})
    for name in ("first", "second"):
        UpdateCustomersOperator(task_id=name, customers=[{"id": "1"}], dag=dag)
    run_dag(dag)
    assert sorted(Notifier.sent) == ["first: 400 1", "second: 400 1"]


LIBRARIES = {
    "requests": lambda url: requests.post(url, timeout=5, allow_redirects=False).raise_for_status(),
    "httpx": lambda url: httpx.post(url, timeout=5).raise_for_status(),
}

ERRORS = (requests.RequestException, httpx.HTTPError, httpx.InvalidURL)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(
    ("fault", "kind", "status"),
    [
        ("400", BubblehouseRejectedError, 400),
        ("401", BubblehousePermanentError, 401),
        ("503,retry_after=3", BubblehouseTransientError, 503),
        ("reset", BubblehouseTransientError, None),
        ("cut", BubblehouseTransientError, None),
    ],
)
def test_an_error_of_another_library_is_classified_by_its_answer(sandbox, library, fault, kind, status):
    sandbox.script(fault)
    with pytest.raises(ERRORS) as caught:
        LIBRARIES[library](f"{sandbox.url}/api/v20230601/{sandbox.shop}/UpdateCustomers3?token={SENTINEL}")
    error = find_error(caught.value)
    assert type(error) is kind
    assert (error.status, error.attempts) == (status, 1)
    assert error.retry_after == (3.0 if "retry_after" in fault else None)
    # requests forgets which call it was whose body was cut off.
    assert ("UpdateCustomers3" in str(error)) is not (library == "requests" and fault == "cut")
    assert "sentinel" not in str(error)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("url", ["http://", "no-scheme", "gopher://example.com"])
def test_a_malformed_url_is_permanent(library, url):
    with pytest.raises(ERRORS) as caught:
        LIBRARIES[library](url)
    assert type(find_error(caught.value)) is BubblehousePermanentError


def test_another_server_is_not_called_bubblehouse(unused_port):
    for call in LIBRARIES.values():
        with pytest.raises(ERRORS) as caught:
            call(f"http://127.0.0.1:{unused_port}/v1/{SENTINEL}")
        assert str(find_error(caught.value)).startswith("The server gave no answer to the call (Connect")


def test_the_nearest_error_of_a_chain_counts_and_a_chain_that_loops_ends():
    near, far = BubblehousePermanentError("near"), BubblehouseTransientError("far")
    top = AirflowException("top")
    top.__context__, near.__cause__, far.__cause__ = near, far, top
    assert find_error(top) is near
    assert find_error(None) is None
    lonely = ValueError("x")
    lonely.__cause__ = lonely.__context__ = lonely
    assert find_error(lonely) is None


def test_an_answer_whose_body_was_not_read_is_classified_by_its_status(sandbox):
    sandbox.script("503", "400")
    url = f"{sandbox.url}/api/v20230601/{sandbox.shop}/Status2"
    with httpx.Client() as client:
        for kind in (BubblehouseTransientError, BubblehousePermanentError):
            with client.stream("POST", url) as response, pytest.raises(kind):
                check_response(response)


def test_a_4xx_decides_even_if_its_body_is_cut_off(sandbox):
    sandbox.script("cut=400")
    url = f"{sandbox.url}/api/v20230601/{sandbox.shop}/UpdateCustomers3"
    with (
        requests.post(url, timeout=5, stream=True) as response,
        pytest.raises(BubblehousePermanentError),
    ):
        check_response(response)


@pytest.mark.parametrize(
    ("options", "tries"),
    [({"response_check": check_response, "extra_options": {"check_response": False, "timeout": 30}}, 1), ({}, None)],
    ids=["with_check_response", "as_it_is"],
)
def test_the_http_sensor_reads_404_as_not_yet_unless_it_has_our_check(
    sandbox, run_dag, tries_of, dag, monkeypatch, options, tries
):
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", sandbox.connection(conn_type="http", login=None, password=None))
    sandbox.rates({"404": 1.0})
    HttpSensor(
        task_id="wait",
        http_conn_id="other",
        endpoint="api/v20230601/demo-shop/Status2",
        method="POST",
        poke_interval=0.01,
        timeout=0.1,
        dag=dag,
        **options,
    )
    run_dag(dag)
    assert tries_of(dag) == {"wait": ("failed", 1)}
    assert (len(sandbox.calls) == 1) is (tries == 1)
