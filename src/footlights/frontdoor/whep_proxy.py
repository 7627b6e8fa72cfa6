"""WHEP (draft-ietf-wish-whep) through the front door: POST an offer, PATCH a trickle fragment, DELETE when done."""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

import structlog

from footlights.errors import Error, InvalidArgument, NotFound, Reason
from footlights.frontdoor.answers import Answer, FrontDoorError
from footlights.frontdoor.checks import (
    ViewerChecks,
    not_offered,
    once_there_is_room,
    removed,
    require_open,
    require_room,
)
from footlights.frontdoor.node_client import NodeReply, exchange, invalid_answer
from footlights.frontdoor.places import Places
from footlights.frontdoor.whep_resources import target_of
from footlights.http.bodies import BodyTooLarge, BodyTooSlow, read_body
from footlights.lifecycle import SessionState, known

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from starlette.types import Receive, Scope

    from footlights.frontdoor.credentials import Credentials
    from footlights.frontdoor.interfaces import Limits, Target, ViewerGrant, ViewerRegister
    from footlights.frontdoor.whep_resources import WhepResources

_FORWARDED: Final = frozenset({b"content-type", b"accept", b"if-match", b"if-none-match", b"user-agent"})
_RETURNED: Final = frozenset({"content-type", "etag", "retry-after", "accept-patch", "accept-post", "allow"})
_ICE_LINK: Final = re.compile(r"<(?:stun|turn)s?:[^>]*>[^<]*", re.IGNORECASE)

SOCKET: Final = "websocket:"
"""How the names of WebSockets begin in the register."""

_OFFERS_AT_ONCE: Final = 2
"""With one grant; an application that has eight places, as ours, then has some for others at any moment."""

_log = structlog.stdlib.get_logger(__name__)


class WhepProxy:
    """Passes WHEP requests to the application of a session."""

    def __init__(
        self, checks: ViewerChecks, resources: WhepResources, register: ViewerRegister, limits: Limits
    ) -> None:
        self._checks = checks
        self._resources, self._register = resources, register
        self._limits = limits
        self._places = Places("requests", limits.requests)
        self._offers: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        """By viewer, while one of its offers is passed on."""

    async def post(
        self, scope: Scope, receive: Receive, session_id: str, credentials: Credentials, *, resources_at: str
    ) -> Answer:
        """Pass on an offer; the answer's Location leads back here, below ``resources_at``.

        Raises:
            FrontDoorError: the request is refused, or cannot be passed on.
        """
        grant = self._checks.admit(credentials.grant, session_id, also_expired=True)
        with self._places.hold(grant):

            async def find() -> Target:
                target = await self._checks.find(session_id, grant)
                self._checks.require_entrance(credentials.grant, grant, target)
                require_open(target, session_id)
                if not target.whep_path:
                    raise not_offered(session_id, "WHEP")
                require_room(target)
                return target

            target = await once_there_is_room(find, self._limits.room_timeout_s)
            body = await _read_body(receive, self._limits)
            path = target.whep_path + (f"?{credentials.query.decode('latin-1')}" if credentials.query else "")
            async with self._offers.setdefault(grant.viewer_id, asyncio.Semaphore(_OFFERS_AT_ONCE)):
                reply = await exchange(target, "POST", path, _forwarded(scope), body, self._limits)
                await self._note(grant, target, reply)
        _log.info("viewer_offer_answered", session_id=session_id, subject=grant.subject, status=reply.status)
        return self._answer(reply, session_id, grant, target, resources_at)

    async def on_resource(
        self,
        scope: Scope,
        receive: Receive,
        session_id: str,
        resource: str,
        credentials: Credentials,
        *,
        resources_at: str,
    ) -> Answer:
        """Pass on a PATCH or DELETE of what an offer made. For what was made with it a grant may have expired.

        Raises:
            FrontDoorError: the request is refused, or cannot be passed on.
        """
        method: str = scope["method"]
        ending = method == "DELETE"
        grant = self._checks.admit(credentials.grant, session_id, also_expired=True)
        with self._places.hold(grant):
            target = await self._checks.find(session_id, grant, also_removed=ending)
            if not ending:
                self._checks.require_entrance(credentials.grant, grant, target)
            try:
                found = self._resources.read(session_id, target.whep_path, resource)
            except NotFound as error:
                raise FrontDoorError(error) from None
            if found.nonce != grant.nonce:
                self._checks.admit(credentials.grant, session_id)
            state = known(SessionState, target.state)
            if ending and (not target.signal_port or (state is not None and state.is_over)):
                # It ended with its session, so there is nothing left to end.
                return Answer(200)
            require_open(target, session_id)
            body = await _read_body(receive, self._limits)
            reply = await exchange(target, method, found.target, _forwarded(scope), body, self._limits)
            if ending and reply.status < 500:
                with no_harm():
                    await self._register.disconnect(session_id, found.viewer_id, found.target)
        _log.info("viewer_resource_answered", session_id=session_id, method=method, status=reply.status)
        return self._answer(reply, session_id, grant, target, resources_at)

    async def _note(self, grant: ViewerGrant, target: Target, reply: NodeReply) -> None:
        """Note the resource that an offer has made, and end its viewer's oldest where there are too many.

        It is ended itself where its viewer has been disconnected meanwhile.
        """
        location = reply.header("location")
        if reply.status != 201 or not location:
            return
        resource = target_of(target.whep_path, location)
        try:
            oldest = await self._register.connect(grant, resource)
            if oldest is not None:
                await end_resources(target, oldest, self._limits)
                return
            problem = removed(grant.session_id)
        except FrontDoorError as error:
            problem = error
        except Error as error:
            problem = FrontDoorError(error)
        with contextlib.suppress(FrontDoorError):
            await end_resources(target, [resource], self._limits)
        raise problem

    def _answer(
        self, reply: NodeReply, session_id: str, grant: ViewerGrant, target: Target, resources_at: str
    ) -> Answer:
        if not 200 <= reply.status < 600:
            raise invalid_answer(f"HTTP status {reply.status}")
        headers = [(name, value) for name, value in reply.headers if name in _RETURNED]
        headers += [("link", link) for link in _ice_links(reply)]
        if location := reply.header("location"):
            name = self._resources.name(session_id, grant.nonce, target.whep_path, location)
            headers.append(("location", f"{resources_at}/{name}"))
        encoded = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in headers)
        return Answer(reply.status, encoded, bytes(reply.body))


async def end_resources(target: Target, connections: Iterable[str], limits: Limits) -> None:
    """Have an application end WHEP resources; one that it does not know any more has ended. Sockets are left out.

    Raises:
        FrontDoorError: 502 or 504: the application did not answer, or has failed.
    """
    for connection in connections:
        if not connection.startswith(SOCKET):
            reply = await exchange(target, "DELETE", connection, [], b"", limits)
            if reply.status >= 500:
                raise invalid_answer(f"HTTP status {reply.status} to the end of a viewer's connection")


@contextlib.contextmanager
def no_harm() -> Iterator[None]:
    """Log an error of what is only noted: the connection has ended, whatever is known of it."""
    try:
        yield
    except Error as error:
        _log.warning("viewer_end_not_noted", reason=error.reason)


async def _read_body(receive: Receive, limits: Limits) -> bytes:
    """The request's body.

    Raises:
        FrontDoorError: 413 ``BODY_TOO_LARGE``, 408 ``BODY_TIMEOUT`` or ``BODY_CUT_OFF``.
    """
    try:
        async with asyncio.timeout(limits.body_timeout_s):
            return await read_body(receive, max_bytes=limits.body_bytes, pause_s=limits.body_timeout_s)
    except BodyTooLarge:
        raise _bad_body(Reason.BODY_TOO_LARGE, f"must have at most {limits.body_bytes} bytes", 413) from None
    except (BodyTooSlow, TimeoutError):
        raise _bad_body(Reason.BODY_TIMEOUT, f"must arrive within {limits.body_timeout_s:g} s", 408) from None
    except ConnectionResetError:
        raise _bad_body(Reason.BODY_CUT_OFF, "ended early: send all of it", 408) from None


def _bad_body(reason: Reason, problem: str, http_status: int) -> FrontDoorError:
    return FrontDoorError(InvalidArgument("body", problem, reason=reason), http_status)


def _forwarded(scope: Scope) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"] if name in _FORWARDED]


def _ice_links(reply: NodeReply) -> Iterable[str]:
    """The Link headers that name ICE servers; others lead to the node, where a viewer cannot go."""
    for name, value in reply.headers:
        if name == "link":
            yield from (link.rstrip(" ,") for link in _ICE_LINK.findall(value))
