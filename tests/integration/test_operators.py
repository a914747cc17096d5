"""The operators' execute() against the sandbox: what arrives, what is counted, what is refused."""

from __future__ import annotations

import copy
import csv
import json
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from airflow_provider_bubblehouse.airflow_compat import DAG, task
from airflow_provider_bubblehouse.exceptions import (
    BubblehousePermanentError,
    BubblehouseRateLimitError,
    BubblehouseRejectedError,
    BubblehouseTransientError,
)
from airflow_provider_bubblehouse.operators.customers import DeleteCustomersOperator, UpdateCustomersOperator

CHINOOK = Path(__file__).parents[2] / "dags_examples" / "data" / "chinook_customers.csv"
COLUMN_MAP = {
    "CustomerId": "id",
    "Email": "email",
    "FirstName": "first_name",
    "Company": "extras.company",
    "City": "extras.city",
}
SUMS = ("invalid", "accepted", "rejected", "unsent")


def update(**kwargs) -> dict:
    return UpdateCustomersOperator(task_id="push", **kwargs).execute({})


def delete(**kwargs) -> dict:
    return DeleteCustomersOperator(task_id="delete", **kwargs).execute({})


def people(count: int) -> list[dict]:
    return [{"id": str(number), "first_name": f"name {number}"} for number in range(1, count + 1)]


def sent(sandbox) -> list[dict]:
    return [customer for call in sandbox.calls for customer in call.customers]


def counts(summary, *names) -> tuple[int, ...]:
    assert summary["read"] == sum(summary[name] for name in SUMS)
    return tuple(summary[name] for name in names)


def test_a_real_file_arrives_whole_and_in_order(sandbox):
    summary = update(path=str(CHINOOK), column_map=COLUMN_MAP, batch_size=25)
    assert counts(summary, "read", "accepted", "batches", "calls", "retries") == (59, 59, 3, 3, 0)
    with CHINOOK.open(encoding="utf-8") as file:
        expected = [
            {
                "id": row["CustomerId"],
                "email": row["Email"],
                "first_name": row["FirstName"],
                "extras": {"city": row["City"]} | ({"company": row["Company"]} if row["Company"] else {}),
            }
            for row in csv.DictReader(file)
        ]
    assert sent(sandbox) == expected
    assert len(sandbox.customers()) == 59


def test_a_list_arrives_in_batches(sandbox):
    summary = update(customers=people(10), batch_size=4)
    assert counts(summary, "read", "accepted", "batches", "calls") == (10, 10, 3, 3)
    assert [len(call.customers) for call in sandbox.calls] == [4, 4, 2]
    assert sent(sandbox) == people(10)


def test_a_batch_is_cut_by_bytes_too(sandbox):
    update(customers=[{"id": str(number), "first_name": "x" * 400} for number in range(1, 6)], max_batch_bytes=1024)
    assert [len(call.customers) for call in sandbox.calls] == [2, 2, 1]


@pytest.mark.parametrize("customers", [[], "[]"])
def test_nothing_to_do_is_success_without_a_call(sandbox, customers):
    assert counts(update(customers=customers), "read", "calls") == (0, 0)
    assert sandbox.calls == []


def test_a_file_with_only_a_header_is_success_without_a_call(sandbox, tmp_path):
    (tmp_path / "a.csv").write_text("id,email\n")
    assert counts(update(path=tmp_path / "a.csv"), "read", "calls") == (0, 0)
    assert sandbox.calls == []


@pytest.mark.parametrize("fault", ["503", "reset", "reset,processed", "cut"])
def test_a_transient_fault_sends_the_whole_batch_again(sandbox, no_waits, fault):
    sandbox.script("ok", fault, fault)
    summary = update(customers=people(4), batch_size=2)
    assert counts(summary, "accepted", "batches", "calls", "retries") == (4, 2, 4, 2)
    assert [[customer["id"] for customer in call.customers] for call in sandbox.calls] == [
        ["1", "2"],
        ["3", "4"],
        ["3", "4"],
        ["3", "4"],
    ]


def test_a_transient_fault_that_stays_ends_the_push_with_its_counts(sandbox, no_waits):
    sandbox.script("ok", "503", "503", "503")
    with pytest.raises(BubblehouseTransientError) as caught:
        update(customers=people(6), batch_size=2, max_attempts=3)
    assert counts(caught.value.summary, "read", "accepted", "unsent", "calls", "retries") == (6, 2, 4, 4, 2)
    assert caught.value.attempts == 3


def test_a_refused_batch_is_sent_once_and_nothing_after_it(sandbox):
    sandbox.script("ok", "400")
    with pytest.raises(BubblehouseRejectedError) as caught:
        update(customers=people(6), batch_size=2)
    assert counts(caught.value.summary, "accepted", "rejected", "unsent", "batches", "calls") == (2, 2, 2, 2, 2)
    assert len(sandbox.calls) == 2


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("401:invalid_token", BubblehousePermanentError),
        ("404", BubblehousePermanentError),
        ("413", BubblehousePermanentError),
        ("redirect", BubblehousePermanentError),
        ("html", BubblehousePermanentError),
        ("429:rate_limit_exceeded", BubblehouseRateLimitError),
    ],
)
def test_an_answer_that_is_not_the_datas_fault_leaves_it_unsent(sandbox, fault, kind):
    sandbox.script("ok", fault)
    with pytest.raises(kind) as caught:
        update(customers=people(6), batch_size=2)
    assert counts(caught.value.summary, "accepted", "rejected", "unsent", "calls") == (2, 0, 4, 2)
    assert len(sandbox.calls) == 2


def test_a_source_with_an_invalid_row_is_refused_as_a_whole_naming_row_and_field(sandbox, tmp_path):
    (tmp_path / "a.csv").write_text("id,email,deleted\n1,a@example.com,\n2,b@example.com,wahr\n,,\n")
    with pytest.raises(BubblehousePermanentError) as caught:
        update(path=tmp_path / "a.csv")
    assert counts(caught.value.summary, "read", "invalid", "unsent", "calls") == (3, 2, 1, 0)
    assert sandbox.calls == []
    text = str(caught.value)
    assert f"{tmp_path}/a.csv, row 2: deleted must be true or false" in text
    assert f"{tmp_path}/a.csv, row 3: the row has neither id nor email" in text
    assert "wahr" not in text


def test_with_skip_the_other_rows_are_sent_and_the_invalid_ones_reported(sandbox, caplog):
    rows = [{"id": "1"}, {"first_name": "Sentinel"}, {"id": "3", "email": 5}, {"id": "4"}]
    summary = update(customers=rows, on_invalid="skip")
    assert counts(summary, "read", "accepted", "invalid") == (4, 2, 2)
    assert [customer["id"] for customer in sent(sandbox)] == ["1", "4"]
    assert "row 2: the row has neither id nor email" in caplog.text
    assert "row 3: email must be text" in caplog.text
    assert "Sentinel" not in caplog.text


def test_a_row_larger_than_a_call_is_invalid_and_no_oversized_call_is_made(sandbox):
    rows = [{"id": "1"}, {"id": "2", "first_name": "x" * 2000}]
    with pytest.raises(BubblehousePermanentError, match="row 2: the row has more bytes as JSON than max_batch_bytes"):
        update(customers=rows, max_batch_bytes=1024)
    assert sandbox.calls == []


def test_text_that_is_not_utf8_is_named_by_file_row_and_field(sandbox, tmp_path):
    (tmp_path / "a.csv").write_bytes(b"id,first_name\n1,Jane\n2,J\xe4ne\n")
    with pytest.raises(BubblehousePermanentError, match=r"a\.csv, row 2: first_name is not UTF-8 text"):
        update(path=tmp_path / "a.csv")


@pytest.mark.parametrize("on_invalid", ["fail", "skip"])
def test_a_file_that_changes_while_it_is_read_is_a_permanent_error(sandbox, tmp_path, on_invalid, monkeypatch):
    from airflow_provider_bubblehouse.api.client import Client

    path = tmp_path / "a.csv"
    path.write_text("id\n1\n")
    call = Client.call

    def change_and_call(*args, **kwargs):
        path.write_text("id\n1\n2\n")
        return call(*args, **kwargs)

    monkeypatch.setattr(Client, "call", change_and_call)
    with pytest.raises(BubblehousePermanentError, match="changed while being read"):
        update(path=path, on_invalid=on_invalid)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json"])
@pytest.mark.parametrize("how", ["overwritten", "cut off"])
def test_a_file_that_changes_while_it_is_validated_is_not_called_invalid(sandbox, tmp_path, monkeypatch, name, how):
    from airflow_provider_bubblehouse.sources.stored import StoredFile

    path, read = tmp_path / name, StoredFile.readinto
    rows = [f'{{"id": "{number:0100}"}}' for number in range(4000)]
    text = {".csv": "id\n" + "1\n" * 200_000, ".jsonl": "\n".join(rows), ".json": f"[{','.join(rows)}]"}[path.suffix]
    path.write_text(text)

    def read_and_change(self, buffer, /):
        count = read(self, buffer)
        path.write_text("x,y\n" * (len(text) // 4 + 1) if how == "overwritten" else text[: count + 10])
        return count

    monkeypatch.setattr(StoredFile, "readinto", read_and_change)
    with pytest.raises(BubblehousePermanentError, match="changed while being read"):
        update(path=path)
    assert sandbox.calls == []


def test_a_dry_run_reads_validates_and_cuts_but_calls_nothing_and_needs_no_connection(monkeypatch, sandbox):
    monkeypatch.delenv("AIRFLOW_CONN_BUBBLEHOUSE_DEFAULT")
    summary = update(customers=people(5), batch_size=2, dry_run=True)
    assert counts(summary, "read", "unsent", "batches", "calls") == (5, 5, 3, 0)
    with pytest.raises(BubblehousePermanentError, match="row 1: the row has neither"):
        update(customers=[{}], dry_run=True)
    assert sandbox.calls == []


def test_debug_is_refused_unless_the_connection_allows_it(sandbox, monkeypatch):
    with pytest.raises(BubblehousePermanentError, match="allow_debug"):
        update(customers=people(1), debug=True)
    assert sandbox.calls == []
    monkeypatch.setenv("AIRFLOW_CONN_BUBBLEHOUSE_DEFAULT", sandbox.connection(extra={"allow_debug": True}))
    update(customers=people(1), debug=True)
    assert [call.debug for call in sandbox.calls] == [True]


def test_debug_sends_one_batch_and_shows_the_apis_message(sandbox, monkeypatch, caplog):
    monkeypatch.setenv("AIRFLOW_CONN_BUBBLEHOUSE_DEFAULT", sandbox.connection(extra={"allow_debug": True}))
    with pytest.raises(BubblehousePermanentError, match="more than one batch"):
        update(customers=people(3), batch_size=2, debug=True)
    assert sandbox.calls == []
    sandbox.script("400:bad_data,message=Row one is odd")
    with pytest.raises(BubblehouseRejectedError) as caught:
        update(customers=people(2), batch_size=2, debug=True)
    assert "Row one is odd" in caplog.text
    assert "Row one is odd" not in str(caught.value)
    caplog.clear()
    sandbox.script("400:bad_data,message=Row one is odd")
    with pytest.raises(BubblehouseRejectedError):
        update(customers=people(2))
    assert "Row one is odd" not in caplog.text


def test_deletion_sends_identities_only(sandbox):
    update(customers=people(3))
    summary = delete(customers=[{"id": 1, "first_name": "x"}, {"email": "b@example.com"}], max_customers=2)
    assert counts(summary, "read", "accepted") == (2, 2)
    assert sent(sandbox)[-2:] == [{"id": "1", "deleted": True}, {"email": "b@example.com", "deleted": True}]
    assert "1" not in [customer["id"] for customer in sandbox.customers() if not customer.get("deleted")]


def test_more_deletions_than_allowed_are_refused_before_the_first_call(sandbox):
    with pytest.raises(BubblehousePermanentError, match="max_customers"):
        delete(customers=people(3), max_customers=2)
    assert sandbox.calls == []


def test_a_deletion_with_an_invalid_row_is_refused_as_a_whole(sandbox):
    with pytest.raises(BubblehousePermanentError, match="row 2: deleted must be true or left out"):
        delete(customers=[{"id": "1"}, {"id": "2", "deleted": False}], max_customers=9)
    assert sandbox.calls == []


NAN, INFINITY = float("nan"), float("inf")
WRONG = {
    "customers": [{"id": "1"}, 5, b"[]", {1, 2}],
    "path": [5, b"a.csv", ["a.csv"], True],
    "file_format": ["xlsx", None, 5, ["csv"]],
    "csv": [
        ";",
        [],
        5,
        {"sep": ";"},
        {"delimiter": ";;"},
        {"encoding": "hex"},
        {"column_names": []},
        {"skip_rows": -1},
    ],
    "column_map": [{}, [], "id", 5, {"a": 5}, {1: "id"}, {"a": "id", "b": "id"}],
    "bubblehouse_conn_id": [None, 5, b"x"],
    "batch_size": [0, -1, 10.0, NAN, INFINITY, "500", None, True, 1.5, 10j],
    "max_batch_bytes": [10, 2048.0, NAN, "2048", True],
    "in_flight": [0, 2.5, 2.0, NAN, "2", True],
    "max_attempts": [0, 2.5, INFINITY, "2", True],
    "max_attempt_seconds": [-1, NAN, INFINITY, "300", None, True],
    "rate_limit_wait": [-1, NAN, INFINITY, "60", None, True],
    "on_rejected": ["ignore", None, True, ["stop"]],
    "rejected_path": [5, b"x", ["x"]],
    "resume": [None, "False", 0, 1],
    "dry_run": [None, "False", 0, 1],
    "debug": [None, "False", 0, 1],
    "on_invalid": ["ignore", None, False],
    "timezone": ["Mars", "", None, 5, "+02:00"],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values], ids=str
)
def test_a_value_that_cannot_work_fails_when_the_dag_is_parsed_and_is_not_shown(name, value):
    parameters = {"path": "x", name: value}
    if name == "customers":
        del parameters["path"]
    with pytest.raises(BubblehousePermanentError, match=name) as caught:
        UpdateCustomersOperator(task_id="push", **parameters)
    text = str(caught.value)
    assert text.count(". ") == 0
    assert text.endswith(".")
    assert not (isinstance(value, str) and len(value) > 2 and f" {value}" in text.replace("True or False", ""))


@pytest.mark.parametrize("value", [0, -1, 2.5, 5.0, "5", NAN, None, True])
def test_a_number_of_deletions_that_cannot_work_fails_when_the_dag_is_parsed(value):
    with pytest.raises(BubblehousePermanentError, match="max_customers must be a whole number of at least 1"):
        DeleteCustomersOperator(task_id="delete", path="x", max_customers=value)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({}, "Give one of customers, path and sql"),
        ({"customers": [], "path": "x"}, "Give one of customers, path and sql"),
        ({"sql": "SELECT 1"}, "sql and sql_conn_id go together"),
        ({"path": "x", "sql_parameters": []}, "sql_parameters with them only"),
        ({"sql": 5, "sql_conn_id": "x"}, "sql must be text"),
        ({"sql": "SELECT 1", "sql_conn_id": 5}, "sql_conn_id must be text"),
        ({"sql": "SELECT 1", "sql_conn_id": "x", "sql_parameters": 5}, "sql_parameters must be a list"),
        ({"path": "x", "debug": True, "in_flight": 2}, "in_flight must be 1"),
        ({"customers": [], "csv": {}}, "csv is for CSV files"),
        ({"sql": "SELECT 1", "sql_conn_id": "x", "csv": {}}, "csv is for CSV files"),
        ({"path": "x", "file_format": "jsonl", "csv": {}}, "csv is for CSV files"),
    ],
    ids=str,
)
def test_parameters_that_do_not_fit_together_fail_when_the_dag_is_parsed(parameters, said):
    with pytest.raises(BubblehousePermanentError, match=said):
        UpdateCustomersOperator(task_id="push", **parameters)


def give(value):
    """Return an XComArg that stands for a value."""

    @task(task_id="give")
    def function():
        return value

    return function()


@pytest.mark.parametrize(
    "parameters",
    [
        {"customers": "{{ params.x | tojson }}"},
        {"customers": ({"id": "1"},)},
        {"path": Path("x.csv")},
        {"path": "x", "rejected_path": Path("x"), "batch_size": 1, "max_attempt_seconds": 0, "rate_limit_wait": 0.5},
        {"path": lambda context, jinja_env: "x"},
        {"sql": "SELECT 1", "sql_conn_id": "{{ params.x }}", "sql_parameters": {"a": "{{ ds }}"}},
    ],
    ids=["template", "tuple", "path", "numbers", "function", "query"],
)
def test_a_template_field_is_stored_unchanged(parameters):
    operator = UpdateCustomersOperator(task_id="push", **parameters)
    for name, value in parameters.items():
        assert getattr(operator, name) is value


def test_every_template_field_may_be_the_output_of_a_task():
    with DAG("outputs", schedule=None):
        output = give("x")
        for name, parameters in {
            "customers": {"customers": output},
            "rows": {"customers": [output, output]},
            "path": {"path": output, "rejected_path": output, "bubblehouse_conn_id": output},
            "sql": {"sql": output, "sql_conn_id": output, "sql_parameters": output},
            "key": {"customers": output["rows"]},
        }.items():
            operator = UpdateCustomersOperator(task_id=name, **parameters)
            assert operator.upstream_task_ids == {"give"}
            assert all(getattr(operator, name) is value for name, value in parameters.items())


@pytest.mark.parametrize(
    "name", ["customers", "path", "sql", "sql_conn_id", "sql_parameters", "rejected_path", "bubblehouse_conn_id"]
)
@pytest.mark.parametrize("value", [None, 5])
def test_an_output_of_a_wrong_type_fails_without_a_retry_and_names_the_field(
    sandbox, run_dag, tries_of, name, value, caplog, capfd
):
    with DAG(f"wrong_{name}_{value}", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
        source = {"sql": "SELECT 1 AS id", "sql_conn_id": "x"} if name.startswith("sql") else {"path": "x"}
        if name == "customers":
            source = {}
        UpdateCustomersOperator(task_id="push", retries=2, retry_delay=timedelta(0), **source | {name: give(value)})
    run_dag(dag)
    assert tries_of(dag)["push"] == ("failed", 1)
    assert sandbox.calls == []
    logged = caplog.text + "".join(capfd.readouterr())
    assert f"{name} must be" in logged or f"{name} is None" in logged


class Counting(Sequence):
    """Rows that are fetched one by one, as Airflow 3 fetches the output of mapped tasks, and counted."""

    def __init__(self, rows: list) -> None:
        self.rows, self.fetched = rows, 0

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index):
        row = self.rows[index]
        self.fetched += 1
        return row


class Store(dict):
    """What the push needs of Airflow's task state store."""

    def set(self, key, value) -> None:
        self[key] = value

    def delete(self, key) -> None:
        self.pop(key, None)


@pytest.mark.parametrize("on_invalid", ["fail", "skip"])
def test_the_output_of_mapped_tasks_is_fetched_once(sandbox, on_invalid):
    rows = Counting(people(20))
    operator = UpdateCustomersOperator(task_id="push", customers=rows, on_invalid=on_invalid, batch_size=5)
    operator.render_template_fields({})
    assert operator.execute({"task_state_store": Store()})["accepted"] == 20
    assert rows.fetched == 20


def test_the_output_of_a_mapped_task_is_pushed(sandbox, run_dag):
    with DAG("mapped_output", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:

        @task
        def row(number):
            return {"id": str(number)}

        UpdateCustomersOperator(task_id="push", customers=row.expand(number=[1, 2, 3]))
    run_dag(dag)
    assert sent(sandbox) == [{"id": "1"}, {"id": "2"}, {"id": "3"}]


@pytest.fixture
def sources(tmp_path, monkeypatch) -> dict[str, dict]:
    database = tmp_path / "shop.db"
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", json.dumps({"conn_type": "sqlite", "host": str(database)}))
    sqlite3.connect(database).close()
    (tmp_path / "a.jsonl").write_text('{"id": "1"}')
    return {
        "customers": {"customers": people(1)},
        "path": {"path": str(tmp_path / "a.jsonl"), "rejected_path": str(tmp_path / "rejected")},
        "sql": {"sql": "SELECT '1' AS id", "sql_conn_id": "shop", "sql_parameters": []},
    }


@pytest.mark.parametrize("source", ["customers", "path", "sql"])
@pytest.mark.parametrize("fault", ["ok", "400", "503"])
def test_an_operator_can_be_copied_after_execute(sandbox, sources, source, fault):
    with DAG("copies", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
        operator = UpdateCustomersOperator(task_id="push", max_attempts=1, **sources[source])
        UpdateCustomersOperator(task_id="next", customers=[]).set_upstream(operator)
    sandbox.script(fault)
    operator.render_template_fields({})
    with suppress(BubblehousePermanentError, BubblehouseTransientError):
        operator.execute({})
    again = copy.deepcopy(operator)
    assert again.get_openlineage_facets_on_complete(None) == operator.get_openlineage_facets_on_complete(None)
    assert copy.deepcopy(dag).task_dict.keys() == {"push", "next"}
    assert dag.partial_subset("push").task_dict.keys() == {"push"}
    assert again.execute({})["accepted"] == 1


@pytest.mark.parametrize("customers", ["no JSON", '{"id": 1}', "5", {"id": "1"}, 5])
def test_customers_that_are_not_a_list_are_refused_without_being_shown(sandbox, customers):
    with pytest.raises(BubblehousePermanentError, match="customers") as caught:
        update(customers=customers)
    assert str(customers) not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("none.csv", "There is no file .*none.csv"),
        ("none-*.csv", "No file matches"),
        ("gs://bucket/customers.csv", r"gs:// needs \[gcs\]"),
        ("file:///customers-?.csv", "does not match a character"),
    ],
)
def test_a_path_that_leads_nowhere_is_an_error_that_names_the_remedy(sandbox, path, said, monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)  # it may be installed
    with pytest.raises(BubblehousePermanentError, match=said):
        update(path=path)


def test_a_path_is_taken_as_text_url_path_and_object_storage_path(sandbox, tmp_path, monkeypatch):
    from airflow_provider_bubblehouse.airflow_compat import ObjectStoragePath

    (tmp_path / "a.jsonl").write_text(json.dumps({"id": "1"}))
    monkeypatch.chdir(tmp_path)
    for path in ("a.jsonl", str(tmp_path / "a.jsonl"), tmp_path / "a.jsonl", f"file://{tmp_path}/a.jsonl"):
        assert update(path=path)["accepted"] == 1
    assert update(path=ObjectStoragePath(f"file://{tmp_path}/a.jsonl"))["accepted"] == 1
    assert update(path=f"file://{tmp_path}/*.jsonl")["accepted"] == 1


@pytest.mark.parametrize(("try_number", "has_hint"), [(1, False), (3, True)])
def test_a_transient_error_on_the_last_try_says_how_to_have_it_retried(sandbox, no_waits, try_number, has_hint):
    class TaskInstance:
        max_tries = 2

    TaskInstance.try_number = try_number
    sandbox.script(*["503"] * 10)
    with pytest.raises(BubblehouseTransientError) as caught:
        UpdateCustomersOperator(task_id="push", customers=people(1)).execute({"ti": TaskInstance()})
    assert ("set retries= to have this retried" in str(caught.value)) is has_hint
