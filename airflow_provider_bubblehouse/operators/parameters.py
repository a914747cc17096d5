"""
Checks of constructor parameters, so that a wrong value fails when the DAG is parsed.

Slow imports are in the functions, because Airflow parses DAG files every few seconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from airflow_provider_bubblehouse.exceptions import BubblehousePermanentError

if TYPE_CHECKING:
    from collections.abc import Collection

DEFAULT_TIMEZONE = "UTC"

_BYTES = (bytes, bytearray, memoryview)  # sequences of integers, not of rows


def check_integer(name: str, value: object, *, least: int) -> None:
    """
    Refuse anything but an integer. A boolean is refused too, although it is an integer in Python.

    :param name: the parameter's name.
    :param value: its value.
    :param least: the smallest value that works.
    :raises BubblehousePermanentError: if the value cannot work.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise BubblehousePermanentError(f"{name} must be a whole number of at least {least}.")


def check_number(name: str, value: object, *, least: float) -> None:
    """Refuse anything but a finite number, as ``check_integer`` does."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < math.inf:
        raise BubblehousePermanentError(f"{name} must be a number of at least {least:g}.")


def check_flag(name: str, value: object) -> None:
    """Refuse anything but True and False: the text "False" would count as True."""
    if not isinstance(value, bool):
        raise BubblehousePermanentError(f"{name} must be True or False.")


def check_choice(name: str, value: object, choices: Collection[str]) -> None:
    """Refuse anything but one of the choices."""
    if not isinstance(value, str) or value not in choices:
        raise BubblehousePermanentError(f"{name} must be one of {', '.join(choices)}.")


def check_text(name: str, value: object) -> None:
    """Refuse anything but text."""
    if not isinstance(value, str):
        raise BubblehousePermanentError(f"{name} must be text.")


def check_timezone(value: object) -> None:
    """Refuse anything but the name of a time zone."""
    check_text("timezone", value)
    if value != DEFAULT_TIMEZONE:
        from airflow_provider_bubblehouse.customers.times import Calendar

        Calendar(str(value))  # raises if there is no such time zone


def check_column_map(value: object) -> None:
    """Refuse anything but a mapping from columns to fields, with each field once."""
    from airflow_provider_bubblehouse.sources.columns import targets_of

    if not isinstance(value, Mapping):
        raise BubblehousePermanentError("column_map must be an object, such as a dict.")
    targets_of(value)


def check_csv(value: object) -> None:
    """Refuse anything but the options of a CSV dialect that can work."""
    from airflow_provider_bubblehouse.formats.dialect import Dialect

    Dialect.of(value)


def check_formats(value: object, column_map: Mapping[str, str] | None) -> None:
    """Refuse formats that cannot work, or are of fields that the column map does not fill."""
    from airflow_provider_bubblehouse.sources import columns

    if not isinstance(value, Mapping):
        raise BubblehousePermanentError("formats must be an object, such as a dict.")
    columns.check_formats(value, columns.targets_of(column_map))


def check_template_field(name: str, value: object, kinds: tuple[type, ...], *, expected: str) -> None:
    """
    Refuse a value of the wrong type, unless rendering can turn it into a right one.

    :param name: the parameter's name.
    :param value: its value: also text, which may be a template, an XComArg, or a function that renders it.
    :param kinds: the allowed types.
    :param expected: the allowed types in words, for the error.
    :raises BubblehousePermanentError: if the value cannot work.
    """
    is_rendered = isinstance(value, str) or callable(value) or hasattr(value, "resolve")
    if not is_rendered and (isinstance(value, _BYTES) or not isinstance(value, kinds)):
        raise BubblehousePermanentError(f"{name} must be {expected}; it is of type {type(value).__name__}.")
