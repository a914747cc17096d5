"""One push of a whole source: resume, validate, send, and report what became of every row."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from dataclasses import dataclass, field
from threading import Event as Flag
from typing import TYPE_CHECKING, Any

from airflow_provider_bubblehouse.errors import (
    BubblehouseError,
    BubblehouseTransientError,
    PermanentError,
    RejectedError,
)
from airflow_provider_bubblehouse.plural import plural
from airflow_provider_bubblehouse.push.attempts import Attempts
from airflow_provider_bubblehouse.push.loop import Loop
from airflow_provider_bubblehouse.push.pacing import Pacer
from airflow_provider_bubblehouse.push.progress import Checkpoint, LaneProgress, Resumed, State, delete_state
from airflow_provider_bubblehouse.push.reader import Reader, ResumeMismatchError, source_changed_error
from airflow_provider_bubblehouse.push.report import Report
from airflow_provider_bubblehouse.push.workers import Workers
from airflow_provider_bubblehouse.sources.ahead import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow_provider_bubblehouse.api.client import Client
    from airflow_provider_bubblehouse.customers.converter import InvalidRow
    from airflow_provider_bubblehouse.ledger.changes import Changes
    from airflow_provider_bubblehouse.push.plan import Plan
    from airflow_provider_bubblehouse.push.progress import Rejection, StateStore
    from airflow_provider_bubblehouse.push.reader import Converter
    from airflow_provider_bubblehouse.push.rejected import RejectedRows
    from airflow_provider_bubblehouse.sources.source import Source

log = logging.getLogger(__name__)

_END_TIMEOUT = 2.0  # seconds for a save under way to end, before the progress is deleted


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    """
    What a push needs to continue where earlier tries of its task have ended.

    :param store: stores the progress from one try to the next.
    :param target: where the rows go: host, shop and operator.
    :param reading: the parameters that decide how the source is read, and the version of the rules for customers.
    """

    store: StateStore
    target: Mapping[str, object]
    reading: Mapping[str, object]


@dataclass(slots=True, kw_only=True)
class Push:
    """
    One push of a whole source.

    :param plan: how to read, send and fail.
    :param source: where the rows come from.
    :param converter: validates the rows and converts them to customers.
    :param connect: opens the client of one lane; None for a dry run, which makes no call.
    :param resume: how to continue after earlier tries; None to start over and store nothing.
    :param rejected_rows: writes rejected and invalid rows to a folder, None to write them nowhere.
    :param changes: decides which rows have changed and remembers what the API accepts; None to send all.
    :param report: counts, logs and measures.
    :param is_orphan: returns whether the process that supervises this one has ended.
    """

    plan: Plan
    source: Source
    converter: Converter
    connect: Callable[[], Client] | None
    resume: Resume | None = None
    rejected_rows: RejectedRows | None = None
    changes: Changes | None = None
    report: Report = field(default_factory=Report)
    is_orphan: Callable[[], bool] = field(default=lambda: False)
    _loop: Loop = field(init=False)

    def __post_init__(self) -> None:
        self._loop = Loop(
            report=self.report,
            rejected_rows=self.rejected_rows,
            continue_after_rejection=self.plan.continue_after_rejection,
            is_orphan=self.is_orphan,
            share_read=lambda: self.source.share_read(),
            changes=self.changes,
        )

    def run(self) -> dict[str, Any]:
        """
        Push all rows.

        :return: the counts (see ``Summary``).
        :raises BubblehouseError: with the counts so far as its ``summary``.
        """
        try:
            self._run_and_save()
        except BaseException as error:
            final = self._final(error)
            if isinstance(final, BubblehouseError):
                final.summary = self._counts()
            if final is error:
                raise
            raise final from error
        return self._counts()

    def stop(self) -> None:
        """
        Make ``run`` end soon with a ``BubblehouseTransientError``, and save its progress.

        For signal handlers: it may interrupt the push's own thread anywhere.
        """
        self._loop.stop("The push was told to stop.")

    def _run_and_save(self) -> None:
        """Run, save what a push that fails has done, and log the counts; a signal may interrupt all of this."""
        try:
            with self.changes or nullcontext():
                self._run_or_save()
        finally:
            self._loop.stop_saving()
            self._counts()
            self.report.finish()

    def _run_or_save(self) -> None:
        try:
            self._run()
        except BaseException as error:
            self._loop.save_at_end(trust=not isinstance(error, ResumeMismatchError))
            if self.changes is not None and not self.is_orphan():
                try:
                    self.changes.upload()
                except BubblehouseTransientError as further:
                    log.warning("%s", further)
            raise

    def _run(self) -> None:
        version = self._version()
        checkpoint = self._checkpoint()
        resumed = Resumed() if checkpoint is None else checkpoint.load()
        self._take_up(resumed)
        if checkpoint is not None:
            self._loop.start_saving(checkpoint)
        if resumed.rejection is not None:
            self._write_earlier_rejections(resumed.rejection)
            if resumed.lanes is None or not self.plan.continue_after_rejection:
                raise self._rejected_error()
        reader = self._reader(self.report, on_invalid=self._report_invalid)
        if self.changes is not None or (resumed.lanes is None and self.plan.validates_first):
            self._validate(reader, version)
        if self.resume is not None and (checkpoint is None or resumed.stale):
            delete_state(self.resume.store)
        if self.changes is not None:
            self.changes.begin()
        self._send(reader)
        if self._version() != version:
            raise source_changed_error()
        if self.changes is not None:
            self.changes.upload()
        if self.report.summary.state.rejection is not None:
            raise self._rejected_error()
        if checkpoint is not None:
            self._delete_progress(checkpoint.store)

    def _version(self) -> object:
        """Ask for the source's version; a store may take its time, and the push can be stopped meanwhile."""
        return wait_for(self.source.version, tick=self._loop.process_events)

    def _validate(self, reader: Reader, version: object) -> None:
        try:
            reader.validate()
        except PermanentError:
            if self._version() != version:  # then nothing else that is wrong with it counts
                raise source_changed_error() from None
            raise
        if self._version() != version:
            raise source_changed_error()

    def _checkpoint(self) -> Checkpoint | None:
        identity = self.source.fingerprint() if self.resume is not None else None
        if self.resume is None or identity is None:
            return None
        return Checkpoint(
            self.resume.store,
            source={**self.resume.target, "rows": identity},
            settings={**self.resume.reading, **self.plan.settings()},
        )

    def _take_up(self, resumed: Resumed) -> None:
        """Continue with the counts of earlier tries."""
        summary = self.report.summary
        lanes = resumed.lanes
        if lanes is None and resumed.rejection is None:
            lanes = tuple(LaneProgress() for _ in range(self.plan.in_flight))
        # Without lanes nothing is sent. Lanes at 0 would be saved, and the next try would send the rejected rows again.
        summary.state = State(lanes or (), resumed.rejection)
        summary.read, summary.invalid = resumed.read, resumed.invalid
        summary.resumed_at = summary.state.completed
        summary.accepted_before, summary.unchanged_before = summary.state.accepted, summary.state.unchanged
        if resumed.lanes is not None:
            completed = plural(summary.resumed_at, "row")
            log.info("Earlier tries have completed %s; the push continues after them.", completed)

    def _write_earlier_rejections(self, rejection: Rejection) -> None:
        """Write the rejected rows that an earlier try could not write, because it was interrupted."""
        if self.rejected_rows is None:
            return
        error = RejectedError("An earlier try was rejected.", status=rejection.status, error_id=rejection.error_id)
        for numbers in rejection.unwritten:
            report = Report()  # another one, because an earlier try has counted these rows
            reader = self._reader(report, on_invalid=lambda _rows: None)
            batch = reader.read_again(numbers)
            if batch is not None:
                self.rejected_rows.add_rejected(batch, error, report.places)
            self.report.summary.state = self.report.summary.state.after_writing(numbers)

    def _reader(self, report: Report, *, on_invalid: Callable[[Sequence[InvalidRow]], None]) -> Reader:
        return Reader(
            source=self.source,
            converter=self.converter,
            plan=self.plan,
            report=report,
            on_invalid=on_invalid,
            tick=self._loop.process_events,
            changes=self.changes,
        )

    def _report_invalid(self, rows: Sequence[InvalidRow]) -> None:
        if self.rejected_rows is not None:
            self.rejected_rows.add_invalid(rows, self.report.places)
        self.report.add_invalid(rows)

    def _send(self, reader: Reader) -> None:
        summary = self.report.summary
        lanes = reader.lanes(summary.state.lanes)
        batches = reader.batches(lanes)
        if self.connect is None:
            for _ in batches:
                summary.batches += 1
            return
        plan, stop = self.plan, Flag()
        pacer = Pacer(max_calls_per_second=plan.max_calls_per_second, rate_limit_wait=plan.rate_limit_wait, stop=stop)
        workers = Workers(
            lanes=plan.in_flight,
            connect=self.connect,
            attempts=Attempts(
                max_attempts=plan.max_attempts, max_seconds=plan.max_attempt_seconds, pacer=pacer, stop=stop
            ),
            continue_after_rejection=plan.continue_after_rejection,
            debug=plan.debug,
            events=self._loop.events,
        )
        self._loop.send_all(batches, workers)
        if self.changes is not None:
            summary.state = summary.state.at_end([(lane.last_row, lane.position) for lane in lanes])

    def _delete_progress(self, store: StateStore) -> None:
        """Delete the progress after a success."""
        if not self._loop.stop_saving(timeout=_END_TIMEOUT):
            log.warning("Airflow's task state store does not answer; the progress of this push is not deleted.")
            return
        try:
            delete_state(store)
        except BubblehouseTransientError:
            log.warning("The progress of this push cannot be deleted from Airflow's task state store.", exc_info=True)

    def _counts(self) -> dict[str, Any]:
        if self.rejected_rows is not None and self.rejected_rows.written:
            self.report.summary.rejected_path = self.rejected_rows.folder
        return self.report.summary.as_dict()

    def _final(self, error: BaseException) -> BaseException:
        """Return what the task fails with: a retry that would send a rejected batch again must not come."""
        is_safe = isinstance(error, PermanentError) or self._loop.is_rejection_saved
        return error if is_safe else self._rejected_error()

    def _rejected_error(self) -> RejectedError:
        summary = self.report.summary
        rejection = summary.state.rejection
        rows = 0 if rejection is None else rejection.rows
        status, error_id = (None, None) if rejection is None else (rejection.status, rejection.error_id)
        written = ""
        if self.rejected_rows is not None:
            which = "They" if self.rejected_rows.written else "Those that an earlier try has written"
            written = (
                f" {which} are in {self.rejected_rows.folder}: correct them there, and push that folder with "
                'file_format="rejected".'
            )
        return RejectedError(
            f"Bubblehouse rejected {plural(rows, 'row')} of this source, in this try or an earlier one, the first with "
            f"status {status} ({error_id}). Rejected rows must not be sent again unchanged.{written} To push this "
            "source again, fix it first, or set resume=False to start over.",
            status=status,
            error_id=error_id,
        )
