"""The folder of a ledger in its store, with numbered ledger files and the pending files of running pushes."""

from __future__ import annotations

import inspect
import os
import re
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from airflow_provider_bubblehouse.stores import is_local, store_faults, url_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_LEDGER = re.compile(r"ledger-(\d{8,})\.sqlite")
_LEDGERS_LEFT = 2  # the newest ledger, and the previous one for a push that is reading it


class LedgerTakenError(Exception):
    """Another push has stored a ledger under this number."""


class GoneError(Exception):
    """Another push has stored a newer ledger, and then deleted a file of the folder."""


class LedgerFolder:
    """
    The ledger files of one shop.

    :param filesystem: the fsspec file system of the folder.
    :param folder: the folder's path there.
    """

    def __init__(self, filesystem: Any, folder: str) -> None:
        self._filesystem = filesystem
        self._folder = folder.rstrip("/")
        self._pending = f"{self._folder}/pending"
        self.url = url_of(filesystem, self._folder)

    def numbers(self) -> list[int]:
        """Return the numbers of the ledger files, the oldest first."""
        matches = [_LEDGER.fullmatch(name) for name in self._names(self._folder)]
        return sorted(int(match[1]) for match in matches if match)

    def pending(self) -> list[str]:
        """Return the names of the pending files."""
        return sorted(self._names(self._pending))

    def download(self, number: int, path: Path) -> None:
        """
        Copy a ledger file to a local file.

        :raises GoneError: if it is deleted.
        """
        self._get(f"{self._folder}/{_name(number)}", path)

    def download_pending(self, name: str, path: Path) -> None:
        """
        Copy a pending file to a local file.

        :raises GoneError: if it is deleted.
        """
        self._get(f"{self._pending}/{name}", path)

    def upload(self, number: int, path: Path) -> None:
        """
        Copy a local file to a new ledger file.

        :raises LedgerTakenError: if a ledger with this number exists.
        """
        self._create(path, f"{self._folder}/{_name(number)}")

    def upload_pending(self, path: Path, *, label: str) -> str:
        """Copy a local file to a new pending file whose name begins with a label, and return its name."""
        name = f"{label}-{uuid4().hex}"
        self._create(path, f"{self._pending}/{name}")
        return name

    def delete_pending(self, names: Iterable[str]) -> None:
        """Delete pending files, which another push may have deleted already."""
        self._delete(f"{self._pending}/{name}" for name in names)

    def delete_old(self) -> None:
        """Delete all ledger files but the newest two."""
        self._delete(f"{self._folder}/{_name(number)}" for number in self.numbers()[:-_LEDGERS_LEFT])

    def _names(self, folder: str) -> list[str]:
        self._filesystem.invalidate_cache()  # object stores remember listings
        with store_faults(url_of(self._filesystem, folder), "listed"):
            try:
                entries = self._filesystem.ls(folder, detail=True)
            except FileNotFoundError:
                return []
        return [entry["name"].rpartition("/")[2] for entry in entries if entry["type"] == "file"]

    def _get(self, source: str, path: Path) -> None:
        found = True
        with store_faults(url_of(self._filesystem, source), "read"):
            try:
                self._filesystem.get_file(source, str(path))
            except FileNotFoundError:
                found = False
        if not found:
            raise GoneError

    def _create(self, path: Path, target: str) -> None:
        """Upload a file unless one of this name exists."""
        created = True
        with store_faults(url_of(self._filesystem, target), "written"):
            try:
                if is_local(self._filesystem):
                    _create_local_file(path, target)
                else:
                    _create_object(self._filesystem, path, target)
            except FileExistsError:
                created = False
        if not created:
            raise LedgerTakenError

    def _delete(self, paths: Iterable[str]) -> None:
        for path in paths:
            with store_faults(url_of(self._filesystem, path), "written"):
                try:
                    self._filesystem.rm_file(path)
                except FileNotFoundError:
                    continue


def _name(number: int) -> str:
    return f"ledger-{number:08}.sqlite"


def _create_local_file(path: Path, target: str) -> None:
    """Copy a file to a temporary name and link it, so that no reader sees a part of it."""
    os.makedirs(os.path.dirname(target), exist_ok=True)
    partial = f"{target}.{uuid4().hex}"
    try:
        shutil.copyfile(path, partial)
        os.link(partial, target)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(partial)


def _create_object(filesystem: Any, path: Path, target: str) -> None:
    """Upload an object that does not exist yet, exclusively if the store can."""
    # A store that cannot is asked before. So is one that can: it would refuse a large ledger only after the upload.
    if _exists(filesystem, target):
        raise FileExistsError
    put = getattr(filesystem, "_put_file", filesystem.put_file)
    exclusive = {"mode": "create"} if "mode" in inspect.signature(put).parameters else {}
    try:
        filesystem.put_file(str(path), target, **exclusive)
    except Exception:
        if exclusive and _exists(filesystem, target):  # each store has its own error for this
            raise FileExistsError from None
        raise


def _exists(filesystem: Any, path: str) -> bool:
    filesystem.invalidate_cache()  # a remembered listing would hide what another push has written
    return bool(filesystem.exists(path))
