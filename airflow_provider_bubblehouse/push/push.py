"""The push of a source: reads, validates, cuts batches, calls, and counts what became of every row."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_provider_bubblehouse.api.customers import InvalidCustomerError, encode_customer
from airflow_provider_bubblehouse.exceptions import (
    UPDATE_CUSTOMERS,
    BubblehouseError,
    BubblehousePermanentError,
    BubblehouseRejectedError,
)
from airflow_provider_bubblehouse.push.batches import Batch, cut_batches, largest_customer
from airflow_provider_bubblehouse.push.summary import InvalidRows, Summary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from airflow_provider_bubblehouse.api.client import Client
    from airflow_provider_bubblehouse.push.attempts import Attempts
    from airflow_provider_bubblehouse.push.sources import Source

log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Push:
    """
    One push of a whole source.

    :param source: where the rows come from.
    :param normalise: turns a record into the customer to send, or raises ``InvalidCustomerError``.
    :param client: makes the calls; None for a dry run, which makes none.
    :param attempts: how often and how long a call is tried.
    :param batch_size: how many customers a call has at most.
    :param max_batch_bytes: how many bytes a call's body has at most.
    :param skip_invalid: send the rest of a source with invalid rows; else such a source is refused whole.
    :param max_customers: a source with more rows is refused whole; None for any number. Not with ``skip_invalid``.
    :param debug: ask the API for ``debug``; a source of more than one batch is then refused.
    """

    source: Source
    normalise: Callable[[object], Mapping[str, Any]]
    client: Client | None
    attempts: Attempts
    batch_size: int
    max_batch_bytes: int
    skip_invalid: bool = False
    max_customers: int | None = None
    debug: bool = False
    summary: Summary = field(default_factory=Summary, init=False)
    invalid_rows: InvalidRows = field(default_factory=InvalidRows, init=False)

    def run(self) -> dict[str, Any]:
        """
        Push all rows.

        :return: the counts (see ``Summary``).
        :raises BubblehouseError: with the counts so far as its ``summary``.
        """
        try:
            self._run()
        except BubblehouseError as error:
            error.summary = self.summary.as_dict()
            raise
        finally:
            if self.invalid_rows.count:
                log.warning("Invalid rows: %s", self.invalid_rows)
            log.info("Summary of the push: %s", self.summary.as_dict())
        return self.summary.as_dict()

    def _run(self) -> None:
        version = self.source.version()
        on_invalid: Callable[[str, int, InvalidCustomerError], None]
        if self.skip_invalid:
            counts, on_invalid = self.summary, self._count_invalid
        else:
            self._validate()
            counts, on_invalid = Summary(), _refuse_change
        customers = self._customers(counts, on_invalid)
        batches = cut_batches(
            customers, batch_size=self.batch_size, max_batch_bytes=self.max_batch_bytes, debug=self.debug
        )
        for batch in self._only_one(batches) if self.debug else batches:
            if self.client is not None:
                self._send(self.client, batch)
            self.summary.batches += 1
        if self.source.version() != version or counts.read != self.summary.read:
            raise _changed_error()

    def _validate(self) -> None:
        """Read the whole source once before anything is sent."""
        for _ in self._customers(self.summary, self._count_invalid):
            if self.max_customers is not None and self.summary.read > self.max_customers:
                raise BubblehousePermanentError(
                    f"The source has more than the {self.max_customers} rows that max_customers allows; "
                    "nothing was sent. Check the source before you raise max_customers."
                )
        if self.invalid_rows.count:
            raise BubblehousePermanentError(
                f"{'Row' if self.invalid_rows.count == 1 else 'Rows'} to mend first: {self.invalid_rows.count} of "
                f"{self.summary.read} are invalid, and nothing was sent. {self.invalid_rows}."
            )

    def _customers(
        self, counts: Summary, on_invalid: Callable[[str, int, InvalidCustomerError], None]
    ) -> Iterator[bytes]:
        """Read the source once and yield its customers as JSON."""
        largest = largest_customer(self.max_batch_bytes)
        for chunk in self.source.chunks():
            counts.read += len(chunk.records)
            for row, record in enumerate(chunk.records, chunk.first_row):
                try:
                    customer = encode_customer(self.normalise(record))
                    if len(customer) > largest:
                        raise InvalidCustomerError("the row has more bytes as JSON than max_batch_bytes allows")
                except InvalidCustomerError as error:
                    on_invalid(chunk.file, row, error)
                else:
                    yield customer

    def _count_invalid(self, file: str, row: int, error: InvalidCustomerError) -> None:
        self.summary.invalid += 1
        self.invalid_rows.add(file, row, error)

    def _only_one(self, batches: Iterator[Batch]) -> list[Batch]:
        first_two = list(islice(batches, 2))
        if len(first_two) > 1:
            raise BubblehousePermanentError(
                "The source has more than one batch, which debug does not allow; nothing was sent. "
                "Leave debug out, or push a small sample with it."
            )
        return first_two

    def _send(self, client: Client, batch: Batch) -> None:
        def call() -> None:
            self.summary.calls += 1
            client.call(UPDATE_CUSTOMERS, batch.body, debug=self.debug)

        try:
            self.attempts.call(call, on_retry=self._count_retry)
        except BubblehouseRejectedError:
            self.summary.rejected += batch.rows
            self.summary.batches += 1
            raise
        self.summary.accepted += batch.rows

    def _count_retry(self) -> None:
        self.summary.retries += 1


def _refuse_change(_file: str, _row: int, _error: InvalidCustomerError) -> None:
    """A row that was good in the first pass is not in the second."""
    raise _changed_error() from None


def _changed_error() -> BubblehousePermanentError:
    return BubblehousePermanentError(
        "The source was changed while being read. What was sent may be sent again; run the task again when the "
        "source stands still."
    )
