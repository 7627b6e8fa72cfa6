"""Which of a session's timers has run out. Durations only, in seconds; no clock is read here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from footlights.lifecycle.states import EndReason

WARM_UNRESPONSIVE_S: Final = 120.0
_WARNED_AHEAD_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """A session's limits, in seconds; None is no limit."""

    never_connected_s: float | None = None
    idle_s: float | None = None
    max_s: float | None = None
    unresponsive_s: float | None = None
    reconnect_s: float | None = None

    @property
    def of_warm(self) -> TimeLimits:
        """What holds for an application without a session too, that was started ahead: it has to answer.

        Where its version does not limit that, a time does after which another one is better for who comes.
        """
        return TimeLimits(unresponsive_s=self.unresponsive_s or WARM_UNRESPONSIVE_S)


@dataclass(frozen=True, slots=True)
class SessionClock:
    """How long a ready session has been what it is, as its agent measured it, in seconds."""

    ready_for_s: float
    ever_connected: bool
    idle_for_s: float | None
    """None where the application does not report its viewers: then it is never idle."""
    unwatched_for_s: float | None = None
    """Since the last viewer left; None where one is connected, none ever was, or an agent does not say it."""
    unanswered_for_s: float | None = None
    """Since its last answer, where the application does not answer."""


def due(clock: SessionClock, limits: TimeLimits) -> tuple[EndReason, str] | None:
    """Return why a ready session has to end now, with a sentence for its owner; None while it may go on."""
    if _reached(clock.ready_for_s, limits.max_s):
        return EndReason.MAX_DURATION, f"The maximum duration of {_span(limits.max_s)} was reached."
    if _reached(clock.unanswered_for_s, limits.unresponsive_s):
        return EndReason.UNRESPONSIVE, f"The application did not answer for {_span(limits.unresponsive_s)}."
    return None if clock.idle_for_s is None else _unused(clock, limits)


def _unused(clock: SessionClock, limits: TimeLimits) -> tuple[EndReason, str] | None:
    if not clock.ever_connected:
        if _reached(clock.ready_for_s, limits.never_connected_s):
            return EndReason.NEVER_CONNECTED, f"No viewer connected within {_span(limits.never_connected_s)}."
        return None
    if limits.reconnect_s is not None and clock.unwatched_for_s is not None:
        if clock.unwatched_for_s >= limits.reconnect_s:
            return EndReason.IDLE_TIMEOUT, f"No viewer came back within {_span(limits.reconnect_s)}."
        return None
    if _reached(clock.idle_for_s, limits.idle_s):
        return EndReason.IDLE_TIMEOUT, f"There was no viewer or no input for {_span(limits.idle_s)}."
    return None


def warned_ahead_s(limit_s: float) -> float:
    """Return how long before the end of the idle limit viewers are warned."""
    return min(_WARNED_AHEAD_S, limit_s / 5)


def _reached(span_s: float | None, limit_s: float | None) -> bool:
    return span_s is not None and limit_s is not None and span_s >= limit_s


def _span(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds >= 7200 and seconds % 3600 == 0:
        return f"{seconds / 3600:g} hours"
    if seconds >= 120 and seconds % 60 == 0:
        return f"{seconds / 60:g} minutes"
    return f"{seconds:g} seconds"
