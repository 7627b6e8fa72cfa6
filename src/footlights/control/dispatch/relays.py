"""Answers agents that ask for the relay of a launch, with credentials of its session that are made for this answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from footlights.agent.v1 import agent_pb2
from footlights.protocol import times
from footlights.store import applications
from footlights.store.launches import launch_rows
from footlights.store.sessions import session_rows
from footlights.v1 import application_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from footlights.auth.relays import Relays
    from footlights.control.dispatch.link import AgentLink
    from footlights.store import Store, Transaction

log = structlog.get_logger(__name__)


class RelayAnswers:
    """Gives launches their relay: one with credentials, else the STUN servers that viewers are given."""

    def __init__(
        self, store: Store, relays: Relays | None, ice_servers: Sequence[str], clock: Callable[[], datetime]
    ) -> None:
        self._store, self._relays, self._clock = store, relays, clock
        self._stun = [url for url in ice_servers if url.startswith("stun:")]

    async def answer(self, link: AgentLink, request: agent_pb2.RelayRequest) -> None:
        """Answer one request; not for a launch that is another node's, that is over, or that takes no relay."""
        launch_id = request.launch_id
        session_id = await self._store.read(lambda tx: _session_of(tx, launch_id, link.node))
        if not session_id:
            log.warning("relay_refused", node=link.node, launch_id=launch_id)
            return
        relay = agent_pb2.Relay(launch_id=launch_id, urls=self._stun)
        if self._relays is not None:
            given = self._relays.issue(session_id, self._clock())
            relay = agent_pb2.Relay(
                launch_id=launch_id,
                urls=given.urls,
                username=given.username,
                password=given.credential,
                valid_for=times.duration(self._relays.ttl_s),
            )
        link.send(agent_pb2.LinkResponse(relay=relay))


def _session_of(tx: Transaction, launch_id: str, node: str) -> str:
    """Return the session whose application may be given a relay; empty where there is none."""
    launch = launch_rows.get(tx, launch_id)
    if launch is None or launch.node != node or launch.ended_time is not None:
        return ""
    session = session_rows.get(tx, launch.session_id)
    version = applications.version(tx, session.application, session.application_version) if session else None
    recipe = application_pb2.Version.FromString(version.recipe if version else b"")
    return str(launch.session_id) if recipe.signaling.relay_path else ""
