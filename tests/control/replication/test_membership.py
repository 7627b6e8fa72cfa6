"""A replica among others: which ones are taken for gone, and what that means for leases; each look is the test's."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from footlights import supervision
from footlights.control.observability.metrics import Metrics
from footlights.control.replication.membership import Membership
from footlights.control.replication.work_lease import LeaseSuperseded
from footlights.store import Store, Transaction, open_store
from footlights.store.cluster import replica_rows
from footlights.store.cluster.replica_rows import PeerAddress
from footlights.store.nodes import node_rows
from footlights.store.nodes.links import LinkOpening
from footlights.supervision import Supervisor
from tests.control.replication.processes import NOW, Process, joined, known
from tests.store.rows import link as open_link


async def test_a_replica_without_heartbeats_is_removed(shared: Store) -> None:
    """After so many looks, not one earlier; one that sends them stays."""
    one, two, _three = await joined(shared, "one", "two", "three")
    for _ in range(Membership.GONE_LOOKS - 1):
        await one.replicas.heartbeat_once()
        await two.replicas.heartbeat_once()
    living, before = set(one.replicas.living), await known(shared)
    for process in (one, two, one, two):
        await process.replicas.heartbeat_once()

    assert (living, before) == ({"one", "two", "three"}, ["one", "three", "two"])
    assert one.replicas.living == two.replicas.living == {"one", "two"}
    assert await known(shared) == ["one", "two"]
    assert "footlights_replicas" in one.metrics.text().decode()


async def test_one_that_stood_still_takes_no_replica_for_gone(shared: Store) -> None:
    """It has seen nothing meanwhile: one late look is one look, however long ago the last one was."""
    one, two = await joined(shared, "one", "two")
    assert await two.lease.claim()
    for _ in range(3):
        await two.replicas.heartbeat_once()
    for _ in range(3):
        await one.replicas.heartbeat_once()

    assert await known(shared) == ["one", "two"]
    assert "two" in one.replicas.living
    assert not await one.lease.claim()


async def test_one_that_was_taken_for_gone_comes_back(shared: Store) -> None:
    """It is known again, the work that it had is not its own any more, and nothing is written under its old token."""
    one, two = await joined(shared, "one", "two")
    assert await one.lease.claim()
    assert not await two.lease.claim()
    for _ in range(Membership.GONE_LOOKS + 1):
        await two.replicas.heartbeat_once()
    assert await two.lease.claim()
    with pytest.raises(LeaseSuperseded):
        await one.write()
    held = one.lease.held
    await one.replicas.heartbeat_once()
    after = await one.lease.claim()

    assert (held, after, one.lease.held) == (True, False, False)
    assert await two.write() == "two"
    assert await known(shared) == ["one", "two"]


async def test_a_copy_of_a_replica_is_told_from_it(shared: Store) -> None:
    """Both learn it, whichever began first; one that is alone never does, also after it was taken for gone."""
    one, two = await joined(shared, "one", "two")
    for _ in range(Membership.GONE_LOOKS + 1):
        await two.replicas.heartbeat_once()
    await one.replicas.heartbeat_once()
    await one.replicas.heartbeat_once()
    alone = one.replicas.doubled
    copy = Process(shared, "one")
    await copy.replicas.join(PeerAddress())
    for _ in range(2):
        await one.replicas.heartbeat_once()
        await copy.replicas.heartbeat_once()
    both = one.replicas.doubled, copy.replicas.doubled
    for _ in range(2):
        await one.replicas.heartbeat_once()

    assert not alone
    assert both == (True, True)
    assert not one.replicas.doubled
    assert not two.replicas.doubled


async def test_one_that_leaves_hands_over_at_once(shared: Store) -> None:
    """Its work is free and its nodes have no link, without a look."""
    one, two = await joined(shared, "one", "two")
    await one.lease.claim()

    def link(tx: Transaction) -> int:
        return open_link(tx, LinkOpening("node-a", "of node-a", b"", (), NOW, hub="one"))

    await shared.write(link)
    await one.replicas.leave()

    assert await two.lease.claim()
    assert not await one.lease.claim()
    row = await shared.read(lambda tx: node_rows.get(tx, "node-a"))
    assert row is not None
    assert not row.connected


async def test_others_can_show_why_the_reaping_of_one_pauses(shared: Store) -> None:
    """While it does, and while it lives."""
    one, two = await joined(shared, "one", "two")
    one.guard.failed("The disk is full.")
    await one.replicas.heartbeat_once()
    await two.replicas.heartbeat_once()
    shown = await shared.read(replica_rows.active_guard)
    await one.replicas.leave()

    assert shown == replica_rows.ActiveGuard("STORE_UNAVAILABLE", "The disk is full.", NOW)
    assert await shared.read(replica_rows.active_guard) is None


async def test_a_failure_that_is_none_of_ours_costs_one_heartbeat(
    shared: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is counted, and the next one is sent: the others take no replica for gone."""
    monkeypatch.setattr(supervision, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(Membership, "HEARTBEAT_S", 0.01)
    outcomes: list[Exception | None] = [RuntimeError("a bug"), None, ValueError("another"), None]
    failures, done = list[str](), asyncio.Event()

    def pause() -> None:
        if not outcomes:
            done.set()
        elif (error := outcomes.pop(0)) is not None:
            raise error

    replica = Membership(
        shared,
        "one",
        ("hub",),
        metrics=Metrics(),
        clock=lambda: NOW,
        supervisor=Supervisor(failures.append),
        pause=pause,
    )
    await replica.join(PeerAddress())
    running = asyncio.create_task(replica.run())
    async with asyncio.timeout(10):
        await done.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert failures == ["membership", "membership"]
    [row] = await shared.read(replica_rows.everyone)
    assert row.beat > 2


async def test_the_only_server_on_sqlite_does_everything_and_writes_nothing_of_it(tmp_path: Path) -> None:
    """There can be no other one."""
    alone = open_store(tmp_path)
    try:
        process = Process(alone, "one")
        await process.replicas.join(PeerAddress())
        assert await process.lease.claim()
        assert await process.write() == "one"
        assert process.replicas.living == {"one"}
        assert await known(alone) == []
        await process.replicas.leave()
    finally:
        await alone.close()
