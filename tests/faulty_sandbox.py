"""
The sandbox with more faults than a user needs: answers that only our own tests of the contract order.

Beside the faults of the package there are

``2xx``, ``3xx``
    ``{"ok": true}``, or no body
``html``, ``empty``, ``cut`` or ``redirect``, each also with ``=STATUS``
    an HTML page, an empty body, a body shorter than its Content-Length (all 200), a Location elsewhere (302)
``json=TEXT``
    200 with that text as the body, such as ``json={"ok": false}``

and the modifier ``message=TEXT``, the last one, which sets the message of the API's JSON error.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from typing import Any

import jwt
from starlette.responses import HTMLResponse, Response

from airflow_provider_bubblehouse import sandbox
from airflow_provider_bubblehouse.sandbox import faults

BODILESS = (204, 304)  # statuses that HTTP gives no body
_OWN = re.compile(
    r"(?P<answer>[23]\d\d|(?:html|empty|cut|redirect)(?:=\d{3})?|json=.*?)"
    r"(?P<modifiers>(?:,\s*(?:processed|(?:delay|retry_after|for)=[^,]*))*)",
    re.DOTALL,
)


class Cut(Response):
    """An answer whose body ends before its Content-Length."""

    label = "cut"

    async def __call__(self, scope, receive, send) -> None:
        body = bytes(self.body)
        self.headers["Content-Length"] = str(len(body) + 1)  # more than is sent, also for an empty body
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
        faults.transport_of(send).close()
        await faults.disconnected(receive)


def parse_fault(spelling: str) -> faults.Fault:
    """Read a fault, of the package or of the tests."""
    spelling, is_with_message, message = spelling.partition(",message=")
    own = _OWN.fullmatch(spelling)
    if own is None:
        fault = faults.parse_fault(spelling)
    else:
        # Of the package's own fault, only the modifiers are used.
        fault = replace(faults.parse_fault(f"500{own['modifiers']}"), response=_response(own["answer"]))
    if is_with_message:
        document = json.loads(fault.response.body) | {"message": message}
        response = Response(json.dumps(document), fault.response.status_code, media_type="application/json")
        fault = replace(fault, response=response)
    return replace(fault, spelling=f"{spelling}{is_with_message}{message}")


def _response(answer: str) -> Response:
    kind, _, value = answer.partition("=")
    if kind == "json":
        return Response(value, media_type="application/json")
    status = int(kind if kind.isdigit() else value or (302 if kind == "redirect" else 200))
    page = f"<html><body><h1>{status}</h1></body></html>"
    match kind:
        case "html":
            return HTMLResponse(page, status)
        case "empty":
            return Response(status_code=status)
        case "cut":
            return Cut(page, status)
        case "redirect":
            return Response(status_code=status, headers={"Location": "/api/v20230601/redirected/Redirected1"})
    body = '{"ok": true}' if status < 300 and status not in BODILESS else None
    return Response(body, status, media_type="application/json")


class Sandbox(sandbox.Sandbox):
    """The sandbox with the faults above."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.faults = faults.FaultPlan(parse_fault)

    def mint(self, *, kid: str | None = None, **claims: Any) -> str:
        """Return a token with other claims than those of a shop token; a claim that is None is left out."""
        wanted = {"aud": "BH", "sub": self.shop} | claims
        present = {name: value for name, value in wanted.items() if value is not None}
        secret = base64.b64decode(self.shared_secret)
        return jwt.encode(present, secret, algorithm="HS256", headers={"kid": kid or self.key_id})
