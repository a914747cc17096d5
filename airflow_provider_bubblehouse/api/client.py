"""The client, over urllib3 as requests sets it up, for workers. One call sends once; the push makes the attempts."""

from __future__ import annotations

import logging
import socket
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPHeaderDict, Timeout
from urllib3.exceptions import HTTPError

from airflow_provider_bubblehouse.api.classifier import Answer, classify, no_call_error, server_name
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

    :param connection: the API's address and credentials.
    """

    def __init__(self, connection: ShopConnection) -> None:
        self._connection = connection
        self._adapter: Any = HTTPAdapter(pool_connections=1, pool_maxsize=1)
        self._timeout = Timeout(connect=CONNECT_TIMEOUT, read=connection.read_timeout)
        self._targets: dict[str, str] = {}
        self._open: Any = None  # the HTTP connection; a client makes one call at a time
        self._is_aborted = False

    @cached_property
    def _environment(self) -> Mapping[str, Any]:
        """The proxies and certificates of the environment; cached, because a look-up takes as long as a small call."""
        return requests.Session().merge_environment_settings(self._connection.base_url, {}, None, True, None)

    @cached_property
    def _pool(self) -> Any:
        """
        The urllib3 pool that requests creates for this server.

        Calls use the pool directly: what requests would add, redirects, cookies and passwords of a ``.netrc``, is
        unwanted and takes a third of the time of a call.
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
        """
        Return the pool and the request target of a function.

        :raises PermanentError: if the address, the proxies or the certificates are not usable.
        """
        try:
            return self._pool, self._target(function)
        except (ValueError, TypeError, OSError) as fault:  # OSError: the certificates cannot be read
            raise no_call_error(fault) from None

    def _target(self, function: str) -> str:
        """Return the request target of a function: its path, or the whole URL for a proxy."""
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
        """Close the idle connection; the next call opens another one."""
        self._adapter.close()
        vars(self).pop("_pool", None)

    def abort(self) -> None:
        """
        Abort the call that another thread is making, which then fails with a transient error.

        Closing the pool would not abort it. The client opens no connection afterwards.
        """
        self._is_aborted = True
        # TLS inside the TLS of a proxy wraps the socket once more.
        sock = getattr(self._open, "sock", None)
        sock = getattr(sock, "socket", sock)
        if sock is not None:
            with suppress(OSError):  # already closed
                # Not the shutdown of TLS, which waits for the server.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def _connected(self, connection: Any) -> None:
        """Prepare a new HTTP connection before anything is sent over it."""
        if self._is_aborted:  # while connecting, when there was no socket to shut down
            connection.close()
            raise ConnectionAbortedError
        # urllib3 would apply the connect timeout to the sending of the body.
        connection.sock.settimeout(self._connection.read_timeout)

    def call(self, function: str, body: bytes, *, debug: bool = False) -> dict[str, Any]:
        """
        Make exactly one POST.

        :param function: the function with its version, such as ``UpdateCustomers3``.
        :param body: the JSON payload, encoded.
        :param debug: whether the payload asks for ``debug``; the API's own error message is then logged.
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
        status, headers, content = None, HTTPHeaderDict(), bytearray()
        fault: Exception | None = None
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
                preload_content=False,  # so that the status is known even if the body is cut off
            ) as response:
                status, headers = response.status, response.headers
                for piece in response.stream(64 * 1024):
                    content += piece
                    if len(content) > MAX_ANSWER_BYTES:
                        break
        except (HTTPError, OSError) as error:
            fault = error
        return Answer(
            function=function,
            status=status,
            body=bytes(content),
            retry_after=headers.get("Retry-After"),
            fault=fault,
            server=server_name(headers),
        )


def require_debug_allowed(connection: ShopConnection) -> None:
    """
    Check that the connection allows ``debug``, which the API forbids in production.

    :raises PermanentError: if it does not.
    """
    if not connection.allow_debug:
        raise PermanentError(
            "debug is for development only, and the Airflow connection does not allow it; switch on its Allow debug "
            "calls (allow_debug), or leave debug out."
        )


def log_api_message(answer: Answer) -> None:
    """Log the API's own error message, which may quote a customer; only for calls with ``debug``."""
    message = (answer.document() or {}).get("message")
    if message:
        log.warning("Bubblehouse explains the error of %s: %s", answer.function, message)
