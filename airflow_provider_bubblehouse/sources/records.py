"""Rows that are in memory already."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from airflow_provider_bubblehouse.formats.blocks import CHUNK_ROWS
from airflow_provider_bubblehouse.push.chunks import Records
from airflow_provider_bubblehouse.sources.columns import Renamer, targets_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from airflow_provider_bubblehouse.push.chunks import Chunk
    from airflow_provider_bubblehouse.sources.columns import ColumnMap


class ListSource:
    """
    Rows in memory.

    :param records: mappings of Customer2's fields, or of the columns that ``column_map`` names.
    :param column_map: see ``FileSource``.
    """

    def __init__(self, records: Sequence[object], *, column_map: ColumnMap | None = None) -> None:
        self._records = records
        self._renamer = Renamer(targets_of(column_map))
        self._read = 0

    def chunks(self) -> Iterator[Chunk]:
        self._read = 0
        records = self._renamer(self._records)
        while some := list(islice(records, CHUNK_ROWS)):
            self._read += len(some)
            yield Records("", some)
        self._renamer.warn_of_unseen()

    def version(self) -> object:
        return None

    def fingerprint(self) -> object:
        """Return a hash of the rows, which are personal data."""
        digest = hashlib.sha256()
        for record in self._records:
            digest.update(_canonical(record) + b"\n")
        return digest.hexdigest()

    def share_read(self) -> float | None:
        return self._read / len(self._records) if self._records else None

    def urls(self) -> Mapping[str, str]:
        return {}


def _canonical(record: object) -> bytes:
    """Return a record as bytes that are the same in every process."""
    try:
        return msgspec.json.encode(record, enc_hook=repr)
    except (TypeError, ValueError, RecursionError):  # names that are no text, or text that UTF-8 cannot hold
        with suppress(ValueError):  # a number that is too long to be written out, and no row is sent with
            return repr(record).encode(errors="surrogatepass")
        return b""
