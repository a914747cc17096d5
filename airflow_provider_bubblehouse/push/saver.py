"""Stores the state of a push in a thread of its own, so that a slow or failing store never delays a call."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from airflow_provider_bubblehouse.push.progress import KEY

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_bubblehouse.push.progress import StateStore

log = logging.getLogger(__name__)

_FIRST_WAIT, _MAX_WAIT = 1.0, 60.0  # seconds before a failing store is tried again; doubled after each failure
_POLL = 0.1  # seconds between two looks at a timeout that may change
# The store is a pipe to the task's supervisor: these errors mean that the supervisor is gone.
_BROKEN_PIPE = (BrokenPipeError, ConnectionResetError, EOFError)


@dataclass(frozen=True, slots=True)
class _Request:
    """Store a value; if somebody waits for the answer, at once."""

    value: Any
    answer: SimpleQueue[bool] | None = None


class Saver:
    """
    Saves the newest value that it was given.

    :param store: stores it.
    :param on_broken_pipe: called from the saver's thread if the store is a pipe that is broken.
    """

    def __init__(self, store: StateStore, *, on_broken_pipe: Callable[[], None]) -> None:
        self._store = store
        self._on_broken_pipe = on_broken_pipe
        self._is_failing = False
        self._requests: SimpleQueue[_Request | None] = SimpleQueue()  # a signal handler may interrupt put() and get()
        # A daemon: a store that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name="bubblehouse-saver", daemon=True)
        self._thread.start()

    def save(self, value: Any) -> None:
        """Save a value soon; a failing store is tried again after 1, 2, 4 … 60 seconds."""
        self._requests.put(_Request(value))

    def save_now(self, value: Any, *, timeout: Callable[[], float], even_if_failing: bool = False) -> bool:
        """
        Save a value, and return whether the store has it.

        A store that fails or hangs is not waited for a second time, unless ``even_if_failing``.

        :param value: the value.
        :param timeout: returns how many seconds to wait at most; less once the push has to stop.
        :param even_if_failing: try again at once even if the store failed a moment ago.
        """
        if self._is_failing and not even_if_failing:
            self.save(value)
            return False
        answer: SimpleQueue[bool] = SimpleQueue()
        self._requests.put(_Request(value, answer))
        started = time.monotonic()
        while (left := started + timeout() - time.monotonic()) > 0:
            with suppress(Empty):
                return answer.get(timeout=min(left, _POLL))
        self._is_failing = True
        return False

    def close(self, *, timeout: float) -> bool:
        """End the thread, and return whether it has ended."""
        self._requests.put(None)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _work(self) -> None:
        value: Any = None  # what is not stored yet
        due, wait = 0.0, 0.0
        while True:
            requests = self._next(None if value is None else max(0.0, due - time.monotonic()))
            if None in requests:
                return
            newest = [request for request in requests if request is not None]
            if newest:
                value = newest[-1].value
            answers = [request.answer for request in newest if request.answer is not None]
            if value is not None and (answers or time.monotonic() >= due):
                self._is_failing = not self._save(value, has_failed=wait > 0)
                if self._is_failing:
                    wait = min(wait * 2 or _FIRST_WAIT, _MAX_WAIT)
                    due = time.monotonic() + wait
                else:
                    value, due, wait = None, 0.0, 0.0
            for answer in answers:
                answer.put(value is None)

    def _next(self, timeout: float | None) -> list[_Request | None]:
        """Wait for requests, and return all that there are; none after the timeout."""
        requests: list[_Request | None] = []
        try:
            requests.append(self._requests.get(timeout=timeout))
            while True:
                requests.append(self._requests.get_nowait())
        except Empty:
            return requests

    def _save(self, value: Any, *, has_failed: bool) -> bool:
        try:
            self._store.set(KEY, value)
        except _BROKEN_PIPE:
            self._on_broken_pipe()
            return False
        except Exception:
            if not has_failed:  # one warning is enough for an outage
                log.warning("The progress cannot be saved; a retry may send completed rows again.", exc_info=True)
            return False
        return True
