"""This replica among the others: who lives, and which work is this one's to do for all.

Every replica beats into the store, and looks at the others' beats as often: one that has not grown for ``GONE_LOOKS``
looks is of a replica that is gone. Looks are counted, not seconds, for whoever stood still has seen nothing meanwhile.
Where the database cannot be shared there is one replica, and nothing is written.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import structlog

from footlights import __version__, errors
from footlights.store.cluster import database_time, leader_leases, replica_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from footlights.control.liveness.mass_loss import Brake
    from footlights.control.observability.metrics import Metrics
    from footlights.store import Store, Transaction
    from footlights.store.schema import ReplicaRow
    from footlights.store.store import Unit

log = structlog.get_logger(__name__)
T = TypeVar("T")


class Superseded(errors.Conflict):
    """Another replica has taken the work over; nothing was written."""

    default_reason = "WORK_SUPERSEDED"


class Replicas:
    """Who lives."""

    BEAT_S = 1.0
    GONE_LOOKS = 5
    """So many looks, each a beat apart, without a new beat."""

    def __init__(
        self,
        store: Store,
        me: str,
        roles: Sequence[str],
        metrics: Metrics,
        brake: Brake,
        clock: Callable[[], datetime],
        on_time: Callable[[datetime | None], None] = lambda _: None,
    ) -> None:
        """Take who this is, by an id that no other replica has, its roles, and what others are to show of it.

        ``on_time`` is told the database's time at each look.
        """
        self._store, self.me, self._roles, self._address = store, me, tuple(roles), ""
        self._metrics, self._brake, self._clock, self._on_time = metrics, brake, clock, on_time
        self._seen: dict[str, tuple[ReplicaRow, int]] = {}
        self._beats: int | None = None
        """How often it has beaten; None where it is not known what became of the last one."""
        self.doubled = False
        """Whether another process has this one's id."""
        self.joined = False
        self.term = 0
        """Grows whenever it joins or leaves: what it held before is no longer its own."""

    async def join(self, peer_address: str) -> None:
        """Make this replica known, with where others reach its gRPC; what it held before it was started is void."""
        self._address = peer_address
        if self._store.shared:
            await self._begin()
            await self._look()
        self.joined, self.term = True, self.term + 1

    async def leave(self) -> None:
        """Give everything back: another replica need not wait until this one is found gone."""
        self.joined, self.term = False, self.term + 1
        if self._store.shared:
            await self._store.write(lambda tx: replica_rows.leave(tx, self.me))

    async def run(self) -> None:
        """Beat and look until cancelled."""
        while self._store.shared:
            await asyncio.sleep(self.BEAT_S)
            try:
                await self.beat_once()
            except errors.Error as error:
                log.warning("beat_failed", error=str(error))

    async def beat_once(self) -> None:
        """Beat, look at the others, and remove who is gone."""
        hold = self._brake.hold
        held = None if hold is None else replica_rows.ActiveGuard(hold.cause.value, hold.message, hold.since)
        beats, self._beats = self._beats, None
        if await self._store.write(lambda tx: replica_rows.beat(tx, self.me, guard=held)):
            self._beats = None if beats is None else beats + 1
        else:
            log.warning("replica_back", replica=self.me)
            await self._begin()
            self.term += 1
        await self._look()
        for row, missed in list(self._seen.values()):
            if row.replica != self.me and missed >= self.GONE_LOOKS:
                if await self._store.write(partial(replica_rows.leave, replica=row.replica, beat=row.beat)):
                    log.warning("replica_gone", replica=row.replica)
                del self._seen[row.replica]

    @property
    def living(self) -> frozenset[str]:
        """The replicas that live, this one included, as last looked at."""
        alive = (name for name, (_, missed) in self._seen.items() if missed < self.GONE_LOOKS)
        return frozenset((self.me, *alive))

    async def _look(self) -> None:
        rows, time = await self._store.read(lambda tx: (replica_rows.everyone(tx), database_time.of_the_server(tx)))
        self._on_time(time)
        before = self._seen
        self._seen = {}
        for row in rows:
            known = before.get(row.replica)
            still = known is not None and known[0].beat == row.beat
            self._seen[row.replica] = (row, known[1] + 1 if known is not None and still else 0)
        self._recognise()
        live = len(self.living)
        self._metrics.replicas(live=live, gone=max(0, len(self._seen) - live))

    def _recognise(self) -> None:
        """Hold what is known of this replica against what it has written itself."""
        if self.me not in self._seen:
            return
        found = self._seen[self.me][0].beat
        doubled = self._beats is not None and found != self._beats
        if doubled and not self.doubled:
            log.error(
                "replica_doubled",
                replica=self.me,
            )
        self.doubled, self._beats = doubled, found

    async def _begin(self) -> None:
        await self._store.write(self._join)
        self._beats = 1

    def _join(self, tx: Transaction) -> None:
        replica_rows.join(
            tx,
            self.me,
            roles=self._roles,
            peer_address=self._address,
            version=__version__,
            now=self._clock(),
        )


class Work:
    """Work that one replica does for all. Whoever holds it writes under its token."""

    def __init__(self, name: str, store: Store, replicas: Replicas, *, may: bool = True) -> None:
        """Take the work's name, where it is claimed, and whether it is a role of this replica at all."""
        self._name, self._store, self._replicas, self._may = name, store, replicas, may
        self._token: int | None = None
        self._term = 0

    @property
    def held(self) -> bool:
        """Whether this replica had it when it last looked."""
        return self._token is not None

    async def claim(self) -> bool:
        """Take the work where nobody living has it; say whether this replica has it."""
        if not self._may:
            return False
        if not self._store.shared:
            self._token = 0
            return True
        if self.held and self._term != self._replicas.term:
            self.lost()
        if not self.held:
            self._term = self._replicas.term
            me = self._replicas.me
            self._token = await self._store.write(
                lambda tx: leader_leases.claim(tx, self._name, me) if self._replicas.joined else None
            )
            if self._token is not None:
                log.info("work_claimed", work=self._name, token=self._token)
        return self.held

    def guarded(self, unit: Unit[T]) -> Unit[T]:
        """Return ``unit`` so that it writes only while the work is this replica's.

        The unit raises ``Superseded`` where another replica has taken the work.
        """
        token = self._token

        def checked(tx: Transaction) -> T:
            if token is None or not leader_leases.holds(tx, self._name, token):
                raise Superseded(f"Another replica does the work {self._name!r} by now.")
            return unit(tx)

        return checked if self._store.shared else unit

    async def write(self, unit: Unit[T]) -> T:
        """Write a unit while the work is this replica's. Raises ``Superseded``, and what ``Store.write`` does."""
        return await self._store.write(self.guarded(unit))

    def lost(self) -> None:
        """Note that the work is another replica's."""
        if self.held:
            log.warning("work_lost", work=self._name)
        self._token = None
