"""The parameters of a push, as the operators give them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

DEFAULT_MAX_BATCH_BYTES = 1024 * 1024  # what common proxies accept by default


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """
    How a push reads, sends and fails.

    :param batch_size: the maximum number of customers in a call.
    :param max_batch_bytes: the maximum number of bytes in the body of a call.
    :param in_flight: how many calls are under way at once, each in a lane of its own.
    :param max_attempts: how often a call that fails transiently is made at most.
    :param max_attempt_seconds: give up if the next wait would end more than this many seconds after the first attempt.
    :param rate_limit_wait: how many seconds in total the push may wait for a rate limit.
    :param max_calls_per_second: how many calls begin in a second at most; None for no limit.
    :param skip_invalid: send the valid rows of a source that has invalid ones; otherwise refuse the whole source.
    :param continue_after_rejection: send the rest after the API rejects a batch, and fail at the end.
    :param min_customers: refuse a source with fewer rows; None for no limit.
    :param max_customers: refuse a source with more rows; None for no limit.
    :param max_invalid: with ``skip_invalid``, refuse a source with more invalid rows: a count, or a share of all rows
        if it is below 1; None for no limit.
    :param debug: ask the API for ``debug``; a source of more than one batch is then refused.
    """

    batch_size: int
    max_batch_bytes: int
    in_flight: int = 1
    max_attempts: int
    max_attempt_seconds: float
    rate_limit_wait: float = 0.0
    max_calls_per_second: float | None = None
    skip_invalid: bool = False
    continue_after_rejection: bool = False
    min_customers: int | None = None
    max_customers: int | None = None
    max_invalid: float | None = None
    debug: bool = False

    @property
    def validates_first(self) -> bool:
        """Whether the whole source is read before the first call."""
        limits = (self.min_customers, self.max_customers, self.max_invalid)
        return not self.skip_invalid or any(limit is not None for limit in limits)

    def settings(self) -> dict[str, Any]:
        """Return the parameters that decide which rows are sent, and in which batch and lane."""
        return {
            "batch_size": self.batch_size,
            "max_batch_bytes": self.max_batch_bytes,
            "in_flight": self.in_flight,
            "skip_invalid": self.skip_invalid,
            "min_customers": self.min_customers,
            "max_customers": self.max_customers,
            "max_invalid": self.max_invalid,
        }
