"""
Convert rows into customers: column by column, each value by the rule of its field.

A column whose values are all canonical is sent unchanged. In any other column, each value goes through the field's
rule. A rule sees one value only, so a row has the same verdict and the same JSON alone and next to any other row.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from itertools import compress
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec
from msgspec import UNSET

from airflow_provider_bubblehouse.customers.blocks import Block
from airflow_provider_bubblehouse.customers.columns import convert_column
from airflow_provider_bubblehouse.customers.encoded import Encoded, Unencoded
from airflow_provider_bubblehouse.customers.field_formats import VERBATIM, formats_within, read_formats
from airflow_provider_bubblehouse.customers.fields import (
    FIELD_NAMES,
    Field,
    customer_fields,
    deletion_fields,
    in_order,
    other_field,
)
from airflow_provider_bubblehouse.customers.identity import identities_of
from airflow_provider_bubblehouse.customers.invalid import InvalidCustomerError, printable_name
from airflow_provider_bubblehouse.customers.layout import Layout
from airflow_provider_bubblehouse.customers.records import blocks_of
from airflow_provider_bubblehouse.customers.times import Calendar
from airflow_provider_bubblehouse.customers.values import NOT_UTF8, are_clean_texts

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from airflow_provider_bubblehouse.customers.blocks import Path
    from airflow_provider_bubblehouse.customers.encoded import Customers
    from airflow_provider_bubblehouse.customers.field_formats import Format, Formats

log = logging.getLogger(__name__)

_ID, _EMAIL, _DELETED = ("id",), ("email",), ("deleted",)
_MAX_PLANS = 100  # bounds the memory for a source whose rows have ever different fields
_MAX_UNKNOWN_FIELDS = 50  # a source with more names has data where the names should be

_NO_IDENTITY = "the row has neither id nor email"
_NAME_NOT_SENDABLE = "a field's name is not UTF-8 text, or holds a NUL character; save the source as UTF-8"
_TOO_LARGE = "the row has more bytes as JSON than max_batch_bytes allows"


@dataclass(frozen=True, slots=True)
class InvalidRow:
    """
    A row that cannot be sent.

    :param number: its number in the source.
    :param error: what is wrong with it.
    :param record: the row as the source has it.
    """

    number: int
    error: InvalidCustomerError
    record: object


@dataclass(frozen=True, slots=True)
class CheckedChunk:
    """
    Some rows, split into customers and invalid rows.

    :param count: the number of rows.
    :param numbers: the number in the source of each customer.
    :param identities: returns the id of each customer, or else its lower-case email; only some pushes call it.
    :param customers: returns the customers; a pass that only validates does not call it.
    :param invalid: the invalid rows.
    """

    count: int
    numbers: Sequence[int]
    identities: Callable[[], Sequence[str]]
    customers: Callable[[], Customers]
    invalid: list[InvalidRow]


class CheckedRows(Protocol):
    """Rows that are already converted and stored as JSON, such as those of a query."""

    @property
    def file(self) -> str:
        """The name that messages show as the file."""

    def checked(self, first_number: int) -> CheckedChunk:
        """
        Return the rows.

        :param first_number: the number of the first one in the source.
        """


Chunk = Block | CheckedRows


class _Plan(NamedTuple):
    """
    How to convert blocks that have certain columns.

    :param fields: the fields with their rules and formats, in the order in which they are sent.
    :param unknown: the fields that Customer2 is not known to have.
    :param unsendable: the fields whose name cannot be sent.
    :param layout: the layout of a customer.
    :param has_formats: whether a field has a format, which may make its values longer.
    """

    fields: list[tuple[Path, Field, Format | None]]
    unknown: list[Path]
    unsendable: list[Path]
    layout: Layout
    has_formats: bool


class Converter:
    """
    Converts rows into customers.

    :param timezone: the time zone of times without an offset, such as ``Europe/Berlin``.
    :param deletions: whether each row names a customer to delete.
    :param largest: the maximum size of a customer as JSON, in bytes. A larger customer does not fit into a call and is
        an invalid row. None for no limit.
    :param formats: how the source writes the values of some fields, such as ``{"birthday": "%d.%m.%Y"}``.
    :raises PermanentError: if there is no such time zone, or a format cannot work.
    """

    def __init__(
        self,
        *,
        timezone: str = "UTC",
        deletions: bool = False,
        largest: int | None = None,
        formats: Formats | None = None,
    ) -> None:
        self._calendar = Calendar(timezone)
        self._formats = read_formats(formats, self._calendar)
        self._verbatim_id = (formats or {}).get("id") == VERBATIM
        self._deletions = deletions
        self._largest = largest
        self._other = other_field(self._calendar)
        self._plans: dict[tuple[str, tuple[Path, ...], bool], _Plan] = {}
        self._warned: set[str] = set()

    def customer(self, record: object) -> dict[str, Any]:
        """
        Convert one record.

        :param record: a mapping of fields, or another record (see ``records.record_of``).
        :raises InvalidCustomerError: if it cannot be sent.
        """
        (block,) = blocks_of([record])
        checked = self.check(block, 1)
        if checked.invalid:
            raise checked.invalid[0].error from None
        customer: dict[str, Any] = msgspec.json.decode(checked.customers().lines[0])
        return customer

    def check(self, chunk: Chunk, first_number: int) -> CheckedChunk:
        """
        Convert some rows.

        :param chunk: the rows.
        :param first_number: the number of the first one in the source.
        """
        return self._check(chunk, first_number) if isinstance(chunk, Block) else chunk.checked(first_number)

    def _check(self, block: Block, first_number: int) -> CheckedChunk:
        plan, faults = self._plan(block), dict(block.broken)
        for path in plan.unknown:
            self._warn_of_unknown(path[0], block.columns)
        converted = {
            path: convert_column(path, field, how, block, faults)
            for path, field, how in plan.fields
            if self._deletions or how is not None or path not in block.canonical
        }
        for path in plan.unsendable:
            converted[path] = _refuse_name(block.columns[path], faults)
        if block.not_utf8:
            _say_why_not_utf8(block.not_utf8, faults)
        identities = _identify(converted, block.count, faults)
        if self._deletions:
            _keep_identity(converted, block.count)
        customers: Callable[[], Customers] = partial(self._customers, plan.layout, block, converted, faults)
        bound = None if plan.has_formats else block.bound
        if self._largest is not None and (bound is None or bound > self._largest):
            customers = self._refuse_too_large(customers(), faults, block.count)
        numbers: Sequence[int] = range(first_number, first_number + block.count)
        if faults:
            valid = _valid(faults, block.count)
            numbers, identities = list(compress(numbers, valid)), list(compress(identities, valid))
        invalid = [InvalidRow(first_number + place, faults[place], block.record(place)) for place in sorted(faults)]
        return CheckedChunk(block.count, numbers, lambda: identities, customers, invalid)

    def _warn_of_unknown(self, name: str, columns: Mapping[Path, Sequence[Any]]) -> None:
        shown = printable_name(name)
        if shown in self._warned or len(self._warned) >= _MAX_UNKNOWN_FIELDS:
            return
        if any(_is_given(cell) for path, cells in columns.items() if path[0] == name for cell in cells):
            self._warned.add(shown)
            log.warning(
                "Customer2 has no known field %s; it is sent unchanged. To send it as another field, use column_map.",
                shown,
            )

    def _customers(
        self, layout: Layout, block: Block, converted: Mapping[Path, Sequence[Any]], faults: Collection[int]
    ) -> Customers:
        valid = _valid(faults, block.count) if faults else None
        if block.rows is not None and not self._deletions:
            changed = {path: cells for path, cells in converted.items() if cells is not block.columns[path]}
            return block.rows.customers(changed, valid)
        rows = layout.rows({**block.columns, **converted}, block.count)
        return Unencoded(rows if valid is None else list(compress(rows, valid)))

    def _refuse_too_large(
        self, customers: Customers, faults: dict[int, InvalidCustomerError], count: int
    ) -> Callable[[], Customers]:
        largest = self._largest or 0
        joined = customers.joined()
        if len(joined) <= largest:  # usually all of them fit together
            together = Unencoded(customers.objects, joined) if isinstance(customers, Unencoded) else customers
            return lambda: together
        lines = customers.lines
        if max(map(len, lines), default=0) > largest:
            for place, line in zip(compress(range(count), _valid(faults, count)), lines, strict=True):
                if len(line) > largest:
                    faults[place] = InvalidCustomerError(_TOO_LARGE)
            lines = [line for line in lines if len(line) <= largest]
        return lambda: Encoded(lines)

    def _plan(self, block: Block) -> _Plan:
        key = block.id_column, tuple(block.columns), block.is_converted
        plan = self._plans.get(key)
        if plan is None:
            if len(self._plans) >= _MAX_PLANS:
                self._plans.clear()
            plan = self._plans[key] = self._make_plan(*key)
        return plan

    def _make_plan(self, id_column: str, paths: tuple[Path, ...], is_converted: bool) -> _Plan:
        formats = {} if is_converted else self._formats
        known = self._known_fields(id_column)
        sent = [path for path in in_order(paths) if path[0] in known or not self._deletions]
        fields = [
            (
                path,
                known.get(path[0], self._other) if len(path) == 1 else self._other,
                formats_within(path, formats),
            )
            for path in sent
            if are_clean_texts(path)
        ]
        unknown = [path for path in sent if path[0] not in FIELD_NAMES]
        unsendable = [path for path in sent if not are_clean_texts(path)]
        if self._deletions:
            sent = [path for path in sent if path != _DELETED] + [_DELETED]
        return _Plan(fields, unknown, unsendable, Layout(sent), any(how for _, _, how in fields))

    def _known_fields(self, id_column: str) -> dict[str, Field]:
        if self._deletions:
            return deletion_fields(id_column, verbatim_id=self._verbatim_id)
        return customer_fields(self._calendar, id_column, verbatim_id=self._verbatim_id)


def _valid(faults: Collection[int], count: int) -> list[bool]:
    return [place not in faults for place in range(count)]


def _is_given(cell: object) -> bool:
    return cell is not None and cell is not UNSET and not (type(cell) is str and not cell)


def _refuse_name(cells: Sequence[Any], faults: dict[int, InvalidCustomerError]) -> Sequence[Any]:
    for place, cell in enumerate(cells):
        if cell is not UNSET:
            faults.setdefault(place, InvalidCustomerError(_NAME_NOT_SENDABLE))
    return [UNSET] * len(cells)


def _say_why_not_utf8(reason: str, faults: dict[int, InvalidCustomerError]) -> None:
    """Replace the reason of texts that are not UTF-8 by one that names the encoding of the source."""
    for place, fault in faults.items():
        if fault.reason == NOT_UTF8:
            faults[place] = InvalidCustomerError(reason, fault.field)
        elif fault.reason == _NAME_NOT_SENDABLE:
            faults[place] = InvalidCustomerError(f"a field's name {reason}")


def _keep_identity(columns: dict[Path, Sequence[Any]], count: int) -> None:
    """Reduce each row to what a deletion sends: the id, or else the email, and ``deleted``."""
    if _ID in columns and _EMAIL in columns:
        pairs = zip(columns[_ID], columns[_EMAIL], strict=True)
        columns[_EMAIL] = [UNSET if identifier else email for identifier, email in pairs]
    columns[_DELETED] = [True] * count


def _identify(columns: dict[Path, Sequence[Any]], count: int, faults: dict[int, InvalidCustomerError]) -> Sequence[str]:
    """Return the identity of each row. An id that is null or empty is left out."""
    nobody = [UNSET] * count
    identifiers = columns.get(_ID, nobody)
    if all(identifiers):
        return identifiers
    if _ID in columns:
        columns[_ID] = [identifier or UNSET for identifier in identifiers]
    identities = identities_of(identifiers, columns.get(_EMAIL, nobody))
    for place, identity in enumerate(identities):
        if not identity:
            faults.setdefault(place, InvalidCustomerError(_NO_IDENTITY))
    return identities
