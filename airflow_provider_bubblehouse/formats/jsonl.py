"""
Read JSONL: one JSON object per line. The files of a ``rejected_path`` are JSONL, too.

Lines are decoded into objects with the fields of the first line, because this is faster than decoding into dicts.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import groupby
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec
from msgspec import UNSET, UnsetType

from airflow_provider_bubblehouse.customers.blocks import Block, Columns, Rows
from airflow_provider_bubblehouse.customers.fields import CanonicalFields, in_order, json_type
from airflow_provider_bubblehouse.customers.invalid import InvalidCustomerError
from airflow_provider_bubblehouse.customers.records import blocks_of, record_of
from airflow_provider_bubblehouse.errors import PermanentError
from airflow_provider_bubblehouse.formats.blocks import whole_lines
from airflow_provider_bubblehouse.formats.json_text import decode_line
from airflow_provider_bubblehouse.sources.columns import id_column_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence, Set

    from airflow_provider_bubblehouse.customers.blocks import Path

_MOST_FIELDS = 200  # of a row that is decoded by its fields; a row with more has data where the names should be
_LONGEST_ESCAPE = 6  # bytes for one byte of the source at most, such as a digit of the exponent in 1e15
_LONGEST_ADDITION = 16  # bytes that a rule adds at most, such as the offset of a time

_EXTRAS = ("extras",)

# All errors of msgspec for a line that it does not decode; before 0.21 its own error is not a ValueError.
_NOT_TAKEN = (msgspec.MsgspecError, UnicodeError, RecursionError)


def read_jsonl(
    name: str, stream: BinaryIO, columns: Mapping[str, Path] | None, *, rejected: bool = False
) -> Iterator[Block]:
    """
    Yield the rows of JSONL.

    :param name: the file's name.
    :param stream: the file.
    :param columns: name in the file to field, None to send each field under its own name.
    :param rejected: whether each line holds a rejected row, with the customer inside (see ``push.rejected``).
    :raises PermanentError: if it is not JSONL.
    """
    lines: _Lines | None = None
    for text in whole_lines(name, stream):
        if lines is None and (start := text.lstrip()):
            if start.startswith(b"["):
                raise PermanentError(
                    f"{name} begins as a JSON array, not as one JSON object a line; set file_format='json'."
                )
            lines = _Lines(name, start.partition(b"\n")[0], columns)
        if lines is not None:
            yield from _rejected(name, text, columns) if rejected else lines.blocks(text)


def _rejected(name: str, text: bytes, columns: Mapping[str, Path] | None) -> Iterator[Block]:
    rows = map(_decoded, filter(bytes.strip, text.split(b"\n")))
    for was_sent, some in groupby(rows, key=_was_sent):
        customers = list(map(_customer_in, some))
        yield from blocks_of(
            customers, file=name, columns=columns, id_column=id_column_of(columns), is_converted=was_sent
        )


def _was_sent(row: object) -> bool:
    """Return whether a line is of a row that the API has rejected; an invalid row has no status."""
    return isinstance(row, dict) and row.get("status") is not None


def _customer_in(row: object) -> object:
    """Return the customer in a line of a rejected row."""
    if isinstance(row, InvalidCustomerError):
        return row
    if not isinstance(row, dict) or "customer" not in row:
        return InvalidCustomerError("the line is not a rejected row: it has no customer", record=row)
    return row["customer"]


class _Lines:
    """
    Decodes lines by their expected fields: those of earlier lines.

    :param name: the file's name.
    :param first: its first line.
    :param columns: name in the file to field, None to send each field under its own name.
    """

    def __init__(self, name: str, first: bytes, columns: Mapping[str, Path] | None) -> None:
        self._name = name
        self._columns = columns
        self._id_column = id_column_of(columns)
        self._loose: set[Path] = set()
        row = _decoded(first)
        fields = columns or _own_names([row])
        self._extras = _extras_type(fields, row)
        self._expect(fields)

    def _expect(self, fields: Mapping[str, Path]) -> None:
        self._fields = fields
        self._shape = None
        if not any("." in column for column in self._columns or ()):  # objects are reached into record by record
            self._shape = _shape_of(fields, self._loose, self._extras, forbid_others=self._columns is None)

    def blocks(self, text: bytes) -> Iterator[Block]:
        """
        Yield some rows.

        :param text: whole lines.
        """
        lines = text.split(b"\n")
        if not lines[-1]:
            lines.pop()
        if self._shape is not None:
            with suppress(*_NOT_TAKEN):
                rows = list(map(self._shape.decode, lines))
                return iter([self._block_as_expected(self._shape, rows, lines, text)])
        return self._blocks_of_each(text)

    def _block_as_expected(self, shape: _Shape, rows: list[Any], lines: list[bytes], text: bytes) -> Block:
        clean = b"\\" not in text or b"\\u0000" not in text  # JSON can contain a NUL only as an escape
        return Block(
            file=self._name,
            count=len(rows),
            columns=Columns(rows, shape.attributes, shape.structs),
            clean=clean,
            canonical=shape.canonical.in_json(text) if clean else frozenset(),
            texts=shape.texts,
            rows=Rows(rows, shape.attributes, lines) if self._columns is None else None,
            bound=self._bound(text),
            id_column=self._id_column,
        )

    def _blocks_of_each(self, text: bytes) -> Iterator[Block]:
        """Yield rows if at least one of them has other fields or types than expected."""
        lines = list(filter(bytes.strip, text.split(b"\n")))
        broken: dict[int, InvalidCustomerError] = {}
        expected = len(self._loose), self._extras
        try:
            rows = [self._decode_one(place, line, broken) for place, line in enumerate(lines)]
        except _OtherFieldsError:
            records = list(map(_decoded, lines))
            if self._columns is None:
                self._expect({**self._fields, **_own_names(records)})
            yield from blocks_of(records, file=self._name, columns=self._columns, id_column=self._id_column)
        else:
            if rows and self._shape:
                yield Block(
                    file=self._name,
                    count=len(rows),
                    columns=Columns(rows, self._shape.attributes, self._shape.structs),
                    broken=broken,
                    bound=self._bound(text),
                    id_column=self._id_column,
                )
            if (len(self._loose), self._extras) != expected:
                self._expect(self._fields)

    def _decode_one(self, place: int, line: bytes, broken: dict[int, InvalidCustomerError]) -> Any:
        """
        Decode a line, or add its fault to ``broken``.

        :raises _OtherFieldsError: if it has other fields than expected.
        """
        if self._shape is None:
            raise _OtherFieldsError
        with suppress(*_NOT_TAKEN):
            return self._shape.decode(line)
        try:
            record = record_of(_decoded(line))
        except InvalidCustomerError as error:
            broken[place] = error
            return self._shape.kind()
        if self._columns is None and not record.keys() <= self._fields.keys():
            raise _OtherFieldsError
        row = self._shape.row(record)
        self._loosen(self._shape, row)
        return row

    def _loosen(self, shape: _Shape, row: Any) -> None:
        """Note which fields of a row have another type than expected; from now on they may have any type."""
        for path, attribute in shape.attributes.items():
            value = getattr(row, attribute)
            if value is not None and value is not UNSET and path not in self._loose:
                try:
                    msgspec.convert(value, json_type(path))
                except _NOT_TAKEN:
                    self._loose.add(path)
                else:
                    self._extras = None if path == _EXTRAS else self._extras

    def _bound(self, text: bytes) -> int:
        return len(text) * _LONGEST_ESCAPE + len(self._fields) * _LONGEST_ADDITION


class _Shape:
    """
    A type for lines that have certain fields.

    :param fields: name in the line to field.
    :param loose: the fields that may have any type; the others have their expected type.
    :param extras: a type for ``extras`` that is faster than a dict; None to use a dict.
    :param forbid_others: whether other fields are an error; otherwise they are left out.
    :raises ValueError: if such a type cannot be created.
    """

    def __init__(
        self, fields: Mapping[str, Path], loose: Set[Path], extras: type | None, *, forbid_others: bool
    ) -> None:
        if len(fields) > _MOST_FIELDS:
            raise ValueError
        names = {path: name for name, path in fields.items()}
        self._names = [names[path] for path in in_order(names)]
        self.attributes = {path: f"field_{place}" for place, path in enumerate(in_order(names))}
        self.structs = frozenset({_EXTRAS} if extras else ())
        types = {
            path: Any if path in loose else (extras if path in self.structs else json_type(path)) | UnsetType | None
            for path in self.attributes
        }
        self.canonical = CanonicalFields(names.keys() - loose)
        self.texts = frozenset(path for path, kind in types.items() if kind == str | UnsetType | None)
        self.kind = msgspec.defstruct(
            "Row",
            [(attribute, types[path], UNSET) for path, attribute in self.attributes.items()],
            rename=dict(zip(self.attributes.values(), self._names, strict=True)),  # a name may be no identifier
            forbid_unknown_fields=forbid_others,
            gc=False,
        )
        self.decode = msgspec.json.Decoder(self.kind).decode

    def row(self, record: Mapping[str, Any]) -> Any:
        """Return a record as a row."""
        return self.kind(*[record.get(name, UNSET) for name in self._names])


def _shape_of(
    fields: Mapping[str, Path], loose: Set[Path], extras: type | None, *, forbid_others: bool
) -> _Shape | None:
    try:
        return _Shape(fields, loose, extras, forbid_others=forbid_others)
    except ValueError:  # too many fields, or a name that JSON has to escape
        return None


def _extras_type(fields: Mapping[str, Path], row: object) -> type[msgspec.Struct] | None:
    """Return a type for ``extras`` with the names of those in a row; None if it cannot be created."""
    name = next((name for name, path in fields.items() if path == _EXTRAS), None)
    extras = row.get(name) if isinstance(row, dict) else None
    if not isinstance(extras, dict) or not 0 < len(extras) <= _MOST_FIELDS:
        return None
    names = {f"field_{place}": name for place, name in enumerate(extras)}
    fields_of_extras = [(field, json_type((*_EXTRAS, name)) | UnsetType, UNSET) for field, name in names.items()]
    with suppress(ValueError):  # a name that JSON has to escape
        return msgspec.defstruct("Extras", fields_of_extras, rename=names, forbid_unknown_fields=True, gc=False)
    return None


def _own_names(records: Sequence[object]) -> dict[str, Path]:
    return {field: (field,) for record in records if isinstance(record, dict) for field in record}


def _decoded(line: bytes) -> object:
    try:
        return decode_line(line)
    except InvalidCustomerError as error:
        return error


class _OtherFieldsError(ValueError):
    """A line has fields that the lines before it did not have."""
