"""What is checked before a request is passed on: its grant, its session, and whether that can be connected to."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from footlights.errors import (
    Error,
    Exhausted,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Reason,
    Unauthenticated,
    Unavailable,
)
from footlights.frontdoor.answers import FrontDoorError
from footlights.frontdoor.interfaces import KnownById
from footlights.ids import is_uuid
from footlights.lifecycle import SessionState, known

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from footlights.frontdoor.credentials import Credentials
    from footlights.frontdoor.interfaces import GrantVerifier, OpenSessions, Resolve, Target, ViewerGrant

ResultT = TypeVar("ResultT")

_RETRY_AFTER_S: Final = 2.0
_API_TOKENS: Final = "fl_"
"""How API tokens begin, and no grant."""
_ROOM_EVERY_S: Final = 0.5
_MOST_NAMED: Final = 2
"""Sessions in a message."""


@dataclass(frozen=True, slots=True)
class ViewerChecks:
    """Checks the grant and the session of a request."""

    resolve: Resolve
    grants: GrantVerifier
    now: Callable[[], datetime]
    open: OpenSessions | None = None
    """Sessions for which no grant is asked for."""

    def admit(self, text: str, session_id: str, *, also_expired: bool = False) -> ViewerGrant:
        """The grant in ``text``, verified and for this session.

        Raises:
            FrontDoorError: 401 ``GRANT_MISSING``, ``GRANT_INVALID`` or ``GRANT_EXPIRED``; or 403
                ``GRANT_FOR_ANOTHER_SESSION``.
        """
        if not text:
            raise FrontDoorError(
                Unauthenticated(
                    "The request has no grant: ask for one with POST /v1/sessions/{session_id}:connect and send it as "
                    "Authorization: Bearer, as ?access_token= or as the subprotocol Authorization-Bearer.<grant>.",
                    reason=Reason.GRANT_MISSING,
                )
            )
        try:
            grant = self.grants.read(text) if also_expired else self.grants.verify(text, self.now())
        except Error as error:
            raise FrontDoorError(error) from None
        if grant.session_id != session_id:
            raise FrontDoorError(
                PermissionDenied(
                    "The grant is for another session: ask with POST /v1/sessions/{session_id}:connect.",
                    reason=Reason.GRANT_FOR_ANOTHER_SESSION,
                    metadata={"session_id": session_id},
                )
            )
        return grant

    def session_of(self, text: str) -> str:
        """The session that a grant is for; empty where it is none."""
        try:
            return self.grants.read(text).session_id
        except Error:
            return ""

    async def enter(
        self, credentials: Credentials, session_id: str, permission: str = "sessions.connect"
    ) -> ViewerGrant:
        """Who is let in to be connected: by a grant, also an expired one, by the id of an open session, or by a token.

        Ask ``require_entrance`` once the session is found: whether a grant may have expired, and whose the session is,
        is not known before. A player that comes back without a grant is the viewer that it was.

        Raises:
            FrontDoorError: as ``admit``; 422 where subprotocols name several sessions; or what is wrong with a token.
        """
        if len(credentials.session_ids) > 1:
            named = " and ".join(credentials.session_ids[:_MOST_NAMED])
            problem = f"names several sessions ({named}): name the one that is to be connected to"
            raise FrontDoorError(InvalidArgument("sec-websocket-protocol", problem))
        subject = await self._known_as(credentials, permission) if is_uuid(session_id) else ""
        if not subject:
            return self.admit(credentials.grant, session_id, also_expired=True)
        peer = credentials.peer_id or secrets.token_urlsafe(12)
        nonce = hashlib.sha256(f"{session_id} {subject} {peer}".encode()).digest()[:12]
        return KnownById(session_id, subject, base64.urlsafe_b64encode(nonce).decode())

    async def _known_as(self, credentials: Credentials, permission: str) -> str:
        """Return who asks without a grant; empty where somebody does with one, or has nothing to show."""
        if self.open is None:
            return ""
        if not credentials.grant:
            return "" if credentials.is_foreign else self.open.owner
        if self.open.holder is None or credentials.in_url or not credentials.grant.startswith(_API_TOKENS):
            return ""
        try:
            return await self.open.holder(credentials.grant, permission)
        except Error as error:
            raise FrontDoorError(error) from None

    def require_entrance(self, text: str, grant: ViewerGrant, target: Target) -> None:
        """Refuse who was let in too early: without a grant to somebody else's session, or by one that expired unused.

        A grant that has opened a session opens it again for as long as it lives: players reconnect by the same URL.

        Raises:
            FrontDoorError: 401 ``GRANT_MISSING`` or ``GRANT_EXPIRED``.
        """
        if isinstance(grant, KnownById):
            if target.owner != grant.subject:
                raise _not_open(grant.session_id)
        elif not target.is_known:
            self.admit(text, grant.session_id)

    async def find(self, session_id: str, grant: ViewerGrant, *, also_removed: bool = False) -> Target:
        """Where the session is, in any state.

        Raises:
            FrontDoorError: 404 ``SESSION_NOT_FOUND``, or 401 ``GRANT_MISSING`` for who knows no more than an id; 403
                ``VIEWER_DISCONNECTED``, unless ``also_removed``; or what ``resolve`` raised.
        """
        try:
            target = await self.resolve(session_id, grant.viewer_id)
        except Error as error:
            raise FrontDoorError(error) from None
        if target is None and isinstance(grant, KnownById):
            raise _not_open(session_id)
        if target is None:
            raise FrontDoorError(
                NotFound(
                    f"There is no session {session_id}.",
                    reason=Reason.SESSION_NOT_FOUND,
                    metadata={"field": "session_id", "session_id": session_id},
                )
            )
        if target.removed and not also_removed:
            raise removed(session_id)
        return target


def require_open(target: Target, session_id: str) -> None:
    """Refuse a session that cannot be connected to.

    Raises:
        FrontDoorError: 409 ``SESSION_NOT_READY`` with Retry-After, or 409 ``SESSION_ENDED``.
    """
    state = known(SessionState, target.state)
    if state is None or state.awaits_picture or (state.has_picture and not (target.address and target.signal_port)):
        raise FrontDoorError(
            FailedPrecondition(
                f"Session {session_id} is {target.state}: watch it until it is READY, then connect.",
                reason=Reason.SESSION_NOT_READY,
                metadata={"session_id": session_id, "state": target.state},
                retry_after_s=_RETRY_AFTER_S,
            )
        )
    if not state.has_picture:
        raise FrontDoorError(
            FailedPrecondition(
                f"Session {session_id} is {target.state} and takes no viewers: create another one.",
                reason=Reason.SESSION_ENDED,
                metadata={"session_id": session_id, "state": target.state},
            )
        )


def _not_open(session_id: str) -> FrontDoorError:
    """401: an id that opens no session. Whether it is somebody else's is not said."""
    error = Unauthenticated(
        f"The id {session_id} opens no session: there is none of it, or it is somebody else's. For that, ask for a "
        "grant with POST /v1/sessions/{session_id}:connect and send it as subprotocol Authorization-Bearer.<grant>.",
        reason=Reason.GRANT_MISSING,
    )
    return FrontDoorError(error)


def not_offered(session_id: str, what: str) -> FrontDoorError:
    """404: the application does not speak this kind of signalling."""
    error = NotFound(
        f"The application of session {session_id} offers no {what}: see its version's signaling.",
        reason=Reason.SIGNALING_NOT_OFFERED,
        metadata={"session_id": session_id, "signaling": what},
    )
    return FrontDoorError(error)


def removed(session_id: str) -> FrontDoorError:
    """403: the viewer was disconnected by a call."""
    error = PermissionDenied(
        f"You were disconnected from session {session_id}: this grant is refused.",
        reason=Reason.VIEWER_DISCONNECTED,
        metadata={"session_id": session_id},
    )
    return FrontDoorError(error)


def require_room(target: Target) -> None:
    """Refuse one viewer more than the application takes.

    Raises:
        FrontDoorError: 429 ``VIEWER_LIMIT``.
    """
    if target.is_full:
        raise too_many_viewers(target.max_viewers)


async def once_there_is_room(proceed: Callable[[], Awaitable[ResultT]], timeout_s: float) -> ResultT:
    """Have a viewer go on once the application has room for one more.

    A viewer that has just left is counted for a moment, here and by the application itself: a page that is loaded
    again, and a player that comes back, must not be told that somebody else is there.

    Raises:
        FrontDoorError: what ``proceed`` raises; 429 ``VIEWER_LIMIT`` where there was no room for ``timeout_s`` seconds.
    """
    now = asyncio.get_running_loop().time
    deadline = now() + timeout_s
    while True:
        try:
            return await proceed()
        except FrontDoorError as problem:
            if problem.error.reason != Reason.VIEWER_LIMIT or now() >= deadline:
                raise
        await asyncio.sleep(_ROOM_EVERY_S)


def too_many_viewers(most: int) -> FrontDoorError:
    """429: the application takes so many viewers, and has them. The message has room in a close frame."""
    who = "one viewer at a time, and another one is" if most == 1 else f"{most} viewers at a time, and as many are"
    error = Exhausted(
        f"The application takes {who} connected: wait until somebody leaves.",
        reason=Reason.VIEWER_LIMIT,
        metadata={"kind": "viewers", "of": "application", "limit": str(most)},
        retry_after_s=5.0,
    )
    return FrontDoorError(error)


def overloaded() -> FrontDoorError:
    """503: as many requests or sockets are open as may be."""
    error = Unavailable("The front door is overloaded: try again.", reason=Reason.FRONT_DOOR_FULL, retry_after_s=1.0)
    return FrontDoorError(error)
