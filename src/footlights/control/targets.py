"""What the front door asks for each viewer, and notes: where a session's signalling is, and who is connected."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from footlights import ids
from footlights.auth import launch_secrets
from footlights.frontdoor import Target
from footlights.store import applications
from footlights.store.launches import launch_rows
from footlights.store.nodes import node_rows
from footlights.store.sessions import session_rows, viewers
from footlights.v1 import application_pb2, node_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from datetime import datetime

    from footlights.auth.secrets import Box
    from footlights.control.dispatch.node_addresses import NodeAddresses
    from footlights.frontdoor import Resolve, ViewerGrant
    from footlights.store import Store, Transaction
    from footlights.store.schema import LaunchRow, ViewerRow

_ASKED_AT_ONCE: Final = 500


def resolver(store: Store, box: Box, addresses: NodeAddresses) -> Resolve:
    """Return the function that finds the target of a session id; it returns None for an unknown one.

    ``addresses`` says what of the node may be dialled: that is checked each time.
    """

    async def resolve(session_id: str, viewer_id: str = "") -> Target | None:
        found = await store.read(lambda tx: _target(tx, session_id, viewer_id, box))
        if found is None:
            return None
        target, facts, link_address = found
        if not target.takes_viewers:
            return target
        reached = await addresses.reach(facts, target.signal_port, link_address)
        return replace(target, dialled=reached.addresses, problem=reached.problem)

    return resolve


class StoredViewers:
    """The front door's register of viewers."""

    def __init__(self, store: Store, clock: Callable[[], datetime]) -> None:
        self._store, self._clock = store, clock

    async def connect(self, grant: ViewerGrant, connection: str) -> list[str] | None:
        """Note a connection; return those to be ended for it, and None where the viewer was disconnected by a call."""
        now = self._clock()
        return await self._store.write(
            lambda tx: viewers.connect(
                tx, grant.session_id, grant.viewer_id, subject=grant.subject, connection=connection, now=now
            )
        )

    async def disconnect(self, session_id: str, viewer_id: str, connection: str) -> None:
        """Note that a connection has ended."""
        now = self._clock()
        await self._store.write(lambda tx: viewers.disconnect(tx, session_id, viewer_id, [connection], now=now))

    async def removed(self, viewer_ids: Collection[str]) -> frozenset[str]:
        """Which of these viewers were disconnected by a call."""

        def read(tx: Transaction) -> frozenset[str]:
            ids_ = list(viewer_ids)
            some = [ids_[at : at + _ASKED_AT_ONCE] for at in range(0, len(ids_), _ASKED_AT_ONCE)]
            return frozenset().union(*(viewers.removed(tx, each) for each in some))

        return await self._store.read(read)


def _is_full(signaling: application_pb2.Signaling, launch: LaunchRow | None, viewer: ViewerRow | None) -> bool:
    """Return whether an application has as many viewers as it takes; one that is among them may come again."""
    if not signaling.max_viewers or launch is None or (viewer is not None and viewer.connections):
        return False
    return (launch.viewers or 0) >= signaling.max_viewers


def _target(
    tx: Transaction, session_id: str, viewer_id: str, box: Box
) -> tuple[Target, node_pb2.NodeFacts, str | None] | None:
    row = session_rows.get(tx, session_id) if ids.is_uuid(session_id) else None
    if row is None or row.pool is not None:
        return None
    viewer = viewers.get(tx, session_id, viewer_id) if viewer_id else None
    launch = launch_rows.get(tx, row.launch_id) if row.launch_id else None
    node = node_rows.get(tx, launch.node) if launch else None
    version = applications.version(tx, row.application, row.application_version)
    facts = node_pb2.NodeFacts.FromString(node.facts if node else b"")
    signaling = application_pb2.Version.FromString(version.recipe if version else b"").signaling
    target = Target(
        address=facts.signal_address or facts.public_address,
        signal_port=launch.signal_port if launch else 0,
        whep_path=signaling.whep_path,
        websocket_path=signaling.websocket_path,
        state=row.state,
        removed=viewer is not None and viewer.removed_time is not None,
        owner=row.username,
        is_known=viewer is not None,
        is_full=_is_full(signaling, launch, viewer),
        max_viewers=signaling.max_viewers,
        forwarded_headers=tuple(signaling.forwarded_headers),
        secret=launch_secrets.open_sealed(box, launch.launch_id, launch.secret) if launch else "",
    )
    return target, facts, node.link_address if node else None
