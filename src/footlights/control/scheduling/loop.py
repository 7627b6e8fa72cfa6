"""The placement loop: load, decide, write. Level-triggered; woken when a session waits or a slot is free.

A queue of one page is decided on as a whole in each pass. A longer one is looked at as a whole as often as that costs
no more than a fifth of the time, and its first page in the passes between.
"""

from __future__ import annotations

import contextlib
import time
from functools import partial
from typing import TYPE_CHECKING, Protocol

import structlog

from footlights import errors, ids, scheduler
from footlights.control.replication.work_lease import LeaderLease, LeaseSuperseded
from footlights.control.scheduling import pending
from footlights.control.scheduling.outlook import History, Outlook
from footlights.control.scheduling.pending import QueuePass, WaitingWishes, Wishes
from footlights.control.scheduling.queue_places import QueuePlaces, place_of
from footlights.lifecycle import meaning
from footlights.store.launches import launch_rows, slots
from footlights.store.launches.launch_rows import PlacementDecision
from footlights.store.sessions import session_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from footlights.control.observability.metrics import Metrics
    from footlights.control.scheduling.cache import FleetCache, SlotHold
    from footlights.control.scheduling.pending import Decision, QueuePage
    from footlights.control.signals import Signals
    from footlights.store import Store
    from footlights.store.schema import LaunchRow
    from footlights.store.sessions.session_rows import PendingSession
    from footlights.supervision import Supervisor

log = structlog.get_logger(__name__)

_CONCERNS_ALL = (LeaseSuperseded, errors.Unavailable)
"""Failures that would meet every other session of a pass as well."""


class PoolKeeping(Protocol):
    """Starts instances ahead on what sessions leave."""

    async def keep(self, in_line: Callable[[], Sequence[scheduler.Wish]]) -> None:
        """Make one pass; ``in_line`` returns what sessions want that wait for slots, in their order."""

    def rest(self) -> None:
        """Note that another replica keeps pools."""


class PlacementLoop:
    """Gives slots to waiting sessions."""

    NAME = "placement"
    PERIOD_S = 2.0
    OUTLOOK_S = 2.0
    """When slots become free is looked at so often, and for each session that has just come; and those whose place is
    far behind are told theirs."""
    OUTLOOK_SHARE = 20.0
    """But only when so many times what looking took last has passed."""
    HISTORY_S = 30.0
    """How long sessions take is measured so often."""
    WHOLE_QUEUE_SHARE = 5.0
    """A queue of several pages is looked at as a whole when so many times what that took last has passed."""
    RETRY_S = 60.0
    """A session that could not be placed for a fault of its own is tried again after so long."""

    def __init__(
        self,
        *,
        store: Store,
        bus: Signals,
        work: LeaderLease,
        cache: FleetCache,
        metrics: Metrics,
        clock: Callable[[], datetime],
        supervisor: Supervisor,
        new_secret: Callable[[str], bytes | None] = lambda _launch_id: None,
        pools: PoolKeeping | None = None,
        new_id: Callable[[], str] = ids.new_id,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pools = pools
        self._store, self._bus, self._work, self._cache = store, bus, work, cache
        self._metrics, self._clock, self._new_id, self._monotonic = metrics, clock, new_id, monotonic
        self._new_secret = new_secret
        self._supervisor, self._wishes = supervisor, Wishes(supervisor)
        self._history, self._history_at = History(), -1e9
        self._outlook_at, self._outlook_took = -1e9, 0.0
        self._etas: dict[str, float] = {}
        self._whole_at, self._whole_took = -1e9, 0.0
        self._places = QueuePlaces()
        self._failed: dict[str, float] = {}
        """Session -> when it is tried again."""
        self._ahead = WaitingWishes()
        self._changes = bus.placing.subscribe(pending=True)

    async def run(self) -> None:
        """Place until cancelled."""
        await self._supervisor.supervise(
            self.NAME, self._pass, every_s=self.PERIOD_S, wake=self._wake, expected=(errors.Error,)
        )

    @contextlib.contextmanager
    def hold(self, wish: scheduler.Wish, priority: int = 0) -> Iterator[SlotHold]:
        """Choose slots for a session that is being created, and hold them while the body writes it.

        Nothing is chosen where another process places, where a session that waits already would be placed now, or where
        nothing fits: then it says what the session is told, without a pass. The body calls ``confirm`` once the leases
        are in the store; without it they may be or not, and the node is read again. It calls ``wait`` where the session
        got none.
        """
        known = self._work.held and self._cache.fresh
        unserved = self._cache.unserved(wish) if known else ()
        may = known and not unserved and not self._ahead.come_first(self._cache, wish)
        with self._cache.holding([self._cache.place(wish) if may else None]) as [hold]:
            if unserved:
                hold.tell(place_of(0, None, unserved))
            elif may and hold.choice is None:
                hold.tell(place_of(self._ahead.before(priority) + 1, None, self._cache.reasons(wish)))
            freed = self._cache.freed
            yield hold
            if hold.waits:
                self._ahead.add(wish, priority, in_line=not unserved)
            if hold.waits and freed != self._cache.freed:
                self._bus.placing.publish()  # the pass that saw it may not have seen the session

    async def place_once(self) -> int:
        """Make one pass; return how many sessions were placed."""
        started, began, now = time.perf_counter(), self._monotonic(), self._clock()
        self._ahead.begin()
        await self._cache.read()
        self._failed = {name: until for name, until in self._failed.items() if until > began}
        whole = began - self._whole_at >= self.WHOLE_QUEUE_SHARE * self._whole_took
        queue = QueuePass(self._cache, self._wishes, self._failed.keys())
        self._places.start(far=whole and self._outlook_due)
        placed, changed, last = 0, False, None
        front: tuple[QueuePage, Sequence[Decision]] | None = None
        while True:
            page = await self._store.read(partial(pending.read_page, after=last, now=now))
            decisions = list(queue.decide(page))
            front = front or (page, decisions)
            placed += await self._begin([(each.row, each.choice) for each in decisions if each.choice is not None])
            ended = await self._end_hopeless(queue, page, decisions, now)
            changed |= bool(ended)
            left = [each for each in decisions if each.row.session_id not in ended]
            changed |= await self._tell(queue, page, left, now, first=last is None)
            if page.following is None or not whole:
                break
            last = page.following
        if whole or page.following is None:
            self._ahead.replace(list(queue.wishes.values()), queue.in_line_by_priority)
        if whole:
            self._whole_at, self._whole_took = began, 0.0 if last is None else time.perf_counter() - started
            self._places.end_of_queue()
        if placed or changed:
            self._bus.sessions.publish()
        if placed or queue.waiting:
            self._metrics.placed(time.perf_counter() - started)
        if self._pools is not None:
            with self._supervisor.isolated("pools", through=_CONCERNS_ALL):
                await self._pools.keep(lambda: [each.wish for each in queue.in_line(*front)])
        return placed

    async def _wake(self, every_s: float) -> None:
        if await self._changes.next(every_s) is None:
            self._metrics.woken("poll")

    async def _pass(self) -> None:
        try:
            held = self._work.held
            if await self._work.claim():
                if not held:
                    self._cache.forget()
                    self._ahead.forget()
                await self.place_once()
            elif self._pools is not None:
                self._pools.rest()
        except LeaseSuperseded:
            self._work.lost()

    async def _begin(self, chosen: Sequence[tuple[PendingSession, scheduler.SlotChoice]]) -> int:
        """Write the placements of a page together; return how many were written."""
        if not chosen:
            return 0
        grants = [self._grant(row, choice) for row, choice in chosen]
        begun = []
        with self._cache.holding([choice for _, choice in chosen]) as holds:
            answers = await self._write(grants, self._clock())
            for hold, answer in zip(holds, answers, strict=True):
                # Where somebody else was first, the next pass sees what they did.
                if answer is not None and not isinstance(answer, errors.Conflict):
                    hold.confirm()
                    begun.append(answer)
        for launch in begun:
            log.info(
                "session_placed",
                session_id=launch.session_id,
                launch_id=launch.launch_id,
                node=launch.node,
                device=launch.device,
            )
            self._bus.assignments.publish(launch.node)
        return len(begun)

    async def _write(
        self, grants: Sequence[PlacementDecision], now: datetime
    ) -> Sequence[LaunchRow | errors.Conflict | None]:
        try:
            return await self._work.write(lambda tx: launch_rows.begin(tx, grants, now=now))
        except _CONCERNS_ALL:
            raise
        except Exception:  # one of them cannot be placed: each by itself tells which
            return [await self._write_alone(grant, now) for grant in grants]

    async def _write_alone(self, grant: PlacementDecision, now: datetime) -> LaunchRow | errors.Conflict | None:
        self._failed[grant.session_id] = self._monotonic() + self.RETRY_S
        with self._supervisor.isolated(self.NAME, through=_CONCERNS_ALL, session_id=grant.session_id):
            [answer] = await self._work.write(lambda tx: launch_rows.begin(tx, [grant], now=now))
            del self._failed[grant.session_id]
            return answer
        return None

    def _grant(self, row: PendingSession, choice: scheduler.SlotChoice) -> PlacementDecision:
        where = slots.ChosenSlots.of(choice, self._new_id, self._new_secret)
        return PlacementDecision(row.session_id, row.revision, where)

    @property
    def _outlook_due(self) -> bool:
        return self._may_look and self._monotonic() - self._outlook_at >= self.OUTLOOK_S

    async def _end_hopeless(
        self, queue: QueuePass, page: QueuePage, decisions: Sequence[Decision], now: datetime
    ) -> frozenset[str]:
        """End sessions that no node is left for, each for what failed it last; return which."""
        found = queue.hopeless(page, decisions) if page.lacking else []
        if not found:
            return frozenset()
        ends = []
        for row, last in found:
            what = meaning(last.reason)
            why = last.message.rstrip(".") or f"The application could not be launched: {what.says}"
            ends.append((row, what.end, f"{why}. No other node could run it."))
        return await self._work.write(lambda tx: session_rows.end_waiting(tx, ends, now=now))

    @property
    def _may_look(self) -> bool:
        return self._monotonic() - self._outlook_at >= self.OUTLOOK_SHARE * self._outlook_took

    async def _estimate(self, queue: QueuePass, page: QueuePage, waiting: Sequence[Decision], now: datetime) -> None:
        """Estimate when the sessions of the first page are ready; those behind them have no estimate."""
        if self._outlook_due or (self._may_look and any(not each.row.queue for each in waiting)):
            in_line = queue.in_line(page, waiting)
            if not in_line:
                self._etas = {}
                return
            self._outlook_at, started = self._monotonic(), time.perf_counter()
            if self._outlook_at - self._history_at >= self.HISTORY_S:
                self._history_at = self._outlook_at
                self._history = await self._store.read(History.load)
            held = await self._store.read(launch_rows.held_slots)
            outlook = Outlook.of(self._history, held, self._cache.device_name, now=now)
            nodes = self._cache.affected(outlook.ends, {each.group: each.wish for each in in_line}.values())
            self._etas = outlook.etas(nodes, in_line)
            self._outlook_took = time.perf_counter() - started

    async def _tell(
        self, queue: QueuePass, page: QueuePage, decisions: Sequence[Decision], now: datetime, *, first: bool
    ) -> bool:
        """Tell sessions that wait their place, for how long, and why; return whether any was told something new."""
        left = [each for each in decisions if each.choice is None]
        if first:
            await self._estimate(queue, page, left, now)
        news = self._places.news(left, self._etas, lambda row: queue.reasons(row, page.avoid.get(row.session_id)))
        if news:
            await self._work.write(lambda tx: session_rows.set_queue(tx, news, now=now))
        told = {row.session_id for row, _ in news}
        fresh = (each for each in decisions if not each.row.queue)
        self._bus.decisions.publish(
            *[each.row.session_id for each in fresh if each.choice or each.row.session_id in told]
        )
        return bool(news)
