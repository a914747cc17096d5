"""Customers as JSON, encoded one by one or as the list in which they are sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Encoded:
    """
    Customers as JSON.

    :param lines: the JSON of each customer.
    """

    lines: list[bytes]

    @property
    def text(self) -> bytes:
        """Each of them as JSON, with a line feed after it."""
        return b"".join(line + b"\n" for line in self.lines)

    def __len__(self) -> int:
        return len(self.lines)

    def __getitem__(self, part: slice) -> Encoded:
        return self if _is_all(part, len(self)) else Encoded(self.lines[part])

    def pick(self, places: Sequence[int]) -> Encoded:
        """Return the customers in some places."""
        return Encoded([self.lines[place] for place in places])

    def joined(self) -> bytes:
        """Return them as JSON with commas between."""
        return b",".join(self.lines)


@dataclass(frozen=True, slots=True)
class _Objects:
    objects: list[object]

    @property
    def text(self) -> bytes:
        """Each of them as JSON in canonical form, with a line feed after it."""
        return _ENCODER.encode_lines(self.objects)

    @property
    def lines(self) -> list[bytes]:
        """Each of them as JSON in canonical form."""
        return lines_of(self.text)

    def __len__(self) -> int:
        return len(self.objects)


@dataclass(frozen=True, slots=True)
class Unencoded(_Objects):
    """
    Customers that are encoded together, as the list in which they are sent; this is faster than one by one.

    :param objects: the customers, in any form that encodes as their JSON.
    :param encoded: the customers as JSON with commas between; None if they are not encoded yet.
    """

    encoded: bytes | None = None

    def __getitem__(self, part: slice) -> Unencoded:
        return self if _is_all(part, len(self)) else Unencoded(self.objects[part])

    def pick(self, places: Sequence[int]) -> Unencoded:
        """Return the customers in some places."""
        return Unencoded([self.objects[place] for place in places])

    def joined(self) -> bytes:
        """Return them as JSON with commas between."""
        return _ENCODER.encode(self.objects)[1:-1] if self.encoded is None else self.encoded


@dataclass(frozen=True, slots=True)
class AsWritten(_Objects):
    """
    Customers whose JSON in the source is sent unchanged; this is faster than encoding them.

    :param objects: the customers, in any form that encodes as their JSON.
    :param written: the JSON of each customer in the source. It may have blanks, and its fields in any order.
    """

    written: list[bytes]

    def __getitem__(self, part: slice) -> AsWritten:
        return self if _is_all(part, len(self)) else AsWritten(self.objects[part], self.written[part])

    def pick(self, places: Sequence[int]) -> AsWritten:
        """Return the customers in some places."""
        return AsWritten([self.objects[place] for place in places], [self.written[place] for place in places])

    def joined(self) -> bytes:
        """Return them as JSON with commas between."""
        return b",".join(self.written)


Customers = Encoded | Unencoded | AsWritten
_ENCODER = msgspec.json.Encoder()


def lines_of(text: bytes) -> list[bytes]:
    """Return the lines of a text that ends with a line feed."""
    lines = text.split(b"\n")
    lines.pop()
    return lines


def _is_all(part: slice, count: int) -> bool:
    return part.indices(count) == (0, count, 1)
