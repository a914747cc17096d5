"""The dialect of a CSV file: the options that a user sets, and their checks."""

from __future__ import annotations

import codecs
import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from airflow_provider_bubblehouse.errors import PermanentError

UTF8 = "utf-8"

_LINE_ENDS_AND_NUL = "\r\n\0"
_TEXT_TO_TRY = "id,email\r\n1,\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """
    The dialect of a CSV file.

    :param delimiter: the character between two cells.
    :param encoding: the encoding of the text, one of Python's text encodings.
    :param quote_char: the character around a cell that contains a delimiter or a line break; None for no quoting.
    :param escape_char: the character that removes the special meaning of the next one; None if a quote character within
        a cell is doubled.
    :param null_values: cells that count as absent, like empty cells. They are compared before escapes are removed.
    :param column_names: the columns of a file without a header; None if the first row is the header.
    :param skip_rows: how many lines to skip before the header, or before the first row.
    :raises PermanentError: if an option cannot work.
    """

    delimiter: str = ","
    encoding: str = UTF8
    quote_char: str | None = '"'
    escape_char: str | None = None
    null_values: tuple[str, ...] = ()
    column_names: tuple[str, ...] | None = None
    skip_rows: int = 0

    @classmethod
    def of(cls, options: object) -> Dialect:
        """
        Create a dialect from a user's options.

        :param options: a mapping from the names of the parameters to their values; None for the default dialect.
        :raises PermanentError: if it is not such a mapping, or an option cannot work.
        """
        if options is None:
            return cls()
        if not isinstance(options, Mapping):
            raise PermanentError('csv must be an object of options, such as {"delimiter": ";"}.')
        known = [field.name for field in fields(cls)]
        if unknown := [str(name) for name in options if name not in known]:
            raise PermanentError(f"csv has no option {', '.join(unknown)}; its options are {', '.join(known)}.")
        given: dict[str, Any] = {
            name: tuple(some) if isinstance(some, list) else some for name, some in options.items()
        }
        return cls(**given)

    def __post_init__(self) -> None:
        """Check the options."""
        if not _is_character(self.delimiter):
            raise PermanentError('csv: delimiter must be one character, such as ";", or "\\t" for a tab.')
        for name in ("quote_char", "escape_char"):
            if getattr(self, name) is not None and not _is_character(getattr(self, name)):
                raise PermanentError(f"csv: {name} must be one character, or None.")
        self._check_distinct()
        self._check_encoding()
        if not _are_texts(self.null_values):
            raise PermanentError('csv: null_values must be a list of texts, such as ["NULL"].')
        if self.column_names is not None:
            self._check_column_names(self.column_names)
        if isinstance(self.skip_rows, bool) or not isinstance(self.skip_rows, int) or self.skip_rows < 0:
            raise PermanentError("csv: skip_rows must be a whole number of lines, at least 0.")

    @property
    def is_utf8(self) -> bool:
        """Whether the text is UTF-8."""
        return codecs.lookup(self.encoding).name in (UTF8, "utf-8-sig")

    def settings(self) -> dict[str, Any]:
        """Return all options as JSON types."""
        names = None if self.column_names is None else list(self.column_names)
        return {**asdict(self), "null_values": list(self.null_values), "column_names": names}

    def _check_distinct(self) -> None:
        if self.delimiter in (self.quote_char, self.escape_char):
            other = "quote_char" if self.delimiter == self.quote_char else "escape_char"
            raise PermanentError(f"csv: delimiter and {other} must be different characters.")
        if self.escape_char is not None and self.escape_char == self.quote_char:
            raise PermanentError(
                "csv: escape_char and quote_char must be different characters. Leave escape_char out if a quote "
                "character within a cell is doubled."
            )

    def _check_encoding(self) -> None:
        if not isinstance(self.encoding, str) or not _decodes_text(self.encoding):
            raise PermanentError(
                "csv: encoding must be one of Python's text encodings, such as cp1252, latin-1 or utf-16."
            )
        for name in ("delimiter", "quote_char", "escape_char"):
            try:
                (getattr(self, name) or "").encode(self.encoding)
            except UnicodeError:
                raise PermanentError(f"csv: {name} is a character that {self.encoding} does not have.") from None

    def _check_column_names(self, names: tuple[str, ...]) -> None:
        if not _are_texts(names) or not names or not all(names):
            raise PermanentError(
                'csv: column_names must be a list with the name of each column, such as ["id", "email"].'
            )
        if len(set(names)) < len(names):
            raise PermanentError("csv: column_names has the same name twice.")


def _are_texts(values: object) -> bool:
    return isinstance(values, tuple) and all(map(_is_text, values))


def _is_character(value: object) -> bool:
    return isinstance(value, str) and len(value) == 1 and value not in _LINE_ENDS_AND_NUL and _is_text(value)


def _is_text(value: object) -> bool:
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def _decodes_text(encoding: str) -> bool:
    """Return whether an encoding is for text, and decodes piece by piece, with an error handler for wrong bytes."""
    try:
        io.TextIOWrapper(io.BytesIO(), encoding=encoding)  # refuses codecs that are not for text, such as hex
        decoder = codecs.getincrementaldecoder(encoding)("surrogateescape")
        return decoder.decode(_TEXT_TO_TRY.encode(encoding), final=True) == _TEXT_TO_TRY
    except (LookupError, ValueError):
        return False
