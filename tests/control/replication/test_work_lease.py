"""Leader leases: one replica has the work, and an older token writes nothing."""

from __future__ import annotations

import pytest

from footlights.control.replication.membership import Membership
from footlights.control.replication.work_lease import LeaseSuperseded
from footlights.store import Store
from footlights.store.cluster.replica_rows import PeerAddress
from tests.control.replication.processes import Process, joined


async def test_a_lease_is_claimed_again_after_a_return(shared: Store) -> None:
    """Also where no other replica took it: what was under way under the old token is refused."""
    one, two = await joined(shared, "one", "two")
    await one.lease.claim()
    under_way = one.lease.guarded(lambda _: "written")
    for _ in range(Membership.GONE_LOOKS + 1):
        await two.replicas.heartbeat_once()
    await one.replicas.heartbeat_once()

    assert await one.lease.claim()
    assert await one.write() == "one"
    with pytest.raises(LeaseSuperseded):
        await shared.write(under_way)


async def test_a_replica_that_has_just_joined_keeps_its_lease(shared: Store) -> None:
    """The holder is looked up where it is known to all, not in what was seen a moment ago."""
    [one] = await joined(shared, "one")
    late = Process(shared, "late")
    await late.replicas.join(PeerAddress())
    assert await late.lease.claim()

    assert "late" not in one.replicas.living
    assert not await one.lease.claim()
    assert await late.write() == "late"


async def test_a_replica_without_the_role_never_claims_the_lease(shared: Store) -> None:
    """Also where no other replica does the work."""
    idle = Process(shared, "idle", may=False)
    await idle.replicas.join(PeerAddress())

    assert not await idle.lease.claim()
