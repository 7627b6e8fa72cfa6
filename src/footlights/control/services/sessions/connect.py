"""Granting one viewer the way to a session's picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import structlog

from footlights import errors
from footlights.auth import relays
from footlights.control.services.sessions import access
from footlights.launch.recipe.stages import REDACTED_QUERY
from footlights.lifecycle import SessionState, known
from footlights.protocol import enums
from footlights.store import applications
from footlights.store.launches import launch_rows
from footlights.store.nodes import node_rows
from footlights.v1 import application_pb2, node_pb2, session_pb2

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from footlights.auth.grants import Grants
    from footlights.auth.roles import Caller
    from footlights.control.settings import ServerSettings
    from footlights.store import Store, Transaction
    from footlights.store.schema import SessionRow

log = structlog.get_logger(__name__)

_BY_MESSAGE: Final = enums.name_of(application_pb2.StageDelivery.Method, application_pb2.StageDelivery.MESSAGE)
_RECONNECTS: Final = 20
"""How often NVIDIA's player dials again, at most, when it loses the connection: as in NVIDIA's own web viewer."""


class SessionConnector:
    """Issues viewer grants: a token that the front door accepts, the URLs, and the relays on the way."""

    def __init__(
        self, store: Store, grants: Grants, settings: ServerSettings, public_url: str, clock: Callable[[], datetime]
    ) -> None:
        self._store, self._grants, self._public_url, self._clock = store, grants, public_url, clock
        self._ttl_s, self._ice_servers = settings.grant_ttl_s, settings.ice_servers
        self._relays = relays.of(settings.turn_urls, settings.turn_secret_file, settings.turn_ttl_s)

    async def connect(self, caller: Caller, session_id: str) -> session_pb2.ConnectSessionResponse:
        """Grant a viewer a session's picture.

        Raises NotFound where there is no session that the caller may see; FailedPrecondition where it has no picture
        yet, or none any more.
        """

        def read(tx: Transaction) -> tuple[SessionRow, application_pb2.Signaling, tuple[str, int]]:
            row = access.find(tx, caller, session_id)
            version = applications.version(tx, row.application, row.application_version)
            recipe = application_pb2.Version.FromString(version.recipe if version else b"")
            # One that is given a relay negotiates where its media goes; a fixed address would keep the relay from use.
            return row, recipe.signaling, ("", 0) if recipe.signaling.relay_path else _media(tx, row)

        row, signaling, media = await self._store.read(read)
        _check_has_picture(row)
        now, base = self._clock(), f"{self._public_url}/stream/{row.session_id}"
        token = self._grants.mint(row.session_id, caller.subject, self._ttl_s, now)
        answer = session_pb2.ConnectSessionResponse(
            token=token,
            viewer_id=self._grants.read(token).viewer_id,
            whep_url=f"{base}/whep" if signaling.whep_path else "",
            signaling_url=f"ws{base.removeprefix('http')}/sign_in" if signaling.websocket_path else "",
        )
        if row.stage_delivery == _BY_MESSAGE and REDACTED_QUERY not in row.usd_stage_uri:
            answer.usd_stage_uri = row.usd_stage_uri
        if signaling.websocket_path:
            answer.app_streamer.update(player_config(answer.signaling_url, token, row.session_id, media))
        if self._ice_servers:
            answer.ice_servers.add(urls=self._ice_servers)
        if self._relays is not None:
            relay = self._relays.issue(row.session_id, now)
            answer.ice_servers.add(urls=relay.urls, username=relay.username, credential=relay.credential)
        answer.expire_time.FromDatetime(now)
        answer.expire_time.FromNanoseconds(answer.expire_time.ToNanoseconds() + int(self._ttl_s * 1e9))
        log.info("viewer_grant_issued", session_id=row.session_id)
        return answer


def _media(tx: Transaction, row: SessionRow) -> tuple[str, int]:
    """Return where a session's media is: the node's address for viewers, and the port."""
    launch = launch_rows.get(tx, row.launch_id) if row.launch_id else None
    node = node_rows.get(tx, launch.node) if launch else None
    facts = node_pb2.NodeFacts.FromString(node.facts if node else b"")
    return facts.public_address, launch.media_port if launch else 0


def player_config(signaling_url: str, token: str, session_id: str, media: tuple[str, int]) -> dict[str, Any]:
    """Return what NVIDIA's player is told, by the names of its ``DirectConfig``."""
    url = urlsplit(signaling_url)
    secure, server = url.scheme == "wss", url.hostname or ""
    found = {
        "signalingServer": f"[{server}]" if ":" in server else server,
        "signalingPort": url.port or (443 if secure else 80),
        # It adds `/sign_in` itself, and takes ws: unless it is told otherwise, or the port is 443.
        "signalingPath": url.path.removesuffix("/sign_in"),
        "forceWSS": secure,
        "sessionId": session_id,
        "authenticate": True,
        "accessToken": token,
        "maxReconnects": _RECONNECTS,
    }
    host, port = media
    return found | ({"mediaServer": host, "mediaPort": port} if host and port else {})


def _check_has_picture(row: SessionRow) -> None:
    state = known(SessionState, row.state)
    if row.ended_time is None and (state is None or state.awaits_picture):
        raise errors.FailedPrecondition(
            f"The session is {row.state} and has no picture yet. Watch it until it is READY, then connect: "
            f"GET /v1/sessions/{row.session_id}:watch.",
            reason=errors.Reason.SESSION_NOT_READY,
            metadata={"session_id": row.session_id, "state": row.state},
        )
    if state is None or not state.has_picture:
        raise errors.FailedPrecondition(
            f"The session is {row.state} and has no picture any more. Create a new one.",
            reason=errors.Reason.SESSION_ENDED,
            metadata={"session_id": row.session_id, "state": row.state},
        )
