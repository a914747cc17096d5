"""
Lanes: calls in parallel, each lane with one under way, so that what is dealt to one lane arrives in its order.

Only a push's own thread reads what the lanes report; it gets everything through one queue, and keeps all the counts.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING
from zlib import crc32

from airflow_provider_bubblehouse.api.classifier import UPDATE_CUSTOMERS
from airflow_provider_bubblehouse.errors import RejectedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_bubblehouse.api.client import Client
    from airflow_provider_bubblehouse.push.attempts import Attempts
    from airflow_provider_bubblehouse.push.batches import Batch

_ROOM = 2  # batches a lane holds: one under way, one to go on with at once
_LAST_WORDS = 0.5  # seconds for a call whose socket was closed to end; then its thread is left to die with the process


@dataclass(frozen=True, slots=True)
class CallMade:
    """A lane has made a call. ``again`` says that it was one more for the same data."""

    again: bool


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of the lane's batch of this number, from 0; ``error`` is None where the API accepted it."""

    lane: int
    number: int
    batch: Batch
    error: Exception | None


@dataclass(frozen=True, slots=True)
class Stop:
    """The push is to stop."""


Event = CallMade | Settled | Stop


def lane_of(identity: str, in_flight: int) -> int:
    """
    Return the lane that all updates of a customer go to, the same in every process and every try.

    :param identity: the customer's id, or else its email, whose case does not count.
    :param in_flight: how many lanes there are.
    """
    return crc32((identity.lower() if "@" in identity else identity).encode()) % in_flight


class Lanes:
    """
    Makes calls in so many lanes at a time.

    :param in_flight: how many lanes there are.
    :param connect: opens the client of one lane.
    :param attempts: how often and how long a call is tried.
    :param go_on_after_rejection: whether a batch that the API refused leaves the lanes running; no other fault does.
    :param debug: whether the calls ask for ``debug``.
    :param events: where the lanes report.
    """

    def __init__(
        self,
        *,
        in_flight: int,
        connect: Callable[[], Client],
        attempts: Attempts,
        go_on_after_rejection: bool,
        debug: bool,
        events: SimpleQueue[Event],
    ) -> None:
        self._events = events
        self._attempts = attempts
        self._go_on_after_rejection = go_on_after_rejection
        self._debug = debug
        self._clients = [connect() for _ in range(in_flight)]
        self._inboxes: list[SimpleQueue[Batch | None]] = [SimpleQueue() for _ in range(in_flight)]
        self._held = [0] * in_flight
        self._threads = [
            # A daemon: one that hangs, in a name look-up say, must not keep the process from ending.
            threading.Thread(target=self._work, args=(lane,), name=f"bubblehouse-lane-{lane}", daemon=True)
            for lane in range(in_flight)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def busy(self) -> bool:
        """Whether a batch is not settled yet."""
        return any(self._held)

    def has_room(self, lane: int) -> bool:
        """Say whether a lane takes one more batch."""
        return self._held[lane] < _ROOM

    def send(self, lane: int, batch: Batch) -> None:
        """Give a batch to a lane that has room."""
        self._held[lane] += 1
        self._inboxes[lane].put(batch)

    def release(self, lane: int) -> None:
        """Note that a batch of a lane is settled, and its report read."""
        self._held[lane] -= 1

    def close(self) -> None:
        """End the lanes; calls that are still under way are cut off."""
        self._attempts.stop.set()
        for inbox in self._inboxes:
            inbox.put(None)
        if self.busy:
            for client in self._clients:
                client.abort()
        deadline = time.monotonic() + _LAST_WORDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        for client in self._clients:
            client.close()

    def _work(self, lane: int) -> None:
        client, inbox = self._clients[lane], self._inboxes[lane]

        def on_call(again: bool) -> None:
            self._events.put(CallMade(again))

        for number, batch in enumerate(iter(inbox.get, None)):
            body = batch.body
            try:
                self._attempts.call(
                    lambda body=body: client.call(UPDATE_CUSTOMERS, body, debug=self._debug),  # type: ignore[misc]
                    on_call=on_call,
                )
            except Exception as error:  # noqa: BLE001  whatever it is, the push's own thread raises it
                self._events.put(Settled(lane, number, batch, error))
                if not (self._go_on_after_rejection and isinstance(error, RejectedError)):
                    self._attempts.stop.set()  # at once: what lies behind this batch must not overtake it
            else:
                self._events.put(Settled(lane, number, batch, None))
