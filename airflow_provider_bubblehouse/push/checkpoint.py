"""What a push keeps for its next try: how many rows of each lane are settled, and of which source. Never a row."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from airflow_provider_bubblehouse.errors import BubblehouseTransientError

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)

FORMAT = 1  # of what is stored, and of the way in which rows are dealt to lanes
_KEY = "bubblehouse_push"


class StateStore(Protocol):
    """Keeps JSON values from one try of a task to the next, such as Airflow's ``task_state_store``."""

    def get(self, key: str) -> Any:
        """Return a value, None if there is none."""

    def set(self, key: str, value: Any) -> None:
        """Keep a value."""

    def delete(self, key: str) -> None:
        """Forget a value."""


@dataclass(slots=True)
class Lane:
    """How many rows of a lane the API has accepted and rejected; all of them lie before those that are not settled."""

    accepted: int = 0
    rejected: int = 0


@dataclass(slots=True)
class Progress:
    """
    How far a push has come, over all tries.

    :param lanes: the rows settled, by lane.
    :param read: rows read so far, those that no call was made of included.
    :param invalid: the invalid ones among them.
    :param status: the HTTP status of the first rejection, None while there is none.
    :param error_id: the API's ``id`` of it.
    """

    lanes: list[Lane] = field(default_factory=list)
    read: int = 0
    invalid: int = 0
    status: int | None = None
    error_id: str | None = None

    @property
    def accepted(self) -> int:
        """Rows that the API took."""
        return sum(lane.accepted for lane in self.lanes)

    @property
    def rejected(self) -> int:
        """Rows in calls that the API refused."""
        return sum(lane.rejected for lane in self.lanes)


@dataclass(frozen=True, slots=True)
class _Kept:
    fingerprint: str
    progress: Progress


class Checkpoint:
    """
    Keeps the progress of one source in a store. A store that does not take it costs the progress, never the push.

    :param store: keeps it from one try to the next.
    :param fingerprint: what the progress depends on; that of another one is not taken up.
    """

    def __init__(self, store: StateStore, fingerprint: Mapping[str, object]) -> None:
        self._store = store
        text = msgspec.json.encode({**fingerprint, "format": FORMAT}, order="deterministic", enc_hook=repr)
        self._fingerprint = hashlib.sha256(text).hexdigest()
        self._failing = False

    def load(self) -> Progress | None:
        """
        Return the progress of an earlier try, None if there is none of this source.

        :raises BubblehouseTransientError: if the store does not answer: what it may know as rejected must not be sent.
        """
        try:
            stored = self._store.get(_KEY)
        except Exception as error:
            raise BubblehouseTransientError(
                f"Airflow's task state store cannot be read ({type(error).__name__}), and with it what earlier tries "
                "have settled; nothing was sent. A retry may help; resume=False does without."
            ) from error
        if stored is None:
            return None
        try:
            kept = msgspec.convert(stored, _Kept)
        except msgspec.ValidationError:
            log.warning("The progress of an earlier try cannot be understood; the push starts over.")
            return None
        if kept.fingerprint != self._fingerprint:
            log.info("An earlier try had another source or other settings; the push starts over.")
            return None
        return kept.progress

    def save(self, progress: Progress) -> bool:
        """Keep the progress, and say whether the store took it."""
        try:
            self._store.set(_KEY, msgspec.to_builtins(_Kept(self._fingerprint, progress)))
        except Exception:
            if not self._failing:  # said once: there is an attempt every second
                log.warning("The progress cannot be kept; a retry may send again what is settled.", exc_info=True)
            self._failing = True
        else:
            self._failing = False
        return not self._failing

    def delete(self) -> None:
        """Forget the progress."""
        forget_progress(self._store)


def forget_progress(store: StateStore) -> None:
    """
    Forget the progress of whatever source.

    :param store: what keeps it.
    """
    try:
        store.delete(_KEY)
    except Exception:
        log.warning("The progress of this push cannot be deleted.", exc_info=True)
