"""Links opened and closed: those that share a commit are read and written together.

Thousands of agents come back in the same seconds after a restart; each one alone would take a dozen statements.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, update

from footlights import errors
from footlights.store.bulk import Inserter
from footlights.store.nodes import acceptance, inventory, node_rows
from footlights.store.nodes.inventory import ReportedDevice, ReportedDevices
from footlights.store.schema import NODE, NodeRow
from footlights.store.unit import BatchWrite, Transaction

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class LinkOpening:
    """An agent that opens its link to one replica."""

    node: str
    incarnation: str
    facts: bytes
    readings: Sequence[ReportedDevice]
    now: datetime
    hub: str = ""
    """The replica."""
    after_epoch: int | None = None
    """The node's epoch when it was read; None where it was not."""
    address: str = ""
    """The IP address that it comes from; empty where that is not over a network."""
    accept: bool = True
    """Whether the node is accepted whatever it is."""


@dataclass(frozen=True, slots=True)
class LinkClosing:
    """A link that has ended."""

    node: str
    epoch: int
    now: datetime


def link_all(tx: Transaction, openings: Sequence[LinkOpening]) -> list[int | errors.Error]:
    """Record openings in their order and answer for each with its new epoch, which voids all older links of the node.

    An answer is an ``errors.Conflict`` where another agent has opened a link under the name since ``after_epoch``.

    Raises Conflict where one of several nodes was linked elsewhere in between; each alone can tell whether it was it.
    """
    answers: list[int | errors.Error] = [0] * len(openings)
    left = list(range(len(openings)))
    while left:
        # Of several under one name, each finds what the one before it has written.
        turn: dict[str, int] = {}
        for number in left:
            turn.setdefault(openings[number].node, number)
        # By name, so that two replicas never deadlock.
        chosen = [turn[node] for node in sorted(turn)]
        epochs = _link_each_once(tx, [openings[number] for number in chosen])
        for number, epoch in zip(chosen, epochs, strict=True):
            answers[number] = epoch
        left = [number for number in left if turn[openings[number].node] != number]
    return answers


def unlink_all(tx: Transaction, closings: Sequence[LinkClosing]) -> list[None]:
    """Record that links have ended, each unless a newer one has begun."""
    tx.execute(_END, [_end(each) for each in sorted(closings, key=lambda each: each.node)])
    return [None] * len(closings)


OPENINGS: BatchWrite[LinkOpening, int] = BatchWrite("open links", link_all)
"""Opens links together: ``await store.write_batched(links.OPENINGS, LinkOpening(...))``."""

CLOSINGS: BatchWrite[LinkClosing, None] = BatchWrite("close links", unlink_all)
"""Closes links together."""


def _link_each_once(tx: Transaction, openings: Sequence[LinkOpening]) -> list[int | errors.Error]:
    known = node_rows.some(tx, [opening.node for opening in openings])
    answers: list[int | errors.Error] = []
    linked: list[LinkOpening] = []
    fresh: list[NodeRow] = []
    again: list[dict[str, Any]] = []
    for opening in openings:
        row = known.get(opening.node)
        seen = 0 if row is None else row.epoch
        if opening.after_epoch is not None and opening.after_epoch != seen:
            answers.append(_late(opening.node))
            continue
        answers.append(seen + 1)
        linked.append(opening)
        if row is None:
            fresh.append(_first(opening))
        else:
            again.append(_next(opening, row))
    _insert_nodes(tx, fresh)
    if again and tx.changed(_BEGIN, again) < len(again):
        # Which of them another replica was faster with is not known: each is tried alone.
        raise _late(again[0]["of_node"])
    inventory.replace(tx, [ReportedDevices(each.node, each.readings, each.now) for each in linked])
    for opening in linked:
        row = known.get(opening.node)
        if row is not None and not row.reachable:
            node_rows.derive_all(tx, opening.node, opening.now)
    return answers


def _first(opening: LinkOpening) -> NodeRow:
    return NodeRow(
        node=opening.node,
        incarnation=opening.incarnation,
        epoch=1,
        connected=True,
        reachable=True,
        cordoned=False,
        draining=False,
        drain_time=None,
        facts=opening.facts,
        created_time=opening.now,
        connected_time=opening.now,
        last_seen_time=opening.now,
        notices={},
        hub=opening.hub,
        hub_epoch=1,
        link_address=opening.address,
        **acceptance.judge(None, opening.readings, accept=opening.accept)._asdict(),
    )


def _next(opening: LinkOpening, row: NodeRow) -> dict[str, Any]:
    accepted = acceptance.judge(row, opening.readings, accept=opening.accept)
    return {
        "of_node": opening.node,
        "seen": row.epoch,
        "next": row.epoch + 1,
        "by": opening.incarnation,
        "with_facts": opening.facts,
        "moment": opening.now,
        "at": opening.hub,
        "from": opening.address,
        "why": accepted.acceptance,
        "of_hardware": accepted.accepted_hardware,
    }


def _end(closing: LinkClosing) -> dict[str, Any]:
    return {"of_node": closing.node, "of_epoch": closing.epoch, "moment": closing.now}


def _late(node: str) -> errors.Conflict:
    return errors.Conflict(f"Another agent has just opened a link as {node}.")


_insert_nodes = Inserter(NODE)
_BEGIN = (
    update(NODE)
    .where(NODE.c.node == bindparam("of_node"), NODE.c.epoch == bindparam("seen"))
    .values(
        incarnation=bindparam("by"),
        epoch=bindparam("next"),
        hub_epoch=bindparam("next"),
        facts=bindparam("with_facts"),
        connected=True,
        reachable=True,
        connected_time=bindparam("moment"),
        last_seen_time=bindparam("moment"),
        hub=bindparam("at"),
        link_address=bindparam("from"),
        acceptance=bindparam("why"),
        accepted_hardware=bindparam("of_hardware"),
    )
)
_END = (
    update(NODE)
    .where(NODE.c.node == bindparam("of_node"), NODE.c.epoch == bindparam("of_epoch"))
    .values(connected=False, last_seen_time=bindparam("moment"))
)
