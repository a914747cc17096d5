"""A sandbox that runs: the application in uvicorn, in a thread of its own, and a Python face for tests and demos."""

from __future__ import annotations

import json
import socket
import threading
from typing import TYPE_CHECKING, Any, Self

import uvicorn

from airflow_provider_bubblehouse.sandbox.app import SandboxApp
from airflow_provider_bubblehouse.sandbox.auth import ShopKey, random_secret
from airflow_provider_bubblehouse.sandbox.calls import Call, CallLog
from airflow_provider_bubblehouse.sandbox.faults import FaultPlan
from airflow_provider_bubblehouse.sandbox.store import Store

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping
    from types import TracebackType

ADDRESS = "127.0.0.1"  # never another: it takes anybody's customers and shows them to anybody
_KEEP_ALIVE = 600  # seconds; a connection that a test left idle must not look like a fault
_POLL = 0.002  # seconds between looks at whether the server has started, which takes about as long
_SHUTDOWN = 1  # seconds for what is under way to see that its connection is gone


class Sandbox:
    """
    A local stand-in for the Bubblehouse API. A context manager: it listens between enter and exit.

    :param port: the port on 127.0.0.1, 0 for a free one.
    :param shop: the shop slug.
    :param key_id: the id of the shop's shared secret.
    :param shared_secret: the secret, at least 32 bytes in base64; None for a random one.
    :param database: the SQLite file that keeps the customers, None to forget them on exit.
    :param lag: seconds between the acceptance of customers and their processing.
    :param keep_bodies: whether ``calls`` hold the customers that came.
    :raises ValueError: if the secret cannot be one.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        shop: str = "demo-shop",
        key_id: str = "sandbox",
        shared_secret: str | None = None,
        database: str | os.PathLike[str] | None = None,
        lag: float = 0.0,
        keep_bodies: bool = True,
    ) -> None:
        self._key = ShopKey(shop=shop, key_id=key_id, shared_secret=shared_secret or random_secret())
        self._port = port
        self._database = database or ":memory:"
        self._lag = lag
        self._calls = CallLog(keep_bodies=keep_bodies)
        self._faults = FaultPlan()

    def __enter__(self) -> Self:
        """
        Begin to listen.

        :raises OSError: if the port cannot be had.
        :raises sqlite3.Error: if the database cannot be used.
        :raises RuntimeError: if the server does not start; its thread says why.
        """
        listener = _listener(self._port)
        try:
            self._store = Store(self._database, lag=self._lag)
        except BaseException:
            listener.close()
            raise
        self._port = listener.getsockname()[1]
        app = SandboxApp(key=self._key, store=self._store, calls=self._calls, faults=self._faults)
        self._server = _Server(app)
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
        self._store.close()

    @property
    def url(self) -> str:
        """Where the sandbox listens, such as ``http://127.0.0.1:8765``."""
        return f"http://{ADDRESS}:{self._port}"

    @property
    def shop(self) -> str:
        """The shop slug."""
        return self._key.shop

    @property
    def key_id(self) -> str:
        """The id of the shared secret."""
        return self._key.key_id

    @property
    def shared_secret(self) -> str:
        """The shared secret in base64."""
        return self._key.shared_secret

    @property
    def token(self) -> str:
        """A shop token that does not expire."""
        return self._key.mint()

    def mint(self, *, kid: str | None = None, **claims: Any) -> str:
        """
        Make a token, of a shop token's claims where no others are given.

        :param kid: another key id in the header.
        :param claims: claims such as ``exp``, ``iat``, ``sub``, ``aud``; one that is None is left out.
        """
        return self._key.mint(kid=kid, **claims)

    def connection(self, **overrides: Any) -> str:
        """
        Return an Airflow connection to the sandbox as JSON, the value of ``AIRFLOW_CONN_BUBBLEHOUSE_DEFAULT``.

        :param overrides: fields of the connection that are to be different, such as ``extra={"allow_debug": True}``.
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

        :raises ValueError: if one is misspelled.
        """
        self._faults.order(script=faults)

    def rates(self, rates: Mapping[str, float], *, seed: int | None = None) -> None:
        """
        Order faults by chance, in place of the rates ordered before.

        :param rates: the probability of each fault, for each call that takes none from the script.
        :param seed: makes the chance repeatable.
        :raises ValueError: if a fault is misspelled, or the probabilities cannot be.
        """
        self._faults.order(rates=rates, seed=seed)

    @property
    def calls(self) -> list[Call]:
        """The calls that came, oldest first, also those that were reset or are under way."""
        return self._calls.all()

    def calls_of(self, function: str) -> list[Call]:
        """Return the calls of one function, oldest first."""
        return [call for call in self.calls if call.function == function]

    def customers(self) -> list[dict[str, Any]]:
        """Return the fields of all customers, also those with ``"deleted": true``, in the order of first arrival."""
        return [customer.fields for customer in self._store.customers()]

    def clear(self) -> None:
        """Forget customers, calls and the faults that were still to come."""
        self._faults.clear()
        self._store.clear()
        self._calls.clear()


def _listener(port: int) -> socket.socket:
    # Only with this protocol, not with 0, does asyncio set TCP_NODELAY; without it an answer takes 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((ADDRESS, port))
    except BaseException:
        listener.close()
        raise
    return listener


class _Server(uvicorn.Server):
    """uvicorn without its own logging, which when it is to end drops what is under way."""

    def __init__(self, app: SandboxApp) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http="h11",  # the one whose connection a fault can get at
                ws="none",
                loop="asyncio",
                lifespan="off",
                proxy_headers=False,
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
