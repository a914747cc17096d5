"""
How much later a triggerer's event loop comes round to its other work when 1,000 of our triggers wait on it.

Against as many coroutines that only sleep, so that the ratio is what our triggers cost. Each waits for a customer that
is never there. The server answers from another process and does nothing else; its core is one that the triggers lack.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

TRIGGERS = 1_000
POKE_INTERVAL = 10.0  # seconds; the default of a sensor is 60
SECONDS = 20.0  # of measuring, after one interval in which all begin
SAMPLE = 0.005  # seconds between two looks at the loop's lag
_CONNECTION = "benchmark_triggers"

_BODY = b'{"id": "no_customers_match_customer_identity"}'
_ANSWER = b"HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
    len(_BODY),
    _BODY,
)


def measure(
    *, triggers: int = TRIGGERS, poke_interval: float = POKE_INTERVAL, seconds: float = SECONDS
) -> dict[str, Any]:
    """
    Measure the loop's lag with our triggers and with as many sleeping coroutines.

    :param triggers: how many wait on the loop.
    :param poke_interval: seconds between two looks of each.
    :param seconds: how long to measure each of the two.
    :return: the lags in milliseconds, how many calls arrived, and the ratios of median and 99th percentile.
    """
    from airflow_provider_bubblehouse.triggers.bubblehouse import BubblehouseCustomerTrigger

    async def sleep() -> None:
        await asyncio.sleep(random.uniform(0, poke_interval))
        while True:  # noqa: ASYNC110 (nothing is waited for)
            await asyncio.sleep(poke_interval)

    async def wait() -> None:
        trigger = BubblehouseCustomerTrigger(
            bubblehouse_conn_id=_CONNECTION,
            poke_interval=poke_interval,
            identities=[{"shop_id": "1"}],
            expected={},
        )
        async for event in trigger.run():
            raise RuntimeError(f"A trigger ended: {event}")

    with subprocess.Popen([sys.executable, __file__, "serve"], stdout=subprocess.PIPE, stdin=subprocess.PIPE) as server:
        if server.stdout is None or server.stdin is None:
            raise RuntimeError("The server has no pipes.")
        os.environ[f"AIRFLOW_CONN_{_CONNECTION.upper()}"] = json.dumps(
            {
                "conn_type": "bubblehouse",
                "host": f"http://127.0.0.1:{int(server.stdout.readline())}",
                "login": "my-shop",
                "password": "token",
            }
        )
        try:
            sleeping = asyncio.run(_lags(sleep, triggers, poke_interval, seconds))
            waiting = asyncio.run(_lags(wait, triggers, poke_interval, seconds))
        finally:
            server.stdin.close()  # stops it, and makes it print how many calls arrived
        calls = int(server.stdout.readline())
    return {
        "triggers": triggers,
        "poke_interval_seconds": poke_interval,
        "calls": calls,
        "sleeping_lag_ms": sleeping,
        "waiting_lag_ms": waiting,
        "lag_ratio_median": round(waiting["median"] / sleeping["median"], 2),
        "lag_ratio_p99": round(waiting["p99"] / sleeping["p99"], 2),
    }


async def _lags(work: Callable[[], Awaitable[None]], count: int, begin: float, seconds: float) -> dict[str, float]:
    """Return how late a sampler on the loop was while so many coroutines were on it."""
    tasks = [asyncio.ensure_future(work()) for _ in range(count)]
    await asyncio.sleep(begin)
    lags, end = [], time.perf_counter() + seconds
    while (now := time.perf_counter()) < end:
        await asyncio.sleep(SAMPLE)
        lags.append((time.perf_counter() - now - SAMPLE) * 1000)
    for task in tasks:
        task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    failures = [one for one in ended if not isinstance(one, asyncio.CancelledError)]
    if failures:
        raise RuntimeError(f"{len(failures)} did not wait to the end, such as: {failures[0]}")
    return {
        "median": round(statistics.median(lags), 3),
        "p99": round(statistics.quantiles(lags, n=100)[98], 3),
        "worst": round(max(lags), 3),
    }


class _Server(asyncio.Protocol):
    """Gives every request the same answer; each request arrives in one piece."""

    calls = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        self._rest += data
        while (end := self._rest.find(b"\r\n\r\n")) >= 0:
            head = self._rest[:end].lower()
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            if len(self._rest) < end + 4 + length:
                return
            self._rest = self._rest[end + 4 + length :]
            _Server.calls += 1
            self._transport.write(_ANSWER)  # type: ignore[attr-defined]


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Server, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    print(_Server.calls, flush=True)
    server.close()


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        asyncio.run(_serve())
    else:
        with tempfile.TemporaryDirectory(prefix="bubblehouse-benchmark-") as home:
            os.environ["AIRFLOW_HOME"] = home
            with contextlib.redirect_stdout(sys.stderr):  # where Airflow's log goes meanwhile
                result = measure()
        print(json.dumps(result, indent=2))
