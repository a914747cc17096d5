"""Read one file of a store with a small read-ahead, and convert errors of the store to errors of this package."""

from __future__ import annotations

import io
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow_provider_bubblehouse.errors import PermanentError
from airflow_provider_bubblehouse.stores import is_local, store_faults, url_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from _typeshed import WriteableBuffer

    from airflow_provider_bubblehouse.sources.listing import Info

# Few requests with little memory: the libraries hold up to three times as much. By default, s3fs reads 50 MiB ahead.
READ_AHEAD = 4 * 1024 * 1024


class StoredFile(io.RawIOBase):
    """
    A file that is open for reading.

    :param filesystem: the fsspec file system of the file.
    :param name: the file's name there.
    :param info: its entry in a listing. A store that supports it (S3) serves only this version of the file.
    :raises PermanentError: if the file was replaced or deleted since it was listed, also while it is read.
    """

    def __init__(self, filesystem: Any, name: str, info: Info) -> None:
        super().__init__()
        self._url = url_of(filesystem, name)
        self.size: int | None = info.get("size")
        self.position = 0
        with store_faults(self._url, "read"), _listed(filesystem, name, info):
            self._raw: Any = filesystem.open(name, "rb", block_size=READ_AHEAD)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._raw.seekable())

    def read(self, size: int = -1, /) -> bytes:
        with store_faults(self._url, "read"):
            data: bytes = self._raw.read(size)
        self._advance(len(data), size)
        return data

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        with store_faults(self._url, "read"):
            count: int = self._raw.readinto(buffer)
        self._advance(count, memoryview(buffer).nbytes)
        return count

    def _advance(self, count: int, wanted: int) -> None:
        self.position += count
        if not count and wanted and self.size is not None and self.position < self.size:
            raise changed_error(self._url)  # it is shorter now

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        with store_faults(self._url, "read"):
            self.position = self._raw.seek(offset, whence)
        return self.position

    def tell(self) -> int:
        return self.position

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()

    def __enter__(self) -> Self:
        return self


def changed_error(url: str) -> PermanentError:
    """
    Return the error for a file that was replaced or deleted during the push.

    :param url: the file.
    """
    return PermanentError(
        f"{url} was changed while being read. Rows that were sent may be sent again; run the task again when the file "
        "no longer changes."
    )


@contextmanager
def _listed(filesystem: Any, name: str, info: Info) -> Iterator[None]:
    """
    Have the store's library use size and ETag from the listing instead of another request.

    Its cache stores whole folders, so the entry with this single file is removed afterwards.
    """
    if is_local(filesystem):
        yield
        return
    folder = name.rpartition("/")[0]
    filesystem.dircache[folder] = [info]
    try:
        yield
    finally:
        filesystem.dircache.pop(folder, None)
