"""Chunks of rows become customers as JSON: each encoded once, and each that is no customer told from the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_bubblehouse.api.customers import (
    InvalidCustomerError,
    encode_customer,
    identity_of,
)
from airflow_provider_bubblehouse.push.batches import Encoded
from airflow_provider_bubblehouse.push.chunks import NOT_PLAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow_provider_bubblehouse.push.batches import Customers
    from airflow_provider_bubblehouse.push.chunks import Chunk


@dataclass(frozen=True, slots=True)
class InvalidRow:
    """
    A row that is no customer.

    :param number: its number in the source.
    :param error: what is wrong with it.
    :param record: what stands in the source.
    """

    number: int
    error: InvalidCustomerError
    record: object


@dataclass(frozen=True, slots=True)
class CheckedChunk:
    """
    A chunk of rows, sorted into good and bad.

    :param count: how many rows there were.
    :param numbers: the number in the source of each good one.
    :param identities: what tells each of these customers from others: its id, or else its email.
    :param customers: returns these customers, which a pass that only validates does without.
    :param invalid: the others.
    """

    count: int
    numbers: Sequence[int]
    identities: Sequence[str]
    customers: Callable[[], Customers]
    invalid: list[InvalidRow]


class CustomerEncoder:
    """
    Checks and encodes chunks of rows.

    :param normalise: turns a record into the customer to send, or raises ``InvalidCustomerError``.
    :param plain_pass: whether a customer that needs no change is sent without ``normalise``, which is ten times as
        quick.
    :param largest: how many bytes a customer may have as JSON; one with more is an invalid row, for it would make an
        oversized call.
    """

    def __init__(self, normalise: Callable[[object], Mapping[str, Any]], *, plain_pass: bool, largest: int) -> None:
        self._normalise = normalise
        self._plain_pass = plain_pass
        self._largest = largest

    def check(self, chunk: Chunk, first_number: int) -> CheckedChunk:
        """
        Check one chunk, whose customers can then be encoded.

        :param chunk: the rows.
        :param first_number: the number of the first one in the source.
        """
        checked = self._check_plain(chunk, first_number) if self._plain_pass else None
        return checked if checked is not None else self._check_each(chunk, first_number)

    def _check_plain(self, chunk: Chunk, first_number: int) -> CheckedChunk | None:
        """Check a chunk in one go; None where any row of it needs a closer look."""
        try:
            rows = chunk.plain_rows()
        except NOT_PLAIN:
            return None
        if rows.bound > self._largest and max(map(len, rows.customers().lines), default=0) > self._largest:
            return None
        count = len(rows.identities)
        return CheckedChunk(count, range(first_number, first_number + count), rows.identities, rows.customers, [])

    def _check_each(self, chunk: Chunk, first_number: int) -> CheckedChunk:
        numbers: list[int] = []
        customers: list[bytes] = []
        identities: list[str] = []
        invalid: list[InvalidRow] = []
        number = first_number - 1
        for number, record in enumerate(chunk.records(), first_number):
            try:
                customer = self._normalise(record)
                encoded = encode_customer(customer)
                if len(encoded) > self._largest:
                    raise InvalidCustomerError("the row has more bytes as JSON than max_batch_bytes allows")
            except InvalidCustomerError as error:
                invalid.append(InvalidRow(number, error, error.record if error is record else record))
            else:
                numbers.append(number)
                customers.append(encoded)
                identities.append(identity_of(customer))
        return CheckedChunk(number - first_number + 1, numbers, identities, lambda: Encoded(customers), invalid)
