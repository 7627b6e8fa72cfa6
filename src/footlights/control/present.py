"""Rows as API messages: what several rooms need. What only one service shows is beside that service."""

from __future__ import annotations

from typing import TYPE_CHECKING

from footlights.protocol.times import timestamp
from footlights.v1 import application_pb2, node_pb2

if TYPE_CHECKING:
    from datetime import datetime

    from footlights.store.schema import Node


def version(application_id: str, recipe: bytes, created_time: datetime) -> application_pb2.Version:
    """Return a version from its stored recipe."""
    message = application_pb2.Version.FromString(recipe)
    message.application = application_id
    message.created_time.CopyFrom(timestamp(created_time))
    return message


def node_state(row: Node, busy: bool) -> node_pb2.Node.State.ValueType:
    """Return a node's state; ``busy`` is whether any of its slots is leased."""
    if not row.reachable:
        return node_pb2.Node.UNREACHABLE
    if row.draining:
        return node_pb2.Node.DRAINING if busy else node_pb2.Node.DRAINED
    return node_pb2.Node.CORDONED if row.cordoned else node_pb2.Node.READY
