"""Pictures that contain a text about what they show, because pixels differ from machine to machine."""

from __future__ import annotations

import struct
import zlib

KEYWORD = b"Shown\0"


def with_text(png: bytes, text: str) -> bytes:
    """
    Write into a picture what it shows.

    A text chunk is as https://www.w3.org/TR/png/#11tEXt describes it.
    """
    chunk = b"tEXt" + KEYWORD + text.encode("ascii")
    end = png.rindex(b"IEND") - 4
    return png[:end] + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + png[end:]


def text_of(png: bytes) -> str:
    """Return what was written into a picture."""
    start = png.index(b"tEXt" + KEYWORD)
    (length,) = struct.unpack(">I", png[start - 4 : start])
    return png[start + 4 + len(KEYWORD) : start + 4 + length].decode("ascii")
