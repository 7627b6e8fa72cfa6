"""Ends sessions whose queue timeout or whose node's drain deadline has passed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from footlights.control import stored
from footlights.control.expiry.context import CONCERNS_ALL
from footlights.control.expiry.countdowns import Countdowns
from footlights.launch.recipe.limits import limit_s
from footlights.lifecycle import EndReason, Intent, SessionState
from footlights.protocol import times
from footlights.store.nodes import node_rows
from footlights.store.sessions import session_rows
from footlights.store.sessions.derivation import SessionStates

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from footlights.control.expiry.context import ExpiryContext
    from footlights.store import Transaction
    from footlights.store.schema import NodeRow, SessionRow
    from footlights.store.sessions.session_rows import PendingPage, PendingSession, QueuePlace

ENDED_AT_ONCE = 1000
"""So many sessions are ended by the same statements: engines bound how many values one may have."""

RETRY_S = 60.0
"""A session that could not be ended is tried again after so long."""

_MOST_LIMITS = 4096


@dataclass(frozen=True, slots=True)
class OverdueSession:
    """A session to be ended, and why."""

    session_id: str
    reason: EndReason
    node: str = ""
    """The node that is drained."""
    limits: bytes = b""
    """The limits under which it waited for too long: others may apply by now."""


class Deadlines:
    """Counts down the deadlines of sessions that wait and of nodes that are drained.

    Of the queue one page is read in a pass, so a long queue costs no more than a short one; a countdown that runs ends
    its session in time whichever page is read.
    """

    PAGE = 2000

    def __init__(self, context: ExpiryContext) -> None:
        self._context = context
        monotonic = context.monotonic
        self._queue: Countdowns[tuple[str, bytes]] = Countdowns(monotonic)
        """By session and its limits: under other limits it waits for another time."""
        self._drains: Countdowns[tuple[str, datetime]] = Countdowns(monotonic)
        self._retries: Countdowns[str] = Countdowns(monotonic)
        self._failed: set[str] = set()
        self._timeouts: dict[bytes, float | None] = {}
        self._after: QueuePlace | None = None
        """Where the next page begins; None for the first."""
        self._seen: set[tuple[str, bytes]] = set()
        """The sessions and limits that were read since the first page."""
        self._looked = False

    def postpone(self, span_s: float) -> None:
        """Prolong every deadline."""
        self._queue.postpone(span_s)
        self._drains.postpone(span_s)

    async def end_overdue(self, now: datetime) -> None:
        """Read the next page of deadlines, and end every session whose deadline has passed."""
        page, draining = await self._context.store.read(
            lambda tx: (session_rows.pending_page(tx, self.PAGE, after=self._after), node_rows.draining(tx))
        )
        self._watch_queue(page)
        self._watch_drains(draining, now)
        overdue = [
            OverdueSession(session_id, EndReason.QUEUE_TIMEOUT, limits=limits)
            for session_id, limits in self._queue.over()
        ]
        drained = [node for node, _ in self._drains.over()]
        if drained:
            overdue += await self._context.store.read(lambda tx: _on_nodes(tx, drained))
        self._failed -= set(self._retries.over())
        self._retries.keep(self._failed)
        await self._end([each for each in overdue if each.session_id not in self._failed], now)

    def _watch_queue(self, page: PendingPage) -> None:
        for row in page.sessions:
            self._seen.add((row.session_id, row.limits))
            timeout = self._timeout(row)
            if timeout is not None:
                self._queue.start(
                    (row.session_id, row.limits), timeout - self._context.cautious.age_s(row.created_time)
                )
        self._after = page.following
        if self._after is None:
            self._queue.keep(self._seen)
            self._seen = set()

    def _timeout(self, row: PendingSession) -> float | None:
        """Return how long a session may wait; None for any time.

        So it is of one whose limits cannot be read, which is reported once.
        """
        if row.limits not in self._timeouts:
            if len(self._timeouts) >= _MOST_LIMITS:
                self._timeouts.clear()
            self._timeouts[row.limits] = None
            with self._context.supervisor.isolated("expiry", session_id=row.session_id):
                self._timeouts[row.limits] = limit_s(stored.unpacked_limits(row.limits), "queue_timeout")
        return self._timeouts[row.limits]

    def _watch_drains(self, draining: Sequence[NodeRow], now: datetime) -> None:
        # A drain that was set before this process looked for the first time may be older than the wall clock says.
        since, self._looked = now if self._looked else self._context.cautious(), True
        deadlines = {(node.node, node.drain_time) for node in draining if node.drain_time is not None}
        for node, deadline in sorted(deadlines):
            self._drains.start((node, deadline), (deadline - since).total_seconds())
        self._drains.keep(deadlines)

    async def _end(self, overdue: Sequence[OverdueSession], now: datetime) -> None:
        for first in range(0, len(overdue), ENDED_AT_ONCE):
            for node in await self._end_some(overdue[first : first + ENDED_AT_ONCE], now):
                self._context.bus.session_changed(node)

    async def _end_some(self, overdue: Sequence[OverdueSession], now: datetime) -> set[str]:
        try:
            return await self._context.work.write(partial(_end, overdue=overdue, now=now))
        except CONCERNS_ALL:
            raise
        except Exception:  # one of them cannot be ended: each by itself tells which
            touched: set[str] = set()
            for each in overdue:
                self._failed.add(each.session_id)
                self._retries.restart(each.session_id, RETRY_S)
                with self._context.supervisor.isolated("expiry", through=CONCERNS_ALL, session_id=each.session_id):
                    touched |= await self._context.work.write(partial(_end, overdue=[each], now=now))
                    self._failed.discard(each.session_id)
            return touched


def _on_nodes(tx: Transaction, nodes: Sequence[str]) -> list[OverdueSession]:
    return [
        OverdueSession(session_id, EndReason.DRAINED, node)
        for node in nodes
        for session_id in session_rows.live_on(tx, node)
    ]


def _end(tx: Transaction, overdue: Sequence[OverdueSession], now: datetime) -> set[str]:
    """End sessions; return the nodes that have to end something, "" where a session only waited."""
    lives = SessionStates.of_sessions(tx, {each.session_id for each in overdue})
    touched = set()
    for each in overdue:
        session = lives.session(each.session_id)
        if session is None or session.intent != Intent.RUN:
            continue
        if each.reason is EndReason.QUEUE_TIMEOUT and (
            session.state != SessionState.PENDING or session.limits != each.limits
        ):
            continue
        lives.end(session, each.reason, _message(each, session), now=now)
        launch = lives.launch_of(session)
        touched.add(launch.node if launch else "")
    lives.write()
    return touched


def _message(overdue: OverdueSession, session: SessionRow) -> str:
    if overdue.reason is EndReason.DRAINED:
        return f"Node {overdue.node} was drained."
    timeout = times.seconds(stored.limits(session).queue_timeout)
    why = ", ".join(session.queue.get("reasons", ())) or "no device was free"
    return f"No device within {timeout:g} seconds. {why}."
