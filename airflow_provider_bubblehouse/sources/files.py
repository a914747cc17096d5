"""
Rows in files, local or in any store that fsspec reaches, streamed in chunks.

A fault of one row (a CSV row with a cell too many, a line that is not JSON) is passed on as an ``InvalidCustomerError``
in the row's place; what makes the rest of a file unreadable is a ``PermanentError``. Neither shows a value.
"""

from __future__ import annotations

import gzip
import io
import re
import zlib
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

from airflow_provider_bubblehouse.errors import PermanentError
from airflow_provider_bubblehouse.formats.blocks import READ_BYTES
from airflow_provider_bubblehouse.formats.csv import read_csv
from airflow_provider_bubblehouse.formats.json import read_json
from airflow_provider_bubblehouse.formats.jsonl import read_jsonl
from airflow_provider_bubblehouse.formats.parquet import read_parquet
from airflow_provider_bubblehouse.sources.columns import UnseenColumns, targets_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from airflow_provider_bubblehouse.customers.blocks import Block
    from airflow_provider_bubblehouse.sources.columns import ColumnMap

FILE_FORMATS = ("auto", "jsonl", "json", "csv", "parquet", "rejected")

_FORMAT_BY_SUFFIX = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_UTF8_MARK = b"\xef\xbb\xbf"


class FileSource:
    """
    Rows in files.

    :param filesystem: the fsspec file system that holds the files.
    :param path: a file's path there, or a glob; a file of exactly that name goes before a glob.
    :param file_format: one of ``FILE_FORMATS``; ``auto`` goes by the suffix, which may be followed by ``.gz``.
    :param column_map: column in the file to field of Customer2, such as ``{"CustomerId": "id"}``; a dot nests, as in
        ``extras.city``. Exactly these columns are sent. None sends each column under its own name.
    :raises PermanentError: if there is no such file, or its format is not known.
    """

    def __init__(
        self, filesystem: Any, path: str, *, file_format: str = "auto", column_map: ColumnMap | None = None
    ) -> None:
        self._filesystem = filesystem
        self._columns = targets_of(column_map)
        self._unseen = UnseenColumns(self._columns)
        self._files = [(name, _format_of(name, file_format)) for name in _find(filesystem, path)]
        self._sizes: list[int | None] = []
        self._position: Callable[[], int] = int

    def chunks(self) -> Iterator[Block]:
        self._sizes = [size for _, size, _ in self.version()]
        before = 0
        for (name, file_format), size in zip(self._files, self._sizes, strict=True):
            with _open(self._filesystem, name, seekable=file_format == "parquet") as (raw, stream):
                if stream is not None:
                    self._position = partial(_position, raw, before)
                    yield from self._read(name, file_format, stream)
            before += size or 0
            self._position = partial(int, before)
        self._unseen.warn()

    def _read(self, name: str, file_format: str, stream: BinaryIO) -> Iterator[Block]:
        if file_format == "csv":
            return read_csv(name, stream, self._columns)
        if file_format == "parquet":
            return read_parquet(name, stream, self._columns)
        if file_format == "json":
            blocks = read_json(name, stream, self._columns)
        else:
            blocks = read_jsonl(name, stream, self._columns, rejected=file_format == "rejected")
        return map(self._unseen.look_at, blocks)

    def version(self) -> list[tuple[str, int | None, str | None]]:
        """Return path, size and ETag or time of change of every file; a file that is gone has neither."""
        return [(name, *_stat(self._filesystem, name)) for name, _ in self._files]

    def fingerprint(self) -> object | None:
        version = self.version()
        return None if any(changed is None for _, _, changed in version) else version

    def share_read(self) -> float | None:
        if not self._sizes or None in self._sizes:
            return None
        total = sum(size or 0 for size in self._sizes)
        return min(1.0, self._position() / total) if total else None

    def urls(self) -> Mapping[str, str]:
        """Return the URL of every file by its name, such as ``s3://bucket/key.csv``, without what lets one in."""
        return {name: self._filesystem.unstrip_protocol(name) for name, _ in self._files}


def _position(raw: BinaryIO, before: int) -> int:
    return before + (0 if raw.closed else raw.tell())  # what reads text closes its file at the end


def no_filesystem_error(path: object) -> PermanentError:
    """Return what to raise where there is no file system for a URL."""
    return PermanentError(
        f"There is no file system for {path}; s3:// needs pip install 'airflow-provider-bubblehouse[s3]', gs:// needs "
        "[gcs], others the provider of their own."
    )


def _find(filesystem: Any, path: str) -> list[str]:
    kind = _kind(filesystem, path)
    if kind == "file":
        return [path]
    if kind is not None:
        raise PermanentError(f"{path} is a folder; add a pattern such as /*.csv for the files in it.")
    wildcard = re.search(r"[*?[]", path)
    if wildcard is None:
        raise PermanentError(f"There is no file {path}.")
    found = filesystem.glob(path, detail=True)
    names = sorted(name for name, info in found.items() if info.get("type") == "file")
    if not names:
        folder = path[: wildcard.start()].rpartition("/")[0]
        if folder and _kind(filesystem, folder) is not None:
            filesystem.ls(folder)  # fsspec's glob takes a folder that cannot be listed for an empty one
        raise PermanentError(f"No file matches {path}.")
    return names


def _kind(filesystem: Any, path: str) -> str | None:
    """Return whether a path is a file or a directory, None where there is neither; ``isfile`` hides an outage."""
    try:
        kind: str = filesystem.info(path)["type"]
    except FileNotFoundError:
        return None
    return kind


def _format_of(name: str, file_format: str) -> str:
    if file_format != "auto":
        return file_format
    stem = name.lower().removesuffix(".gz")
    for suffix, known in _FORMAT_BY_SUFFIX.items():
        if stem.endswith(suffix):
            return known
    raise PermanentError(f"The suffix of {name} does not tell its format; set file_format.")


def _stat(filesystem: Any, name: str) -> tuple[int | None, str | None]:
    filesystem.invalidate_cache()  # object stores remember listings, which would hide a change
    try:
        info = filesystem.info(name)
    except FileNotFoundError:
        return None, None
    marks = ("ETag", "etag", "mtime", "LastModified", "updated", "created")
    changed = next((str(info[mark]) for mark in marks if info.get(mark) is not None), None)
    return info.get("size"), changed


@contextmanager
def _open(filesystem: Any, name: str, *, seekable: bool) -> Iterator[tuple[BinaryIO, BinaryIO | None]]:
    """Open a file for reading: as it lies in its store, and decompressed, which is None for one without bytes."""
    try:
        with filesystem.open(name, "rb") as raw:
            if seekable:
                yield raw, raw if raw.read(1) else None
                return
            stream: Any = gzip.GzipFile(fileobj=raw) if name.lower().endswith(".gz") else raw
            with io.BufferedReader(stream, READ_BYTES) as buffered:
                start = buffered.peek(4)
                if start.startswith(_UTF16_MARKS) or b"\0" in start[:2]:
                    raise PermanentError(f"{name} is UTF-16, not UTF-8; save it as UTF-8.")
                while start.startswith(_UTF8_MARK):  # twice, if what exported it and what saved it both add one
                    buffered.read(len(_UTF8_MARK))
                    start = buffered.peek(4)
                yield raw, buffered if start else None
    except FileNotFoundError:
        raise PermanentError(f"There is no file {name} any more.") from None
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise PermanentError(f"{name} is no whole gzip file; compress it again.") from None
