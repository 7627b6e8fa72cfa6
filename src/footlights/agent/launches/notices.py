"""What a launch's viewers are to be told, and whether its application was."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from footlights.agent.launches.record import Record, seconds
from footlights.launch.probes.notice import Heard, Notice
from footlights.lifecycle import EndReason
from footlights.v1.agent_pb2 import ViewerNotice

if TYPE_CHECKING:
    from footlights.agent.clock import Clock

AHEAD_S: Final = 300.0
"""How long before a session's maximum its viewers are told of it, and at most a fifth of it."""
_SHIFT_S: Final = 2.0
"""An end that moves by more is told anew."""


class Notices:
    """The notices of one launch: what applies now, and what was said last."""

    def __init__(self, record: Record, clock: Clock) -> None:
        """Begin with nothing said."""
        self._record, self._clock = record, clock
        self._given = ViewerNotice()
        self._given_end: float | None = None
        self._said: tuple[str, str, float | None] = ("", "", None)
        self._deaf = False

    def due(self) -> Notice | None:
        """Return what the application is to be told now; None where it knows, or does not listen."""
        notice = self._now()
        if self._deaf or self._same(notice):
            return None
        return notice

    def told(self, notice: Notice, heard: Heard) -> None:
        """Take in what became of a notice."""
        if heard is Heard.YES:
            self._said = (notice.reason, notice.message, self._end(notice))
        self._deaf = heard is Heard.NEVER

    def _now(self) -> Notice:
        """Whatever ends the session first."""
        found = [notice for notice in (self._from_control_plane(), self._from_limits()) if notice.reason]
        return min(found, key=lambda notice: inf if notice.ends_in_s is None else notice.ends_in_s, default=Notice())

    def _from_control_plane(self) -> Notice:
        given = self._record.assignment.notice
        if given != self._given:
            # What was sent is how long it was then: from here on our own clock counts.
            self._given = ViewerNotice()
            self._given.CopyFrom(given)
            ends_in = given.ends_in.ToNanoseconds() / 1e9
            self._given_end = self._clock.now() + ends_in if given.HasField("ends_in") else None
        left = None if self._given_end is None else max(0.0, self._given_end - self._clock.now())
        return Notice(given.reason, given.message, left)

    def _from_limits(self) -> Notice:
        longest, ready_for = seconds(self._record.assignment.limits, "max_duration"), self._record.ready_for
        if longest is None or ready_for is None or longest - ready_for > min(AHEAD_S, longest / 5):
            return Notice()
        text = "The session reaches its maximum duration. It can be extended."
        return Notice(EndReason.MAX_DURATION.value, text, max(0.0, longest - ready_for))

    def _same(self, notice: Notice) -> bool:
        reason, message, end = self._said
        if (reason, message) != (notice.reason, notice.message):
            return False
        now = self._end(notice)
        return now is end or (now is not None and end is not None and abs(now - end) <= _SHIFT_S)

    def _end(self, notice: Notice) -> float | None:
        return None if notice.ends_in_s is None else self._clock.now() + notice.ends_in_s
