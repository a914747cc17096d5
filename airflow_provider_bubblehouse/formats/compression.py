"""Recognise a file by its first bytes: text, compressed text, or another kind of file with the name of a text file."""

from __future__ import annotations

import gzip
import io
import re
import zlib
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

from airflow_provider_bubblehouse.errors import PermanentError
from airflow_provider_bubblehouse.formats.blocks import READ_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

SUFFIXES = (".gz", ".zst")

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_START = 4096  # bytes; the first two names in an Excel workbook are among them

_SAVE_AS_CSV = "save its sheet as CSV (UTF-8)"
_RECOMPRESS = "decompress it, or compress it with gzip or zstd instead"
_OTHER_KINDS = (
    (rb"PK\x03\x04.*?(?:\[Content_Types\]\.xml|xl/)", "an Excel workbook", _SAVE_AS_CSV),
    (rb"PK\x03\x04", "a zip archive", "unpack it, or compress the file in it with gzip instead"),
    (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel workbook", _SAVE_AS_CSV),
    (rb".{257}ustar", "a tar archive", "unpack it, or compress the file in it with gzip instead"),
    (rb"PAR1\x15", "a Parquet file", "set file_format='parquet'"),
    (rb"Obj\x01", "an Avro file", "convert it to Parquet"),
    (rb"BZh[1-9]1AY&SY", "compressed with bzip2", _RECOMPRESS),
    (rb"\xfd7zXZ\x00", "compressed with xz", _RECOMPRESS),
    (rb"%PDF-", "a PDF document", "export the rows as CSV"),
    (rb"(?i)\s*<(?:!doctype|html)", "a web page", "a download may have led to a login page"),
    (rb"<\?xml", "an XML document", "export the rows as CSV or JSON"),
)


@contextmanager
def decompressed(name: str, stored: io.RawIOBase) -> Iterator[io.BufferedReader]:
    """
    Open a text file, and decompress it if its first bytes say that it is compressed.

    :param name: the file's name.
    :param stored: the file.
    :raises PermanentError: if it is another kind of file, or damaged, also while it is read.
    """
    stream: Any
    damage: tuple[type[Exception], ...]
    with io.BufferedReader(stored, READ_BYTES) as raw:
        start = raw.peek(_START)
        if start.startswith(_GZIP):
            stream, kind = _buffered(gzip.GzipFile(fileobj=raw)), "gzip"
            damage = (EOFError, zlib.error, gzip.BadGzipFile)
        elif start.startswith(_ZSTD):
            zstd = _zstd_module(name)
            stream, kind, damage = _buffered(zstd.ZstdFile(raw)), "zstd", (EOFError, zstd.ZstdError)
        else:
            stream, kind, damage = raw, "", ()
        try:
            _refuse_other_kinds(name, stream.peek(_START))
            yield stream
        except damage:
            raise PermanentError(f"{name} is not a whole {kind} file; compress it again.") from None


def _buffered(stream: Any) -> io.BufferedReader:
    return io.BufferedReader(stream, READ_BYTES)


def _zstd_module(name: str) -> Any:
    for module in ("compression.zstd", "backports.zstd"):  # the first is part of Python 3.14
        with suppress(ImportError):
            return import_module(module)
    raise PermanentError(
        f"{name} is compressed with zstd, which needs Python 3.14 or: pip install 'airflow-provider-bubblehouse[zstd]'"
    )


def _refuse_other_kinds(name: str, start: bytes) -> None:
    for mark, kind, advice in _OTHER_KINDS:
        if re.match(mark, start[:_START], re.DOTALL):
            raise PermanentError(f"{name} is {kind}, not text; {advice}.")
