"""What became of the rows: the counts of a push, and its invalid rows by field and reason. Never a value of a row."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_bubblehouse.api.customers import InvalidCustomerError

_ROWS_SHOWN = 5  # enough to find a fault that many rows share
_KINDS_SHOWN = 20  # a message with more is not read


@dataclass(slots=True)
class Summary:
    """
    The counts of a push. ``read`` is always the sum of ``invalid``, ``accepted``, ``rejected`` and ``unsent``.

    :param read: rows read from the source.
    :param invalid: rows that are no customer.
    :param accepted: rows that the API took.
    :param rejected: rows in calls that the API refused.
    :param batches: batches settled, or in a dry run cut.
    :param calls: calls made, retries included.
    :param retries: calls made again after a fault.
    """

    read: int = 0
    invalid: int = 0
    accepted: int = 0
    rejected: int = 0
    batches: int = 0
    calls: int = 0
    retries: int = 0
    _started: float = field(default_factory=time.monotonic)

    @property
    def unsent(self) -> int:
        """Rows that are good as far as known and that the API has not processed."""
        return self.read - self.invalid - self.accepted - self.rejected

    def as_dict(self) -> dict[str, Any]:
        """Return the counts and the seconds since the start, for XCom."""
        return {
            "read": self.read,
            "invalid": self.invalid,
            "accepted": self.accepted,
            "rejected": self.rejected,
            "unsent": self.unsent,
            "batches": self.batches,
            "calls": self.calls,
            "retries": self.retries,
            "seconds": round(time.monotonic() - self._started, 3),
        }


class InvalidRows:
    """Invalid rows, counted by field and reason, with the first rows of each; takes no more memory with more rows."""

    def __init__(self) -> None:
        self.count = 0
        self._faults: dict[str, _Fault] = {}

    def add(self, file: str, row: int, error: InvalidCustomerError) -> None:
        """
        Count one row.

        :param file: the name of the file it stands in, empty for a list.
        :param row: its number there.
        :param error: what is wrong with it.
        """
        self.count += 1
        kind = str(error)
        if kind not in self._faults and len(self._faults) >= _KINDS_SHOWN:
            kind = "has faults of further kinds"
        fault = self._faults.setdefault(kind, _Fault())
        fault.count += 1
        if len(fault.first_rows) < _ROWS_SHOWN:
            fault.first_rows.append(f"{file}, row {row}" if file else f"row {row}")

    def __str__(self) -> str:
        return "; ".join(f"{fault}: {kind}" for kind, fault in self._faults.items())


@dataclass(slots=True)
class _Fault:
    count: int = 0
    first_rows: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        further = self.count - len(self.first_rows)
        return " and ".join(self.first_rows) + (f" and {further} more" if further else "")
