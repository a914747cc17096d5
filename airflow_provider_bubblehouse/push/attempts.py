"""
Attempts of one call: a transient error is tried again after a wait, anything else is raised at once.

The waits have full jitter (uniform between 0 and 2, 4, 8 … seconds), so that many tasks that were cut off together do
not come back together.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import tenacity

from airflow_provider_bubblehouse.errors import (
    BubblehouseError,
    BubblehouseTransientError,
    PermanentError,
    RateLimitError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_bubblehouse.push.pacing import Pacer

log = logging.getLogger(__name__)

T = TypeVar("T")

_FIRST_WAIT = 2.0  # seconds at most before the second attempt; twice as much before each further one
MAX_WAIT = 60.0  # seconds; a longer wait is better spent between two tries of the task, which frees the worker's slot


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempts:
    """
    How often and how long a call is tried.

    :param max_attempts: how many times a call that fails transiently is made at most.
    :param max_seconds: a wait that would end later than so many seconds after the first call is not begun.
    :param pacer: lets each call through, and waits for a rate limit.
    :param stop: ends a wait, after which no call is made.
    """

    max_attempts: int
    max_seconds: float
    pacer: Pacer
    stop: threading.Event = field(default_factory=threading.Event)

    def call(self, send: Callable[[], T], *, on_call: Callable[[bool, float], None]) -> T:
        """
        Call until it goes through.

        :param send: makes the call.
        :param on_call: called after each call with whether it repeats an earlier one, and how many seconds it took.
        :return: what ``send`` returned.
        :raises BubblehouseError: the last call's, with ``attempts`` set.
        """
        made, began = 0, 0.0

        def call_once() -> T:
            nonlocal made, began
            began = self.pacer.wait_for_turn()
            started = time.monotonic()
            try:
                result = send()
            except BubblehouseError as error:
                if not isinstance(error, PermanentError) or error.status is not None:
                    on_call(made > 0, time.monotonic() - started)
                    made += 1
                error.attempts = made
                raise
            on_call(made > 0, time.monotonic() - started)
            self.pacer.note_accepted()
            return result

        def call_within_rate_limit() -> T:
            limited = 0
            while True:
                try:
                    return call_once()
                except RateLimitError as error:
                    if not self.pacer.pause_for_limit(error, began=began, limited_before=limited):
                        raise
                    limited += 1

        started = time.monotonic()
        try:
            return call_within_rate_limit()  # usually the only attempt; tenacity would make it noticeably slower
        except BubblehouseTransientError as error:
            first = error
        return self._try_again(first, call_within_rate_limit, self.max_seconds - (time.monotonic() - started))

    def _try_again(self, first: BubblehouseTransientError, call: Callable[[], T], seconds: float) -> T:
        """
        Make the other attempts, if there may be any.

        :param first: the error of the first attempt.
        :param call: makes one attempt.
        :param seconds: a wait that would end later than so many seconds from now is not begun.
        """
        failed = [first]

        def call_again() -> T:
            if failed:  # the first attempt, so that tenacity counts it and waits after it
                raise failed.pop()
            return call()

        result: T = tenacity.Retrying(
            retry=tenacity.retry_if_exception(self._is_worth_a_wait),
            stop=tenacity.stop_after_attempt(self.max_attempts) | tenacity.stop_before_delay(seconds),
            wait=_wait,
            sleep=self._sleep,
            before_sleep=self._log_wait,
            reraise=True,
        )(call_again)
        return result

    def _is_worth_a_wait(self, error: BaseException) -> bool:
        return (
            isinstance(error, BubblehouseTransientError)
            and (error.retry_after or 0) <= MAX_WAIT
            and not self.stop.is_set()
        )

    def _sleep(self, seconds: float) -> None:
        self.stop.wait(seconds)

    def _log_wait(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        wait = state.next_action.sleep if state.next_action else 0
        log.warning("%s Attempt %d of %d; next one in %.1f s.", error, state.attempt_number, self.max_attempts, wait)
        if isinstance(error, BubblehouseError) and error.retry_after:
            self.pacer.pause(error.retry_after)


_jitter = tenacity.wait_random_exponential(multiplier=_FIRST_WAIT, max=MAX_WAIT)


def _wait(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after if isinstance(error, BubblehouseTransientError) else None
    return max(_jitter(state), asked or 0)
