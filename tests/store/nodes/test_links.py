"""Links that are opened or closed together: each as if it were alone."""

from __future__ import annotations

import asyncio

from footlights import errors
from footlights.store import Store, Transaction
from footlights.store.nodes import inventory, links, node_rows
from footlights.store.nodes.inventory import ReportedDevice, ReportedDevices
from footlights.store.nodes.links import LinkClosing, LinkOpening
from tests.store.rows import NOW, S, read, running


def arrival(node: str, incarnation: str = "one", *devices: str, after: int | None = None) -> LinkOpening:
    readings = [ReportedDevice(uuid, 2, b"") for uuid in devices or ("GPU-0",)]
    return LinkOpening(node, incarnation, b"facts", readings, NOW + S, hub="replica-a", after_epoch=after)


async def link_all(store: Store, *arrivals: LinkOpening) -> list[int | errors.Error]:
    return await store.write(lambda tx: links.link_all(tx, arrivals))


def shown(tx: Transaction) -> list[tuple[str, str, int, int | None, bool]]:
    return [
        (row.node, row.incarnation, row.epoch, row.hub_epoch, row.connected)
        for row in node_rows.page(tx, "", 1000).rows
    ]


async def test_known_and_new_nodes_link_in_one_commit(store: Store) -> None:
    """Each with an epoch and devices of its own; what is reported as it was known stays."""
    await link_all(store, arrival("b", "one", "GPU-1", "GPU-2"))

    epochs = await link_all(store, arrival("c"), arrival("b", "two", "GPU-2", "GPU-3"), arrival("a"))

    assert epochs == [1, 2, 1]
    assert await store.read(shown) == [("a", "one", 1, 1, True), ("b", "two", 2, 2, True), ("c", "one", 1, 1, True)]
    found = await store.read(lambda tx: node_rows.devices(tx, ["node-a", "node-b", "a", "b", "c"]))
    assert [(row.node, row.uuid) for row in found] == [("a", "GPU-0"), ("b", "GPU-2"), ("b", "GPU-3"), ("c", "GPU-0")]


async def test_two_agents_with_one_name_in_one_commit_are_one_after_the_other(store: Store) -> None:
    """The second was not there when the first looked, and no other is concerned."""
    answers = await link_all(store, arrival("a", "one", after=0), arrival("b", after=0), arrival("a", "two", after=0))

    assert answers[:2] == [1, 1]
    assert isinstance(answers[2], errors.Conflict)
    assert await store.read(shown) == [("a", "one", 1, 1, True), ("b", "one", 1, 1, True)]

    assert await link_all(store, arrival("a", "one"), arrival("a", "two")) == [2, 3]
    assert (await store.read(shown))[0] == ("a", "two", 3, 3, True)


async def test_one_that_looked_too_early_is_refused_alone(store: Store) -> None:
    """Of those that share its commit, the others are linked."""
    await link_all(store, arrival("a"), arrival("b"))
    await link_all(store, arrival("b", "two"))

    together = await asyncio.gather(
        *(store.write_batched(links.OPENINGS, arrival(node, "three", after=1)) for node in ("a", "b", "c")),
        return_exceptions=True,
    )

    assert [type(answer) for answer in together] == [int, errors.Conflict, errors.Conflict]
    assert await store.read(shown) == [("a", "three", 2, 2, True), ("b", "two", 2, 2, True)]


async def test_sessions_of_every_node_that_comes_back_show_it(store: Store) -> None:
    """Also where another node comes with it."""
    row, _ = await running(store)
    await store.write(lambda tx: node_rows.set_silent(tx, "node-a", 1, now=NOW))

    await link_all(store, arrival("node-b"), arrival("node-a"))

    back = await store.read(lambda tx: read(tx, row.session_id))
    assert back.condition == "OK"


async def test_links_that_end_together_end_only_their_own(store: Store) -> None:
    """A newer one goes on."""
    await link_all(store, arrival("a"), arrival("b"), arrival("c"))
    await link_all(store, arrival("b", "two"))

    await asyncio.gather(
        *(store.write_batched(links.CLOSINGS, LinkClosing(node, 1, NOW + 2 * S)) for node in ("a", "b", "c"))
    )

    assert [(node, connected) for node, _, _, _, connected in await store.read(shown)] == [
        ("a", False),
        ("b", True),
        ("c", False),
    ]


async def test_devices_of_many_nodes_are_replaced_each_by_its_own(store: Store) -> None:
    """One name of a device on two nodes is two devices, and each has its own health."""
    await link_all(store, arrival("a", "one", "X", "Y"), arrival("b", "one", "X"))
    sick = ReportedDevice("X", 3, b"new", sick=True, reason="XID_79")

    await store.write(
        lambda tx: inventory.replace(
            tx, [ReportedDevices("a", [sick], NOW), ReportedDevices("b", [ReportedDevice("X", 2, b"")], NOW)]
        )
    )

    found = await store.read(lambda tx: node_rows.devices(tx, ["node-a", "node-b", "a", "b", "c"]))
    assert [(row.node, row.uuid, row.slots, row.reading, row.sick) for row in found] == [
        ("a", "X", 3, b"new", True),
        ("b", "X", 2, b"", False),
    ]
