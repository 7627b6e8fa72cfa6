"""Lines of a container engine's log, each with its time before it, in parts. Pure.

A cursor is the time of the last line that was given and how many lines of that very time were: an engine can be asked
for what it wrote since a second, no finer, and what it repeats is dropped.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING

from footlights.launch.launcher import LogPart
from footlights.launch.process.output import READ_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d) ?")
_CURSOR = re.compile(r"(\d{1,20})\.(\d{1,9})")
_BILLION = 1_000_000_000


def second_of(cursor: str) -> int:
    """Return the second, since 1970, from which to ask an engine for what follows ``cursor``."""
    return _read(cursor)[0] // _BILLION


def part(lines: Sequence[str], *, tail_lines: int, cursor: str) -> LogPart:
    """Cut out the last ``tail_lines``, or where that is 0 what follows ``cursor``; a malformed one is the beginning."""
    entries = _entries(lines)
    seen_time, seen = (0, 0) if tail_lines > 0 else _read(cursor)
    fresh: list[int] = []
    for index, (time, _) in enumerate(entries):
        if time == seen_time and seen > 0:
            seen -= 1
        elif time >= seen_time:
            fresh.append(index)
    truncated = 0 < tail_lines < len(fresh)
    if tail_lines > 0:
        fresh = fresh[-tail_lines:]
    given: list[str] = []
    size = 0
    for index in fresh:
        size += len(entries[index][1]) + 1
        if given and size > READ_BYTES:
            break
        given.append(entries[index][1])
    if not given:
        return LogPart((), truncated=False, cursor=cursor)
    last = fresh[len(given) - 1]
    count = sum(1 for time, _ in entries[: last + 1] if time == entries[last][0])
    return LogPart(tuple(given), truncated=truncated, cursor=f"{entries[last][0]}.{count}")


def merge(first: Sequence[str], second: Sequence[str]) -> list[str]:
    """Merge two streams of lines by their times; at the same time the first stream's line comes first."""
    timed = [(time, line) for lines in (first, second) for (time, _), line in zip(_entries(lines), lines, strict=True)]
    return [line for _, line in sorted(timed, key=lambda entry: entry[0])]


def _entries(lines: Sequence[str]) -> list[tuple[int, str]]:
    """Split times from texts; a line without a time has the one before it."""
    entries: list[tuple[int, str]] = []
    last = 0
    for line in lines:
        found = _TIME.match(line)
        last = last if found is None else _nanoseconds(found)
        text = line if found is None else line[found.end() :]
        entries.append((last, text.removesuffix("\r")))
    return entries


def _nanoseconds(found: re.Match[str]) -> int:
    second, fraction, zone = found.groups()
    seconds = int(datetime.fromisoformat(second + ("+00:00" if zone == "Z" else zone)).timestamp())
    return seconds * _BILLION + int((fraction or "0").ljust(9, "0"))


def _read(cursor: str) -> tuple[int, int]:
    found = _CURSOR.fullmatch(cursor)
    return (int(found.group(1)), int(found.group(2))) if found is not None else (0, 0)
