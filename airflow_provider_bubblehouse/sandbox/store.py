"""What the sandbox keeps: customers, in SQLite, and the rows that it could not process."""

from __future__ import annotations

import json
import sqlite3
import threading
from datetime import UTC, datetime
from typing import Any

_SCHEMA = """
CREATE TABLE IF NOT EXISTS customers (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    shop_id TEXT UNIQUE,
    email TEXT,
    fields TEXT NOT NULL,
    deleted INTEGER NOT NULL,
    updated_at TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS customers_by_email ON customers (email);
CREATE TABLE IF NOT EXISTS processing_errors (at TEXT NOT NULL, reason TEXT NOT NULL);
"""


class Store:
    """
    Customers and processing errors; safe for use by several threads.

    :param database: SQLite's file, ``:memory:`` for none.
    """

    def __init__(self, database: str = ":memory:") -> None:
        self._lock = threading.Lock()
        self._database = sqlite3.connect(database, check_same_thread=False)
        self._database.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def clear(self) -> None:
        """Forget all."""
        with self._lock, self._database:
            self._database.execute("DELETE FROM customers")
            self._database.execute("DELETE FROM processing_errors")

    def process(self, rows: list[Any]) -> None:
        """
        Take in the customers of one call, in their order; what fails does not keep the others from being processed.

        :param rows: what stood in ``customers``.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with self._lock, self._database:
            for row in rows:
                reason = row_fault(row)
                if reason is None:
                    self._update(row, now)
                else:
                    self._database.execute("INSERT INTO processing_errors VALUES (?, ?)", (now, reason))

    def _update(self, row: dict[str, Any], now: str) -> None:
        found = self._find(row)
        # Guess: a given field replaces the stored one, null and "" too; one that is absent keeps it.
        fields = (json.loads(found[1]) if found else {}) | row
        values = (
            fields.get("id") or None,
            (fields.get("email") or "").lower() or None,
            json.dumps(fields),
            bool(fields.get("deleted")),
            now,
        )
        if found:
            self._database.execute(
                "UPDATE customers SET shop_id = ?, email = ?, fields = ?, deleted = ?, updated_at = ? WHERE number = ?",
                (*values, found[0]),
            )
        else:
            self._database.execute(
                "INSERT INTO customers (shop_id, email, fields, deleted, updated_at) VALUES (?, ?, ?, ?, ?)", values
            )

    def _find(self, row: dict[str, Any]) -> tuple[int, str] | None:
        """Find the customer that a row is about: by id, or by email one whom no id is known of yet."""
        execute, email = self._database.execute, (row.get("email") or "").lower()
        columns = "SELECT number, fields FROM customers"
        found = None
        if row.get("id"):
            found = execute(f"{columns} WHERE shop_id = ?", (row["id"],)).fetchone()
            if found is None and email:
                found = execute(f"{columns} WHERE email = ? AND shop_id IS NULL", (email,)).fetchone()
        elif email:
            found = execute(f"{columns} WHERE email = ? ORDER BY number", (email,)).fetchone()
        return found

    def details(self, identity: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """
        Answer CustomerDetails1.

        :param identity: a CustomerIdentity1: ``shopid``, ``email``, ``bhid``.
        :return: the status, and the customer or the API's error.
        """
        given = {name: identity[name] for name in ("shopid", "email", "bhid") if identity.get(name)}
        if not given:
            return 404, {"id": "empty_customer_identity"}
        email = (given.get("email") or "").lower()
        with self._lock:
            found = self._database.execute(
                # Guess: a deleted customer is not found.
                "SELECT number, shop_id, email, fields FROM customers "
                "WHERE NOT deleted AND (shop_id = ? OR email = ? OR number = ?) ORDER BY number",
                (given.get("shopid"), email, _number(given.get("bhid"))),
            ).fetchone()
        if found is None:
            return 404, {"id": "no_customers_match_customer_identity"}
        known = {"shopid": found[1], "email": found[2], "bhid": _bubblehouse_id(found[0])}
        if any(
            known[name] not in (None, value) for name, value in (given | {"email": email or known["email"]}).items()
        ):
            return 404, {"id": "customer_identity_partially_mismatches_matched_customer"}
        return 200, json.loads(found[3]) | {"bh_id": known["bhid"]}

    def customers(self) -> list[dict[str, Any]]:
        """Return all customers as they were pushed, deleted ones too, oldest first."""
        with self._lock:
            rows = self._database.execute("SELECT fields FROM customers ORDER BY number").fetchall()
        return [json.loads(fields) for (fields,) in rows]

    def newest(self, limit: int) -> list[tuple[dict[str, Any], str]]:
        """Return the customers that were changed last, each with the time."""
        with self._lock:
            rows = self._database.execute(
                "SELECT fields, updated_at FROM customers ORDER BY updated_at DESC, number DESC LIMIT ?", (limit,)
            ).fetchall()
        return [(json.loads(fields), updated_at) for fields, updated_at in rows]

    def counts(self) -> tuple[int, int]:
        """Return how many customers there are, and how many rows could not be processed."""
        with self._lock:
            (customers,) = self._database.execute("SELECT COUNT(*) FROM customers").fetchone()
            (errors,) = self._database.execute("SELECT COUNT(*) FROM processing_errors").fetchone()
        return customers, errors


def row_fault(row: object) -> str | None:
    """Say why a row cannot be processed, None if it can. Guess: what the API mails as an error is not documented."""
    if not isinstance(row, dict):
        return "a customer is no object"
    identity = [row.get("id"), row.get("email")]
    if not all(value is None or isinstance(value, str) for value in identity):
        return "id and email must be strings"
    return None if any(identity) else "a customer has neither id nor email"


def _bubblehouse_id(number: int) -> str:
    return f"{number:016x}"


def _number(bubblehouse_id: object) -> int | None:
    try:
        return int(str(bubblehouse_id), 16)
    except ValueError:
        return None
