"""Find the changed rows of a push with a ledger, and record what Bubblehouse accepts."""

from __future__ import annotations

import logging
import sqlite3
from array import array
from contextlib import ExitStack
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, BinaryIO

from airflow_provider_bubblehouse.errors import BubblehouseError, BubblehouseTransientError, PermanentError
from airflow_provider_bubblehouse.ledger.entries import Entries, hashes_of, is_whole
from airflow_provider_bubblehouse.ledger.folder import GoneError, LedgerTakenError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow_provider_bubblehouse.ledger.folder import LedgerFolder

log = logging.getLogger(__name__)

_HASHES = 100_000  # of a pending file, read at once
_ID_FIRST = b'{"id":'  # the start of the canonical JSON of every customer with an id
_LOOK_UP = 50_000  # rows per look-up; sorted by key, they read each page of a large ledger less often
_OPEN_ATTEMPTS = 5  # an attempt fails if another push ends while this one reads the folder


class Changes:
    """
    Decides which rows of one push to send. A context manager: it holds temporary files.

    The push reads its source twice. In the first pass, ``survey`` finds the changed rows. ``begin`` invalidates the
    entries of their customers. The second pass sends the rows that ``changed_places`` returns. At the end, ``upload``
    stores what Bubblehouse has accepted.

    :param folder: the folder of the ledger.
    :param days: after how many days at most an entry expires.
    :param today: the day of the push, as a number.
    :param deletes: whether the push deletes customers: then all rows are sent, and their entries are removed.
    :param run: identifies the run of the task, of which only the last try can still be running.
    """

    def __init__(self, folder: LedgerFolder, *, days: int, today: int, deletes: bool, run: str) -> None:
        self._folder = folder
        self._run = blake2b(run.encode(), digest_size=8).hexdigest()
        self._days = days
        self._today = today
        self._deletes = deletes
        self._resources = ExitStack()
        self._surveyed = array("q"), array("q"), array("q")  # numbers and hashes of rows before the next look-up
        self._changed = bytearray()  # one bit per row of the source
        self._sent: dict[int, tuple[int, int]] = {}  # the hashes of each row in flight, by row number
        self._newest: dict[int, int] = {}  # the number of the last row in flight, by identity
        self._has_id: set[bool] = set()
        self._read_pending: list[str] = []
        self._own_pending: str | None = None
        self._is_discarded = False

    def __enter__(self) -> Changes:
        try:
            self._home = Path(self._resources.enter_context(TemporaryDirectory(prefix="bubblehouse-ledger-")))
            self._number, self._entries = self._open()
            self._resources.callback(self._entries.close)
            self._pending: BinaryIO = self._resources.enter_context((self._home / "pending").open("w+b"))
        except BaseException:
            self._resources.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def survey(self, numbers: Sequence[int], identities: Sequence[str], customers: Sequence[bytes]) -> None:
        """
        Find the changed rows among some rows, in the first pass.

        :param numbers: the number of each row in the source.
        :param identities: the identity of each.
        :param customers: the canonical JSON of each customer.
        :raises PermanentError: if some customers have an id and others have none.
        """
        self._has_id.update({customer.startswith(_ID_FIRST) for customer in customers})
        if len(self._has_id) > 1:
            raise PermanentError(
                "Some rows have an id and others only an email, so one person could have two entries in the ledger; "
                "nothing was sent. Split the source in two, each with a ledger_path of its own, if nobody is in both."
            )
        for surveyed, further in zip(self._surveyed, (numbers, _keys(identities), hashes_of(customers)), strict=True):
            surveyed.extend(further)
        if len(self._surveyed[0]) >= _LOOK_UP:
            self._look_up()

    def _look_up(self) -> None:
        numbers, keys, customers = self._surveyed
        if self._deletes:
            unchanged = [False] * len(keys)
            self._entries.remove(keys)
        else:
            unchanged = self._entries.find_unchanged(keys, customers)
        self._mark([number for number, same in zip(numbers, unchanged, strict=True) if not same])
        array("q", [key for key, same in zip(keys, unchanged, strict=True) if not same]).tofile(self._pending)
        for surveyed in self._surveyed:
            del surveyed[:]

    def begin(self) -> None:
        """Invalidate the entries of all customers that are going to be sent, before the first call."""
        self._look_up()
        self._pending.flush()
        if self._pending.tell():
            self._own_pending = self._folder.upload_pending(self._home / "pending", label=self._label)

    def changed_places(self, numbers: Sequence[int]) -> list[int]:
        """Return the places in ``numbers`` of the rows to send, in the second pass."""
        marked = self._marked(numbers[0], numbers[-1]) if numbers else ()
        return [place for place, number in enumerate(numbers) if number in marked] if marked else []

    def send(self, numbers: Sequence[int], identities: Sequence[str], customers: Sequence[bytes]) -> None:
        """
        Note rows that will be sent, and remove the entries of their customers, which are outdated.

        The parameters are those of ``survey``.
        """
        keys = _keys(identities)
        self._entries.remove(keys)
        for number, key, customer in zip(numbers, keys, hashes_of(customers), strict=True):
            self._sent[number] = key, customer
            self._newest[key] = number

    def complete(self, numbers: Sequence[int], *, accepted: bool) -> None:
        """
        Write the entries of an accepted batch, except those of customers of whom a later row has been read.

        A second call for the same batch changes nothing.

        :param numbers: the number of each row of the batch in the source.
        :param accepted: whether the API accepted the batch.
        """
        entries = []
        for number in numbers:
            key, customer = self._sent.pop(number, (0, 0))
            if self._newest.get(key) == number:
                del self._newest[key]
                entries.append((key, customer))
        if accepted and not self._deletes:
            self._entries.write(entries)

    def upload(self) -> None:
        """
        Store the ledger under the next number, and delete the pending files that it replaces.

        If the store fails, log a warning: the pending file stays, and the next push sends more customers.

        :raises BubblehouseTransientError: if another push has stored a ledger in the meantime.
        """
        if self._is_discarded or (self._own_pending is None and not self._read_pending):
            return
        try:
            self._entries.export(self._home / "exported")
            self._folder.upload(self._number + 1, self._home / "exported")
            pending = [*self._read_pending, *filter(None, [self._own_pending])]
            self._folder.delete_pending(filter(self._is_over, pending))
            self._folder.delete_old()
        except LedgerTakenError:
            self._is_discarded = True
            self._restore_pending()
            raise BubblehouseTransientError(
                f"Another push has used the ledger in {self._folder.url} at the same time, so the entries of this one "
                "are discarded. Give each task a ledger_path of its own, and set max_active_runs=1."
            ) from None
        except (BubblehouseError, OSError, sqlite3.Error) as error:
            log.warning("The ledger cannot be stored, so the next push sends more customers: %s", error)

    @property
    def _label(self) -> str:
        """The ledger that the push started with, and its run."""
        return f"{self._number:08}-{self._run}"

    def _is_over(self, pending: str) -> bool:
        """
        Return whether the push of a pending file should have ended, if one task at a time uses the ledger.

        A push of another run that started with the same ledger may still be running. If it is killed after this one
        has stored its ledger, nothing but its pending file says that its customers may have other values.
        """
        number, _, run = pending.rpartition("-")[0].partition("-")
        return run == self._run or number != f"{self._number:08}"

    def _restore_pending(self) -> None:
        """Upload the pending file again if the other push has read it, and so deleted it at its end."""
        if self._own_pending is not None and self._own_pending not in self._folder.pending():
            self._own_pending = self._folder.upload_pending(self._home / "pending", label=self._label)

    def _open(self) -> tuple[int, Entries]:
        """Download the newest ledger, and remove the entries of all customers in pending files."""
        for _ in range(_OPEN_ATTEMPTS):
            # In this order, because a push stores its ledger before it deletes its pending file.
            self._read_pending = self._folder.pending()
            number = max(self._folder.numbers(), default=0)
            try:
                return number, self._open_newest(number)
            except GoneError:
                continue
        raise BubblehouseTransientError(
            f"Other pushes use the ledger in {self._folder.url} at the same time. Give each task a ledger_path of its "
            "own, and set max_active_runs=1."
        )

    def _open_newest(self, number: int) -> Entries:
        entries = self._download(number)
        try:
            for name in self._read_pending:
                self._withdraw(entries, name)
        except BaseException:
            entries.close()
            raise
        return entries

    def _download(self, number: int) -> Entries:
        path = self._home / "entries"
        path.unlink(missing_ok=True)
        try:
            if number:
                self._folder.download(number, path)
                if not is_whole(path):
                    raise sqlite3.DatabaseError
            return Entries(path, today=self._today, days=self._days)
        except sqlite3.DatabaseError:
            log.warning("Ledger %d in %s is damaged, so this push sends all customers.", number, self._folder.url)
            path.unlink(missing_ok=True)
            return Entries(path, today=self._today, days=self._days)

    def _withdraw(self, entries: Entries, name: str) -> None:
        path = self._home / name
        self._folder.download_pending(name, path)
        for keys in _read_keys(path):
            entries.remove(keys)
        path.unlink()

    def _mark(self, numbers: Sequence[int]) -> None:
        if numbers and (missing := (numbers[-1] >> 3) + 1 - len(self._changed)) > 0:
            self._changed.extend(bytes(missing))
        for number in numbers:
            self._changed[number >> 3] |= 1 << (number & 7)

    def _marked(self, first: int, last: int) -> set[int]:
        """Return the numbers of the changed rows in a range, and of a few rows around it."""
        start = first >> 3
        return {
            place << 3 | bit
            for place, byte in enumerate(self._changed[start : (last >> 3) + 1], start)
            if byte
            for bit in range(8)
            if byte >> bit & 1
        }


def _keys(identities: Sequence[str]) -> Sequence[int]:
    return hashes_of(map(str.encode, identities))


def _read_keys(path: Path) -> Iterator[list[int]]:
    with path.open("rb") as file:
        while block := file.read(_HASHES * 8):
            keys = array("q")
            keys.frombytes(block[: len(block) // 8 * 8])
            yield keys.tolist()
