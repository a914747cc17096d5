"""The interface of a source of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow_provider_bubblehouse.customers.converter import Chunk


class Source(Protocol):
    """Rows that can be read more than once, each time in the same order."""

    def chunks(self) -> Iterator[Chunk]:
        """Yield all rows in order."""

    def version(self) -> object:
        """Return a value that changes if the rows may have changed."""

    def fingerprint(self) -> object | None:
        """Return a value that identifies these rows, also in a later process; None if there is no such value."""

    def share_read(self) -> float | None:
        """Return the share of the source that the current pass has read, from 0 to 1; None if it is not known."""

    def urls(self) -> Mapping[str, str]:
        """Return the URL of every file by its name, in the order in which they are read."""
