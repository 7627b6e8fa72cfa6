"""Replicas on one database, whose heartbeats a test sends."""

from __future__ import annotations

from datetime import UTC, datetime

from footlights.control.liveness.mass_loss import MassLossGuard
from footlights.control.observability.metrics import Metrics
from footlights.control.replication.membership import Membership
from footlights.control.replication.work_lease import LeaderLease
from footlights.store import Store
from footlights.store.cluster import replica_rows
from footlights.store.cluster.replica_rows import PeerAddress
from footlights.supervision import Supervisor

NOW = datetime(2026, 3, 1, tzinfo=UTC)


class Process:
    """One replica and its lease."""

    def __init__(self, store: Store, name: str, *, may: bool = True) -> None:
        self.metrics = Metrics()
        self.guard = MassLossGuard(15, self.metrics, lambda: NOW, lambda: 0.0)
        self.replicas = Membership(
            store,
            name,
            ("hub", "loops"),
            metrics=self.metrics,
            clock=lambda: NOW,
            supervisor=Supervisor(),
            pause=self.guard.shown,
        )
        self.lease = LeaderLease("placing", store, self.replicas, may=may)
        self.store = store

    async def write(self) -> str:
        """Write something under the lease; return who wrote."""
        return await self.store.write(self.lease.guarded(lambda _: self.replicas.me))


async def joined(shared: Store, *names: str) -> list[Process]:
    found = [Process(shared, name) for name in names]
    for process in found:
        await process.replicas.join(PeerAddress())
    for process in found:
        await process.replicas.heartbeat_once()
    return found


async def known(shared: Store) -> list[str]:
    return [row.replica for row in await shared.read(replica_rows.everyone)]
