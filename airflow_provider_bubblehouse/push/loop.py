"""
Sends batches through the workers, and records what became of each one.

Everything here runs in the push's own thread. A signal may interrupt it anywhere with an exception, for example at the
task's ``execution_timeout``: an event stays in its queue until it is handled, and handling it twice completes no row
twice.
"""

from __future__ import annotations

import logging
import math
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from airflow_provider_bubblehouse.errors import (
    BubblehouseError,
    BubblehouseTransientError,
    PermanentError,
    RejectedError,
)
from airflow_provider_bubblehouse.push.pacing import StoppedError
from airflow_provider_bubblehouse.push.progress import State
from airflow_provider_bubblehouse.push.saver import Saver
from airflow_provider_bubblehouse.push.workers import CallMade, Completed, Events, Stop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_bubblehouse.ledger.changes import Changes
    from airflow_provider_bubblehouse.push.batches import Batch
    from airflow_provider_bubblehouse.push.progress import Checkpoint
    from airflow_provider_bubblehouse.push.rejected import RejectedRows
    from airflow_provider_bubblehouse.push.report import Report
    from airflow_provider_bubblehouse.push.workers import Event, Workers

log = logging.getLogger(__name__)

_TICK = 1.0  # seconds between two saves; a killed process sends again what it completed since the last one
_LOG_EVERY = 10.0  # seconds
_STOP_GRACE = 2.0  # seconds for calls under way; Airflow kills a task that is marked failed 5 s after it says so
_SAVE_TIMEOUT = 30.0  # seconds; Airflow's own client gives up after 15 to 20
_SAVE_TIMEOUT_WHEN_STOPPING = 0.2  # seconds; the last save still follows
_LAST_SAVE_TIMEOUT = 1.5  # seconds, if the push has to stop

SUPERVISOR_LOST = (
    "The process that supervises this task has ended, so its retry may be running already. The push has stopped."
)


class Loop:
    """
    The main loop of one push.

    :param report: counts the calls and batches.
    :param rejected_rows: writes rejected rows to a folder, None to write them nowhere.
    :param continue_after_rejection: whether to send the rest after the API rejects a batch.
    :param is_orphan: returns whether the process that supervises this one has ended.
    :param share_read: returns the share of the source that is read, None if not known.
    :param changes: remembers what the API has accepted, None if nothing does.
    """

    def __init__(
        self,
        *,
        report: Report,
        rejected_rows: RejectedRows | None,
        continue_after_rejection: bool,
        is_orphan: Callable[[], bool],
        share_read: Callable[[], float | None],
        changes: Changes | None,
    ) -> None:
        self._report = report
        self._rejected_rows = rejected_rows
        self._continue_after_rejection = continue_after_rejection
        self._is_orphan = is_orphan
        self._share_read = share_read
        self._changes = changes
        self.events = Events()
        self._workers: Workers | None = None
        self._checkpoint: Checkpoint  # set together with the saver
        self._saver: Saver | None = None
        self._saved: State | None = None  # the newest state that is known to be stored
        self._queued: State | None = None  # the newest state that the saver has
        self._is_stopping = False
        self._ticked_at = self._logged_at = time.monotonic()

    def start_saving(self, checkpoint: Checkpoint) -> None:
        """Save the state from now on, about once a second and at each rejection."""
        self._checkpoint = checkpoint
        self._saved = self._queued = self._report.summary.state
        self._saver = Saver(checkpoint.store, on_broken_pipe=lambda: self.stop(SUPERVISOR_LOST))

    def stop(self, reason: str) -> None:
        """
        Make the push end soon. A signal handler may call it anywhere, and another thread, too.

        :param reason: why, as a sentence.
        """
        self._is_stopping = True
        self.events.put(Stop(reason))

    @property
    def is_rejection_saved(self) -> bool:
        """Whether the store has all that the API has rejected; also if it has rejected nothing."""
        rejection = self._report.summary.state.rejection
        saved = None if self._saved is None else self._saved.rejection
        return rejection is None or (saved is not None and saved.rows == rejection.rows)

    def send_all(self, batches: Iterator[tuple[int, Batch]], workers: Workers) -> None:
        """
        Send batches, and return when all are completed.

        :param batches: the batches, each with its lane.
        :param workers: send them; closed at the end.
        :raises BubblehouseError: if the push cannot continue.
        """
        self._workers = workers
        try:
            for lane, batch in batches:
                while not workers.has_room(lane):
                    self.process_events(_TICK)
                workers.send(lane, batch)
            while workers.busy:
                self.process_events(_TICK)
        except BaseException as error:  # noqa: BLE001  whatever ends the push, calls under way are counted
            final = self._wind_down(error, workers)
            raise final from final.__cause__
        finally:
            workers.close()
            while self.events.first() is not None:  # whatever ended with the workers counts, too
                with suppress(Exception):  # the push has its error already
                    self._process_first()

    def process_events(self, seconds: float = 0.0) -> None:
        """
        Handle what the workers report, waiting up to some seconds for it, and save the state.

        :param seconds: how long to wait for the first event.
        :raises BubblehouseError: if a worker reports that the push cannot continue, or the push has to stop.
        """
        if seconds:
            self.events.wait(seconds)
        while self.events.first() is not None:
            self._process_first()
        now = time.monotonic()
        if now - self._ticked_at >= _TICK:
            self._ticked_at = now
            if self._is_orphan():
                raise StoppedError(SUPERVISOR_LOST)
            self._save_soon()
        if now - self._logged_at >= _LOG_EVERY:
            self._logged_at = now
            self._report.log_progress(self._share_read())

    def _process_first(self) -> None:
        event = self.events.first()
        error: Exception | None = None
        try:
            error = None if event is None else self._handle(event)
        except Exception as fault:  # noqa: BLE001  an event that cannot be handled must not come again
            error = fault
        self.events.remove_first()
        if error is not None:
            raise error

    def _handle(self, event: Event) -> Exception | None:
        """Handle an event, and return the error that the push has to end with, None if it goes on."""
        if isinstance(event, CallMade):
            self._report.add_call(again=event.again, seconds=event.seconds)
            return None
        if isinstance(event, Stop):
            return StoppedError(event.reason)
        if self._workers is not None:
            self._workers.note_completed(event)
        if event.error is None or isinstance(event.error, RejectedError):
            return self._complete(event, event.error)
        # Another batch's error came first, and is what the push ends with.
        return None if isinstance(event.error, StoppedError) else event.error

    def _complete(self, event: Completed, error: RejectedError | None) -> Exception | None:
        summary, batch = self._report.summary, event.batch
        if batch.numbers[-1] > summary.state.lanes[event.lane].row:  # an interrupted handling may have come this far
            summary.state = summary.state.after(
                event.lane, batch, error, will_be_written=self._rejected_rows is not None
            )
            self._report.add_batch(batch, error)
        if self._changes is not None:
            self._changes.complete(batch.numbers, accepted=error is None)
        if error is None:
            return None
        self._save_now(summary.state, lambda: _SAVE_TIMEOUT_WHEN_STOPPING if self._is_stopping else _SAVE_TIMEOUT)
        if self._rejected_rows is not None:
            if self._is_stopping and self.is_rejection_saved:
                return None  # a retry writes the rows, and fails: this push must end soon
            self._write_rejected(batch, error, self._rejected_rows)
        return None if self._continue_after_rejection else error

    def _write_rejected(self, batch: Batch, error: RejectedError, rejected_rows: RejectedRows) -> None:
        summary = self._report.summary
        if summary.state.rejection is not None and tuple(batch.numbers) in summary.state.rejection.unwritten:
            rejected_rows.add_rejected(batch, error, self._report.places)
            summary.state = summary.state.after_writing(batch.numbers)

    def _wind_down(self, error: BaseException, workers: Workers) -> BaseException:
        """
        Wait for the calls that are under way, and return the error that the push ends with.

        Permanent errors take precedence: several lanes may fail at once. A signal may end the wait with an exception,
        too; the calls then have the same time as in any push that has to stop.
        """
        if isinstance(error, StoppedError) or not isinstance(error, BubblehouseError):
            self._is_stopping = True
        workers.stop()
        deadline = math.inf
        while workers.busy:
            if self._is_stopping:
                deadline = min(deadline, time.monotonic() + _STOP_GRACE)
            wait = min(_TICK, deadline - time.monotonic())
            if wait <= 0:
                break
            try:
                self.process_events(wait)
            except StoppedError:
                self._is_stopping = True
            except PermanentError as permanent:
                error = permanent if isinstance(error, BubblehouseTransientError) else error
            except Exception as further:  # noqa: BLE001  the first one is raised
                log.warning("A further call failed: %s", further)
            except BaseException as interruption:  # noqa: BLE001  raised once the calls are counted
                self._is_stopping = True
                error = error if isinstance(error, PermanentError) else interruption
        return error

    def _encode(self, state: State) -> dict[str, object]:
        summary = self._report.summary
        return self._checkpoint.encode(state, read=summary.read, invalid=summary.invalid)

    def _save_soon(self) -> None:
        state = self._report.summary.state
        if self._saver is not None and state is not self._queued:
            self._queued = state
            self._saver.save(self._encode(state))

    def _save_now(self, state: State, timeout: Callable[[], float], *, even_if_failing: bool = False) -> None:
        if self._saver is None or state is self._saved:
            return
        self._queued = state
        if self._saver.save_now(self._encode(state), timeout=timeout, even_if_failing=even_if_failing):
            self._saved = state

    def save_at_end(self, *, trust: bool = True) -> None:
        """
        Save the state of a push that fails, even if the store failed a moment ago.

        :param trust: whether the progress of the lanes is right; otherwise a retry starts over.
        """
        if self._is_orphan():  # the retry may have saved its own progress by now
            return
        state = self._report.summary.state
        self._save_now(
            state if trust else State(rejection=state.rejection),
            lambda: _LAST_SAVE_TIMEOUT if self._is_stopping else _SAVE_TIMEOUT,
            even_if_failing=True,
        )

    def stop_saving(self, *, timeout: float = 0.0) -> bool:
        """
        End the saver, and return whether it has ended, so that no save can follow.

        :param timeout: how many seconds to wait for that at most.
        """
        saver, self._saver = self._saver, None
        return saver is None or saver.close(timeout=timeout)
