"""
The rows of a query, which nobody gives twice in the same order: kept in a temporary file while they are pushed.

They are converted before they are written, while they still are Python's objects, so that they mean what they would
mean in a list: JSON has neither decimals nor times, and does not tell a time without an offset from a text.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from dataclasses import dataclass
from itertools import compress, islice
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_provider_bubblehouse.customers.blocks import Block
from airflow_provider_bubblehouse.customers.converter import CheckedChunk, InvalidRow
from airflow_provider_bubblehouse.customers.encoded import Encoded
from airflow_provider_bubblehouse.customers.identity import identities_of
from airflow_provider_bubblehouse.customers.invalid import InvalidCustomerError
from airflow_provider_bubblehouse.formats.blocks import BLOCK_BYTES, CHUNK_ROWS
from airflow_provider_bubblehouse.push.rejected import in_json
from airflow_provider_bubblehouse.sources.columns import check_columns, id_column_of, targets_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from airflow_provider_bubblehouse.customers.blocks import Path
    from airflow_provider_bubblehouse.customers.converter import Converter
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
    :param converter: converts the rows.
    :raises PermanentError: if the columns do not give customers.
    """

    def __init__(
        self,
        columns: Sequence[str],
        rows: Iterable[Any],
        *,
        column_map: ColumnMap | None = None,
        converter: Converter,
    ) -> None:
        targets = targets_of(column_map)
        if targets is None:
            targets = {column: (column,) for column in columns}
        check_columns(NAME.capitalize(), columns, targets)
        self._places = [(columns.index(column), column, path) for column, path in targets.items()]
        self._id_column = id_column_of(targets)
        self._digest = hashlib.sha256()
        self._size = 0
        self._file: Any = TemporaryFile(buffering=BLOCK_BYTES)  # noqa: SIM115  closed by close()
        try:
            count = self._write(iter(rows), converter)
        except BaseException:
            self.close()
            raise
        log.info("The query gave %d rows; %.1f MiB are kept until they are pushed.", count, self._size / 2**20)

    def _write(self, rows: Iterator[Any], converter: Converter) -> int:
        count, logged_at = 0, time.monotonic()
        while some := list(islice(rows, CHUNK_ROWS)):
            checked = converter.check(self._block(some), 0)
            text = b"\n".join(_lines(checked)) + b"\n"
            self._file.write(text)
            self._digest.update(text)
            self._size += len(text)
            count += len(some)
            if time.monotonic() - logged_at >= _LOG_EVERY:
                logged_at = time.monotonic()
                log.info("Progress: %d rows of the query read, none sent.", count)
        return count

    def _block(self, rows: list[Any]) -> Block:
        columns: dict[Path, Sequence[Any]]
        if isinstance(rows[0], dict):
            columns = {path: [row[column] for row in rows] for _, column, path in self._places}
        else:
            cells = list(zip(*rows, strict=True))
            columns = {path: cells[place] for place, _, path in self._places}
        return Block(file=NAME, count=len(rows), columns=columns, id_column=self._id_column)

    def chunks(self) -> Iterator[SpooledRows]:
        self._file.seek(0)
        while lines := self._file.readlines(BLOCK_BYTES):
            yield SpooledRows(lines)

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


class _Identity(msgspec.Struct, gc=False):
    id: str | None = None
    email: str | None = None


_IDENTITIES = msgspec.json.Decoder(_Identity)


@dataclass(frozen=True, slots=True)
class SpooledRows:
    """
    Some rows of a spool.

    :param lines: the rows, each with a line feed at its end.
    :param file: what is shown in a file's place.
    """

    lines: list[bytes]
    file: str = NAME

    def checked(self, first_number: int) -> CheckedChunk:
        """
        Return the rows.

        :param first_number: the number of the first one in the source.
        """
        numbers: Sequence[int] = range(first_number, first_number + len(self.lines))
        lines, invalid = self.lines, []
        is_invalid = [line.startswith(_NO_CUSTOMER) for line in lines]
        if any(is_invalid):
            invalid = list(map(_invalid, compress(numbers, is_invalid), compress(lines, is_invalid)))
            is_valid = [not one for one in is_invalid]
            numbers, lines = list(compress(numbers, is_valid)), list(compress(lines, is_valid))
        customers = _IDENTITIES.decode_lines(b"".join(lines))
        identities = identities_of([one.id for one in customers], [one.email for one in customers])
        return CheckedChunk(
            count=len(self.lines),
            numbers=numbers,
            identities=identities,
            customers=lambda: Encoded([line[:-1] for line in lines]),
            invalid=invalid,
            without_id=sum(one.id is None for one in customers),
        )


def _invalid(number: int, line: bytes) -> InvalidRow:
    reason, field, record = json.loads(line)
    return InvalidRow(number, InvalidCustomerError(reason, field), record)
