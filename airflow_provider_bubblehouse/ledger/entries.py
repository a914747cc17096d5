"""The entries of a ledger: a local SQLite file with two hashes and a day for each customer."""

from __future__ import annotations

import sqlite3
from hashlib import blake2b
from struct import unpack
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_provider_bubblehouse.errors import PermanentError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

FORMAT = 1  # of the file; in a newer format, the same columns may have another meaning

_HASH_BYTES = 8  # among a billion customers, two have the same hash with a chance of 3 %; one of them may not be sent
_CACHE_KIB = 8 * 1024  # bounds the memory; the operating system caches the rest of the file
_KEYS = 50_000  # per statement
_OF_KEYS = "FROM entries WHERE identity IN (SELECT value FROM json_each(?))"
_SIZE_AT, _PAGE_SIZE_AT = slice(28, 32), slice(16, 18)  # in the header of a SQLite file


def hashes_of(texts: Iterable[bytes]) -> Sequence[int]:
    """Return an 8-byte hash of each text as a SQLite integer, equal in every process."""
    digests = [blake2b(text, digest_size=_HASH_BYTES).digest() for text in texts]
    return unpack(f">{len(digests)}q", b"".join(digests))


def is_whole(path: Path) -> bool:
    """Return whether a file is a complete SQLite database."""
    with path.open("rb") as file:
        header = file.read(100)
    page_size = int.from_bytes(header[_PAGE_SIZE_AT], "big")
    expected = int.from_bytes(header[_SIZE_AT], "big") * (65536 if page_size == 1 else page_size)
    return header.startswith(b"SQLite format 3\0") and path.stat().st_size == expected > 0


class Entries:
    """
    A working copy of a ledger, which one push changes.

    :param path: the file; it is created if it does not exist.
    :param today: the day of the push, as a number.
    :param days: after how many days at most an entry expires.
    :raises PermanentError: if a newer version of this package has written the file.
    :raises sqlite3.DatabaseError: if the file is damaged.
    """

    def __init__(self, path: Path, *, today: int, days: int) -> None:
        self._today = today
        self._days = days
        # Entries of one day expire on different days, so that not all customers are sent again together.
        self._spread = days // 2 + 1
        self._database = sqlite3.connect(path, isolation_level=None)
        try:
            self._open()
        except BaseException:
            self._database.close()
            raise

    def _open(self) -> None:
        run = self._database.execute
        # A crash loses nothing but this copy, so it needs no journal.
        for setting in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{_CACHE_KIB}", "temp_store = FILE"):
            run(f"PRAGMA {setting}")
        (found,) = run("PRAGMA user_version").fetchone()
        if found > FORMAT:
            raise PermanentError(
                "The ledger was written by a newer version of this package. Upgrade the package, or set another "
                "ledger_path."
            )
        # Otherwise a damaged page would fail every later push. This takes 50 ms for a million entries.
        if run("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise sqlite3.DatabaseError("quick_check")
        run("CREATE TABLE IF NOT EXISTS entries (identity INTEGER PRIMARY KEY, customer INTEGER, day INTEGER)")
        run(f"PRAGMA user_version = {FORMAT}")

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def find_unchanged(self, identities: Sequence[int], customers: Sequence[int]) -> list[bool]:
        """
        Return for each row whether Bubblehouse holds exactly this customer, and remove the entries of the others.

        Once a row of a customer has changed, all later rows of this customer count as changed.

        :param identities: the hash of each identity.
        :param customers: the hash of each customer's JSON.
        """
        today, days, spread = self._today, self._days, self._spread
        found = {
            identity: customer
            for identity, customer, day in self._select(identities)
            if 0 <= today - day <= days - identity % spread
        }
        unchanged = []
        for identity, customer in zip(identities, customers, strict=True):
            same = found.get(identity) == customer
            if not same:
                found[identity] = None
            unchanged.append(same)
        self.remove(identity for identity, customer in found.items() if customer is None)
        return unchanged

    def _select(self, identities: Sequence[int]) -> list[tuple[int, Any, int]]:
        found = []
        for start in range(0, len(identities), _KEYS):
            keys = msgspec.json.encode(list(identities[start : start + _KEYS])).decode()
            found += self._database.execute(f"SELECT identity, customer, day {_OF_KEYS}", (keys,)).fetchall()
        return found

    def remove(self, identities: Iterable[int]) -> None:
        """Remove the entries of some customers."""
        keys = list(identities)
        for start in range(0, len(keys), _KEYS):
            some = msgspec.json.encode(keys[start : start + _KEYS]).decode()
            self._database.execute(f"DELETE {_OF_KEYS}", (some,))

    def write(self, entries: Iterable[tuple[int, int]]) -> None:
        """Write what Bubblehouse has accepted: the hashes of each identity and of the customer's JSON."""
        rows = [(identity, customer, self._today) for identity, customer in entries]
        self._database.execute("BEGIN")
        self._database.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", rows)
        self._database.execute("COMMIT")

    def export(self, path: Path) -> None:
        """Write a compact copy to a file that does not exist yet."""
        self._database.execute("VACUUM INTO ?", (str(path),))
