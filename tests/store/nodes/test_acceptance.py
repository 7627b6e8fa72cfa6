"""Acceptance: what is placed on, and what an operator has to look at first."""

from __future__ import annotations

from typing import Any

from sqlalchemy import update

from footlights.store import Store, Transaction
from footlights.store.launches import slots
from footlights.store.nodes import acceptance, fleet, node_rows
from footlights.store.nodes.inventory import ReportedDevice
from footlights.store.nodes.links import LinkOpening
from footlights.store.schema import NODE
from tests.store.rows import NOW, link


def opening(*hardware: str, accept: bool = False) -> LinkOpening:
    readings = [ReportedDevice(each, 2, b"", hardware=each) for each in hardware]
    return LinkOpening("node-a", "one", b"", readings, NOW, accept=accept)


async def linked(store: Store, *hardware: str, accept: bool = False) -> str | None:
    """Open a link with these devices; return why the node has to be accepted."""
    await store.write(lambda tx: link(tx, opening(*hardware, accept=accept)))
    return await store.read(standing)


def standing(tx: Transaction) -> str | None:
    row = node_rows.get(tx, "node-a")
    assert row is not None
    [member] = fleet.members(tx, ["node-a"])
    # Whoever places sees the same.
    assert (row.acceptance is None) == (slots.open_nodes(tx, ["node-a"]) == {"node-a"}) == (member.acceptance is None)
    assert [each.acceptance for each in node_rows.standings(tx)] == [row.acceptance]
    return row.acceptance


async def test_a_new_node_waits_until_it_is_accepted_however_often_it_links(store: Store) -> None:
    """Then it takes sessions, and its next links too."""
    assert await linked(store, "GPU-0") == "NEW_NODE"
    assert await linked(store, "GPU-0", "GPU-1") == "NEW_NODE"

    await store.write(lambda tx: acceptance.accept(tx, "node-a", {"GPU-0", "GPU-1"}))

    assert await store.read(standing) is None
    assert await linked(store, "GPU-0", "GPU-1") is None


async def test_only_hardware_that_was_not_accepted_has_to_be(store: Store) -> None:
    """A GPU that fails and comes back is what it was; one that is new is not, also in the place of another."""
    await linked(store, "GPU-0", "GPU-1", accept=True)

    found = [await linked(store, *devices) for devices in (["GPU-0"], [], ["GPU-1", "GPU-0"], ["GPU-0", "GPU-2"])]
    assert found == [None, None, None, "HARDWARE_CHANGED"]
    assert await linked(store, "GPU-0") is None

    assert await linked(store, "GPU-2") == "HARDWARE_CHANGED"
    await store.write(lambda tx: acceptance.accept(tx, "node-a", {"GPU-2"}))
    assert await linked(store, "GPU-2") is None
    assert await linked(store, "GPU-0") == "HARDWARE_CHANGED"


async def test_nodes_of_before_the_upgrade_are_accepted_as_they_are(store: Store) -> None:
    """Their hardware is known from their next link on."""
    await linked(store, "GPU-0", accept=True)
    before: dict[str, Any] = {"acceptance": None, "accepted_hardware": None}
    await store.write(lambda tx: tx.execute(update(NODE).values(before)))

    assert await store.read(standing) is None
    assert await linked(store, "GPU-1") is None
    assert await linked(store, "GPU-0") == "HARDWARE_CHANGED"


async def test_a_software_renderer_is_no_hardware(store: Store) -> None:
    """A node that was accepted with its GPU offers renderers beside it later, or its GPU's driver comes late."""
    await linked(store, "GPU-0", accept=True)
    assert await linked(store, "GPU-0", "") is None
    assert await linked(store, "") is None

    await store.write(lambda tx: acceptance.accept(tx, "node-a", set()))
    assert await linked(store, "") is None
    assert await linked(store, "", "GPU-0") == "HARDWARE_CHANGED"
