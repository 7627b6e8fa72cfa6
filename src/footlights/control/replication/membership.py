"""This replica among the others: which ones are alive.

Every replica writes a heartbeat into the store, and looks at those of the others as often: one whose counter has not
grown for ``GONE_LOOKS`` looks is gone. Looks are counted, not seconds, because a replica that stood still has seen
nothing meanwhile. Where the database cannot be shared there is one replica, and nothing is written.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import structlog

from footlights import __version__, errors
from footlights.store.cluster import database_time, replica_rows
from footlights.store.cluster.replica_rows import PeerAddress

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from footlights.control.observability.metrics import Metrics
    from footlights.store import Store, Transaction
    from footlights.store.schema import ReplicaRow
    from footlights.supervision import Supervisor

log = structlog.get_logger(__name__)

LOOP = "membership"


class Membership:
    """Which replicas are alive, and that this one is."""

    HEARTBEAT_S = 1.0
    GONE_LOOKS = 5
    """Looks in a row, each a heartbeat apart, at a counter that has not grown."""

    def __init__(
        self,
        store: Store,
        me: str,
        roles: Sequence[str],
        *,
        metrics: Metrics,
        clock: Callable[[], datetime],
        supervisor: Supervisor,
        pause: Callable[[], replica_rows.ActiveGuard | None] = lambda: None,
        observe_time: Callable[[datetime | None], None] = lambda _: None,
        cluster_key: Callable[[], str | None] = lambda: None,
    ) -> None:
        """Create it; others do not know the replica before ``join``.

        ``pause`` returns why expiry pauses here, for other replicas to show; ``observe_time`` takes the database's
        time, as read with every look; ``cluster_key`` returns the fingerprint of the key that is used here.
        """
        self._store, self.me, self._roles, self._address = store, me, tuple(roles), PeerAddress()
        self._metrics, self._clock, self._supervisor = metrics, clock, supervisor
        self._pause, self._observe_time, self._cluster_key = pause, observe_time, cluster_key
        self._seen: dict[str, tuple[ReplicaRow, int]] = {}
        """The replicas that are known, and how many looks ago each counter grew."""
        self._beats: int | None = None
        """This replica's own counter; None where it is not known what became of the last heartbeat."""
        self.doubled = self.joined = False
        """Whether another process has this one's id, and whether others know this replica."""
        self.term = 0
        """Grows whenever this replica joins or leaves: what it held before is no longer its own."""

    @property
    def living(self) -> frozenset[str]:
        """The replicas that are alive, this one included, as last looked at."""
        return frozenset((self.me, *(row.replica for row in self._alive())))

    @property
    def addresses(self) -> frozenset[PeerAddress]:
        """Where the replicas that are alive can be reached."""
        return frozenset(PeerAddress(row.peer_address, row.mutual_address) for row in self._alive())

    @property
    def hubs(self) -> tuple[str, ...]:
        """Where other replicas that are alive and take agents' links can be reached."""
        others = [row for row in self._alive() if row.replica != self.me and "hub" in row.roles]
        return tuple(sorted(row.peer_address for row in others if row.peer_address))

    async def join(self, address: PeerAddress) -> None:
        """Make this replica known, with where others reach it; what it held before it was started is void."""
        self._address = address
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
        """Send heartbeats and look at the others until cancelled."""
        if self._store.shared:
            await self._supervisor.supervise(
                LOOP,
                self.heartbeat_once,
                every_s=self.HEARTBEAT_S,
                expected=(errors.Unavailable,),
                # A longer one would look like absence to the others.
                longest_pause_s=self.HEARTBEAT_S,
            )

    async def heartbeat_once(self) -> None:
        """Write a heartbeat, look at the others, and remove those that are gone."""
        pause, used = self._pause(), self._cluster_key()
        beats, self._beats = self._beats, None
        if await self._store.write(lambda tx: replica_rows.beat(tx, self.me, guard=pause, cluster_key=used)):
            self._beats = None if beats is None else beats + 1
        else:
            log.warning("replica_back", replica=self.me)
            await self._begin()
            self.term += 1
        await self._look()
        for row, missed in list(self._seen.values()):
            if row.replica != self.me and missed >= self.GONE_LOOKS:
                with self._supervisor.isolated(LOOP, through=(errors.Unavailable,), replica=row.replica):
                    if await self._store.write(partial(replica_rows.leave, replica=row.replica, beat=row.beat)):
                        log.warning("replica_gone", replica=row.replica)
                    del self._seen[row.replica]

    def _alive(self) -> list[ReplicaRow]:
        return [row for row, missed in self._seen.values() if missed < self.GONE_LOOKS]

    async def _look(self) -> None:
        rows, time = await self._store.read(lambda tx: (replica_rows.everyone(tx), database_time.of_the_server(tx)))
        self._observe_time(time)
        before, self._seen = self._seen, {}
        for row in rows:
            known, missed = before.get(row.replica, (None, 0))
            still = known is not None and known.beat == row.beat
            self._seen[row.replica] = (row, missed + 1 if still else 0)
        self._recognise()
        live = len(self.living)
        self._metrics.replicas(live=live, gone=max(0, len(self._seen) - live))

    def _recognise(self) -> None:
        """Compare what is known of this replica with what it has written itself."""
        if self.me not in self._seen:
            return
        found = self._seen[self.me][0].beat
        doubled = self._beats is not None and found != self._beats
        if doubled and not self.doubled:
            log.error("replica_doubled", replica=self.me)
        self.doubled, self._beats = doubled, found

    async def _begin(self) -> None:
        await self._store.write(self._join)
        self._beats = 1

    def _join(self, tx: Transaction) -> None:
        replica_rows.join(
            tx,
            self.me,
            roles=self._roles,
            address=self._address,
            version=__version__,
            now=self._clock(),
        )
