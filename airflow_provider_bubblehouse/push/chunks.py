"""
Some rows at a time: as Python's objects, as JSON lines, or as cells of a CSV, each with its quickest way to customers.

A chunk in which every row can be sent as it stands is checked and encoded without a line of Python for each row. Any
other chunk is handed on as records, which are looked at one by one (see ``push.encoder``).
"""

from __future__ import annotations

import datetime as dt
import json
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from operator import itemgetter
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import msgspec

from airflow_provider_bubblehouse.api.customers import (
    AMOUNT_PATTERN,
    BOOLEAN_FIELDS,
    DATE_FIELDS,
    LIST_FIELDS,
    TEXT_FIELDS,
    TIME_FIELDS,
    Customer2,
    Customer2OfObjects,
    InvalidCustomerError,
    check_plain_times,
    identities_of,
    narrowed,
    plain_identities,
    times_of,
)
from airflow_provider_bubblehouse.push.batches import Encoded, Unencoded, encode_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from airflow_provider_bubblehouse.push.batches import Customers

# All that msgspec raises of what it cannot decode, convert or encode; before its 0.21 its own error is no ValueError.
NOT_PLAIN = (ValueError, TypeError, RecursionError, msgspec.MsgspecError)

_CUSTOMERS = msgspec.json.Decoder(Customer2)
_ANYTHING = msgspec.json.Decoder()
_LONGEST_ESCAPE = len("\\u0000")  # bytes that one character becomes in JSON at most


@dataclass(frozen=True, slots=True)
class PlainRows:
    """
    Rows that can be sent as they stand.

    :param identities: of each the id, or else the email.
    :param bound: bytes that none of them exceeds as JSON.
    :param customers: returns them.
    """

    identities: Sequence[str]
    bound: int
    customers: Callable[[], Customers]


def _encoded(identities: Sequence[str], lines: list[bytes]) -> PlainRows:
    return PlainRows(identities, max(map(len, lines), default=0), lambda: Encoded(lines))


class Chunk(Protocol):
    """Some consecutive rows of one file."""

    @property
    def file(self) -> str:
        """The file's name, empty for a list."""

    def plain_rows(self) -> PlainRows:
        """
        Return the rows where all of them can be sent as they stand.

        :raises ValueError: if one cannot, or might not; or else one of ``NOT_PLAIN``.
        """

    def records(self) -> Iterable[object]:
        """Return the rows as mappings, each that is none as it is or as an ``InvalidCustomerError``."""


@dataclass(frozen=True, slots=True)
class Records:
    """
    Rows as Python's objects.

    :param file: the file's name, empty for a list.
    :param rows: the rows.
    """

    file: str
    rows: Sequence[object]

    def plain_rows(self) -> PlainRows:
        customers = msgspec.convert(self.rows, list[Customer2OfObjects])
        identities, _ = identities_of(customers)
        check_plain_times(times_of(customers))
        return _encoded(identities, encode_lines(customers))

    def records(self) -> Iterable[object]:
        return self.rows


@dataclass(frozen=True, slots=True)
class JsonLines:
    """
    Rows as text, one JSON object a line.

    :param file: the file's name.
    :param text: whole lines.
    :param fields: the fields that its rows are likely to have, None for any.
    """

    file: str
    text: bytes
    fields: frozenset[str] | None = None

    def plain_rows(self) -> PlainRows:
        customers = self._decode()
        lines = self._lines_of(len(customers))
        check_plain_times(times_of(customers))
        identities, changed = identities_of(customers)
        if changed:
            return _encoded(identities, encode_lines(customers))
        return PlainRows(identities, len(self.text), lambda: Encoded(lines))

    def _decode(self) -> list[Customer2]:
        if self.fields is not None:
            with suppress(msgspec.ValidationError):  # a row has others, too
                return _decoder(self.fields).decode_lines(self.text)
        return _CUSTOMERS.decode_lines(self.text)

    def _lines_of(self, count: int) -> list[bytes]:
        """Return the lines if they hold so many objects one each, which the decoder does not look at."""
        lines = self.text.split(b"\n")
        if not lines[-1]:
            lines.pop()
        if not _hold_one_object_each(lines, count):
            lines = list(self._lines())
            if not _hold_one_object_each(lines, count):
                raise ValueError
        return lines

    def records(self) -> Iterable[object]:
        return map(_parse_line, self._lines())

    def _lines(self) -> Iterator[bytes]:
        return filter(None, map(bytes.strip, self.text.split(b"\n")))


def _hold_one_object_each(lines: Sequence[bytes], count: int) -> bool:
    """
    Say whether lines that hold so many objects hold one each.

    Where a line ends with } and the next one begins with {, no object goes on from one to the other.
    """
    try:
        return len(lines) == count and {*map(_FIRST, lines)} <= _BRACE and {*map(_LAST, lines)} <= _END_BRACE
    except IndexError:  # an empty line
        return False


_FIRST, _LAST = itemgetter(0), itemgetter(-1)
_BRACE, _END_BRACE = set(b"{"), set(b"}")


@cache
def _decoder(fields: frozenset[str]) -> msgspec.json.Decoder[Customer2]:
    return msgspec.json.Decoder(narrowed(fields))


def fields_of(line: bytes) -> frozenset[str] | None:
    """Return the fields that a JSON line has, None where it is no object."""
    try:
        return frozenset(msgspec.json.decode(line, type=dict[str, msgspec.Raw]))
    except NOT_PLAIN:
        return None


def _parse_line(line: bytes) -> object:
    try:
        return _ANYTHING.decode(line)
    except UnicodeDecodeError:
        reason = "the line is not UTF-8 text; save the file as UTF-8"
    except RecursionError:
        reason = "the line is nested too deeply"
    except msgspec.DecodeError:
        reason = "the line is not valid JSON"
    return InvalidCustomerError(reason, record=line.decode(errors="surrogateescape"))


@dataclass(frozen=True, slots=True)
class CsvLines:
    """
    Rows as text, one line of a CSV each.

    :param file: the file's name.
    :param layout: what the cells are.
    :param text: whole lines without a quote, each with a line feed at its end; those that are empty are no rows.
    :param count: how many lines there are.
    """

    file: str
    layout: Layout
    text: str
    count: int

    def plain_rows(self) -> PlainRows:
        if not self.layout.columns_only:
            return Records(self.file, list(self.records())).plain_rows()
        width, count = self.layout.width, self.count
        cells = self.text.replace("\n", ",\n,").split(",")
        # All rows have as many cells if all line feeds, now cells of their own, stand where that puts them.
        if len(cells) != count * (width + 1) + 1 or cells[width :: width + 1].count("\n") != count:
            raise ValueError
        columns = [cells[place : -1 : width + 1] for place in range(width)]
        return PlainRows(
            self.layout.identities(columns),
            self.layout.bound(len(self.text)),
            lambda: Unencoded(self.layout.objects(columns)),
        )

    def records(self) -> Iterable[object]:
        return (self.layout.record(line.split(",")) for line in self.text.split("\n") if line)


@dataclass(frozen=True, slots=True)
class Table:
    """
    Rows as cells of text, as a CSV with quotes has them.

    :param file: the file's name.
    :param layout: what the cells are.
    :param rows: the cells of each row, of which there is one at least.
    """

    file: str
    layout: Layout
    rows: list[list[str]]

    def plain_rows(self) -> PlainRows:
        if not self.layout.columns_only:
            return Records(self.file, list(self.records())).plain_rows()
        if set(map(len, self.rows)) != {self.layout.width}:
            raise ValueError
        columns = list(zip(*self.rows, strict=True))
        return _encoded(self.layout.identities(columns), encode_lines(self.layout.objects(columns)))

    def records(self) -> Iterable[object]:
        return map(self.layout.record, self.rows)


@dataclass(frozen=True, slots=True)
class Cell:
    """
    A cell that is sent.

    :param place: its place in the row, from 0.
    :param path: its field, ``extras.city`` being ``("extras", "city")``.
    """

    place: int
    path: tuple[str, ...]


class Layout:
    """
    What the cells of a CSV's rows are; an empty cell is absent.

    :param cells: the cells that are sent.
    :param width: how many cells a row has.
    """

    def __init__(self, cells: Sequence[Cell], *, width: int) -> None:
        self.width = width
        self._text = [(cell.place, cell.path[0]) for cell in cells if _is_text(cell.path)]
        self._nested: dict[str, list[tuple[int, str]]] = {}
        for cell in cells:
            if len(cell.path) == 2:
                self._nested.setdefault(cell.path[0], []).append((cell.place, cell.path[1]))
        self._others = [cell for cell in cells if len(cell.path) != 2 and not _is_text(cell.path)]
        self._places = {name: place for place, name in self._text}
        self._names_size = sum(len(name) * _LONGEST_ESCAPE + len('"":{"":"",') for cell in cells for name in cell.path)
        # Whether a row is nothing but text in known fields, and text in ``extras``.
        self.columns_only = (
            not self._others and set(self._nested) <= {"extras"} and self._places.keys() <= _PLAIN_FIELDS
        )
        try:
            self._row = _struct([name for _, name in self._text] + list(self._nested))
            self._inner = {parent: _struct([name for _, name in inner]) for parent, inner in self._nested.items()}
        except ValueError:  # a name that JSON would have to escape
            self.columns_only = False

    def identities(self, columns: Sequence[Sequence[str]]) -> Sequence[str]:
        """
        Return the identity of each row, where all rows can be sent as they stand; for ``columns_only`` layouts.

        :param columns: the cells of each column.
        :raises ValueError: if one cannot.
        """
        identifiers, emails = (columns[self._places[name]] if name in self._places else () for name in ("id", "email"))
        identities = identifiers or emails
        if identifiers and emails and not all(identifiers):
            identities = [one or other for one, other in zip(identifiers, emails, strict=True)]
        for name, check in _COLUMN_CHECKS.items():
            if name in self._places:
                cells = columns[self._places[name]]
                check(cells if all(cells) else list(filter(None, cells)))
        return plain_identities(identities)

    def bound(self, characters: int) -> int:
        """Return the bytes that a row, whose cells have so many characters at most, does not exceed as JSON."""
        return self._names_size + characters * _LONGEST_ESCAPE

    def objects(self, columns: Sequence[Sequence[str]]) -> list[object]:
        """
        Return each row as what encodes as its JSON, without its empty cells.

        :param columns: the cells of each column, as ``identities`` has found them good.
        """
        values: list[Sequence[Any]] = [columns[place] for place, _ in self._text]
        for parent, inner in self._nested.items():
            fields = [columns[place] for place, _ in inner]
            objects: list[object] = list(map(self._inner[parent], *fields))
            if not any(map(all, fields)):
                objects = [one if any(cells) else "" for one, *cells in zip(objects, *fields, strict=True)]
            values.append(objects)
        return list(map(self._row, *values))

    def record(self, values: list[str]) -> object:
        """
        Return a row as a record.

        :param values: its cells.
        """
        if len(values) != self.width:
            reason = f"the row has {len(values)} cells where the header has {self.width}"
            return InvalidCustomerError(reason, record=values)
        made: dict[str, Any] = {name: text for place, name in self._text if (text := values[place])}
        for parent, inner in self._nested.items():
            if fields := {name: text for place, name in inner if (text := values[place])}:
                made[parent] = fields
        wrong: str | None = None
        for cell in self._others:
            if text := values[cell.place]:
                value: object = text
                if len(cell.path) == 1:
                    try:
                        value = _CELL_TYPES[cell.path[0]](text)
                    except (ValueError, RecursionError):
                        wrong = wrong or cell.path[0]
                put(made, cell.path, value)
        return made if wrong is None else InvalidCustomerError(_CELL_REASONS[wrong], wrong, record=made)


def put(record: dict[str, Any], path: tuple[str, ...], value: object) -> None:
    """
    Set a field of a record, making the objects that it is nested in.

    :param record: the record.
    :param path: the field, ``extras.city`` being ``("extras", "city")``.
    :param value: its value.
    """
    for name in path[:-1]:
        record = record.setdefault(name, {})
    record[path[-1]] = value


def _struct(names: Sequence[str]) -> type[msgspec.Struct]:
    """Return a type whose objects are made of as many cells, and encoded without the empty ones."""
    stand_ins = {f"cell_{place}": name for place, name in enumerate(names)}  # a name may be no identifier
    return msgspec.defstruct(
        "Row", [(stand_in, Any, "") for stand_in in stand_ins], rename=stand_ins, omit_defaults=True, gc=False
    )


def _is_text(path: tuple[str, ...]) -> bool:
    return len(path) == 1 and path[0] not in _CELL_TYPES


def _cell_boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError
    return text == "true"


def _cell_number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError
    return int(text)


def _cell_json(kind: type) -> Callable[[str], object]:
    def parse(text: str) -> object:
        value = json.loads(text)
        if not isinstance(value, kind):
            raise ValueError  # noqa: TRY004  one kind of error for every cell that does not fit
        return value

    return parse


_CELL_TYPES: dict[str, Callable[[str], object]] = {
    **dict.fromkeys(BOOLEAN_FIELDS, _cell_boolean),
    **dict.fromkeys(LIST_FIELDS, _cell_json(list)),
    "extras": _cell_json(dict),
    "order_count": _cell_number,
}
_CELL_REASONS = {
    **dict.fromkeys(BOOLEAN_FIELDS, "must be true or false, in lower case"),
    **dict.fromkeys(LIST_FIELDS, 'must be a JSON array of texts, such as ["vip"]'),
    "extras": "must be a JSON object",
    "order_count": "must be a whole number in digits",
}

_COLUMN_CHECKS: dict[str, Callable[[Sequence[str]], object]] = {
    **dict.fromkeys(TIME_FIELDS, check_plain_times),
    **dict.fromkeys(DATE_FIELDS, lambda days: msgspec.convert(days, list[dt.date])),
    "total_spent": lambda amounts: msgspec.convert(amounts, list[_Amount]),
}
_Amount = Annotated[str, msgspec.Meta(pattern=AMOUNT_PATTERN)]
_PLAIN_FIELDS = {"id", *TEXT_FIELDS, *_COLUMN_CHECKS}
