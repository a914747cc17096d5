"""The asynchronous client, over httpx, for triggers: the same call and the same classifier as in ``client``."""

from __future__ import annotations

from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

import httpx

from airflow_provider_bubblehouse.api.classifier import Answer, classify, no_call_error, server_name
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
    Return an HTTP client for any number of shops. It stores no cookies: those of one shop would be sent for another.

    :raises PermanentError: if the proxies or certificates of the environment are not usable.
    """
    try:
        return httpx.AsyncClient(
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())), event_hooks={"response": [_forget_location]}
        )
    except (ValueError, TypeError, ImportError, OSError, httpx.InvalidURL) as fault:
        raise no_call_error(fault) from None


async def _forget_location(response: httpx.Response) -> None:
    """Remove the target of a redirect: httpx parses it, and may fail, even if it does not follow redirects."""
    response.headers.pop("Location", None)


class AsyncClient:
    """
    Calls one shop's API; an async context manager.

    :param connection: the API's address and credentials.
    :param http: a shared HTTP client (see ``open_http``), which its owner closes; None creates one.
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
        # Waiting for a shared socket is not an error of the API, so it has no timeout.
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
        Make exactly one POST, as ``client.Client.call`` does.

        :param function: the function with its version, such as ``Status2``.
        :param body: the JSON payload, encoded.
        :return: the JSON object of the answer.
        :raises BubblehouseError: the class says what the answer means.
        """
        answer = await self._send(function, body)
        error = classify(answer)
        if error is not None:
            raise error
        return answer.document() or {}

    async def _send(self, function: str, body: bytes) -> Answer:
        status, headers, content = None, httpx.Headers(), bytearray()
        fault: Exception | None = None
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
                status, headers = response.status_code, response.headers
                async for piece in response.aiter_bytes():
                    content += piece
                    if len(content) > MAX_ANSWER_BYTES:
                        break
        except (httpx.HTTPError, OSError) as error:
            fault = error
        return Answer(
            function=function,
            status=status,
            body=bytes(content),
            retry_after=headers.get("Retry-After"),
            fault=fault,
            server=server_name(headers),
        )
