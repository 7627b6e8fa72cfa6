"""A bounded history of the events of each device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import and_, delete, func, insert, select

from footlights.store.schema import DEVICE_EVENT, DeviceEventRow

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from footlights.store.unit import Transaction

MOST_EVENTS = 50
"""How many events of one device are kept."""

RECOVERED = "RECOVERED"
"""The reason of the event with which a device is well again."""


def record(tx: Transaction, node: str, uuid: str, reason: str, message: str, *, now: datetime) -> None:
    """Add an event to a device's history, and remove its oldest."""
    mine = (DEVICE_EVENT.c.node == node, DEVICE_EVENT.c.uuid == uuid)
    last = tx.execute(select(func.max(DEVICE_EVENT.c.number)).where(*mine)).scalar_one()
    number = int(last or 0) + 1
    tx.execute(
        insert(DEVICE_EVENT).values(node=node, uuid=uuid, number=number, time=now, reason=reason, message=message)
    )
    tx.execute(delete(DEVICE_EVENT).where(*mine, DEVICE_EVENT.c.number <= number - MOST_EVENTS))


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
