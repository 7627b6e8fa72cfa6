"""The fleet as placing sees it, read in one transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median

from footlights import scheduler
from footlights.control import convert, crashes, quarantine
from footlights.control.crashes import Crashes
from footlights.store import Transaction, launches, nodes, sessions
from footlights.store.tables import Launch, Lease, Session

REFUSAL_TTL = timedelta(seconds=30)
"""How long a session is not offered again to a device that refused it."""

MAX_QUEUE = 2000
"""How many waiting sessions one pass looks at."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """Nodes with their free slots, who waits, and what is known of when slots become free."""

    nodes: tuple[scheduler.NodeView, ...]
    waiting: tuple[Session, ...]
    avoid: Mapping[str, Mapping[tuple[str, str], str]]
    """Session id -> the devices that refused it of late, and why."""
    crashes: Crashes
    """Which applications have failed too often of late."""
    remaining_s: tuple[float | None, ...]
    """For every lease that is held, how long it has left at most; None for one without an end."""
    start_s: float | None
    """The median of the last measured times from placed to ready."""

    def wishes(self) -> list[scheduler.Wish]:
        """Return what the waiting sessions want, in their order."""
        return [
            convert.wish(
                row,
                self.avoid.get(row.session_id, {}),
                self.crashes.of(row.application, row.application_version),
            )
            for row in self.waiting
        ]

    def eta_s(self, position: int) -> float | None:
        """Estimate the seconds until the session at ``position`` in the queue is ready."""
        return scheduler.eta_s(position, self.remaining_s, self.start_s)


def load(tx: Transaction, *, now: datetime) -> Fleet:
    """Read everything that placing decides on."""
    waiting = sessions.pending(tx, MAX_QUEUE)
    held = launches.live_leases(tx)
    starts = launches.recent_start_times(tx)
    return Fleet(
        nodes=_views(tx, held, now),
        waiting=tuple(waiting),
        avoid=_avoid(launches.refusals(tx, [row.session_id for row in waiting], since=now - REFUSAL_TTL)),
        crashes=crashes.load(tx, now=now),
        remaining_s=_remaining(tx, held, now) if waiting else (),
        start_s=median(starts) if starts else None,
    )


def _views(tx: Transaction, held: Sequence[Lease], now: datetime) -> tuple[scheduler.NodeView, ...]:
    devices = defaultdict(list)
    for device in nodes.devices(tx):
        devices[device.node].append(device)
    leases = defaultdict(list)
    for lease in held:
        leases[lease.node].append(lease)
    counts, quarantined = nodes.live_launch_counts(tx), quarantine.load(tx, now=now)
    return tuple(
        convert.node_view(row, devices[row.node], leases[row.node], counts.get(row.node, 0), quarantined)
        for row in nodes.everyone(tx)
    )


def _avoid(refused: Sequence[Launch]) -> dict[str, dict[tuple[str, str], str]]:
    avoid: dict[str, dict[tuple[str, str], str]] = {}
    for launch in refused:
        why = f"{launch.reason}: {launch.message}" if launch.message else launch.reason
        avoid.setdefault(launch.session_id, {})[(launch.node, launch.device)] = why
    return avoid


def _remaining(tx: Transaction, held: Sequence[Lease], now: datetime) -> tuple[float | None, ...]:
    left: list[float | None] = []
    for row in sessions.some(tx, list({lease.session_id for lease in held})):
        limit = convert.time_limits(convert.limits(row)).max_s
        if limit is None:
            left.append(None)
            continue
        running = (now - row.ready_time).total_seconds() if row.ready_time else 0.0
        left.append(max(0.0, limit - running))
    return tuple(left)
