"""
Faults: answers that you order instead of the normal one.

A fault is ``ANSWER[,MODIFIER...]``. The answer is one of

``ok``
    the normal answer
``STATUS`` or ``STATUS:ERROR_ID``
    a 4xx or 5xx, such as ``503`` or ``400:invalid_data``. A 4xx, and any status with an error id, has the API's JSON
    error as its body; another 5xx has an HTML page, like that of a load balancer
``reset``
    no answer: the connection is reset

and a modifier is one of

``delay=SECONDS``
    the answer is sent that much later, or not at all if the client closes the connection before
``retry_after=VALUE``
    the answer has this Retry-After header: seconds or an HTTP date
``for=FUNCTION``
    the fault applies to a call of this function only, such as ``CustomerDetails1``
``processed``
    the call is carried out before the fault is answered. With ``ok`` it always is, and with 400 and 422 too, because
    the API processes every row of a call that it rejects; a 400 ``*_global_api_version`` is the exception

``delay=60`` alone means ``ok,delay=60``.
"""

from __future__ import annotations

import math
import random
import re
import socket
import struct
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from starlette.responses import HTMLResponse, JSONResponse, Response

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Mapping

    from starlette.types import Receive, Scope, Send

# Guess: any other 4xx has an id that only the sandbox uses.
_ERROR_IDS = {401: "invalid_token", 429: "rate_limit_exceeded"}
_PROCESSED = (400, 422)
# A comma separates only where a modifier follows: an HTTP date contains one, too.
_SEPARATOR = re.compile(r",\s*(?=processed\s*(?:,|$)|(?:delay|retry_after|for)=)")
_MODIFIER = re.compile(r"processed$|(?:delay|retry_after|for)=")
_STATUS = re.compile(r"(?P<status>[45]\d\d)(?::(?P<error_id>[\w.-]+))?", re.ASCII)


class Reset(Response):
    """Resets the connection instead of answering."""

    label = "reset"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        transport = transport_of(send)
        connection: socket.socket = transport.get_extra_info("socket")
        # Closing a socket without lingering sends RST instead of FIN.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
        await disconnected(receive)


def transport_of(send: Send) -> asyncio.Transport:
    """Return the connection: uvicorn's ``send`` is a method of the object that holds it."""
    return cast("asyncio.Transport", cast("Any", send).__self__.transport)


async def disconnected(receive: Receive) -> None:
    """Wait until uvicorn knows that the connection is closed; it would otherwise log an error and answer 500."""
    while (await receive())["type"] != "http.disconnect":
        pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """
    The answer that was ordered for a call.

    :param spelling: how it was written.
    :param response: the answer; None for the normal one. An attribute ``label`` is recorded instead of its status.
    :param processed: whether the call is carried out before it is answered.
    :param delay: seconds to wait before the answer.
    :param function: the only function that the fault applies to; None for any.
    """

    spelling: str | None = None
    response: Response | None = None
    processed: bool = False
    delay: float = 0.0
    function: str | None = None


NO_FAULT = Fault(processed=True)


def parse_fault(spelling: str) -> Fault:
    """
    Read a fault.

    :param spelling: as described above.
    :raises ValueError: if it is misspelled.
    """
    answer, *modifiers = _SEPARATOR.split(spelling.strip())
    if _MODIFIER.match(answer):
        answer, modifiers = "ok", [answer, *modifiers]
    fields = _read_answer(answer.strip(), spelling)
    for modifier in modifiers:
        name, _, value = modifier.strip().partition("=")
        match name:
            case "processed":
                fields["processed"] = True
            case "delay":
                fields["delay"] = _seconds(value, spelling)
            case "for":
                fields["function"] = value
            case "retry_after":
                _set_retry_after(fields["response"], value, spelling)
    return Fault(spelling=spelling, **fields)


def _read_answer(answer: str, spelling: str) -> dict[str, Any]:
    if answer in ("ok", "reset"):
        return {"response": None if answer == "ok" else Reset(), "processed": answer == "ok"}
    match = _STATUS.fullmatch(answer)
    if match is None:
        raise ValueError(
            f"{spelling!r} is not a fault; write ok, reset, or a 4xx or 5xx status such as 503 or "
            "429:rate_limit_exceeded."
        )
    status, error_id = int(match["status"]), match["error_id"]
    processed = status in _PROCESSED and not (error_id or "").endswith("_global_api_version")
    return {"response": _error_response(status, error_id), "processed": processed}


def _error_response(status: int, error_id: str | None) -> Response:
    if status >= 500 and error_id is None:
        return HTMLResponse(f"<html><body><h1>{status}</h1></body></html>", status)
    error_id = error_id or _ERROR_IDS.get(status, "sandbox_fault")
    return JSONResponse({"id": error_id, "message": "This answer was ordered from the sandbox"}, status)


def _set_retry_after(response: Response | None, value: str, spelling: str) -> None:
    if response is None or not (value and value.isascii() and value.isprintable()):
        raise ValueError(
            f"{spelling!r} is not a fault: retry_after must be seconds or an HTTP date, and follow a status."
        )
    response.headers["Retry-After"] = value


def _seconds(text: str, spelling: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError(f"{spelling!r} is not a fault: delay must be a number of seconds.")
    return seconds


class FaultPlan:
    """
    The faults of the next calls: first the script in order, then random ones. For use by several threads.

    :param parse: reads a fault.
    """

    def __init__(self, parse: Callable[[str], Fault] = parse_fault) -> None:
        self._parse = parse
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Drop all faults."""
        with self._lock:
            self._script: list[Fault] = []
            self._rates: list[tuple[Fault, float]] = []
            self._random = random.Random()  # noqa: S311 (chance, not a secret)

    def order(
        self, *, script: Iterable[str] = (), rates: Mapping[str, float] | None = None, seed: int | None = None
    ) -> None:
        """
        Order faults; an error orders none of them.

        :param script: faults to append to the script; each is used for one call.
        :param rates: the probability of each fault, for calls that the script does not cover. They replace the
            previous rates; None keeps those.
        :param seed: makes the random faults repeatable.
        :raises ValueError: if a fault is misspelled, or the probabilities are impossible.
        """
        ordered = [self._parse(spelling) for spelling in script]
        chances = [(self._parse(spelling), float(rate)) for spelling, rate in (rates or {}).items()]
        if not all(0 <= rate <= 1 for _, rate in chances) or math.fsum(rate for _, rate in chances) > 1:
            raise ValueError("Rates are probabilities from 0 to 1, and their sum is at most 1.")
        with self._lock:
            self._script += ordered
            if rates is not None:
                self._rates = chances
                self._random = random.Random(seed)  # noqa: S311 (chance, not a secret)

    def take(self, function: str) -> Fault:
        """Return the fault for a call of a function; ``NO_FAULT`` if none is ordered."""
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
        return NO_FAULT
