"""``/sign_in`` of NVCF: sessions are started by POST or by a WebSocket, looked at by HEAD, and ended by DELETE.

The id of a request is that of the session. It authorises nothing: every request has a token of ours, whose caller must
be allowed to do the same by our own API, and the front door is asked with a grant of that caller's.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import structlog

from footlights import errors, ids
from footlights.control.services.nvcf.asked import COOKIE, REQUEST_ID, Asked, passed_on
from footlights.control.services.nvcf.sockets import Inbox, Reply
from footlights.frontdoor import FrontDoorError, PlaceLimits
from footlights.frontdoor.credentials import take
from footlights.frontdoor.interfaces import KnownById
from footlights.frontdoor.places import Places
from footlights.frontdoor.websocket_proxy import TAKEN
from footlights.gateway.upstream import OutgoingCall, UpstreamError
from footlights.http.cors import Cors
from footlights.http.request_ids import request_id
from footlights.http.scope import header
from footlights.protocol import enums
from footlights.protocol.times import duration
from footlights.status import from_status
from footlights.v1 import session_pb2

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator

    from google.protobuf.message import Message as Proto
    from starlette.types import Message, Receive, Scope, Send

    from footlights.auth.roles import Caller
    from footlights.control.call.authenticate import Authenticator
    from footlights.control.services.nvcf.functions import FunctionService
    from footlights.gateway.upstream import LocalUpstream

log = structlog.get_logger(__name__)

State = session_pb2.Session.State
_WAITS: Final = (State.PENDING, State.STARTING)
_SEEN: Final = (State.READY, State.ACTIVE)
_STARTS: Final = PlaceLimits(512, per_session=512, per_grant=512)
_WAITING: Final = PlaceLimits(2048, per_session=8, per_grant=2048)
_CALL_S: Final = 20.0
_MOST_REMEMBERED: Final = 10_000
_NO_GRANT: Final = 401
_LIMITS: Final = ("reconnect_timeout", "never_connected_timeout")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long portals are kept waiting, in seconds: one gives up a start after 5, and a WebSocket after 10."""

    start_s: float = 3.5
    """For a device."""
    open_s: float = 5.0
    """For the application, before the socket is opened without it."""
    poll_s: float = 0.2
    """Between two looks at a session."""
    beat_s: float = 5.0
    """Between two signs of life on a socket that was opened without its application."""


@dataclass(frozen=True, slots=True)
class _Way:
    """The way of a viewer into a session."""

    key: tuple[str, str]
    """The session and its caller."""
    text: str = field(repr=False)
    """The grant."""
    is_new: bool
    """Whether it has opened nothing yet."""


class SignIn:
    """Serves ``/sign_in`` to portals.

    Args:
        upstream: calls our own API in this process.
        authenticator: says whose a token is.
        functions: find what is started.
        front_door: joins a viewer's WebSocket to its application's.
        cors_origins: the origins whose pages may call.
        patience: how long it waits.
    """

    def __init__(
        self,
        upstream: LocalUpstream,
        authenticator: Authenticator,
        functions: FunctionService,
        front_door: Callable[[Scope, Receive, Send], Awaitable[None]],
        *,
        cors_origins: Collection[str] = (),
        patience: Patience | None = None,
    ) -> None:
        service = session_pb2.DESCRIPTOR.services_by_name["StreamingService"]
        self._unary = {rpc.name: upstream.unary(rpc) for rpc in service.methods if not rpc.server_streaming}
        self._authenticator, self._functions, self._front_door = authenticator, functions, front_door
        self._patience = patience or Patience()
        self._cors = Cors(cors_origins, expose=(REQUEST_ID, "Retry-After", "X-Request-Id"), request_headers=())
        self._used: OrderedDict[tuple[str, str], str] = OrderedDict()
        """Grants that have opened a session here, by it and its caller: who comes back is the same viewer."""
        self._starts, self._waiting = Places("starts", _STARTS), Places("waiting sockets", _WAITING)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or WebSocket for which ``is_about_functions``."""
        name = request_id(header(scope, b"x-request-id"))
        take(scope)  # a token in the query, which would be logged
        with structlog.contextvars.bound_contextvars(request_id=name):
            if scope["type"] == "websocket":
                await self._websocket(scope, receive, send)
            elif scope["method"] in ("POST", "HEAD", "DELETE"):
                await self._http(scope, receive, send, name)
            else:
                await self._front_door(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send, name: str) -> None:
        asked = Asked.of(scope)
        headers = [*self._cors.headers(header(scope, b"origin")), (b"x-request-id", name.encode("ascii"))]
        try:
            if scope["method"] == "POST":
                found = await self._post(asked, receive)
            else:
                found = await self._find(asked)
                if scope["method"] == "DELETE":
                    await self._call("TerminateSession", asked, session_pb2.TerminateSessionRequest(session_id=found))
                    found = ""
        except errors.Error as error:
            await _answer(send, refused_status(error), [*headers, *_headers_of(scope, error)], error.message.encode())
            return
        await _answer(send, 200, [*headers, *id_headers(scope, found)])

    async def _post(self, asked: Asked, receive: Receive) -> str:
        """Start a session and return its id; if its client has left, it ends, since nobody knows of it."""
        leaving = asyncio.create_task(_left(receive))
        try:
            session = await self._start(asked, leaving.done)
            if leaving.done():
                await self._end(asked, session.session_id)
            return session.session_id
        finally:
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # websocket.connect
        asked = Asked.of(scope)
        reply = Reply(scope, send, asked, beat_s=self._patience.beat_s)
        async with Inbox.of(receive) as inbox:
            try:
                grant = await self._admitted(scope, asked, inbox, reply)
            except errors.Error as error:
                log.info("viewer_refused", path=scope["path"], reason=error.reason)
                await reply.refuse(refused_status(error), error.message, _headers_of(scope, error))
                return
            except OSError:  # as ASGI servers say that a client has left
                return
            if inbox.is_flooded:
                await reply.end_flood()
            elif grant:
                asked_for = passed_on(scope, reply.session_id, grant.text)
                await self._front_door(asked_for, inbox.hand_over(), partial(self._tell, reply, grant))

    async def _admitted(self, scope: Scope, asked: Asked, inbox: Inbox, reply: Reply) -> _Way | None:
        """Wait until a session can be seen, and return the way to it; None where its client has left."""
        opens_at = asyncio.get_running_loop().time() + self._patience.open_s
        caller = await self._caller(asked)
        started = not asked.request_id
        session_id = (await self._start(asked, inbox.left.is_set)).session_id if started else await self._find(asked)
        reply.know(session_id, id_headers(scope, session_id))
        with self._hold(self._waiting, caller, session_id):
            session = await self._session(asked, session_id)
            while session.state in _WAITS and not inbox.left.is_set():
                if asyncio.get_running_loop().time() >= opens_at:
                    await reply.open()
                    await reply.beat()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(inbox.left.wait(), self._patience.poll_s)
                session = await self._session(asked, session_id)
        if inbox.left.is_set():
            if started and not reply.is_open:
                await self._end(asked, session_id)
            return None
        if session.state not in _SEEN:
            raise _ended(session)
        granted = await self._call("ConnectSession", asked, session_pb2.ConnectSessionRequest(session_id=session_id))
        key = session_id, caller.subject
        known = self._used.get(key)
        return _Way(key, known or granted.token, is_new=known is None)

    async def _tell(self, reply: Reply, way: _Way, message: Message) -> None:
        """Pass on what the front door says, and keep the grant by which it lets this viewer in again."""
        match message["type"]:
            case "websocket.accept":
                self._used[way.key] = way.text
                self._used.move_to_end(way.key)
                while len(self._used) > _MOST_REMEMBERED:
                    self._used.popitem(last=False)
            case "websocket.http.response.start" if message["status"] == _NO_GRANT:
                self._forget(way)
            case "websocket.close" if way.is_new and message.get("code") == TAKEN:
                # Let in only to be told so: the grant has opened nothing, and would never again once it has expired.
                self._forget(way)
        await reply.pass_on(message)

    def _forget(self, way: _Way) -> None:
        if self._used.get(way.key) == way.text:
            del self._used[way.key]

    async def _start(self, asked: Asked, left: Callable[[], bool]) -> session_pb2.Session:
        """Create a session, and wait until it has a device. One that has none in time ends: nobody would wait for it.

        Raises an error where there is no such function, it cannot be started, or no device is free for it.
        """
        caller = await self._caller(asked)
        if not asked.function_id:
            raise errors.InvalidArgument("Function-ID", "is required. GET /v2/nvcf/functions lists the functions.")
        with self._hold(self._starts, caller, asked.function_id):
            function = await self._functions.find(asked.function_id, asked.version_id)
            wanted = session_pb2.CreateSessionRequest(
                application=function.application, application_version=function.version, profile=function.profile
            )
            session = await self._create(asked, wanted)
            ends_at = asyncio.get_running_loop().time() + self._patience.start_s
            while session.state == State.PENDING and not left() and asyncio.get_running_loop().time() < ends_at:
                await asyncio.sleep(self._patience.poll_s)
                session = await self._session(asked, session.session_id)
        if session.state == State.PENDING:
            await self._end(asked, session.session_id)
            why = f"No device is free for {function.name}: nothing was started. Try again. {session.status_message}"
            raise errors.Unavailable(
                why.strip(),
                reason=errors.Reason.FUNCTION_BUSY,
                metadata={"function_id": function.function_id},
                retry_after_s=5.0,
            )
        if session.state not in (*_WAITS, *_SEEN):
            raise _ended(session)
        return session

    async def _create(self, asked: Asked, wanted: session_pb2.CreateSessionRequest) -> session_pb2.Session:
        """Create a session that waits for its viewer as long as is asked for, or as long as its version allows."""
        limits = dict.fromkeys(_LIMITS, duration(asked.window_s))
        while True:
            request = session_pb2.CreateSessionRequest()
            request.CopyFrom(wanted)
            for name, value in limits.items():
                getattr(request.limits, name).CopyFrom(value)
            try:
                created: session_pb2.Session = await self._call("CreateSession", asked, request)
            except errors.InvalidArgument as error:
                # The version, or the installation, allows less: what it allows applies.
                lowered = error.reason == errors.Reason.ABOVE_LIMIT
                if not lowered or limits.pop(error.metadata.get("limit", ""), None) is None:
                    raise
            else:
                return created

    async def _find(self, asked: Asked) -> str:
        """Return the id of the session that a request is about, which lives. Raises NotFound."""
        await self._caller(asked)
        if ids.is_uuid(asked.request_id):
            session = await self._session(asked, asked.request_id)
            function = await self._functions.find(asked.function_id, "")
            if session.application == function.application and session.state in (*_WAITS, *_SEEN):
                return session.session_id
        raise errors.NotFound(
            "No existing session found: it has ended, or was never there. Start a new one.",
            reason=errors.Reason.SESSION_NOT_FOUND,
            metadata={"field": COOKIE, "session_id": asked.request_id[:64]},
        )

    async def _session(self, asked: Asked, session_id: str) -> session_pb2.Session:
        request = session_pb2.GetSessionRequest(session_id=session_id)
        found: session_pb2.Session = await self._call("GetSession", asked, request)
        return found

    async def _end(self, asked: Asked, session_id: str) -> None:
        with contextlib.suppress(errors.NotFound):
            await self._call("TerminateSession", asked, session_pb2.TerminateSessionRequest(session_id=session_id))

    async def _caller(self, asked: Asked) -> Caller:
        return await self._authenticator.caller(asked.authorization)

    async def _call(self, name: str, asked: Asked, request: Proto) -> Any:
        outgoing = OutgoingCall((("authorization", asked.authorization),), _CALL_S)
        try:
            return await self._unary[name](request, outgoing)
        except UpstreamError as error:
            raise from_status(error.status) from None

    @staticmethod
    @contextlib.contextmanager
    def _hold(places: Places, caller: Caller, what: str) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(places.hold(KnownById(what, caller.subject, caller.token_id)))
            except FrontDoorError as error:
                raise error.error from None
            yield


def refused_status(error: errors.Error) -> int:
    """Return the status of a refusal; never 400, which players take for a hint to try another protocol."""
    return FrontDoorError(error).http_status


def id_headers(scope: Scope, session_id: str) -> list[tuple[bytes, bytes]]:
    """Return the headers that tell a client the id of its request; empty forgets it."""
    # A page of another origin sends it back only where this says so, which browsers take over TLS only.
    across = "; Secure; SameSite=None" if scope["scheme"] in ("https", "wss") else ""
    life = "" if session_id else "; Max-Age=0"
    cookie = (b"set-cookie", f"{COOKIE}={session_id}; Path=/; HttpOnly{life}{across}".encode())
    return [(REQUEST_ID.encode(), session_id.encode()), cookie] if session_id else [cookie]


def _headers_of(scope: Scope, error: errors.Error) -> list[tuple[bytes, bytes]]:
    found = [(b"content-type", b"text/plain; charset=utf-8")]
    if isinstance(error, errors.NotFound) and error.reason == errors.Reason.SESSION_NOT_FOUND:
        found += id_headers(scope, "")
    if error.retry_after_s is not None:
        found.append((b"retry-after", str(max(1, round(error.retry_after_s))).encode()))
    return found


def _ended(session: session_pb2.Session) -> errors.FailedPrecondition:
    state = enums.name_of(State, session.state)
    return errors.FailedPrecondition(
        f"The session is {state}. {session.status_message}".strip(),
        reason=errors.Reason.SESSION_ENDED,
        metadata={"session_id": session.session_id, "state": state},
    )


async def _answer(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes = b"") -> None:
    more = [(b"content-length", str(len(body)).encode()), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *more]})
    await send({"type": "http.response.body", "body": body})


async def _left(receive: Receive) -> None:
    """Wait until the client of a request has left; what it sends is not read by anybody."""
    while (await receive())["type"] != "http.disconnect":
        pass
