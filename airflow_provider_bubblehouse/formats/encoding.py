"""Detect byte order marks, and convert text of any encoding to UTF-8."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING, BinaryIO

from airflow_provider_bubblehouse.errors import PermanentError

if TYPE_CHECKING:
    import io

UTF8_MARK = codecs.BOM_UTF8
UTF16, UTF32 = "utf-16", "utf-32"
_WIDE_MARKS = {  # a mark of UTF-32 begins with one of UTF-16
    codecs.BOM_UTF32_LE: UTF32,
    codecs.BOM_UTF32_BE: UTF32,
    codecs.BOM_UTF16_LE: UTF16,
    codecs.BOM_UTF16_BE: UTF16,
    b"\0\0\0": "utf-32-be",
}
_START = 4  # bytes; the longest mark

_BAD_TEXT = "airflow_provider_bubblehouse.bad_text"
_BAD_BYTE, _BAD_CHARACTER = b"\xff", "\udcff"  # a byte that never occurs in UTF-8, and its surrogate in Python


def _mark_bad_text(error: UnicodeError) -> tuple[str | bytes, int]:
    """
    Replace text that cannot be decoded by a byte that is not UTF-8, so that the rules report its field.

    Python's ``surrogateescape`` does not work here: it fails in UTF-16, and its bytes may be valid UTF-8 by chance.
    """
    if isinstance(error, UnicodeDecodeError):
        return _BAD_CHARACTER, error.end
    if isinstance(error, UnicodeEncodeError):
        return _BAD_BYTE, error.end
    raise error


codecs.register_error(_BAD_TEXT, _mark_bad_text)


class Utf8Stream:
    """
    A text file of any encoding, read as UTF-8.

    :param stream: the file.
    :param encoding: its encoding.
    """

    def __init__(self, stream: BinaryIO, encoding: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)(_BAD_TEXT)

    def read(self, size: int) -> bytes:
        """Read about ``size`` bytes; none at the end of the file."""
        while data := self._stream.read(size):
            if text := self._decoder.decode(data):
                return text.encode(errors=_BAD_TEXT)
        return self._decoder.decode(b"", final=True).encode(errors=_BAD_TEXT)


def wide_encoding_of(start: bytes) -> str | None:
    """Return the UTF-16 or UTF-32 encoding that a text begins with; None for another encoding."""
    for mark, encoding in _WIDE_MARKS.items():
        if start.startswith(mark):
            return encoding
    if start[1:2] == b"\0":
        return "utf-32-le" if start[1:4] == b"\0\0\0" else "utf-16-le"
    return "utf-16-be" if start[:1] == b"\0" else None


def without_utf8_marks(block: bytes) -> bytes:
    """Remove all byte order marks at the start of a block."""
    while block.startswith(UTF8_MARK):
        block = block.removeprefix(UTF8_MARK)
    return block


def require_utf8(name: str, stream: io.BufferedReader) -> None:
    """
    Skip the byte order marks of a file that has to be UTF-8; a file that was exported and saved again may have two.

    :param name: the file's name.
    :param stream: the file.
    :raises PermanentError: if it is UTF-16 or UTF-32.
    """
    if encoding := wide_encoding_of(stream.peek(_START)):
        raise PermanentError(f"{name} is {encoding.upper()}, not UTF-8; save it as UTF-8.")
    while stream.peek(_START).startswith(UTF8_MARK):
        stream.read(len(UTF8_MARK))
