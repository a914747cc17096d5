"""The pace of a push against simulated rate limits, with a simulated clock."""

from __future__ import annotations

import heapq
from collections import deque
from itertools import count
from threading import Event

import pytest

from airflow_provider_bubblehouse.exceptions import BubblehouseRateLimitError
from airflow_provider_bubblehouse.push import pacing
from airflow_provider_bubblehouse.push.pacing import Pacer

LIMIT = 20  # calls a second
LATENCY = 0.05  # seconds


class SlidingWindow:
    """Accepts so many calls within any second."""

    def __init__(self) -> None:
        self.accepted: deque[float] = deque()

    def takes(self, now: float) -> bool:
        while self.accepted and self.accepted[0] <= now - 1:
            self.accepted.popleft()
        if len(self.accepted) >= LIMIT:
            return False
        self.accepted.append(now)
        return True


class TokenBucket:
    """Accepts so many calls a second in the long run, and a burst of some more."""

    def __init__(self, burst: int) -> None:
        self.burst = self.tokens = float(burst)
        self.filled_at = 0.0

    def takes(self, now: float) -> bool:
        self.tokens = min(self.burst, self.tokens + (now - self.filled_at) * LIMIT)
        self.filled_at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


def simulate(server, *, batches: int, lanes: int, retry_after: float | None, **options) -> tuple[float, float]:
    """Push batches through the real pacer, and return the seconds that it took and the share of 429s."""
    now = [0.0]
    pacer = Pacer(rate_limit_wait=1e9, stop=Event(), clock=lambda: now[0], **options)
    error = BubblehouseRateLimitError("Over.", retry_after=retry_after)
    order = count()
    steps = [(0.0, next(order), "begin", 0.0, 0) for _ in range(lanes)]
    left, calls, limited = batches, 0, 0
    while steps:
        now[0], _, step, began, before = heapq.heappop(steps)

        def later(seconds, *what):
            heapq.heappush(steps, (now[0] + seconds, next(order), *what))

        if step == "begin" and (left or before):
            wait = pacer.begin_call()
            if wait:
                later(wait, "begin", 0.0, before)
                continue
            left -= not before
            calls += 1
            later(LATENCY / 2, "arrive", now[0], before)
        elif step == "arrive":
            later(LATENCY / 2, "accepted" if server.takes(now[0]) else "limited", began, before)
        elif step == "accepted":
            pacer.note_accepted()
            later(0, "begin", 0.0, 0)
        elif step == "limited":
            limited += 1
            assert pacer.pause_for_limit(error, began=began, limited_before=before)
            later(0, "begin", 0.0, before + 1)
    return now[0], limited / calls


SERVERS = {"sliding window": SlidingWindow, **{f"bucket, burst {n}": lambda n=n: TokenBucket(n) for n in (5, 20, 100)}}


@pytest.mark.parametrize("retry_after", [None, 1.0])
@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("lanes", [2, 8])
@pytest.mark.parametrize("batches", [300, 3000])
def test_the_learned_pace_is_near_the_limit_and_rarely_beyond_it(server, retry_after, lanes, batches):
    seconds, share = simulate(SERVERS[server](), batches=batches, lanes=lanes, retry_after=retry_after)
    assert seconds <= 1.25 * batches / LIMIT
    assert share <= 0.05


def test_a_pace_that_is_given_is_not_learned():
    seconds, share = simulate(SlidingWindow(), batches=300, lanes=8, retry_after=None, max_calls_per_second=LIMIT - 1)
    assert share == 0
    assert seconds == pytest.approx(300 / (LIMIT - 1), rel=0.02)


def test_without_a_limit_the_learned_pace_soon_costs_nothing():
    class Unlimited:
        def takes(self, _now):
            return True

    seconds, _ = simulate(Unlimited(), batches=3000, lanes=8, retry_after=None)
    ideal = 3000 * LATENCY / 8
    assert seconds <= ideal + 5


def test_a_limit_that_is_raised_is_found_again(monkeypatch):
    pace = pacing.LearnedPace()
    pace.begin(0.0)
    pace.limit(0.1, began=0.0)
    first = pace.rate
    pace.begin(0.2 + pacing._QUIET + 100)
    assert pace.rate == pytest.approx(first * pacing._RISE**101, rel=0.02)


def test_calls_under_way_at_a_429_do_not_cut_the_pace_again():
    pace = pacing.LearnedPace()
    for _ in range(20):
        pace.accept(0.9)
    pace.limit(1.0, began=0.5)
    cut = pace.rate
    pace.limit(1.1, began=0.9)
    assert pace.rate == cut
    pace.limit(2.5, began=2.0)
    assert pace.rate < cut


def test_the_pace_never_comes_to_a_stop():
    pace = pacing.LearnedPace()
    for second in range(1000):
        pace.begin(float(second))
        pace.limit(second + 0.5, began=float(second))
    assert pace.rate >= pacing._LOWEST_RATE


def test_a_learned_pace_lasts_as_long_as_any_push():
    pace = pacing.LearnedPace()
    pace.begin(0.0)
    pace.begin(86_400.0)
    assert pace.next_call() == pytest.approx(86_400.0)
