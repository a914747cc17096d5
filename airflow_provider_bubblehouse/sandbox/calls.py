"""What the sandbox records of each call."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any


@dataclass(slots=True, kw_only=True)
class Call:
    """
    One call, recorded as soon as its headers have arrived.

    :param number: counts the calls since the sandbox started, from 1.
    :param method: the HTTP method.
    :param version: the API version in the URL; empty, like ``shop`` and ``function``, if the URL is not that of a call.
    :param shop: the shop slug in the URL.
    :param function: the function in the URL, such as ``UpdateCustomers3``.
    :param headers: the headers by lower-case name, without ``authorization``.
    :param authorized: whether the call had an ``authorization`` header, valid or not.
    :param fault: the fault that was ordered for this call; None for none.
    :param arrived_at: when the headers arrived.
    :param status: the HTTP status of the answer; ``reset`` for a reset connection; ``gone`` if the client closed the
        connection before the answer; None while the call is in progress.
    :param error: error id and message of the answer; empty for a successful call or an ordered fault.
    :param rows: how many ``customers`` the body has.
    :param customers: the ``customers`` of the body; empty if the sandbox does not keep bodies.
    :param debug: whether the body asks for ``debug``.
    :param processed: whether the rows were accepted for processing.
    """

    number: int
    method: str
    version: str
    shop: str
    function: str
    headers: dict[str, str]
    authorized: bool
    fault: str | None = None
    arrived_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    status: int | str | None = None
    error: str = ""
    rows: int = 0
    customers: list[Any] = field(default_factory=list)
    debug: bool = False
    processed: bool = False

    @property
    def refused(self) -> bool:
        """Whether the call had any other answer than success."""
        return self.status is not None and not (isinstance(self.status, int) and self.status < 400)
