"""The queue: sessions that wait for a device, read by pages and decided on group by group."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from footlights import scheduler
from footlights.control.scheduling import views
from footlights.control.scheduling.outlook import WaitingSession
from footlights.lifecycle import Fault, LaunchState, Retry, meaning
from footlights.scheduler.wish_shapes import key_of
from footlights.store.launches import launch_rows
from footlights.store.sessions import session_rows
from footlights.v1 import application_pb2

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

    from footlights.control.scheduling.cache import FleetCache
    from footlights.control.scheduling.guard import Guard
    from footlights.scheduler import SlotChoice, WaitReason, Wish
    from footlights.store import Transaction
    from footlights.store.launches.launch_rows import Attempt
    from footlights.store.sessions.session_rows import PendingSession, QueuePlace
    from footlights.supervision import Supervisor

REFUSAL_TTL = timedelta(seconds=30)
"""How long a session is not offered again to a device that refused it."""

PAGE = 1000
"""Waiting sessions that are read at once."""

UNREADABLE = (
    scheduler.WaitReason(
        "NEEDS_UNREADABLE", why="what the session needs cannot be read; terminate it and create it again"
    ),
)
FAILED = (scheduler.WaitReason("PLACEMENT_FAILED", why="the session could not be placed; the server's log says why"),)

Avoid = dict[tuple[str, str], str]
"""(node, device) -> why that device refused a session; with the empty device, why the node did."""

Group = tuple[str, str, str, bytes, tuple[str, str] | None]
"""What sessions have in common that fit on the same devices: application, version, launcher, needs, guard's mark."""

_MOST_GROUPS = 4096


def group_of(row: PendingSession, guard: Guard) -> Group:
    """Return the group of a session that no device has refused."""
    version = row.application, row.application_version
    return (*version, row.launcher, row.needs, guard.mark(version, row.username, row.given))


@dataclass(frozen=True, slots=True)
class QueuePage:
    """Some sessions that wait, in the order in which they are to be placed."""

    rows: Sequence[PendingSession]
    following: QueuePlace | None
    """Where the next page begins; None where this is the last."""
    avoid: Mapping[str, Avoid]
    """Session id -> the devices that refused it a moment ago, and why."""
    avoid_s: Mapping[str, Mapping[tuple[str, str], float]]
    """The same -> in how many seconds they are offered again."""
    lacking: Mapping[str, Attempt]
    """Session id -> its last launch, where its version lacked what it needs on every node that was tried."""


def read_page(tx: Transaction, after: QueuePlace | None, *, now: datetime) -> QueuePage:
    """Read the page of the queue that follows a place; the first page where that is None."""
    page = session_rows.pending_page(tx, PAGE, after=after)
    attempts = launch_rows.attempts(tx, [row.session_id for row in page.sessions if row.launch_count])
    # A refusal of the future was stored before the clock was set back, and would be avoided until then.
    recent = [launch for launch in attempts if now - REFUSAL_TTL <= launch.ended_time <= now]
    avoid: dict[str, Avoid] = {}
    avoid_s: dict[str, dict[tuple[str, str], float]] = {}
    for launch, place in _refused(recent):
        avoid.setdefault(launch.session_id, {})[place] = (
            f"{launch.reason}: {launch.message}" if launch.message else launch.reason
        )
        avoid_s.setdefault(launch.session_id, {})[place] = (launch.ended_time + REFUSAL_TTL - now).total_seconds()
    return QueuePage(page.sessions, page.following, avoid, avoid_s, _lacking(attempts))


def read_all(tx: Transaction, *, now: datetime) -> QueuePage:
    """Read the whole queue."""
    page = read_page(tx, None, now=now)
    rows, avoid, avoid_s, lacking = [*page.rows], {**page.avoid}, {**page.avoid_s}, {**page.lacking}
    while page.following is not None:
        page = read_page(tx, page.following, now=now)
        rows += page.rows
        avoid |= page.avoid
        avoid_s |= page.avoid_s
        lacking |= page.lacking
    return QueuePage(rows, None, avoid, avoid_s, lacking)


class Wishes:
    """Turns waiting sessions into wishes; needs that many have in common are parsed once."""

    def __init__(self, supervisor: Supervisor) -> None:
        """Create it; ``supervisor`` reports needs that cannot be read, once for each group."""
        self.supervisor = supervisor
        self._needs: dict[bytes, application_pb2.Needs | None] = {}

    def of(self, row: PendingSession, avoid: Avoid, guard: Guard) -> Wish | None:
        """Return what a session wants; None where that cannot be read."""
        needs = self._parsed(row)
        if needs is None:
            return None
        version = row.application, row.application_version
        wish = views.needs_wish(row.session_id, version, row.launcher, needs, avoid)
        return views.kept_away(replace(wish, username=row.username, given=row.given or ""), guard)

    def of_page(self, page: QueuePage, guard: Guard) -> list[WaitingSession]:
        """Return what the sessions of a page want, without those that cannot be read."""
        return self.of_rows(page.rows, page, guard)

    def of_rows(self, rows: Iterable[PendingSession], page: QueuePage, guard: Guard) -> list[WaitingSession]:
        """Return what some sessions of a page want, without those that cannot be read."""
        wanted: dict[object, Wish] = {}
        found = []
        for row in rows:
            avoid, avoid_s = page.avoid.get(row.session_id, {}), page.avoid_s.get(row.session_id, {})
            group = row.session_id if avoid else group_of(row, guard)
            wish = wanted.get(group) or self.of(row, avoid, guard)
            if wish is not None:
                wanted[group] = replace(wish, avoid_s=avoid_s) if avoid_s else wish
                found.append(WaitingSession(row.session_id, wanted[group], group, row.limits))
        return found

    def _parsed(self, row: PendingSession) -> application_pb2.Needs | None:
        if row.needs not in self._needs:
            if len(self._needs) >= _MOST_GROUPS:
                self._needs.clear()
            self._needs[row.needs] = None
            with self.supervisor.isolated("placement", session_id=row.session_id):
                self._needs[row.needs] = application_pb2.Needs.FromString(row.needs)
        return self._needs[row.needs]


@dataclass(frozen=True, slots=True)
class Decision:
    """What a pass has decided on one session."""

    row: PendingSession
    choice: SlotChoice | None
    """The slots that are held for it; None where it waits."""
    position: int = 0
    """Among those that wait in line; 1 is next, 0 where it is set aside."""
    number: int = 0
    """Among all that are not placed, in the order in which they are tried."""


class QueuePass:
    """One pass over the queue: decides on its pages, in order.

    What no node could ever serve is set aside: it is tried like the others, and stands in nobody's way.

    Within a pass slots only become fewer. So once a session of a group fits nowhere, the others of that group, which
    want the same, are not tried: a pass over 50,000 of them costs little more than reading them.
    """

    def __init__(self, chooser: FleetCache, wishes: Wishes, failed: Container[str] = ()) -> None:
        """Start at the front of the queue; sessions in ``failed`` are not placed."""
        self._chooser, self._wishes, self._failed = chooser, wishes, failed
        self._full: set[Group] = set()
        self._reasons: dict[Group, tuple[WaitReason, ...]] = {}
        self._unserved: dict[Group, tuple[WaitReason, ...]] = {}
        self._in_line = 0
        self.in_line_by_priority: Counter[int] = Counter()
        """How many stand in line so far."""
        self.waiting = 0
        """How many were not placed so far."""
        self.wishes: dict[object, Wish] = {}
        """What those want that may be placed as soon as they fit; one of each group."""

    def decide(self, page: QueuePage) -> Iterator[Decision]:
        """Decide on the next page; slots are held for each choice when the first is returned.

        Sessions of what has failed and was not well since choose last: those of a good version are not behind them.
        """
        self._reasons.clear()
        order = sorted(page.rows, key=self._is_doubtful) if self._chooser.guard.doubtful else page.rows
        choices = {row.session_id: self._choose(row, page.avoid.get(row.session_id)) for row in order}
        for row in page.rows:
            choice = choices[row.session_id]
            position = 0
            if choice is None:
                self.waiting += 1
                self._note(row, page.avoid.get(row.session_id))
                if not self.aside(row):
                    self._in_line += 1
                    self.in_line_by_priority[row.priority] += 1
                    position = self._in_line
            yield Decision(row, choice, position, self.waiting)

    def reasons(self, row: PendingSession, avoid: Avoid | None) -> tuple[WaitReason, ...]:
        """Say why a session of the page that was decided on last waits."""
        if row.session_id in self._failed:
            return FAILED
        if why := self.aside(row):
            return why
        group = group_of(row, self._chooser.guard)
        if avoid or group not in self._reasons:
            wish = self._wishes.of(row, avoid or {}, self._chooser.guard)
            reasons = UNREADABLE if wish is None else self._chooser.reasons(wish)
            if avoid:
                return reasons
            self._reasons[group] = reasons
        return self._reasons[group]

    def _note(self, row: PendingSession, avoid: Avoid | None) -> None:
        key = row.session_id if avoid else group_of(row, self._chooser.guard)
        if key in self.wishes or row.session_id in self._failed or len(self.wishes) > WaitingWishes.MOST:
            return
        wish = self._wishes.of(row, avoid or {}, self._chooser.guard)
        if wish is not None:
            self.wishes[key] = wish

    def aside(self, row: PendingSession) -> tuple[WaitReason, ...]:
        """Say which needs of a session no node could ever meet; empty where it waits in line."""
        group = group_of(row, self._chooser.guard)
        if group not in self._unserved:
            wish = self._wishes.of(row, {}, self._chooser.guard)
            self._unserved[group] = () if wish is None else self._chooser.unserved(wish)
        return self._unserved[group]

    def in_line(self, page: QueuePage, decisions: Iterable[Decision]) -> list[WaitingSession]:
        """Return those that wait in line for slots, of the page that was decided on last, in their order."""
        rows = (each.row for each in decisions if each.position and each.row.session_id not in self._failed)
        return self._wishes.of_rows(rows, page, self._chooser.guard)

    def hopeless(self, page: QueuePage, decisions: Iterable[Decision]) -> list[tuple[PendingSession, Attempt]]:
        """Return the sessions of a page that no node is left for, because those that were tried lack what they need."""
        return [
            (each.row, page.lacking[each.row.session_id])
            for each in decisions
            if each.choice is None
            and each.row.session_id in page.lacking
            and all(
                why.reason in scheduler.NOT_TO_BE_WAITED_FOR
                for why in self.reasons(each.row, page.avoid.get(each.row.session_id))
            )
        ]

    def _is_doubtful(self, row: PendingSession) -> bool:
        version = row.application, row.application_version
        return self._chooser.guard.is_doubtful(version, row.username, row.given or "")

    def _choose(self, row: PendingSession, avoid: Avoid | None) -> SlotChoice | None:
        group = group_of(row, self._chooser.guard)
        if group in self._full or row.session_id in self._failed:
            return None
        choice = None
        with self._wishes.supervisor.isolated("placement", session_id=row.session_id):
            wish = self._wishes.of(row, avoid or {}, self._chooser.guard)
            choice = self._chooser.place(wish) if wish is not None else None
        if choice is None and not avoid:
            self._full.add(group)
        return choice


class WaitingWishes:
    """What the sessions that wait want, as of the last pass, and those that were created since.

    A session that is created may take what fits it at once only where none of those would: what waits comes first.
    """

    MOST = 128
    """So many different ones are compared with each creation; beyond it a creation waits for the next pass."""

    def __init__(self) -> None:
        """Know nothing."""
        self._known = False
        self._wishes: tuple[Wish, ...] = ()
        self._fresh: dict[object, Wish] = {}
        self._older: dict[object, Wish] = {}
        self._in_line: Counter[int] = Counter()
        self._joined: Counter[int] = Counter()
        self._guard: Guard | None = None

    def begin(self) -> None:
        """Note that a pass begins: it may read what was added before the last one began, and not what comes later."""
        self._older, self._fresh = self._fresh, {}
        self._joined = Counter()

    def replace(self, wishes: Sequence[Wish], in_line: Counter[int]) -> None:
        """Note what waits after a pass over the whole queue, and how many stand in line by priority."""
        self._in_line = in_line
        self._known = len(wishes) <= self.MOST
        self._wishes, self._guard = tuple(wishes) if self._known else (), None

    def add(self, wish: Wish, priority: int, *, in_line: bool) -> None:
        """Note that a session which is being created will wait: in line, or set aside."""
        self._joined[priority] += in_line
        # Whose wish it is matters where something is left alone because of it.
        whose = (wish.username, wish.given) if wish.crashes or wish.unwell else None
        self._fresh[wish.application, wish.application_version, key_of(wish), whose] = wish
        if len(self._fresh) > self.MOST:
            self.forget()

    def before(self, priority: int) -> int:
        """Return how many stand in line before one of a priority."""
        return sum(count for line in (self._in_line, self._joined) for each, count in line.items() if each >= priority)

    def forget(self) -> None:
        """Know nothing until the next pass over the whole queue."""
        self._known, self._wishes = False, ()
        self._fresh.clear()
        self._older.clear()

    def come_first(self, chooser: FleetCache, before: Wish) -> bool:
        """Return whether any of them would be placed now, and before another; or that is not known."""
        if not self._known:
            return True
        guard = chooser.guard
        if self._guard is not guard:
            self._guard = guard
            self._wishes = tuple(views.kept_away(wish, guard) for wish in self._wishes)
        every = [wish for each in (self._wishes, self._fresh.values(), self._older.values()) for wish in each]
        if not _is_doubtful(before, guard):
            every = [wish for wish in every if not _is_doubtful(wish, guard)]
        return any(chooser.fits(wish) for wish in every)


def _is_doubtful(wish: Wish, guard: Guard) -> bool:
    return guard.is_doubtful((wish.application, wish.application_version), wish.username, wish.given)


def _refused(attempts: Iterable[Attempt]) -> Iterator[tuple[Attempt, tuple[str, str]]]:
    """Return the launches that keep their sessions away from a device, or with the empty device from a whole node."""
    for launch in attempts:
        what = meaning(launch.reason)
        if launch.state == LaunchState.REJECTED or what.retry is Retry.ELSEWHERE:
            # Unless it is the device's, another node is tried, and not the next device of this one.
            device = launch.device if what.fault is Fault.DEVICE and what.retry is Retry.FREE else ""
            yield launch, (launch.node, device)


def _lacking(attempts: Iterable[Attempt]) -> dict[str, Attempt]:
    last: dict[str, Attempt] = {}
    others = set()
    for launch in attempts:
        last[launch.session_id] = launch
        if meaning(launch.reason).fault is not Fault.PLACE:
            others.add(launch.session_id)
    return {session_id: launch for session_id, launch in last.items() if session_id not in others}
