"""
Patterns of ``datetime.strptime`` for dates and times.

``strptime`` takes several microseconds per value. A regular expression parses texts with all digits in every part, such
as ``31.01.1990``, to the same result; ``strptime`` parses all others.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING, Any

from airflow_provider_bubblehouse.customers.invalid import InvalidCustomerError
from airflow_provider_bubblehouse.customers.values import exact_text, unmarked

if TYPE_CHECKING:
    from collections.abc import Callable

_DIRECTIVE = re.compile(r"%(.?)", re.DOTALL)
_YEAR = frozenset("YyG")
_TIME = frozenset("HIMSfp")
_OF_THE_HOST = {"Z": "%z", "c": "its parts", "x": "its parts", "X": "its parts"}
_LEAP_YEAR = "2000"  # for birthdays without a year, so that 29 February is valid

_ALL_DIGITS = {
    "Y": "((?!0000)[0-9]{4})",
    "m": "(0[1-9]|1[0-2])",
    "d": "(0[1-9]|[12][0-9]|3[01])",
    "H": "([01][0-9]|2[0-3])",
    "M": "([0-5][0-9])",
    "S": "([0-5][0-9])",
    "f": "([0-9]{1,6})",
}
# All their parts differ, so a pattern that drops or swaps parts does not read them back.
_PROBES = (dt.datetime(2011, 3, 24, 17, 45, 58, 123456, dt.UTC), dt.datetime(2010, 11, 9, 6, 52, 7, 654321, dt.UTC))


def read_pattern(field: str, pattern: str) -> Callable[[Any], object]:
    """
    Return a function that parses texts by a pattern, and returns other values unchanged.

    :param field: a field for dates or times.
    :param pattern: a pattern of ``datetime.strptime``.
    :raises ValueError: if the pattern cannot give values of the field.
    """
    used = set(_DIRECTIVE.findall(pattern)) - {"%"}
    for directive, other in _OF_THE_HOST.items():
        if directive in used:
            raise ValueError(f"has a pattern with %{directive}, whose meaning depends on the host; use {other}")
    if "p" in used and "I" not in used:
        raise ValueError("has a pattern with %p, which needs %I: Python ignores it beside %H")
    without_year = field == "birthday" and not used & _YEAR
    full = f"{pattern} %Y" if without_year else pattern
    has_time = bool(used & _TIME)
    _try(full, has_time=has_time)
    if field == "email_marketing_consent_change_time" and not has_time:
        raise ValueError("has a pattern without a time, but a date alone does not say when consent changed")
    return _Pattern(
        pattern, full, without_year=without_year, has_time=has_time, two_digit_year="y" in used, has_zone="z" in used
    ).convert


def _try(pattern: str, *, has_time: bool) -> None:
    """Raise unless the pattern parses the times that it formats."""
    for probe in _PROBES:
        try:
            back = dt.datetime.strptime(probe.strftime(pattern), pattern)  # noqa: DTZ007  its zone is not looked at
        except (ValueError, re.error):
            raise ValueError("has a pattern that is not one of datetime.strptime") from None
        if back.date() != probe.date():
            raise ValueError("has a pattern that does not say which day it is")
        if has_time and back.hour != probe.hour:
            raise ValueError("has a pattern that does not say which hour it is (%I needs %p)")


class _Pattern:
    def __init__(
        self, shown: str, pattern: str, *, without_year: bool, has_time: bool, two_digit_year: bool, has_zone: bool
    ) -> None:
        self._shown = shown
        self._pattern = pattern
        self._without_year = without_year
        self._has_time = has_time
        self._two_digit_year = two_digit_year
        self._has_zone = has_zone
        self._match, self._template = _quick(shown, without_year=without_year)

    def convert(self, value: object) -> object:
        """Parse a text to a date or a time, or to a text that the field's rule accepts."""
        if type(value) is str and (match := self._match(value)):
            return self._template(*match.groups())
        if not isinstance(value, str):
            return value
        text = unmarked(exact_text(value).strip())
        if match := self._match(text):
            return self._template(*match.groups())
        try:
            full = f"{text} {_LEAP_YEAR}" if self._without_year else text
            moment = dt.datetime.strptime(full, self._pattern)  # noqa: DTZ007  the field's rule adds the zone
        except ValueError:
            raise InvalidCustomerError(f"must be of the form {self._shown}") from None
        if self._without_year:
            return f"0000-{moment:%m-%d}"
        if self._two_digit_year and moment.year > dt.datetime.now(dt.UTC).year:
            raise InvalidCustomerError(f"has a year that lies in the future, read by {self._shown}")
        return moment if self._has_time or self._has_zone else moment.date()


def _quick(pattern: str, *, without_year: bool) -> tuple[Callable[[str], re.Match[str] | None], Callable[..., str]]:
    """
    Return the fast path of a pattern: a matcher for texts with all digits in every part, and a function that joins the
    parts to a text that the field's rule accepts.
    """
    pieces = re.findall(r"([^%]+)|%(.?)", pattern, re.DOTALL)
    order = "".join(directive for _, directive in pieces)
    date, times = ("md", [""]) if without_year else ("Ymd", ["", "HM", "HMS", "HMSf"])
    if sorted(order) not in [sorted(date + time) for time in times]:
        return _no_match, str
    regex = "".join(_ALL_DIGITS[directive] if directive else re.escape(literal) for literal, directive in pieces)
    place = {directive: f"{{{number}}}" for number, directive in enumerate(order)}
    template = f"{place.get('Y', '0000')}-{place['m']}-{place['d']}"
    if "H" in place:
        template += f" {place['H']}:{place['M']}:{place.get('S', '00')}" + (f".{place['f']}" if "f" in place else "")
    return re.compile(regex).fullmatch, template.format


def _no_match(_text: str) -> None:
    return None
