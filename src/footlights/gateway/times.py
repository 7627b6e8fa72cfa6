"""Times and durations as text: RFC 3339, protojson's durations (``3.5s``) and Go's (``1h2m``)."""

from __future__ import annotations

import re
from datetime import date
from functools import lru_cache
from typing import Final

from footlights.gateway.errors import Malformed

_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
_TIME: Final = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{1,2}):([0-9]{2}):([0-9]{2})"
                          r"(?:[.,]([0-9]+))?(?:Z|([+-])([0-9]{2}):([0-9]{2}))")  # fmt: skip
_STRICT_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?"
                                 r"(?:Z|[+-][0-9]{2}:[0-9]{2})")  # fmt: skip
_DURATION: Final = re.compile(r"([+-]?)(?:0|[1-9][0-9]*)?(?:\.([0-9]*))?s")
_UNITS: Final = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9,
                 "h": 3600 * 10**9}  # fmt: skip
_GO_PART: Final = re.compile(r"(?=\.?[0-9])([0-9]{0,400})(?:\.([0-9]{0,400}))?(ns|us|µs|μs|ms|s|m|h)")
_GO_DURATION: Final = re.compile(f"(?:{_GO_PART.pattern})+")
MIN_SECONDS: Final = -62135596800
MAX_SECONDS: Final = 253402300799
MAX_DURATION_S: Final = 315576000000
A_TIME: Final = 'an RFC 3339 time such as "2026-11-23T10:15:00Z"'
A_DURATION: Final = 'a number of seconds with the suffix "s", such as "3.5s"'
A_GO_DURATION: Final = 'a duration such as "90s", "1h30m" or "500ms"'


def parse_time(text: str) -> tuple[int, int]:
    """Seconds since the epoch and nanoseconds, as Go's ``time.Parse(time.RFC3339Nano, text)`` reads them.

    Raises:
        Malformed: the text is none.
    """
    found = _TIME.fullmatch(text)
    if found is None:
        raise Malformed(A_TIME)
    year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
    fraction, sign, zone_hours, zone_minutes = found.groups()[6:]
    if not 1 <= month <= 12 or hour > 23 or minute > 59 or second > 59 or not 1 <= day <= _days_in(year, month):
        raise Malformed(A_TIME)
    if sign and (int(zone_hours) > 24 or int(zone_minutes) > 60):
        raise Malformed(A_TIME)
    # Year 0 is not one of Python's; the 400-year cycle makes it countable.
    shift = 400 if year == 0 else 0
    days = date(year + shift, month, day).toordinal() - _EPOCH_DAY - (146097 if shift else 0)
    offset = (int(zone_hours) * 3600 + int(zone_minutes) * 60) * (1 if sign == "+" else -1) if sign else 0
    nanos = int((fraction or "0")[:9].ljust(9, "0"))
    return days * 86400 + hour * 3600 + minute * 60 + second - offset, nanos


def parse_json_time(text: str) -> tuple[int, int] | None:
    """A Timestamp in JSON: at most nine digits of fraction, in the range of Timestamp; None if it is neither."""
    if not _STRICT_TIME.fullmatch(text):
        # One-digit hours and a comma pass Go's parser here as well.
        found = _TIME.fullmatch(text)
        if found is None or ("." in text and len(found.group(7) or "") > 9):
            return None
    try:
        return parse_time(text)
    except Malformed:
        return None


def parse_json_duration(text: str) -> tuple[int, int] | None:
    """A Duration in JSON ("3.5s"): seconds and nanoseconds of one sign; None if it is none."""
    found = _DURATION.fullmatch(text)
    if found is None:
        return None
    whole, _, fraction = text.lstrip("+-")[:-1].partition(".")
    if (not whole and not fraction) or len(fraction) > 9:
        return None
    sign = -1 if found.group(1) == "-" else 1
    return sign * int(whole or "0"), sign * int(fraction.ljust(9, "0") if fraction else "0")


def parse_go_duration(text: str) -> int:
    """Nanoseconds of a duration in Go's syntax: ``1h2m``, ``500ms``, ``-1.5h``, ``0``.

    Raises:
        Malformed: the text is none, or longer than 64 bits of nanoseconds.
    """
    unsigned, is_negative = (text[1:], text[0] == "-") if text[:1] in ("+", "-") else (text, False)
    if unsigned == "0":
        return 0
    if not _GO_DURATION.fullmatch(unsigned):
        raise Malformed(A_GO_DURATION)
    total = 0
    for whole, fraction, unit in _GO_PART.findall(unsigned):
        scale = _UNITS[unit]
        total += int(whole or "0") * scale + int(fraction or "0") * scale // 10 ** len(fraction)
    if total > 2**63 - (not is_negative):
        raise Malformed(A_GO_DURATION)
    return -total if is_negative else total


_TWO: Final = tuple(f"{number:02d}" for number in range(60))
_CLOCK: Final = tuple(f"{hour:02d}:{minute:02d}" for hour in range(24) for minute in range(60))


def print_time(seconds: int, nanos: int) -> str | None:
    """RFC 3339 in UTC with 0, 3, 6 or 9 digits; None outside Timestamp's range."""
    if not MIN_SECONDS <= seconds <= MAX_SECONDS or not 0 <= nanos < 10**9:
        return None
    minutes, rest = divmod(seconds, 60)
    day, minute = _date(minutes // 1440), minutes % 1440
    return f"{day}T{_CLOCK[minute]}:{_TWO[rest]}{_fraction(nanos) if nanos else ''}Z"


def print_duration(seconds: int, nanos: int) -> str | None:
    """Seconds with 0, 3, 6 or 9 digits and the suffix ``s``; None outside Duration's range."""
    if abs(seconds) > MAX_DURATION_S or abs(nanos) >= 10**9 or (seconds > 0 > nanos) or (seconds < 0 < nanos):
        return None
    sign = "-" if seconds < 0 or nanos < 0 else ""
    return f"{sign}{abs(seconds)}{_fraction(abs(nanos))}s"


def _fraction(nanos: int) -> str:
    if not nanos:
        return ""
    if nanos % 10**6 == 0:
        return f".{nanos // 10**6:03d}"
    return f".{nanos // 10**3:06d}" if nanos % 10**3 == 0 else f".{nanos:09d}"


@lru_cache(maxsize=1024)
def _date(days: int) -> str:
    return date.fromordinal(days + _EPOCH_DAY).isoformat()


def _days_in(year: int, month: int) -> int:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 or year % 400 == 0) else 28
    return 30 if month in (4, 6, 9, 11) else 31


def in_range(name: str, seconds: int, nanos: int) -> bool:
    """Whether a Timestamp or Duration (by full name) lies in its type's range."""
    printed = print_time if name == "google.protobuf.Timestamp" else print_duration
    return printed(seconds, nanos) is not None
