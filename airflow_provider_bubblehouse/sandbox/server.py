"""The sandbox as a server on loopback, in a thread of its own."""

from __future__ import annotations

import base64
import json
import secrets
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import uvicorn

from airflow_provider_bubblehouse.sandbox.app import Api, Call
from airflow_provider_bubblehouse.sandbox.auth import default_claims, mint
from airflow_provider_bubblehouse.sandbox.faults import Faults
from airflow_provider_bubblehouse.sandbox.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType

_LOOPBACK = "127.0.0.1"  # nothing else: it hands out its own token


class Sandbox:
    """
    A stand-in for the Bubblehouse API; a context manager that serves while it is open.

    :param port: the port, 0 for a free one.
    :param shop: the shop slug.
    :param key_id: names the shared secret.
    :param shared_secret: the secret in base64; None for a new one, so that no two sandboxes take each other's tokens.
    :param database: the SQLite file that keeps the customers; the default keeps them in memory.
    :param lag: seconds until pushed rows are processed, as the API may take them in later than it answers.
    :param keep_customers: whether each call is logged with its customers.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        shop: str = "demo-shop",
        key_id: str = "sandbox",
        shared_secret: str | None = None,
        database: str = ":memory:",
        lag: float = 0.0,
        keep_customers: bool = True,
    ) -> None:
        self.shop = shop
        self.key_id = key_id
        self.shared_secret = shared_secret or base64.b64encode(secrets.token_bytes(32)).decode()
        self.token = self.mint()
        self._port = port
        self._store = Store(database)
        self._api = Api(
            self._store,
            shop=shop,
            key_id=key_id,
            shared_secret=self.shared_secret,
            lag=lag,
            keep_customers=keep_customers,
        )

    def __enter__(self) -> Sandbox:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((_LOOPBACK, self._port))
        except OSError:
            self._socket.close()
            raise
        config = uvicorn.Config(
            self._api, http="h11", ws="none", lifespan="off", proxy_headers=False, access_log=False, log_level="error"
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            time.sleep(0.005)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join()
        self._store.close()

    @property
    def url(self) -> str:
        """The base URL: what goes into a connection's host."""
        return f"http://{_LOOPBACK}:{self._socket.getsockname()[1]}"

    @property
    def calls(self) -> list[Call]:
        """The calls that arrived, oldest first."""
        return list(self._api.calls)

    def customers(self) -> list[dict[str, Any]]:
        """Return the customers as they were pushed, deleted ones too, oldest first."""
        return self._store.customers()

    def mint(self, **claims: Any) -> str:
        """
        Return a shop token; without claims one that does not expire.

        :param claims: claims to set, such as ``exp``; ``kid`` sets the header's.
        """
        key_id = claims.pop("kid", self.key_id)
        return mint(key_id, self.shared_secret, default_claims(self.shop) | claims)

    def connection(self, **fields: Any) -> str:
        """
        Return the Airflow connection to this sandbox, as JSON for ``AIRFLOW_CONN_BUBBLEHOUSE_DEFAULT``.

        :param fields: fields to set otherwise, such as ``extra={"allow_debug": True}``.
        """
        own = {"conn_type": "bubblehouse", "host": self.url, "login": self.shop, "password": self.token}
        return json.dumps(own | fields)

    def script(self, *faults: str) -> None:
        """
        Order faults for the next calls, one each; this replaces what was ordered before.

        :param faults: as ``sandbox.faults`` describes.
        """
        self.order(faults)

    def rates(self, rates: Mapping[str, float], *, seed: int = 0) -> None:
        """
        Order faults by chance; this replaces what was ordered before.

        :param rates: fault to its probability a call.
        :param seed: makes the choice repeatable.
        """
        self.order((), rates, seed=seed)

    def order(self, script: Iterable[str], rates: Mapping[str, float] | None = None, *, seed: int = 0) -> None:
        """
        Order faults for the next calls, and after these by chance; this replaces what was ordered before.

        :raises UnknownFaultError: if a fault cannot be read.
        """
        self._api.faults = Faults(script, rates, seed)

    def clear(self) -> None:
        """Forget customers, calls and faults."""
        self._api.clear()
