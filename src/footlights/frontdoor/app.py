"""The front door as an ASGI application: its routes, and the errors for all other requests."""

from __future__ import annotations

import re
import secrets
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from footlights.errors import InvalidArgument, NotFound, Reason, Unimplemented
from footlights.frontdoor import credentials as credential
from footlights.frontdoor.answers import Answer, FrontDoorError, error_answer
from footlights.frontdoor.checks import ViewerChecks
from footlights.frontdoor.interfaces import GrantVerifier, Limits, OpenSessions, Resolve, ViewerRegister
from footlights.frontdoor.websocket_proxy import WebSocketProxy
from footlights.frontdoor.whep_proxy import WhepProxy
from footlights.frontdoor.whep_resources import WhepResources
from footlights.http.cors import Cors
from footlights.http.request_ids import request_id
from footlights.http.scope import header, path_below_mount

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from starlette.types import Receive, Scope, Send

_PATH: Final = re.compile(
    r"(?P<session>(?:/v1/sessions|/stream)/(?P<session_id>[^/]+))/"
    r"(?:whep(?:/(?P<resource>[^/]+))?|(?P<sign_in>sign_in))"
    r"|(?P<root>/{1,2}sign_in)"
)
"""With ``root`` a subprotocol or the grant names the session: there NVIDIA's players dial that are given a host, with
two slashes where they are given the path ``/``, too."""

_EXPOSED: Final = (
    "Location", "Link", "ETag", "Retry-After", "Accept-Post", "Accept-Patch", "WWW-Authenticate", "X-Request-Id",
)  # fmt: skip
_METHODS: Final = ("OPTIONS", "HEAD", "POST", "PATCH", "DELETE")
_REQUEST_HEADERS: Final = ("Authorization", "Content-Type", "If-Match", "If-None-Match")

_log = structlog.stdlib.get_logger(__name__)


class FrontDoor:
    """Passes viewers with a grant on to the signalling of their session.

    Args:
        resolve: finds where a session runs.
        grants: verifies grants.
        register: keeps who is connected.
        keys: sign WHEP resources, 32 bytes each, the same in every replica: ``ClusterKey.keys("frontdoor")``. Without
            them, resources do not outlive the process.
        allow_origin: ``"*"``, or the origins whose pages may use this.
        now: the wall clock, aware.
        limits: bounds of sizes, waits and concurrency.
        open_sessions: sessions that are watched and ended by ``sign_in`` without a grant; None for none.
    """

    def __init__(
        self,
        resolve: Resolve,
        grants: GrantVerifier,
        register: ViewerRegister,
        *,
        keys: Callable[[], Sequence[bytes]] | None = None,
        allow_origin: str | Collection[str] = "*",
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        limits: Limits | None = None,
        open_sessions: OpenSessions | None = None,
    ) -> None:
        limits = limits or Limits()
        origins = [allow_origin] if isinstance(allow_origin, str) else allow_origin
        self._cors = Cors(origins, expose=_EXPOSED, request_headers=_REQUEST_HEADERS)
        checks = self._checks = ViewerChecks(resolve, grants, now, open_sessions)
        self._whep = WhepProxy(
            checks, WhepResources(keys or partial(list, [secrets.token_bytes(32)])), register, limits
        )
        self._sockets = WebSocketProxy(checks, register, limits)

    @property
    def open_sockets(self) -> int:
        """How many viewers' WebSockets are open."""
        return self._sockets.places.taken

    async def end_removed(self) -> None:
        """Close the WebSockets of viewers that were disconnected by a call; to be called every second or so."""
        await self._sockets.end_removed()

    @staticmethod
    def owns(scope: Scope) -> bool:
        """Whether a request has one of the front door's routes."""
        return scope["type"] in ("http", "websocket") and _PATH.fullmatch(path_below_mount(scope)) is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or WebSocket (ASGI 3). Its id is in every line of the log, and in an HTTP answer."""
        if scope["type"] not in ("http", "websocket"):
            raise ValueError(f"the scope must be http or websocket (got {scope['type']}).")
        name = request_id(header(scope, b"x-request-id"))
        match = _PATH.fullmatch(path_below_mount(scope))
        session_id = (match["session_id"] or "") if match else ""
        with structlog.contextvars.bound_contextvars(request_id=name, session_id=session_id):
            if scope["type"] == "http":
                await self._http(scope, receive, send, name)
            else:
                await self._websocket(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send, name: str) -> None:
        if scope["method"] == "OPTIONS":
            await self._options(scope)(send)
            return
        try:
            answer = await self._route(scope, receive)
        except FrontDoorError as error:
            _log.info("viewer_refused", path=scope["path"], reason=error.error.reason, status=error.http_status)
            answer = error_answer(error)
        headers = (
            *answer.headers,
            *self._cors.headers(header(scope, b"origin")),
            (b"x-request-id", name.encode("ascii")),
        )
        await Answer(answer.status, headers, answer.body)(send)

    def _options(self, scope: Scope) -> Answer:
        """The answer to OPTIONS, with and without a browser's preflight (WHEP, section 4.1)."""
        requested = header(scope, b"access-control-request-headers")
        headers = (
            *self._cors.headers(header(scope, b"origin")),
            *self._cors.preflight(_METHODS, requested),
            (b"accept-post", b"application/sdp"),
            (b"allow", ", ".join(("OPTIONS", *_allowed(_PATH.fullmatch(path_below_mount(scope))))).encode()),
        )
        return Answer(204, headers)

    async def _route(self, scope: Scope, receive: Receive) -> Answer:
        given = self._taken(scope)
        match = _PATH.fullmatch(path_below_mount(scope))
        if match is None:
            raise FrontDoorError(_no_route("route", path_below_mount(scope)))
        session_id, resource = match["session_id"], match["resource"]
        allowed = _allowed(match)
        if scope["method"] not in allowed:
            raise _wrong_method(scope["method"], allowed)
        if _is_sign_in(match):
            session_id = session_id or self._named(given)
            if scope["method"] == "HEAD":
                await self._sockets.look(session_id, given)
                return Answer(200)
            if scope["method"] == "DELETE":
                await self._sockets.hang_up(session_id, given)
                return Answer(204)
            error = InvalidArgument(
                "upgrade", "this route is a WebSocket: connect with one", reason=Reason.WEBSOCKET_REQUIRED
            )
            raise FrontDoorError(error, 426, {"Upgrade": "websocket", "Connection": "Upgrade"})
        below = f"{scope.get('root_path', '')}{match['session']}/whep"
        if resource:
            return await self._whep.on_resource(scope, receive, session_id, resource, given, resources_at=below)
        return await self._whep.post(scope, receive, session_id, given, resources_at=below)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = self._taken(scope)
        match = _PATH.fullmatch(path_below_mount(scope))
        try:
            if match is None or not _is_sign_in(match):
                raise FrontDoorError(_no_route("WebSocket", path_below_mount(scope)))
            await self._sockets.sign_in(scope, receive, send, match["session_id"] or self._named(given), given)
        except FrontDoorError as error:
            _log.info("viewer_refused", path=scope["path"], reason=error.error.reason, status=error.http_status)
            await self._deny(scope, receive, send, error)

    def _taken(self, scope: Scope) -> credential.Credentials:
        foreign = self._cors.is_foreign(header(scope, b"origin"), header(scope, b"host"))
        return replace(credential.take(scope), is_foreign=foreign)

    def _named(self, given: credential.Credentials) -> str:
        """The session that a request names which does not in its path; empty where it does not at all."""
        return self._checks.session_of(given.grant) or next(iter(given.session_ids), "")

    async def _deny(self, scope: Scope, receive: Receive, send: Send, error: FrontDoorError) -> None:
        await receive()  # websocket.connect
        if "websocket.http.response" in (scope.get("extensions") or {}):
            answer = error_answer(error)
            await Answer(answer.status, (*answer.headers, *self._cors.headers(header(scope, b"origin"))), answer.body)(
                send, websocket=True
            )
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": error.error.reason})


def _no_route(what: str, path: str) -> NotFound:
    return NotFound(f"There is no {what} at {path}.", reason=Reason.PATH_NOT_FOUND, metadata={"path": path})


def _allowed(match: re.Match[str] | None) -> tuple[str, ...]:
    """The methods of a path, beside OPTIONS."""
    if match is None:
        return ()
    if _is_sign_in(match):
        return ("GET", "HEAD", "DELETE")
    return ("PATCH", "DELETE") if match["resource"] else ("POST",)


def _is_sign_in(match: re.Match[str]) -> bool:
    return bool(match["sign_in"] or match["root"])


def _wrong_method(method: str, allowed: tuple[str, ...]) -> FrontDoorError:
    error = Unimplemented(
        f"{method} is not for this route: use {' or '.join(allowed)}.", reason=Reason.METHOD_NOT_ALLOWED
    )
    return FrontDoorError(error, 405, {"Allow": ", ".join(("OPTIONS", *allowed))})
