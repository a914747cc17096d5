"""Rows that are Python objects, from a list or a generator."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from airflow_provider_bubblehouse.customers.records import blocks_of
from airflow_provider_bubblehouse.errors import PermanentError
from airflow_provider_bubblehouse.formats.blocks import CHUNK_ROWS
from airflow_provider_bubblehouse.sources.columns import UnseenColumns, id_column_of, targets_of
from airflow_provider_bubblehouse.sources.spool import SpooledSource

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from airflow_provider_bubblehouse.customers.blocks import Block, Path
    from airflow_provider_bubblehouse.customers.converter import Converter
    from airflow_provider_bubblehouse.sources.columns import ColumnMap


class ListSource:
    """
    Rows in memory.

    :param records: records (see ``customers.records``) of Customer2's fields, or of the columns in ``column_map``.
    :param column_map: see ``FileSource``.
    :raises PermanentError: if it is not a sequence of records, or the column map contradicts itself.
    """

    def __init__(self, records: Iterable[object], *, column_map: ColumnMap | None = None) -> None:
        if isinstance(records, str | bytes | bytearray | memoryview | Mapping):
            raise PermanentError(f"The rows must be a list of customers, not {type(records).__name__}.")
        self._records = records if isinstance(records, Sequence) else list(records)
        self._columns = targets_of(column_map)
        self._unseen = UnseenColumns(self._columns)
        self._read = 0

    def chunks(self) -> Iterator[Block]:
        self._read = 0
        for block in record_blocks(self._records, self._columns, self._unseen):
            self._read += block.count
            yield block
        self._unseen.warn()

    def version(self) -> object:
        return None

    def fingerprint(self) -> object:
        """Return a hash of the rows, which are personal data."""
        digest = hashlib.sha256()
        records = iter(self._records)
        while some := list(islice(records, CHUNK_ROWS)):
            digest.update(_canonical(some))
        return digest.hexdigest()

    def share_read(self) -> float | None:
        return self._read / len(self._records) if self._records else None

    def urls(self) -> Mapping[str, str]:
        return {}


def record_blocks(
    records: Iterable[object], columns: Mapping[str, Path] | None, unseen: UnseenColumns
) -> Iterator[Block]:
    """
    Yield records as blocks.

    :param records: the records.
    :param columns: name in the record to field, None to send each field under its own name.
    :param unseen: notes the columns of each block.
    """
    rows = iter(records)
    while some := list(islice(rows, CHUNK_ROWS)):
        yield from map(unseen.look_at, blocks_of(some, columns=columns, id_column=id_column_of(columns)))


def spool_records(
    name: str, records: Iterable[object], *, column_map: ColumnMap | None = None, converter: Converter
) -> SpooledSource:
    """
    Read records that can be iterated over only once into a temporary file.

    :param name: the source's name in messages.
    :param records: see ``ListSource``.
    :param column_map: see ``FileSource``.
    :param converter: converts the records.
    """
    columns = targets_of(column_map)
    unseen = UnseenColumns(columns)
    source = SpooledSource(name, record_blocks(records, columns, unseen), converter=converter)
    unseen.warn()
    return source


def _canonical(records: list[object]) -> bytes:
    """Return records as bytes that are the same in every process."""
    with suppress(Exception):  # a name that is not text, text that is not UTF-8, an object that raises
        return msgspec.json.encode(records, enc_hook=repr)
    return b"\n".join(map(_text_of, records))


def _text_of(record: object) -> bytes:
    with suppress(Exception):
        return repr(record).encode(errors="surrogatepass")
    return b""  # no such row is sent
