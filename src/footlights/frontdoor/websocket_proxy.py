"""A viewer's WebSocket joined to the application's: both ways, with back-pressure and close codes."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.typing import Origin, Subprotocol

from footlights.errors import Error, Reason, Unavailable
from footlights.frontdoor.answers import FrontDoorError
from footlights.frontdoor.checks import (
    ViewerChecks,
    not_offered,
    once_there_is_room,
    removed,
    require_open,
    require_room,
    too_many_viewers,
)
from footlights.frontdoor.interfaces import KnownById
from footlights.frontdoor.node_client import dial, invalid_answer, proof_of
from footlights.frontdoor.places import Places
from footlights.frontdoor.whep_proxy import SOCKET, end_resources, no_harm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import Message, Receive, Scope, Send

    from footlights.frontdoor.credentials import Credentials
    from footlights.frontdoor.interfaces import Limits, Target, ViewerGrant, ViewerRegister

_NORMAL, _GOING_AWAY, _NO_CODE, _LOST, _POLICY, _TOO_BIG, _BAD_GATEWAY = 1000, 1001, 1005, 1006, 1008, 1009, 1014
_CLOSE_TIMEOUT_S: Final = 5.0
TAKEN: Final = 3005
"""Another viewer is connected: the code that NVIDIA's portal has for it."""
_BUSY: Final = (409, 429, 503)
"""How an application that takes so many viewers refuses one more."""
_MOST_REASON_BYTES: Final = 123

_log = structlog.stdlib.get_logger(__name__)


@dataclass(eq=False, slots=True)
class _ViewerSocket:
    """One viewer's, while it is joined to the application's."""

    peer_id: str
    """What its player calls itself; empty where it does not."""
    end: asyncio.Event = field(default_factory=asyncio.Event)
    """Ends it."""
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the application has been left, too."""


class WebSocketProxy:
    """Joins WebSockets of viewers to those of their applications."""

    def __init__(self, checks: ViewerChecks, register: ViewerRegister, limits: Limits) -> None:
        self._checks, self._register = checks, register
        self._open_viewers: dict[str, set[_ViewerSocket]] = {}
        """By viewer, its sockets here."""
        self._limits = limits
        self.places = Places("sockets", limits.sockets)

    async def sign_in(
        self, scope: Scope, receive: Receive, send: Send, session_id: str, credentials: Credentials
    ) -> None:
        """Join this socket to the application's until either closes.

        The application answers first, so that a viewer is never accepted and then dropped, and so that its choice of
        subprotocol is the viewer's.

        Raises:
            FrontDoorError: before anything is accepted: the viewer is refused, or the application cannot be reached.
        """
        grant = await self._checks.enter(credentials, session_id)
        with self.places.hold(grant):
            await self._replace(grant.viewer_id, credentials.peer_id)
            try:
                connecting = partial(self._connect, scope, session_id, credentials, grant)
                target, upstream = await once_there_is_room(connecting, self._limits.room_timeout_s)
            except FrontDoorError as problem:
                if problem.error.reason != Reason.VIEWER_LIMIT:
                    raise
                # A browser's page sees why a socket is closed, and never why a handshake is refused.
                await receive()  # websocket.connect
                await send({"type": "websocket.accept", "subprotocol": _echo("", credentials)})
                await send({"type": "websocket.close", "code": TAKEN, "reason": _in_a_frame(str(problem))})
                return
            name = f"{SOCKET}{secrets.token_urlsafe(6)}"
            log = _log.bind(session_id=session_id, subject=grant.subject)
            with self._endable(grant.viewer_id, credentials.peer_id) as end:
                try:
                    await self._note(grant, target, name)
                    await receive()  # websocket.connect
                    chosen = _echo(upstream.subprotocol or "", credentials)
                    await send({"type": "websocket.accept", "subprotocol": chosen})
                    log.info("viewer_socket_opened")
                    await self._join(receive, send, upstream, end)
                finally:
                    await upstream.close(_GOING_AWAY)
                    log.info("viewer_socket_closed", code=upstream.close_code)
                    with no_harm():
                        await self._register.disconnect(session_id, grant.viewer_id, name)

    async def look(self, session_id: str, credentials: Credentials) -> None:
        """Say whether a viewer could be connected now.

        Raises:
            FrontDoorError: it could not.
        """
        grant = await self._checks.enter(credentials, session_id)
        with self.places.hold(grant):

            async def look() -> None:
                require_room(await self._find(session_id, credentials, grant))

            await once_there_is_room(look, self._limits.room_timeout_s)

    async def hang_up(self, session_id: str, credentials: Credentials) -> None:
        """End what a player ends when its user leaves: its own sockets; without a grant, the session.

        Raises:
            FrontDoorError: the viewer is refused.
        """
        grant = await self._checks.enter(credentials, session_id, "sessions.terminate")
        with self.places.hold(grant):
            target = await self._checks.find(session_id, grant, also_removed=True)
            self._checks.require_entrance(credentials.grant, grant, target)
            if self._checks.open is None or not isinstance(grant, KnownById):
                self._end(grant.viewer_id)
                return
            try:
                await self._checks.open.end(session_id, target.owner)
            except Error as error:
                raise FrontDoorError(error) from None

    async def _find(self, session_id: str, credentials: Credentials, grant: ViewerGrant) -> Target:
        """Where a session is that the viewer may be connected to by a WebSocket.

        Raises:
            FrontDoorError: there is none.
        """
        target = await self._checks.find(session_id, grant)
        self._checks.require_entrance(credentials.grant, grant, target)
        require_open(target, session_id)
        if not target.websocket_path:
            raise not_offered(session_id, "WebSocket signalling")
        return target

    async def end_removed(self) -> None:
        """Close the sockets of viewers that were disconnected by a call, at whichever replica."""
        if self._open_viewers:
            for viewer_id in await self._register.removed(list(self._open_viewers)):
                self._end(viewer_id)

    def _end(self, viewer_id: str) -> None:
        for socket in self._open_viewers.get(viewer_id, ()):
            socket.end.set()

    async def _connect(
        self, scope: Scope, session_id: str, credentials: Credentials, grant: ViewerGrant
    ) -> tuple[Target, ClientConnection]:
        """Find the session that has room, and connect to its application."""
        target = await self._find(session_id, credentials, grant)
        require_room(target)
        return target, await self._open(scope, target, credentials)

    async def _replace(self, viewer_id: str, peer_id: str) -> None:
        """End the sockets that a player has here already: it comes back because it has lost them, or is about to."""
        for socket in list(self._open_viewers.get(viewer_id, ())) if peer_id else ():
            if socket.peer_id == peer_id:
                socket.end.set()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                        await socket.gone.wait()

    async def _note(self, grant: ViewerGrant, target: Target, name: str) -> None:
        try:
            oldest = await self._register.connect(grant, name)
        except Error as error:
            raise FrontDoorError(error) from None
        if oldest is None:
            raise removed(grant.session_id)
        await end_resources(target, oldest, self._limits)

    @contextlib.contextmanager
    def _endable(self, viewer_id: str, peer_id: str) -> Iterator[asyncio.Event]:
        socket = _ViewerSocket(peer_id)
        self._open_viewers.setdefault(viewer_id, set()).add(socket)
        try:
            yield socket.end
        finally:
            socket.gone.set()
            self._open_viewers[viewer_id].discard(socket)
            if not self._open_viewers[viewer_id]:
                del self._open_viewers[viewer_id]

    async def _open(self, scope: Scope, target: Target, credentials: Credentials) -> ClientConnection:
        # A number sign ends no query of a request; in a URL it would.
        query = f"?{credentials.query.decode('latin-1').replace('#', '%23')}" if credentials.query else ""
        host = f"[{target.address}]" if ":" in target.address else target.address
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        forwarded, carriers = {}, set()
        for name in target.forwarded_headers:
            carrier, value = credentials.carried(name)
            if value := headers.get(name.encode(), value):
                forwarded[name] = value
            carriers.add(carrier)
        offered = [Subprotocol(name) for name in credentials.subprotocols if name not in carriers]
        path = f"{target.websocket_path}{query}"
        proof = await proof_of(target, "GET", path, self._limits)
        connection = await dial(target, self._limits)
        try:
            return await connect(
                f"ws://{host}:{target.signal_port}{path}",
                sock=connection,
                origin=Origin(headers[b"origin"]) if b"origin" in headers else None,
                subprotocols=offered or None,
                user_agent_header=headers.get(b"user-agent"),
                additional_headers={**forwarded, **proof},
                compression=None,
                # Kit's server is not known to answer pings; TCP's keep-alive finds a node that died.
                ping_interval=None,
                proxy=None,
                open_timeout=self._limits.answer_timeout_s,
                close_timeout=_CLOSE_TIMEOUT_S,
                max_size=self._limits.message_bytes,
                max_queue=8,
            )
        except InvalidStatus as problem:
            if target.max_viewers and problem.response.status_code in _BUSY:
                raise too_many_viewers(target.max_viewers) from None
            raise invalid_answer(f"HTTP {problem.response.status_code} to the WebSocket handshake") from None
        except InvalidHandshake as problem:
            raise invalid_answer(f"no WebSocket handshake ({problem})") from None
        except TimeoutError:
            error = Unavailable(
                f"The application did not answer the WebSocket handshake in {self._limits.answer_timeout_s:g} s: "
                "try again, and see the session's log.",
                reason=Reason.SIGNALING_UNREACHABLE,
                metadata={"signal_port": str(target.signal_port)},
                retry_after_s=1,
            )
            raise FrontDoorError(error, 504) from None
        except (OSError, EOFError) as problem:
            raise invalid_answer(f"the connection broke in the WebSocket handshake ({problem})") from None

    async def _join(self, receive: Receive, send: Send, upstream: ClientConnection, ended: asyncio.Event) -> None:
        up = asyncio.create_task(self._pump_up(receive, upstream))
        down = asyncio.create_task(self._pump_down(send, upstream))
        removal = asyncio.create_task(_removal(ended))
        tasks = (removal, up, down)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            end = next(task for task in tasks if task.done()).result()
            if end is not None:
                await send({"type": "websocket.close", "code": end[0], "reason": end[1]})
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _pump_up(self, receive: Receive, upstream: ClientConnection) -> tuple[int, str] | None:
        """Viewer to application, until the viewer is gone (None) or is to be closed: the code and reason."""
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                if _lost(message):
                    # The application must see what it would see without us: a lost connection, not a close frame.
                    upstream.transport.abort()
                else:
                    await upstream.close(_sendable(message.get("code"), _GOING_AWAY), message.get("reason") or "")
                return None
            data = message.get("bytes")
            payload = message.get("text") if data is None else data
            if payload is None:
                continue
            if len(payload) > self._limits.message_bytes:
                await upstream.close(_TOO_BIG)
                return _TOO_BIG, f"more than {self._limits.message_bytes} bytes"
            try:
                await upstream.send(payload)
            except ConnectionClosed:
                # The other pump sees the same end and passes its code on.
                await asyncio.Event().wait()

    async def _pump_down(self, send: Send, upstream: ClientConnection) -> tuple[int, str] | None:
        """Application to viewer, until the application closes: its code and reason; None where the viewer is gone."""
        try:
            while True:
                message = await upstream.recv()
                kind = "text" if isinstance(message, str) else "bytes"
                await send({"type": "websocket.send", kind: message})
        except ConnectionClosed as end:
            # Where we closed first (a message too big, a broken frame) the code is ours, else the application's.
            close = end.rcvd if end.rcvd_then_sent or end.sent is None else end.sent
            return (_BAD_GATEWAY, "") if close is None else (_sendable(close.code, _BAD_GATEWAY), close.reason)
        except OSError:  # as ASGI servers say it
            return None


async def _removal(ended: asyncio.Event) -> tuple[int, str] | None:
    """Wait until the viewer is disconnected by a call: the code and reason for it."""
    await ended.wait()
    return _POLICY, Reason.VIEWER_DISCONNECTED


def _echo(chosen: str, credentials: Credentials) -> str | None:
    """A browser fails a handshake that chooses none of the subprotocols it offered."""
    offered = (credentials.grant_subprotocol, *credentials.subprotocols)
    return chosen or next(filter(None, offered), None)


def _in_a_frame(text: str) -> str:
    """Cut a text to what a close frame has room for (RFC 6455, section 5.5)."""
    return text.encode()[:_MOST_REASON_BYTES].decode("utf-8", "ignore")


def _lost(message: Message) -> bool:
    """Whether the viewer's connection broke. uvicorn says 1005 then, as for a close without a code, but no reason."""
    return message.get("code") == _LOST or (message.get("code") == _NO_CODE and "reason" not in message)


def _sendable(code: int | None, broken: int) -> int:
    """``code`` where it may be sent (RFC 6455, section 7.4), else what stands for it; ``broken`` for a loss."""
    if code in (None, _LOST, 1015):
        return broken
    assert code is not None
    if code == _NO_CODE:
        return _NORMAL
    return code if code in (1000, 1001, 1002, 1003, *range(1007, 1015)) or 3000 <= code < 5000 else broken
