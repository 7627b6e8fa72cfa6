"""What sessions that wait are told: their position, an estimate, and the reasons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from footlights.control.scheduling.pending import Decision
    from footlights.scheduler import WaitReason
    from footlights.store.sessions.session_rows import PendingSession

NEAR = 50
"""Sessions so near to the front are told of every step."""

ETA_CHANGE = 0.2
"""An estimate is told again when it differs by more than this share of itself: watchers are not woken for less."""


class QueuePlaces:
    """Chooses who is told what in a pass, so that every session is told and the writes of a pass are bounded.

    Told in each pass: sessions near the front, and up to ``MOST_TOLD`` that were never told anything. Of the others up
    to ``MOST_TOLD`` in a pass over the whole queue; the next such pass goes on behind them.
    """

    MOST_TOLD = 1000

    def __init__(self) -> None:
        self._told_until = 0
        """The number until which those far behind were told in this round."""
        self._new_left = self._far_left = 0

    def start(self, *, far: bool) -> None:
        """Begin a pass; ``far`` is whether those far behind are told in it."""
        self._new_left, self._far_left = self.MOST_TOLD, self.MOST_TOLD if far else 0

    def end_of_queue(self) -> None:
        """End a pass over the whole queue: a round that came to its end begins at the front again."""
        if self._far_left > 0:
            self._told_until = 0

    def news(
        self,
        waiting: Iterable[Decision],
        etas: Mapping[str, float],
        reasons: Callable[[PendingSession], tuple[WaitReason, ...]],
    ) -> list[tuple[PendingSession, dict[str, Any]]]:
        """Return what sessions are to be told, as their rows keep it, where that has changed."""
        found = []
        for decision in waiting:
            row, number = decision.row, decision.number
            far = number > NEAR and bool(row.queue)
            if far and (self._far_left <= 0 or number <= self._told_until):
                continue
            if not row.queue and number > NEAR and self._new_left <= 0:
                continue
            eta_s = etas.get(row.session_id)
            place = place_of(decision.position, eta_s, reasons(row))
            if far:
                self._told_until = number
            if not _differs(row.queue, place):
                continue
            found.append((row, place))
            self._far_left -= far
            self._new_left -= not row.queue
        return found


def place_of(position: int, eta_s: float | None, why: Sequence[WaitReason]) -> dict[str, Any]:
    """Return what a session is told, as its row keeps it; ``position`` is 0 where it is set aside."""
    return {
        "position": position,
        "eta_s": eta_s,
        # A replica of the release before shows these.
        "reasons": [each.text for each in why],
        "wait_reasons": [list(each) for each in why],
    }


def _differs(known: Mapping[str, Any], fresh: Mapping[str, Any]) -> bool:
    if not known or any(known.get(name) != fresh[name] for name in ("position", "reasons", "wait_reasons")):
        return True
    before, after = known["eta_s"], fresh["eta_s"]
    if not isinstance(before, int | float) or not isinstance(after, int | float):
        return before is not after
    return bool(abs(after - before) > ETA_CHANGE * max(before, 1.0))
