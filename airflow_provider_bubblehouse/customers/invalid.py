"""The error of a row that cannot be sent."""

from __future__ import annotations

import re

_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,63}")


class InvalidCustomerError(ValueError):
    """
    A row cannot be sent.

    :param reason: what is wrong and what to do. Never a value of the row.
    :param field: the invalid field, None for the row as a whole.
    :param record: of a row that the source could not read, what it has instead of a record.
    :param byte: the number of the invalid byte in the row's line, None if it is not known.
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
    """Return a field's name for a message. A name that is not a plain word may be data and is not shown."""
    return name if _PLAIN_NAME.fullmatch(name) else "a field whose name is not a plain word"


def type_name(value: object) -> str:
    """Return the name of a value's type for a message, such as ``numpy.int64``."""
    kind = type(value)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    return name if _PLAIN_NAME.fullmatch(name) else "value of another type"


def wrong_type(reason: str, value: object) -> InvalidCustomerError:
    """Return the error of a value of a wrong type."""
    return InvalidCustomerError(f"{reason}, not {type_name(value)}")
