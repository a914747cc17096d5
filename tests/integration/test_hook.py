"""The hook: exactly one call per method, and messages of the Test button that say what to do."""

from __future__ import annotations

import pytest

from airflow_provider_bubblehouse.exceptions import (
    BubblehousePermanentError,
    BubblehouseRejectedError,
    BubblehouseTransientError,
)
from airflow_provider_bubblehouse.hooks.bubblehouse import BubblehouseHook


@pytest.fixture
def hook(sandbox) -> BubblehouseHook:
    return BubblehouseHook()


def test_an_update_is_one_call_with_normalized_customers(sandbox, hook):
    hook.update_customers([{"id": 1, "total_spent": 2.5}, {"email": "b@example.com"}])
    (call,) = sandbox.calls
    assert call.customers == [{"id": "1", "total_spent": "2.5"}, {"email": "b@example.com"}]


def test_an_empty_update_makes_no_call(sandbox, hook):
    hook.update_customers([])
    assert sandbox.calls == []


def test_an_invalid_customer_is_named_and_nothing_is_sent(sandbox, hook):
    said = "Nothing was sent, because 1 customer cannot be sent. row 2: the row has neither id nor email."
    with pytest.raises(BubblehousePermanentError, match=f"^{said}$"):
        hook.update_customers([{"id": "1"}, {"first_name": "Jane"}])
    assert sandbox.calls == []


@pytest.mark.parametrize(("fault", "kind"), [("503", BubblehouseTransientError), ("400", BubblehouseRejectedError)])
def test_the_hook_raises_errors_and_does_not_retry(sandbox, hook, fault, kind):
    sandbox.script(fault)
    with pytest.raises(kind):
        hook.update_customers([{"id": "1"}])
    assert len(sandbox.calls) == 1


def test_a_pushed_customer_can_be_read_back(sandbox, hook):
    hook.update_customers([{"id": "1", "email": "a@example.com", "extras": {"city": "Oslo"}}])
    assert hook.get_customer(shop_id="1")["extras"] == {"city": "Oslo"}
    assert hook.get_customer(email="a@example.com")["id"] == "1"
    with pytest.raises(BubblehousePermanentError, match="no customer matches") as caught:
        hook.get_customer(shop_id="2")
    assert caught.value.error_id == "no_customers_match_customer_identity"


def test_debug_is_refused_unless_the_connection_allows_it(sandbox, hook):
    with pytest.raises(BubblehousePermanentError, match="allow_debug"):
        hook.call("UpdateCustomers3", {"customers": [], "debug": True})
    with pytest.raises(BubblehousePermanentError, match="allow_debug"):
        hook.update_customers([{"id": "1"}], debug=True)
    assert sandbox.calls == []


def test_the_test_button_says_who_accepts_the_token(sandbox, hook):
    said = f"The Bubblehouse API at {sandbox.url} answers and accepts the token of {sandbox.shop}."
    assert hook.test_connection() == (True, said)
    assert [call.function for call in sandbox.calls] == ["Status2"]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"password": "no-token"}, "the token is not accepted"),
        ({"password": ""}, "has no credentials"),
        ({"login": "Not A Slug"}, "Shop slug (login)"),
        ({"host": "http://example.com"}, "use https"),
    ],
)
def test_the_test_button_says_what_to_fix(sandbox, monkeypatch, overrides, said):
    monkeypatch.setenv("AIRFLOW_CONN_BUBBLEHOUSE_DEFAULT", sandbox.connection(**overrides))
    good, message = BubblehouseHook().test_connection()
    assert not good
    assert said in message


def test_the_test_button_says_that_there_is_no_answer(sandbox, monkeypatch, unused_port):
    monkeypatch.setenv("AIRFLOW_CONN_BUBBLEHOUSE_DEFAULT", sandbox.connection(host=f"http://127.0.0.1:{unused_port}"))
    good, message = BubblehouseHook().test_connection()
    assert not good
    assert "gave no answer" in message


def test_token_and_secret_are_registered_with_airflows_masker(sandbox, monkeypatch):
    masked = []
    monkeypatch.setattr("airflow_provider_bubblehouse.airflow_compat.mask_secret", masked.append, raising=False)
    BubblehouseHook().status()
    assert sandbox.token in masked
    monkeypatch.setenv(
        "AIRFLOW_CONN_BUBBLEHOUSE_DEFAULT",
        sandbox.connection(password="", extra={"key_id": sandbox.key_id, "shared_secret": sandbox.shared_secret}),
    )
    BubblehouseHook().status()
    assert sandbox.shared_secret in masked
    assert len(masked) == 3  # and the minted token
