"""The API's calls, the sandbox's own control calls, and its start page. What is no fact is marked as a guess."""

from __future__ import annotations

import asyncio
import html
import json
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from airflow_provider_bubblehouse.sandbox.auth import fault_of
from airflow_provider_bubblehouse.sandbox.faults import Fault, Faults, UnknownFaultError
from airflow_provider_bubblehouse.sandbox.store import Store, row_fault

if TYPE_CHECKING:
    from starlette.requests import Request

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_VERSIONS = ("v20230601", "v2023061")  # Guess: both that the API's pages print are taken, and no other.
_PAGE_ROWS = 500


@dataclass(slots=True)
class Call:
    """
    One call that arrived.

    :param at: when, in UTC.
    :param method: the HTTP method.
    :param version: the global version in the URL.
    :param shop: the shop slug in the URL.
    :param function: the function in the URL.
    :param fault: the fault that it met, ``ok`` for none.
    :param bytes: the size of its body.
    :param headers: its headers, without the token.
    :param authorized: whether it brought a token.
    :param status: what it was answered with; None while it was not, and where the connection was ended instead.
    :param rows: how many customers it pushed.
    :param customers: these customers, where the sandbox keeps them.
    :param debug: whether it asked for ``debug``.
    :param processed: whether its rows were taken in.
    """

    at: str
    method: str
    version: str
    shop: str
    function: str
    fault: str
    bytes: int
    headers: dict[str, str]
    authorized: bool
    status: int | None = None
    rows: int = 0
    customers: list[Any] = field(default_factory=list)
    debug: bool = False
    processed: bool = False


class Api:
    """
    The sandbox as an ASGI application.

    :param store: keeps the customers.
    :param shop: the shop slug that it knows.
    :param key_id: the key that it knows.
    :param shared_secret: its secret in base64.
    :param lag: seconds until the rows of a call are processed.
    :param keep_customers: whether each call is logged with its customers.
    """

    def __init__(
        self, store: Store, *, shop: str, key_id: str, shared_secret: str, lag: float, keep_customers: bool
    ) -> None:
        self.store = store
        self.faults = Faults()
        self.calls: list[Call] = []
        self._shop = shop
        self._key_id = key_id
        self._shared_secret = shared_secret
        self._lag = lag
        self._keep_customers = keep_customers
        self._waiting: deque[list[Any]] = deque()
        everything = ["GET", "POST", "PUT", "PATCH", "DELETE"]
        self._app = Starlette(
            routes=[
                Route("/", self._page),
                Route("/sandbox/calls", self._list_calls),
                Route("/sandbox/customers", self._list_customers),
                Route("/sandbox/faults", self._order_faults, methods=["POST"]),
                Route("/sandbox/clear", self._clear, methods=["POST"]),
                Route("/api/{version}/{shop}/{function}", self._call, methods=everything),
            ]
        )

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Send) -> None:
        # To reset a connection takes its socket, which only uvicorn's own send function leads to.
        scope["transport"] = getattr(getattr(send, "__self__", None), "transport", None)
        await self._app(scope, receive, send)

    def clear(self) -> None:
        """Forget customers, calls and faults."""
        self.store.clear()
        self.calls.clear()
        self.faults = Faults()

    async def _call(self, request: Request) -> Response:
        body = await request.body()
        fault = self.faults.next()
        headers = dict(request.headers)
        call = Call(
            at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            method=request.method,
            **request.path_params,
            fault=fault.text,
            bytes=len(body),
            authorized=headers.pop("authorization", None) is not None,
            headers=headers,
        )
        self.calls.append(call)
        payload = _json(body)
        rows = payload.get("customers") if isinstance(payload, dict) else None
        if call.function == "UpdateCustomers3" and isinstance(rows, list):
            call.rows, call.debug = len(rows), payload.get("debug") is True
            call.customers = rows if self._keep_customers else []
        else:
            rows = None
        if fault.delay and await _hangs_up(request, fault.delay):
            return Response()
        if fault.end == "answer" and fault.status is None:
            response = self._answer(request, call, payload, rows)
        else:
            if fault.processed and rows is not None:
                self._process(call, rows)
            response = _faulty(fault)
        if fault.end != "answer":
            await _break_off(request, fault, response)
            return Response()
        call.status = response.status_code
        return response

    def _answer(self, request: Request, call: Call, payload: Any, rows: list[Any] | None) -> Response:
        if request.method != "POST":
            return _error(405, "method_not_allowed")  # Guess: reads may be GET, which nothing here needs.
        if call.version not in _VERSIONS:
            return _error(400, "invalid_global_api_version")
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme or call.function != "Status2":  # Status2 may be asked without a token
            why = fault_of(token, key_id=self._key_id, shared_secret=self._shared_secret, shop=call.shop)
            if why is not None or scheme != "Bearer" or call.shop != self._shop:
                return _error(401, "invalid_token", why)
        if not isinstance(payload, dict):
            return _error(400, "malformed_json")  # Guess: the id is not documented.
        if call.function == "Status2":
            return JSONResponse({})  # Guess: the page has no output section.
        if call.function == "CustomerDetails1":
            identity = payload.get("customer")
            if not isinstance(identity, dict):
                return _error(400, "missing_customer_identity")
            status, document = self.store.details(identity)
            return JSONResponse(document, status)
        if call.function == "UpdateCustomers3":
            if rows is None:
                return _error(400, "missing_customers")  # Guess: the id is not documented.
            self._process(call, rows)
            if call.debug and any(row_fault(row) for row in rows):
                return _error(400, "invalid_customers")  # Guess: status, id, and what counts as a warning.
            return JSONResponse({"ok": True})
        return _error(404, "unknown_function")  # Guess: status and id.

    def _process(self, call: Call, rows: list[Any]) -> None:
        call.processed = True
        if call.debug or not self._lag:
            self.store.process(rows)
        else:
            self._waiting.append(rows)  # in the order of arrival, whatever the timers' order is
            asyncio.get_running_loop().call_later(self._lag, lambda: self.store.process(self._waiting.popleft()))

    async def _list_calls(self, _request: Request) -> Response:
        return JSONResponse([asdict(call) for call in self.calls])

    async def _list_customers(self, _request: Request) -> Response:
        return JSONResponse(self.store.customers())

    async def _order_faults(self, request: Request) -> Response:
        order = await request.json()
        try:
            self.faults = Faults(order.get("script", ()), order.get("rates"), order.get("seed", 0))
        except (UnknownFaultError, AttributeError, TypeError) as error:
            return JSONResponse({"error": str(error)}, 400)
        return JSONResponse({})

    async def _clear(self, _request: Request) -> Response:
        self.clear()
        return JSONResponse({})

    async def _page(self, _request: Request) -> Response:
        customers, errors = self.store.counts()
        rows = "".join(_row(fields, updated_at) for fields, updated_at in self.store.newest(_PAGE_ROWS))
        return HTMLResponse(
            _PAGE.format(customers=customers, calls=len(self.calls), errors=errors, shown=_PAGE_ROWS, rows=rows)
        )


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _error(status: int, error_id: str, message: str | None = None) -> Response:
    return JSONResponse({"id": error_id} | ({"message": message} if message else {}), status)


def _faulty(fault: Fault) -> Response:
    headers = {"Retry-After": fault.retry_after} if fault.retry_after is not None else {}
    if fault.status == 302:
        headers["Location"] = "/"
    return Response(fault.body, fault.status or 200, headers, fault.content_type)


async def _hangs_up(request: Request, seconds: float) -> bool:
    """Wait, and say whether the client was gone before."""
    try:
        await asyncio.wait_for(request.receive(), seconds)
    except TimeoutError:
        return False
    return True


async def _break_off(request: Request, fault: Fault, response: Response) -> None:
    """End the connection, for ``cut`` after a part of the answer, and wait until it is gone."""
    transport = request.scope["transport"]
    if fault.end == "cut":
        transport.write(
            f"HTTP/1.1 {response.status_code} Cut\r\nContent-Type: {fault.content_type}\r\n"
            f"Content-Length: {len(fault.body) + 100}\r\n\r\n".encode()
            + fault.body
        )
        transport.close()
    else:
        # Closing with a linger time of zero sends a TCP reset.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    await request.receive()


def _row(fields: dict[str, Any], updated_at: str) -> str:
    name = fields.get("full_name") or " ".join(filter(None, (fields.get("first_name"), fields.get("last_name"))))
    others = {key: value for key, value in fields.items() if key not in _PAGE_FIELDS}
    cells = (
        fields.get("id"),
        fields.get("email"),
        name,
        json.dumps(others, ensure_ascii=False) if others else "",
        "deleted" if fields.get("deleted") else "",
        updated_at,
    )
    return "<tr>" + "".join(f"<td>{html.escape(str(cell or ''))}</td>" for cell in cells) + "</tr>\n"


_PAGE_FIELDS = ("id", "email", "first_name", "last_name", "full_name", "deleted")
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Bubblehouse sandbox</title><style>
body {{ font: 14px/1.5 system-ui, sans-serif; margin: 2rem; color: #222 }}
table {{ border-collapse: collapse }}
th, td {{ text-align: left; padding: .25rem .75rem; border-bottom: 1px solid #ddd }}
</style></head><body>
<h1>Bubblehouse sandbox</h1>
<p>{customers} customers, {calls} calls, {errors} rows that could not be processed. The {shown} newest customers:</p>
<table><tr><th>id</th><th>email</th><th>name</th><th>other fields</th><th></th><th>updated (UTC)</th></tr>
{rows}</table></body></html>
"""
