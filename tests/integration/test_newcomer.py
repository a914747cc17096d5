"""The errors that a new user meets on the way to the first push: each message says what to do."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from airflow_provider_bubblehouse.exceptions import (
    BubblehouseError,
    BubblehousePermanentError,
    BubblehouseTransientError,
)
from airflow_provider_bubblehouse.operators.customers import UpdateCustomersOperator

CSV = "CustomerId,Email\n1001,ada@example.com\n"
MAP = {"CustomerId": "id", "Email": "email"}


def error_of(path, monkeypatch, connection: str, **kwargs) -> BubblehouseError:
    """Return what a push fails with in the last try of a task."""
    monkeypatch.setenv("AIRFLOW_CONN_BUBBLEHOUSE_DEFAULT", connection)
    task_instance = SimpleNamespace(
        dag_id="dag", run_id="run", task_id="push", map_index=-1, try_number=1, max_tries=0, state="running"
    )
    push = UpdateCustomersOperator(task_id="push", path=path, **{"column_map": MAP, "max_attempts": 1, **kwargs})
    with pytest.raises(BubblehouseError) as caught:
        push.execute({"ti": task_instance})
    return caught.value


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "customers.csv"
    path.write_text(CSV)
    return path


def test_a_wrong_slug_is_named_by_the_label_of_the_form(sandbox, path, monkeypatch):
    error = error_of(path, monkeypatch, sandbox.connection(login="my-other-shop"))
    assert isinstance(error, BubblehousePermanentError)
    assert "Shop slug (login)" in str(error)


def test_a_slug_that_the_api_does_not_know_is_named_by_the_label_of_the_form(sandbox, path, monkeypatch):
    minted = {"key_id": sandbox.key_id, "shared_secret": sandbox.shared_secret}
    error = error_of(path, monkeypatch, sandbox.connection(login="my-other-shop", password=None, extra=minted))
    assert isinstance(error, BubblehousePermanentError)
    assert "Shop slug (login)" in str(error)


def test_an_expired_token_asks_for_a_new_one_before_any_call(sandbox, path, monkeypatch):
    error = error_of(path, monkeypatch, sandbox.connection(password=sandbox.mint(exp=int(time.time()) - 60)))
    assert isinstance(error, BubblehousePermanentError)
    assert "expired" in str(error)
    assert sandbox.calls == []


def test_a_wrong_column_is_named(sandbox, path, monkeypatch):
    error = error_of(path, monkeypatch, sandbox.connection(), column_map={"Id": "id"})
    assert f"{path} lacks columns that column_map names: Id." in str(error)


def test_a_wrong_encoding_is_named_by_row_and_field(sandbox, path, monkeypatch):
    path.write_bytes("CustomerId,Email,Name\n1001,ada@example.com,José\n".encode("latin-1"))
    error = error_of(path, monkeypatch, sandbox.connection(), column_map=MAP | {"Name": "first_name"})
    assert f"{path}, row 1: first_name is not UTF-8 text; save the source as UTF-8" in str(error)


def test_a_missing_file_is_named(sandbox, tmp_path, monkeypatch):
    missing = tmp_path / "nowhere.csv"
    assert f"There is no file {missing}." in str(error_of(missing, monkeypatch, sandbox.connection()))


def test_the_error_of_a_sandbox_that_is_not_started_names_it_and_the_missing_retries(
    sandbox, path, monkeypatch, unused_port
):
    error = error_of(path, monkeypatch, sandbox.connection(host=f"http://127.0.0.1:{unused_port}"))
    assert isinstance(error, BubblehouseTransientError)
    assert "gave no answer to UpdateCustomers3 (ConnectionRefusedError)" in str(error)
    assert "check that the server is running, and the API host (host) and Port" in str(error)
    assert "set retries= to have this retried." in str(error)
