"""
The identity of a customer: ``id`` and ``email``.

A row whose identity identifies nobody is invalid, because an update or a deletion of the wrong person cannot be undone.
"""

from __future__ import annotations

import re
import string
from decimal import Decimal
from itertools import repeat
from typing import TYPE_CHECKING
from uuid import UUID

from msgspec import UNSET, UnsetType

from airflow_provider_bubblehouse.customers.invalid import InvalidCustomerError, wrong_type
from airflow_provider_bubblehouse.customers.values import FIRST_HUGE_NUMBER, exact_text, unmarked, whole_number

if TYPE_CHECKING:
    from collections.abc import Sequence

NULL_WORDS = frozenset({r"\n", "null", "none", "nan", "nat", "n/a", "undefined", "<na>"})
_SHOPIFY_CUSTOMER = re.compile(r"gid://[^/]+/Customer/([^/?#]+)")
_ZERO = re.compile(r"[-+]?0+")
# A long number after a spreadsheet or pandas has damaged it. The + is required: 123e45 may be a hexadecimal id.
_DAMAGED = re.compile(r"[-+]?[0-9]+\.0*|[-+]?[0-9]+(?:[.,][0-9]+)?[eE]\+[0-9]+")
_EMAIL = re.compile(r"[^@\s\x00-\x1f\x7f-\x9f]+@[^@\s\x00-\x1f\x7f-\x9f]+")
_REPEATED_HEADER = "is the name of its column; the row repeats the header"

_DIGITS = string.digits.encode()
_ID_CHARACTERS = (string.ascii_letters + string.digits + "-_").encode()
_EMAIL_CHARACTERS = bytes(range(0x21, 0x7F)).replace(b"@", b"")


def identifier(column: str, value: object) -> str | UnsetType:
    """
    Return the ``id`` of a customer, and UNSET for blanks.

    :param column: the name of its column; a repeated header has this name as its value.
    :param value: the value in the source.
    :raises InvalidCustomerError: if it identifies nobody.
    """
    if type(value) is int and 0 < value < FIRST_HUGE_NUMBER:
        return str(value)
    text = unmarked(_as_text(value).strip())
    if not text:
        return UNSET
    if text.startswith("gid://"):
        match = _SHOPIFY_CUSTOMER.fullmatch(text)
        if match is None:
            raise InvalidCustomerError("is a gid:// of something other than a Customer")
        text = match[1]
    if text.lower() in NULL_WORDS:
        raise InvalidCustomerError("is a word for a missing value; leave the cell empty")
    if _ZERO.fullmatch(text):
        raise InvalidCustomerError("is 0, which shop systems give to guests")
    if _DAMAGED.fullmatch(text):
        raise InvalidCustomerError("is damaged by a spreadsheet or by pandas; export the column as text")
    if text in (column, "id"):
        raise InvalidCustomerError(_REPEATED_HEADER)
    return text


def verbatim_identifier(column: str, value: object) -> str | UnsetType:
    """Return the ``id`` of a customer unchanged, in any form, and UNSET for blanks."""
    text = _as_text(value)
    if text in (column, "id"):
        raise InvalidCustomerError(_REPEATED_HEADER)
    return text if text.strip() else UNSET


def _as_text(value: object) -> str:
    if isinstance(value, str):
        return exact_text(value)
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        number = whole_number(value)
        if number is not None:
            return str(number)
        raise InvalidCustomerError("must be text or a whole number")
    raise wrong_type("must be text or a whole number", value)


def are_identifiers(identifiers: Sequence[str], column: str) -> bool:
    """Return whether ``identifier`` returns all of these unchanged; false negatives are allowed."""
    joined = "".join(identifiers).encode()
    if not joined.translate(None, _DIGITS) and not column.isdigit():
        return min(identifiers) >= "1" or all(map(str.strip, identifiers, repeat("0")))
    # With these characters only, there is nothing to remove, and no number has a point or an exponent.
    return (
        not joined.translate(None, _ID_CHARACTERS)
        and all(map(str.strip, identifiers, repeat("-0")))
        and NULL_WORDS.isdisjoint(map(str.lower, identifiers))
        and {column, "id"}.isdisjoint(identifiers)
    )


def identifiers_of_numbers(numbers: Sequence[int]) -> list[str] | None:
    """Return whole numbers as ids; None if ``identifier`` has to convert each of them."""
    return list(map(str, numbers)) if min(numbers) > 0 and max(numbers) < FIRST_HUGE_NUMBER else None


def email_address(value: object) -> str:
    """
    Return an email without the blanks around it.

    :raises InvalidCustomerError: if it does not have two parts around one ``@``.
    """
    text = exact_text(value).strip()
    if text and not _EMAIL.fullmatch(text):
        raise InvalidCustomerError("must be an address with one @ and without blanks")
    return text


def are_email_addresses(emails: Sequence[str]) -> bool:
    """Return whether ``email_address`` returns all of these unchanged; false negatives are allowed."""
    lines = "\n".join(emails).encode()
    # Each address has one @, not at its beginning or end, and no character that is not allowed.
    return lines.translate(None, _EMAIL_CHARACTERS) == b"@\n" * (
        len(emails) - 1
    ) + b"@" and b"@@" not in b"@%b@" % lines.replace(b"\n", b"@")


def identities_of(identifiers: Sequence[str | UnsetType | None], emails: Sequence[str | UnsetType | None]) -> list[str]:
    """
    Return for each customer the id, or else the lower-case email, and an empty text if it has neither.

    :param identifiers: the converted ids.
    :param emails: as many converted emails.
    """
    return [
        identifier or (email.lower() if email else "")  # upper and lower case name the same person
        for identifier, email in zip(identifiers, emails, strict=True)
    ]
