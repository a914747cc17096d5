"""
Rows in files, local or in any store that fsspec supports, streamed in chunks.

A fault of one row (a CSV row with an extra cell, a line that is not JSON) becomes an ``InvalidCustomerError`` in the
row's place. A fault that makes the rest of a file unreadable raises a ``PermanentError``. Neither shows a value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_bubblehouse.customers.blocks import Block
from airflow_provider_bubblehouse.errors import PermanentError
from airflow_provider_bubblehouse.formats.compression import SUFFIXES, decompressed
from airflow_provider_bubblehouse.formats.csv import read_csv
from airflow_provider_bubblehouse.formats.dialect import Dialect
from airflow_provider_bubblehouse.formats.encoding import require_utf8
from airflow_provider_bubblehouse.formats.json import read_json
from airflow_provider_bubblehouse.formats.jsonl import read_jsonl
from airflow_provider_bubblehouse.formats.parquet import read_parquet
from airflow_provider_bubblehouse.sources import ahead
from airflow_provider_bubblehouse.sources.columns import UnseenColumns, targets_of
from airflow_provider_bubblehouse.sources.listing import Info, Marks, list_files, marks_of
from airflow_provider_bubblehouse.sources.stored import StoredFile, changed_error
from airflow_provider_bubblehouse.stores import is_local, store_faults, url_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

    from airflow_provider_bubblehouse.sources.columns import ColumnMap

_CHUNKS_AHEAD = 8  # of at most 1000 rows or 256 KiB each; of small files, as many files

_FORMAT_BY_SUFFIX = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
_DEFAULT_DIALECT = Dialect()


@dataclass(frozen=True, slots=True)
class _File:
    name: str
    format: str
    info: Info
    marks: Marks

    @property
    def size(self) -> int | None:
        size = self.marks.get("size")
        return size if isinstance(size, int) else None


class FileSource:
    """
    Rows in files. The files are listed on first use.

    :param filesystem: the fsspec file system of the files.
    :param path: a file's path there, or a glob unless a file of exactly this name exists. With the format ``rejected``
        it may be a folder.
    :param file_format: one of ``formats.FILE_FORMATS``; ``auto`` uses the suffix, which ``.gz`` or ``.zst`` may follow.
    :param column_map: column in the file to field of Customer2, such as ``{"CustomerId": "id"}``; a dot nests, as in
        ``extras.city``. Exactly these columns are sent. None sends each column under its own name.
    :param dialect: the dialect of CSV files.
    """

    def __init__(
        self,
        filesystem: Any,
        path: str,
        *,
        file_format: str = "auto",
        column_map: ColumnMap | None = None,
        dialect: Dialect = _DEFAULT_DIALECT,
    ) -> None:
        self._filesystem = filesystem
        self._path = path
        self._format = file_format
        self._dialect = dialect
        self._columns = targets_of(column_map)
        self._unseen = UnseenColumns(self._columns)
        self._listed: list[_File] | None = None
        self._position: Callable[[], int] = int

    def chunks(self) -> Iterator[Block]:
        """
        Yield all rows in order, and empty chunks during the wait for a slow store.

        :raises PermanentError: if a file was replaced or deleted since it was listed, or cannot be read.
        :raises BubblehouseTransientError: if the store does not respond.
        """
        files = self._files()
        if is_local(self._filesystem):
            yield from self._read_all(files)
        else:
            name = files[0].name
            for chunk in ahead.read_ahead(self._read_all(files), most=_CHUNKS_AHEAD, patience=ahead.PATIENCE):
                if chunk is None:
                    yield Block(file=name, count=0, columns={})
                else:
                    name = chunk.file
                    yield chunk
        self._unseen.warn()

    def version(self) -> list[tuple[str, Marks | None]]:
        """Return the current marks of every file (see ``listing.Marks``); None for a deleted file."""
        files = self._files()
        with store_faults(self._url(self._path), "listed"):
            infos = {} if is_local(self._filesystem) else self._list_again()
            return [(file.name, marks_of(self._filesystem, file.name, infos.get(file.name))) for file in files]

    def fingerprint(self) -> object | None:
        """Return the marks of the listed files; None if the store has no mark besides the size."""
        files = self._files()
        if any(file.marks.keys() <= {"size"} for file in files):
            return None
        return [(file.name, file.marks) for file in files]

    def share_read(self) -> float | None:
        sizes = [file.size for file in self._listed or ()]
        total = sum(filter(None, sizes))
        return min(1.0, self._position() / total) if total and None not in sizes else None

    def urls(self) -> Mapping[str, str]:
        """Return the URL of every file by name, such as ``s3://bucket/key.csv``; empty before the first listing."""
        return {file.name: self._filesystem.unstrip_protocol(file.name) for file in self._listed or ()}

    def _url(self, name: str) -> str:
        return url_of(self._filesystem, name)

    def _files(self) -> list[_File]:
        if self._listed is None:
            with store_faults(self._url(self._path), "listed"):
                files = sorted(self._list().items(), key=self._order)
                self._listed = [self._file(name, info) for name, info in files]
        return self._listed

    def _file(self, name: str, info: Info) -> _File:
        marks = marks_of(self._filesystem, name, info)
        if marks is None:
            raise changed_error(self._url(name))
        return _File(name, _format_of(name, self._format), info, marks)

    def _list(self) -> dict[str, Info]:
        return list_files(self._filesystem, self._path, take_folder=self._format == "rejected")

    def _order(self, item: tuple[str, Info]) -> tuple[str, float, str]:
        """Sort by name, but files of rejected rows by the row number in their name, to keep the order of updates."""
        folder, _, name = item[0].rpartition("/")
        stem = name.partition(".")[0]
        if self._format != "rejected":
            return item[0], 0, ""
        return folder, int(stem) if stem.isascii() and stem.isdigit() else math.inf, name

    def _list_again(self) -> dict[str, Info]:
        try:
            return self._list()
        except PermanentError:  # all files are deleted
            return {}

    def _read_all(self, files: Sequence[_File]) -> Generator[Block, None, None]:
        before = 0
        for file in files:
            try:
                yield from self._read(file, before)
            except PermanentError:
                if self._has_changed(file):
                    raise changed_error(self._url(file.name)) from None
                raise
            before += file.size or 0
            self._position = partial(int, before)

    def _has_changed(self, file: _File) -> bool:
        try:
            return dict(self.version())[file.name] != file.marks
        except PermanentError:  # the store does not say
            return False

    def _read(self, file: _File, before: int) -> Iterator[Block]:
        with StoredFile(self._filesystem, file.name, file.info) as stored:
            self._position = lambda: before + stored.position
            if file.format == "parquet":
                if stored.size != 0:
                    yield from self._blocks(file, stored)
                return
            with decompressed(file.name, stored) as stream:
                if stream.peek(1):
                    yield from self._blocks(file, stream)

    def _blocks(self, file: _File, stream: Any) -> Iterator[Block]:
        if file.format == "csv":
            return read_csv(file.name, stream, self._columns, self._dialect)
        if file.format == "parquet":
            return read_parquet(file.name, stream, self._columns)
        require_utf8(file.name, stream)
        if file.format == "json":
            blocks = read_json(file.name, stream, self._columns)
        else:
            blocks = read_jsonl(file.name, stream, self._columns, rejected=file.format == "rejected")
        return map(self._unseen.look_at, blocks)


def _format_of(name: str, file_format: str) -> str:
    if file_format != "auto":
        return file_format
    stem = name.lower()
    for suffix in SUFFIXES:
        stem = stem.removesuffix(suffix)
    for suffix, known in _FORMAT_BY_SUFFIX.items():
        if stem.endswith(suffix):
            return known
    raise PermanentError(f"The suffix of {name} does not tell its format; set file_format.")
