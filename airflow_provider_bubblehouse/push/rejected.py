"""
Rejected and invalid rows, written to a folder to be corrected and pushed again with ``file_format="rejected"``.

A line is one row: its file and number there, the reason, the API's status and error id, and the customer. Object stores
cannot append, so each flush writes a new file, named by its first row; a later try writes the same file again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_provider_bubblehouse.stores import store_faults, url_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_bubblehouse.customers.converter import InvalidRow
    from airflow_provider_bubblehouse.errors import BubblehouseError
    from airflow_provider_bubblehouse.push.batches import Batch
    from airflow_provider_bubblehouse.push.report import Places

_ADVICE = "Rows that are not accepted would be lost; check rejected_path."


class RejectedRows:
    """
    The folder of one task.

    :param filesystem: the fsspec file system that holds it.
    :param path: its path there.
    :param url: its URL for messages and the summary; by default one that names no Airflow connection.
    """

    def __init__(self, filesystem: Any, path: str, *, url: str | None = None) -> None:
        self._filesystem = filesystem
        self._path = path.rstrip("/")
        self.folder = (url_of(filesystem, path) if url is None else url).rstrip("/")
        self.written = False

    def add_rejected(self, batch: Batch, error: BubblehouseError, places: Places) -> None:
        """
        Write the rows of a rejected batch.

        :param batch: the batch.
        :param error: what the API answered.
        :param places: converts a row's number to its file and its number there.
        """
        self._write(
            batch.numbers[0],
            [
                _line(places.of(number), "rejected", error, bytes(customer))
                for number, customer in zip(batch.numbers, batch.customers(), strict=True)
            ],
        )

    def add_invalid(self, rows: Sequence[InvalidRow], places: Places) -> None:
        """
        Write invalid rows.

        :param rows: some rows.
        :param places: converts a row's number to its file and its number there.
        """
        self._write(
            rows[0].number,
            [
                _line(places.of(row.number), str(row.error), None, json.dumps(in_json(row.record)).encode())
                for row in rows
            ],
        )

    def _write(self, first_row: int, lines: Sequence[bytes]) -> None:
        name = f"{first_row}.jsonl"
        with store_faults(f"{self.folder}/{name}", "written", advice=_ADVICE):
            if self._path.startswith("/"):  # a path in an object store begins with its bucket, which would be created
                self._filesystem.makedirs(self._path, exist_ok=True)
            self._filesystem.pipe_file(f"{self._path}/{name}", b"\n".join(lines) + b"\n")
        self.written = True


def _line(place: tuple[str, int], reason: str, error: BubblehouseError | None, customer: bytes) -> bytes:
    file, number = place
    head = {
        "file": file or None,
        "row": number,
        "reason": reason,
        "status": error and error.status,
        "error_id": error and error.error_id,
    }
    return json.dumps(head)[:-1].encode() + b', "customer": ' + customer + b"}"


def in_json(record: object) -> object:
    """
    Return a record as JSON can hold it: what JSON has no form for is text, or null where that cannot be had.

    :param record: the record, as its source holds it.
    """
    with suppress(Exception):  # a nesting without an end, or an object that fails to tell its text
        made = _built_in(record)
        json.dumps(made)
        return made
    return None


def _built_in(value: object) -> object:
    if value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, Mapping):
        return {str(name): _built_in(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_built_in(inner) for inner in value]
    return str(bytes(value) if isinstance(value, memoryview) else value)
