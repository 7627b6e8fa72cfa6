"""Replicas: which are alive, and the `leader_leases` and fencing tokens of what one does for all."""

from __future__ import annotations

import asyncio
from select import select as wait_for_readable
from typing import Any

import pytest
from sqlalchemy import func, select, text

from footlights import errors
from footlights.store import Store, Transaction
from footlights.store.cluster import leader_leases, replica_rows
from footlights.store.cluster.replica_rows import PeerAddress
from footlights.store.nodes import node_rows
from footlights.store.nodes.links import LinkOpening
from footlights.store.schema import NODE
from tests.store.rows import NOW, S, join, link
from tests.system.stack import until


def enter(tx: Transaction, name: str, address: str = "") -> None:
    replica_rows.join(tx, name, roles=["hub", "loops"], address=PeerAddress(address), version="1", now=NOW)


def link_to(tx: Transaction, node: str, hub: str) -> int:
    return link(tx, LinkOpening(node, f"of {node}", b"", (), NOW, hub=hub))


def link_by_an_old_version(tx: Transaction, node: str) -> None:
    """What a version without replicas writes of a link: nothing of who has it."""
    tx.execute(NODE.update().where(NODE.c.node == node).values(epoch=NODE.c.epoch + 1, connected=True))


def connected(tx: Transaction) -> dict[str, bool]:
    return {row.node: row.connected for row in node_rows.page(tx, "", 1000).rows}


async def test_a_replica_lives_while_it_beats(store: Store) -> None:
    """Its beat grows; once removed it is told so."""
    await store.write(lambda tx: enter(tx, "one", "10.0.0.1:50051"))
    await store.write(lambda tx: enter(tx, "two"))
    beaten = [await store.write(lambda tx: replica_rows.beat(tx, "one")) for _ in range(2)]
    [one, two] = await store.read(replica_rows.everyone)

    assert beaten == [True, True]
    assert (one.replica, one.beat, one.roles, one.peer_address) == ("one", 3, ["hub", "loops"], "10.0.0.1:50051")
    assert (two.beat, one.started_time) == (1, NOW)
    assert await store.write(lambda tx: replica_rows.leave(tx, "one"))
    assert not await store.write(lambda tx: replica_rows.beat(tx, "one"))


async def test_who_has_lived_since_is_not_gone(store: Store) -> None:
    """A replica is removed by the beat at which it was last seen, or not at all."""
    await store.write(lambda tx: enter(tx, "one"))
    await store.write(lambda tx: replica_rows.beat(tx, "one"))

    assert not await store.write(lambda tx: replica_rows.leave(tx, "one", beat=1))
    assert [row.replica for row in await store.read(replica_rows.everyone)] == ["one"]
    assert await store.write(lambda tx: replica_rows.leave(tx, "one", beat=2))
    assert await store.read(replica_rows.everyone) == []
    assert not await store.write(lambda tx: replica_rows.leave(tx, "one", beat=2))


async def test_what_a_gone_replica_had_is_free(store: Store) -> None:
    """Its work and its links, and nothing of anybody else's."""
    await store.write(lambda tx: enter(tx, "one"))
    await store.write(lambda tx: enter(tx, "two"))
    for node, hub in (("node-a", "one"), ("node-b", "two")):
        await store.write(lambda tx, node=node, hub=hub: link_to(tx, node, hub))  # type: ignore[misc]
    await store.write(lambda tx: leader_leases.claim(tx, "placing", "one"))
    await store.write(lambda tx: leader_leases.claim(tx, "reaping", "two"))

    await store.write(lambda tx: replica_rows.leave(tx, "one"))

    assert await store.read(connected) == {"node-a": False, "node-b": True}
    assert await store.write(lambda tx: leader_leases.claim(tx, "placing", "two")) == 2
    assert await store.write(lambda tx: leader_leases.claim(tx, "reaping", "one")) is None


async def test_a_link_to_a_version_without_replicas_is_not_cut_with_one(store: Store) -> None:
    """The name of the replica that had the link before still stands there, and means nothing."""
    await store.write(lambda tx: enter(tx, "one", "10.0.0.1:50051"))
    await store.write(lambda tx: link_to(tx, "node-a", "one"))
    linked = await store.read(lambda tx: replica_rows.address_of_hub(tx, "node-a"))
    await store.write(lambda tx: link_by_an_old_version(tx, "node-a"))
    [presence] = await store.read(node_rows.link_statuses)
    await store.write(lambda tx: replica_rows.leave(tx, "one"))

    assert linked == ("one", PeerAddress("10.0.0.1:50051"))
    assert (presence.hub, presence.epoch) == (None, 2)
    assert await store.read(lambda tx: replica_rows.address_of_hub(tx, "node-a")) == ("", PeerAddress())
    assert await store.read(connected) == {"node-a": True}


async def test_a_reclaimed_node_is_its_replicas_again(store: Store) -> None:
    """By the epoch of its link; an older link reclaims nothing."""
    await store.write(lambda tx: enter(tx, "one"))
    epoch = await store.write(lambda tx: link_to(tx, "node-a", "one"))
    await store.write(lambda tx: replica_rows.leave(tx, "one"))
    await store.write(lambda tx: node_rows.set_silent(tx, "node-a", epoch, now=NOW))

    assert not await store.write(lambda tx: node_rows.reclaim(tx, "node-a", epoch - 1, "one", now=NOW))
    assert await store.write(lambda tx: node_rows.reclaim(tx, "node-a", epoch, "one", now=NOW + S))
    [presence] = await store.read(node_rows.link_statuses)
    assert (presence.hub, presence.connected, presence.reachable) == ("one", True, True)


async def test_work_is_one_replicas_until_it_is_removed(store: Store) -> None:
    """No replica takes it from one that is known, every claim draws a greater token, and older ones guard nothing."""
    for name in ("one", "two"):
        await store.write(lambda tx, name=name: enter(tx, name))  # type: ignore[misc]
    first = await store.write(lambda tx: leader_leases.claim(tx, "placing", "one"))
    refused = await store.write(lambda tx: leader_leases.claim(tx, "placing", "two"))
    again = await store.write(lambda tx: leader_leases.claim(tx, "placing", "one"))
    await store.write(lambda tx: replica_rows.leave(tx, "one"))
    taken = await store.write(lambda tx: leader_leases.claim(tx, "placing", "two"))

    assert (first, refused, again, taken) == (1, None, 2, 3)
    assert [await store.write(lambda tx, t=t: leader_leases.holds(tx, "placing", t)) for t in (1, 2, 3)] == [  # type: ignore[misc]
        False,
        False,
        True,
    ]


async def test_a_claim_skips_what_another_claims_at_this_moment(store: Store) -> None:
    """It does not wait, and of two exactly one has the work."""
    if not store.shared:
        pytest.skip("SQLite has one writer: there is no other one at any moment")
    await store.write(lambda tx: enter(tx, "one"))
    await store.write(lambda tx: leader_leases.claim(tx, "placing", "nobody that is known"))
    with store.engine.writer.begin() as connection:
        claimed = leader_leases.claim(Transaction(connection, store.engine), "placing", "one")
        skipped = await store.write(lambda tx: leader_leases.claim(tx, "placing", "two"))

    assert (claimed, skipped) == (2, None)
    assert await store.write(lambda tx: leader_leases.claim(tx, "placing", "two")) is None


async def test_of_two_first_claims_one_succeeds_and_the_other_is_no_error(store: Store) -> None:
    """The row that both would make is made once."""
    if not store.shared:
        pytest.skip("SQLite has one writer: there is no other one at any moment")
    with store.engine.writer.begin() as connection:
        first = leader_leases.claim(Transaction(connection, store.engine), "placing", "one")
        other = asyncio.create_task(store.write(lambda tx: leader_leases.claim(tx, "placing", "two")))
        await until(lambda: store.read(_somebody_waits), what="the other one waits")

    assert (first, await other) == (1, None)


def _somebody_waits(tx: Transaction) -> bool:
    waiting = text("SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")
    return tx.execute(waiting).first() is not None


async def test_a_token_is_the_newest_until_the_write_under_it_is_done(store: Store) -> None:
    """A replica that takes the work over in the middle of a write skips it, and takes it afterwards."""
    if not store.shared:
        pytest.skip("SQLite has one writer: there is no other one at any moment")
    await store.write(lambda tx: leader_leases.claim(tx, "placing", "somebody who was removed"))
    with store.engine.writer.begin() as connection:
        tx = Transaction(connection, store.engine)
        assert leader_leases.holds(tx, "placing", 1)
        join(tx, "node-a")
        during = await store.write(lambda tx: leader_leases.claim(tx, "placing", "two"))
    after = await store.write(lambda tx: leader_leases.claim(tx, "placing", "two"))

    assert (during, after) == (None, 2)
    assert not await store.write(lambda tx: leader_leases.holds(tx, "placing", 1))


async def test_a_transaction_that_stands_still_is_ended(store: Store) -> None:
    """Its locks would hold up the replica that removes the replica that was stopped in the middle of it."""
    if not store.shared:
        pytest.skip("on SQLite no other process waits for it")
    for kind in (store.read, store.write):
        shown = await kind(lambda tx: tx.execute(select(func.current_setting(_IDLE))).scalar_one())
        assert shown == "3s"


async def test_whose_transaction_was_ended_so_is_told_that_the_store_failed(store: Store) -> None:
    """As of any other failure of the database: a loop tries again, and the next write has a new connection."""
    if not store.shared:
        pytest.skip("on SQLite no other process waits for it")

    def stands_still(tx: Transaction) -> None:
        tx.execute(text("SET LOCAL idle_in_transaction_session_timeout = '50ms'"))
        driver: Any = tx.connection.connection.driver_connection
        assert wait_for_readable([driver], [], [], 10)[0], "it was not ended"
        tx.execute(select(func.now()))

    for kind in (store.read, store.write):
        with pytest.raises(errors.Unavailable):
            await kind(stands_still)
        assert await kind(lambda tx: tx.execute(select(func.count()).select_from(NODE)).scalar_one()) == 0


_IDLE = "idle_in_transaction_session_timeout"
