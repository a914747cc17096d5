"""What became of the rows: the counts of a push, and its invalid rows by field and reason. Never a value of a row."""

from __future__ import annotations

import time
from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from airflow_provider_bubblehouse.push.checkpoint import Progress

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from airflow_provider_bubblehouse.customers.invalid import InvalidCustomerError

_ROWS_SHOWN = 5  # enough to find a fault that many rows share
_KINDS_SHOWN = 20  # a message with more is not read


@dataclass(slots=True)
class Summary:
    """
    The counts of a push. ``read`` is always the sum of ``invalid``, ``accepted``, ``rejected`` and ``unsent``.

    :param progress: what all tries have come to.
    :param resumed_at: rows that earlier tries had settled.
    :param accepted_before: those of them that the API had accepted.
    :param batches: batches settled by this try, or in a dry run cut.
    :param calls: its calls, those made again included.
    :param retries: its calls made again for the same data.
    :param rejected_path: the folder that rejected and invalid rows were written to.
    """

    progress: Progress = field(default_factory=Progress)
    resumed_at: int = 0
    accepted_before: int = 0
    batches: int = 0
    calls: int = 0
    retries: int = 0
    rejected_path: str | None = None
    _started: float = field(default_factory=time.monotonic)

    @property
    def settled(self) -> int:
        """Rows that the API has accepted or rejected, over all tries."""
        return self.progress.accepted + self.progress.rejected

    @property
    def rows_per_second(self) -> float:
        """Rows that this try has settled, by second."""
        return (self.settled - self.resumed_at) / max(time.monotonic() - self._started, 0.001)

    def as_dict(self) -> dict[str, Any]:
        """Return the counts and the seconds since the start, for XCom."""
        progress = self.progress
        return {
            "read": progress.read,
            "invalid": progress.invalid,
            "accepted": progress.accepted,
            "rejected": progress.rejected,
            "unsent": progress.read - progress.invalid - self.settled,
            "resumed_at": self.resumed_at,
            "batches": self.batches,
            "calls": self.calls,
            "retries": self.retries,
            "seconds": round(time.monotonic() - self._started, 3),
            "rejected_path": self.rejected_path,
        }


class Places:
    """Where rows stand: of a row's number in the source, its file and its number there."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._files: list[str] = []

    def begin(self, file: str, first_number: int) -> None:
        """
        Say that a file begins.

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
            fault.first_rows.append((file, number))

    def faults(self) -> Iterator[tuple[str, int, list[tuple[str, int]]]]:
        """Yield what is wrong, with how many rows, and of the first of them file and number (see ``name_rows``)."""
        for kind, fault in self._faults.items():
            yield kind, fault.count, fault.first_rows

    def __str__(self) -> str:
        return "; ".join(f"{fault}: {kind}" for kind, fault in self._faults.items())


@dataclass(slots=True)
class _Fault:
    count: int = 0
    first_rows: list[tuple[str, int]] = field(default_factory=list)

    def __str__(self) -> str:
        further = self.count - len(self.first_rows)
        return name_rows(self.first_rows) + (f" and {further} more" if further else "")


def name_rows(rows: Iterable[tuple[str, int]]) -> str:
    """
    Return the words for rows, such as ``customers.csv, rows 1, 2``.

    :param rows: of each its file, empty for a list, and its number there.
    """
    words = []
    for file, some in groupby(rows, key=itemgetter(0)):
        numbers = [str(number) for _, number in some]
        words.append(f"{file}, " * bool(file) + f"row{'s' * (len(numbers) > 1)} {', '.join(numbers)}")
    return " and ".join(words)
