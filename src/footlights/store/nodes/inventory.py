"""The devices of nodes as their agents report them, for many nodes at once."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, delete, insert, select, update

from footlights.store.nodes import device_history
from footlights.store.nodes.device_history import DeviceEvent
from footlights.store.schema import DEVICE, DeviceRow

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from footlights.store.unit import Transaction


@dataclass(frozen=True, slots=True)
class ReportedDevice:
    """A device as its agent reports it; ``reading`` is the serialized ``footlights.v1.Device``."""

    uuid: str
    slots: int
    reading: bytes
    sick: bool = False
    """Whether it cannot be used."""
    reason: str = ""
    message: str = ""
    hardware: str = ""
    """The piece of hardware that it is, or is a part of; empty where it is none."""


@dataclass(frozen=True, slots=True)
class ReportedDevices:
    """All devices of a node, as reported at a moment."""

    node: str
    readings: Sequence[ReportedDevice]
    now: datetime


def replace(tx: Transaction, inventories: Sequence[ReportedDevices]) -> None:
    """Replace the devices of nodes; a device that becomes sick, or well again, gets an event in its history.

    Each node is named once. A device that is reported unchanged is not written.
    """
    known: defaultdict[str, dict[str, DeviceRow]] = defaultdict(dict)
    names = [each.node for each in inventories]
    for row in tx.all(select(DEVICE).where(DEVICE.c.node.in_(names)), DeviceRow):
        known[row.node][row.uuid] = row
    unknown = {each.node for each in inventories if any(one.uuid not in known[each.node] for one in each.readings)}
    last = device_history.last(tx, unknown)
    fresh: list[dict[str, Any]] = []
    changed: list[dict[str, Any]] = []
    events: list[DeviceEvent] = []
    for each in inventories:
        rows = known[each.node]
        if gone := rows.keys() - {reading.uuid for reading in each.readings}:
            tx.execute(delete(DEVICE).where(DEVICE.c.node == each.node, DEVICE.c.uuid.in_(gone)))
        events += _health_events(each, rows, last)
        # Of a device that is reported twice the last reading counts.
        for uuid, reading in {reading.uuid: reading for reading in each.readings}.items():
            before = rows.get(uuid)
            if before is None:
                fresh.append(_values(each.node, reading))
            elif (before.slots, before.reading, before.sick) != (reading.slots, reading.reading, reading.sick):
                changed.append(_values(each.node, reading))
    if fresh:
        tx.execute(insert(DEVICE), fresh)
    if changed:
        tx.execute(_CHANGE, [{"of_node": row.pop("node"), "of_uuid": row.pop("uuid"), **row} for row in changed])
    device_history.record_all(tx, events)


def _health_events(
    inventory: ReportedDevices, rows: Mapping[str, DeviceRow], last: Mapping[tuple[str, str], str]
) -> Iterator[DeviceEvent]:
    node = inventory.node
    sick = {uuid: row.sick for uuid, row in rows.items()}
    for reading in inventory.readings:
        uuid = reading.uuid
        if reading.sick and not sick.get(uuid):
            yield DeviceEvent(node, uuid, reading.reason or "UNHEALTHY", reading.message, inventory.now)
        elif not reading.sick and sick.get(
            uuid, last.get((node, uuid), device_history.RECOVERED) != device_history.RECOVERED
        ):
            yield DeviceEvent(node, uuid, device_history.RECOVERED, "It reads well again.", inventory.now)
        sick[uuid] = reading.sick


def _values(node: str, reading: ReportedDevice) -> dict[str, Any]:
    return {
        "node": node,
        "uuid": reading.uuid,
        "slots": reading.slots,
        "reading": reading.reading,
        "sick": reading.sick,
    }


_CHANGE = (
    update(DEVICE)
    .where(DEVICE.c.node == bindparam("of_node"), DEVICE.c.uuid == bindparam("of_uuid"))
    .values(slots=bindparam("slots"), reading=bindparam("reading"), sick=bindparam("sick"))
)
