"""What estimates are made of: when slots become free, and how long sessions take to start and last.

A lease ends when sessions of its application usually do: each of many is taken for another part of what was measured,
so that the first to end is expected as early as it usually is. Where too little was measured it ends at its maximum
duration, and where it has none nobody knows.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from footlights.control import stored
from footlights.launch.recipe.limits import limit_s, time_limits
from footlights.scheduler import Forecast, LeaseEnd, WaitingWish
from footlights.scheduler.forecast import MOST_EVENTS
from footlights.store.launches import launch_rows
from footlights.store.sessions import session_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
    from datetime import datetime

    from footlights.scheduler import Index, NodeView, Wish
    from footlights.store import Transaction
    from footlights.store.launches.launch_rows import HeldSlots

ENOUGH = 5
"""So many sessions tell how long one lasts."""
MOST_FITTING = 64
"""So many nodes are looked at for a wish that may be placed once a time is over."""
RECENT = 50
"""Of a version so many starts count, the last ones."""
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True, slots=True)
class History:
    """How long sessions took recently."""

    starts: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """(application, version) -> the median from placed to ready, in seconds."""
    start_s: float = 0.0
    """The same over all."""
    lengths: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Application -> from ready to ended, in seconds, ascending."""

    @classmethod
    def load(cls, tx: Transaction) -> History:
        """Read what was measured."""
        starts: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
        for application, version, start_s in launch_rows.recent_start_times(tx):
            if len(found := starts[application, version]) < RECENT:
                found.append(start_s)
        lengths: defaultdict[str, list[float]] = defaultdict(list)
        for application, length_s in session_rows.recent_lengths(tx):
            lengths[application].append(max(0.0, length_s))
        every = [each for found in starts.values() for each in found]
        return cls(
            {version: median(found) for version, found in starts.items()},
            median(every) if every else 0.0,
            {application: sorted(found) for application, found in lengths.items()},
        )

    def start_of(self, application: str, version: str) -> float:
        """Return how long a version takes from placed to ready."""
        return self.starts.get((application, version), self.start_s)

    def lasts_s(self, application: str, share: float, most_s: float | None) -> float | None:
        """Return how long a session that waits will last, as ``left_s`` does; None where nothing was measured."""
        if len(self.lengths.get(application, ())) < ENOUGH:
            return None  # a queue of maximum durations is no estimate
        return self.left_s(application, 0.0, share, most_s)

    def left_s(self, application: str, ran_s: float, share: float, most_s: float | None) -> float | None:
        """Return how long a session that was ready for ``ran_s`` goes on; None where that is not known.

        Args:
            application: What it runs.
            ran_s: How long it has been ready.
            share: Of those that have lasted longer, how many end before it is expected to.
            most_s: Its maximum duration; None where it has none.
        """
        longer = [each for each in self.lengths.get(application, ()) if each > ran_s]
        left = longer[min(int(share * len(longer)), len(longer) - 1)] - ran_s if len(longer) >= ENOUGH else None
        declared = None if most_s is None else max(0.0, most_s - ran_s)
        known = [each for each in (left, declared) if each is not None]
        return min(known) if known else None


@dataclass(frozen=True, slots=True)
class WaitingSession:
    """A session that waits, as far as an estimate of its wait goes."""

    session_id: str
    wish: Wish
    group: Hashable
    limits: bytes


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is known of when slots become free."""

    history: History = field(default_factory=History)
    ends: Sequence[LeaseEnd] = ()

    @classmethod
    def of(
        cls, history: History, held: Iterable[HeldSlots], device_name: Callable[[str, str], str], *, now: datetime
    ) -> Outlook:
        """Say when the leases that are held now end; ``device_name`` is by node and device."""
        like: defaultdict[tuple[str, str], list[HeldSlots]] = defaultdict(list)
        for each in held:
            like[each.application, device_name(each.node, each.device)].append(each)
        ends = []
        for leases in like.values():
            leases.sort(key=lambda lease: lease.launch_id)
            for lease, share in zip(leases, _shares(len(leases)), strict=True):
                left_s = _left_s(lease, history, share, now)
                if left_s is not None:
                    ends.append(LeaseEnd(left_s, lease.node, lease.device, tuple(lease.slots)))
        return cls(history, sorted(ends))

    def etas(self, nodes: Iterable[NodeView], waiting: Sequence[WaitingSession]) -> dict[str, float]:
        """Estimate in how many seconds sessions are ready; those of which nothing is known are left out.

        Args:
            nodes: Those on which something ends, comes back, or is free for one that may not be placed yet.
            waiting: Those that wait, in their order.
        """
        wishes = []
        for number, each in enumerate(waiting):
            wish = each.wish
            start_s = self.history.start_of(wish.application, wish.application_version)
            lasts_s = self.history.lasts_s(wish.application, (number + 0.5) * _GOLDEN % 1, max_duration_s(each.limits))
            wishes.append(WaitingWish(wish, each.group, None if lasts_s is None else start_s + lasts_s))
        placed = Forecast(nodes, self.ends).play(wishes)
        return {
            each.session_id: in_s + self.history.start_of(each.wish.application, each.wish.application_version)
            for each, in_s in zip(waiting, placed, strict=True)
            if in_s is not None
        }


def affected(index: Index, ends: Sequence[LeaseEnd], wishes: Iterable[Wish], *, apart: Iterable[str]) -> list[NodeView]:
    """Return the nodes on which something ends or comes back, or that are free for a wish that may not be placed yet.

    Args:
        index: All nodes.
        ends: The ends of leases, ascending.
        wishes: What waits.
        apart: Nodes with a device that is left alone for a while.
    """
    names = {end.node for end in ends[:MOST_EVENTS]} | set(apart)
    for wish in wishes:
        names |= wish.back_s.keys() | {node for node, _ in wish.avoid_s}
        if "" in wish.back_s:
            names |= set(index.fitting(wish, MOST_FITTING))
    return index.views(names)


def max_duration_s(packed: bytes) -> float | None:
    """Return the maximum duration of packed limits; None where there is none."""
    try:
        return time_limits(stored.unpacked_limits(packed)).max_s
    except DecodeError:
        return None  # an estimate may do without it; expiry reports it


def _left_s(lease: HeldSlots, history: History, share: float, now: datetime) -> float | None:
    if lease.overdue:
        return None
    if lease.ending_time is not None:
        grace_s = limit_s(stored.unpacked_limits(lease.limits), "stop_grace_period") or 0.0
        return max(0.0, grace_s - (now - lease.ending_time).total_seconds())
    start_s = history.start_of(lease.application, lease.application_version)
    if lease.ready_time is not None:
        ran_s, start_s = (now - lease.ready_time).total_seconds(), 0.0
    else:
        ran_s, start_s = 0.0, max(0.0, start_s - (now - lease.created_time).total_seconds())
    left_s = history.left_s(lease.application, ran_s, share, max_duration_s(lease.limits))
    return None if left_s is None else start_s + left_s


def _shares(count: int) -> list[float]:
    """Return that many different parts of what was measured, each as far from its neighbours as they go."""
    order = sorted(range(count), key=lambda number: (number + 0.5) * _GOLDEN % 1)
    shares = [0.0] * count
    for rank, number in enumerate(order):
        shares[number] = (rank + 0.5) / count
    return shares
