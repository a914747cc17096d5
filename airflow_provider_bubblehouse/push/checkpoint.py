"""What a push keeps for its next try: how many rows of each lane are settled, and of which source. Never a row."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

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


class Checkpoint:
    """
    Keeps the progress of one source in a store. A store that fails costs the progress, never the push.

    :param store: keeps it from one try to the next.
    :param fingerprint: what the progress depends on; that of another one is not taken up.
    """

    def __init__(self, store: StateStore, fingerprint: Mapping[str, object]) -> None:
        self._store = store
        text = msgspec.json.encode({**fingerprint, "format": FORMAT}, order="deterministic", enc_hook=repr)
        self._fingerprint = hashlib.sha256(text).hexdigest()

    def load(self) -> Progress | None:
        """Return the progress of an earlier try, None if there is none of this source."""
        try:
            stored = self._store.get(_KEY)
        except Exception:
            log.warning("The progress of an earlier try cannot be read; the push starts over.", exc_info=True)
            return None
        if stored is None:
            return None
        if not isinstance(stored, dict) or stored.get("fingerprint") != self._fingerprint:
            log.info("An earlier try had another source or other settings; the push starts over.")
            return None
        return msgspec.convert(stored["progress"], Progress)

    def save(self, progress: Progress) -> None:
        """Keep the progress."""
        value = {"fingerprint": self._fingerprint, "progress": msgspec.to_builtins(progress)}
        try:
            self._store.set(_KEY, value)
        except Exception:
            log.warning("The progress cannot be kept; a retry may send again what is settled.", exc_info=True)

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
