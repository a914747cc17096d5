"""The options of the command ``check``. Their names follow the parameters of the operators."""

from __future__ import annotations

import argparse
import json
import re
import shlex
from typing import Any

from airflow_provider_bubblehouse.errors import PermanentError
from airflow_provider_bubblehouse.formats import FILE_FORMATS
from airflow_provider_bubblehouse.formats.dialect import Dialect
from airflow_provider_bubblehouse.push.plan import DEFAULT_MAX_BATCH_BYTES

# How messages name the parameters of the operators. Names within a path or another name are not replaced.
_PARAMETERS = re.compile(
    r"""csv=(?P<csv>\{[^}]*\}) | file_format='(?P<file_format>\w+)'
    | (?<![\w./-])(?P<name>column_map|formats|file_format|max_batch_bytes)(?![\w/-]|\.\w)""",
    re.VERBOSE,
)
_OPTIONS = {
    "column_map": "--map",
    "formats": "--format",
    "file_format": "--file-format",
    "max_batch_bytes": "--max-batch-bytes",
}


def with_options(message: str) -> str:
    """Replace parameters of the operators in a message by options of the command."""
    return _PARAMETERS.sub(_option, message)


def _option(match: re.Match[str]) -> str:
    if match["csv"]:
        return f"--csv {shlex.quote(match['csv'])}"
    if match["file_format"]:
        return f"--file-format {match['file_format']}"
    return _OPTIONS[match["name"]]


def options_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m airflow_provider_bubblehouse")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    check = commands.add_parser(
        "check",
        help="see whether a file of customers can be sent",
        description="Check a file as UpdateCustomersOperator would, without a connection and without a call.",
        epilog="The exit code is 1 if a row cannot be sent, or the file cannot be read.",
    )
    check.add_argument("path", metavar="PATH", help="a file, a URL of an object store, or a glob in quotes")
    _add_reading(check)
    check.add_argument("--timezone", default="UTC", help="the time zone of times without an offset, default UTC")
    check.add_argument(
        "--max-batch-bytes", type=int, default=DEFAULT_MAX_BATCH_BYTES, metavar="N", help="as the operator's parameter"
    )
    check.add_argument("--rejected", metavar="FOLDER", help="write the invalid rows there, to be corrected")
    return parser


def _add_reading(check: argparse.ArgumentParser) -> None:
    """Add the options for reading the file."""
    add = check.add_argument
    add("--file-format", choices=FILE_FORMATS, default="auto", help="default auto, by the suffix")
    add(
        "--map",
        type=_mapping,
        action="append",
        default=[],
        metavar="COLUMN=FIELD",
        help="column_map: send this column as this field, such as CustomerId=id or traits.city=extras.city; exactly "
        "these are sent",
    )
    add(
        "--format",
        type=_format,
        action="append",
        default=[],
        metavar="FIELD=HOW",
        help="formats: how the file writes this field, such as birthday=%%d.%%m.%%Y, tags=, or "
        '\'optin={"J": true, "N": false}\'',
    )
    add(
        "--csv",
        type=_csv_options,
        action="append",
        default=[],
        metavar="OPTION=VALUE",
        help="csv: how the file is written, such as delimiter=; or encoding=cp1252; or all options as a JSON object",
    )


def dialect_of(options: argparse.Namespace) -> Dialect:
    """Combine all --csv options into a dialect."""
    if options.csv and options.file_format not in ("auto", "csv"):
        raise PermanentError("--csv is for CSV files: --file-format must be csv or auto.")
    given: dict[str, Any] = {}
    null_values: list[str] = []
    for one in options.csv:
        if "null_values" in one:
            null_values += Dialect.of({"null_values": one["null_values"]}).null_values
        given |= one
    if null_values:
        given["null_values"] = null_values
    return Dialect.of(given)


def _mapping(text: str) -> tuple[str, str]:
    column, equals, field = text.rpartition("=")
    if not (column and equals and field):
        raise argparse.ArgumentTypeError("must be COLUMN=FIELD, such as CustomerId=id")
    return column, field


def _format(text: str) -> tuple[str, object]:
    field, equals, how = text.partition("=")
    if not equals and text in FILE_FORMATS:
        raise argparse.ArgumentTypeError(f"is how a field is written; the format of the file is --file-format {text}")
    if not (field and how):
        raise argparse.ArgumentTypeError("must be FIELD=HOW, such as birthday=%d.%m.%Y")
    return field, _json(how) if how.startswith("{") else how


def _csv_options(text: str) -> dict[str, Any]:
    name, equals, value = text.partition("=")
    if text.startswith("{"):
        return dict(_json(text))
    if not (name and equals):
        raise argparse.ArgumentTypeError("must be OPTION=VALUE, such as delimiter=;")
    if name in ("null_values", "column_names"):
        return {name: _json(value) if value.startswith("[") else value.split(",")}
    if name == "skip_rows" and value.isdecimal():
        return {name: int(value)}
    return {name: "\t" if value == "\\t" else value or None}


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"has JSON that cannot be read: {text}") from None
