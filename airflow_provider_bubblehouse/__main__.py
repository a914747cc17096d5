"""The command line: ``python -m airflow_provider_bubblehouse check`` looks at a file before there is a DAG for it."""

from __future__ import annotations

import argparse
import logging
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from airflow_provider_bubblehouse.customers.converter import Converter
from airflow_provider_bubblehouse.errors import BubblehouseError
from airflow_provider_bubblehouse.formats import FILE_FORMATS
from airflow_provider_bubblehouse.plural import plural
from airflow_provider_bubblehouse.push.batches import largest_customer
from airflow_provider_bubblehouse.push.plan import DEFAULT_MAX_BATCH_BYTES, Plan
from airflow_provider_bubblehouse.push.push import Push
from airflow_provider_bubblehouse.push.rejected import RejectedRows
from airflow_provider_bubblehouse.push.report import name_rows
from airflow_provider_bubblehouse.sources.files import FileSource
from airflow_provider_bubblehouse.stores import no_filesystem_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow_provider_bubblehouse.customers.converter import Chunk


class _Watched:
    """A source whose reading moves a progress bar."""

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
    Check a file as ``UpdateCustomersOperator`` would, and print what is wrong with which rows.

    :param arguments: the command line, None for that of the process.
    :return: the exit code: 0 if all rows can be sent, 1 if some cannot or the file cannot be read.
    """
    options = _parser().parse_args(arguments)
    console, log = Console(), Console(stderr=True)
    try:
        push = _push(options, progress := _progress(log))
        with progress if log.is_terminal else nullcontext():  # rich 13.0 prints an empty line even if it is disabled
            summary = push.run()
    except (BubblehouseError, OSError) as error:
        log.print(str(error), style="bold red", markup=False, highlight=False, soft_wrap=True)
        return 1
    invalid = push.report.invalid_rows
    if not invalid.count:
        console.print(f"All {summary['read']:,} rows can be sent." if summary["read"] else "The file has no rows.")
        return 0
    table = Table("Rows", "What is wrong", Column("The first of them", overflow="fold"))
    one_file = len(push.report.rows_by_file or ()) == 1
    for reason, count, first_rows in invalid.faults():
        table.add_row(f"{count:,}", reason, name_rows(("" if one_file else file, row) for file, row in first_rows))
    console.print(table)
    console.print(f"Of {plural(summary['read'], 'row')}, {invalid.count:,} cannot be sent.")
    if summary["rejected_path"]:
        console.print(f"They are in {summary['rejected_path']}.", markup=False, highlight=False, soft_wrap=True)
    return 1


def _push(options: argparse.Namespace, progress: Progress) -> Push:
    """Return a push that calls nothing."""
    filesystem, path = _filesystem(options.path)
    rejected_rows = None
    if options.rejected is not None:
        rejected_rows = RejectedRows(*_filesystem(options.rejected))
    source = FileSource(filesystem, path, file_format=options.format, column_map=dict(options.map) or None)
    return Push(
        plan=Plan(
            batch_size=1,
            max_batch_bytes=options.max_batch_bytes,
            max_attempts=1,
            max_attempt_seconds=0,
            skip_invalid=True,
        ),
        source=_Watched(source, progress),
        converter=Converter(timezone=options.timezone, largest=largest_customer(options.max_batch_bytes)),
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m airflow_provider_bubblehouse")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    check = commands.add_parser(
        "check",
        help="see whether a file of customers can be sent",
        description="Check a file as UpdateCustomersOperator would, without a connection and without a call.",
        epilog="The exit code is 1 if a row cannot be sent, or the file cannot be read.",
    )
    add = check.add_argument
    add("path", metavar="PATH", help="a file, a URL of an object store, or a glob in quotes")
    add("--format", choices=FILE_FORMATS, default="auto", help="default auto, by the suffix")
    add(
        "--map",
        type=_mapping,
        action="append",
        default=[],
        metavar="COLUMN=FIELD",
        help="send this column as this field, such as CustomerId=id or City=extras.city; exactly these are sent",
    )
    add("--timezone", default="UTC", help="the time zone of times without an offset, default UTC")
    add("--max-batch-bytes", type=int, default=DEFAULT_MAX_BATCH_BYTES, metavar="N", help="as the operator's parameter")
    add("--rejected", metavar="FOLDER", help="write the invalid rows there, to be mended")
    return parser


def _mapping(text: str) -> tuple[str, str]:
    column, equals, field = text.rpartition("=")
    if not (column and equals and field):
        raise argparse.ArgumentTypeError("must be COLUMN=FIELD, such as CustomerId=id")
    return column, field


if __name__ == "__main__":
    logging.getLogger("airflow_provider_bubblehouse.push.report").setLevel(logging.ERROR)  # says what main() shows
    sys.exit(main())
