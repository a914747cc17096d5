"""
The sandbox as an ASGI application: calls, with the faults ordered for them, and beside them the start page and control.

Calls are handled before Starlette, because a reset or a cut needs the connection itself, which Starlette hides.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

import msgspec
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request as HttpRequest
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from airflow_provider_bubblehouse import __version__
from airflow_provider_bubblehouse.sandbox.api import (
    Api,
    Reply,
    Request,
    error_document,
    read_json,
    read_path,
)
from airflow_provider_bubblehouse.sandbox.faults import BODILESS, Fault, parse_fault
from airflow_provider_bubblehouse.sandbox.page import render

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from airflow_provider_bubblehouse.sandbox.auth import ShopKey
    from airflow_provider_bubblehouse.sandbox.calls import CallLog
    from airflow_provider_bubblehouse.sandbox.faults import FaultPlan
    from airflow_provider_bubblehouse.sandbox.store import Store

_NORMAL = parse_fault("ok")
_FAULT_MESSAGE = "This answer was ordered from the sandbox"
# Guess: any other 4xx has an id that only the sandbox uses.
_ERROR_IDS = {401: "invalid_token", 429: "rate_limit_exceeded"}
_CUSTOMERS_SHOWN = 500  # what a browser shows at once without effort
_ERRORS_SHOWN = 20
_SECURITY_HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}


class SandboxApp:
    """
    The ASGI application; needs uvicorn's h11 protocol.

    :param key: the key of the shop.
    :param store: where customers go.
    :param calls: where calls are remembered.
    :param faults: the faults to come.
    """

    def __init__(self, *, key: ShopKey, store: Store, calls: CallLog, faults: FaultPlan) -> None:
        self._api = Api(key, store, calls)
        self._calls = calls
        self._faults = faults
        self._pages = pages(key.shop, store, calls, faults)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith("/api/"):
            await self._call(scope, receive, send)
        else:
            await self._pages(scope, receive, send)

    async def _call(self, scope: Scope, receive: Receive, send: Send) -> None:
        http = HttpRequest(scope, receive)
        version, shop, function = read_path(scope["path"])
        ordered = self._faults.take(function)
        number = self._calls.arrive(
            method=http.method,
            version=version,
            shop=shop,
            function=function,
            headers=dict(http.headers),
            fault=ordered.spelling if ordered else None,
        )
        try:
            body = await http.body()
        except ClientDisconnect:
            self._calls.answer(number, "gone")
            return
        payload = read_json(body)
        self._calls.read(number, body, payload)
        request = Request(
            number=number,
            method=http.method,
            version=version,
            shop=shop,
            function=function,
            authorization=http.headers.get("authorization"),
            payload=payload,
        )
        fault = ordered or _NORMAL
        # Nothing is awaited between the whole body and this, so calls are carried out in the order in which they came.
        reply = self._api.answer(request) if fault.processed else None
        if fault.delay and await _client_leaves_within(fault.delay, receive):
            self._calls.answer(number, "gone")
        elif fault.kind == "reset":
            self._calls.answer(number, "reset")
            await _reset(receive, send)
        else:
            await self._respond(number, fault, reply, scope, receive, send)

    async def _respond(
        self, number: int, fault: Fault, reply: Reply | None, scope: Scope, receive: Receive, send: Send
    ) -> None:
        response = reply_response(reply) if fault.kind == "ok" and reply else fault_response(fault)
        if fault.retry_after is not None:
            response.headers["Retry-After"] = fault.retry_after
        if fault.kind == "cut":
            self._calls.answer(number, "cut")
            await _cut(response, receive, send)
        else:
            self._calls.answer(number, response.status_code)
            await response(scope, receive, send)


def reply_response(reply: Reply) -> Response:
    """Return the response of an answer of the API."""
    headers = {"Allow": "POST"} if reply.status == HTTPStatus.METHOD_NOT_ALLOWED else None
    return _json(reply.document, reply.status, headers)


def fault_response(fault: Fault) -> Response:
    """Return the response of a fault; of ``cut`` the one that is cut."""
    match fault.kind:
        case "html":
            return HTMLResponse(_html(fault.status), fault.status)
        case "json":
            return Response(fault.body, media_type="application/json")
        case "empty":
            return Response(status_code=fault.status)
        case "redirect":
            return Response(status_code=fault.status, headers={"Location": "/api/v20230601/redirected/Redirected1"})
    if fault.status in BODILESS:
        return Response(status_code=fault.status)
    if fault.error_id is not None or 400 <= fault.status < 500:
        error_id = fault.error_id or _ERROR_IDS.get(fault.status, "sandbox_fault")
        message = _FAULT_MESSAGE if fault.message is None else fault.message
        return _json(error_document(error_id, message), fault.status)
    if fault.status >= 500:
        return HTMLResponse(_html(fault.status), fault.status)
    if fault.status >= 300:
        return Response(status_code=fault.status)
    return _json({"ok": True}, fault.status)


def pages(shop: str, store: Store, calls: CallLog, faults: FaultPlan) -> Starlette:
    """
    Return the start page and the control endpoints.

    :param shop: the shop slug.
    :param store: where customers are.
    :param calls: where calls are remembered.
    :param faults: the faults to come.
    """
    pages = _Pages(shop, store, calls, faults)
    return Starlette(
        routes=[
            Route("/", pages.start),
            Route("/sandbox/health", pages.health),
            Route("/sandbox/calls", pages.list_calls),
            Route("/sandbox/customers", pages.list_customers),
            Route("/sandbox/faults", pages.order_faults, methods=["POST"]),
            Route("/sandbox/reset", pages.reset, methods=["POST"]),
        ],
        # A web page elsewhere could otherwise read customers through a name of its own that leads to this machine.
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])],
    )


class _Pages:
    def __init__(self, shop: str, store: Store, calls: CallLog, faults: FaultPlan) -> None:
        self._shop, self._store, self._calls, self._faults = shop, store, calls, faults

    def start(self, _: HttpRequest) -> Response:
        html = render(
            shop=self._shop,
            calls=len(self._calls.all()),
            counts=self._store.counts(),
            customers=self._store.newest(_CUSTOMERS_SHOWN),
            errors=self._store.processing_errors(_ERRORS_SHOWN),
        )
        return HTMLResponse(html, headers=_SECURITY_HEADERS)

    def health(self, _: HttpRequest) -> Response:
        return _json({"ok": True, "version": __version__})

    def list_calls(self, _: HttpRequest) -> Response:
        return _json(self._calls.all())

    def list_customers(self, _: HttpRequest) -> Response:
        return _json([customer.fields for customer in self._store.customers()])

    async def order_faults(self, http: HttpRequest) -> Response:
        try:
            order = msgspec.json.decode(await http.body(), type=FaultOrder)
            self._faults.order(script=order.script, rates=order.rates, seed=order.seed)
        except (ValueError, msgspec.MsgspecError) as error:
            return _json({"message": str(error)}, 400)
        return _json({"ok": True})

    def reset(self, _: HttpRequest) -> Response:
        for part in (self._faults, self._store, self._calls):
            part.clear()
        return _json({"ok": True})


class FaultOrder(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of ``POST /sandbox/faults``: faults to append to the script, and rates that replace the ones before."""

    script: list[str] = []
    rates: dict[str, float] | None = None
    seed: int | None = None


async def _client_leaves_within(seconds: float, receive: Receive) -> bool:
    try:
        async with asyncio.timeout(seconds):
            while (await receive())["type"] != "http.disconnect":
                pass
    except TimeoutError:
        return False
    return True


async def _reset(receive: Receive, send: Send) -> None:
    transport = _transport(send)
    connection: socket.socket = transport.get_extra_info("socket")
    # Closing a socket that does not linger sends RST in place of FIN.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
    await _disconnected(receive)


async def _cut(response: Response, receive: Receive, send: Send) -> None:
    body = bytes(response.body)
    response.headers["Content-Length"] = str(len(body) + 1)  # more than is sent, of an empty body too
    await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
    await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
    _transport(send).close()
    await _disconnected(receive)


async def _disconnected(receive: Receive) -> None:
    """Wait until uvicorn knows that the connection is gone, as it would else answer 500 for what was not answered."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _transport(send: Send) -> asyncio.Transport:
    """Return the connection: uvicorn's ``send`` is a method of an object that has it."""
    return cast("asyncio.Transport", cast("Any", send).__self__.transport)


def _html(status: int) -> str:
    title = f"{status} {HTTPStatus(status).phrase}" if status in list(HTTPStatus) else str(status)
    return f"<html>\r\n<head><title>{title}</title></head>\r\n<body><h1>{title}</h1></body>\r\n</html>\r\n"


def _json(document: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(document), status, headers, media_type="application/json")
