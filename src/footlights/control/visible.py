"""Sessions as a caller may see them, with what their launch and node add."""

from __future__ import annotations

from collections.abc import Sequence

from footlights import errors, names
from footlights.auth.roles import Caller
from footlights.control import convert
from footlights.control.convert import Origin
from footlights.store import Transaction, launches, nodes, sessions
from footlights.store.tables import Session
from footlights.v1 import node_pb2, session_pb2


def find(tx: Transaction, caller: Caller, session_id: str) -> Session:
    """Return a session that the caller may see.

    Raises:
        errors.NotFound: there is none, or it is somebody else's: the two look the same.
    """
    row = sessions.get(tx, session_id) if names.is_uuid(session_id) else None
    if row is None or not (caller.may("sessions.all") or row.username == caller.subject):
        raise errors.NotFound(
            f"session_id: there is no session {session_id!r}, or it is not yours. List yours with GET /stream.",
            reason="SESSION_NOT_FOUND",
            metadata={"field": "session_id", "session_id": session_id},
        )
    return row


def show(tx: Transaction, rows: Sequence[Session], origin: Origin) -> list[session_pb2.Session]:
    """Return sessions as messages."""
    facts: dict[str, node_pb2.NodeFacts | None] = {}
    devices: dict[str, dict[str, str]] = {}
    shown = []
    for row in rows:
        launch = launches.get(tx, row.launch_id) if row.launch_id else None
        if launch is not None and launch.node not in facts:
            node = nodes.get(tx, launch.node)
            facts[launch.node] = node_pb2.NodeFacts.FromString(node.facts) if node else None
            devices[launch.node] = {
                device.uuid: node_pb2.Device.FromString(device.reading).name
                for device in nodes.devices(tx, launch.node)
            }
        shown.append(
            convert.session(
                row,
                launch,
                facts[launch.node] if launch else None,
                devices[launch.node].get(launch.device, "") if launch else "",
                origin=origin,
            )
        )
    return shown


def show_one(tx: Transaction, row: Session, origin: Origin) -> session_pb2.Session:
    """Return one session as its message."""
    return show(tx, [row], origin)[0]
