"""Read JSON: one array of objects, decoded value by value."""

from __future__ import annotations

import io
import re
from json import JSONDecodeError
from typing import TYPE_CHECKING, BinaryIO

from airflow_provider_bubblehouse.customers.invalid import InvalidCustomerError
from airflow_provider_bubblehouse.customers.records import blocks_of
from airflow_provider_bubblehouse.errors import PermanentError
from airflow_provider_bubblehouse.formats.blocks import BLOCK_BYTES, CHUNK_ROWS, MAX_ROW_BYTES
from airflow_provider_bubblehouse.formats.json_text import (
    CUT_OFF,
    PYTHON_DECODER,
    TOO_DEEP,
    TRAILING_COMMA,
    byte_of,
    fault_of,
)
from airflow_provider_bubblehouse.sources.columns import id_column_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow_provider_bubblehouse.customers.blocks import Block, Path

_CHUNK_CHARACTERS = 2 * BLOCK_BYTES  # fewer rows of a chunk, if they are large


def read_json(name: str, stream: BinaryIO, columns: Mapping[str, Path] | None) -> Iterator[Block]:
    """
    Yield the rows of a JSON array.

    :param name: the file's name.
    :param stream: the file.
    :param columns: name in the file to field, None to send each field under its own name.
    :raises PermanentError: if the rest of the file cannot be read.
    """
    for rows in _read_rows(name, stream):
        yield from blocks_of(rows, file=name, columns=columns, id_column=id_column_of(columns))


def _read_rows(name: str, stream: BinaryIO) -> Iterator[list[object]]:
    scanner = _JsonScanner(stream)
    if not (start := scanner.next_token()):
        return
    if start != "[":
        raise PermanentError(f"{name} is not a JSON array; if it has one JSON object a line, set file_format='jsonl'.")
    scanner.take()
    row, begin = 0, scanner.taken
    some: list[object] = []
    try:
        separator = scanner.take() if scanner.next_token() == "]" else ","
        while separator == ",":
            row += 1
            if scanner.next_token() == "]":
                raise _NotJsonError(TRAILING_COMMA)
            some.append(scanner.value())
            separator = scanner.take()
            if len(some) == CHUNK_ROWS or scanner.taken - begin >= _CHUNK_CHARACTERS:
                yield some
                some, begin = [], scanner.taken
        if separator != "]":
            raise _NotJsonError(_NO_COMMA if separator else CUT_OFF, -len(separator))
        if scanner.next_token():
            raise _NotJsonError(_MORE)
        yield some
    except _NotJsonError as error:
        raise PermanentError(
            f"{name}, row {row}: the JSON array is broken at byte {scanner.byte(error.place)}, so the rows after it "
            f"cannot be read ({error})."
        ) from None


_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*"|["\[\]{}]', re.DOTALL)  # matches whole texts, to skip the brackets in them


_NO_COMMA = "two rows without a comma between them"
_MORE = "more text after the end of the array"


class _NotJsonError(ValueError):
    """
    A text is not JSON.

    :param fault: why not.
    :param place: the distance in characters from the scanner's position; negative for characters before it.
    """

    def __init__(self, fault: str, place: int = 0) -> None:
        super().__init__(fault)
        self.place = place


class _JsonScanner:
    """
    Reads a JSON array value by value, with about one value in memory.

    Uses Python's own decoder, because that of ijson replaces invalid text by question marks.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._dropped_bytes = stream.tell()
        self._text = io.TextIOWrapper(stream, encoding="utf-8", errors="surrogateescape", newline="")
        self._buffer = ""
        self._position = 0
        self._dropped = 0

    @property
    def taken(self) -> int:
        """How many characters have been taken."""
        return self._dropped + self._position

    def byte(self, place: int) -> int:
        """
        Return the number of a byte in the file, beginning with 1.

        :param place: the distance in characters from the last one that has been taken.
        """
        return self._dropped_bytes + byte_of(self._buffer, self._position + place)

    def next_token(self) -> str:
        """Skip blanks and return the next character without taking it, empty at the end."""
        while True:
            while self._position < len(self._buffer):
                if self._buffer[self._position] not in " \t\r\n":
                    return self._buffer[self._position]
                self._position += 1
            if not self._read_more():
                return ""

    def take(self) -> str:
        """Skip blanks and take the next character, empty at the end."""
        token = self.next_token()
        self._position += len(token)
        return token

    def value(self) -> object:
        """
        Take the next value.

        :raises _NotJsonError: if there is none, or it is longer than 16 MiB.
        """
        self.next_token()
        while True:
            try:
                value, self._position = PYTHON_DECODER.raw_decode(self._buffer, self._position)
            except RecursionError:
                return self._too_deep()
            except JSONDecodeError as error:  # broken, or not all of it is read yet
                place = error.pos - self._position
                if len(self._buffer) - self._position > MAX_ROW_BYTES or not self._read_more():
                    raise _NotJsonError(fault_of(error), place) from None
            else:
                return value

    def _too_deep(self) -> InvalidCustomerError:
        """
        Skip a value that is nested too deeply to be decoded.

        :raises _NotJsonError: if it has no end.
        """
        while True:
            depth = 0
            for match in _BRACKET.finditer(self._buffer, self._position):
                if match[0] == '"':  # the text continues after the buffer
                    break
                depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(match[0], 0)
                if not depth:
                    self._position = match.end()
                    return InvalidCustomerError(TOO_DEEP)
            if len(self._buffer) - self._position > MAX_ROW_BYTES or not self._read_more():
                raise _NotJsonError(CUT_OFF, len(self._buffer) - self._position)

    def _read_more(self) -> bool:
        rest = self._buffer[self._position :]
        more = self._text.read(max(BLOCK_BYTES, len(rest)))  # doubling: a long value is not decoded too often
        self._dropped += self._position
        self._dropped_bytes += len(self._buffer[: self._position].encode(errors="surrogateescape"))
        self._buffer, self._position = rest + more, 0
        return bool(more)
