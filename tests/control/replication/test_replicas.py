"""A replica among others: who is taken for gone, and whose work it is; each look is made by the test."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from footlights.control.liveness.mass_loss import Brake
from footlights.control.observability.metrics import Metrics
from footlights.control.replication.membership import Replicas, Superseded, Work
from footlights.store import Store, Transaction, open_store
from footlights.store.cluster import replica_rows
from footlights.store.nodes import node_rows
from footlights.store.nodes.links import LinkOpening
from tests.store.rows import link

NOW = datetime(2026, 3, 1, tzinfo=UTC)


class Process:
    """One replica and its work."""

    def __init__(self, store: Store, name: str, *, may: bool = True) -> None:
        self.metrics = Metrics()
        self.brake = Brake(15, self.metrics, lambda: NOW, lambda: 0.0)
        self.replicas = Replicas(store, name, ("hub", "loops"), self.metrics, self.brake, lambda: NOW)
        self.work = Work("placing", store, self.replicas, may=may)
        self.store = store

    async def write(self) -> str:
        """Write something under the work's token; return who wrote."""
        return await self.store.write(self.work.guarded(lambda _: self.replicas.me))


async def joined(shared: Store, *names: str) -> list[Process]:
    found = [Process(shared, name) for name in names]
    for process in found:
        await process.replicas.join("")
    for process in found:
        await process.replicas.beat_once()
    return found


async def known(shared: Store) -> list[str]:
    return [row.replica for row in await shared.read(replica_rows.everyone)]


async def test_one_that_beats_no_more_is_removed(shared: Store) -> None:
    """After so many looks, not one earlier; who beats stays."""
    one, two, _three = await joined(shared, "one", "two", "three")
    for _ in range(Replicas.GONE_LOOKS - 1):
        await one.replicas.beat_once()
        await two.replicas.beat_once()
    living, before = set(one.replicas.living), await known(shared)
    for process in (one, two, one, two):
        await process.replicas.beat_once()

    assert (living, before) == ({"one", "two", "three"}, ["one", "three", "two"])
    assert one.replicas.living == two.replicas.living == {"one", "two"}
    assert await known(shared) == ["one", "two"]
    assert "footlights_replicas" in one.metrics.text().decode()


async def test_one_that_stood_still_takes_nobody_for_gone(shared: Store) -> None:
    """It has seen nothing meanwhile: one late look is one look, however long ago the last one was."""
    one, two = await joined(shared, "one", "two")
    assert await two.work.claim()
    for _ in range(3):
        await two.replicas.beat_once()
    for _ in range(3):
        await one.replicas.beat_once()

    assert await known(shared) == ["one", "two"]
    assert "two" in one.replicas.living
    assert not await one.work.claim()


async def test_one_that_was_taken_for_gone_comes_back(shared: Store) -> None:
    """It is known again, the work that it had is not its own any more, and nothing is written under its old token."""
    one, two = await joined(shared, "one", "two")
    assert await one.work.claim()
    assert not await two.work.claim()
    for _ in range(Replicas.GONE_LOOKS + 1):
        await two.replicas.beat_once()
    assert await two.work.claim()
    with pytest.raises(Superseded):
        await one.write()
    held = one.work.held
    await one.replicas.beat_once()
    after = await one.work.claim()

    assert (held, after, one.work.held) == (True, False, False)
    assert await two.write() == "two"
    assert await known(shared) == ["one", "two"]


async def test_work_is_claimed_anew_after_a_return(shared: Store) -> None:
    """Also where nobody took it meanwhile: what was under way under the old token is refused."""
    one, two = await joined(shared, "one", "two")
    await one.work.claim()
    under_way = one.work.guarded(lambda _: "written")
    for _ in range(Replicas.GONE_LOOKS + 1):
        await two.replicas.beat_once()
    await one.replicas.beat_once()

    assert await one.work.claim()
    assert await one.write() == "one"
    with pytest.raises(Superseded):
        await shared.write(under_way)


async def test_one_that_has_just_come_is_not_robbed_by_who_has_not_seen_it(shared: Store) -> None:
    """The holder is looked up where it is known to all, not in what was seen a moment ago."""
    [one] = await joined(shared, "one")
    late = Process(shared, "late")
    await late.replicas.join("")
    assert await late.work.claim()

    assert "late" not in one.replicas.living
    assert not await one.work.claim()
    assert await late.write() == "late"


async def test_a_copy_of_a_replica_is_told_from_it(shared: Store) -> None:
    """Both learn it, whichever began first; one that is alone never does, also after it was taken for gone."""
    one, two = await joined(shared, "one", "two")
    for _ in range(Replicas.GONE_LOOKS + 1):
        await two.replicas.beat_once()
    await one.replicas.beat_once()
    await one.replicas.beat_once()
    alone = one.replicas.doubled
    copy = Process(shared, "one")
    await copy.replicas.join("")
    for _ in range(2):
        await one.replicas.beat_once()
        await copy.replicas.beat_once()
    both = one.replicas.doubled, copy.replicas.doubled
    for _ in range(2):
        await one.replicas.beat_once()

    assert not alone
    assert both == (True, True)
    assert not one.replicas.doubled
    assert not two.replicas.doubled


async def test_one_that_leaves_hands_over_at_once(shared: Store) -> None:
    """Its work is free and its nodes have no link, without a look."""
    one, two = await joined(shared, "one", "two")
    await one.work.claim()

    def open_link(tx: Transaction) -> int:
        return link(tx, LinkOpening("node-a", "of node-a", b"", (), NOW, hub="one"))

    await shared.write(open_link)
    await one.replicas.leave()

    assert await two.work.claim()
    assert not await one.work.claim()
    row = await shared.read(lambda tx: node_rows.get(tx, "node-a"))
    assert row is not None
    assert not row.connected


async def test_others_can_show_why_the_reaping_of_one_pauses(shared: Store) -> None:
    """While it does, and while it lives."""
    one, two = await joined(shared, "one", "two")
    one.brake.failed("The disk is full.")
    await one.replicas.beat_once()
    await two.replicas.beat_once()
    shown = await shared.read(replica_rows.active_guard)
    await one.replicas.leave()

    assert shown == replica_rows.ActiveGuard("STORE_UNAVAILABLE", "The disk is full.", NOW)
    assert await shared.read(replica_rows.active_guard) is None


async def test_who_has_no_part_in_the_work_never_claims_it(shared: Store) -> None:
    """Also where nobody else does it."""
    idle = Process(shared, "idle", may=False)
    await idle.replicas.join("")

    assert not await idle.work.claim()


async def test_the_only_server_on_sqlite_does_everything_and_writes_nothing_of_it(tmp_path: Path) -> None:
    """There can be no other one."""
    alone = open_store(tmp_path)
    try:
        process = Process(alone, "one")
        await process.replicas.join("")
        assert await process.work.claim()
        assert await process.write() == "one"
        assert process.replicas.living == {"one"}
        assert await known(alone) == []
        await process.replicas.leave()
    finally:
        await alone.close()
