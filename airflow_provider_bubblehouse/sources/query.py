"""
The rows of a query, which nobody gives twice in the same order: kept in a temporary file while they are pushed.

They are checked before they are written, while they still are Python's objects, so that they mean what they would mean
in a list: JSON has neither decimals nor times, and does not tell a time without an offset from a text.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from dataclasses import dataclass
from itertools import islice
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_provider_bubblehouse.api.customers import InvalidCustomerError, identity_of
from airflow_provider_bubblehouse.formats.blocks import BLOCK_BYTES, CHUNK_ROWS
from airflow_provider_bubblehouse.push.batches import Encoded
from airflow_provider_bubblehouse.push.chunks import PlainRows, Records, put
from airflow_provider_bubblehouse.push.rejected import in_json
from airflow_provider_bubblehouse.sources.columns import check_columns, targets_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from airflow_provider_bubblehouse.push.chunks import Chunk
    from airflow_provider_bubblehouse.push.encoder import CheckedChunk, CustomerEncoder
    from airflow_provider_bubblehouse.sources.columns import ColumnMap

log = logging.getLogger(__name__)

NAME = "the query"
_LOG_EVERY = 10.0  # seconds, as for the push
_NO_CUSTOMER = b"["  # begins the line of an invalid row, as { begins that of a customer


class SpooledSource:
    """
    The rows of a query. They are read once, by the constructor; ``close`` deletes what it keeps of them.

    The file has no name in its folder (``TMPDIR``): nobody else can open it, and it is gone with this process, however
    that ends.

    :param columns: the names of the query's columns.
    :param rows: its rows, each a sequence in their order, or a dict by their names.
    :param column_map: see ``FileSource``.
    :param encoder: checks the rows.
    :raises PermanentError: if the columns do not give customers.
    """

    def __init__(
        self,
        columns: Sequence[str],
        rows: Iterable[Any],
        *,
        column_map: ColumnMap | None = None,
        encoder: CustomerEncoder,
    ) -> None:
        targets = targets_of(column_map)
        if targets is None:
            targets = {column: (column,) for column in columns}
        check_columns(NAME.capitalize(), columns, targets)
        sent = [(place, column, targets[column]) for place, column in enumerate(columns) if column in targets]
        self._flat = [(place, column, path[0]) for place, column, path in sent if len(path) == 1]
        self._nested = [(place, column, path) for place, column, path in sent if len(path) > 1]
        self._digest = hashlib.sha256()
        self._size = 0
        self._file: Any = TemporaryFile(buffering=BLOCK_BYTES)  # noqa: SIM115  closed by close()
        try:
            count = self._write(iter(rows), encoder)
        except BaseException:
            self.close()
            raise
        log.info("The query gave %d rows; %.1f MiB are kept until they are pushed.", count, self._size / 2**20)

    def _write(self, rows: Iterator[Any], encoder: CustomerEncoder) -> int:
        count, logged_at = 0, time.monotonic()
        while records := list(map(self._record, islice(rows, CHUNK_ROWS))):
            checked = encoder.check(Records(NAME, records), 0)
            text = b"\n".join(_lines(checked)) + b"\n"
            self._file.write(text)
            self._digest.update(text)
            self._size += len(text)
            count += len(records)
            if time.monotonic() - logged_at >= _LOG_EVERY:
                logged_at = time.monotonic()
                log.info("Progress: %d rows of the query read, none sent.", count)
        return count

    def _record(self, row: Any) -> dict[str, Any]:
        by_name = isinstance(row, dict)
        record: dict[str, Any] = {field: row[column if by_name else place] for place, column, field in self._flat}
        for place, column, path in self._nested:
            put(record, path, row[column if by_name else place])
        return record

    def chunks(self) -> Iterator[Chunk]:
        self._file.seek(0)
        while lines := self._file.readlines(BLOCK_BYTES):
            yield from _chunks(lines)

    def version(self) -> object:
        return None

    def fingerprint(self) -> object:
        """Return a hash of the rows: those of a query that is made again are the same only if their order is, too."""
        return self._digest.hexdigest()

    def share_read(self) -> float | None:
        return self._file.tell() / self._size if self._size else None

    def urls(self) -> Mapping[str, str]:
        return {}

    def close(self) -> None:
        """Delete the rows."""
        self._file.close()


def _lines(checked: CheckedChunk) -> list[bytes]:
    """Return the rows of a chunk as lines, in their order."""
    customers = checked.customers().lines
    if not checked.invalid:
        return customers
    lines = dict(zip(checked.numbers, customers, strict=True))
    for row in checked.invalid:  # not by msgspec, which does not take text that UTF-8 cannot hold
        lines[row.number] = json.dumps([row.error.reason, row.error.field, in_json(row.record)]).encode()
    return [line for _, line in sorted(lines.items())]


def _chunks(lines: list[bytes]) -> Iterator[Chunk]:
    """Yield lines as chunks of nothing but customers, and of nothing but invalid rows."""
    start = 0
    for place in range(1, len(lines) + 1):
        is_invalid = lines[start].startswith(_NO_CUSTOMER)
        if place == len(lines) or lines[place].startswith(_NO_CUSTOMER) != is_invalid:
            some = lines[start:place]
            yield Records(NAME, list(map(_invalid, some))) if is_invalid else _Customers(NAME, some)
            start = place


def _invalid(line: bytes) -> InvalidCustomerError:
    reason, field, record = json.loads(line)
    return InvalidCustomerError(reason, field, record=record)


class _Identity(msgspec.Struct, gc=False):
    id: Any = None
    email: Any = None


_IDENTITIES = msgspec.json.Decoder(_Identity)


@dataclass(frozen=True, slots=True)
class _Customers:
    """
    Rows as lines of JSON that have been checked.

    :param file: what stands in a file's place.
    :param lines: the rows, each with a line feed at its end.
    """

    file: str
    lines: list[bytes]

    def plain_rows(self) -> PlainRows:
        identities = [
            identity_of({"id": one.id, "email": one.email}) for one in _IDENTITIES.decode_lines(b"".join(self.lines))
        ]
        lines = [line[:-1] for line in self.lines]
        return PlainRows(identities, max(map(len, lines)), lambda: Encoded(lines))

    def records(self) -> Iterable[object]:
        return map(msgspec.json.decode, self.lines)
