"""The history of devices: what goes into it from an `inventory`, and its bound."""

from __future__ import annotations

from footlights.lifecycle import LaunchState
from footlights.store import Store, Transaction
from footlights.store.nodes import device_history, inventory, node_rows
from footlights.store.nodes.inventory import ReportedDevice, ReportedDevices
from tests.store.rows import NOW, S, join, observe, running


def sick(uuid: str = "GPU-0", reason: str = "XID_79") -> ReportedDevice:
    return ReportedDevice(uuid, 2, b"", sick=True, reason=reason, message="fell off")


async def report(store: Store, *readings: ReportedDevice) -> None:
    await store.write(lambda tx: inventory.replace(tx, [ReportedDevices("node-a", readings, NOW)]))


def reasons(tx: Transaction) -> list[tuple[str, str]]:
    return [(event.uuid, event.reason) for event in device_history.events(tx)]


async def test_becoming_sick_and_well_again_are_events_and_staying_so_is_none(store: Store) -> None:
    """One each, whatever is reported in between; other devices are not concerned."""
    await store.write(lambda tx: join(tx, "node-a", "GPU-0", "GPU-1"))
    well = [ReportedDevice("GPU-0", 2, b""), ReportedDevice("GPU-1", 2, b"")]
    for readings in (well, [sick(), well[1]], [sick(), well[1]], well, well):
        await report(store, *readings)

    assert await store.read(reasons) == [("GPU-0", "XID_79"), ("GPU-0", "RECOVERED")]
    [first, _] = await store.read(device_history.events)
    assert (first.node, first.number, first.time, first.message) == ("node-a", 1, NOW, "fell off")


async def test_a_sick_device_that_went_and_came_back_well_has_recovered(store: Store) -> None:
    """Otherwise it would be sick indefinitely in its history."""
    await store.write(lambda tx: join(tx))
    for readings in ([sick()], [], [ReportedDevice("GPU-0", 2, b"")], [], [ReportedDevice("GPU-0", 2, b"")]):
        await report(store, *readings)

    assert await store.read(reasons) == [("GPU-0", "XID_79"), ("GPU-0", "RECOVERED")]


async def test_the_end_of_a_launch_by_its_device_goes_into_the_history(store: Store) -> None:
    """Once, and a crash does not."""
    _, crashed = await running(store, 0)
    _, lost = await running(store, 1)

    for _ in range(2):
        await store.write(lambda tx: observe(tx, crashed, LaunchState.EXITED, exit_code=1, reason="CRASHED"))
        await store.write(lambda tx: observe(tx, lost, LaunchState.EXITED, reason="GPU_LOST", message="gone"))

    assert await store.read(reasons) == [("GPU-0", "GPU_LOST")]


async def test_a_history_is_bounded_and_keeps_the_newest(store: Store) -> None:
    """Per device, so that one that flaps does not push out the others'."""
    await store.write(lambda tx: device_history.record(tx, "node-a", "GPU-1", "XID_48", "", now=NOW))

    def write(tx: Transaction) -> None:
        for number in range(device_history.MOST_EVENTS + 10):
            device_history.record(tx, "node-a", "GPU-0", f"R{number}", "", now=NOW + number * S)

    await store.write(write)

    found = await store.read(reasons)
    assert len(found) == device_history.MOST_EVENTS + 1
    assert (found[0], found[-2]) == (("GPU-0", "R10"), ("GPU-0", "R59"))
    assert len(await store.read(lambda tx: device_history.events(tx, nodes=["node-a"], since=NOW + 50 * S))) == 10
    assert await store.read(lambda tx: device_history.events(tx, nodes=["node-b"])) == []


async def test_a_forgotten_nodes_devices_have_no_history(store: Store) -> None:
    """A new machine may get its name."""
    await store.write(lambda tx: join(tx))
    await store.write(lambda tx: inventory.replace(tx, [ReportedDevices("node-a", [sick()], NOW)]))

    await store.write(lambda tx: node_rows.forget(tx, "node-a", now=NOW))

    assert await store.read(device_history.events) == []
