"""Acceptance: an operator says once that a node, with its hardware, belongs to the fleet.

Nothing is placed on it before. Hardware that is gone needs no acceptance, nor does it when it comes back.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import update

from footlights.store.schema import NODE, NodeRow

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from footlights.store.nodes.inventory import ReportedDevice
    from footlights.store.unit import Transaction

NEW_NODE: Final = "NEW_NODE"
HARDWARE_CHANGED: Final = "HARDWARE_CHANGED"


class Acceptance(NamedTuple):
    """The two columns of a node."""

    acceptance: str | None
    accepted_hardware: str | None


def judge(row: NodeRow | None, readings: Iterable[ReportedDevice], *, accept: bool) -> Acceptance:
    """Return whether a node is accepted that reports these devices; ``row`` is what is known of it, if anything is.

    ``accept`` is whether every node is. One that was there before nodes were accepted is accepted as it is.
    """
    shown = {reading.hardware for reading in readings if reading.hardware}
    if accept:
        return Acceptance(None, _packed(shown))
    if row is None or row.acceptance == NEW_NODE:
        return Acceptance(NEW_NODE, None)
    if row.accepted_hardware is None:
        return Acceptance(None, _packed(shown))
    known = hardware(row)
    return Acceptance(HARDWARE_CHANGED if shown - known else None, row.accepted_hardware)


def hardware(row: NodeRow) -> frozenset[str]:
    """Return the hardware of a node that was accepted."""
    return frozenset(json.loads(row.accepted_hardware or "[]"))


def record(tx: Transaction, node: str, found: Acceptance) -> None:
    """Write whether a node is accepted."""
    tx.execute(update(NODE).where(NODE.c.node == node).values(found._asdict()))


def accept(tx: Transaction, node: str, shown: Collection[str]) -> None:
    """Accept a node with this hardware."""
    record(tx, node, Acceptance(None, _packed(shown)))


def _packed(shown: Collection[str]) -> str:
    return json.dumps(sorted(shown))
