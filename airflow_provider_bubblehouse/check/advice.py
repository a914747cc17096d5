"""Find options that would help: try formats on samples of invalid values, and find words for a missing value."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_bubblehouse.check.shapes import MISSING_WORDS, NO_WORDS, YES_WORDS
from airflow_provider_bubblehouse.customers.blocks import put
from airflow_provider_bubblehouse.customers.converter import Converter
from airflow_provider_bubblehouse.customers.fields import CALENDAR_FIELDS, LIST_FIELDS
from airflow_provider_bubblehouse.customers.identity import NULL_WORDS
from airflow_provider_bubblehouse.customers.invalid import InvalidCustomerError, printable_name
from airflow_provider_bubblehouse.errors import PermanentError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from airflow_provider_bubblehouse.check.profile import FieldProfile
    from airflow_provider_bubblehouse.customers.blocks import Path

_DATES = (
    "%d.%m.%Y",
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%d-%m-%Y",
    "%m-%d-%Y",
    "%Y/%m/%d",
    "%Y.%m.%d",
    "%Y%m%d",
    "%d.%m.%y",
    "%d/%m/%y",
    "%m/%d/%y",
    "%d %b %Y",
    "%d %B %Y",
    "%b %d, %Y",
    "%B %d, %Y",
    "%d-%b-%Y",
    "%d.%m.",
    "%d/%m",
    "%m/%d",
    "%d %B",
    "%B %d",
)
_TIMES = ("", " %H:%M", " %H:%M:%S", ", %H:%M", ", %H:%M:%S", " %I:%M %p", " %I:%M:%S %p", " %H:%M:%S %z")
_SECONDS, _MILLISECONDS = re.compile(r"-?[0-9]{9,10}(\.[0-9]+)?"), re.compile(r"-?[0-9]{12,13}")
_SEPARATORS = (",", ";", "|", "/", " ")
_TRIED = 100  # samples that each candidate is tried on


class Advice(NamedTuple):
    """
    A format that would help.

    :param field: the field.
    :param formats: formats that make the same share of values valid; if there are two, a person has to choose.
    :param share: the share of the invalid values that each of them makes valid.
    """

    field: str
    formats: list[Any]
    share: float


def advice_for(path: Path, profile: FieldProfile, *, timezone: str, has_null_values: bool) -> Advice | None:
    """
    Return the format that would make the invalid values of a field valid; None if no known format does.

    :param path: the field.
    :param profile: the field's values.
    :param timezone: the time zone of times without an offset.
    :param has_null_values: whether ``null_values_in`` covers words for a missing value.
    """
    field = ".".join(path)
    samples = [one for one in profile.samples if not (has_null_values and _is_null_word(one))][:_TRIED]
    if not samples or any("." in name for name in path) or printable_name(field) != field:
        return None
    rows = [_row_with(path, sample) for sample in samples]
    tried = [(_share(field, how, rows, timezone), how) for how in _candidates(field, profile, samples)]
    best = max((share for share, _ in tried), default=0)
    return Advice(field, [how for share, how in tried if share == best][:2], best) if best else None


def null_values_in(profiles: Iterable[FieldProfile]) -> dict[str, int]:
    """Count the words for a missing value in a CSV file, which would be sent as text."""
    words: Counter[str] = Counter()
    for profile in profiles:
        words += profile.words
    return {word: times for word, times in words.items() if times > 1 and _is_null_word(word)}


def _is_null_word(value: object) -> bool:
    return isinstance(value, str) and value.strip().lower() in NULL_WORDS


def _candidates(field: str, profile: FieldProfile, samples: Sequence[Any]) -> list[Any]:
    texts = [sample.strip() for sample in samples if isinstance(sample, str)]
    missing = {text: None for text in texts if text.lower() in MISSING_WORDS}
    candidates: list[Any] = [missing] if missing else []
    if field in CALENDAR_FIELDS:
        numbers = [str(sample).strip() for sample in samples]
        candidates += ["epoch"] if all(map(_SECONDS.fullmatch, numbers)) else []
        candidates += ["epoch_ms"] if all(map(_MILLISECONDS.fullmatch, numbers)) else []
        candidates += [date + time for date, time in product(_DATES, _TIMES)]
    elif field in LIST_FIELDS:
        found = Counter(separator for separator in _SEPARATORS for text in texts if separator in text)
        candidates += [separator for separator, _ in found.most_common(1)] or [","]
    elif field == "total_spent":
        candidates.append("units")
    elif field == "optin" and (flags := _flags(profile.words)):
        candidates.append(flags)
    return candidates


def _flags(words: Mapping[str, int]) -> dict[str, bool]:
    return {word: word.lower() in YES_WORDS for word in words if word.lower() in YES_WORDS | NO_WORDS}


def _row_with(path: Path, value: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"id": "1", "email": "a@example.com"}
    put(row, path, value)
    return row


def _share(field: str, how: Any, rows: Sequence[dict[str, Any]], timezone: str) -> float:
    try:
        converter = Converter(timezone=timezone, formats={field: how})
    except PermanentError:  # a pattern without a time for a time of change, for one
        return 0
    return sum(_is_valid(converter, row) for row in rows) / len(rows)


def _is_valid(converter: Converter, row: dict[str, Any]) -> bool:
    try:
        converter.customer(row)
    except InvalidCustomerError:
        return False
    return True


def format_option(field: str, how: Any) -> str:
    """Return a format as the operators' parameter, and as the command's option."""
    text = json.dumps(how, ensure_ascii=False) if isinstance(how, dict) else how
    return f"formats={{{field!r}: {how!r}}} (here: --format '{field}={text}')"


def null_values_option(words: Iterable[str]) -> str:
    """Return ``null_values`` of a CSV file as the operators' parameter, and as the command's option."""
    values = sorted(words)
    return f"csv={{'null_values': {values!r}}} (here: --csv 'null_values={json.dumps(values)}')"
