"""Granting one viewer the way to a session's picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from footlights import errors
from footlights.auth import relays
from footlights.control.services.sessions import access
from footlights.lifecycle import SessionState, known
from footlights.store import applications
from footlights.v1 import application_pb2, session_pb2

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from footlights.auth.grants import Grants
    from footlights.auth.roles import Caller
    from footlights.control.settings import ServerSettings
    from footlights.store import Store, Transaction
    from footlights.store.schema import SessionRow

log = structlog.get_logger(__name__)


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

        def read(tx: Transaction) -> tuple[SessionRow, application_pb2.Signaling]:
            row = access.find(tx, caller, session_id)
            version = applications.version(tx, row.application, row.application_version)
            recipe = application_pb2.Version.FromString(version.recipe if version else b"")
            return row, recipe.signaling

        row, signaling = await self._store.read(read)
        _check_has_picture(row)
        now, base = self._clock(), f"{self._public_url}/stream/{row.session_id}"
        token = self._grants.mint(row.session_id, caller.subject, self._ttl_s, now)
        answer = session_pb2.ConnectSessionResponse(
            token=token,
            viewer_id=self._grants.read(token).viewer_id,
            whep_url=f"{base}/whep" if signaling.whep_path else "",
            signaling_url=f"ws{base.removeprefix('http')}/sign_in" if signaling.websocket_path else "",
        )
        if self._ice_servers:
            answer.ice_servers.add(urls=self._ice_servers)
        if self._relays is not None:
            relay = self._relays.issue(row.session_id, now)
            answer.ice_servers.add(urls=relay.urls, username=relay.username, credential=relay.credential)
        answer.expire_time.FromDatetime(now)
        answer.expire_time.FromNanoseconds(answer.expire_time.ToNanoseconds() + int(self._ttl_s * 1e9))
        log.info("viewer_grant_issued", session_id=row.session_id)
        return answer


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
