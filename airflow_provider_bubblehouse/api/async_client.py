"""The client's twin over httpx, for triggers: the same call, the same classifier, without blocking the event loop."""

from __future__ import annotations

from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

import httpx

from airflow_provider_bubblehouse.api.classifier import Answer, classify, no_call_error
from airflow_provider_bubblehouse.api.connection import CONNECT_TIMEOUT, HEADERS, MAX_ANSWER_BYTES, ShopConnection

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from types import TracebackType


class BearerAuth(httpx.Auth):
    """
    Sets the token on each request.

    :param token: returns the current token.
    """

    def __init__(self, token: Callable[[], Awaitable[str]]) -> None:
        self._token = token

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        request.headers["Authorization"] = f"Bearer {await self._token()}"
        yield request


def open_http() -> httpx.AsyncClient:
    """
    Return what makes calls, for any number of shops: it keeps no cookie, which one would set for another.

    :raises PermanentError: if the environment's proxies or certificates are none.
    """
    try:
        return httpx.AsyncClient(
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())), event_hooks={"response": [_forget_location]}
        )
    except (ValueError, TypeError, ImportError, OSError, httpx.InvalidURL) as fault:
        raise no_call_error(fault) from None


async def _forget_location(response: httpx.Response) -> None:
    """Have httpx not look where a redirect would lead, which it does of one that it does not follow, too."""
    response.headers.pop("Location", None)


class AsyncClient:
    """
    Calls one shop's API; an async context manager.

    :param connection: where the API is and how to be let in.
    :param http: what makes the calls (see ``open_http``), shared with others and theirs to close; None for one of its
        own.
    :param token: returns the current token; None takes it from the connection, which may block to mask a new one.
    """

    def __init__(
        self,
        connection: ShopConnection,
        *,
        http: httpx.AsyncClient | None = None,
        token: Callable[[], Awaitable[str]] | None = None,
    ) -> None:
        self._connection = connection
        self._http = http or open_http()
        self._closes = http is None
        self._auth = BearerAuth(token or self._current_token)
        # Waiting for one of the shared sockets is no fault of the API's, so it has no timeout.
        self._timeout = httpx.Timeout(connection.read_timeout, connect=CONNECT_TIMEOUT, pool=None)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._closes:
            await self._http.aclose()

    async def _current_token(self) -> str:
        return self._connection.tokens.current()

    async def call(self, function: str, body: bytes) -> dict[str, Any]:
        """
        Make exactly one POST; parameters, result and errors as in ``client.Client.call``.

        :param function: the function with its version, such as ``Status2``.
        :param body: the JSON payload, encoded.
        """
        answer = await self._send(function, body)
        error = classify(answer)
        if error is not None:
            raise error
        return answer.document() or {}

    async def _send(self, function: str, body: bytes) -> Answer:
        status, retry_after, content = None, None, bytearray()
        try:
            async with self._http.stream(
                "POST",
                self._connection.url(function),
                content=body,
                headers=HEADERS,
                auth=self._auth,
                timeout=self._timeout,
                follow_redirects=False,
            ) as response:
                status, retry_after = response.status_code, response.headers.get("Retry-After")
                async for piece in response.aiter_bytes():
                    content += piece
                    if len(content) > MAX_ANSWER_BYTES:
                        break
        except (httpx.HTTPError, OSError) as fault:
            return Answer(function=function, status=status, body=bytes(content), retry_after=retry_after, fault=fault)
        return Answer(function=function, status=status, body=bytes(content), retry_after=retry_after)
