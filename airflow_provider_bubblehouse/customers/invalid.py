"""The error of a row that is not a customer."""

from __future__ import annotations

import re

_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,63}")


class InvalidCustomerError(ValueError):
    """
    A row is not a customer.

    :param reason: what is wrong and what to do. Never a value of the row.
    :param field: the field at fault, None if it is the row as a whole.
    :param record: what the source could read of the row, if it could not make a record of it.
    :param byte: the number of the byte at fault in the row's line, None if that is not known.
    """

    def __init__(
        self, reason: str, field: str | None = None, *, record: object = None, byte: int | None = None
    ) -> None:
        super().__init__(f"{printable_name(field)} {reason}" if field else reason)
        self.reason = reason
        self.field = field
        self.record = record
        self.byte = byte


def printable_name(name: str) -> str:
    """Return a field's name for a message. Any other text than a plain word may be data and is not shown."""
    return name if _PLAIN_NAME.fullmatch(name) else "a field whose name is not a plain word"


def type_name(value: object) -> str:
    """Return the name of a value's type for a message, such as ``numpy.int64``."""
    kind = type(value)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    return name if _PLAIN_NAME.fullmatch(name) else "value of another type"


def wrong_type(reason: str, value: object) -> InvalidCustomerError:
    """Return the error of a value whose type cannot be that of its field."""
    return InvalidCustomerError(f"{reason}, not {type_name(value)}")
