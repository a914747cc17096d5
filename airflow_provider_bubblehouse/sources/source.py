"""What the push asks of a source of rows, wherever they come from."""

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
        """Return what differs once the rows may have changed."""

    def fingerprint(self) -> object | None:
        """Return what tells these rows from all others, also in a later process; None if nothing does."""

    def share_read(self) -> float | None:
        """Return the share of the source that the pass under way has read, from 0 to 1; None if not known."""

    def urls(self) -> Mapping[str, str]:
        """Return the URL of every file by its name, in the order in which they are read."""
