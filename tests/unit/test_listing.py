"""Which files a path names, and when a file is no longer the one that was listed."""

from __future__ import annotations

import os
import shutil
from types import SimpleNamespace

import fsspec
import pytest

from airflow_provider_bubblehouse.exceptions import BubblehousePermanentError
from airflow_provider_bubblehouse.sources import listing
from airflow_provider_bubblehouse.sources.files import FileSource
from airflow_provider_bubblehouse.sources.listing import list_files

LOCAL = fsspec.filesystem("file")
STAT = {"st_size": 9, "st_mtime_ns": 10**18, "st_ctime_ns": 10**18, "st_ino": 5}
LISTED = {"name": "bucket/a.jsonl", "type": "file", "size": 9}


class Store(fsspec.AbstractFileSystem):
    """A store that remembers its listings, as s3fs does."""

    protocol = "store"
    cachable = False

    def __init__(self, **marks) -> None:
        super().__init__()
        self.there = {"bucket/a.jsonl": LISTED | marks}
        self.remembered: dict = {}

    def info(self, path, **_kwargs):
        if path not in self.remembered:
            if path not in self.there:
                raise FileNotFoundError(path)
            self.remembered[path] = dict(self.there[path])
        return self.remembered[path]

    def invalidate_cache(self, path=None):
        self.remembered.clear()


def of_store(store) -> FileSource:
    return FileSource(store, "bucket/a.jsonl")


def of_file(path) -> FileSource:
    return FileSource(LOCAL, str(path))


@pytest.mark.parametrize("name", STAT)
def test_each_mark_of_a_local_file_tells_it_from_its_replacement(monkeypatch, tmp_path, name):
    (tmp_path / "a.jsonl").write_text("")
    seen = SimpleNamespace(**STAT)
    monkeypatch.setattr(listing.os, "stat", lambda *_args, **_kwargs: seen)
    monkeypatch.setattr(LOCAL, "info", lambda path: {"name": path, "type": "file"})
    source = of_file(tmp_path / "a.jsonl")
    fingerprint, version = source.fingerprint(), source.version()
    assert source.version() == version
    setattr(seen, name, STAT[name] + 1)
    assert source.version() != version
    assert of_file(tmp_path / "a.jsonl").fingerprint() != fingerprint


@pytest.mark.parametrize("how", ["move", "copy with its time", "write in place and restore the time"])
def test_a_local_file_of_the_same_size_and_time_is_another_one(tmp_path, how):
    path, other = tmp_path / "a.jsonl", tmp_path / "other"
    for each, text in ((path, '{"id": "1"}'), (other, '{"id": "2"}')):
        each.write_text(text)
        os.utime(each, ns=(10**18, 10**18))
    source = of_file(path)
    fingerprint, version = source.fingerprint(), source.version()
    if how == "move":
        other.rename(path)
    elif how == "copy with its time":
        shutil.copy2(other, path)
    else:
        path.write_text('{"id": "2"}')
        os.utime(path, ns=(10**18, 10**18))
    assert path.stat().st_mtime_ns == 10**18
    assert source.version() != version
    assert of_file(path).fingerprint() != fingerprint


@pytest.mark.parametrize(
    "mark",
    [
        *("ETag", "etag", "generation", "mtime", "LastModified", "last_modified", "updated", "modified", "created"),
        *("ctime", "ino", "size"),
    ],
)
def test_each_mark_that_a_store_has_tells_a_file_from_its_replacement(mark):
    others = {"LastModified": "yesterday"} if mark == "size" else {}
    store = Store(**others | {mark: 1})
    source = of_store(store)
    fingerprint, version = source.fingerprint(), source.version()
    assert fingerprint is not None
    assert of_store(store).fingerprint() == fingerprint
    store.there["bucket/a.jsonl"][mark] = 2
    assert source.version() != version
    assert of_store(store).fingerprint() != fingerprint


def test_content_that_is_written_again_under_the_same_etag_has_not_changed():
    store = Store(ETag="a", LastModified="yesterday")
    source = of_store(store)
    version = source.version()
    store.there["bucket/a.jsonl"]["LastModified"] = "today"
    assert source.version() == version


@pytest.mark.parametrize("marks", [{}, {"ETag": ""}, {"mtime": None}])
def test_without_a_mark_nothing_tells_a_file_from_another(marks):
    assert of_store(Store(**marks)).fingerprint() is None


def test_a_file_that_is_deleted_changes_the_version(tmp_path):
    (tmp_path / "a.jsonl").write_text("")
    store, local = of_store(remote := Store(ETag="a")), of_file(tmp_path / "a.jsonl")
    store.version(), local.version()
    remote.there.clear()
    (tmp_path / "a.jsonl").unlink()
    assert store.version() == [("bucket/a.jsonl", None)]
    assert local.version() == [(f"{tmp_path}/a.jsonl", None)]


def test_a_cached_listing_does_not_hide_a_change():
    store = Store(ETag="old")
    store.info("bucket/a.jsonl")
    store.there["bucket/a.jsonl"]["ETag"] = "new"
    assert of_store(store).fingerprint() == [("bucket/a.jsonl", {"size": 9, "ETag": "new"})]


TREE = ["a.csv", "b.csv", "x/a.csv", "x/b.txt", "x/y/a.csv", "x/y/z/a.csv", "x[1]/a.csv", "x1/a.csv", "w/a.csv"]


@pytest.mark.parametrize("protocol", ["file", "memory"])
@pytest.mark.parametrize(
    "pattern",
    [
        *("*", "*.csv", "?.csv", "[ab].csv", "*/a.csv", "x/*", "x*/*.csv", "*/y/*.csv", "*/*/*", "**", "**/*.csv"),
        *("x/**", "x/**/a.csv", "*/**/a.csv", "**/y/*", "x[[]1]/*.csv", "none/*.csv", "*/none/*.csv", "none/**/a.csv"),
    ],
)
def test_a_glob_matches_the_same_files_as_fsspec(tmp_path, protocol, pattern):
    filesystem = fsspec.filesystem(protocol)
    for name in TREE:
        filesystem.makedirs(f"{tmp_path}/{name}".rpartition("/")[0], exist_ok=True)
        filesystem.pipe_file(f"{tmp_path}/{name}", b"")
    found = filesystem.glob(f"{tmp_path}/{pattern}", detail=True)
    expected = sorted(name for name, info in found.items() if info["type"] == "file")
    try:
        assert sorted(list_files(filesystem, f"{tmp_path}/{pattern}")) == expected
    except BubblehousePermanentError as error:
        assert "No file matches" in str(error)  # noqa: PT017  whether it is raised is the question
        assert not expected


def test_a_symbolic_link_in_a_glob_is_followed(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_text("id\n1\n")
    (tmp_path / "link.csv").symlink_to(tmp_path / "data" / "a.csv")
    (tmp_path / "folder.csv").symlink_to(tmp_path / "data")
    source = of_file(tmp_path / "*.csv")
    version = source.version()
    assert [name for name, _ in version] == [f"{tmp_path}/link.csv"]
    (tmp_path / "data" / "a.csv").write_text("id\n22\n")
    assert source.version() != version


def test_a_symbolic_link_to_nowhere_is_an_error_that_names_it(tmp_path):
    (tmp_path / "a.csv").write_text("id\n1\n")
    (tmp_path / "link.csv").symlink_to(tmp_path / "none.csv")
    with pytest.raises(BubblehousePermanentError, match=r"link\.csv is a link to a file that does not exist"):
        of_file(tmp_path / "*.csv").version()


def test_a_folder_of_rejected_rows_is_read_by_the_rows_that_its_names_say(tmp_path):
    for name in ("1000.jsonl", "500.jsonl", "7.jsonl", "note.txt"):
        (tmp_path / name).write_text("")
    for path in (tmp_path, f"{tmp_path}/", tmp_path / "*.jsonl"):
        source = FileSource(LOCAL, str(path), file_format="rejected")
        assert [name.rpartition("/")[2] for name, _ in source.version()] == ["7.jsonl", "500.jsonl", "1000.jsonl"]
    with pytest.raises(BubblehousePermanentError, match="is a folder; add a pattern"):
        of_file(tmp_path).version()


def test_a_folder_without_rejected_rows_is_an_error(tmp_path):
    with pytest.raises(BubblehousePermanentError, match=rf"No file matches {tmp_path}/\*\.jsonl"):
        FileSource(LOCAL, str(tmp_path), file_format="rejected").version()
