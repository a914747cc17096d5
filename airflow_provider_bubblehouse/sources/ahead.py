"""Calls of a store in a thread of their own, so that a store that is slow or hangs holds up nobody else."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Event, Semaphore, Thread
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

T = TypeVar("T")

PATIENCE = 0.5  # seconds; how long a store may hold up the caller
_LAST_WORDS = 0.5  # seconds that a thread may take to close its file; one that hangs is left alone


@dataclass(frozen=True, slots=True)
class _End:
    error: BaseException | None


def read_ahead(items: Generator[T, None, None], *, most: int, patience: float) -> Iterator[T | None]:
    """
    Iterate in a thread of its own.

    :param items: what to iterate over; closed in that thread.
    :param most: how many items the thread may be ahead.
    :param patience: seconds after which ``None`` is yielded in place of an item that takes longer, so that the caller
        can do something else meanwhile, or stop.
    """
    done: SimpleQueue[T | _End] = SimpleQueue()
    room, gone = Semaphore(most), Event()

    def run() -> None:
        error = None
        try:
            with closing(items):
                for item in items:
                    room.acquire()
                    if gone.is_set():
                        return
                    done.put(item)
        except BaseException as caught:  # noqa: BLE001  raised where the items are wanted
            error = caught
        finally:
            done.put(_End(error))

    thread = Thread(target=run, name="bubblehouse-read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            try:
                item = done.get(timeout=patience)
            except Empty:
                yield None
                continue
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            room.release()
            yield item
    finally:
        gone.set()
        room.release()
        thread.join(_LAST_WORDS)


def wait_for(call: Callable[[], T], *, tick: Callable[[], None]) -> T | None:
    """
    Return what a call returns that may take long.

    :param call: made in a thread of its own.
    :param tick: called meanwhile, a few times a second; what it raises ends the waiting, and the call is left alone.
    """

    def once() -> Generator[T, None, None]:
        yield call()

    for result in read_ahead(once(), most=1, patience=PATIENCE):
        if result is not None:
            return result
        tick()
    return None
