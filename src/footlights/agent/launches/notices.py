"""What a launch's viewers should know, and whether its application has been sent it."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from footlights.agent.launches.record import Record
from footlights.agent.v1.agent_pb2 import ViewerNotice
from footlights.launch.probes.notice import NoticeOutcome, SessionNotice
from footlights.launch.recipe.limits import limit_s
from footlights.lifecycle import EndReason
from footlights.protocol.times import seconds

if TYPE_CHECKING:
    from footlights.agent.clock import Clock
    from footlights.agent.launches.record import Record

AHEAD_S: Final = 300.0
"""How long before a session's maximum its viewers are warned, at most a fifth of it."""
_SHIFT_S: Final = 2.0
"""An end that moves by more is announced again."""


class Notices:
    """The notices of one launch: what applies now, and what was sent last."""

    def __init__(self, record: Record, clock: Clock) -> None:
        self._record, self._clock = record, clock
        self._given = ViewerNotice()
        self._given_end: float | None = None
        self._said: tuple[str, str, float | None] = ("", "", None)
        self._unsupported = False

    def due(self) -> SessionNotice | None:
        """Return the notice to send to the application now; None where it has it, or does not offer notices."""
        notice = self._now()
        if self._unsupported or self._same(notice):
            return None
        return notice

    def sent(self, notice: SessionNotice, outcome: NoticeOutcome) -> None:
        """Take in whether a notice was delivered."""
        if outcome is NoticeOutcome.DELIVERED:
            if notice.reason == EndReason.IDLE_TIMEOUT.value:
                self._record.warned()
            self._said = (notice.reason, notice.message, self._end(notice))
        self._unsupported = outcome is NoticeOutcome.UNSUPPORTED

    def _now(self) -> SessionNotice:
        """Whatever ends the session first."""
        given = (self._from_control_plane(), self._from_limits(), self._from_idleness())
        found = [notice for notice in given if notice.reason]
        return min(
            found, key=lambda notice: inf if notice.ends_in_s is None else notice.ends_in_s, default=SessionNotice()
        )

    def _from_control_plane(self) -> SessionNotice:
        given = self._record.assignment.notice
        if given != self._given:
            # What was sent is how long it was then: from here on our own clock counts.
            self._given = ViewerNotice()
            self._given.CopyFrom(given)
            ends_in = seconds(given.ends_in)
            self._given_end = self._clock.now() + ends_in if given.HasField("ends_in") else None
        left = None if self._given_end is None else max(0.0, self._given_end - self._clock.now())
        return SessionNotice(given.reason, given.message, left)

    def _from_limits(self) -> SessionNotice:
        longest, ready_for = limit_s(self._record.assignment.limits, "max_duration"), self._record.ready_for
        if not self._record.has_session or longest is None or ready_for is None:
            return SessionNotice()
        if longest - ready_for > min(AHEAD_S, longest / 5):
            return SessionNotice()
        text = "The session reaches its maximum duration. It can be extended."
        return SessionNotice(EndReason.MAX_DURATION.value, text, max(0.0, longest - ready_for))

    def _from_idleness(self) -> SessionNotice:
        """Warn who watches and gives no input: only a warning that was shown lets the session end."""
        left = self._record.idle_ends_in
        if left is None:
            return SessionNotice()
        text = "There was no input for a long time. Click into the picture to stay."
        return SessionNotice(EndReason.IDLE_TIMEOUT.value, text, left)

    def _same(self, notice: SessionNotice) -> bool:
        reason, message, end = self._said
        if (reason, message) != (notice.reason, notice.message):
            return False
        now = self._end(notice)
        return now is end or (now is not None and end is not None and abs(now - end) <= _SHIFT_S)

    def _end(self, notice: SessionNotice) -> float | None:
        return None if notice.ends_in_s is None else self._clock.now() + notice.ends_in_s
