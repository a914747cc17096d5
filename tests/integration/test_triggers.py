"""The triggers on a real event loop: never blocked, one httpx client for all, and an event whatever happens."""

from __future__ import annotations

import asyncio
import json
import math
import runpy
from importlib import import_module
from pathlib import Path

import pytest
from asgiref.sync import async_to_sync

from airflow_provider_bubblehouse import airflow_compat
from airflow_provider_bubblehouse.api.tokens import MintedTokens
from airflow_provider_bubblehouse.exceptions import BubblehousePermanentError, BubblehouseTransientError
from airflow_provider_bubblehouse.hooks.bubblehouse import BubblehouseHook
from airflow_provider_bubblehouse.triggers import bubblehouse as triggers
from airflow_provider_bubblehouse.triggers.bubblehouse import (
    BubblehouseCustomerTrigger,
    BubblehouseStatusTrigger,
    error_of,
)


def status_trigger(**how) -> BubblehouseStatusTrigger:
    return BubblehouseStatusTrigger(**{"bubblehouse_conn_id": "bubblehouse_default", "poke_interval": 0.01} | how)


def customer_trigger(**how) -> BubblehouseCustomerTrigger:
    return BubblehouseCustomerTrigger(
        **{
            "bubblehouse_conn_id": "bubblehouse_default",
            "poke_interval": 0.01,
            "identities": [{"shop_id": "1"}],
            "expected": {"tags": ["vip"]},
        }
        | how
    )


async def event_of(trigger) -> dict:
    (event,) = [event.payload async for event in trigger.run()]
    return event


@pytest.fixture
def opened(monkeypatch) -> list:
    """The httpx clients that were opened."""
    clients, open_http = [], triggers._open_http

    def remember():
        clients.append(open_http())
        return clients[-1]

    monkeypatch.setattr(triggers, "_open_http", remember)
    return clients


def stored(trigger):
    """Return a trigger as Airflow's database returns it."""
    path, parameters = json.loads(json.dumps(trigger.serialize()))
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)(**parameters)


MINTED = "key id and shared secret"


@pytest.fixture(params=["token", MINTED])
def way_to_authenticate(request, sandbox, monkeypatch) -> None:
    if request.param == MINTED:
        extra = {"key_id": sandbox.key_id, "shared_secret": sandbox.shared_secret}
        monkeypatch.setenv("AIRFLOW_CONN_BUBBLEHOUSE_DEFAULT", sandbox.connection(password="", extra=extra))


@pytest.mark.parametrize(
    "trigger", [status_trigger(wait_when_unavailable=True), customer_trigger()], ids=["status", "customer"]
)
def test_a_trigger_survives_airflows_database_and_stores_no_secret(sandbox, way_to_authenticate, trigger):
    BubblehouseHook().update_customers([{"id": "1", "tags": ["vip"]}])
    again = stored(trigger)
    assert again.serialize() == stored(again).serialize()
    assert asyncio.run(event_of(again)) == {"status": "success"}
    for secret in (sandbox.token, sandbox.shared_secret):
        assert secret not in f"{again.serialize()} {again}"


def test_airflow_stores_and_logs_no_value_of_a_customer_of_a_trigger(sandbox, way_to_authenticate):
    trigger = customer_trigger(
        identities=[{"email": "sentinel@example.com"}], expected={"first_name": "sentinel", "extras": {"x": "sentinel"}}
    )
    for one in (trigger, stored(trigger)):
        assert "sentinel" not in f"{one.serialize()} {one!r}"


def test_a_trigger_stored_by_the_first_version_runs(sandbox):
    BubblehouseHook().update_customers([{"id": "1", "tags": ["vip"]}])
    stored_by_0_1_0 = {
        "bubblehouse_conn_id": "bubblehouse_default",
        "poke_interval": 0.01,
        "wait_when_unavailable": False,
        "identities": [{"shop_id": "1"}],
        "expected": {"tags": ["vip"]},
    }
    assert asyncio.run(event_of(BubblehouseCustomerTrigger(**stored_by_0_1_0))) == {"status": "success"}
    assert asyncio.run(event_of(BubblehouseCustomerTrigger(**stored_by_0_1_0 | {"expected": {}}))) == {
        "status": "success"
    }


@pytest.mark.parametrize("changed", ["token", MINTED])
def test_a_secret_that_has_changed_ends_the_trigger_with_a_transient_error(sandbox, monkeypatch, changed):
    again = stored(customer_trigger())
    new = {"password": new_token(sandbox)}
    if changed == MINTED:
        new = {"password": "", "extra": {"key_id": sandbox.key_id, "shared_secret": sandbox.shared_secret}}
    monkeypatch.setenv("AIRFLOW_CONN_BUBBLEHOUSE_DEFAULT", sandbox.connection(**new))
    error = error_of(asyncio.run(event_of(again)))
    assert type(error) is BubblehouseTransientError
    assert "changed while the task was deferred" in str(error)
    assert sandbox.calls == []


def new_token(sandbox) -> str:
    """Return another valid token, as after a rotation."""
    return MintedTokens(sandbox.key_id, sandbox.shared_secret, shop=sandbox.shop, mask=lambda _: None).current()


def test_triggers_of_one_loop_share_one_client_and_the_last_one_closes_it(sandbox, opened):
    async def run() -> list[dict]:
        return await asyncio.gather(*(event_of(status_trigger()) for _ in range(50)))

    assert asyncio.run(run()) == [{"status": "success"}] * 50
    assert len(sandbox.calls) == 50
    assert [client.is_closed for client in opened] == [True]
    assert asyncio.run(run()) == [{"status": "success"}] * 50
    assert len(opened) == 2  # another loop, another client


def test_triggers_of_different_connections_share_the_client_and_not_the_token(sandbox, monkeypatch, opened):
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", sandbox.connection(password="no-token"))

    async def run() -> list[dict]:
        names = ["bubblehouse_default", "other"] * 5
        return await asyncio.gather(*(event_of(status_trigger(bubblehouse_conn_id=name)) for name in names))

    events = asyncio.run(run())
    assert [event["status"] for event in events] == ["success", "error"] * 5
    assert {event["http_status"] for event in events[1::2]} == {401}
    assert len(opened) == 1


def test_a_slow_answer_does_not_block_the_loop(sandbox):
    sandbox.script("delay=0.5")

    async def run() -> int:
        ticks = 0
        waiting = asyncio.create_task(event_of(status_trigger()))
        while not waiting.done():
            await asyncio.sleep(0.01)
            ticks += 1
        return ticks

    assert asyncio.run(run()) > 15  # a call that blocks leaves one or two


def test_a_trigger_that_is_cancelled_ends_and_leaves_nothing_open(sandbox, opened):
    sandbox.script("delay=30")

    async def run() -> None:
        waiting = asyncio.create_task(event_of(status_trigger()))
        while not sandbox.calls:  # noqa: ASYNC110 (the sandbox is in another thread)
            await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(run())
    assert [client.is_closed for client in opened] == [True]
    assert not triggers._shared


def test_a_trigger_that_airflow_drops_after_its_event_leaves_nothing_open(sandbox, opened):
    async def run() -> None:
        await anext(aiter(status_trigger().run()))
        assert opened[0].is_closed

    asyncio.run(run())


def test_tokens_are_minted_in_the_trigger_too(sandbox, monkeypatch):
    extra = {"key_id": sandbox.key_id, "shared_secret": sandbox.shared_secret}
    monkeypatch.setenv("AIRFLOW_CONN_BUBBLEHOUSE_DEFAULT", sandbox.connection(password="", extra=extra))
    assert asyncio.run(event_of(status_trigger())) == {"status": "success"}


@pytest.mark.parametrize(
    ("connection", "kind", "said"),
    [
        ({"login": "Not A Slug"}, BubblehousePermanentError, "Shop slug (login)"),
        ({"password": ""}, BubblehousePermanentError, "has no credentials"),
        (None, BubblehouseTransientError, "nowhere"),
    ],
)
def test_the_error_of_an_invalid_connection_is_in_the_event(sandbox, monkeypatch, connection, kind, said):
    if connection:
        monkeypatch.setenv("AIRFLOW_CONN_NOWHERE", sandbox.connection(**connection))
    error = error_of(asyncio.run(event_of(status_trigger(bubblehouse_conn_id="nowhere", wait_when_unavailable=True))))
    assert type(error) is kind
    assert said in str(error)


def test_a_trigger_talks_to_airflow_on_the_event_loop_of_the_triggerer(sandbox, monkeypatch):
    """Otherwise the triggerer of Airflow 3.0 and 3.1 sends a blocking call on a second event loop, and then ends."""
    monkeypatch.setattr("airflow_provider_bubblehouse.api.tokens._RENEW_BEFORE_END", math.inf)  # a token for each call
    minted = {"key_id": sandbox.key_id, "shared_secret": sandbox.shared_secret}
    monkeypatch.setenv("AIRFLOW_CONN_BUBBLEHOUSE_DEFAULT", sandbox.connection(password=None, extra=minted))
    loops = []

    async def send() -> None:
        loops.append(asyncio.get_running_loop())

    get_connection = BubblehouseHook.get_connection

    def get(conn_id):
        async_to_sync(send)()  # as TriggerCommsDecoder.send does
        return get_connection(conn_id)

    monkeypatch.setattr(BubblehouseHook, "get_connection", get)
    monkeypatch.setattr(airflow_compat, "mask_secret", lambda _: async_to_sync(send)(), raising=False)

    async def run() -> asyncio.AbstractEventLoop:
        events = await asyncio.gather(*(event_of(status_trigger()) for _ in range(5)))
        assert events == [{"status": "success"}] * 5
        return asyncio.get_running_loop()

    assert {asyncio.run(run())} == set(loops)
    assert len(loops) == 5 * 3  # the connection, its secret, and the token that was minted


def test_an_unexpected_error_is_in_the_event_by_its_name_only(sandbox, monkeypatch):
    def fail(_):
        raise ValueError("sentinel@example.com")

    monkeypatch.setattr(triggers, "shop_connection", fail)
    error = error_of(asyncio.run(event_of(status_trigger())))
    assert type(error) is BubblehouseTransientError
    assert str(error) == "The trigger failed with ValueError."


def test_wait_when_unavailable_waits_during_an_outage(sandbox):
    sandbox.script("503", "reset", "cut", "ok")
    assert asyncio.run(event_of(status_trigger(wait_when_unavailable=True))) == {"status": "success"}
    assert len(sandbox.calls) == 4


def test_the_benchmark_measures_triggers_that_call():
    benchmark = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "triggers.py"))
    result = benchmark["measure"](triggers=5, poke_interval=0.1, seconds=1.0)
    assert result["calls"] >= 5
    assert result["lag_ratio_median"] > 0
