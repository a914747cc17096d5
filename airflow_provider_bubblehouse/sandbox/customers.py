"""The customers of the sandbox, in memory: how a row is matched to a customer and merged into it."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# The fields that https://app.bubblehouse.com/apidocs/apis/order/Customer2 and .../loyalty/CustomerDetails1 name.
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
_ERRORS_KEPT = 20


@dataclass(frozen=True, slots=True)
class StoredCustomer:
    """
    One customer.

    :param number: counts the customers in the order of their first arrival.
    :param fields: the fields as they were pushed.
    :param updated_at: when the last row was processed.
    """

    number: int
    fields: dict[str, Any]
    updated_at: datetime

    @property
    def id(self) -> str | None:
        """The shop's id."""
        return self.fields.get("id") or None

    @property
    def email(self) -> str | None:
        """The email in lower case."""
        return (self.fields.get("email") or "").lower() or None

    @property
    def deleted(self) -> bool:
        """Whether the last row deleted the customer."""
        return self.fields.get("deleted") is True

    @property
    def bh_id(self) -> str:
        """The customer's id in Bubblehouse."""
        return f"{self.number:016x}"


class Customers:
    """
    All customers. For use by several threads.

    :param lag: seconds between the acceptance of rows and their processing.
    """

    def __init__(self, *, lag: float = 0.0) -> None:
        self._lag = lag
        self._lock = threading.Lock()
        self._arrived = 0
        self.clear()

    def clear(self) -> None:
        """Drop all customers and errors, and rows that are not yet processed."""
        with self._lock:
            self._waiting: deque[tuple[float, int, Sequence[object]]] = deque()
            self._by_number: dict[int, StoredCustomer] = {}  # the most recently changed ones are last
            self._by_id: dict[str, int] = {}
            self._by_email: dict[str, set[int]] = {}
            self._errors: deque[str] = deque(maxlen=_ERRORS_KEPT)
            self._error_count = 0

    def accept(self, call: int, rows: Sequence[object], *, at_once: bool = False) -> None:
        """
        Take the rows of one call; they are processed after the lag.

        :param call: the number of the call.
        :param rows: the items of ``customers``.
        :param at_once: process them now, whatever the lag.
        """
        with self._lock:
            self._process_due()
            if at_once or not self._lag:
                self._process(call, rows)
            else:
                self._waiting.append((time.monotonic() + self._lag, call, rows))

    def find(self, identity: Mapping[str, object]) -> StoredCustomer | None:
        """
        Find the customer of a CustomerIdentity1 that is not deleted: by ``bhid``, else ``shopid``, else ``email``.

        The other keys are not compared.
        """
        bh_id, shop_id, email = identity.get("bhid"), identity.get("shopid"), identity.get("email")
        with self._lock:
            self._process_due()
            candidates = [one for one in (self._by_number.get(_number(bh_id)),) if one and one.bh_id == bh_id]
            if isinstance(shop_id, str) and shop_id in self._by_id:
                candidates.append(self._by_number[self._by_id[shop_id]])
            if isinstance(email, str):
                candidates += self._with_email(email)
        return next((one for one in candidates if not one.deleted), None)

    def all(self) -> list[StoredCustomer]:
        """Return all customers, also deleted ones, in the order of their first arrival."""
        with self._lock:
            self._process_due()
            return sorted(self._by_number.values(), key=lambda one: one.number)

    def newest(self, limit: int) -> list[StoredCustomer]:
        """Return the customers that were changed last, newest first."""
        with self._lock:
            self._process_due()
            return [one for one, _ in zip(reversed(self._by_number.values()), range(limit), strict=False)]

    def counts(self) -> tuple[int, int]:
        """Return the number of customers that are not deleted, and of those that are."""
        deleted = sum(customer.deleted for customer in self.all())
        return len(self._by_number) - deleted, deleted

    def errors(self) -> tuple[int, list[str]]:
        """Return how many rows could not be processed, and the newest of these errors; the real API mails them."""
        with self._lock:
            self._process_due()
            return self._error_count, list(reversed(self._errors))

    def _process_due(self) -> None:
        while self._waiting and self._waiting[0][0] <= time.monotonic():
            _, call, rows = self._waiting.popleft()
            self._process(call, rows)

    def _process(self, call: int, rows: Sequence[object]) -> None:
        for position, row in enumerate(rows, start=1):
            error = row_error(row)
            if error is None:
                self._merge(row)  # type: ignore[arg-type]
            else:
                self._error_count += 1
                self._errors.append(f"Call {call}, row {position} {error}")

    def _merge(self, row: Mapping[str, Any]) -> None:
        known = self._match(row)
        if known is None or (known.deleted and row.get("deleted") is not True):
            fields = dict(row)  # Guess: a deleted customer who comes back starts anew.
        else:
            # Guess: every field of the row replaces the known one, also with null or ""; other fields stay.
            fields = {**known.fields, **row}
            if known.id and not row.get("id"):  # Guess: an id cannot be removed.
                fields["id"] = known.id
        if known is None:
            self._arrived += 1
        else:
            self._forget(known)
        number = known.number if known else self._arrived
        customer = self._by_number[number] = StoredCustomer(number, fields, datetime.now(UTC))
        if customer.id:
            self._by_id[customer.id] = number
        if customer.email:
            self._by_email.setdefault(customer.email, set()).add(number)

    def _forget(self, customer: StoredCustomer) -> None:
        del self._by_number[customer.number]
        self._by_id.pop(customer.id or "", None)
        self._by_email.get(customer.email or "", set()).discard(customer.number)

    def _match(self, row: Mapping[str, Any]) -> StoredCustomer | None:
        """Find the customer of a row (https://app.bubblehouse.com/apidocs/apis/order/Customer2, ``id``)."""
        identifier = row.get("id")
        if identifier and identifier in self._by_id:
            return self._by_number[self._by_id[identifier]]
        # A row with an id may give that id to a customer who has none; it never matches a customer with another id.
        candidates = [one for one in self._with_email(row.get("email") or "") if not (identifier and one.id)]
        # Guess: of several customers with this email, the first that is not deleted.
        return min(candidates, key=lambda one: (one.deleted, one.number), default=None)

    def _with_email(self, email: str) -> list[StoredCustomer]:
        return [self._by_number[number] for number in sorted(self._by_email.get(email.lower(), ()))]


def row_error(row: object) -> str | None:
    """Return why a row cannot be processed; None if it can."""
    # Guess: the whole list; the API documentation says only that some rows may fail.
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
    """Return the warnings of a row that make a call with ``debug`` fail."""
    error = row_error(row)
    if error is not None or not isinstance(row, dict):
        return [error or ""]
    # Guess: an unknown field is a warning, and nothing else is.
    return [f"has the unknown field {field}" for field in row if field not in CUSTOMER_FIELDS]


def _number(bh_id: object) -> int:
    """Return the number in a customer's id in Bubblehouse; 0, which no customer has, for anything else."""
    try:
        return int(str(bh_id), 16)
    except ValueError:
        return 0
