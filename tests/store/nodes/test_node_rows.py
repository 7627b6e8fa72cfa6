"""Nodes: linked in epochs, silent without losing what runs there, forgotten on purpose only (`database_time`)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import event, update

from footlights.lifecycle import LaunchState
from footlights.store import Store, Transaction
from footlights.store.cluster import database_time
from footlights.store.launches import launch_rows
from footlights.store.nodes import inventory, node_rows
from footlights.store.nodes.inventory import ReportedDevice, ReportedDevices
from footlights.store.nodes.node_rows import NodeScheduling
from footlights.store.schema import NODE, NodeRow
from tests.store.rows import NOW, S, begin, create, join, read, running, unlink

L = LaunchState


def known(tx: Transaction) -> NodeRow:
    found = node_rows.get(tx, "node-a")
    assert found is not None
    return found


async def test_every_link_is_a_new_epoch(store: Store) -> None:
    """The first makes the node; each later one voids those before it."""
    first = await store.write(join)
    second = await store.write(lambda tx: join(tx, now=NOW + S))

    assert (first.epoch, second.epoch) == (1, 2)
    assert first.incarnation != second.incarnation
    assert (second.created_time, second.connected_time) == (NOW, NOW + S)
    assert second.connected
    assert second.reachable


async def test_a_link_that_was_replaced_cannot_disconnect_its_node(store: Store) -> None:
    """The end of an older link is no news."""
    first = await store.write(join)
    second = await store.write(join)

    assert not await store.write(lambda tx: unlink(tx, "node-a", first.epoch, now=NOW + S))
    assert (await store.read(known)).connected
    assert await store.write(lambda tx: unlink(tx, "node-a", second.epoch, now=NOW + S))

    after = await store.read(known)
    assert (after.connected, after.reachable, after.last_seen_time) == (False, True, NOW + S)


async def test_hearing_an_older_link_is_not_hearing_the_node(store: Store) -> None:
    """Only the current epoch moves last_seen_time."""
    first = await store.write(join)
    await store.write(lambda tx: join(tx, now=NOW + S))

    await store.write(lambda tx: node_rows.seen(tx, [("node-a", first.epoch)], now=NOW + 9 * S))
    assert (await store.read(known)).last_seen_time == NOW + S

    await store.write(lambda tx: node_rows.seen(tx, [("node-a", first.epoch + 1)], now=NOW + 9 * S))
    assert (await store.read(known)).last_seen_time == NOW + 9 * S


async def test_a_starting_server_has_no_link(store: Store) -> None:
    """Nodes are disconnected until they come back, and not at once unreachable."""
    await store.write(join)
    await store.write(lambda tx: join(tx, "node-b"))

    assert await store.write(node_rows.disconnect_all) == 2

    rows = (await store.read(lambda tx: node_rows.page(tx, "", 1000))).rows
    assert [(row.node, row.connected, row.reachable) for row in rows] == [
        ("node-a", False, True),
        ("node-b", False, True),
    ]


async def test_sessions_show_that_their_node_is_silent_and_that_it_is_back(store: Store) -> None:
    """They keep their state, their slots and their launch: silence proves nothing."""
    row, launch = await running(store)
    epoch = (await store.read(known)).epoch

    await store.write(lambda tx: node_rows.set_silent(tx, "node-a", epoch, now=NOW + 15 * S))
    silent = await store.read(lambda tx: read(tx, row.session_id))
    await store.write(lambda tx: join(tx, now=NOW + 60 * S))
    back = await store.read(lambda tx: read(tx, row.session_id))

    assert (silent.condition, silent.state, silent.launch_id) == ("UNREACHABLE", "READY", launch.launch_id)
    assert (back.condition, back.state, back.launch_id) == ("OK", "READY", launch.launch_id)
    assert row.revision < silent.revision < back.revision
    assert len(await store.read(launch_rows.live_leases)) == 1


async def test_a_node_that_has_just_come_back_is_not_called_silent(store: Store) -> None:
    """The judge that counted the silence looked at an older link."""
    before = await store.write(join)
    await store.write(join)

    assert not await store.write(lambda tx: node_rows.set_silent(tx, "node-a", before.epoch, now=NOW))

    assert (await store.read(known)).reachable


async def test_the_inventory_is_replaced_as_a_whole(store: Store) -> None:
    """What is no longer reported is gone; what is still there keeps its leases."""

    def write(tx: Transaction) -> list[tuple[str, int, bytes]]:
        join(tx, "node-a", "GPU-0", "GPU-1")
        join(tx, "node-b", "GPU-9")
        begin(tx, create(tx), 0, device="GPU-1")
        inventory.replace(
            tx, [ReportedDevices("node-a", [ReportedDevice("GPU-1", 4, b"new"), ReportedDevice("GPU-2", 1, b"")], NOW)]
        )
        return [(row.uuid, row.slots, row.reading) for row in node_rows.devices(tx, ["node-a"])]

    assert await store.write(write) == [("GPU-1", 4, b"new"), ("GPU-2", 1, b"")]
    assert [row.uuid for row in await store.read(lambda tx: node_rows.devices(tx, ["node-a", "node-b"]))] == [
        "GPU-1",
        "GPU-2",
        "GPU-9",
    ]
    assert len(await store.read(lambda tx: node_rows.live_leases(tx, ["node-a"]))) == 1

    await store.write(lambda tx: inventory.replace(tx, [ReportedDevices("node-a", [], NOW)]))
    assert await store.read(lambda tx: node_rows.devices(tx, ["node-a"])) == []


async def test_a_device_that_is_reported_twice_is_one_device(store: Store) -> None:
    """A confused driver must not keep a node out; the last reading counts."""
    await store.write(join)

    await store.write(
        lambda tx: inventory.replace(
            tx, [ReportedDevices("node-a", [ReportedDevice("X", 1, b"a"), ReportedDevice("X", 2, b"b")], NOW)]
        )
    )

    assert [
        (row.uuid, row.slots) for row in await store.read(lambda tx: node_rows.devices(tx, ["node-a", "node-b"]))
    ] == [("X", 2)]


async def test_a_cordon_survives_a_new_link(store: Store) -> None:
    """It is the operator's word, not the agent's."""
    drained = NOW + timedelta(minutes=5)
    await store.write(join)
    await store.write(lambda tx: node_rows.set_scheduling(tx, "node-a", NodeScheduling(True, True, drained), now=NOW))

    await store.write(join)

    after = await store.read(known)
    assert (after.cordoned, after.draining, after.drain_time) == (True, True, drained)


async def test_a_forgotten_nodes_sessions_end_as_lost(store: Store) -> None:
    """The only place beside an agent where LOST is said; slots and devices are gone with it."""
    row, launch = await running(store)
    await store.write(lambda tx: join(tx, "node-b", "GPU-9"))

    assert await store.write(lambda tx: node_rows.forget(tx, "node-a", now=NOW + S)) == 1

    ended = await store.read(lambda tx: read(tx, row.session_id))
    assert (ended.state, ended.end_reason, ended.ended_time) == ("FAILED", "NODE_LOST", NOW + S)
    assert "will not come back" in ended.status_message
    gone = await store.read(lambda tx: launch_rows.get(tx, launch.launch_id))
    assert gone is not None
    assert (gone.state, gone.reason) == ("LOST", "NODE_FORGOTTEN")
    assert [each.node for each in (await store.read(lambda tx: node_rows.page(tx, "", 1000))).rows] == ["node-b"]
    assert [each.uuid for each in await store.read(lambda tx: node_rows.devices(tx, ["node-a", "node-b"]))] == ["GPU-9"]
    assert await store.read(launch_rows.live_leases) == []


async def test_a_forgotten_node_may_come_back_as_a_new_one(store: Store) -> None:
    """Without devices or leases of its past."""
    await running(store)
    await store.write(lambda tx: node_rows.forget(tx, "node-a", now=NOW))

    back = await store.write(lambda tx: join(tx, now=NOW + S))

    assert (back.epoch, back.created_time) == (1, NOW + S)
    assert await store.read(lambda tx: launch_rows.live_on(tx, "node-a")) == []


async def test_a_server_says_its_own_time(store: Store) -> None:
    """Replicas on several machines have one clock in common; SQLite's is the machine's own."""
    told = await store.read(database_time.of_the_server)

    if store.shared:
        assert told is not None
        assert abs(told - datetime.now(UTC)) < timedelta(minutes=1)
    else:
        assert told is None


async def test_what_an_older_server_uncordons_forgets_who_cordoned_it(store: Store) -> None:
    """It knows none of these members: the database clears them, and only when the last wish is gone."""
    await store.write(join)
    wanted = NodeScheduling(True, True, None, "new memory", "ann", NOW)
    await store.write(lambda tx: node_rows.set_scheduling(tx, "node-a", wanted, now=NOW))

    await store.write(lambda tx: tx.execute(update(NODE).values(cordoned=True, draining=False)))
    kept = await store.read(known)
    await store.write(lambda tx: tx.execute(update(NODE).values(cordoned=False, draining=False)))
    freed = await store.read(known)

    assert (kept.cordon_message, kept.cordon_subject, kept.cordon_time) == ("new memory", "ann", NOW)
    assert (freed.cordon_message, freed.cordon_subject, freed.cordon_time) == (None, None, None)


async def test_an_inventory_is_replaced_by_a_few_statements_however_many_devices_it_has(store: Store) -> None:
    """Also where all of them become sick at once: each device costs a row, and no statement of its own."""

    async def statements(count: int, *, sick: bool) -> int:
        readings = [ReportedDevice(f"GPU-{n}", 1, b"x" * sick, sick=sick) for n in range(count)]
        seen: list[str] = []

        def write(tx: Transaction) -> None:
            def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
                seen.append(statement)

            event.listen(tx.connection, "before_cursor_execute", note)
            inventory.replace(tx, [ReportedDevices("node-a", readings, NOW)])
            event.remove(tx.connection, "before_cursor_execute", note)

        await store.write(write)
        return len(seen)

    await store.write(join)
    for sick in (False, True, False):
        assert await statements(4, sick=sick) + 1 >= await statements(256, sick=sick)
    found = await store.read(lambda tx: node_rows.devices(tx, ["node-a"]))
    assert len(found) == 256
