"""One call to the API over requests, for workers. It never sends anything twice: attempts are the push's matter."""

from __future__ import annotations

import logging
import socket
from contextlib import suppress
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.exceptions import HTTPError

from airflow_provider_bubblehouse.api.connection import (
    CONNECT_TIMEOUT,
    HEADERS,
    MAX_ANSWER_BYTES,
    ShopConnection,
)
from airflow_provider_bubblehouse.exceptions import Answer, BubblehousePermanentError, classify

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from airflow_provider_bubblehouse.api.tokens import Tokens

log = logging.getLogger(__name__)


class BearerAuth(AuthBase):
    """
    Sets the token as requests' own kind of authentication.

    In a headers dict it would be replaced where a ``.netrc`` names the host, and would show in whatever prints headers.
    """

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._tokens.current()}"
        return request


class _Adapter(HTTPAdapter):
    """An adapter for one server that can cut off the call that is under way, which closing it does not do."""

    def __init__(self) -> None:
        self._connections: list[Any] = []
        self._pool: Any = None
        super().__init__(pool_connections=1, pool_maxsize=1)

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        if self._pool is None:  # to look it up takes a tenth of a call's time, for it is looked up by all there is
            self._pool = super().get_connection_with_tls_context(*args, **kwargs)
            self._pool.ConnectionCls = partial(self._connect, type(self._pool).ConnectionCls)
        return self._pool

    def _connect(self, kind: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        connection = kind(*args, **kwargs)
        self._connections = [connection]  # a client makes one call at a time, so the newest is the one in use
        return connection

    def close(self) -> None:
        self._pool = None
        super().close()

    def abort(self) -> None:
        for connection in self._connections:
            # TLS inside a proxy's TLS has the socket below it.
            sock = getattr(connection.sock, "socket", connection.sock)
            if sock is not None:
                with suppress(OSError):  # it is closed already
                    # Below TLS, whose own shutdown would wait for the other side.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)


class Client:
    """
    Calls one shop's API over one HTTP connection; a context manager. Not for use by two threads at once.

    :param connection: where the API is and how to be let in.
    """

    def __init__(self, connection: ShopConnection) -> None:
        self._connection = connection
        self._adapter = _Adapter()
        self._auth = BearerAuth(connection.tokens)
        self._requests: dict[str, requests.PreparedRequest] = {}

    def _request(self, function: str, body: bytes) -> requests.PreparedRequest:
        """Return the request of a call; of a function it is prepared once, which takes as long as to send it."""
        request = self._requests.get(function)
        if request is None:
            request = requests.Request("POST", self._connection.url(function), headers=HEADERS).prepare()
            self._requests[function] = request
        request.prepare_body(body, files=None)
        request.prepare_auth(self._auth)
        return request

    @cached_property
    def _settings(self) -> Mapping[str, Any]:
        """Proxies and certificates as the environment names them; to look them up takes as long as a small call."""
        return requests.Session().merge_environment_settings(self._connection.base_url, {}, True, True, None)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the idle socket."""
        self._adapter.close()

    def abort(self) -> None:
        """Cut off the call that another thread has under way; it then ends with a transient error."""
        self._adapter.abort()

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
        try:
            # By the adapter: a session would add what a call here must not have, as redirects and cookies.
            with self._adapter.send(
                self._request(function, body),
                timeout=(CONNECT_TIMEOUT, self._connection.read_timeout),
                **self._settings,  # with stream=True, so that the status is known even where the body is cut off
            ) as response:
                status, retry_after = response.status_code, response.headers.get("Retry-After")
                for piece in response.iter_content(64 * 1024):
                    content += piece
                    if len(content) > MAX_ANSWER_BYTES:
                        break
        except (requests.RequestException, HTTPError, OSError) as fault:
            if isinstance(fault, ValueError):  # requests' mark of an address that cannot be called at all
                raise BubblehousePermanentError(
                    f"No call can be made ({type(fault).__name__}); check the Host of the Airflow connection and the "
                    "proxy settings of the worker."
                ) from None
            return Answer(function=function, status=status, body=bytes(content), retry_after=retry_after, fault=fault)
        return Answer(function=function, status=status, body=bytes(content), retry_after=retry_after)


def require_debug_allowed(connection: ShopConnection) -> None:
    """
    Refuse ``debug`` where the connection does not allow it: the API wants it never used in production.

    :raises BubblehousePermanentError: if the connection has no ``allow_debug``.
    """
    if not connection.allow_debug:
        raise BubblehousePermanentError(
            "debug is for development only and this Airflow connection does not allow it; set its allow_debug, "
            "or leave debug out."
        )


def log_api_message(answer: Answer) -> None:
    """Log the API's own words, which may quote a customer: for calls with ``debug`` only."""
    message = (answer.document() or {}).get("message")
    if message:
        log.warning("Bubblehouse says of %s: %s", answer.function, message)
