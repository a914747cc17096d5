"""The sandbox as a running server: the application in uvicorn, in its own thread, with a Python API for tests."""

from __future__ import annotations

import json
import socket
import threading
from typing import TYPE_CHECKING, Any, Self

import uvicorn

from airflow_provider_bubblehouse.api.names import SANDBOX_SERVER
from airflow_provider_bubblehouse.sandbox.api import KEY_ID, SHARED_SECRET, mint_token
from airflow_provider_bubblehouse.sandbox.app import SandboxApp
from airflow_provider_bubblehouse.sandbox.calls import Call
from airflow_provider_bubblehouse.sandbox.customers import Customers
from airflow_provider_bubblehouse.sandbox.faults import FaultPlan

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

ADDRESS = "127.0.0.1"  # no other address: anybody who can connect can read what the sandbox holds
_KEEP_ALIVE = 600  # seconds; closing the idle connection of a test would look like a fault
_POLL = 0.002  # seconds between checks whether the server has started, which takes about as long
_SHUTDOWN = 1  # seconds for calls in progress to notice that their connection is closed


class Sandbox:
    """
    A local stand-in for the Bubblehouse API. A context manager: it listens between enter and exit.

    :param port: the port on 127.0.0.1; 0 for any free one.
    :param shop: the shop slug.
    :param lag: seconds between the acceptance of customers and their processing.
    :param keep_bodies: whether ``calls`` contain the customers of each call.
    """

    def __init__(self, *, port: int = 0, shop: str = "demo-shop", lag: float = 0.0, keep_bodies: bool = True) -> None:
        self.shop = shop
        self.keep_bodies = keep_bodies
        self.faults = FaultPlan()
        self.store = Customers(lag=lag)
        self._port = port
        self._calls: list[Call] = []
        self._call_count = 0

    def __enter__(self) -> Self:
        """
        Start to listen.

        :raises OSError: if the port is not available.
        :raises RuntimeError: if the server does not start; its thread prints the reason.
        """
        listener = _listener(self._port)
        self._port = listener.getsockname()[1]
        self._server = _Server(SandboxApp(self))
        self._thread = threading.Thread(
            target=self._server.run, args=([listener],), name="bubblehouse-sandbox", daemon=True
        )
        self._thread.start()
        while not self._server.started:
            self._thread.join(_POLL)
            if not self._thread.is_alive():
                raise RuntimeError("The sandbox did not start.")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join()

    @property
    def url(self) -> str:
        """The address of the sandbox, such as ``http://127.0.0.1:8765``."""
        return f"http://{ADDRESS}:{self._port}"

    @property
    def token(self) -> str:
        """A shop token that does not expire; the same for every sandbox of this shop."""
        return mint_token(self.shop)

    @property
    def key_id(self) -> str:
        """The id of the shared secret."""
        return KEY_ID

    @property
    def shared_secret(self) -> str:
        """The shared secret in base64; the same for every sandbox."""
        return SHARED_SECRET

    def connection(self, **overrides: Any) -> str:
        """
        Return an Airflow connection to the sandbox as JSON, the value of ``AIRFLOW_CONN_BUBBLEHOUSE_DEFAULT``.

        :param overrides: fields of the connection that differ, such as ``extra={"allow_debug": True}``.
        """
        fields = {
            "conn_type": "bubblehouse",
            "host": self.url,
            "login": self.shop,
            "password": self.token,
            "extra": {},
        }
        return json.dumps(fields | overrides)

    def script(self, *faults: str) -> None:
        """
        Order faults for the next calls, one each, after those ordered before (see ``sandbox.faults``).

        :raises ValueError: if a fault is misspelled.
        """
        self.faults.order(script=faults)

    def rates(self, rates: Mapping[str, float], *, seed: int | None = None) -> None:
        """
        Order random faults; they replace those ordered before.

        :param rates: the probability of each fault, for calls that the script does not cover.
        :param seed: makes them repeatable.
        :raises ValueError: if a fault is misspelled, or the probabilities are impossible.
        """
        self.faults.order(rates=rates, seed=seed)

    def record(self, **fields: Any) -> Call:
        """Record a call whose headers have arrived."""
        self._call_count += 1
        call = Call(number=self._call_count, **fields)
        self._calls.append(call)
        return call

    @property
    def calls(self) -> list[Call]:
        """All calls, oldest first, also those that were reset or are in progress."""
        return list(self._calls)

    def calls_of(self, function: str) -> list[Call]:
        """Return the calls of one function, oldest first."""
        return [call for call in self.calls if call.function == function]

    def customers(self) -> list[dict[str, Any]]:
        """Return the fields of all customers, also those with ``"deleted": true``, in the order of first arrival."""
        return [dict(customer.fields) for customer in self.store.all()]

    def clear(self) -> None:
        """Drop all customers, calls and faults."""
        self.faults.clear()
        self.store.clear()
        self._calls.clear()


def _listener(port: int) -> socket.socket:
    # With protocol 0, asyncio does not set TCP_NODELAY, and an answer takes 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((ADDRESS, port))
    except BaseException:
        listener.close()
        raise
    return listener


class _Server(uvicorn.Server):
    """uvicorn without its logging. It drops calls in progress when it stops, and says in each answer what it is."""

    def __init__(self, app: SandboxApp) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http="h11",  # the protocol whose connection a fault can reset
                ws="none",
                loop="asyncio",
                lifespan="off",
                proxy_headers=False,
                server_header=False,
                headers=[("Server", SANDBOX_SERVER)],
                access_log=False,
                log_config=None,
                log_level="error",
                timeout_keep_alive=_KEEP_ALIVE,
                timeout_graceful_shutdown=_SHUTDOWN,
            )
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listener in self.servers:
            listener.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await super().shutdown(sockets)
