"""Encoded customers are put together into the bodies of calls, by count and by bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_HEAD, _TAIL, _DEBUG_TAIL = b'{"customers":[', b"]}", b'],"debug":true}'


@dataclass(frozen=True, slots=True)
class Batch:
    """
    The customers of one call.

    :param rows: how many there are.
    :param body: the payload of UpdateCustomers3.
    """

    rows: int
    body: bytes


def largest_customer(max_batch_bytes: int) -> int:
    """Return how many bytes a customer may have as JSON to fit into a call of its own."""
    return max_batch_bytes - len(_HEAD) - len(_DEBUG_TAIL)


def cut_batches(
    customers: Iterable[bytes], *, batch_size: int, max_batch_bytes: int, debug: bool = False
) -> Iterator[Batch]:
    """
    Put customers together in their order; a batch is full before it would break a limit.

    :param customers: customers as JSON, none larger than ``largest_customer``.
    :param batch_size: how many customers a call has at most.
    :param max_batch_bytes: how many bytes a call's body has at most.
    :param debug: whether the calls ask for ``debug``.
    """
    room = largest_customer(max_batch_bytes)
    rows: list[bytes] = []
    size = 0
    for customer in customers:
        if rows and (len(rows) >= batch_size or size + len(customer) + 1 > room):
            yield batch_of(rows, debug=debug)
            rows, size = [], 0
        rows.append(customer)
        size += len(customer) + 1  # with its comma
    if rows:
        yield batch_of(rows, debug=debug)


def batch_of(rows: Sequence[bytes], *, debug: bool = False) -> Batch:
    """
    Return the batch of some customers.

    :param rows: customers as JSON.
    :param debug: whether the call asks for ``debug``.
    """
    return Batch(len(rows), _HEAD + b",".join(rows) + (_DEBUG_TAIL if debug else _TAIL))
