"""Times and dates, in the spelling of RFC 3339 (…/apidocs/calling/values)."""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo

import msgspec

from airflow_provider_bubblehouse.customers.invalid import InvalidCustomerError, wrong_type
from airflow_provider_bubblehouse.customers.values import exact_text, unmarked
from airflow_provider_bubblehouse.errors import PermanentError

if TYPE_CHECKING:
    from collections.abc import Sequence

_HOUR, _SIXTY = r"(?:[01][0-9]|2[0-3])", r"[0-5][0-9]"
_DAY = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_OFFSET = rf"\s*(?:([Zz]|UTC|utc)|([+-]{_HOUR})(?::?({_SIXTY}))?)?"
_LOCAL_LENGTH = len("2026-01-31 12:00:00")
_LOCAL_SEPARATORS = ("-- ::", "--T::")
_TIME = re.compile(rf"({_DAY})(?:[ Tt]({_HOUR}:{_SIXTY})(?:(:{_SIXTY})(\.[0-9]+)?)?{_OFFSET})?")
_DATE = re.compile(rf"({_DAY})(?:[ Tt]00:00(?::00(?:\.0+)?)?{_OFFSET})?")
_from_iso = dt.datetime.fromisoformat
_LEAP_YEAR = "2000"  # replaces the unknown year of a birthday, so that 29 February is valid
_NO_YEAR = "0000"

_NOT_A_TIME = "must be a time such as 2026-01-31T12:00:00+01:00"
_NOT_A_DATE = "must be a date such as 2026-01-31"
_NOT_OF_CALENDAR = "is not in the calendar"


class Calendar:
    """
    The rules for times and dates.

    :param timezone: the time zone of times without an offset, such as ``Europe/Berlin``.
    :raises PermanentError: if there is no such time zone.
    """

    def __init__(self, timezone: str) -> None:
        try:
            self.zone = ZoneInfo(timezone)
        except (ValueError, KeyError, OSError, TypeError, AttributeError):
            raise PermanentError("timezone must be the name of a time zone such as Europe/Berlin.") from None
        self._utcoffset = self.zone.utcoffset
        self._offsets = _OffsetTexts()

    def time(self, value: object) -> str:
        """Return a time in RFC 3339. A date alone is its midnight; a time without an offset is in the time zone."""
        if type(value) is str and len(value) == _LOCAL_LENGTH and value[4::3] in _LOCAL_SEPARATORS:
            # The form that databases write, so this path is fast. Python parses no other form with these separators.
            try:
                moment = _from_iso(value)
            except ValueError:
                raise InvalidCustomerError(_NOT_OF_CALENDAR) from None
            offset = self._offsets[self._utcoffset(moment)]
            if offset and (moment.hour or not value.startswith("24", 11)):  # Python accepts the hour 24 from 3.14 on
                return value.replace(" ", "T") + offset
        try:
            if isinstance(value, dt.datetime):
                return self._of_datetime(value)
            if isinstance(value, dt.date):
                value = dt.date.isoformat(value)
            return self._of_text(_text(value, _NOT_A_TIME))
        except OverflowError:  # at an end of the calendar, such as 0001-01-01, a common placeholder
            raise InvalidCustomerError(_NOT_OF_CALENDAR) from None

    def local_times(self, values: Sequence[str]) -> list[str] | None:
        """Convert times in the form that databases write; return None if ``time`` has to convert each value."""
        count, joined = len(values), "".join(values)
        if set(map(len, values)) != {_LOCAL_LENGTH} or "24:00:00" in joined:  # Python accepts this from 3.14 on
            return None
        separators = "".join(joined[place::_LOCAL_LENGTH] for place in range(4, _LOCAL_LENGTH, 3))
        if separators.replace("T", " ") != "-" * 2 * count + " " * count + ":" * 2 * count:
            return None
        try:
            offsets = list(map(self._offsets.__getitem__, map(self._utcoffset, map(_from_iso, values))))
        except ValueError:
            return None
        if not all(offsets):
            return None
        return [value.replace(" ", "T") + offset for value, offset in zip(values, offsets, strict=True)]

    def time_of_change(self, value: object) -> str:
        """Return the time of a change; a date without a time is invalid."""
        if isinstance(value, str):
            has_time = not re.fullmatch(_DAY, unmarked(exact_text(value).strip()))
        else:
            has_time = isinstance(value, dt.datetime) or not isinstance(value, dt.date)
        if not has_time:
            raise InvalidCustomerError(_NOT_A_TIME)
        return self.time(value)

    def _of_text(self, text: str) -> str:
        match = _TIME.fullmatch(text)
        if match is None:
            raise InvalidCustomerError(_NOT_A_TIME)
        day, minutes, seconds, fraction, utc, hours, rest = match.groups("")
        if not (utc or hours):
            return self._local(day, (minutes or "00:00") + (seconds or ":00"), fraction)
        _require_day(day)
        return f"{day}T{minutes}{seconds or ':00'}{fraction}" + ("Z" if utc else f"{hours}:{rest or '00'}")

    def _local(self, day: str, time: str, fraction: str) -> str:
        """Return a time in the time zone; in a gap or a fold, ``fold`` is 0."""
        try:
            moment = dt.datetime.fromisoformat(f"{day} {time}")
        except ValueError:
            raise InvalidCustomerError(_NOT_OF_CALENDAR) from None
        offset = self._utcoffset(moment)
        if spelled := self._offsets[offset]:
            return f"{day}T{time}{fraction}{spelled}"
        return f"{(moment - (offset or dt.timedelta())).isoformat()}{fraction}+00:00"

    def _of_datetime(self, value: dt.datetime) -> str:
        local = value.replace(tzinfo=None)
        if not _TIME.fullmatch(local.isoformat()):  # of a subclass that is not a time, such as pandas' NaT
            raise wrong_type(_NOT_A_TIME, value)
        offset = self._utcoffset(value) if value.tzinfo is None else value.utcoffset()
        if text := self._offsets[offset]:
            return local.isoformat() + text
        return (local - (offset or dt.timedelta())).isoformat() + "+00:00"

    def date(self, value: object) -> str:
        """Return a date; a midnight is accepted, too."""
        if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
            return dt.date.isoformat(value)
        match = _DATE.fullmatch(value.isoformat(" ") if isinstance(value, dt.datetime) else _text(value, _NOT_A_DATE))
        if match is None:
            raise InvalidCustomerError(_NOT_A_DATE) if isinstance(value, str) else wrong_type(_NOT_A_DATE, value)
        _require_day(match[1])
        return match[1]

    def birthday(self, value: object) -> str:
        """Return a date that may lack its year: ``0000-12-09``."""
        if isinstance(value, str):
            value = unmarked(exact_text(value).strip())
            if value.startswith(_NO_YEAR):
                return _NO_YEAR + self.date(_LEAP_YEAR + value[len(_NO_YEAR) :])[len(_NO_YEAR) :]
        return self.date(value)


class _OffsetTexts(dict[dt.timedelta | None, str]):
    """Offsets in the spelling of RFC 3339, empty for an offset without one, such as that of a local mean time."""

    def __missing__(self, offset: dt.timedelta | None) -> str:
        text = ""
        if offset is not None and not offset.total_seconds() % 60:
            minutes = int(offset.total_seconds()) // 60
            text = f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
        self[offset] = text
        return text


def are_times(times: Sequence[str]) -> bool:
    """Return whether texts are times with an offset, in the spelling of ``Calendar.time``."""
    try:
        msgspec.convert(times, _MOMENTS)
    except msgspec.ValidationError:
        return False
    spelled = "".join(times)  # other spellings have a blank, a small letter, or no colon in the offset
    if " " in spelled or "t" in spelled or "z" in spelled:
        return False
    return spelled.count(":") == 3 * len(times) - spelled.count("Z")


def are_dates(dates: Sequence[str]) -> bool:
    """Return whether texts are dates, in the spelling of ``Calendar.date``."""
    try:
        msgspec.convert(dates, list[dt.date])
    except msgspec.ValidationError:
        return False
    return True


_MOMENTS = list[Annotated[dt.datetime, msgspec.Meta(tz=True)]]


def _text(value: Any, otherwise: str) -> str:
    if not isinstance(value, str):
        raise wrong_type(otherwise, value)
    return unmarked(exact_text(value).strip())


def _require_day(day: str) -> None:
    try:
        dt.date.fromisoformat(day)
    except ValueError:
        raise InvalidCustomerError(_NOT_OF_CALENDAR) from None
