"""The control plane's clocks.

There are two kinds, and neither replaces the other:

* *Moments* that are stored or shown come from the wall clock. Replicas that share a Postgres use the wall clock of
  their database (`DatabaseClock`), so that their moments are comparable.
* *Spans* that this process waits for are measured by the monotonic clock, which does not jump.

The age of a stored moment needs both: the wall clock may jump between two readings. Where an age makes something end
or disappear, it is measured from `CautiousClock`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import structlog

from footlights.linux.files import replace_file

if TYPE_CHECKING:
    from pathlib import Path

log = structlog.get_logger(__name__)

Wall = Callable[[], datetime]
Monotonic = Callable[[], float]


def utc_now() -> datetime:
    """Return this machine's wall clock."""
    return datetime.now(UTC)


class DatabaseClock:
    """The wall clock of the database server; this machine's where the database has no clock of its own (SQLite).

    Between two readings it advances with this machine's monotonic clock.
    """

    def __init__(self, wall: Wall, monotonic: Monotonic) -> None:
        """Create a clock that has not been read yet and returns ``wall()``."""
        self._wall, self._monotonic = wall, monotonic
        self._read: tuple[datetime, float] | None = None

    def __call__(self) -> datetime:
        """Return the current moment."""
        if self._read is None:
            return self._wall()
        moment, at = self._read
        return moment + timedelta(seconds=self._monotonic() - at)

    def read(self, moment: datetime | None) -> None:
        """Set the clock to the database server's moment; None, for a database without a clock, changes nothing."""
        if moment is not None:
            self._read = moment, self._monotonic()


class CautiousClock:
    """A moment that has certainly passed: never later than the wall clock, and unmoved by its jumps.

    It is the lowest that the wall clock has been during the last day, carried forward by the monotonic clock. So a
    jump forward counts only after it has lasted a day, and time that a machine slept does not count for a day.

    It is kept in a file for the next start, which believes a gap of up to an hour; of a longer one only what the
    monotonic clock measures from then on counts, for a day. Without a file, the newest moment in the store is used.

    What this guarantees: no age that is measured from here is longer than the time that really passed, plus that hour
    at a start. It may be shorter. What it does not: a wall clock that stays wrong for a day is believed, and so is a
    store that was written under a wrong clock by a process whose file is gone.
    """

    WINDOW_H = 24
    BELIEVED_GAP = timedelta(hours=1)

    def __init__(self, wall: Wall, monotonic: Monotonic, *, newest: datetime | None = None, file: Path | None = None):
        self._wall, self._monotonic, self._file = wall, monotonic, file
        self._lowest: dict[int, datetime] = {}
        """By the hour of monotonic time: the lowest wall clock, minus the monotonic clock."""
        start, kept = wall(), (file and _read(file)) or newest
        if kept is not None and start - kept > self.BELIEVED_GAP:
            log.warning("clock_gap", seconds=round((start - kept).total_seconds()), counted_after_h=self.WINDOW_H)
            start = kept
        self._note(start)

    def __call__(self) -> datetime:
        """Return the moment. Call it at least every few minutes: it remembers the wall clock at each call."""
        now = self._note(self._wall())
        return min(self._lowest.values()) + timedelta(seconds=now)

    def age_s(self, moment: datetime) -> float:
        """Return for how many seconds a stored moment has certainly been in the past; 0 where that is not known."""
        return max(0.0, (self() - moment).total_seconds())

    def keep(self, moment: datetime) -> None:
        """Write a moment that this clock has returned, for the next start. Blocks on the disk."""
        if self._file is None:
            return
        try:
            replace_file(self._file, moment.isoformat().encode("ascii"), mode=0o644, durable=False)
        except OSError as error:
            log.warning("clock_not_kept", error=str(error))

    def _note(self, wall: datetime) -> float:
        now = self._monotonic()
        hour, origin = int(now // 3600), wall - timedelta(seconds=now)
        if hour not in self._lowest:
            self._lowest = {each: low for each, low in self._lowest.items() if each >= hour - self.WINDOW_H}
        self._lowest[hour] = min(origin, self._lowest.get(hour, origin))
        return now


def _read(file: Path) -> datetime | None:
    try:
        kept = datetime.fromisoformat(file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return kept if kept.tzinfo is not None else None
