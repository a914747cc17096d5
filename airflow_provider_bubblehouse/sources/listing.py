"""List the files of a path, with marks that change when a file is replaced."""

from __future__ import annotations

import glob
import os
import posixpath
import re
from typing import TYPE_CHECKING, Any

from airflow_provider_bubblehouse.errors import PermanentError
from airflow_provider_bubblehouse.stores import Fault, fault_of, is_local, url_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Info = dict[str, Any]  # the entry of a file in a listing of fsspec
Marks = dict[str, int | str]  # properties that change when a file is replaced; always with "size" if it is known

_CONTENT_MARKS = ("ETag", "etag", "generation")  # each of them identifies the content
_OTHER_MARKS = ("mtime", "LastModified", "last_modified", "updated", "modified", "created", "ctime", "ino")
_WILDCARD = re.compile(r"[*?[]")


def list_files(filesystem: Any, path: str, *, take_folder: bool = False) -> dict[str, Info]:
    """
    Return the files of a path, by name.

    :param filesystem: the fsspec file system of the files.
    :param path: a file, or a glob unless a file of exactly this name exists.
    :param take_folder: whether the path may be a folder; its ``.jsonl`` files are returned.
    :raises PermanentError: if there is no such file.
    """
    filesystem.invalidate_cache()  # cached listings of an object store hide changes
    info, url = info_of(filesystem, path), url_of(filesystem, path)
    if info is None and not _WILDCARD.search(path):
        raise PermanentError(f"There is no file {url}.")
    if info is not None and info["type"] == "file":
        return {path: info}
    if info is None:
        found = dict(_expand(filesystem, "", path))
    elif take_folder:
        found = {each["name"]: each for each in _list_folder(filesystem, path) if each["name"].endswith(".jsonl")}
        url = posixpath.join(url, "*.jsonl")
    else:
        raise PermanentError(f"{url} is a folder; add a pattern such as /*.csv for the files in it.")
    files = {name: info for name, info in found.items() if _is_file(filesystem, name, info)}
    if not files:
        raise PermanentError(f"No file matches {url}.")
    return files


def info_of(filesystem: Any, path: str) -> Info | None:
    """
    Return a store's entry for a path, None if nothing is there; fsspec's own ``isfile`` hides an outage.

    :param filesystem: the fsspec file system.
    :param path: the path.
    """
    try:
        info: Info = filesystem.info(path)
    except FileNotFoundError as error:
        if fault_of(error) is Fault.NO_BUCKET:
            raise
        return None
    return info


def marks_of(filesystem: Any, name: str, info: Info | None) -> Marks | None:
    """
    Return the marks of a file, None if the file is deleted.

    :param filesystem: the fsspec file system of the file.
    :param name: the file's name there.
    :param info: its entry in a listing; not used for a local file.
    """
    if is_local(filesystem):
        try:
            seen = os.stat(name)  # the times of fsspec are floats, which cannot represent nanoseconds
        except (FileNotFoundError, NotADirectoryError):
            return None
        return {"size": seen.st_size, "mtime": seen.st_mtime_ns, "ctime": seen.st_ctime_ns, "ino": seen.st_ino}
    if info is None:
        return None
    content = _texts(info, _CONTENT_MARKS)
    size: Marks = {} if info.get("size") is None else {"size": int(info["size"])}
    return size | (content or _texts(info, _OTHER_MARKS))


def _texts(info: Mapping[str, Any], names: tuple[str, ...]) -> Marks:
    return {name: str(info[name]) for name in names if info.get(name) not in (None, "")}


def _is_file(filesystem: Any, name: str, info: Info) -> bool:
    if info["type"] not in ("file", "directory"):  # a symbolic link, which a listing does not follow
        followed = info_of(filesystem, name)
        if followed is None:
            raise PermanentError(f"{url_of(filesystem, name)} is a link to a file that does not exist.")
        info = followed
    return bool(info["type"] == "file")


def _expand(filesystem: Any, folder: str, pattern: str) -> Iterator[tuple[str, Info]]:
    """
    Expand a pattern level by level: fsspec's own glob omits folders of deeper levels that cannot be listed.

    :param folder: a folder; its name is not a pattern.
    :param pattern: the pattern within the folder.
    """
    wildcard = _WILDCARD.search(pattern)
    if wildcard is None:
        name = posixpath.join(folder, pattern)
        if (info := info_of(filesystem, name)) is not None:
            yield name, info
        return
    head, slash, _ = pattern[: wildcard.start()].rpartition("/")
    folder = posixpath.join(folder, head or slash) if slash else folder
    pattern = pattern[len(head) :].lstrip("/")
    level, _, rest = pattern.partition("/")
    if level == "**" and not getattr(filesystem, "async_impl", False):
        yield from _expand(filesystem, folder, rest or "*")
        for info in _list_folder(filesystem, folder):
            if info["type"] == "directory":
                yield from _expand(filesystem, info["name"], pattern)
    elif level == "**" or not rest:  # one listing, which fails as a whole
        yield from _glob(filesystem, folder, pattern).items()
    else:
        for name, info in _glob(filesystem, folder, level).items():
            if info["type"] == "directory":
                yield from _expand(filesystem, name, rest)


def _glob(filesystem: Any, folder: str, pattern: str) -> dict[str, Info]:
    found: dict[str, Info] = filesystem.glob(posixpath.join(glob.escape(folder), pattern), detail=True)
    if not found and folder:
        _list_folder(filesystem, folder)  # raises if it cannot be listed; glob treats such a folder as empty
    return found


def _list_folder(filesystem: Any, folder: str) -> list[Info]:
    try:
        infos: list[Info] = filesystem.ls(folder, detail=True)
    except FileNotFoundError as error:
        if fault_of(error) is Fault.NO_BUCKET:
            raise
        return []
    return infos
