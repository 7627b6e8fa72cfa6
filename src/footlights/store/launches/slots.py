"""Slots: how launches take them. Each lease is decided by the database, by its unique index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, delete, func, select

from footlights.store.bulk import Inserter
from footlights.store.schema import LAUNCH, LEASE, NODE, LaunchRow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from footlights.scheduler import SlotChoice
    from footlights.store.unit import Transaction


@dataclass(frozen=True, slots=True)
class ChosenSlots:
    """Slots that were chosen for a session before it was written."""

    node: str
    device: str
    slots: tuple[int, ...]
    launch_id: str
    lease_ids: tuple[str, ...]
    """One a slot."""
    secret: bytes | None = None
    """The launch's secret, sealed."""

    @classmethod
    def of(
        cls, choice: SlotChoice, new_id: Callable[[], str], new_secret: Callable[[str], bytes | None]
    ) -> ChosenSlots:
        """Return a new launch on slots that were chosen; ``new_secret`` makes the secret of a launch, by its id."""
        lease_ids = tuple(new_id() for _ in choice.slots)
        launch_id = new_id()
        return cls(choice.node, choice.device, choice.slots, launch_id, lease_ids, new_secret(launch_id))


@dataclass(frozen=True, slots=True)
class SlotClaim:
    """A session that exists already and is to get the slots that were chosen for it."""

    session_id: str
    placement: ChosenSlots
    now: datetime
    ahead: bool | None = None
    """Whether there is no session yet that it is started for."""


def open_nodes(tx: Transaction, nodes: Iterable[str]) -> set[str]:
    """Return which of some nodes take sessions."""
    return set(tx.execute(_OPEN, {"nodes": list(nodes)}).scalars())


def take(tx: Transaction, claims: Sequence[SlotClaim]) -> Mapping[str, LaunchRow]:
    """Begin a launch for each with all of its slots; return the launches that were begun, by id.

    A launch is not among them where one of its slots is leased; nothing of it is left behind.
    """
    launches, leases = {}, []
    for claim in claims:
        found = claim.placement
        launches[found.launch_id] = LaunchRow(
            launch_id=found.launch_id,
            session_id=claim.session_id,
            node=found.node,
            device=found.device,
            slots=list(found.slots),
            created_time=claim.now,
            secret=found.secret,
            ahead=claim.ahead,
        )
        leases += [
            (lease_id, found.launch_id, claim.session_id, found.node, found.device, slot, claim.now, None)
            for lease_id, slot in zip(found.lease_ids, found.slots, strict=True)
        ]
    _insert_launches(tx, launches.values())
    # In one order everywhere, so that two replicas never deadlock.
    leases.sort(key=lambda lease: lease[3:6])
    if _insert_leases(tx, leases) < len(leases):
        for lost in _take_back(tx, [claim.placement for claim in claims]):
            del launches[lost]
    return launches


def _take_back(tx: Transaction, placements: Sequence[ChosenSlots]) -> set[str]:
    """Remove what was written of the placements that did not get all of their slots; return their launches."""
    ids = [found.launch_id for found in placements]
    held = select(LEASE.c.launch_id, func.count()).where(LEASE.c.launch_id.in_(ids)).group_by(LEASE.c.launch_id)
    counts: dict[str, int] = {row[0]: row[1] for row in tx.execute(held)}
    lost = {found.launch_id for found in placements if counts.get(found.launch_id, 0) < len(found.slots)}
    tx.execute(delete(LEASE).where(LEASE.c.launch_id.in_(lost)))
    tx.execute(delete(LAUNCH).where(LAUNCH.c.launch_id.in_(lost)))
    return lost


_insert_launches, _insert_leases = Inserter(LAUNCH), Inserter(LEASE, skip_conflicts=True)
_OPEN = select(NODE.c.node).where(
    NODE.c.node.in_(bindparam("nodes", expanding=True)),
    NODE.c.connected,
    NODE.c.reachable,
    NODE.c.cordoned.is_(False),
    NODE.c.draining.is_(False),
    NODE.c.acceptance.is_(None),
)
