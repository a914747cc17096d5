"""Customers are put together into the bodies of calls, by count and by bytes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar
from zlib import crc32

import msgspec

from airflow_provider_bubblehouse.customers.encoded import Encoded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from airflow_provider_bubblehouse.customers.converter import CheckedChunk
    from airflow_provider_bubblehouse.customers.encoded import Customers

T = TypeVar("T")

_HEAD, _TAIL, _DEBUG_TAIL = b'{"customers":[', b"]}", b'],"debug":true}'


@dataclass(frozen=True, slots=True)
class Batch:
    """
    The customers of one call.

    :param numbers: the number in the source of each.
    :param body: the payload of UpdateCustomers3.
    :param position: how many valid rows its lane has in the source, up to the last one of the batch; None if all of
        them are sent.
    """

    numbers: Sequence[int]
    body: bytes
    position: int | None = None

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
        self._parts: list[bytes] = []
        self._size = 0  # of the parts, with a comma after each
        self._position: int | None = None

    def add(
        self, numbers: Sequence[int], customers: Customers, positions: Sequence[int] | None = None
    ) -> Iterator[Batch]:
        """
        Add customers, and yield the batches that are full.

        :param numbers: the number in the source of each.
        :param customers: as many customers, none larger than ``largest_customer``.
        :param positions: of each how many valid rows its lane has up to it; None if all of them are sent.
        """
        start = 0
        while start < len(customers):
            part = customers[start : start + self._batch_size - len(self._numbers)]
            joined = part.joined()
            if self._size + len(joined) > self._room:
                part = self._fitting(part.lines)
                joined = part.joined()
            if part:
                self._parts.append(joined)
                self._size += len(joined) + 1
                self._numbers += numbers[start : start + len(part)]
                start += len(part)
                self._position = None if positions is None else positions[start - 1]
            if start < len(customers):
                yield from self.rest()

    def _fitting(self, lines: list[bytes]) -> Encoded:
        """Return the customers that fit into the batch, one at least into an empty one."""
        size = self._size
        for place, line in enumerate(lines):
            if size + len(line) > self._room and (self._numbers or place):
                return Encoded(lines[:place])
            size += len(line) + 1
        return Encoded(lines)

    def rest(self) -> Iterator[Batch]:
        """Yield the batch under way, if there is one."""
        if self._numbers:
            yield Batch(self._numbers, body_of(self._parts, debug=self._debug), self._position)
            self._numbers, self._parts, self._size = [], [], 0


def body_of(customers: Sequence[bytes], *, debug: bool = False) -> bytes:
    """
    Return the payload of UpdateCustomers3.

    :param customers: customers as JSON, each part one or several with commas between them.
    :param debug: whether the call asks for ``debug``.
    """
    parts = [_HEAD]
    for customer in customers:
        parts += (b",", customer)
    del parts[1:2]
    parts.append(_DEBUG_TAIL if debug else _TAIL)
    return b"".join(parts)  # once, for a copy of the whole takes as long as to send it


def lane_of(identity: str, lanes: int) -> int:
    """
    Return the lane of all updates of a customer, the same in every process and every try.

    :param identity: the customer's id, or else the email, whose case does not count.
    :param lanes: how many lanes there are.
    """
    return crc32((identity.lower() if "@" in identity else identity).encode()) % lanes


@dataclass(frozen=True, slots=True)
class LaneRows:
    """
    The valid rows of one lane in a chunk.

    :param numbers: their numbers in the source.
    :param identities: returns their identities.
    :param customers: the customers.
    """

    numbers: Sequence[int]
    identities: Callable[[], Sequence[str]]
    customers: Customers


def partition(chunk: CheckedChunk, lanes: int) -> list[LaneRows]:
    """
    Return the valid rows of each lane.

    :param chunk: some rows.
    :param lanes: how many lanes there are.
    """
    if lanes == 1:
        return [LaneRows(chunk.numbers, chunk.identities, chunk.customers())]
    places: list[list[int]] = [[] for _ in range(lanes)]
    identities, customers = chunk.identities(), chunk.customers()
    for place, identity in enumerate(identities):
        places[lane_of(identity, lanes)].append(place)
    return [
        LaneRows(_picked(chunk.numbers, mine), partial(_picked, identities, mine), customers.pick(mine))
        for mine in places
    ]


def _picked(values: Sequence[T], places: Sequence[int]) -> list[T]:
    return [values[place] for place in places]
