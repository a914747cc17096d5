"""Reading ahead: in order, not too far, and nobody waits for a store that hangs."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING

import fsspec
import pytest

from airflow_provider_bubblehouse.exceptions import BubblehousePermanentError
from airflow_provider_bubblehouse.sources import ahead
from airflow_provider_bubblehouse.sources.ahead import read_ahead, wait_for
from airflow_provider_bubblehouse.sources.files import FileSource

if TYPE_CHECKING:
    from airflow_provider_bubblehouse.customers.blocks import Block

SOON = 10.0  # seconds; fails a test that would otherwise hang


def test_all_items_come_in_order():
    numbers = (number for number in range(1000))
    assert list(read_ahead(numbers, most=3, patience=SOON)) == list(range(1000))


def test_an_error_comes_after_the_items_before_it():
    def broken():
        yield 1
        raise BubblehousePermanentError("broken")

    read = read_ahead(broken(), most=3, patience=SOON)
    assert next(read) == 1
    with pytest.raises(BubblehousePermanentError, match="broken"):
        next(read)


def test_it_is_ahead_by_no_more_than_it_may_be():
    made, third = [], threading.Event()

    def items():
        for number in range(10):
            made.append(number)
            if number == 3:
                third.set()
            yield number

    with closing(read_ahead(items(), most=2, patience=SOON)) as read:
        assert next(read) == 0
        assert third.wait(SOON)  # one is taken, two are ready, and one waits for room
        assert made == [0, 1, 2, 3]


def test_a_slow_item_is_not_yielded_early_and_close_does_not_wait_for_it():
    hang, closed = threading.Event(), threading.Event()

    def items():
        try:
            yield 1
            hang.wait(SOON)
            yield 2
        finally:
            closed.set()

    read = read_ahead(items(), most=2, patience=0.01)
    first = next(read)
    while first is None:
        first = next(read)
    assert [next(read), next(read)] == [None, None]
    began = time.monotonic()
    read.close()
    assert time.monotonic() - began < SOON / 2
    assert not closed.is_set()
    hang.set()
    assert closed.wait(SOON)


def test_a_caller_that_leaves_ends_the_thread():
    with closing(read_ahead((number for number in range(1000)), most=3, patience=SOON)) as read:
        next(read)
    assert not any(thread.name == "bubblehouse-read-ahead" for thread in threading.enumerate())


@pytest.mark.parametrize("value", [7, None])
def test_a_call_that_is_waited_for_returns_its_value(value):
    assert wait_for(lambda: value, tick=lambda: None) == value


def test_a_call_that_is_waited_for_raises_its_error():
    def call():
        raise BubblehousePermanentError("broken")

    with pytest.raises(BubblehousePermanentError, match="broken"):
        wait_for(call, tick=lambda: None)


def test_waiting_for_a_call_ends_with_the_error_of_a_tick(monkeypatch):
    monkeypatch.setattr(ahead, "PATIENCE", 0.01)
    hang = threading.Event()

    def tick():
        raise BubblehousePermanentError("stopped")

    with pytest.raises(BubblehousePermanentError, match="stopped"):
        wait_for(lambda: hang.wait(SOON), tick=tick)
    hang.set()


class Slow(type(fsspec.filesystem("memory"))):
    """A store whose second file cannot be opened before it is let."""

    protocol = "slow"
    cachable = False

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.let = threading.Event(), threading.Event()

    def _open(self, path, mode="rb", **kwargs):
        if path.endswith("b.jsonl") and mode == "rb":
            self.asked.set()
            self.let.wait(SOON)
        return super()._open(path, mode, **kwargs)


@pytest.fixture
def slow() -> Slow:
    store = Slow()
    for name in ("a", "b"):
        store.pipe_file(f"/slow/{name}.jsonl", f'{{"id": "{name}"}}\n'.encode())
    return store


def rows(block: Block) -> list[object]:
    return [block.record(place) for place in range(block.count)]


def test_the_next_file_is_opened_while_the_rows_of_the_one_before_are_worked_on(slow):
    with closing(FileSource(slow, "/slow/*.jsonl").chunks()) as chunks:
        assert rows(next(chunks)) == [{"id": "a"}]
        assert slow.asked.wait(SOON)
        slow.let.set()
        assert [record for chunk in chunks for record in rows(chunk)] == [{"id": "b"}]


def test_a_store_that_hangs_yields_chunks_without_rows_meanwhile(slow, monkeypatch):
    monkeypatch.setattr(ahead, "PATIENCE", 0.01)
    with closing(FileSource(slow, "/slow/*.jsonl").chunks()) as chunks:
        while not rows(next(chunks)):
            pass
        waiting = next(chunks)
        assert (waiting.file, rows(waiting)) == ("/slow/a.jsonl", [])
        slow.let.set()
        assert [record for chunk in chunks for record in rows(chunk)] == [{"id": "b"}]
