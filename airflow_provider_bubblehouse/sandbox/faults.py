"""
Faults to order: one spelling, used by the command line, the control endpoint and Python alike.

A fault is ``ANSWER[,MODIFIER...]``. Its answer is one of

``ok``
    the normal answer
``STATUS`` or ``STATUS:ERROR_ID``
    that status, such as ``503``, ``400:invalid_global_api_version`` or ``202``. A 4xx, and any status with an error id,
    has the API's JSON error as its body; a 5xx a load balancer's page; 2xx ``{"ok": true}``; 3xx no body
``html``, ``empty``, ``cut`` or ``redirect``, each also with ``=STATUS``
    an HTML page, an empty body, a body shorter than its Content-Length (all 200), a Location elsewhere (302)
``json=TEXT``
    200 with that text as the body, such as ``json={"ok": false}``
``reset``
    no answer: the connection is reset

and a modifier is one of

``processed``
    the call is carried out before the fault is answered. So it is anyway with ``ok`` and, as the API processes every
    row of a call that it refuses, with 400 and 422; not with ``*_global_api_version``, nor with any other fault
``delay=SECONDS``
    the answer waits that long, or until the client goes away; what is carried out is so before the wait
``retry_after=VALUE``
    the header Retry-After: seconds or an HTTP date
``message=TEXT``
    the message of the JSON error
``for=FUNCTION``
    only a call of that function takes the fault, such as ``CustomerDetails1``

A modifier alone, such as ``delay=60``, modifies ``ok``. A comma separates only where a modifier follows.
"""

from __future__ import annotations

import math
import random
import re
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Kind = Literal["ok", "status", "html", "empty", "cut", "redirect", "json", "reset"]

BODILESS = (204, 304)  # statuses that HTTP gives no body
_DEFAULT_STATUS = {"redirect": 302}
_PROCESSED_REFUSALS = (400, 422)
_SEPARATOR = re.compile(r",\s*(?=processed\s*(?:,|$)|(?:delay|retry_after|message|for)=)")
_MODIFIER = re.compile(r"processed$|(?:delay|retry_after|message|for)=")
_ANSWER = re.compile(r"(?P<status>\d{3})(?::(?P<error_id>[\w.-]+))?|(?P<kind>[a-z]+)(?:=(?P<value>.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """
    What one call is answered instead of the normal answer.

    :param spelling: the fault as it was ordered.
    :param kind: what sort of answer it is.
    :param status: its HTTP status.
    :param error_id: the ``id`` of the JSON error, None for none.
    :param message: the ``message`` of the JSON error, None for the sandbox's own.
    :param body: the body, of ``json`` only.
    :param processed: whether the call is carried out before the fault is answered.
    :param delay: seconds to wait before the answer.
    :param retry_after: the header ``Retry-After``, None for none.
    :param function: the only function that takes the fault, None for any.
    """

    spelling: str
    kind: Kind
    status: int = 200
    error_id: str | None = None
    message: str | None = None
    body: str = ""
    processed: bool = False
    delay: float = 0.0
    retry_after: str | None = None
    function: str | None = None


def parse_fault(spelling: str) -> Fault:
    """
    Read a fault.

    :param spelling: as the module's text describes it.
    :raises ValueError: if it is not spelled so.
    """
    answer, *modifiers = _SEPARATOR.split(spelling.strip())
    if _MODIFIER.match(answer):
        answer, modifiers = "ok", [answer, *modifiers]
    fields = _read_answer(answer, spelling)
    for modifier in modifiers:
        name, _, value = modifier.strip().partition("=")
        fields |= _read_modifier(name, value, spelling)
    return Fault(spelling=spelling, **fields)


def _read_answer(answer: str, spelling: str) -> dict[str, Any]:
    match = _ANSWER.fullmatch(answer.strip())
    if match is None:
        raise _misspelled(spelling)
    if match["status"]:
        status, error_id = _status(match["status"], spelling), match["error_id"]
        if error_id and status in BODILESS:
            raise ValueError(f"A {status} has no body, so no error id: {spelling!r}.")
        return {"kind": "status", "status": status, "error_id": error_id, "processed": _processes(status, error_id)}
    kind, value = match["kind"], match["value"]
    if kind not in get_args(Kind) or kind == "status" or (value is not None and kind in ("ok", "reset")):
        raise _misspelled(spelling)
    if kind == "json":
        if value is None:
            raise ValueError(f"json needs the text of the body, such as json={{}}: {spelling!r}.")
        return {"kind": kind, "body": value}
    status = _status(value, spelling) if value is not None else _DEFAULT_STATUS.get(kind, 200)
    if status in BODILESS and kind in ("html", "cut"):
        raise ValueError(f"A {status} has no body: {spelling!r}.")
    return {"kind": kind, "status": status, "processed": kind == "ok"}


def _processes(status: int, error_id: str | None) -> bool:
    return status in _PROCESSED_REFUSALS and not (error_id or "").endswith("_global_api_version")


def _read_modifier(name: str, value: str, spelling: str) -> dict[str, Any]:
    match name:
        case "processed":
            return {"processed": True}
        case "delay":
            return {"delay": _seconds(value, spelling)}
        case "retry_after" if not (value.isascii() and value.isprintable()):
            raise ValueError(f"retry_after is seconds or an HTTP date: {spelling!r}.")
        case "for":
            return {"function": value}
        case _:
            return {name: value}


def _status(text: str, spelling: str) -> int:
    if not re.fullmatch(r"[2-5]\d\d", text, re.ASCII):
        raise ValueError(f"The status of an answer is a number from 200 to 599: {spelling!r}.")
    return int(text)


def _seconds(text: str, spelling: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError(f"delay is a number of seconds: {spelling!r}.")
    return seconds


def _misspelled(spelling: str) -> ValueError:
    return ValueError(
        f"There is no fault {spelling!r}; write ok, a status such as 503 or 429:rate_limit_exceeded, html, empty, cut, "
        "redirect, json=TEXT or reset."
    )


class FaultPlan:
    """
    The faults that are to come: first those of the script, in order, then those that chance gives by the rates.

    For use by several threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Order nothing more."""
        with self._lock:
            self._script: list[Fault] = []
            self._rates: list[tuple[Fault, float]] = []
            self._random = random.Random()  # noqa: S311 (chance, not a secret)

    def order(
        self, *, script: Iterable[str] = (), rates: Mapping[str, float] | None = None, seed: int | None = None
    ) -> None:
        """
        Order faults; all of them, or none where one cannot be.

        :param script: faults to append to the script; each is taken by one call.
        :param rates: the probability of each fault for each call that takes none from the script. They replace those
            ordered before; None leaves them.
        :param seed: makes the chance of these rates repeatable.
        :raises ValueError: if a fault is misspelled, or the probabilities cannot be.
        """
        coming = [parse_fault(spelling) for spelling in script]
        chances = [(parse_fault(spelling), float(rate)) for spelling, rate in (rates or {}).items()]
        if not all(0 <= rate <= 1 for _, rate in chances) or math.fsum(rate for _, rate in chances) > 1:
            raise ValueError("Rates are probabilities from 0 to 1, and together no more than 1.")
        with self._lock:
            self._script += coming
            if rates is not None:
                self._rates = chances
                self._random = random.Random(seed)  # noqa: S311 (chance, not a secret)

    def take(self, function: str) -> Fault | None:
        """Return the fault that a call of a function gets, None for none."""
        with self._lock:
            for position, fault in enumerate(self._script):
                if fault.function in (None, function):
                    return self._script.pop(position)
            left = self._random.random() if self._rates else 1.0
            for fault, rate in self._rates:
                if fault.function in (None, function):
                    if left < rate:
                        return fault
                    left -= rate
        return None
