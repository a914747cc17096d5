"""Blocks of whole lines, read from a stream in constant memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from airflow_provider_bubblehouse.errors import PermanentError

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK_ROWS = 1000  # rows per chunk; enough that the cost of a chunk is small compared with that of its rows
BLOCK_BYTES = 128 * 1024  # processed at once: enough that the cost of a block is small, and it stays in the CPU's cache
READ_BYTES = 4 * BLOCK_BYTES  # read at once; each read switches to the threads of the lanes, which costs more
MAX_ROW_BYTES = 16 * 1024 * 1024  # far larger than any call; bounds the memory for a file without line ends


class Readable(Protocol):
    """A source of bytes."""

    def read(self, size: int, /) -> bytes:
        """Read about ``size`` bytes; none at the end."""


def whole_lines(name: str, stream: Readable, *, ends: bytes = b"\n") -> Iterator[bytes]:
    """Yield blocks of whole lines; each of ``ends`` ends a line."""
    rest: list[bytes] = []
    size = 0
    while block := stream.read(BLOCK_BYTES):
        lines = block.removesuffix(b"\r")  # the line feed after it may be in the next block
        end = max(map(lines.rfind, ends)) + 1
        if end:
            yield b"".join((*rest, memoryview(block)[:end]))
            rest, size = [], 0
        rest.append(block[end:])
        size += len(block) - end
        if size > MAX_ROW_BYTES:
            raise PermanentError(f"{name} has a line of more than 16 MiB; are its line ends lost?")
    if size:
        yield b"".join(rest)
