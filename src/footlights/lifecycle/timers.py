"""Which of a session's timers has run out. Durations only, in seconds; no clock is read here."""

from __future__ import annotations

from dataclasses import dataclass

from footlights.lifecycle.states import EndReason


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """A session's limits, in seconds; None is no limit."""

    never_connected_s: float | None = None
    idle_s: float | None = None
    max_s: float | None = None


@dataclass(frozen=True, slots=True)
class SessionClock:
    """How long a ready session has been what it is, as its agent measured it, in seconds."""

    ready_for_s: float
    ever_connected: bool
    idle_for_s: float | None
    """None where the application does not report its viewers: then it is never idle."""


def due(clock: SessionClock, limits: TimeLimits) -> tuple[EndReason, str] | None:
    """Return why a ready session has to end now, with a sentence for its owner; None while it may go on."""
    if limits.max_s is not None and clock.ready_for_s >= limits.max_s:
        return EndReason.MAX_DURATION, f"The maximum duration of {_span(limits.max_s)} was reached."
    if clock.idle_for_s is None:
        return None
    if not clock.ever_connected:
        if limits.never_connected_s is not None and clock.ready_for_s >= limits.never_connected_s:
            return EndReason.NEVER_CONNECTED, f"No viewer connected within {_span(limits.never_connected_s)}."
        return None
    if limits.idle_s is not None and clock.idle_for_s >= limits.idle_s:
        return EndReason.IDLE_TIMEOUT, f"No viewer was connected for {_span(limits.idle_s)}."
    return None


def _span(seconds: float) -> str:
    if seconds >= 7200 and seconds % 3600 == 0:
        return f"{seconds / 3600:g} hours"
    if seconds >= 120 and seconds % 60 == 0:
        return f"{seconds / 60:g} minutes"
    return f"{seconds:g} seconds"
