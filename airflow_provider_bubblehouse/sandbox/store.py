"""The customers that arrived, in SQLite: how a row is matched to a customer and merged into it."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import deque
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping, Sequence

# As https://app.bubblehouse.com/apidocs/apis/order/Customer2 and .../loyalty/CustomerDetails1 name them.
CUSTOMER_FIELDS = frozenset(
    (
        "alt_emails",
        "anniversary",
        "birthday",
        "deleted",
        "email",
        "email_marketing_consent",
        "email_marketing_consent_change_time",
        "email_verified",
        "extras",
        "first_name",
        "full_name",
        "id",
        "last_name",
        "optin",
        "order_count",
        "personal_referral_code",
        "phone",
        "signed_up_at",
        "sms_marketing_consent",
        "tags",
        "total_spent",
    )
)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS customers (
    number INTEGER PRIMARY KEY,
    id TEXT UNIQUE,
    email TEXT,
    fields TEXT NOT NULL,
    deleted INTEGER NOT NULL,
    updated_at REAL NOT NULL,
    change INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS customers_by_email ON customers (email);
CREATE INDEX IF NOT EXISTS customers_by_change ON customers (change);
CREATE TABLE IF NOT EXISTS processing_errors (
    number INTEGER PRIMARY KEY,
    call INTEGER NOT NULL,
    row INTEGER NOT NULL,
    reason TEXT NOT NULL
);
"""
_COLUMNS = "number, id, email, fields, deleted, updated_at"
_UPSERT = """
INSERT INTO customers (number, id, email, fields, deleted, updated_at, change) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (number) DO UPDATE SET id = excluded.id, email = excluded.email, fields = excluded.fields,
    deleted = excluded.deleted, updated_at = excluded.updated_at, change = excluded.change
"""


@dataclass(frozen=True, slots=True)
class StoredCustomer:
    """
    One customer.

    :param number: counts customers in the order of their first arrival.
    :param id: the shop's id, None while there is none.
    :param email: the email in lower case, None while there is none.
    :param fields: the fields as they were pushed.
    :param deleted: whether the last row deleted the customer.
    :param updated_at: when the last row was processed.
    """

    number: int
    id: str | None
    email: str | None
    fields: dict[str, Any]
    deleted: bool
    updated_at: datetime

    @property
    def bh_id(self) -> str:
        """The customer's id in Bubblehouse."""
        return f"{self.number:016x}"


@dataclass(frozen=True, slots=True)
class ProcessingError:
    """A row that could not be processed; the real API mails these. ``row`` counts from 1."""

    call: int
    row: int
    reason: str


@dataclass(frozen=True, slots=True)
class Counts:
    """How many customers there are, how many are deleted, and how many rows could not be processed."""

    customers: int
    deleted: int
    processing_errors: int


class Store:
    """
    Customers in SQLite. For use by several threads.

    :param path: the database file, or ``:memory:``.
    :param lag: seconds between the acceptance of rows and their processing.
    :param clock: tells the seconds by which ``lag`` is measured.
    :raises sqlite3.Error: if the file cannot be used.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] = ":memory:",
        *,
        lag: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lag = lag
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: deque[tuple[float, int, Sequence[object]]] = deque()
        self._database = sqlite3.connect(path, check_same_thread=False)
        self._database.execute("PRAGMA synchronous = OFF")  # what a power cut would cost here is worth nothing
        self._database.executescript(_SCHEMA)
        self._change: int = self._value("SELECT coalesce(max(change), 0) FROM customers")

    def accept(self, call: int, rows: Sequence[object], *, at_once: bool = False) -> None:
        """
        Take the rows of one call; they are processed when the lag is over.

        :param call: the number of the call.
        :param rows: the items of ``customers``.
        :param at_once: process them now, whatever the lag.
        """
        with self._lock:
            self._settle()
            if at_once or not self._lag:
                self._process(call, rows)
            else:
                self._waiting.append((self._clock() + self._lag, call, rows))

    def find(self, identity: Mapping[str, object]) -> StoredCustomer | None:
        """
        Find who is meant by a CustomerIdentity1, by ``bhid``, else ``shopid``, else ``email``.

        A deleted customer is not found. The other keys are not looked at.
        """
        with self._lock:
            self._settle()
            for key, column, read in _IDENTITIES:
                value = identity.get(key)
                if isinstance(value, str) and value:
                    rest = f"WHERE {column} = ? AND NOT deleted ORDER BY number LIMIT 1"
                    found = self._select(rest, read(value))
                    if found:
                        return _customer(found[0])
        return None

    def customers(self) -> list[StoredCustomer]:
        """Return all customers, the deleted ones too, in the order of their first arrival."""
        with self._lock:
            self._settle()
            rows = self._select("ORDER BY number")
        return [_customer(row) for row in rows]

    def newest(self, limit: int) -> list[StoredCustomer]:
        """Return the customers that were changed last, newest first."""
        with self._lock:
            self._settle()
            rows = self._select("ORDER BY change DESC LIMIT ?", limit)
        return [_customer(row) for row in rows]

    def processing_errors(self, limit: int) -> list[ProcessingError]:
        """Return the rows that could not be processed, newest first."""
        with self._lock:
            self._settle()
            rows = self._database.execute(
                "SELECT call, row, reason FROM processing_errors ORDER BY number DESC LIMIT ?", (limit,)
            )
            return [ProcessingError(*row) for row in rows]

    def counts(self) -> Counts:
        """Count what there is."""
        with self._lock:
            self._settle()
            return Counts(
                customers=self._value("SELECT count(*) FROM customers WHERE NOT deleted"),
                deleted=self._value("SELECT count(*) FROM customers WHERE deleted"),
                processing_errors=self._value("SELECT count(*) FROM processing_errors"),
            )

    def clear(self) -> None:
        """Forget everything, what waits to be processed too."""
        with self._lock, self._database:
            self._waiting.clear()
            self._database.execute("DELETE FROM customers")
            self._database.execute("DELETE FROM processing_errors")

    def close(self) -> None:
        """Process what waits, and close the database."""
        with self._lock, closing(self._database):
            for _, call, rows in self._waiting:
                self._process(call, rows)

    def _settle(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._clock():
            _, call, rows = self._waiting.popleft()
            self._process(call, rows)

    def _process(self, call: int, rows: Iterable[object]) -> None:
        now = time.time()
        with self._database:
            for position, row in enumerate(rows, start=1):
                error = row_error(row)
                if error is None:
                    self._merge(row, now)  # type: ignore[arg-type]
                else:
                    self._database.execute(
                        "INSERT INTO processing_errors (call, row, reason) VALUES (?, ?, ?)", (call, position, error)
                    )

    def _merge(self, row: Mapping[str, Any], now: float) -> None:
        known = self._match(row)
        deleted = row.get("deleted") is True
        if known is None or (known.deleted and not deleted):  # Guess: who comes back begins anew.
            fields = dict(row)
        else:
            # Guess: what a row names replaces what is known, null and "" too; what it does not name stays.
            fields = {**known.fields, **row}
            if known.id and not row.get("id"):  # Guess: an id once given cannot be taken away.
                fields["id"] = known.id
        email = fields.get("email")
        self._change += 1
        self._database.execute(
            _UPSERT,
            (
                known.number if known else None,
                fields.get("id") or None,
                email.lower() if email else None,
                msgspec.json.encode(fields).decode(),
                deleted,
                now,
                self._change,
            ),
        )

    def _match(self, row: Mapping[str, Any]) -> StoredCustomer | None:
        """Find whom a row is about (https://app.bubblehouse.com/apidocs/apis/order/Customer2, ``id``)."""
        identifier, email = row.get("id"), row.get("email")
        found = self._select("WHERE id = ?", identifier) if identifier else []
        if not found and email:
            # A row with an id may fill in the id of one who had none; it is never about one with another id.
            only = "AND id IS NULL" if identifier else ""
            # Guess: of several with one email the first that is not deleted is meant.
            found = self._select(f"WHERE email = ? {only} ORDER BY deleted, number LIMIT 1", email.lower())
        return _customer(found[0]) if found else None

    def _select(self, rest: str, *values: object) -> list[tuple[Any, ...]]:
        return self._database.execute(f"SELECT {_COLUMNS} FROM customers {rest}", values).fetchall()  # noqa: S608

    def _value(self, query: str) -> Any:
        return self._database.execute(query).fetchone()[0]


def row_error(row: object) -> str | None:
    """Say why a row cannot be processed, None where it can."""
    # Guess: all of it; the API's documents say no more than that some rows may fail.
    if not isinstance(row, dict):
        return "is not a JSON object"
    for field in ("id", "email"):
        if not isinstance(row.get(field), str | None):
            return f"{field} is not a string"
    if not (row.get("id") or row.get("email")):
        return "has neither id nor email"
    if not isinstance(row.get("deleted"), bool | None):
        return "deleted is not a boolean"
    return None


def row_warnings(row: object) -> list[str]:
    """Say what ``debug`` complains of in a row."""
    error = row_error(row)
    if error is not None or not isinstance(row, dict):
        return [error or ""]
    # Guess: that an unknown field is a warning, and that nothing else is.
    return [f"has the unknown field {field}" for field in row if field not in CUSTOMER_FIELDS]


def _customer(columns: tuple[Any, ...]) -> StoredCustomer:
    number, identifier, email, fields, deleted, updated_at = columns
    return StoredCustomer(
        number, identifier, email, msgspec.json.decode(fields), bool(deleted), datetime.fromtimestamp(updated_at, UTC)
    )


def _number(bh_id: str) -> int:
    """Return the number of a customer's id in Bubblehouse, one that no customer has where it is no such id."""
    try:
        number = int(bh_id, 16)
    except ValueError:
        return -1
    return number if f"{number:016x}" == bh_id and number < 2**63 else -1


# The keys of a CustomerIdentity1, the most exact first; the column of each; and how its value stands there.
_IDENTITIES: tuple[tuple[str, str, Callable[[str], object]], ...] = (
    ("bhid", "number", _number),
    ("shopid", "id", str),
    ("email", "email", str.lower),
)
