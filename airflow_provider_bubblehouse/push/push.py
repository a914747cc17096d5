"""
The push of a source: reads, validates, cuts batches, deals them to lanes, and counts what became of every row.

One thread does all of it but the calls themselves, so that counts and progress need no lock and a signal that is to end
the task finds this thread waiting for events, never for an answer.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice, zip_longest
from queue import Empty, SimpleQueue
from threading import Event as Flag
from typing import TYPE_CHECKING, Any

from airflow_provider_bubblehouse.customers.encoded import Encoded
from airflow_provider_bubblehouse.errors import (
    BubblehouseError,
    BubblehouseTransientError,
    PermanentError,
    RejectedError,
)
from airflow_provider_bubblehouse.push.attempts import Attempts
from airflow_provider_bubblehouse.push.batches import Batch, Batcher
from airflow_provider_bubblehouse.push.checkpoint import Checkpoint, Lane, Progress, StateStore
from airflow_provider_bubblehouse.push.lanes import CallMade, Event, Lanes, Settled, Stop, lane_of
from airflow_provider_bubblehouse.push.pacing import Pacer, StoppedError
from airflow_provider_bubblehouse.push.summary import InvalidRows, Places, Summary, name_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from airflow_provider_bubblehouse.api.client import Client
    from airflow_provider_bubblehouse.customers.converter import CheckedChunk, Converter, InvalidRow
    from airflow_provider_bubblehouse.customers.encoded import Customers
    from airflow_provider_bubblehouse.push.rejected import RejectedRows
    from airflow_provider_bubblehouse.sources.source import Source

log = logging.getLogger(__name__)

_SAVE_EVERY = 1.0  # seconds; what a killed process may have to send again
_LOG_EVERY = 10.0  # seconds; a line more often is noise in a log that is kept
_STOP_GRACE = 2.0  # seconds for calls under way; Airflow kills a task that is marked failed 5 s after telling it so


@dataclass(slots=True, kw_only=True)
class Push:
    """
    One push of a whole source.

    :param source: where the rows come from.
    :param converter: converts rows into customers.
    :param connect: opens the client of one lane; None for a dry run, which makes no call.
    :param batch_size: how many customers a call has at most.
    :param max_batch_bytes: how many bytes a call's body has at most.
    :param in_flight: how many calls are under way at once.
    :param max_attempts: how many times a call that fails transiently is made at most.
    :param max_attempt_seconds: no wait between two of them is begun that would end later than this after the first.
    :param rate_limit_wait: seconds in all that may be waited for a rate limit.
    :param max_calls_per_second: how many calls begin in a second at most, None for no limit.
    :param skip_invalid: send the rest of a source with invalid rows; else such a source is refused whole.
    :param go_on_after_rejection: send the rest after the API refused a batch, and fail at the end.
    :param max_customers: a source with more rows is refused whole; None for any number. Not with ``skip_invalid``.
    :param debug: ask the API for ``debug``; a source of more than one batch is then refused.
    :param store: keeps the progress for the next try, None where nothing does.
    :param depends_on: what the progress depends on, beside the parameters here and the source.
    :param rejected_rows: keeps rejected and invalid rows, None to keep them nowhere.
    :param count: counts a metric up.
    """

    source: Source
    converter: Converter
    connect: Callable[[], Client] | None
    batch_size: int
    max_batch_bytes: int
    in_flight: int = 1
    max_attempts: int
    max_attempt_seconds: float
    rate_limit_wait: float = 0.0
    max_calls_per_second: float | None = None
    skip_invalid: bool = False
    go_on_after_rejection: bool = False
    max_customers: int | None = None
    debug: bool = False
    store: StateStore | None = None
    depends_on: Mapping[str, object] = field(default_factory=dict)
    rejected_rows: RejectedRows | None = None
    count: Callable[[str, int], None] = field(default=lambda _name, _number: None)

    summary: Summary = field(default_factory=Summary, init=False)
    invalid_rows: InvalidRows = field(default_factory=InvalidRows, init=False)
    rows_by_file: Counter[str] | None = field(default=None, init=False)  # once a pass has read the whole source
    _places: Places = field(default_factory=Places, init=False)
    _events: SimpleQueue[Event] = field(default_factory=SimpleQueue, init=False)
    _lanes: Lanes | None = field(default=None, init=False)
    _checkpoint: Checkpoint | None = field(default=None, init=False)
    _counted: list[int] = field(default_factory=list, init=False)
    _settled_when_saved: int = field(default=0, init=False)
    _saved_at: float = field(default_factory=time.monotonic, init=False)
    _logged_at: float = field(default_factory=time.monotonic, init=False)

    def run(self) -> dict[str, Any]:
        """
        Push all rows.

        :return: the counts (see ``Summary``).
        :raises BubblehouseError: with the counts so far as its ``summary``.
        """
        try:
            self._run()
        except BaseException as error:
            final = self._final(error)
            if isinstance(final, BubblehouseError):
                final.summary = self._counts()
            if final is error:
                raise
            raise final from error
        finally:
            if self.invalid_rows.count:
                log.warning("Invalid rows: %s", self.invalid_rows)
            log.info("Summary of the push: %s", self._counts())
        return self._counts()

    def stop(self) -> None:
        """
        Have ``run`` end soon with a ``BubblehouseTransientError``, its progress kept.

        Made for signal handlers: it may interrupt the push's own thread anywhere.
        """
        self._events.put(Stop())

    def _run(self) -> None:
        version = self.source.version()
        progress = self._resume()
        if progress is not None and progress.rejected and not self.go_on_after_rejection:
            raise self._rejected_error()
        if progress is None:
            self.summary.progress.lanes = [Lane() for _ in range(self.in_flight)]
            if not self.skip_invalid:
                self._validate()
                if self.source.version() != version:
                    raise _changed_error()
        if self.connect is None:
            for _ in self._batches():
                self.summary.batches += 1
        else:
            self._send_all(self.connect)
        if self.source.version() != version:
            raise _changed_error()
        if self.summary.progress.rejected:
            raise self._rejected_error()
        if self._checkpoint is not None:
            self._checkpoint.delete()

    def _resume(self) -> Progress | None:
        """Take up the progress of an earlier try."""
        fingerprint = self.source.fingerprint() if self.store is not None else None
        if self.store is None or fingerprint is None:
            return None
        self._checkpoint = Checkpoint(
            self.store,
            {
                **self.depends_on,
                "source": fingerprint,
                "batch_size": self.batch_size,
                "max_batch_bytes": self.max_batch_bytes,
                "in_flight": self.in_flight,
                "skip_invalid": self.skip_invalid,
                "max_customers": self.max_customers,
            },
        )
        progress = self._checkpoint.load()
        if progress is not None:
            self.summary.progress = progress
            self.summary.resumed_at = self._settled_when_saved = self.summary.settled
            self.summary.accepted_before = progress.accepted
            log.info("Earlier tries have settled %d rows; the push goes on after them.", self.summary.settled)
        return progress

    def _validate(self) -> None:
        """Read the whole source once before anything is sent."""
        for _ in self._chunks(self._report_invalid):
            if self.max_customers is not None and self.summary.progress.read > self.max_customers:
                raise PermanentError(
                    f"The source has more than the {self.max_customers} rows that max_customers allows; "
                    "nothing was sent. Check the source before you raise max_customers."
                )
        if self.invalid_rows.count:
            count = self.invalid_rows.count
            raise PermanentError(
                f"Nothing was sent: {count} of {self.summary.progress.read} rows "
                f"{'is invalid; mend it' if count == 1 else 'are invalid; mend them'} first. {self.invalid_rows}."
            )

    def _chunks(self, on_invalid: Callable[[Sequence[InvalidRow]], None]) -> Iterator[CheckedChunk]:
        """Read the source once, and yield its rows checked."""
        progress, places = self.summary.progress, Places()
        self._places = places
        read = invalid = 0
        rows_by_file: Counter[str] = Counter()
        for chunk in self.source.chunks():
            places.begin(chunk.file, read + 1)
            checked = self.converter.check(chunk, read + 1)
            read += checked.count
            rows_by_file[chunk.file] += checked.count
            invalid += len(checked.invalid)
            # Of a pass that goes over rows again these are less than before, until it is beyond them.
            progress.read, progress.invalid = max(progress.read, read), max(progress.invalid, invalid)
            if checked.invalid:
                on_invalid(checked.invalid)
            yield checked
            del chunk, checked  # before more is read: memory that is used again at once is still in the CPU's cache
            self._attend(0)
        if read < progress.read:
            raise _changed_error()
        self.rows_by_file = rows_by_file

    def _report_invalid(self, rows: Sequence[InvalidRow]) -> None:
        if self.rejected_rows is not None:
            self.rejected_rows.add_invalid(rows)
        for row in rows:
            self.invalid_rows.add(*self._places.of(row.number), row.error)
        self.count("bubblehouse.customers.invalid", len(rows))

    def _batches(self) -> Iterator[tuple[int, Batch]]:
        """Yield the batches that are to be sent, each with its lane."""
        validated = None if self.skip_invalid else self.summary.progress.read
        settled = [lane.accepted + lane.rejected for lane in self.summary.progress.lanes]
        batchers = [
            Batcher(batch_size=self.batch_size, max_batch_bytes=self.max_batch_bytes, debug=self.debug)
            for _ in range(self.in_flight)
        ]
        for chunk in self._chunks(self._report_invalid if self.skip_invalid else _refuse_change):
            full: list[list[Batch]] = []
            for lane, (numbers, customers) in enumerate(self._deal(chunk)):
                before = min(settled[lane], len(customers))
                settled[lane] -= before
                full.append(list(batchers[lane].add(numbers[before:], customers[before:])))
            for turn in zip_longest(*full):  # in turns, so that no lane waits for what is another's
                yield from ((lane, batch) for lane, batch in enumerate(turn) if batch is not None)
            del chunk, numbers, customers, full
        if validated is not None and self.summary.progress.read != validated:
            raise _changed_error()
        for lane, batcher in enumerate(batchers):
            for batch in batcher.rest():
                yield lane, batch

    def _deal(self, chunk: CheckedChunk) -> Iterable[tuple[Sequence[int], Customers]]:
        """Return the rows of each lane."""
        if self.in_flight == 1:
            return [(chunk.numbers, chunk.customers())]
        hands: list[tuple[list[int], list[bytes]]] = [([], []) for _ in range(self.in_flight)]
        for number, customer, identity in zip(chunk.numbers, chunk.customers().lines, chunk.identities, strict=True):
            numbers, customers = hands[lane_of(identity, self.in_flight)]
            numbers.append(number)
            customers.append(customer)
        return [(numbers, Encoded(customers)) for numbers, customers in hands]

    def _send_all(self, connect: Callable[[], Client]) -> None:
        stop = Flag()
        self._counted = [0] * self.in_flight
        pacer = Pacer(max_calls_per_second=self.max_calls_per_second, rate_limit_wait=self.rate_limit_wait, stop=stop)
        attempts = Attempts(
            max_attempts=self.max_attempts, max_seconds=self.max_attempt_seconds, pacer=pacer, stop=stop
        )
        batches = self._batches()
        if self.debug:
            batches = self._only_one(batches)
        self._lanes = Lanes(
            in_flight=self.in_flight,
            connect=connect,
            attempts=attempts,
            go_on_after_rejection=self.go_on_after_rejection,
            debug=self.debug,
            events=self._events,
        )
        try:
            for lane, batch in batches:
                while not self._lanes.has_room(lane):
                    self._attend(_SAVE_EVERY)
                self._lanes.send(lane, batch)
            while self._lanes.busy:
                self._attend(_SAVE_EVERY)
        except BaseException as error:  # noqa: BLE001  whatever ends the push, the calls under way are seen to
            stop.set()
            raise self._wind_down(error) from error.__cause__
        finally:
            try:
                self._lanes.close()
                while not self._events.empty():  # what ended with the lanes counts too
                    with suppress(BubblehouseError):  # the push has its error by now
                        self._handle(self._events.get_nowait())
            finally:
                self._save()

    def _only_one(self, batches: Iterator[tuple[int, Batch]]) -> Iterator[tuple[int, Batch]]:
        first_two = list(islice(batches, 2))
        if len(first_two) > 1:
            raise PermanentError(
                "The source has more than one batch, which debug does not allow; nothing was sent. "
                "Leave debug out, or push a small sample with it."
            )
        return iter(first_two)

    def _attend(self, seconds: float) -> None:
        """
        See to what the lanes report, waiting up to some seconds for the first of it, and keep the progress.

        :raises BubblehouseError: if a lane reports that the push cannot go on, or the push is to stop.
        """
        while True:
            try:
                event = self._events.get(timeout=seconds) if seconds else self._events.get_nowait()
            except Empty:
                break
            seconds = 0
            self._handle(event)
        now = time.monotonic()
        if now - self._saved_at >= _SAVE_EVERY:
            self._save()
        if now - self._logged_at >= _LOG_EVERY:
            self._logged_at = now
            self._log_progress()

    def _handle(self, event: Event) -> None:
        if isinstance(event, CallMade):
            self.summary.calls += 1
            self.summary.retries += event.again
            self.count("bubblehouse.calls", 1)
            if event.again:
                self.count("bubblehouse.retries", 1)
        elif isinstance(event, Settled):
            self._settle(event)
        else:
            raise StoppedError

    def _settle(self, event: Settled) -> None:
        lane, batch, error = self.summary.progress.lanes[event.lane], event.batch, event.error
        if self._lanes is not None:
            self._lanes.release(event.lane)
        if event.number != self._counted[event.lane]:  # one before it is not counted, and the next try goes by counts
            return
        if isinstance(error, StoppedError):  # another batch's fault came first, and is what the push ends with
            return
        if error is None:
            lane.accepted += batch.rows
            self.count("bubblehouse.customers.accepted", batch.rows)
        elif isinstance(error, RejectedError):
            if self.rejected_rows is not None:
                self.rejected_rows.add_rejected(batch, error)
            self._note_rejection(batch, error)
            lane.rejected += batch.rows
            self.count("bubblehouse.customers.rejected", batch.rows)
        else:
            raise error
        self._counted[event.lane] += 1
        self.summary.batches += 1
        if error is not None and not self.go_on_after_rejection:
            raise error

    def _note_rejection(self, batch: Batch, error: RejectedError) -> None:
        progress = self.summary.progress
        if progress.status is None:
            progress.status, progress.error_id = error.status, error.error_id
        self._saved_at = -math.inf  # at once, for the next try must not send it again
        log.error(
            "%s This is about %d rows, from %s to %s.",
            error,
            batch.rows,
            name_rows([self._places.of(batch.numbers[0])]),
            name_rows([self._places.of(batch.numbers[-1])]),
        )

    def _wind_down(self, error: BaseException) -> BaseException:
        """
        Wait for the calls that are under way, and return the error that the push ends with.

        What cannot be helped by a retry goes before what can: several lanes may fail at once.
        """
        hurried = isinstance(error, StoppedError) or not isinstance(error, BubblehouseError)
        deadline = time.monotonic() + _STOP_GRACE if hurried else None
        self._save()
        while self._lanes is not None and self._lanes.busy:
            wait = _SAVE_EVERY if deadline is None else deadline - time.monotonic()
            if wait <= 0:
                break
            try:
                self._attend(wait)
            except StoppedError:
                deadline = deadline or time.monotonic() + _STOP_GRACE
            except PermanentError as permanent:
                error = permanent if isinstance(error, BubblehouseTransientError) else error
            except Exception as further:  # noqa: BLE001  the first one is raised
                log.warning("A further call failed: %s", further)
        return error

    def _save(self) -> None:
        self._saved_at = time.monotonic()
        settled = self.summary.settled
        if (
            self._checkpoint is not None
            and settled != self._settled_when_saved
            and self._checkpoint.save(self.summary.progress)
        ):
            self._settled_when_saved = settled

    def _log_progress(self) -> None:
        summary, share = self.summary, self.source.share_read()
        log.info(
            "Progress: %d rows read, %d settled, %d batches, %.0f rows/s, %d retries%s.",
            summary.progress.read,
            summary.settled,
            summary.batches,
            summary.rows_per_second,
            summary.retries,
            "" if share is None else f", {share:.0%} of the source read",
        )

    def _counts(self) -> dict[str, Any]:
        if self.rejected_rows is not None and self.rejected_rows.written:
            self.summary.rejected_path = self.rejected_rows.folder
        return self.summary.as_dict()

    def _final(self, error: BaseException) -> BaseException:
        """Return what the task is to fail with: a retry that would send again what was rejected must not come."""
        kept = self._checkpoint is not None and self.summary.settled == self._settled_when_saved
        if isinstance(error, PermanentError) or not self.summary.progress.rejected or kept:
            return error
        return self._rejected_error()

    def _rejected_error(self) -> RejectedError:
        progress = self.summary.progress
        kept = f" They are in {self.rejected_rows.folder}." if self.rejected_rows is not None else ""
        return RejectedError(
            f"Bubblehouse refused {progress.rejected} of the {progress.read} rows read, in this try or an earlier one "
            f"of the same source, the first with status {progress.status} ({progress.error_id}); they must not be sent "
            f"again.{kept} Mend the source, or set resume=False to start over.",
            status=progress.status,
            error_id=progress.error_id,
        )


def _refuse_change(_rows: Sequence[InvalidRow]) -> None:
    """A row that was good in the first pass is not in the second."""
    raise _changed_error()


def _changed_error() -> PermanentError:
    return PermanentError(
        "The source was changed while being read. What was sent may be sent again; run the task again when the "
        "source stands still."
    )
