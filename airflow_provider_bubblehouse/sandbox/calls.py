"""What the sandbox remembers of each call."""

from __future__ import annotations

import dataclasses
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Status = int | Literal["reset", "cut", "gone"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """
    One call, remembered from the moment its head arrived.

    :param number: counts the calls since the sandbox started, from 1.
    :param arrived_at: when the head arrived.
    :param method: the HTTP method.
    :param version: the global version in the URL.
    :param shop: the shop slug in the URL.
    :param function: the function in the URL, such as ``UpdateCustomers3``.
    :param headers: the headers by lower-case name, all but ``authorization``.
    :param authorized: whether there was an ``authorization``, good or bad.
    :param fault: the fault that the call got, as it was ordered; None for none.
    :param status: the HTTP status answered; ``reset``; ``cut``; ``gone`` where the client went away before an answer;
        None while the call is under way.
    :param body_bytes: the length of the body.
    :param rows: how many ``customers`` the body has.
    :param identities: of each, the ``id``, else the lower-case email, else nothing.
    :param customers: the ``customers`` as they came; empty where the sandbox does not keep bodies.
    :param debug: whether the body asks for ``debug``.
    :param processed: whether the rows were taken for processing.
    """

    number: int
    arrived_at: datetime
    method: str
    version: str
    shop: str
    function: str
    headers: dict[str, str]
    authorized: bool
    fault: str | None
    status: Status | None = None
    body_bytes: int = 0
    rows: int = 0
    identities: tuple[str, ...] = ()
    customers: list[Any] = dataclasses.field(default_factory=list)
    debug: bool = False
    processed: bool = False

    @property
    def user_agent(self) -> str:
        """What made the call, in its own words."""
        return self.headers.get("user-agent", "")


class CallLog:
    """
    All calls. For use by several threads.

    :param keep_bodies: whether to keep ``customers`` of each call.
    """

    def __init__(self, *, keep_bodies: bool) -> None:
        self._keep_bodies = keep_bodies
        self._lock = threading.Lock()
        self._count = 0
        self._calls: dict[int, Call] = {}

    def arrive(
        self, *, method: str, version: str, shop: str, function: str, headers: Mapping[str, str], fault: str | None
    ) -> int:
        """Remember that a call's head arrived, and return the call's number."""
        kept = {name: value for name, value in headers.items() if name != "authorization"}
        with self._lock:
            self._count += 1
            self._calls[self._count] = Call(
                number=self._count,
                arrived_at=datetime.now(UTC),
                method=method,
                version=version,
                shop=shop,
                function=function,
                headers=kept,
                authorized="authorization" in headers,
                fault=fault,
            )
            return self._count

    def read(self, number: int, body: bytes, payload: object) -> None:
        """Remember what a call's body holds."""
        fields = payload if isinstance(payload, dict) else {}
        given = fields.get("customers")
        customers = given if isinstance(given, list) else []
        self._change(
            number,
            body_bytes=len(body),
            rows=len(customers),
            identities=tuple(map(_identity, customers)),
            customers=customers if self._keep_bodies else [],
            debug=fields.get("debug") is True,
        )

    def process(self, number: int) -> None:
        """Remember that a call's rows were taken for processing."""
        self._change(number, processed=True)

    def answer(self, number: int, status: Status) -> None:
        """Remember what a call was answered."""
        self._change(number, status=status)

    def all(self) -> list[Call]:
        """Return the calls, oldest first."""
        with self._lock:
            return list(self._calls.values())

    def clear(self) -> None:
        """Forget all calls; numbers go on."""
        with self._lock:
            self._calls.clear()

    def _change(self, number: int, **changes: Any) -> None:
        with self._lock:
            call = self._calls.get(number)
            if call is not None:  # it is None where the log was cleared meanwhile
                self._calls[number] = dataclasses.replace(call, **changes)


def _identity(customer: object) -> str:
    if not isinstance(customer, dict):
        return ""
    identifier, email = customer.get("id"), customer.get("email")
    return str(identifier or "") or str(email or "").lower()
