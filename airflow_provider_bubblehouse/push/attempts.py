"""
Attempts of one call: a transient error is tried again after a wait, anything else is raised at once.

The waits have full jitter (uniform between 0 and 2, 4, 8 … seconds), so that many tasks that were cut off together do
not come back together.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import tenacity

from airflow_provider_bubblehouse.exceptions import BubblehouseError, BubblehouseTransientError

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

T = TypeVar("T")

_FIRST_WAIT = 2.0  # seconds at most before the second attempt; twice as much before each further one
MAX_WAIT = 60.0  # seconds; a longer wait is better spent between two tries of the task, which frees the worker's slot


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempts:
    """
    How often and how long a call is tried.

    :param max_attempts: how many calls are made at most.
    :param max_seconds: a wait that would end later than so many seconds after the first call is not begun.
    :param sleep: waits so many seconds.
    """

    max_attempts: int
    max_seconds: float
    sleep: Callable[[float], None] = time.sleep

    def call(self, send: Callable[[], T], *, on_retry: Callable[[], None]) -> T:
        """
        Call until it goes through.

        :param send: makes the call.
        :param on_retry: called before each further attempt.
        :return: what ``send`` returned.
        :raises BubblehouseError: the last attempt's, with ``attempts`` set.
        """
        made = 0

        def attempt() -> T:
            nonlocal made
            made += 1
            if made > 1:
                on_retry()
            try:
                return send()
            except BubblehouseError as error:
                error.attempts = made
                raise

        return tenacity.Retrying(
            retry=tenacity.retry_if_exception(_is_worth_a_wait),
            stop=tenacity.stop_after_attempt(self.max_attempts) | tenacity.stop_before_delay(self.max_seconds),
            wait=_wait,
            sleep=self.sleep,
            before_sleep=self._log_wait,
            reraise=True,
        )(attempt)

    def _log_wait(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        wait = state.next_action.sleep if state.next_action else 0
        log.warning("%s Attempt %d of %d; next one in %.1f s.", error, state.attempt_number, self.max_attempts, wait)


def _is_worth_a_wait(error: BaseException) -> bool:
    return isinstance(error, BubblehouseTransientError) and (error.retry_after or 0) <= MAX_WAIT


_jitter = tenacity.wait_random_exponential(multiplier=_FIRST_WAIT, max=MAX_WAIT)


def _wait(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after if isinstance(error, BubblehouseTransientError) else None
    return max(_jitter(state), asked or 0)
