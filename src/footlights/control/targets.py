"""Where a session's signalling is: what the front door asks for each viewer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from footlights import ids
from footlights.auth import launch_secrets
from footlights.frontdoor import Target
from footlights.store import applications
from footlights.store.launches import launch_rows
from footlights.store.nodes import node_rows
from footlights.store.sessions import session_rows
from footlights.v1 import application_pb2, node_pb2

if TYPE_CHECKING:
    from footlights.auth.secrets import Box
    from footlights.frontdoor import Resolve
    from footlights.store import Store, Transaction


def resolver(store: Store, box: Box) -> Resolve:
    """Return the function that finds the target of a session id; it returns None for an unknown one."""

    async def resolve(session_id: str) -> Target | None:
        return await store.read(lambda tx: _target(tx, session_id, box))

    return resolve


def _target(tx: Transaction, session_id: str, box: Box) -> Target | None:
    row = session_rows.get(tx, session_id) if ids.is_uuid(session_id) else None
    if row is None:
        return None
    launch = launch_rows.get(tx, row.launch_id) if row.launch_id else None
    node = node_rows.get(tx, launch.node) if launch else None
    version = applications.version(tx, row.application, row.application_version)
    facts = node_pb2.NodeFacts.FromString(node.facts if node else b"")
    signaling = application_pb2.Version.FromString(version.recipe if version else b"").signaling
    return Target(
        address=facts.signal_address or facts.public_address,
        signal_port=launch.signal_port if launch else 0,
        whep_path=signaling.whep_path,
        websocket_path=signaling.websocket_path,
        state=row.state,
        secret=launch_secrets.open_sealed(box, launch.launch_id, launch.secret) if launch else "",
    )
