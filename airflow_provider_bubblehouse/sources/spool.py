"""
Rows that can be read only once, of a query or a generator, stored in a temporary file during the push.

A query may return its rows in a different order each time, and a generator cannot run again without repeating its side
effects. The rows are converted before they are stored, while they are Python objects: JSON has no decimals or times, so
the rules would decide differently about values from JSON.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from dataclasses import dataclass
from functools import partial
from itertools import compress
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_provider_bubblehouse.customers.converter import CheckedChunk, InvalidRow
from airflow_provider_bubblehouse.customers.encoded import Encoded, lines_of
from airflow_provider_bubblehouse.customers.identity import identities_of
from airflow_provider_bubblehouse.customers.invalid import InvalidCustomerError
from airflow_provider_bubblehouse.formats.blocks import BLOCK_BYTES
from airflow_provider_bubblehouse.plural import plural
from airflow_provider_bubblehouse.push.rejected import in_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from airflow_provider_bubblehouse.customers.blocks import Block
    from airflow_provider_bubblehouse.customers.converter import Converter

log = logging.getLogger(__name__)

_LOG_EVERY = 10.0  # seconds, as for the push
_INVALID = b"["  # the first byte of an invalid row's line; a customer's line begins with {


class SpooledSource:
    """
    Rows that the constructor reads once. ``close`` deletes the temporary file.

    The file has no name in its folder (``TMPDIR``). So no other process can open it, and the operating system deletes
    it when this process ends, even if it is killed.

    :param name: the source's name in messages, such as "the query".
    :param blocks: the rows.
    :param converter: converts the rows.
    """

    def __init__(self, name: str, blocks: Iterable[Block], *, converter: Converter) -> None:
        self._name = name
        self._digest = hashlib.sha256()
        self._size = 0
        self._file: Any = TemporaryFile(buffering=BLOCK_BYTES)  # noqa: SIM115  closed by close()
        try:
            count = self._write(blocks, converter)
        except BaseException:
            self.close()
            raise
        rows, size = plural(count, "row"), self._size / 2**20
        log.info("Read %s of %s into a temporary file of %.1f MiB.", rows, name, size)

    def _write(self, blocks: Iterable[Block], converter: Converter) -> int:
        count, logged_at = 0, time.monotonic()
        for block in blocks:
            text = _text(converter.check(block, 0))
            self._file.write(text)
            self._digest.update(text)
            self._size += len(text)
            count += block.count
            if time.monotonic() - logged_at >= _LOG_EVERY:
                logged_at = time.monotonic()
                log.info("Progress: %s of %s read, none sent.", plural(count, "row"), self._name)
        return count

    def chunks(self) -> Iterator[SpooledRows]:
        self._file.seek(0)
        while text := self._file.read(BLOCK_BYTES):
            yield SpooledRows(text + self._file.readline(), file=self._name)

    def version(self) -> object:
        return None

    def fingerprint(self) -> object:
        """Return a hash of the rows and of their order."""
        return self._digest.hexdigest()

    def share_read(self) -> float | None:
        return self._file.tell() / self._size if self._size else None

    def urls(self) -> Mapping[str, str]:
        return {}

    def close(self) -> None:
        """Delete the rows."""
        self._file.close()


def _text(checked: CheckedChunk) -> bytes:
    """Return the rows of a chunk in their order, each as a line with a line feed at its end."""
    customers = checked.customers()
    if not checked.invalid:
        return customers.text
    lines = dict(zip(checked.numbers, customers.lines, strict=True))
    for row in checked.invalid:  # msgspec does not encode text that is not UTF-8
        lines[row.number] = json.dumps([row.error.reason, row.error.field, in_json(row.record)]).encode()
    return Encoded([line for _, line in sorted(lines.items())]).text


class _Identity(msgspec.Struct, gc=False):
    id: str | None = None
    email: str | None = None


_IDENTITIES = msgspec.json.Decoder(_Identity)


@dataclass(frozen=True, slots=True)
class SpooledRows:
    """
    Some rows of a temporary file.

    :param text: the rows, each a line with a line feed at its end.
    :param file: the name that messages show as the file.
    """

    text: bytes
    file: str

    def checked(self, first_number: int) -> CheckedChunk:
        """
        Return the rows.

        :param first_number: the number of the first one in the source.
        """
        lines = lines_of(self.text)
        count = len(lines)
        numbers: Sequence[int] = range(first_number, first_number + count)
        invalid = []
        if self.text.startswith(_INVALID) or b"\n" + _INVALID in self.text:
            is_invalid = [line.startswith(_INVALID) for line in lines]
            invalid = list(map(_invalid, compress(numbers, is_invalid), compress(lines, is_invalid)))
            is_valid = [not one for one in is_invalid]
            numbers, lines = list(compress(numbers, is_valid)), list(compress(lines, is_valid))
        customers = Encoded(lines)
        return CheckedChunk(count, numbers, partial(_identities, customers), lambda: customers, invalid)


def _identities(customers: Encoded) -> list[str]:
    decoded = _IDENTITIES.decode_lines(customers.text)
    return identities_of([one.id for one in decoded], [one.email for one in decoded])


def _invalid(number: int, line: bytes) -> InvalidRow:
    reason, field, record = json.loads(line)
    return InvalidRow(number, InvalidCustomerError(reason, field), record)
