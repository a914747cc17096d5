"""JSONL: one JSON object a line. The files of a ``rejected_path`` are JSONL, too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, BinaryIO

from airflow_provider_bubblehouse.api.customers import InvalidCustomerError
from airflow_provider_bubblehouse.errors import PermanentError
from airflow_provider_bubblehouse.formats.blocks import whole_lines
from airflow_provider_bubblehouse.push.chunks import JsonLines, fields_of

if TYPE_CHECKING:
    from collections.abc import Iterator


def read_jsonl(name: str, stream: BinaryIO) -> Iterator[JsonLines]:
    fields: frozenset[str] | None = None
    begun = False
    for text in whole_lines(name, stream):
        if not begun and (start := text.lstrip()):
            begun = True
            fields = fields_of(start.partition(b"\n")[0])
            if start.startswith(b"["):
                raise PermanentError(
                    f"{name} begins as a JSON array, not as one JSON object a line; set file_format='json'."
                )
        yield JsonLines(name, text, fields)


def corrected(record: object) -> object:
    """Return the customer in a line of a rejected row (see ``push.rejected``)."""
    if isinstance(record, InvalidCustomerError):
        return record
    if not isinstance(record, Mapping) or "customer" not in record:
        return InvalidCustomerError("the line is no rejected row: it has no customer", record=record)
    return record["customer"]
