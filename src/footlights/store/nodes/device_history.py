"""A bounded history of the events of each device."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import and_, bindparam, delete, func, select

from footlights.store.bulk import Inserter
from footlights.store.schema import DEVICE_EVENT, DeviceEventRow

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from footlights.store.unit import Transaction

MOST_EVENTS = 50
"""How many events of one device are kept."""

RECOVERED = "RECOVERED"
"""The reason of the event with which a device is well again."""


class DeviceEvent(NamedTuple):
    """Something that has happened to a device."""

    node: str
    uuid: str
    reason: str
    message: str
    now: datetime


def record(tx: Transaction, node: str, uuid: str, reason: str, message: str, *, now: datetime) -> None:
    """Add an event to a device's history, and remove its oldest."""
    record_all(tx, [DeviceEvent(node, uuid, reason, message, now)])


def record_all(tx: Transaction, events: Sequence[DeviceEvent]) -> None:
    """Add events to the histories of their devices, in their order, and remove the oldest of these."""
    if not events:
        return
    table = DEVICE_EVENT.c
    of_these = table.node.in_({event.node for event in events}), table.uuid.in_({event.uuid for event in events})
    newest = select(table.node, table.uuid, func.max(table.number)).where(*of_these).group_by(table.node, table.uuid)
    numbers: dict[tuple[str, str], int] = {(node, uuid): number for node, uuid, number in tx.execute(newest)}
    rows = []
    for event in events:
        key = event.node, event.uuid
        numbers[key] = numbers.get(key, 0) + 1
        rows.append(DeviceEventRow(*key, numbers[key], event.now, event.reason, event.message))
    _insert_events(tx, rows)
    long = {(event.node, event.uuid) for event in events if numbers[event.node, event.uuid] > MOST_EVENTS}
    if long:
        tx.execute(
            _REMOVE_OLDEST,
            [{"of_node": node, "of_uuid": uuid, "last": numbers[node, uuid] - MOST_EVENTS} for node, uuid in long],
        )


def events(
    tx: Transaction, *, nodes: Collection[str] | None = None, since: datetime | None = None
) -> list[DeviceEventRow]:
    """Return what happened to all devices, or to those of some nodes, since a moment: by device, oldest first."""
    statement = select(DEVICE_EVENT).order_by(DEVICE_EVENT.c.node, DEVICE_EVENT.c.uuid, DEVICE_EVENT.c.number)
    if nodes is not None:
        statement = statement.where(DEVICE_EVENT.c.node.in_(nodes))
    if since is not None:
        statement = statement.where(DEVICE_EVENT.c.time >= since)
    return tx.all(statement, DeviceEventRow)


def last(tx: Transaction, nodes: Collection[str]) -> dict[tuple[str, str], str]:
    """Return the reason of the last event of each device of some nodes, by node and uuid."""
    if not nodes:
        return {}
    table = DEVICE_EVENT.c
    newest = (
        select(table.node, table.uuid, func.max(table.number).label("number"))
        .where(table.node.in_(nodes))
        .group_by(table.node, table.uuid)
        .subquery()
    )
    same = and_(table.node == newest.c.node, table.uuid == newest.c.uuid, table.number == newest.c.number)
    found = tx.execute(select(table.node, table.uuid, table.reason).join(newest, same))
    return {(node, uuid): reason for node, uuid, reason in found}


def forget(tx: Transaction, node: str) -> None:
    """Remove the history of a node's devices."""
    tx.execute(delete(DEVICE_EVENT).where(DEVICE_EVENT.c.node == node))


_insert_events = Inserter(DEVICE_EVENT)
_REMOVE_OLDEST = delete(DEVICE_EVENT).where(
    DEVICE_EVENT.c.node == bindparam("of_node"),
    DEVICE_EVENT.c.uuid == bindparam("of_uuid"),
    DEVICE_EVENT.c.number <= bindparam("last"),
)
