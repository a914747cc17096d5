"""
Workers send batches in parallel: one thread for each lane, with one call under way, so that a lane keeps its order.

Only the push's own thread reads what the workers report, so the counts need no lock.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from airflow_provider_bubblehouse.api.classifier import UPDATE_CUSTOMERS
from airflow_provider_bubblehouse.errors import RejectedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_bubblehouse.api.client import Client
    from airflow_provider_bubblehouse.push.attempts import Attempts
    from airflow_provider_bubblehouse.push.batches import Batch

_QUEUED = 2  # batches that a lane holds: one under way, and one to continue with at once
_JOIN_TIMEOUT = 0.5  # seconds for a call whose socket was closed to end; its thread is a daemon


@dataclass(frozen=True, slots=True)
class CallMade:
    """A worker has made a call, which took some seconds. ``again`` says that it repeats an earlier one."""

    again: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class Completed:
    """What became of the batch with this number, from 0, of a lane; ``error`` is None where the API accepted it."""

    lane: int
    number: int
    batch: Batch
    error: Exception | None


@dataclass(frozen=True, slots=True)
class Stop:
    """The push has to stop, for this reason."""

    reason: str


Event = CallMade | Completed | Stop


class Events:
    """
    A queue whose first event stays in it until it is handled: a signal may interrupt the handling anywhere.

    ``put`` and ``wait`` may be interrupted by a signal handler that calls ``put``.
    """

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._wake: SimpleQueue[None] = SimpleQueue()

    def put(self, event: Event) -> None:
        """Add an event."""
        self._events.append(event)
        self._wake.put(None)

    def wait(self, seconds: float) -> None:
        """Wait until there is an event, or the time is over."""
        deadline = time.monotonic() + seconds
        while not self._events and (left := deadline - time.monotonic()) > 0:
            try:
                self._wake.get(timeout=left)
            except Empty:
                return

    def first(self) -> Event | None:
        """Return the first event, None if there is none."""
        return self._events[0] if self._events else None

    def remove_first(self) -> None:
        """Remove the first event, which is handled."""
        self._events.popleft()


class Workers:
    """
    One thread and one HTTP client for each lane.

    :param lanes: how many lanes there are.
    :param connect: opens the client of one lane.
    :param attempts: how often and how long a call is attempted.
    :param continue_after_rejection: whether the other batches are sent after the API rejects one; any other error
        stops all lanes.
    :param debug: whether the calls ask for ``debug``.
    :param events: where the workers report.
    """

    def __init__(
        self,
        *,
        lanes: int,
        connect: Callable[[], Client],
        attempts: Attempts,
        continue_after_rejection: bool,
        debug: bool,
        events: Events,
    ) -> None:
        self._events = events
        self._attempts = attempts
        self._continue_after_rejection = continue_after_rejection
        self._debug = debug
        self._clients = [connect() for _ in range(lanes)]
        self._inboxes: list[SimpleQueue[Batch | None]] = [SimpleQueue() for _ in range(lanes)]
        self._sent = [0] * lanes
        self._completed = [0] * lanes
        self._threads = [
            # A daemon: one that hangs, for example in a name look-up, must not keep the process from ending.
            threading.Thread(target=self._work, args=(lane,), name=f"bubblehouse-lane-{lane}", daemon=True)
            for lane in range(lanes)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def busy(self) -> bool:
        """Whether a batch is not completed yet."""
        return self._sent != self._completed

    def has_room(self, lane: int) -> bool:
        """Return whether a lane takes one more batch."""
        return self._sent[lane] - self._completed[lane] < _QUEUED

    def send(self, lane: int, batch: Batch) -> None:
        """Give a batch to a lane that has room."""
        self._sent[lane] += 1
        self._inboxes[lane].put(batch)

    def note_completed(self, event: Completed) -> None:
        """Note that the report about a batch is read; a second time changes nothing."""
        self._completed[event.lane] = event.number + 1

    def stop(self) -> None:
        """Begin no further call; calls under way go on."""
        self._attempts.stop.set()

    def close(self) -> None:
        """End the threads; calls that are still under way are cut off."""
        self.stop()
        for inbox in self._inboxes:
            inbox.put(None)
        if self.busy:
            for client in self._clients:
                client.abort()
        deadline = time.monotonic() + _JOIN_TIMEOUT
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        for client in self._clients:
            client.close()

    def _work(self, lane: int) -> None:
        for number, batch in enumerate(iter(self._inboxes[lane].get, None)):
            error = self._send(lane, batch)
            if error is not None and not (self._continue_after_rejection and isinstance(error, RejectedError)):
                # Before it is reported: no later batch may overtake this one.
                self.stop()
            self._events.put(Completed(lane, number, batch, error))

    def _send(self, lane: int, batch: Batch) -> Exception | None:
        client = self._clients[lane]
        try:
            self._attempts.call(
                lambda: client.call(UPDATE_CUSTOMERS, batch.body, debug=self._debug),
                on_call=lambda again, seconds: self._events.put(CallMade(again, seconds)),
            )
        except Exception as error:  # noqa: BLE001  whatever it is, the push's own thread raises it
            return error
        return None
