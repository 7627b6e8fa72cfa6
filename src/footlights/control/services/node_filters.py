"""Filters of nodes: the members that they name. Nodes are few: each page is filtered in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from footlights.filters import Kind, Member
from footlights.protocol import enums
from footlights.v1 import node_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from footlights.store.schema import NodeRow

MEMBERS: Final[Mapping[str, Member]] = {
    "node": Member(Kind.TEXT),
    "state": Member(Kind.NAME, tuple(name for name, number in node_pb2.Node.State.items() if number)),
    "condition": Member(Kind.NAME, tuple(name for name, number in node_pb2.Node.Condition.items() if number)),
    "cordoned": Member(Kind.FLAG),
    "scheduling.cordoned": Member(Kind.FLAG),
    "scheduling.draining": Member(Kind.FLAG),
    "facts.labels": Member(Kind.MAP),
}


def values(row: NodeRow, message: node_pb2.Node) -> dict[str, Any]:
    """Return the members of a node, as it is shown."""
    state = message.state
    return {
        "node": row.node,
        "state": enums.field_name(message, "state"),
        "condition": enums.field_name(message, "condition"),
        "cordoned": row.cordoned or bool(row.acceptance) or state == node_pb2.Node.CORDONED,
        "scheduling.cordoned": message.scheduling.cordoned,
        "scheduling.draining": message.scheduling.draining,
        "facts.labels": message.facts.labels,
    }
