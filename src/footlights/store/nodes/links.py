"""The beginnings and the ends of links: those that share a commit are read and written together.

Thousands of agents come back in the same seconds after a restart; each one alone would take a dozen statements.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, insert, update

from footlights import errors
from footlights.store.nodes import inventory, node_rows
from footlights.store.nodes.inventory import Inventory, Reading
from footlights.store.schema import NODE, Node
from footlights.store.unit import Joint, Transaction

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class Arrival:
    """An agent that opens its link to one replica."""

    node: str
    incarnation: str
    facts: bytes
    readings: Sequence[Reading]
    now: datetime
    hub: str = ""
    """The replica."""
    after_epoch: int | None = None
    """The node's epoch when it was looked at; None where nobody looked."""


@dataclass(frozen=True, slots=True)
class Departure:
    """A link that has ended."""

    node: str
    epoch: int
    now: datetime


def link(tx: Transaction, arrival: Arrival) -> int:
    """Record that an agent has opened its link: a new epoch begins, and older links are void. Return the epoch.

    Raises:
        errors.Conflict: another agent has opened a link under this name since ``after_epoch`` was looked at.
    """
    [answer] = link_all(tx, [arrival])
    if isinstance(answer, errors.Error):
        raise answer
    return answer


def link_all(tx: Transaction, arrivals: Sequence[Arrival]) -> list[int | errors.Error]:
    """Record arrivals in their order and answer for each: what ``link`` returns, or what it raises.

    Raises:
        errors.Conflict: one of several nodes was linked elsewhere in between, which only each alone can tell.
    """
    answers: list[int | errors.Error] = [0] * len(arrivals)
    left = list(range(len(arrivals)))
    while left:
        # Of several that come under one name, each is to find what the one before it has written.
        turn: dict[str, int] = {}
        for number in left:
            turn.setdefault(arrivals[number].node, number)
        # By name, so that two replicas never wait for each other's nodes crosswise.
        chosen = [turn[node] for node in sorted(turn)]
        epochs = _link_each_once(tx, [arrivals[number] for number in chosen])
        for number, epoch in zip(chosen, epochs, strict=True):
            answers[number] = epoch
        left = [number for number in left if turn[arrivals[number].node] != number]
    return answers


def unlink(tx: Transaction, node: str, epoch: int, *, now: datetime) -> bool:
    """Record that a link has ended, unless a newer one has begun."""
    return bool(tx.changed(_END, [_end(Departure(node, epoch, now))]))


def unlink_all(tx: Transaction, departures: Sequence[Departure]) -> list[None]:
    """Record that links have ended, each unless a newer one has begun."""
    tx.execute(_END, [_end(each) for each in sorted(departures, key=lambda each: each.node)])
    return [None] * len(departures)


ARRIVALS: Joint[Arrival, int] = Joint("the opening of links", link_all)
"""Opens links together: ``await store.write_joint(linking.ARRIVALS, Arrival(...))``."""

DEPARTURES: Joint[Departure, None] = Joint("the end of links", unlink_all)
"""Ends links together."""


def _link_each_once(tx: Transaction, arrivals: Sequence[Arrival]) -> list[int | errors.Error]:
    known = node_rows.some(tx, [arrival.node for arrival in arrivals])
    answers: list[int | errors.Error] = []
    linked: list[Arrival] = []
    fresh: list[dict[str, Any]] = []
    again: list[dict[str, Any]] = []
    for arrival in arrivals:
        row = known.get(arrival.node)
        seen = 0 if row is None else row.epoch
        if arrival.after_epoch is not None and arrival.after_epoch != seen:
            answers.append(_late(arrival.node))
            continue
        answers.append(seen + 1)
        linked.append(arrival)
        if row is None:
            fresh.append(_first(arrival))
        else:
            again.append(_next(arrival, seen))
    if fresh:
        tx.execute(insert(NODE), fresh)
    if again and tx.changed(_BEGIN, again) < len(again):
        # Which of them another replica was faster with is not known here: each is tried alone.
        raise _late(again[0]["of_node"])
    inventory.replace(tx, [Inventory(each.node, each.readings, each.now) for each in linked])
    for arrival in linked:
        row = known.get(arrival.node)
        if row is not None and not row.reachable:
            node_rows.resettle_all(tx, arrival.node, arrival.now)
    return answers


def _first(arrival: Arrival) -> dict[str, Any]:
    row = Node(
        node=arrival.node,
        incarnation=arrival.incarnation,
        epoch=1,
        connected=True,
        reachable=True,
        facts=arrival.facts,
        created_time=arrival.now,
        connected_time=arrival.now,
        last_seen_time=arrival.now,
        hub=arrival.hub,
        hub_epoch=1,
    )
    return row.model_dump()


def _next(arrival: Arrival, seen: int) -> dict[str, Any]:
    return {
        "of_node": arrival.node,
        "seen": seen,
        "next": seen + 1,
        "by": arrival.incarnation,
        "with_facts": arrival.facts,
        "moment": arrival.now,
        "at": arrival.hub,
    }


def _end(departure: Departure) -> dict[str, Any]:
    return {"of_node": departure.node, "of_epoch": departure.epoch, "moment": departure.now}


def _late(node: str) -> errors.Conflict:
    return errors.Conflict(f"Another agent has opened a link as {node} at this moment.")


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
    )
)
_END = (
    update(NODE)
    .where(NODE.c.node == bindparam("of_node"), NODE.c.epoch == bindparam("of_epoch"))
    .values(connected=False, last_seen_time=bindparam("moment"))
)


__all__ = ["ARRIVALS", "DEPARTURES", "Arrival", "Departure", "link", "link_all", "unlink", "unlink_all"]
