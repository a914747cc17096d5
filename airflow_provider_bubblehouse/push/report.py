"""What a push reports: counts, invalid rows by field and reason, log lines and metrics. Never a value of a row."""

from __future__ import annotations

import logging
import time
from bisect import bisect_right
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from airflow_provider_bubblehouse.plural import plural
from airflow_provider_bubblehouse.push.progress import State

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from airflow_provider_bubblehouse.customers.converter import InvalidRow
    from airflow_provider_bubblehouse.customers.invalid import InvalidCustomerError
    from airflow_provider_bubblehouse.errors import RejectedError
    from airflow_provider_bubblehouse.push.batches import Batch

log = logging.getLogger(__name__)

_ROWS_SHOWN = 5  # enough to find a fault that many rows share
_KINDS_SHOWN = 20  # nobody reads a message with more


@dataclass(slots=True)
class Summary:
    """
    The counts of a push. ``read`` is always the sum of ``invalid``, ``unchanged``, ``accepted``, ``rejected`` and
    ``unsent``.

    :param read: rows read over all tries.
    :param invalid: the invalid ones among them.
    :param state: what all tries have completed.
    :param resumed_at: how many rows earlier tries had completed.
    :param accepted_before: how many of them the API had accepted.
    :param unchanged_before: how many of them were unchanged.
    :param batches: how many batches this try completed, or in a dry run created.
    :param calls: how many calls this try made, repeated ones included.
    :param retries: how many of them were repeated.
    :param rejected_path: the folder that rejected and invalid rows were written to.
    """

    read: int = 0
    invalid: int = 0
    state: State = field(default_factory=State)
    resumed_at: int = 0
    accepted_before: int = 0
    unchanged_before: int = 0
    batches: int = 0
    calls: int = 0
    retries: int = 0
    rejected_path: str | None = None
    _started: float = field(default_factory=time.monotonic)

    @property
    def accepted_now(self) -> int:
        """How many rows the API has accepted in this try."""
        return self.state.accepted - self.accepted_before

    @property
    def unchanged_now(self) -> int:
        """How many rows did not have to be sent in this try."""
        return self.state.unchanged - self.unchanged_before

    @property
    def rows_per_second(self) -> float:
        """How many rows this try has completed in a second."""
        return (self.state.completed - self.resumed_at) / max(time.monotonic() - self._started, 0.001)

    def as_dict(self) -> dict[str, Any]:
        """Return the counts and the seconds since the start, for XCom."""
        return {
            "read": self.read,
            "invalid": self.invalid,
            "unchanged": self.state.unchanged,
            "accepted": self.state.accepted,
            "rejected": self.state.rejected,
            "unsent": self.read - self.invalid - self.state.completed,
            "resumed_at": self.resumed_at,
            "batches": self.batches,
            "calls": self.calls,
            "retries": self.retries,
            "seconds": round(time.monotonic() - self._started, 3),
            "rejected_path": self.rejected_path,
        }


class Report:
    """
    Counts, logs and measures what happens to the rows.

    :param count: increments a metric.
    :param measure: adds a duration to a metric.
    """

    def __init__(
        self,
        *,
        count: Callable[[str, int], None] = lambda _name, _number: None,
        measure: Callable[[str, timedelta], None] = lambda _name, _duration: None,
    ) -> None:
        self.summary = Summary()
        self.invalid_rows = InvalidRows()
        self.places = Places()
        self.rows_by_file: Counter[str] | None = None  # once a pass has read the whole source
        self._count = count
        self._measure = measure

    def add_invalid(self, rows: Sequence[InvalidRow]) -> None:
        """Report invalid rows."""
        for row in rows:
            self.invalid_rows.add(*self.places.of(row.number), row.error)
        self._count("bubblehouse.customers.invalid", len(rows))

    def add_call(self, *, again: bool, seconds: float) -> None:
        """Report a call and how long it took; ``again`` says that it repeats an earlier one."""
        self.summary.calls += 1
        self._count("bubblehouse.calls", 1)
        self._measure("bubblehouse.call.duration", timedelta(seconds=seconds))  # its unit is Airflow's setting
        if again:
            self.summary.retries += 1
            self._count("bubblehouse.retries", 1)

    def add_batch(self, batch: Batch, error: RejectedError | None) -> None:
        """Report a completed batch; ``error`` is None where the API accepted it."""
        self.summary.batches += 1
        self._count(f"bubblehouse.customers.{'accepted' if error is None else 'rejected'}", batch.rows)
        if error is not None:
            first, last = (name_rows([self.places.of(batch.numbers[end])]) for end in (0, -1))
            which = first if batch.rows == 1 else f"{first} to {last}"
            log.error("%s The batch has %s: %s.", error, plural(batch.rows, "row"), which)

    def log_progress(self, share_read: float | None) -> None:
        """Log how far the push has come; ``share_read`` is the share of the source that is read, None if not known."""
        summary = self.summary
        log.info(
            "Progress: %s read, %s completed, %s, %s rows/s, %s%s.",
            plural(summary.read, "row"),
            f"{summary.state.completed:,}",
            plural(summary.batches, "batch", "batches"),
            f"{summary.rows_per_second:,.0f}",
            plural(summary.retries, "retry", "retries"),
            "" if share_read is None else f", {share_read:.0%} of the source read",
        )

    def finish(self) -> None:
        """Report the unchanged rows, and log the invalid rows and the counts."""
        if self.summary.unchanged_now:
            self._count("bubblehouse.customers.unchanged", self.summary.unchanged_now)
        if self.invalid_rows.count:
            log.warning("Invalid rows: %s", self.invalid_rows)
        log.info("Summary of the push: %s", self.summary.as_dict())


class Places:
    """Converts a row's number in the source to its file and its number in that file."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._files: list[str] = []

    def clear(self) -> None:
        """Forget all files, before the source is read again."""
        self._starts.clear()
        self._files.clear()

    def begin(self, file: str, first_number: int) -> None:
        """
        Note that a file begins.

        :param file: its name, empty for a list.
        :param first_number: the number in the source of its first row.
        """
        if not self._files or self._files[-1] != file:
            self._files.append(file)
            self._starts.append(first_number)

    def of(self, number: int) -> tuple[str, int]:
        """Return the file of a row, and its number there."""
        place = bisect_right(self._starts, number) - 1
        return self._files[place], number - self._starts[place] + 1


class InvalidRows:
    """Invalid rows, counted by field and reason, with the first rows of each; takes no more memory with more rows."""

    def __init__(self) -> None:
        self.count = 0
        self._faults: dict[str, _Fault] = {}

    def add(self, file: str, number: int, error: InvalidCustomerError) -> None:
        """
        Count one row.

        :param file: the name of its file, empty for a list.
        :param number: its number there.
        :param error: what is wrong with it.
        """
        self.count += 1
        kind = str(error)
        if kind not in self._faults and len(self._faults) >= _KINDS_SHOWN:
            kind = "has faults of further kinds"
        fault = self._faults.setdefault(kind, _Fault())
        fault.count += 1
        if len(fault.first_rows) < _ROWS_SHOWN:
            fault.first_rows.append((file, number if error.byte is None else f"{number} (byte {error.byte})"))

    def faults(self) -> Iterator[tuple[str, int, list[tuple[str, int | str]]]]:
        """Yield what is wrong, with how many rows, and of the first of them file and number (see ``name_rows``)."""
        for kind, fault in self._faults.items():
            yield kind, fault.count, fault.first_rows

    def __str__(self) -> str:
        return "; ".join(f"{fault}: {kind}" for kind, fault in self._faults.items())


@dataclass(slots=True)
class _Fault:
    count: int = 0
    first_rows: list[tuple[str, int | str]] = field(default_factory=list)

    def __str__(self) -> str:
        further = self.count - len(self.first_rows)
        return name_rows(self.first_rows) + (f" and {plural(further, 'more row')}" if further else "")


def name_rows(rows: Iterable[tuple[str, int | str]]) -> str:
    """
    Return the words for rows, such as ``customers.csv, rows 1, 2``.

    :param rows: of each its file, empty for a list, and its number there, which may be followed by a place in the row.
    """
    words = []
    for file, some in groupby(rows, key=itemgetter(0)):
        numbers = [str(number) for _, number in some]
        words.append(f"{file}, " * bool(file) + f"row{'s' * (len(numbers) > 1)} {', '.join(numbers)}")
    return " and ".join(words)
