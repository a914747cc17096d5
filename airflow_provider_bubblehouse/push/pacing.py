"""
One pace for all calls of a push, whichever lane makes them: calls a second, and the pauses that the API asks for.

The paces are pure calculators that take the time as an argument. Only ``Pacer`` has a clock, a lock and waits.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Protocol

from airflow_provider_bubblehouse.errors import BubblehouseTransientError

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_bubblehouse.errors import RateLimitError

log = logging.getLogger(__name__)

_FIRST_PAUSE = 0.5  # seconds at least after a 429; twice as much after each further one of the same call
_MAX_PAUSE = 60.0  # seconds; the documented limit is one per second, so a longer pause gains nothing

_FIRST_RATE = 10.0  # calls a second that a learned pace begins with; it doubles every second until the first 429
_DOUBLINGS = 30  # seconds; far beyond any API by then, and a float does not double for ever
_CUT = 0.95  # of the rate that the API has accepted: just below the limit
_QUIET = 5.0  # seconds without a 429 before a learned pace rises again
_RISE = 1.01  # per second: slow, because each step beyond the limit costs a pause
_LOWEST_RATE = 0.1  # calls a second; a pace must not come to a stop


class StoppedError(BubblehouseTransientError):
    """
    The push has to stop: the next try pushes the rest.

    :param reason: why, as a sentence.
    """

    def __init__(self, reason: str = "The push was told to stop.") -> None:
        super().__init__(f"{reason} The rest has to be pushed again.")


class Pace(Protocol):
    """Decides when the next call may begin. All times are seconds of one monotonic clock."""

    def next_call(self) -> float:
        """Return when the next call may begin."""

    def begin(self, now: float) -> None:
        """Note that a call begins."""

    def accept(self, now: float) -> None:
        """Note that the API has accepted a call."""

    def limit(self, now: float, *, began: float) -> None:
        """Note that the API has answered 429 to a call that began then."""


class FixedPace:
    """
    A fixed number of calls a second.

    :param calls_per_second: how many calls begin in a second at most; None for no limit.
    """

    def __init__(self, calls_per_second: float | None) -> None:
        self._interval = 1 / calls_per_second if calls_per_second else 0.0
        self._next_call = 0.0

    def next_call(self) -> float:
        return self._next_call

    def begin(self, now: float) -> None:
        self._next_call = now + self._interval

    def accept(self, now: float) -> None:
        """Change nothing."""

    def limit(self, now: float, *, began: float) -> None:
        """Change nothing."""


class LearnedPace:
    """
    A pace that learns the limit from the 429s: it stays just below the rate at which they came, and rises slowly again.

    Until the first 429 it doubles every second. At a 429 it falls below what the API has accepted in the last second,
    which is what the limit allows. Calls that were already under way at that moment change nothing more.
    """

    def __init__(self) -> None:
        self.rate = _FIRST_RATE  # calls a second
        self._next_call = 0.0
        self._started_at: float | None = None
        self._limited_at: float | None = None
        self._rises_at = 0.0
        self._accepted_at: deque[float] = deque()  # in the last second

    def next_call(self) -> float:
        return self._next_call

    def begin(self, now: float) -> None:
        if self._started_at is None:
            self._started_at = now
        if self._limited_at is None:
            self.rate = _FIRST_RATE * 2 ** min(now - self._started_at, _DOUBLINGS)
        while self._limited_at is not None and now >= self._rises_at:
            self.rate *= _RISE
            self._rises_at += 1
        self._next_call = now + 1 / self.rate

    def accept(self, now: float) -> None:
        self._accepted_at.append(now)
        self._forget(now)

    def limit(self, now: float, *, began: float) -> None:
        if self._limited_at is not None and began <= self._limited_at:
            return
        self._forget(now)
        self.rate = max(_LOWEST_RATE, _CUT * min(self.rate, len(self._accepted_at) or self.rate / 2))
        self._limited_at, self._rises_at = now, now + _QUIET

    def _forget(self, now: float) -> None:
        while self._accepted_at and self._accepted_at[0] <= now - 1:
            self._accepted_at.popleft()


class Pacer:
    """
    Lets calls begin at their pace. For use by several threads.

    Without ``max_calls_per_second``, a push that may wait for a rate limit learns its pace.

    :param max_calls_per_second: how many calls begin in a second at most; None for no limit.
    :param rate_limit_wait: how many seconds in total may be spent on pauses after a 429.
    :param stop: ends every wait.
    :param clock: returns the seconds of a monotonic clock.
    """

    def __init__(
        self,
        *,
        max_calls_per_second: float | None = None,
        rate_limit_wait: float = 0.0,
        stop: threading.Event,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._waits_for_limit = rate_limit_wait > 0
        learns = self._waits_for_limit and max_calls_per_second is None
        self._pace: Pace = LearnedPace() if learns else FixedPace(max_calls_per_second)
        self._rate_limit_wait = rate_limit_wait
        self._stop = stop
        self._clock = clock
        self._lock = threading.Lock()
        self._paused_until = 0.0

    def wait_for_turn(self) -> float:
        """
        Wait until a call may begin, and return when it begins.

        :raises StoppedError: if the push has to stop.
        """
        while True:
            wait = self.begin_call()
            if self._stop.is_set():
                raise StoppedError
            if wait <= 0:
                return self._clock()
            self._stop.wait(wait)

    def begin_call(self) -> float:
        """Begin a call if its turn has come, and return the seconds until then; 0 if it has begun."""
        with self._lock:
            now = self._clock()
            wait = max(self._pace.next_call(), self._paused_until) - now
            if wait > 0:
                return wait
            self._pace.begin(now)
            return 0.0

    def note_accepted(self) -> None:
        """Note that the API has accepted a call."""
        with self._lock:
            self._pace.accept(self._clock())

    def pause(self, seconds: float) -> None:
        """Begin no call for some seconds: if the API asks one lane to wait, all wait."""
        with self._lock:
            self._paused_until = max(self._paused_until, self._clock() + seconds)

    def pause_for_limit(self, error: RateLimitError, *, began: float, limited_before: int) -> bool:
        """
        Pause all calls for as long as a rate limit asks, and return whether that fits into ``rate_limit_wait``.

        :param error: what the call was answered. The pause is never shorter than its ``retry_after``.
        :param began: when the call began.
        :param limited_before: how often this call was limited before.
        """
        # A random part, so that lanes and tasks that were limited together do not come back together.
        grown = min(_FIRST_PAUSE * 2**limited_before, _MAX_PAUSE) * random.uniform(1, 1.5)  # noqa: S311
        seconds = max(grown, error.retry_after or 0.0)
        with self._lock:
            now = self._clock()
            self._pace.limit(now, began=began)
            longer = now + seconds - max(self._paused_until, now)
            if not self._waits_for_limit or longer > self._rate_limit_wait:
                return False
            if longer > 0:
                self._rate_limit_wait -= longer
                self._paused_until = now + seconds
        log.warning("%s All calls pause for %.1f s; %.1f s of pauses are left.", error, seconds, self._rate_limit_wait)
        return True
