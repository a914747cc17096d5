"""Encoded customers are put together into the bodies of calls, by count and by bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DEFAULT_MAX_BATCH_BYTES = 1024 * 1024  # what common proxies take without being told

_HEAD, _TAIL, _DEBUG_TAIL = b'{"customers":[', b"]}", b'],"debug":true}'


@dataclass(frozen=True, slots=True)
class Batch:
    """
    The customers of one call.

    :param numbers: the number in the source of each.
    :param body: the payload of UpdateCustomers3.
    """

    numbers: Sequence[int]
    body: bytes

    @property
    def rows(self) -> int:
        """How many customers there are."""
        return len(self.numbers)

    def customers(self) -> list[msgspec.Raw]:
        """Return each customer as JSON."""
        return msgspec.json.decode(self.body, type=_Payload).customers


class _Payload(msgspec.Struct):
    customers: list[msgspec.Raw]


def largest_customer(max_batch_bytes: int) -> int:
    """Return how many bytes a customer may have as JSON to fit into a call of its own."""
    return max_batch_bytes - len(_HEAD) - len(_DEBUG_TAIL)


class Batcher:
    """
    Puts customers together in their order; a batch is full before it would break a limit.

    :param batch_size: how many customers a call has at most.
    :param max_batch_bytes: how many bytes a call's body has at most.
    :param debug: whether the calls ask for ``debug``.
    """

    def __init__(self, *, batch_size: int, max_batch_bytes: int, debug: bool = False) -> None:
        self._batch_size = batch_size
        self._room = largest_customer(max_batch_bytes)
        self._debug = debug
        self._numbers: list[int] = []
        self._customers: list[bytes] = []
        self._size = 0

    def add(self, numbers: Sequence[int], customers: Sequence[bytes]) -> Iterator[Batch]:
        """
        Add customers, and yield the batches that are full.

        :param numbers: the number in the source of each.
        :param customers: customers as JSON, none larger than ``largest_customer``.
        """
        start = 0
        while start < len(customers):
            end = self._fitting_end(customers, start)
            self._customers += customers[start:end]
            self._numbers += numbers[start:end]
            start = end
            if start < len(customers):
                yield from self.rest()

    def _fitting_end(self, customers: Sequence[bytes], start: int) -> int:
        """Return the end of the slice that fits in, and count its bytes."""
        end = min(len(customers), start + self._batch_size - len(self._customers))
        size = sum(map(len, customers[start:end])) + end - start  # each with its comma
        if self._size + size <= self._room:
            self._size += size
            return end
        for place in range(start, end):
            size = len(customers[place]) + 1
            if (self._customers or place > start) and self._size + size > self._room:
                return place
            self._size += size
        return end

    def rest(self) -> Iterator[Batch]:
        """Yield the batch under way, if there is one."""
        if self._customers:
            yield Batch(self._numbers, body_of(self._customers, debug=self._debug))
            self._numbers, self._customers, self._size = [], [], 0


def body_of(customers: Sequence[bytes], *, debug: bool = False) -> bytes:
    """
    Return the payload of UpdateCustomers3.

    :param customers: customers as JSON.
    :param debug: whether the call asks for ``debug``.
    """
    return _HEAD + b",".join(customers) + (_DEBUG_TAIL if debug else _TAIL)
