"""What is tried again, how often, and how long it waits in between."""

from __future__ import annotations

import logging
import time
from threading import Event

import pytest

from airflow_provider_bubblehouse.exceptions import (
    BubblehousePermanentError,
    BubblehouseRateLimitError,
    BubblehouseRejectedError,
    BubblehouseTransientError,
)
from airflow_provider_bubblehouse.push.attempts import MAX_WAIT, Attempts
from airflow_provider_bubblehouse.push.pacing import Pacer


class Waits(Event):
    """An event that is never set, and notes how long it was waited for."""

    def __init__(self, waits: list[float]) -> None:
        super().__init__()
        self.waits = waits

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout)
        return False


class Holds(Pacer):
    """A pacer that lets every call through, and notes for how long it was to hold the others."""

    def __init__(self, holds: list[float]) -> None:
        super().__init__(stop=Event())
        self.holds = holds

    def pause(self, seconds: float) -> None:
        self.holds.append(seconds)


class Line:
    """A call that fails so many times, and the waits that were asked for."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.waits: list[float] = []
        self.holds: list[float] = []
        self.calls = 0
        self.retries = 0

    def send(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "through"

    def called(self, again: bool, seconds: float) -> None:
        assert seconds >= 0
        self.retries += again

    def run(self, max_attempts: int = 5, max_seconds: float = 1e9) -> str:
        stop = Waits(self.waits)
        attempts = Attempts(max_attempts=max_attempts, max_seconds=max_seconds, pacer=Holds(self.holds), stop=stop)
        return attempts.call(self.send, on_call=self.called)


def transient(retry_after: float | None = None) -> BubblehouseTransientError:
    return BubblehouseTransientError("Down.", status=503, retry_after=retry_after)


def test_a_transient_error_is_retried_until_it_succeeds():
    line = Line(transient(), transient())
    assert line.run() == "through"
    assert (line.calls, line.retries, len(line.waits)) == (3, 2, 2)


@pytest.mark.parametrize("earlier", [0, 1, 2])
@pytest.mark.parametrize("kind", [BubblehousePermanentError, BubblehouseRejectedError, BubblehouseRateLimitError])
def test_a_permanent_error_is_never_tried_again(kind, earlier):
    line = Line(*(transient() for _ in range(earlier)), kind("No.", status=400))
    with pytest.raises(kind) as caught:
        line.run()
    assert (line.calls, caught.value.attempts) == (earlier + 1, earlier + 1)


def test_the_last_attempts_error_is_raised_with_their_number():
    line = Line(*(transient() for _ in range(9)))
    with pytest.raises(BubblehouseTransientError) as caught:
        line.run(max_attempts=3)
    assert (line.calls, caught.value.attempts) == (3, 3)


def test_waits_are_uniform_below_doubling_bounds_up_to_the_cap():
    bounds = [2, 4, 8, 16, 32, 60, 60]
    seen = []
    for _ in range(200):
        line = Line(*(transient() for _ in bounds))
        line.run(max_attempts=len(bounds) + 1)
        seen.append(line.waits)
    for bound, waits in zip(bounds, zip(*seen, strict=True), strict=True):
        assert max(waits) <= bound
        assert max(waits) > bound * 0.9
        assert min(waits) < bound * 0.1


def test_retry_after_is_honoured_up_to_the_cap_and_beyond_it_ends_the_call():
    line = Line(transient(retry_after=MAX_WAIT))
    assert line.run() == "through"
    assert line.waits == line.holds == [MAX_WAIT]
    line = Line(transient(retry_after=MAX_WAIT + 1))
    with pytest.raises(BubblehouseTransientError) as caught:
        line.run()
    assert (line.calls, line.waits, caught.value.retry_after) == (1, [], MAX_WAIT + 1)


def test_a_wait_that_would_end_too_late_is_not_begun():
    line = Line(transient(retry_after=30))
    with pytest.raises(BubblehouseTransientError):
        line.run(max_seconds=29)
    assert (line.calls, line.waits) == (1, [])


@pytest.mark.parametrize(("max_seconds", "calls"), [(34, 1), (36, 2)])
def test_the_time_of_the_first_call_counts_as_well(monkeypatch, max_seconds, calls):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    class SlowLine(Line):
        def send(self) -> str:
            now[0] += 20
            return super().send()

    line = SlowLine(transient(retry_after=15), BubblehousePermanentError("No.", status=400))
    with pytest.raises((BubblehouseTransientError, BubblehousePermanentError)):
        line.run(max_seconds=max_seconds)
    assert line.calls == calls


def test_each_wait_is_logged_with_its_cause_and_attempt(caplog):
    with caplog.at_level(logging.WARNING):
        Line(transient(retry_after=3)).run(max_attempts=4)
    assert caplog.messages == ["Down. Attempt 1 of 4; next one in 3.0 s."]
