"""Limits of a source are checked before the first call, and long partial outages are survived."""

from __future__ import annotations

import random

import pytest
from pushes import Store, failed, people, summed, update

from airflow_provider_bubblehouse.airflow_compat import DAG
from airflow_provider_bubblehouse.errors import BubblehouseTransientError
from airflow_provider_bubblehouse.exceptions import BubblehousePermanentError
from airflow_provider_bubblehouse.operators.customers import DeleteCustomersOperator, UpdateCustomersOperator

NOBODY = {"first_name": "nobody"}


@pytest.mark.parametrize("on_invalid", ["fail", "skip"])
@pytest.mark.parametrize(("rows", "message"), [([], "0 rows"), (people(9), "9 rows"), (people(1), "1 row,")])
def test_a_source_with_too_few_rows_is_refused_before_the_first_call(sandbox, on_invalid, rows, message):
    with pytest.raises(BubblehousePermanentError, match=f"{message}.*10 that min_customers requires"):
        update(customers=rows, min_customers=10, on_invalid=on_invalid)
    assert sandbox.calls == []
    assert update(customers=people(10), min_customers=10, on_invalid=on_invalid)["accepted"] == 10


@pytest.mark.parametrize(
    ("allowed", "invalid", "passes"), [(2, 2, True), (2, 3, False), (0, 1, False), (0.1, 1, True), (0.1, 2, False)]
)
def test_a_source_with_too_many_invalid_rows_is_refused_before_the_first_call(sandbox, allowed, invalid, passes):
    rows = [*people(10 - invalid), *[NOBODY] * invalid]
    options = {"customers": rows, "on_invalid": "skip", "max_invalid": allowed, "batch_size": 2}
    if passes:
        summary = summed(update(**options))
        assert (summary["invalid"], summary["accepted"]) == (invalid, 10 - invalid)
        return
    with pytest.raises(
        BubblehousePermanentError, match=rf"{invalid} of 10 rows (is|are) invalid, and max_invalid"
    ) as caught:
        update(**options)
    assert caught.value.summary["invalid"] == invalid
    assert sandbox.calls == []


def test_max_invalid_reports_each_invalid_row_once(sandbox, tmp_path):
    rows = [*people(5), NOBODY, *people(5, first=7)]
    summary = update(customers=rows, on_invalid="skip", max_invalid=5, rejected_path=tmp_path / "out")
    assert (summary["invalid"], summary["accepted"]) == (1, 10)
    assert sum(file.read_text().count("\n") for file in (tmp_path / "out").iterdir()) == 1


def test_a_source_whose_rows_are_all_invalid_fails(sandbox):
    with pytest.raises(BubblehousePermanentError, match="All 3 rows are invalid, so nothing was sent"):
        update(customers=[NOBODY] * 3, on_invalid="skip")
    assert update(customers=[], on_invalid="skip")["read"] == 0


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"min_customers": 0}, "min_customers must be a whole number of at least 1"),
        ({"min_customers": 2.5}, "min_customers must be a whole number"),
        ({"max_invalid": 5}, "max_invalid needs on_invalid='skip'"),
        ({"max_invalid": -1, "on_invalid": "skip"}, "max_invalid must be a number of at least 0"),
        ({"max_invalid": True, "on_invalid": "skip"}, "max_invalid must be a number"),
        ({"ledger_days": 0}, "ledger_days must be a whole number of at least 1"),
        ({"ledger_path": 5}, "ledger_path must be text or a path"),
    ],
    ids=str,
)
def test_limits_that_cannot_work_fail_when_the_dag_is_parsed(parameters, said):
    with pytest.raises(BubblehousePermanentError, match=said):
        UpdateCustomersOperator(task_id="push", customers=[], **parameters)


@pytest.mark.parametrize("change", [{"min_customers": 5}, {"max_invalid": 3}], ids=str)
def test_other_limits_start_over(sandbox, no_waits, change):
    store, options = Store(), {"customers": people(30), "batch_size": 10, "max_attempts": 1, "on_invalid": "skip"}
    sandbox.script("ok", "503")
    failed(BubblehouseTransientError, store, **options)
    assert update(store, **options, **change)["resumed_at"] == 0


def delete(max_customers, rows=3, context=None):
    operator = DeleteCustomersOperator(task_id="delete", customers=people(rows), max_customers="{{ params.limit }}")
    operator.max_customers = max_customers  # as Airflow does when it renders the template
    return operator.execute(context or {})


@pytest.mark.parametrize("limit", [3, "3", " 3 "])
def test_the_limit_of_a_deletion_may_be_the_text_that_a_template_renders_to(sandbox, limit):
    assert delete(limit)["accepted"] == 3


@pytest.mark.parametrize("limit", ["", "three", "0", "-1", "2.5"])
def test_a_limit_that_renders_to_no_number_fails_before_anything_is_sent(sandbox, limit):
    with pytest.raises(BubblehousePermanentError, match="max_customers must be a whole number"):
        delete(limit)
    assert sandbox.calls == []


@pytest.mark.parametrize("limit", [0, 2.5, True, None, [3], "3"])
def test_a_limit_that_cannot_work_fails_when_the_dag_is_parsed(limit):
    with pytest.raises(BubblehousePermanentError, match="max_customers must be a whole number"):
        _ = DeleteCustomersOperator(task_id="delete", customers=[], max_customers=limit)


def test_the_count_of_a_dry_run_can_be_the_limit_of_the_deletion(sandbox, run_dag, tries_of):
    limit = "{{ ti.xcom_pull('count')['read'] }}"
    with DAG("count_then_delete") as dag:
        count = DeleteCustomersOperator(task_id="count", customers=people(3), max_customers=100, dry_run=True)
        count >> DeleteCustomersOperator(task_id="delete", customers=people(3), max_customers=limit)
    run_dag(dag)
    assert tries_of(dag)["delete"][0] == "success"
    assert sum(call.rows for call in sandbox.calls) == 3


def test_a_mapped_task_has_no_ledger(sandbox, tmp_path):
    class TaskInstance:
        dag_id, run_id, task_id, map_index, try_number, max_tries = "dag", "run", "push", 0, 1, 0

    operator = UpdateCustomersOperator(task_id="push", customers=people(3), ledger_path=tmp_path)
    with pytest.raises(BubblehousePermanentError, match="mapped task cannot have ledger_path"):
        operator.execute({"ti": TaskInstance()})


class Unreliable:
    """A client one of five of whose calls fails."""

    chosen = random.Random(1)

    def call(self, *_args, **_kwargs):
        if self.chosen.random() < 0.2:
            raise BubblehouseTransientError("Bubblehouse answered with status 503.", status=503)
        return {}

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass


def test_a_long_partial_outage_is_survived(sandbox, no_waits, monkeypatch):
    """50,000 batches, each call of which fails in one of five cases, with the default attempts and ``retries=3``."""
    monkeypatch.setattr("airflow_provider_bubblehouse.push.attempts.Attempts._sleep", lambda _self, _seconds: None)
    store, tries = Store(), 0
    while True:
        operator = UpdateCustomersOperator(
            task_id="push", customers=people(50_000), batch_size=1, in_flight=4, on_invalid="skip"
        )
        push = operator._prepare({"task_state_store": store})
        push.connect = Unreliable
        tries += 1
        try:
            summary = push.run()
        except BubblehouseTransientError:
            assert tries < 4
        else:
            break
    assert (summary["accepted"], summary["unsent"]) == (50_000, 0)
