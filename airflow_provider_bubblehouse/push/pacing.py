"""One pace for all calls of a push, whichever lane makes them: calls a second, and what the API asks to wait."""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import TYPE_CHECKING

from airflow_provider_bubblehouse.errors import BubblehouseTransientError

if TYPE_CHECKING:
    from airflow_provider_bubblehouse.errors import RateLimitError

log = logging.getLogger(__name__)

_FIRST_RATE_LIMIT_WAIT = 1.0  # seconds at least after a 429, whatever it asks; twice as much after each further one
_MAX_RATE_LIMIT_WAIT = 60.0  # seconds; the documented limit is one per second, so a longer wait gains nothing


class StoppedError(BubblehouseTransientError):
    """
    The push has to stop: the next try pushes the rest.

    :param reason: why, as a sentence.
    """

    def __init__(self, reason: str = "The push was told to stop.") -> None:
        super().__init__(f"{reason} The rest has to be pushed again.")


class Pacer:
    """
    Lets calls through at their pace. For use by several threads.

    :param max_calls_per_second: how many calls begin in a second at most; None for no limit.
    :param rate_limit_wait: seconds in all that may be waited for a rate limit.
    :param stop: ends every wait.
    """

    def __init__(
        self, *, max_calls_per_second: float | None = None, rate_limit_wait: float = 0.0, stop: threading.Event
    ) -> None:
        self._interval = 1 / max_calls_per_second if max_calls_per_second else 0.0
        self._waits_for_limit = rate_limit_wait > 0
        self._rate_limit_wait = rate_limit_wait
        self._stop = stop
        self._lock = threading.Lock()
        self._next_call = 0.0
        self._held_until = 0.0

    def wait_for_turn(self) -> None:
        """
        Wait until a call may begin.

        :raises StoppedError: if the push is to stop.
        """
        while True:
            with self._lock:
                now = time.monotonic()
                wait = max(self._next_call, self._held_until) - now
                if wait <= 0:
                    self._next_call = now + self._interval
            if self._stop.is_set():
                raise StoppedError
            if wait <= 0:
                return
            self._stop.wait(wait)

    def hold(self, seconds: float) -> None:
        """Let no call begin for some seconds: what one lane is asked to wait, all wait."""
        with self._lock:
            self._held_until = max(self._held_until, time.monotonic() + seconds)

    def wait_for_limit(self, error: RateLimitError, *, before: int) -> bool:
        """
        Hold all calls for as long as a rate limit asks, and say whether that fits into what may be waited in all.

        :param error: what the call was answered. The wait is never shorter than its ``retry_after``.
        :param before: how many times this call was limited before.
        """
        # As a jitter: lanes and tasks that were limited together are not to come back together.
        grown = min(_FIRST_RATE_LIMIT_WAIT * 2**before, _MAX_RATE_LIMIT_WAIT) * random.uniform(1, 1.5)  # noqa: S311
        wait = max(grown, error.retry_after or 0.0)
        with self._lock:
            now = time.monotonic()
            longer = now + wait - max(self._held_until, now)
            if not self._waits_for_limit or longer > self._rate_limit_wait:
                return False
            if longer > 0:
                self._rate_limit_wait -= longer
                self._held_until = now + wait
        log.warning("%s All calls wait %.1f s; %.1f s may still be waited.", error, wait, self._rate_limit_wait)
        return True
