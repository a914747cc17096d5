"""
Faults on order. A fault is written as one word, then modifiers after commas; it applies to one call.

``ok``                    a normal answer
``503``                   that status; a 4xx comes with the API's JSON error, any other with a short text
``429:rate_limit_exceeded``  that status with this error id
``html``, ``html=413``    an HTML page, as a proxy sends it; status 200 unless given
``json={"ok": false}``    status 200 with this body (takes no modifiers)
``empty``                 status 200 without a body
``redirect``              status 302 to another path of the sandbox
``cut``, ``cut=400``      an answer whose body is cut off before its end
``reset``                 the connection is reset before any answer

Modifiers: ``delay=0.5`` (seconds before the answer; on its own it delays a normal one), ``retry_after=7`` (the header's
text), ``processed`` (the rows are processed before the fault; a 400 or 422 of the API's own always does), ``message=…``
(the error's message).
"""

from __future__ import annotations

import json
import random
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_HTML = b"<!DOCTYPE html><html><head><title>Error</title></head><body><h1>Something is wrong</h1></body></html>"


class UnknownFaultError(ValueError):
    """A fault that is not written as this module's documentation says."""


@dataclass(frozen=True, slots=True)
class Fault:
    """
    What one call meets instead of a normal answer.

    :param text: the fault as it was ordered.
    :param end: ``answer``, ``cut`` or ``reset``.
    :param status: the status to answer with; None for a normal answer.
    :param body: the body to answer with.
    :param content_type: the body's type.
    :param delay: seconds to wait before the end.
    :param retry_after: the ``Retry-After`` header.
    :param processed: whether the rows are processed all the same.
    """

    text: str
    end: str = "answer"
    status: int | None = None
    body: bytes = b""
    content_type: str = "text/plain"
    delay: float = 0.0
    retry_after: str | None = None
    processed: bool = False

    @classmethod
    def parse(cls, text: str) -> Fault:
        """
        Read a fault.

        :param text: as the documentation of this module says.
        :raises UnknownFaultError: if it cannot be read.
        """
        if text.startswith("json="):
            return cls(text, status=200, body=text.removeprefix("json=").encode(), content_type="application/json")
        word, *modifiers = text.split(",")
        if word.startswith("delay="):
            word, modifiers = "ok", [word, *modifiers]
        given = dict(modifier.partition("=")[::2] for modifier in modifiers)
        kind, _, argument = word.partition("=" if "=" in word else ":")
        try:
            delay = float(given.pop("delay", 0))
            retry_after, message = given.pop("retry_after", None), given.pop("message", None)
            processed = given.pop("processed", None) is not None
            if given:
                raise ValueError
            status, body, content_type, end = _answer(kind, argument, message)
        except ValueError:
            raise UnknownFaultError(f"Unknown fault: {text}") from None
        refused = status in (400, 422) and end == "answer" and content_type == "application/json"
        processed = processed or (refused and b"_global_api_version" not in body)
        return cls(text, end, status, body, content_type, delay, retry_after, processed)


def _answer(kind: str, argument: str, message: str | None) -> tuple[int | None, bytes, str, str]:
    """Return status, body, its type, and how the answer ends."""
    if kind == "ok":
        return None, b"", "text/plain", "answer"
    if kind == "reset":
        return None, b"", "text/plain", "reset"
    if kind == "cut":
        return int(argument or 200), b'{"ok": tr', "application/json", "cut"
    if kind == "html":
        return int(argument or 200), _HTML, "text/html", "answer"
    if kind == "empty":
        return 200, b"", "application/json", "answer"
    if kind == "redirect":
        return 302, b"", "text/plain", "answer"
    status = int(kind)
    if not 200 <= status <= 599:
        raise ValueError
    if 400 <= status < 500:
        error = {"id": argument or "sandbox_fault"} | ({"message": message} if message is not None else {})
        return status, json.dumps(error).encode(), "application/json", "answer"
    return status, b"" if status in (204, 304) else b"A fault on order.", "text/plain", "answer"


class Faults:
    """
    The faults that are still to come: a script, one a call, and then rates.

    :param script: faults in their order.
    :param rates: fault to its probability a call.
    :param seed: makes the rates' choice repeatable.
    """

    def __init__(self, script: Iterable[str] = (), rates: Mapping[str, float] | None = None, seed: int = 0) -> None:
        self._script = deque(map(Fault.parse, script))
        self._rates = [(Fault.parse(text), float(rate)) for text, rate in (rates or {}).items()]
        if any(rate < 0 for _, rate in self._rates) or sum(rate for _, rate in self._rates) > 1:
            raise UnknownFaultError("Rates are probabilities, together 1 at most.")
        self._random = random.Random(seed)  # noqa: S311  chance, not secrecy

    def next(self) -> Fault:
        """Return what the next call meets."""
        if self._script:
            return self._script.popleft()
        drawn = self._random.random()
        for fault, rate in self._rates:
            if drawn < rate:
                return fault
            drawn -= rate
        return Fault("ok")
