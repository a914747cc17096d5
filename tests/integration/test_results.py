"""Where the counts of a push show: in metrics, in its error, in a callback, and in the event of the shop's asset."""

from __future__ import annotations

import itertools
import logging
import traceback
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta

import pytest
from pushes import failed, people, update
from versions import AIRFLOW, tells_callbacks

from airflow_provider_bubblehouse.airflow_compat import DAG, Asset, Stats, task
from airflow_provider_bubblehouse.callbacks import on_permanent_failure
from airflow_provider_bubblehouse.exceptions import (
    BubblehousePermanentError,
    BubblehouseRejectedError,
    BubblehouseTransientError,
)
from airflow_provider_bubblehouse.hooks.bubblehouse import BubblehouseHook
from airflow_provider_bubblehouse.operators.customers import DeleteCustomersOperator, UpdateCustomersOperator
from airflow_provider_bubblehouse.sensors.bubblehouse import BubblehouseStatusSensor

NUMBER = itertools.count()


def changed(rows: list[dict], *ids: str) -> list[dict]:
    return [{**row, "first_name": "changed"} if row["id"] in ids else row for row in rows]


@pytest.fixture
def dag() -> DAG:
    return DAG(dag_id=f"results_{next(NUMBER)}", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC))


# Metrics


@pytest.fixture
def counted(monkeypatch) -> Counter[str]:
    counts: Counter[str] = Counter()
    monkeypatch.setattr(Stats, "incr", lambda name, count=1, **_: counts.update({name: count}))
    return counts


@pytest.fixture
def durations(monkeypatch) -> dict[str, list[timedelta]]:
    measured: dict[str, list[timedelta]] = defaultdict(list)
    monkeypatch.setattr(Stats, "timing", lambda name, duration, **_: measured[name].append(duration))
    return measured


def test_every_count_of_rows_is_a_metric(sandbox, counted, no_waits, tmp_path):
    rows, ledger = people(24), tmp_path / "ledger"
    update(customers=rows[:12], ledger_path=ledger)
    counted.clear()
    sandbox.script("503", "ok", "400")
    failed(
        BubblehouseRejectedError,
        customers=[*changed(rows, "3"), {"first_name": "nobody"}],
        batch_size=10,
        on_invalid="skip",
        on_rejected="continue",
        ledger_path=ledger,
    )
    assert counted == {
        "bubblehouse.customers.accepted": 10,
        "bubblehouse.customers.rejected": 3,
        "bubblehouse.customers.unchanged": 11,
        "bubblehouse.customers.invalid": 1,
        "bubblehouse.calls": 3,
        "bubblehouse.retries": 1,
    }


def test_a_retry_counts_only_the_unchanged_rows_that_it_finds_itself(sandbox, counted, tmp_path):
    from pushes import Store

    rows, store = people(30), Store()
    ledger = tmp_path / "ledger"
    update(customers=rows, ledger_path=ledger)
    counted.clear()
    sandbox.script("ok", "503")
    options = {
        "customers": changed(rows, "5", "15", "25"),
        "batch_size": 1,
        "max_attempts": 1,
        "ledger_path": ledger,
    }
    failed(BubblehouseTransientError, store, **options)
    assert counted["bubblehouse.customers.unchanged"] == 4
    assert update(store, **options)["unchanged"] == 27
    assert counted["bubblehouse.customers.unchanged"] == 27


@pytest.mark.parametrize("in_flight", [1, 8])
def test_the_duration_of_every_call_is_a_metric(sandbox, durations, no_waits, in_flight):
    sandbox.script("503", "delay=0.2")
    update(customers=people(40), batch_size=5, in_flight=in_flight)
    (measured,) = durations.values()
    assert durations.keys() == {"bubblehouse.call.duration"}
    assert len(measured) == len(sandbox.calls)
    assert max(measured) >= timedelta(seconds=0.2)
    assert min(measured) > timedelta(0)


def test_a_call_that_was_never_made_has_no_duration(sandbox, durations):
    failed(BubblehousePermanentError, customers=people(3), debug=True)
    assert durations == {}


# The error of a failed task

_FAULTS = [
    ("400", BubblehouseRejectedError, 2, "rejected 2, unsent 1, calls 2, retries 0."),
    ("401:invalid_token", BubblehousePermanentError, 2, "rejected 0, unsent 3, calls 2, retries 0."),
    ("503", BubblehouseTransientError, 2, "rejected 0, unsent 3, calls 3, retries 1."),
    ("reset", BubblehouseTransientError, 2, "rejected 0, unsent 3, calls 3, retries 1."),
]


def failing(sandbox, fault: str) -> pytest.ExceptionInfo:
    sandbox.script("ok", fault, fault)
    with pytest.raises(Exception, match="Bubblehouse") as caught:
        update(customers=people(5), batch_size=2, max_attempts=2)
    return caught


@pytest.mark.parametrize(("fault", "kind", "accepted", "rest"), _FAULTS)
def test_the_error_of_a_failed_task_ends_with_the_counts(sandbox, no_waits, fault, kind, accepted, rest):
    caught = failing(sandbox, fault)
    assert caught.type is kind
    assert str(caught.value).endswith(f" Counts: read 5, invalid 0, unchanged 0, accepted {accepted}, {rest}")


def test_the_counts_come_after_the_hint_about_retries(sandbox, no_waits):
    class LastTry:
        try_number, max_tries, map_index = 1, 0, -1

    sandbox.rates({"503": 1.0})
    operator = UpdateCustomersOperator(task_id="push", customers=people(1), max_attempts=1)
    with pytest.raises(BubblehouseTransientError, match=r"set retries= .* Counts: read 1, .* retries 0\.$"):
        operator.execute({"ti": LastTry()})


def test_an_error_before_the_push_has_no_counts(sandbox):
    with pytest.raises(BubblehousePermanentError) as caught:
        update(path="none.csv", file_format="jsonl", ledger_path="s3://bucket/a?b")
    assert "Counts" not in str(caught.value)
    assert caught.value.summary is None


def as_text(error: BaseException) -> str:
    """Format an error as Airflow 2 does, and as Airflow 3 writes it to the console."""
    return "".join(traceback.format_exception(error))


def as_json(error: BaseException) -> str:
    """Format an error as Airflow 3 does in the log of a task."""
    structlog = pytest.importorskip("structlog", reason="Airflow 2 has no structlog")
    transform = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    errors = transform((type(error), error, error.__traceback__))
    return "\n".join(
        line
        for one in errors
        for line in (*(f'"{frame["filename"]}", in {frame["name"]}' for frame in one["frames"]), one["exc_type"])
    )


@pytest.mark.parametrize("formatted", [as_text, as_json])
@pytest.mark.parametrize("fault", [fault for fault, *_ in _FAULTS])
def test_the_traceback_of_a_failed_task_shows_only_execute_of_this_package(sandbox, no_waits, formatted, fault):
    text = formatted(failing(sandbox, fault).value)
    assert text.count("/airflow_provider_bubblehouse/") == 1
    assert "/operators/customers.py" in text
    assert "in execute" in text
    for library in ("/urllib3/", "/requests/", "/tenacity/", "/http/client.py"):
        assert library not in text
    assert ("ProtocolError" in text) is (fault == "reset")


@pytest.mark.parametrize("formatted", [as_text, as_json])
@pytest.mark.parametrize("fault", ["401:invalid_token", "503", "reset"])
def test_the_traceback_of_a_failed_sensor_shows_only_execute_and_poke(sandbox, formatted, fault):
    sandbox.script(fault)
    with pytest.raises(Exception, match="Bubblehouse") as caught:
        BubblehouseStatusSensor(task_id="wait", timeout=1).execute({})
    text = formatted(caught.value)
    assert text.count("/airflow_provider_bubblehouse/") == 2
    assert "in execute" in text
    assert "in poke" in text
    assert "/urllib3/" not in text


def test_the_frames_are_logged_at_the_level_of_debugging(sandbox, caplog):
    with caplog.at_level(logging.DEBUG):
        failing(sandbox, "400")
    (record,) = [one for one in caplog.records if one.exc_info and "Where it failed" in one.getMessage()]
    assert record.levelno == logging.DEBUG


def test_an_unexpected_error_keeps_its_full_traceback(sandbox, monkeypatch):
    def bug(*_args, **_kwargs):
        raise KeyError("first_name")

    monkeypatch.setattr("airflow_provider_bubblehouse.push.reader.Reader.validate", bug)
    with pytest.raises(KeyError) as caught:
        update(customers=people(1))
    assert "in validate" in as_text(caught.value) or "in bug" in as_text(caught.value)


# Callbacks


@tells_callbacks
def test_a_callback_finds_unchanged_among_the_counts_and_in_the_message(sandbox, run_dag, dag, tmp_path):
    contexts: list[dict] = []
    options = {"ledger_path": tmp_path / "ledger", "batch_size": 1}
    update(customers=people(10), **options)
    sandbox.script("400")
    UpdateCustomersOperator(
        task_id="push",
        customers=changed(people(10), "9"),
        on_failure_callback=on_permanent_failure(lambda context: contexts.append(context["bubblehouse"])),
        dag=dag,
        **options,
    )
    run_dag(dag)
    assert contexts[0]["summary"].items() >= {"read": 10, "unchanged": 8, "rejected": 1, "unsent": 1}.items()
    assert contexts[0]["message"].endswith(
        "Counts: read 10, invalid 0, unchanged 8, accepted 0, rejected 1, unsent 1, calls 1, retries 0."
    )


# The event of the shop's asset


def shop_asset() -> Asset:
    return Asset(BubblehouseHook().customers_uri)


def run_with_assets(run_dag, dag: DAG) -> None:
    if AIRFLOW < (3, 0):  # whose dag.test() does not enter the assets of the DAG into the database
        dag.sync_to_db()
    run_dag(dag)


def events_seen_by_a_consumer(run_dag, asset: Asset, seen: list[dict]) -> list[dict]:
    """Run a DAG whose task reads the events of an asset, and return the counts that it finds in them."""
    with DAG(dag_id=f"consumer_{next(NUMBER)}", schedule=[asset], start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:

        @task(inlets=[asset])
        def read(inlet_events=None) -> None:
            seen.extend(event.extra for event in inlet_events[asset])

        read()
    run_with_assets(run_dag, dag)
    return seen


def test_the_next_dag_reads_the_counts_from_the_event_of_the_asset(sandbox, run_dag, dag, tmp_path):
    asset, other = shop_asset(), Asset("bubblehouse://app.bubblehouse.com/another-shop/customers")
    update(customers=people(9), ledger_path=tmp_path)
    UpdateCustomersOperator(
        task_id="push", customers=people(10), ledger_path=tmp_path, outlets=[other, asset], dag=dag
    ) >> DeleteCustomersOperator(task_id="delete", customers=people(1), max_customers=1, outlets=[asset], dag=dag)
    before = len(events_seen_by_a_consumer(run_dag, asset, []))
    run_with_assets(run_dag, dag)
    pushed, deleted = events_seen_by_a_consumer(run_dag, asset, [])[before:]
    assert pushed.items() >= {"read": 10, "unchanged": 9, "accepted": 1, "rejected": 0, "unsent": 0}.items()
    assert deleted.items() >= {"read": 1, "accepted": 1}.items()
    assert "accepted" not in events_seen_by_a_consumer(run_dag, other, [])[-1]


def test_a_task_that_fails_leaves_no_event(sandbox, run_dag, dag):
    asset = shop_asset()
    UpdateCustomersOperator(task_id="push", customers=people(4), batch_size=2, outlets=[asset], dag=dag)
    sandbox.script("ok", "400")
    before = len(events_seen_by_a_consumer(run_dag, asset, []))
    run_with_assets(run_dag, dag)
    assert len(events_seen_by_a_consumer(run_dag, asset, [])) == before


def test_extras_that_the_dag_adds_to_the_event_stay(sandbox, run_dag, dag):
    asset = shop_asset()

    def note(context):
        context["outlet_events"][asset].extra["export"] = "nightly"

    UpdateCustomersOperator(task_id="push", customers=people(1), outlets=[asset], pre_execute=note, dag=dag)
    run_with_assets(run_dag, dag)
    assert events_seen_by_a_consumer(run_dag, asset, [])[-1].items() >= {"export": "nightly", "accepted": 1}.items()
