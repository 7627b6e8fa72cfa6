"""The keeper of pools: reads what there is and what is wanted, ends what is too much, and starts what is missing."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import structlog
from google.protobuf.message import DecodeError

from footlights import errors, ids
from footlights.control.pools import sizes
from footlights.control.scheduling import views
from footlights.control.services.pools import ahead
from footlights.control.services.sessions import resolve
from footlights.lifecycle import EndReason, Failure, Intent, LaunchState, reasons
from footlights.lifecycle.blocking import blocked
from footlights.scheduler.checks import could_use, standing_refusal
from footlights.scheduler.yielding import WarmSlots, yielded
from footlights.store import pools
from footlights.store.launches import launch_rows
from footlights.store.launches.slots import ChosenSlots
from footlights.store.pools import AheadStart
from footlights.store.schema import PoolRow, microseconds, moment
from footlights.v1 import pool_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from footlights import scheduler
    from footlights.auth.secrets import Box
    from footlights.control.observability.metrics import Metrics
    from footlights.control.replication.work_lease import LeaderLease
    from footlights.control.scheduling.cache import FleetCache, SlotHold
    from footlights.control.services.sessions.resolve import Resolved
    from footlights.control.settings import ServerSettings
    from footlights.control.signals import Signals
    from footlights.scheduler import Wish
    from footlights.store import Store, Transaction
    from footlights.store.pools import FailedInstance, WarmInstance
    from footlights.store.schema import LaunchRow

log = structlog.get_logger(__name__)

STARTED_AT_ONCE: Final = 10
"""So many instances of a pool are started by one pass."""
_YIELDED_AT_ONCE: Final = 64
_HISTORY = timedelta(hours=1)
_GOOD = "good"


@dataclass(slots=True)
class _Pool:
    """One pool in one pass."""

    row: PoolRow
    definition: pool_pb2.Pool
    resolved: Resolved | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""
    """Why there can be no instances of it."""
    wanted: int = 0
    living: list[WarmInstance] = field(default_factory=list)
    failed: list[FailedInstance] = field(default_factory=list)

    def lacks(self, why: str) -> None:
        """Note why it has fewer instances than are wanted."""
        self.problem = why

    @property
    def name(self) -> str:
        return self.row.pool

    @property
    def shape(self) -> str:
        return str(self.values.get("shape", ""))

    @property
    def usable(self) -> list[WarmInstance]:
        """Those that are wanted, and on a node that is heard, the oldest first."""
        return [each for each in self.living if each.intent == Intent.RUN and each.condition == "OK"]


class PoolKeeper:
    """Keeps pools as they are defined."""

    PAUSE_S = 0.2
    """From one pass to the next, however often placement makes one."""
    IDLE_S = 1.0
    """The same while there is no pool."""
    MEASURED_S = 30.0
    """How long versions take to start is measured so often."""

    def __init__(
        self,
        store: Store,
        bus: Signals,
        *,
        work: LeaderLease,
        cache: FleetCache,
        metrics: Metrics,
        settings: ServerSettings,
        new_secret: Callable[[str], bytes | None],
        box: Box,
        clock: Callable[[], datetime],
        new_id: Callable[[], str] = ids.new_id,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._bus, self._work, self._cache = store, bus, work, cache
        self._metrics, self._settings, self._new_secret, self._box = metrics, settings, new_secret, box
        self._clock, self._new_id, self._monotonic = clock, new_id, monotonic
        self._due = -1e9
        self._starts: Mapping[tuple[str, str], float] = {}
        self._starts_at = -1e9
        self._catalogue = bus.catalogue.subscribe(pending=True)

    async def keep(self, in_line: Callable[[], Sequence[Wish]]) -> None:
        """Make one pass; ``in_line`` returns what sessions want that wait for slots, in their order."""
        if self._monotonic() < self._due and not self._catalogue.pending:
            return
        self._catalogue.take()
        now = self._clock()
        await self._measure()
        found = await self._store.read(partial(self._read, now=now))
        self._due = self._monotonic() + (self.PAUSE_S if found else self.IDLE_S)
        self._metrics.pools({each.name: _counts(each) for each in found if each.resolved or each.problem})
        if not found:
            return
        ends, waiting = self._surplus(found), in_line()[:_YIELDED_AT_ONCE]
        for session_id in self._yielded(found, ends, waiting):
            ends[session_id] = EndReason.USER_TERMINATED, "A session waits that can use its slots."
        if ends:
            await self._end(ends, now)
        for pool in found:
            if pool.resolved is not None:
                await self._fill(pool, pool.resolved, ends, waiting, now)
        await self._say(found)

    def rest(self) -> None:
        """Note that another replica keeps pools."""
        self._metrics.pools({})

    # Reading

    async def _measure(self) -> None:
        if self._monotonic() - self._starts_at < self.MEASURED_S:
            return
        self._starts_at = self._monotonic()
        measured: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
        for application, version, start_s in await self._store.read(launch_rows.recent_start_times):
            measured[application, version].append(start_s)
            measured[application, ""].append(start_s)
        self._starts = {key: _upper(found) for key, found in measured.items()}

    def _read(self, tx: Transaction, now: datetime) -> list[_Pool]:
        rows, living = pools.page(tx, "", pools.MOST_POOLS).rows, pools.instances(tx)
        if not rows and not living:
            return []
        found = {row.pool: self._pool(tx, row, now) for row in rows}
        for instance in living:
            if instance.pool not in found:
                # Its pool was deleted: it has none that could want it.
                gone = PoolRow(instance.pool, instance.application, b"", now, {})
                found[instance.pool] = _Pool(gone, pool_pb2.Pool())
            found[instance.pool].living.append(instance)
        for failure in pools.failed(tx, since=now - _HISTORY):
            if failure.pool in found:
                found[failure.pool].failed.append(failure)
        return list(found.values())

    def _pool(self, tx: Transaction, row: PoolRow, now: datetime) -> _Pool:
        try:
            definition = pool_pb2.Pool.FromString(row.definition)
        except DecodeError:
            return _Pool(row, pool_pb2.Pool(), problem="Its definition cannot be read. Set it again.")
        pool = _Pool(row, definition)
        try:
            pool.resolved = resolve.resolve_pool(tx, definition, self._settings)
            pool.values = ahead.values(pool.resolved, row.pool, self._box)
        except errors.Error as error:
            pool.resolved, pool.problem = None, error.message
            return pool
        version = pool.resolved.version
        ages: list[float] = []
        if definition.HasField("wait_goal"):
            since = now - timedelta(seconds=sizes.WINDOW_S)
            arrived = pools.arrivals(tx, version.application, definition.profile, since=since)
            ages = [max(0.0, (now - when).total_seconds()) for when, _ in arrived]
        start_s = self._starts.get((version.application, version.version)) or self._starts.get(
            (version.application, ""), 0.0
        )
        pool.wanted = sizes.wanted(definition, ages, start_s)
        return pool

    # Ending

    def _surplus(self, found: Sequence[_Pool]) -> dict[str, tuple[EndReason, str]]:
        """Return the instances that are not wanted, and why."""
        ends: dict[str, tuple[EndReason, str]] = {}
        closed = self._closed({each.node for pool in found for each in pool.living})
        for pool in found:
            kept = []
            for each in pool.living:
                if each.intent != Intent.RUN:
                    continue
                if pool.resolved is None:
                    ends[each.session_id] = EndReason.USER_TERMINATED, pool.problem or "Its pool was deleted."
                elif each.shape != pool.shape:
                    text = "Its pool is of another version, profile or needs now."
                    ends[each.session_id] = EndReason.USER_TERMINATED, text
                elif each.node in closed:
                    ends[each.session_id] = EndReason.DRAINED, closed[each.node]
                elif each.condition == "OK":
                    kept.append(each)
            # What starts goes first, and then what was started last: a node that was found good stays.
            kept.sort(key=lambda each: (each.launch_state == LaunchState.READY, _reversed(each)))
            for each in kept[: max(0, len(kept) - pool.wanted)]:
                ends[each.session_id] = EndReason.USER_TERMINATED, "Its pool is smaller now."
        return ends

    def _closed(self, nodes: set[str]) -> dict[str, str]:
        found = {}
        for node in self._cache.views(nodes):
            if not node.starts_ahead:
                found[node.name] = "Its node's agent is of the release before, which cannot hand it over."
            elif (node.cordoned or node.draining or not node.accepted) and (why := standing_refusal(node)):
                found[node.name] = f"{why.message[:1].upper()}{why.message[1:]}."
        return found

    def _yielded(self, found: Sequence[_Pool], ends: Mapping[str, object], waiting: Sequence[Wish]) -> list[str]:
        living = [each for pool in found for each in pool.living]
        if not living or not waiting:
            return []
        living.sort(key=lambda each: (each.launch_state == LaunchState.READY, _reversed(each)))
        warm = [
            WarmSlots(
                each.session_id,
                each.node,
                each.device,
                tuple(each.slots),
                each.intent != Intent.RUN or each.session_id in ends,
            )
            for each in living
        ]
        return yielded(self._cache.views({each.node for each in living}), warm, waiting)

    async def _end(self, ends: Mapping[str, tuple[EndReason, str]], now: datetime) -> None:
        nodes = await self._work.write(lambda tx: pools.end(tx, ends, now=now))
        for node in nodes:
            self._bus.session_changed(node)
        log.info("warm_instances_ended", count=len(ends), reasons=sorted({why for _, why in ends.values()}))

    # Starting

    async def _fill(
        self, pool: _Pool, resolved: Resolved, ends: Mapping[str, object], waiting: Sequence[Wish], now: datetime
    ) -> None:
        missing = pool.wanted - sum(each.session_id not in ends for each in pool.usable)
        if missing <= 0:
            return
        if pause := self._pause(pool, now):
            pool.lacks(pause)
            return
        choices: list[scheduler.SlotChoice] = []
        starts: list[AheadStart] = []
        for _ in range(min(missing, STARTED_AT_ONCE)):
            session_id = self._new_id()
            wish = self._wish(pool, resolved, session_id)
            choice = self._cache.choose(wish)
            if choice is None:
                why = ", ".join(each.text for each in self._cache.reasons(wish)) or "there is no node"
                pool.lacks(f"No slot is free for another one: {why}.")
                break
            if any(could_use(each, node) for node in self._cache.views([choice.node]) for each in waiting):
                pool.lacks("Sessions wait that could use the free slots.")
                break
            if (held := self._cache.place(wish)) is not None:
                choices.append(held)
                starts.append(self._start(pool, resolved, session_id, held))
        with self._cache.holding(choices) as holds:
            if starts:
                begun = await self._work.write(lambda tx: [pools.begin(tx, each, now=now) for each in starts])
                self._started(pool, holds, begun)

    def _started(self, pool: _Pool, holds: Sequence[SlotHold], begun: Sequence[LaunchRow | None]) -> None:
        for hold, launch in zip(holds, begun, strict=False):
            # Where somebody else was first, the next pass sees what they did.
            if launch is None:
                continue
            hold.confirm()
            log.info("warm_instance_started", pool=pool.name, launch_id=launch.launch_id, node=launch.node)
            self._bus.assignments.publish(launch.node)

    def _start(self, pool: _Pool, resolved: Resolved, session_id: str, choice: scheduler.SlotChoice) -> AheadStart:
        where = ChosenSlots.of(choice, self._new_id, self._new_secret)
        secrets = ahead.secrets(resolved, session_id, self._box)
        return AheadStart({**pool.values, "session_id": session_id, "secrets": secrets}, where)

    def _wish(self, pool: _Pool, resolved: Resolved, session_id: str) -> Wish:
        version = resolved.version.application, resolved.version.version
        avoid = {(node, ""): "its agent starts nothing ahead" for node in self._cache.late_agents()}
        wish = views.needs_wish(session_id, version, resolved.launcher, resolved.needs, avoid)
        return views.kept_away(replace(wish, given=str(pool.values["given"])), self._cache.guard)

    def _pause(self, pool: _Pool, now: datetime) -> str:
        """Say why nothing is started after failures; empty where it may be."""
        good = pool.row.status.get(_GOOD)
        since = moment(good) if isinstance(good, int) else now - _HISTORY
        mine = [each for each in pool.failed if each.shape == pool.shape and each.began >= since]
        failures = [Failure((now - each.began).total_seconds(), (now - each.ended).total_seconds()) for each in mine]
        block = blocked(failures, reasons.SOON)
        if block is None:
            return ""
        last = max(mine, key=lambda each: each.ended).message
        return f"{block.failures} instances failed; the next is started in {block.left_s:.0f} s. The last one: {last}"

    # Saying

    async def _say(self, found: Sequence[_Pool]) -> None:
        news = {}
        for pool in found:
            if not pool.row.definition:
                continue
            ready = any(each.launch_state == LaunchState.READY for each in pool.usable)
            status = {
                "wanted": pool.wanted,
                "version": "" if pool.resolved is None else pool.resolved.version.version,
                "message": pool.problem,
                _GOOD: _good(pool) if ready else pool.row.status.get(_GOOD),
            }
            if _told(status) != _told(pool.row.status):
                news[pool.name] = status
        if news:
            await self._work.write(lambda tx: pools.set_statuses(tx, news))


def _counts(pool: _Pool) -> tuple[int, int, int]:
    ready = sum(each.launch_state == LaunchState.READY for each in pool.usable)
    return pool.wanted, ready, len(pool.usable) - ready


def _good(pool: _Pool) -> int:
    """Return when the last instance began that is ready: failures before that say nothing any more."""
    began = max(each.created_time for each in pool.usable if each.launch_state == LaunchState.READY)
    return microseconds(began)


def _told(status: Mapping[str, Any]) -> tuple[Any, ...]:
    # A text that counts down would be written with every pass.
    digits = str.maketrans("", "", "0123456789")
    return (
        status.get("wanted"),
        status.get("version"),
        str(status.get("message", "")).translate(digits),
        status.get(_GOOD),
    )


def _reversed(each: WarmInstance) -> float:
    return -each.created_time.timestamp()


def _upper(found: Sequence[float]) -> float:
    """Return what nine of ten of the last starts took at most."""
    recent = sorted(found[:50])
    return recent[min(len(recent) - 1, int(0.9 * len(recent)))]
