"""Run the calls of a store in a separate thread, so that a slow or hanging store does not block the push."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Event, Semaphore, Thread
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

T = TypeVar("T")

PATIENCE = 0.5  # seconds; how long the caller waits for a store before it does something else
_JOIN_TIMEOUT = 0.5  # seconds for a thread to close its file; a hanging thread is left alone


@dataclass(frozen=True, slots=True)
class _End:
    error: BaseException | None


def read_ahead(items: Generator[T, None, None], *, most: int, patience: float) -> Iterator[T | None]:
    """
    Iterate in a separate thread.

    :param items: the generator to iterate over; that thread also closes it.
    :param most: the maximum number of items that the thread reads ahead.
    :param patience: seconds to wait for an item. If it takes longer, ``None`` is yielded, so that the caller can do
        something else, or stop.
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
        except BaseException as caught:  # noqa: BLE001  raised in the thread that consumes the items
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
        thread.join(_JOIN_TIMEOUT)


def wait_for(call: Callable[[], T], *, tick: Callable[[], None]) -> T | None:
    """
    Make a call that may take long, and return its result.

    :param call: the call, made in a separate thread.
    :param tick: called a few times a second meanwhile. If it raises, the wait ends and the call is abandoned.
    """

    def once() -> Generator[T, None, None]:
        yield call()

    for result in read_ahead(once(), most=1, patience=PATIENCE):
        if result is not None:
            return result
        tick()
    return None
