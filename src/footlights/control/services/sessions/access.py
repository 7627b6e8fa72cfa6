"""Sessions as a caller may see them, with what their launch and node add."""

from __future__ import annotations

from typing import TYPE_CHECKING

from footlights import errors, ids
from footlights.control import present
from footlights.control.scheduling import views
from footlights.store.launches import launch_rows
from footlights.store.nodes import node_rows
from footlights.store.sessions import session_rows
from footlights.v1 import node_pb2, session_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from footlights.auth.roles import Caller
    from footlights.control.present import Origin
    from footlights.store import Transaction
    from footlights.store.schema import SessionRow


def find(tx: Transaction, caller: Caller, session_id: str) -> SessionRow:
    """Return a session that the caller may see.

    Raises:
        errors.NotFound: there is none, or it is somebody else's: the two look the same.
    """
    row = session_rows.get(tx, session_id) if ids.is_uuid(session_id) else None
    return checked(row, caller, session_id)


def checked(row: SessionRow | None, caller: Caller, session_id: str) -> SessionRow:
    """Return the session that was found under an id; raise as ``find`` does."""
    if row is None or not (caller.may("sessions.all") or row.username == caller.subject):
        raise errors.NotFound(
            f"session_id: there is no session {session_id!r}, or it is not yours. List yours with GET /stream.",
            reason="SESSION_NOT_FOUND",
            metadata={"field": "session_id", "session_id": session_id},
        )
    return row


def show(tx: Transaction, rows: Sequence[SessionRow], origin: Origin) -> list[session_pb2.Session]:
    """Return sessions as messages."""
    found = launch_rows.some(tx, [row.launch_id for row in rows if row.launch_id])
    routed = {launch.node for launch in found.values() if launch.signal_port and launch.ended_time is None}
    facts = {node: node_pb2.NodeFacts.FromString(raw) for node, raw in node_rows.facts(tx, routed).items()}
    readings = node_rows.readings(tx, {(launch.node, launch.device) for launch in found.values()})
    names_of = {device: views.device_name(raw) for device, raw in readings.items()}
    shown = []
    for row in rows:
        current = found.get(row.launch_id) if row.launch_id else None
        node, name = None, ""
        if current is not None:
            node, name = facts.get(current.node), names_of.get((current.node, current.device), "")
        shown.append(present.session(row, current, node, name, origin=origin))
    return shown


def show_one(tx: Transaction, row: SessionRow, origin: Origin) -> session_pb2.Session:
    """Return one session as its message."""
    return show(tx, [row], origin)[0]
