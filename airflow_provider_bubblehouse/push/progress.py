"""
What a push stores for the next try of its task: how far each lane has come, and what the API has rejected.

Invariants that must not be relaxed:

1. A stored row number means that every valid row of the lane up to it was accepted or rejected, or is unchanged. It is
   the row's number in the source, never a count of valid rows: which rows are valid can change between two tries.
2. Progress belongs to a fingerprint of source, settings and rules. Under another fingerprint it is deleted before the
   first call; if that fails, nothing is sent. Otherwise a third try with the first fingerprint would skip rows that
   the second try has overwritten.
3. Rows that are skipped on resume are counted again. If the counts differ, nothing of the progress is trusted.
4. A rejection is stored before its rows are written anywhere. It belongs to the source alone, so it survives an
   upgrade and changed settings, and no later try of the same source succeeds.
5. Progress and rejection are one value, stored in one request: no crash can separate them.
6. No value of a row is stored, only numbers, a status and an error id.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from airflow_provider_bubblehouse.errors import BubblehouseTransientError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_bubblehouse.errors import RejectedError
    from airflow_provider_bubblehouse.push.batches import Batch

log = logging.getLogger(__name__)

KEY = "bubblehouse_push"
_FORMAT = 2  # of the stored value; the first release stored counts of valid rows, without a format


class StateStore(Protocol):
    """Stores JSON values from one try of a task to the next, such as Airflow's ``task_state_store``."""

    def get(self, key: str) -> Any:
        """Return a value, None if there is none."""

    def set(self, key: str, value: Any) -> None:
        """Store a value."""

    def delete(self, key: str) -> None:
        """Delete a value."""


@dataclass(frozen=True, slots=True)
class LaneProgress:
    """
    How far a lane has come.

    :param row: the number in the source of the last completed row, 0 before the first one.
    :param accepted: how many rows up to it the API accepted.
    :param rejected: how many rows up to it the API rejected.
    :param unchanged: how many rows up to it did not have to be sent.
    """

    row: int = 0
    accepted: int = 0
    rejected: int = 0
    unchanged: int = 0

    @property
    def completed(self) -> int:
        """How many rows up to ``row`` were accepted, rejected or unchanged."""
        return self.accepted + self.rejected + self.unchanged

    def after(self, batch: Batch, *, is_accepted: bool) -> LaneProgress:
        """Return the progress after a batch of the lane is completed."""
        accepted, rejected = (batch.rows, 0) if is_accepted else (0, batch.rows)
        accepted, rejected = self.accepted + accepted, self.rejected + rejected
        unchanged = self.unchanged if batch.position is None else batch.position - accepted - rejected
        return LaneProgress(batch.numbers[-1], accepted, rejected, unchanged)

    def at_end(self, row: int, position: int) -> LaneProgress:
        """Return the progress after the last row of the lane, which is unchanged if it is in no batch."""
        return replace(self, row=max(row, self.row), unchanged=position - self.accepted - self.rejected)


@dataclass(frozen=True, slots=True)
class Rejection:
    """
    What the API has rejected of a source, in all tries.

    :param status: the HTTP status of the first rejection.
    :param error_id: the API's ``id`` of it.
    :param rows: how many rows were rejected.
    :param unwritten: the batches that are not yet written to ``rejected_path``, each as the numbers of its rows in the
        source. (Neither a range nor a lane would do: with a ledger, rows in between may be unchanged.)
    """

    status: int | None
    error_id: str | None
    rows: int
    unwritten: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class State:
    """
    How far a push has come, over all tries. It is replaced as a whole, so that a signal never leaves half a change.

    :param lanes: the progress of each lane.
    :param rejection: what the API has rejected, None if nothing.
    """

    lanes: tuple[LaneProgress, ...] = ()
    rejection: Rejection | None = None

    @property
    def accepted(self) -> int:
        """How many rows the API accepted."""
        return sum(lane.accepted for lane in self.lanes)

    @property
    def rejected(self) -> int:
        """How many rows the API rejected."""
        return sum(lane.rejected for lane in self.lanes)

    @property
    def unchanged(self) -> int:
        """How many rows did not have to be sent."""
        return sum(lane.unchanged for lane in self.lanes)

    @property
    def completed(self) -> int:
        """How many rows were accepted, rejected or unchanged."""
        return sum(lane.completed for lane in self.lanes)

    def after(self, lane: int, batch: Batch, error: RejectedError | None, *, will_be_written: bool) -> State:
        """
        Return the state after a batch is completed.

        :param lane: the batch's lane.
        :param batch: the batch.
        :param error: what the API rejected it with, None if it accepted it.
        :param will_be_written: whether a rejected batch has yet to be written to ``rejected_path``.
        """
        done = self.lanes[lane].after(batch, is_accepted=error is None)
        lanes = (*self.lanes[:lane], done, *self.lanes[lane + 1 :])
        if error is None:
            return State(lanes, self.rejection)
        earlier = self.rejection or Rejection(error.status, error.error_id, 0)
        new = (tuple(batch.numbers),) if will_be_written else ()
        return State(lanes, replace(earlier, rows=earlier.rows + batch.rows, unwritten=(*earlier.unwritten, *new)))

    def at_end(self, ends: Sequence[tuple[int, int]]) -> State:
        """
        Return the state after the whole source is read and sent.

        :param ends: of each lane the number of its last valid row, and how many it has.
        """
        return replace(self, lanes=tuple(lane.at_end(*end) for lane, end in zip(self.lanes, ends, strict=True)))

    def after_writing(self, numbers: Sequence[int]) -> State:
        """Return the state after the rejected batch of these rows is written to ``rejected_path``."""
        if self.rejection is None:
            return self
        unwritten = tuple(other for other in self.rejection.unwritten if other != tuple(numbers))
        return replace(self, rejection=replace(self.rejection, unwritten=unwritten))


@dataclass(frozen=True, slots=True)
class _Stored:
    """The stored value. ``read`` and ``invalid`` are for the summary of a try that ends before it reads as far."""

    format: int
    fingerprint: str
    source: str
    lanes: list[LaneProgress]
    rejection: Rejection | None
    read: int = 0
    invalid: int = 0


@dataclass(frozen=True, slots=True)
class Resumed:
    """
    What earlier tries have left of the same source.

    :param lanes: the progress of each lane, None if none fits.
    :param rejection: what the API has rejected of this source, None if nothing.
    :param read: how many rows they had read.
    :param invalid: how many of these were invalid.
    :param stale: whether progress of another fingerprint is stored.
    """

    lanes: tuple[LaneProgress, ...] | None = None
    rejection: Rejection | None = None
    read: int = 0
    invalid: int = 0
    stale: bool = False


@dataclass(slots=True)
class Checkpoint:
    """
    Reads, encodes and deletes the stored state of one push.

    :param store: stores it from one try to the next.
    :param source: what identifies the source: host, shop, operator and the identity of its rows.
    :param settings: whatever else decides which row is sent in which batch and lane.
    """

    store: StateStore
    source: Mapping[str, object]
    settings: Mapping[str, object]
    _source: str = field(init=False)
    _fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        self._source = _hash(self.source)
        self._fingerprint = _hash({**self.settings, "source": self._source})

    def load(self) -> Resumed:
        """
        Return what earlier tries have left.

        :raises BubblehouseTransientError: if the store does not answer. It may hold a rejection.
        """
        try:
            stored = self.store.get(KEY)
        except Exception as error:
            raise BubblehouseTransientError(
                f"Airflow's task state store cannot be read ({type(error).__name__}), so it is not known which rows "
                "earlier tries have completed; nothing was sent. A retry reads it again."
            ) from error
        if stored is None:
            return Resumed()
        try:
            found = msgspec.convert(stored, _Stored)
        except msgspec.ValidationError:
            found = None
        if found is None or found.format != _FORMAT:
            log.warning("The stored progress is of another version of this package; the push starts over.")
            return Resumed(stale=True)
        rejection = found.rejection if found.source == self._source else None
        if found.fingerprint != self._fingerprint or not found.lanes:
            log.info("An earlier try had another source or other settings; the push starts over.")
            return Resumed(rejection=rejection, stale=True)
        return Resumed(tuple(found.lanes), rejection, found.read, found.invalid)

    def encode(self, state: State, *, read: int, invalid: int) -> dict[str, Any]:
        """Return a state as the JSON value to store."""
        value = _Stored(
            _FORMAT, self._fingerprint, self._source, list(state.lanes), state.rejection, read=read, invalid=invalid
        )
        encoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(value))  # Airflow's store takes no tuple
        return encoded


def delete_state(store: StateStore) -> None:
    """
    Delete what earlier tries have stored.

    :param store: stores it.
    :raises BubblehouseTransientError: if the store does not answer: progress that is older than what is sent next would
        let a later try skip rows.
    """
    try:
        store.delete(KEY)
    except Exception as error:
        raise BubblehouseTransientError(
            "The progress of an earlier try cannot be deleted from Airflow's task state store "
            f"({type(error).__name__}); nothing was sent. A retry deletes it first."
        ) from error


def _hash(value: Mapping[str, object]) -> str:
    text = msgspec.json.encode(value, order="deterministic", enc_hook=repr)
    return hashlib.sha256(text).hexdigest()
