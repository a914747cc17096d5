"""Find the options of ``csv`` that would fix a file in another dialect. Messages name them; nothing sets them."""

from __future__ import annotations

import codecs
import csv
import json
import logging
import re
from itertools import product
from typing import TYPE_CHECKING, Any

from airflow_provider_bubblehouse.errors import PermanentError
from airflow_provider_bubblehouse.formats.dialect import UTF8
from airflow_provider_bubblehouse.formats.encoding import UTF8_MARK, UTF16, UTF32, wide_encoding_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from airflow_provider_bubblehouse.formats.dialect import Dialect

log = logging.getLogger(__name__)

_DELIMITERS = (",", ";", "\t", "|")
_QUOTES = ('"', "'")
_MOST_LINES = 20  # at the start of the file, where a header may be
_MOST_BYTES = 16 * 1024
_LIKELY = "cp1252"  # Excel saves CSV in this encoding in Western Europe and America
_MARK, _UNDECODED = "\ufeff", "\ufffd"
_LINE_END = re.compile("\r\n|\r|\n")


def option(options: Mapping[str, Any]) -> str:
    """Return options as a user writes them: ``csv={"delimiter": ";"}``."""
    return f"csv={json.dumps(options, ensure_ascii=False)}"


def refuse_other_encoding(name: str, start: bytes, dialect: Dialect) -> None:
    """
    Refuse a file whose first bytes prove another encoding: it would be decoded to wrong text without an error.

    :param name: the file's name.
    :param start: its first bytes.
    :param dialect: its dialect.
    :raises PermanentError: if the file has another encoding.
    """
    found = UTF8 if start.startswith(UTF8_MARK) else wide_encoding_of(start)
    codec = codecs.lookup(dialect.encoding).name
    if codec in (UTF16, UTF32) and found != codec:  # these need their mark
        found = found or (UTF8 if _UNDECODED not in _decoded(start, UTF8) else _LIKELY)
    elif found is None or (dialect.is_utf8 if found == UTF8 else b"\0" in "id".encode(codec)):
        return
    raise PermanentError(
        f"{name} is {found.upper()}, not {dialect.encoding.upper()}; set {option({'encoding': found})}."
    )


def warn_of_likely_utf8(name: str, start: bytes, dialect: Dialect) -> None:
    """
    Warn if the start of a file is UTF-8, but the dialect's encoding decodes it to other letters.

    :param name: the file's name.
    :param start: its first bytes.
    :param dialect: its dialect.
    """
    if dialect.is_utf8:
        return
    start = start[:_MOST_BYTES]
    text = _decoded(start, UTF8)
    if not text.isascii() and _UNDECODED not in text and _decoded(start, dialect.encoding) != text:
        log.warning(
            "%s looks like UTF-8, but is read as %s, which gives other letters. Check the encoding in csv.",
            name,
            dialect.encoding.upper(),
        )


def better_encoding(data: bytes, dialect: Dialect) -> str | None:
    """
    Return the encoding that decodes bytes which the dialect's encoding does not decode; None if it is not known.

    :param data: bytes of a file.
    :param dialect: the file's dialect.
    """
    if not dialect.is_utf8:
        return UTF8 if not data.isascii() and _UNDECODED not in _decoded(data, UTF8) else None
    # UTF-8 letters and bytes that are not UTF-8: the file mixes encodings.
    is_mixed = any("\x7f" < letter != _UNDECODED for letter in _decoded(data, UTF8))
    return None if is_mixed or _UNDECODED in _decoded(data, _LIKELY) else _LIKELY


def _decoded(data: bytes, encoding: str) -> str:
    """Decode bytes; their last character may be cut off."""
    return codecs.getincrementaldecoder(encoding)("replace").decode(data)


def better_options(start: bytes, columns: Collection[str] | None, dialect: Dialect) -> dict[str, Any]:
    """
    Return the options that would find the required columns in a file's header; empty if there are none.

    :param start: the file's first bytes.
    :param columns: the required columns; None for ``id`` or ``email``.
    :param dialect: the file's dialect.
    """
    start = start[:_MOST_BYTES]
    found = [
        {name: value for name, value in options.items() if value != getattr(dialect, name)}
        for options, header in _headers(start, dialect)
        if _has_columns(header, columns)
    ]
    return min(found, key=len) if found else _header_delimiter(start, dialect)


def _headers(start: bytes, dialect: Dialect) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """Yield options and the header that they would give, beginning with the dialect's own options."""
    delimiters = dict.fromkeys((dialect.delimiter, *_DELIMITERS))
    quotes = dict.fromkeys((dialect.quote_char, *_QUOTES))
    for encoding in (dialect.encoding, _LIKELY if dialect.is_utf8 else UTF8):
        lines = enumerate(_lines(start, encoding))
        for (skipped, line), quote, delimiter in product(lines, quotes, delimiters):
            if quote != delimiter:
                options = {"encoding": encoding, "quote_char": quote, "delimiter": delimiter, "skip_rows": skipped}
                yield options, _cells(line, delimiter, quote)


def _has_columns(header: list[str], columns: Collection[str] | None) -> bool:
    if columns is None:
        return ("id" in header or "email" in header) and not any(_UNDECODED in column for column in header)
    return all(column in header or column.partition(".")[0] in header for column in columns)


def _header_delimiter(start: bytes, dialect: Dialect) -> dict[str, Any]:
    """Return the likely delimiter of a header that does not contain the dialect's delimiter."""
    lines = _lines(start, dialect.encoding)[dialect.skip_rows :]
    header = _cells(lines[0], dialect.delimiter, dialect.quote_char) if lines else []
    likely = likely_delimiter(header[0], dialect) if len(header) == 1 else None
    return {"delimiter": likely} if likely else {}


def likely_delimiter(row: str, dialect: Dialect) -> str | None:
    """
    Return the likely delimiter of a row; None if no common delimiter occurs.

    :param row: a row that does not contain the dialect's delimiter.
    :param dialect: the file's dialect.
    """
    likely = max(_DELIMITERS, key=row.count)
    return likely if likely in row and likely != dialect.delimiter else None


def _lines(start: bytes, encoding: str) -> list[str]:
    return _LINE_END.split(_decoded(start, encoding).lstrip(_MARK))[:_MOST_LINES]


def _cells(line: str, delimiter: str, quote: str | None) -> list[str]:
    try:
        return next(
            csv.reader([line], delimiter=delimiter, quotechar=quote, quoting=0 if quote else csv.QUOTE_NONE), []
        )
    except csv.Error:  # a cell longer than the module's limit
        return []
