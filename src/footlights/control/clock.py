"""The control plane's clock: it takes the time from the wall once, and is kept by a clock that does not jump.

Everything that is stored as a moment, and every age that is reckoned from one, comes from here. A wall clock that is
set while the server runs changes nothing: small differences are made good slowly, a large one is believed after the
wall has kept to it for an hour. A server that is started again on the same boot of its machine goes on where it was.

At a first start, and after a reboot, the wall is all there is. Time never begins before what the store has seen; and
where the wall says that long has passed since then, it may be right, so it is followed, but nothing is pruned,
forgotten or ended for it: that ``gap`` is not counted for the next day.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

STEP_S = 10.0
"""A difference from the wall that is made good slowly; more is a step."""
SLEW = 0.01
"""How much of the time that passes is used to make a difference good."""
BELIEVE_AFTER_S = 3600.0
"""How long the wall has to keep to a step."""
STRANGE_S = 3600.0
"""How long a server may have been away before the wall's word for it is doubted."""
DOUBT_S = 86_400.0
"""How long a gap is not counted."""

Wall = Callable[[], datetime]
_FILE = "clock.json"
_KEEP_S = 1.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Machine:
    """The clock of the machine that never jumps."""

    boot_id: str
    """Which run of the machine its seconds belong to."""
    since_boot: Callable[[], float]
    """Seconds since the machine was started, the time that it slept included."""

    @classmethod
    def here(cls) -> Machine:
        """This machine: random(4)'s boot id, and CLOCK_BOOTTIME (clock_gettime(2))."""
        try:
            boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            boot_id = ""  # never the same as another: each start takes the time from the wall
        boot_time = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
        return cls(boot_id, lambda: time.clock_gettime(boot_time))


class SharedWall:
    """The wall clock of several replicas: that of the database they share, so that their moments are one clock's.

    Between two readings of it the machine's own wall goes on from there.
    """

    def __init__(self, wall: Wall) -> None:
        """Begin with the machine's own."""
        self._wall, self._ahead = wall, timedelta(0)

    def __call__(self) -> datetime:
        """Return this moment."""
        return self._wall() + self._ahead

    def read(self, moment: datetime | None) -> None:
        """Take what the database's clock says now; None where it has none of its own."""
        if moment is not None:
            self._ahead = moment - self._wall()


class SteadyClock:
    """Moments that go on evenly whatever the wall does. Calling it returns this moment."""

    def __init__(self, wall: Wall, machine: Machine, file: Path | None = None, newest: datetime | None = None) -> None:
        """Go on from where ``file`` says, where it is of this boot; else begin.

        Args:
            wall: The wall clock.
            machine: What this clock is kept by.
            file: Where it is kept for the next start; None to forget it.
            newest: The last moment that the store has.
        """
        self._wall, self._machine, self._file = wall, machine, file
        self._seen = machine.since_boot()
        self._step: tuple[float, float] | None = None
        self._gap, self._doubted_until = timedelta(0), self._seen
        kept = _read(file, machine.boot_id)
        self._kept = kept
        self._booted = self._begin(wall(), newest) if kept is None else kept
        self.started = self()
        """The moment at which this clock was begun."""

    def __call__(self) -> datetime:
        """Return this moment."""
        seen = self._machine.since_boot()
        passed, self._seen = max(0.0, seen - self._seen), seen
        ahead = (self._wall() - _EPOCH).total_seconds() - (self._booted + seen)
        if abs(ahead) <= STEP_S:
            self._step = None
            most = SLEW * passed
            self._booted += max(-most, min(most, ahead))
        else:
            self._consider(ahead, seen)
        return _EPOCH + timedelta(seconds=self._booted + seen)

    @property
    def gap(self) -> timedelta:
        """The time of which only the wall says that it has passed; zero once that has stood for a day."""
        return self._gap if self._machine.since_boot() < self._doubted_until else timedelta(0)

    def age_s(self, moment: datetime) -> float:
        """Return the seconds since a stored moment of which this cluster knows that they have passed."""
        age = self() - moment
        return (age - self.gap if moment < self.started else age).total_seconds()

    def keep(self) -> None:
        """Write where the clock is, if that is not known yet, for the next start on this boot. Blocks on the disk."""
        booted = self._booted
        if self._file is None or not self._machine.boot_id:
            return
        if self._kept is not None and abs(booted - self._kept) < _KEEP_S:
            return
        draft = self._file.with_suffix(".tmp")
        try:
            draft.write_text(json.dumps({"boot_id": self._machine.boot_id, "booted": booted}))
            draft.replace(self._file)
        except OSError as error:
            log.warning("clock_not_kept", error=str(error))
            return
        self._kept = booted

    def _begin(self, wall: datetime, newest: datetime | None) -> float:
        now = wall
        if newest is not None and newest > wall:
            now = newest
        elif newest is not None and (wall - newest).total_seconds() > STRANGE_S:
            self._doubt(wall - newest)
        return (now - _EPOCH).total_seconds() - self._seen

    def _consider(self, ahead: float, seen: float) -> None:
        """Look at a step of the wall: whether it is new, or has stood for long enough."""
        if self._step is None or abs(self._step[0] - ahead) > STEP_S:
            self._step = ahead, seen
            log.warning(
                "clock_stepped",
                seconds=round(ahead, 1),
                believed_in_s=BELIEVE_AFTER_S,
            )
        elif seen - self._step[1] >= BELIEVE_AFTER_S:
            log.warning("clock_believed", seconds=round(ahead, 1))
            self._step = None
            self._booted += ahead
            self.started = _EPOCH + timedelta(seconds=self._booted + seen)
            self._doubt(timedelta(seconds=max(0.0, ahead)))

    def _doubt(self, gap: timedelta) -> None:
        self._gap = gap
        self._doubted_until = self._machine.since_boot() + DOUBT_S


def utc_now() -> datetime:
    """Return this moment, the default clock."""
    return datetime.now(UTC)


def steady(wall: Wall, machine: Machine, data_dir: Path, newest: datetime | None) -> SteadyClock:
    """Return the clock of a control plane with this data directory, kept there for the next start."""
    clock = SteadyClock(wall, machine, data_dir / _FILE, newest)
    clock.keep()
    return clock


def _read(file: Path | None, boot_id: str) -> float | None:
    """Return when this boot began by the clock that was kept; None where it is of another boot, or not to be read."""
    if file is None or not boot_id:
        return None
    try:
        kept = json.loads(file.read_text())
        return float(kept["booted"]) if kept["boot_id"] == boot_id else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
