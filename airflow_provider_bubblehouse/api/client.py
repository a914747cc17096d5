"""One call to the API over requests, for workers. It never sends anything twice: attempts are the push's matter."""

from __future__ import annotations

import logging
import socket
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import Timeout
from urllib3.exceptions import HTTPError

from airflow_provider_bubblehouse.api.classifier import Answer, classify, no_call_error
from airflow_provider_bubblehouse.api.connection import (
    CONNECT_TIMEOUT,
    HEADERS,
    MAX_ANSWER_BYTES,
    ShopConnection,
)
from airflow_provider_bubblehouse.errors import PermanentError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

log = logging.getLogger(__name__)


class Client:
    """
    Calls one shop's API over one HTTP connection; a context manager. Not for use by two threads at once.

    :param connection: where the API is and how to be let in.
    """

    def __init__(self, connection: ShopConnection) -> None:
        self._connection = connection
        self._adapter: Any = HTTPAdapter(pool_connections=1, pool_maxsize=1)
        self._timeout = Timeout(connect=CONNECT_TIMEOUT, read=connection.read_timeout)
        self._targets: dict[str, str] = {}
        self._open: Any = None  # the HTTP connection in use, for a client makes one call at a time
        self._is_aborted = False

    @cached_property
    def _environment(self) -> Mapping[str, Any]:
        """Proxies and certificates as the environment names them; to look them up takes as long as a small call."""
        return requests.Session().merge_environment_settings(self._connection.base_url, {}, None, True, None)

    @cached_property
    def _pool(self) -> Any:
        """
        The pool that requests makes for this server.

        Calls go straight to it. What requests adds to each is what a call must not have, as redirects, cookies and the
        password of a ``.netrc``, and takes a third of its time.
        """
        request = requests.Request("POST", self._connection.base_url).prepare()
        proxies, verify = self._environment["proxies"], self._environment["verify"]
        pool: Any = self._adapter.get_connection_with_tls_context(request, verify, proxies)
        self._adapter.cert_verify(pool, self._connection.base_url, verify, None)
        client = self

        class Connection(pool.ConnectionCls):  # type: ignore[misc]
            def connect(self) -> None:
                client._open = self
                super().connect()
                client._connected(self)

        pool.ConnectionCls = Connection
        return pool

    def _address(self, function: str) -> tuple[Any, str]:
        """Return the pool and the target of a function's requests; a retry helps nothing where they cannot be had."""
        try:
            return self._pool, self._target(function)
        except (ValueError, TypeError, OSError) as fault:  # OSError of certificates: nothing is called yet
            raise no_call_error(fault) from None

    def _target(self, function: str) -> str:
        """Return what a function's requests name: its path, or where a proxy is to know it the whole URL."""
        if function not in self._targets:
            request = requests.Request("POST", self._connection.url(function)).prepare()
            self._targets[function] = self._adapter.request_url(request, self._environment["proxies"])
        return self._targets[function]

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the idle socket; a further call opens another one."""
        self._adapter.close()
        vars(self).pop("_pool", None)

    def abort(self) -> None:
        """
        Cut off the call that another thread has under way; it then ends with a transient error.

        To close the pool would not do that. The client makes no further connection.
        """
        self._is_aborted = True
        # TLS inside a proxy's TLS has the socket below it.
        sock = getattr(self._open, "sock", None)
        sock = getattr(sock, "socket", sock)
        if sock is not None:
            with suppress(OSError):  # it is closed already
                # Below TLS, whose own shutdown would wait for the other side.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def _connected(self, connection: Any) -> None:
        """See to a new HTTP connection, over which nothing has been sent."""
        if self._is_aborted:  # while it was made, when there was no socket to cut off
            connection.close()
            raise ConnectionAbortedError
        # To send a body may take as long as its answer may; urllib3 would have it done in the time for connecting.
        connection.sock.settimeout(self._connection.read_timeout)

    def call(self, function: str, body: bytes, *, debug: bool = False) -> dict[str, Any]:
        """
        Make exactly one POST.

        :param function: the function with its version, such as ``UpdateCustomers3``.
        :param body: the JSON payload, encoded.
        :param debug: whether the payload asks for ``debug``; the API's own message to an error is then logged.
        :return: the JSON object of the answer.
        :raises BubblehouseError: the class says what the answer means (see ``exceptions``).
        """
        if debug:
            require_debug_allowed(self._connection)
        answer = self._send(function, body)
        error = classify(answer)
        if error is not None:
            if debug:
                log_api_message(answer)
            raise error
        return answer.document() or {}

    def _send(self, function: str, body: bytes) -> Answer:
        status, retry_after, content = None, None, bytearray()
        pool, target = self._address(function)
        try:
            with pool.urlopen(
                "POST",
                target,
                body=body,
                headers={**HEADERS, "Authorization": f"Bearer {self._connection.tokens.current()}"},
                timeout=self._timeout,
                retries=False,
                redirect=False,
                assert_same_host=False,
                preload_content=False,  # so that the status is known even where the body is cut off
            ) as response:
                status, retry_after = response.status, response.headers.get("Retry-After")
                for piece in response.stream(64 * 1024):
                    content += piece
                    if len(content) > MAX_ANSWER_BYTES:
                        break
        except (HTTPError, OSError) as fault:
            return Answer(function=function, status=status, body=bytes(content), retry_after=retry_after, fault=fault)
        return Answer(function=function, status=status, body=bytes(content), retry_after=retry_after)


def require_debug_allowed(connection: ShopConnection) -> None:
    """
    Refuse ``debug`` where the connection does not allow it: the API wants it never used in production.

    :raises PermanentError: if the connection has no ``allow_debug``.
    """
    if not connection.allow_debug:
        raise PermanentError(
            "debug is for development only and this Airflow connection does not allow it; set its allow_debug, "
            "or leave debug out."
        )


def log_api_message(answer: Answer) -> None:
    """Log the API's own words, which may quote a customer: for calls with ``debug`` only."""
    message = (answer.document() or {}).get("message")
    if message:
        log.warning("Bubblehouse says of %s: %s", answer.function, message)
