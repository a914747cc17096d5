"""
The sandbox as an ASGI application: the API's calls, with the ordered faults, the start page and the control endpoints.

Calls do not go through Starlette's routing, because a reset needs the connection itself, which Starlette hides.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from airflow_provider_bubblehouse.sandbox.api import Api, RefusedError, read_json, read_path
from airflow_provider_bubblehouse.sandbox.page import render

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from airflow_provider_bubblehouse.sandbox.calls import Call
    from airflow_provider_bubblehouse.sandbox.server import Sandbox

_SECURITY_HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}


class SandboxApp:
    """
    The ASGI application; needs uvicorn's h11 protocol.

    :param sandbox: the sandbox whose calls it answers.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._api = Api(sandbox.shop, sandbox.store)
        self._pages = _pages(sandbox)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith("/api/"):
            await self._call(scope, receive, send)
        else:
            await self._pages(scope, receive, send)

    async def _call(self, scope: Scope, receive: Receive, send: Send) -> None:
        http = Request(scope, receive)
        version, shop, function = read_path(scope["path"])
        fault = self._sandbox.faults.take(function)
        call = self._sandbox.record(
            method=http.method,
            version=version,
            shop=shop,
            function=function,
            headers={name: value for name, value in http.headers.items() if name != "authorization"},
            authorized="authorization" in http.headers,
            fault=fault.spelling,
        )
        try:
            body = await http.body()
        except ClientDisconnect:
            call.status = "gone"
            return
        # Nothing is awaited between the whole body and the answer, so calls are carried out in order of arrival.
        payload = self._read(call, body)
        normal = self._answer(call, payload, http.headers.get("authorization")) if fault.processed else None
        response = fault.response or normal or Response()
        if fault.delay and await _client_leaves_within(fault.delay, receive):
            call.status = "gone"
            return
        if fault.response is not None:
            call.error = ""
        call.status = getattr(response, "label", response.status_code)
        await response(scope, receive, send)

    def _read(self, call: Call, body: bytes) -> object:
        payload = read_json(body)
        fields = payload if isinstance(payload, dict) else {}
        rows = fields.get("customers")
        call.debug = fields.get("debug") is True
        if isinstance(rows, list):
            call.rows = len(rows)
            call.customers = rows if self._sandbox.keep_bodies else []
        return payload

    def _answer(self, call: Call, payload: object, authorization: str | None) -> Response:
        try:
            return _json(self._api.answer(call, payload, authorization))
        except RefusedError as refused:
            call.error = str(refused)
            return _json(refused.document, refused.status)


def _pages(sandbox: Sandbox) -> Starlette:
    """Return the start page and the control endpoints."""
    pages = _Pages(sandbox)
    return Starlette(
        routes=[
            Route("/", pages.start),
            Route("/sandbox/calls", pages.list_calls),
            Route("/sandbox/customers", pages.list_customers),
            Route("/sandbox/faults", pages.order_faults, methods=["POST"]),
            Route("/sandbox/reset", pages.reset, methods=["POST"]),
        ],
        # Otherwise a web page elsewhere could read customers through a host name of its own that resolves to 127.0.0.1.
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])],
    )


class _Pages:
    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    async def start(self, _: Request) -> Response:
        return HTMLResponse(render(self._sandbox), headers=_SECURITY_HEADERS)

    async def list_calls(self, _: Request) -> Response:
        return _json(self._sandbox.calls)

    async def list_customers(self, _: Request) -> Response:
        return _json(self._sandbox.customers())

    async def order_faults(self, http: Request) -> Response:
        try:
            order = msgspec.json.decode(await http.body(), type=FaultOrder)
            self._sandbox.faults.order(script=order.script, rates=order.rates, seed=order.seed)
        except (ValueError, msgspec.MsgspecError) as error:
            return _json({"message": str(error)}, 400)
        return _json({"ok": True})

    async def reset(self, _: Request) -> Response:
        self._sandbox.clear()
        return _json({"ok": True})


class FaultOrder(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of ``POST /sandbox/faults``: faults to append to the script, and rates that replace the previous."""

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


def _json(document: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(document), status, media_type="application/json")
