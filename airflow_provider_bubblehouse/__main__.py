"""The command line: ``python -m airflow_provider_bubblehouse check`` checks a file before you write a DAG."""

from __future__ import annotations

import logging
import sys
from contextlib import nullcontext
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from airflow_provider_bubblehouse.check.advice import advice_for, format_option, null_values_in, null_values_option
from airflow_provider_bubblehouse.check.options import dialect_of, options_parser, with_options
from airflow_provider_bubblehouse.check.profile import Profile
from airflow_provider_bubblehouse.customers.converter import Converter
from airflow_provider_bubblehouse.customers.invalid import printable_name
from airflow_provider_bubblehouse.errors import BubblehouseError, PermanentError
from airflow_provider_bubblehouse.plural import plural
from airflow_provider_bubblehouse.push.batches import largest_customer
from airflow_provider_bubblehouse.push.plan import Plan
from airflow_provider_bubblehouse.push.push import Push
from airflow_provider_bubblehouse.push.rejected import RejectedRows
from airflow_provider_bubblehouse.push.report import name_rows
from airflow_provider_bubblehouse.sources.columns import check_formats, targets_of
from airflow_provider_bubblehouse.sources.files import FileSource
from airflow_provider_bubblehouse.stores import no_filesystem_error

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator, Sequence

    from airflow_provider_bubblehouse.check.advice import Advice
    from airflow_provider_bubblehouse.check.profile import FieldProfile
    from airflow_provider_bubblehouse.customers.blocks import Path
    from airflow_provider_bubblehouse.customers.converter import Chunk

_SHAPES_SHOWN, _SHAPES_IN_ADVICE = 4, 3


class _Watched:
    """A source that updates a progress bar while it is read."""

    def __init__(self, source: FileSource, progress: Progress) -> None:
        self._source = source
        self._progress = progress
        self._bar = progress.add_task("Checking", total=None)
        self.version, self.fingerprint = source.version, source.fingerprint
        self.share_read, self.urls = source.share_read, source.urls

    def chunks(self) -> Iterator[Chunk]:
        for chunk in self._source.chunks():
            yield chunk
            share = self.share_read()
            if share is not None:
                self._progress.update(self._bar, completed=share, total=1.0)


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Check a file like ``UpdateCustomersOperator``, and print the faults of its rows.

    :param arguments: the command line, None for that of the process.
    :return: the exit code: 0 if all rows can be sent, 1 if some cannot or the file cannot be read.
    """
    options = options_parser().parse_args(arguments)
    console, log = Console(), Console(stderr=True)
    try:
        profile = Profile(_converter(options))
        push = _push(options, profile, progress := _progress(log))
        # rich 13.0 prints an empty line even if the bar is disabled
        with progress if log.is_terminal else nullcontext():
            _run(push)
    except (BubblehouseError, OSError) as error:
        log.print(with_options(str(error)), style="bold red", markup=False, highlight=False, soft_wrap=True)
        return 1
    _print_fields(console, profile, push.report.summary.read)
    _print_faults(console, push)
    _print_advice(console, profile, timezone=options.timezone, is_csv=_is_csv(options))
    _print_verdict(console, profile, push)
    return 1 if push.report.invalid_rows.count else 0


def _run(push: Push) -> None:
    """Read the whole source. A source without a valid row is not an error here, because its rows are reported."""
    try:
        push.run()
    except PermanentError:
        report = push.report
        if report.rows_by_file is None or report.summary.invalid < report.summary.read:
            raise


def _print_fields(console: Console, profile: Profile, read: int) -> None:
    """Print the shapes of the fields' values."""
    if not read:
        return
    table = Table("Field", Column("Rows with a value", justify="right"), Column("Most common shapes", overflow="fold"))
    for path, field in profile.fields:
        shapes = [f"{shape} ({count:,})" for shape, count in field.most_common(path, _SHAPES_SHOWN)]
        table.add_row(printable_name(".".join(path)), f"{field.filled:,}", Text("   ".join(shapes)))
    console.print(table)


def _print_faults(console: Console, push: Push) -> None:
    """Print the faults of rows."""
    invalid = push.report.invalid_rows
    if not invalid.count:
        return
    table = Table("Rows", "What is wrong", Column("The first of them", overflow="fold"))
    one_file = len(push.report.rows_by_file or ()) == 1
    for reason, count, first_rows in invalid.faults():
        names = name_rows(("" if one_file else file, row) for file, row in first_rows)
        table.add_row(f"{count:,}", Text(with_options(reason)), names)
    console.print(table)


def _print_advice(console: Console, profile: Profile, *, timezone: str, is_csv: bool) -> None:
    """Print which options would help."""
    for path, field in profile.fields:
        if advice := advice_for(path, field, timezone=timezone, has_null_values=is_csv):
            _print_line(console, _advice_line(path, field, advice))
    if is_csv and (words := null_values_in(field for _, field in profile.fields)):
        values = plural(sum(words.values()), "value")
        _print_line(
            console, f"{values} are {' or '.join(sorted(words))}, which is text. Set {null_values_option(words)}."
        )
    if profile.unknown_fields:
        names = ", ".join(dict.fromkeys(map(printable_name, profile.unknown_fields)))
        _print_line(
            console,
            f"Customer2 has no known field {names}. A push sends it unchanged; to rename it, use --map.",
        )


def _print_verdict(console: Console, profile: Profile, push: Push) -> None:
    summary = push.report.summary
    if not summary.invalid:
        _print_line(
            console, f"All {plural(summary.read, 'row')} can be sent." if summary.read else "The file has no rows."
        )
        return
    _print_line(console, f"Of {plural(summary.read, 'row')}, {summary.invalid:,} cannot be sent.")
    if summary.rejected_path:
        _print_line(console, f"They are in {summary.rejected_path}.")


def _print_line(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _advice_line(path: Path, field: FieldProfile, advice: Advice) -> str:
    shapes = " or ".join(shape for shape, _ in field.invalid_shapes(path, _SHAPES_IN_ADVICE))
    rows = "1 row is" if field.invalid == 1 else f"{field.invalid:,} rows are"
    which = "" if advice.share == 1 else f" for {advice.share:.0%} of these rows"
    options = ", or ".join(format_option(advice.field, how) for how in advice.formats)
    choose = "; look at a value to know which" if len(advice.formats) > 1 else ""
    return f"{advice.field}: {rows} {shapes}. Set{which} {options}{choose}."


def _converter(options: Namespace) -> Converter:
    formats = dict(options.format)
    check_formats(formats, targets_of(dict(options.map) or None))
    return Converter(timezone=options.timezone, largest=largest_customer(options.max_batch_bytes), formats=formats)


def _is_csv(options: Namespace) -> bool:
    by_suffix = ".csv" in PurePath(options.path.lower()).suffixes
    return options.file_format == "csv" or (options.file_format == "auto" and by_suffix)


def _push(options: Namespace, profile: Profile, progress: Progress) -> Push:
    """Return a push without API calls."""
    filesystem, path = _filesystem(options.path)
    rejected_rows = None
    if options.rejected is not None:
        rejected_rows = RejectedRows(*_filesystem(options.rejected))
    source = FileSource(
        filesystem,
        path,
        file_format=options.file_format,
        column_map=dict(options.map) or None,
        dialect=dialect_of(options),
    )
    return Push(
        plan=Plan(
            batch_size=1,
            max_batch_bytes=options.max_batch_bytes,
            max_attempts=1,
            max_attempt_seconds=0,
            skip_invalid=True,
        ),
        source=_Watched(source, progress),
        converter=profile,
        connect=None,
        rejected_rows=rejected_rows,
    )


def _filesystem(path: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    try:
        filesystem, inside = url_to_fs(path)
    except (ImportError, ValueError):
        raise no_filesystem_error(path) from None
    return filesystem, inside


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return with_options(super().format(record))


if __name__ == "__main__":
    for name in ("push.report", "customers.converter"):  # main() shows the same
        logging.getLogger(f"airflow_provider_bubblehouse.{name}").setLevel(logging.ERROR)
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter())
    logging.getLogger("airflow_provider_bubblehouse").addHandler(handler)
    sys.exit(main())
