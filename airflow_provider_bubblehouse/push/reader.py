"""Reads a source: validates it, skips what earlier tries have completed, and cuts the rest into batches."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from itertools import islice, zip_longest
from typing import TYPE_CHECKING, Protocol

from airflow_provider_bubblehouse.errors import BubblehouseTransientError, PermanentError
from airflow_provider_bubblehouse.plural import plural
from airflow_provider_bubblehouse.push.batches import Batch, Batcher, LaneRows, body_of, partition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from airflow_provider_bubblehouse.customers.converter import CheckedChunk, Chunk, InvalidRow
    from airflow_provider_bubblehouse.ledger.changes import Changes
    from airflow_provider_bubblehouse.push.plan import Plan
    from airflow_provider_bubblehouse.push.progress import LaneProgress
    from airflow_provider_bubblehouse.push.report import Report
    from airflow_provider_bubblehouse.sources.source import Source


class Converter(Protocol):
    """Validates rows and converts them to customers."""

    def check(self, chunk: Chunk, first_number: int) -> CheckedChunk:
        """
        Convert the rows of a chunk.

        :param chunk: the rows.
        :param first_number: the number of the first one in the source.
        """


class ResumeMismatchError(BubblehouseTransientError):
    """The rows that earlier tries have completed are not the ones that were skipped."""

    def __init__(self) -> None:
        super().__init__(
            "The rows before the stored progress are not the ones that earlier tries have completed. The progress was "
            "deleted; a retry starts over."
        )


class Reader:
    """
    Reads a source, as often as the push needs it.

    :param source: where the rows come from.
    :param converter: validates rows and converts them.
    :param plan: the limits of batches and of the source.
    :param report: counts the rows.
    :param on_invalid: called with invalid rows, as they are found.
    :param tick: called after each chunk; what it raises ends the reading.
    :param changes: decides which rows have changed; None to send all.
    """

    def __init__(
        self,
        *,
        source: Source,
        converter: Converter,
        plan: Plan,
        report: Report,
        on_invalid: Callable[[Sequence[InvalidRow]], None],
        tick: Callable[[], None],
        changes: Changes | None = None,
    ) -> None:
        self._source = source
        self._converter = converter
        self._plan = plan
        self._report = report
        self._on_invalid = on_invalid
        self._tick = tick
        self._changes = changes
        self._validated: tuple[int, int] | None = None  # rows and invalid rows of the validating pass

    def validate(self) -> None:
        """
        Read the whole source before anything is sent.

        :raises PermanentError: if the source has an invalid row and these are not skipped, or breaks a limit.
        """
        summary, maximum = self._report.summary, self._plan.max_customers
        for chunk in self._chunks(self._on_invalid):
            if self._changes is not None:
                self._changes.survey(chunk.numbers, chunk.identities(), chunk.customers().lines)
            if maximum is not None and summary.read > maximum:
                raise PermanentError(
                    f"The source has more than the {plural(maximum, 'row')} that max_customers allows; nothing was "
                    "sent. Check the source before you raise max_customers."
                )
        self._check_limits()
        self._validated = (summary.read, summary.invalid)

    def _check_limits(self) -> None:
        read, invalid = self._report.summary.read, self._report.summary.invalid
        minimum, allowed = self._plan.min_customers, self._plan.max_invalid
        if minimum is not None and read < minimum:
            raise PermanentError(
                f"The source has {plural(read, 'row')}, fewer than the {minimum:,} that min_customers requires; "
                "nothing was sent. Check whether the export is complete before you lower min_customers."
            )
        which = f"{invalid:,} of {plural(read, 'row')} {'is' if invalid == 1 else 'are'}"
        if invalid and not self._plan.skip_invalid:
            them = "it" if invalid == 1 else "them"
            raise PermanentError(f"Nothing was sent: {which} invalid; fix {them} first. {self._report.invalid_rows}.")
        if allowed is not None and invalid > (allowed * read if allowed < 1 else allowed):
            limit = f"{allowed:.4g} of them" if allowed < 1 else f"{allowed:.0f}"
            raise PermanentError(
                f"Nothing was sent: {which} invalid, and max_invalid allows {limit}. Fix the source, or raise "
                f"max_invalid. {self._report.invalid_rows}."
            )

    def batches(self, lanes: Sequence[LaneReader]) -> Iterator[tuple[int, Batch]]:
        """
        Yield the batches to send, each with the number of its lane.

        :param lanes: cut the batches of each lane.
        :raises ResumeMismatchError: if the skipped rows are not as many as earlier tries have completed.
        :raises PermanentError: if the source was changed since it was validated, if all of its rows are invalid, or if
            it has more than one batch with ``debug``.
        """
        batches = self._batches(lanes)
        return _only_one(batches) if self._plan.debug else batches

    def lanes(self, completed: Sequence[LaneProgress]) -> list[LaneReader]:
        """
        Return what cuts the batches of each lane.

        :param completed: what earlier tries have completed in each lane; those rows are skipped.
        """
        plan = self._plan
        return [
            LaneReader(
                progress,
                Batcher(batch_size=plan.batch_size, max_batch_bytes=plan.max_batch_bytes, debug=plan.debug),
                self._changes,
            )
            for progress in completed
        ]

    def _batches(self, lanes: Sequence[LaneReader]) -> Iterator[tuple[int, Batch]]:
        summary = self._report.summary
        for chunk in self._chunks(self._on_invalid_when_sending()):
            full = [list(lane.add(rows)) for lane, rows in zip(lanes, partition(chunk, len(lanes)), strict=True)]
            for turn in zip_longest(*full):  # in turns, so that no lane waits for another one's batches
                yield from ((number, batch) for number, batch in enumerate(turn) if batch is not None)
        if self._validated is not None and self._validated != (summary.read, summary.invalid):
            raise source_changed_error()
        if summary.read and summary.invalid == summary.read:
            rows = "The only row is" if summary.read == 1 else f"All {summary.read:,} rows are"
            raise PermanentError(f"{rows} invalid, so nothing was sent. Fix the source. {self._report.invalid_rows}.")
        for number, lane in enumerate(lanes):
            for batch in lane.rest():
                yield number, batch

    def _on_invalid_when_sending(self) -> Callable[[Sequence[InvalidRow]], None]:
        if not self._plan.skip_invalid:
            return _refuse_change
        return self._on_invalid if self._validated is None else _ignore

    def read_again(self, numbers: Sequence[int]) -> Batch | None:
        """
        Read a rejected batch again.

        :param numbers: the numbers of its rows in the source, as an earlier try has stored them.
        :return: the batch; None if none of its rows is valid any more.
        """
        wanted, last = set(numbers), numbers[-1]
        rows: list[tuple[int, bytes]] = []
        for chunk in self._chunks(_ignore):
            lines = zip(chunk.numbers, chunk.customers().lines, strict=True)
            rows += (row for row in lines if row[0] in wanted)
            if chunk.numbers and chunk.numbers[-1] >= last:
                break
        return Batch([number for number, _ in rows], body_of([line for _, line in rows])) if rows else None

    def _chunks(self, on_invalid: Callable[[Sequence[InvalidRow]], None]) -> Iterator[CheckedChunk]:
        """Read the source once, and yield its rows converted."""
        summary, places = self._report.summary, self._report.places
        places.clear()
        read = invalid = 0
        rows_by_file: Counter[str] = Counter()
        for chunk in self._source.chunks():
            places.begin(chunk.file, read + 1)
            checked = self._converter.check(chunk, read + 1)
            read += checked.count
            rows_by_file[chunk.file] += checked.count
            invalid += len(checked.invalid)
            # A second pass counts less than the first until it is beyond it.
            summary.read, summary.invalid = max(summary.read, read), max(summary.invalid, invalid)
            if checked.invalid:
                on_invalid(checked.invalid)
            yield checked
            del chunk, checked  # before more is read: memory that is used again at once is still in the CPU's cache
            self._tick()
        if read < summary.read:
            raise source_changed_error()
        self._report.rows_by_file = rows_by_file


class LaneReader:
    """
    Cuts the batches of one lane.

    :param progress: what earlier tries have completed; those rows are skipped, and counted again.
    :param batcher: puts customers together.
    :param changes: decides which rows have changed; None to send all.
    """

    def __init__(self, progress: LaneProgress, batcher: Batcher, changes: Changes | None) -> None:
        self._progress = progress
        self._to_skip = progress.completed
        self._batcher = batcher
        self._changes = changes
        self.last_row = 0
        self.position = 0  # how many valid rows of the lane have been read

    def add(self, rows: LaneRows) -> Iterator[Batch]:
        """Add the valid rows of a chunk, and yield the batches that are full."""
        start = bisect_right(rows.numbers, self._progress.row)
        self._to_skip -= start
        if start < len(rows.numbers):
            self._check_skipped()
        if self._changes is None:
            yield from self._batcher.add(rows.numbers[start:], rows.customers[start:])
        else:
            yield from self._add_changed(rows, start, self._changes)
        if rows.numbers:
            self.last_row = rows.numbers[-1]
            self.position += len(rows.numbers)

    def _add_changed(self, rows: LaneRows, start: int, changes: Changes) -> Iterator[Batch]:
        places = [place for place in changes.changed_places(rows.numbers) if place >= start]
        if not places:
            return
        numbers, customers = [rows.numbers[place] for place in places], rows.customers.pick(places)
        identities = rows.identities()
        changes.send(numbers, [identities[place] for place in places], customers.lines)
        yield from self._batcher.add(numbers, customers, [self.position + place + 1 for place in places])

    def rest(self) -> Iterator[Batch]:
        """Yield the last batch, after the whole source is read."""
        self._check_skipped()
        yield from self._batcher.rest()

    def _check_skipped(self) -> None:
        if self._to_skip:
            raise ResumeMismatchError


def _only_one(batches: Iterator[tuple[int, Batch]]) -> Iterator[tuple[int, Batch]]:
    first_two = list(islice(batches, 2))
    if len(first_two) > 1:
        raise PermanentError(
            "The source has more than one batch, which debug does not allow; nothing was sent. "
            "Leave debug out, or push a small sample with it."
        )
    return iter(first_two)


def source_changed_error() -> PermanentError:
    """Return what to raise if the source has changed during the push."""
    return PermanentError(
        "The source was changed while being read. What was sent may be sent again; run the task again when the "
        "source no longer changes."
    )


def _refuse_change(_rows: Sequence[InvalidRow]) -> None:
    """Refuse a row that the first pass found valid and the second one does not."""
    raise source_changed_error()


def _ignore(_rows: Sequence[InvalidRow]) -> None:
    """Ignore invalid rows that an earlier pass has reported."""
