"""The front door as an ASGI application: two routes, and what is refused around them."""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import structlog

from footlights.errors import Error as FootlightsError
from footlights.errors import InvalidArgument, NotFound
from footlights.frontdoor import credentials as credential
from footlights.frontdoor.answers import Answer, Cors, Refusal, header, refused
from footlights.frontdoor.entry import Entry, full
from footlights.frontdoor.resources import Resources
from footlights.frontdoor.sockets import Sockets
from footlights.frontdoor.ways import Grants, Limits, Resolve
from footlights.frontdoor.whep import Whep
from footlights.ids import request_id

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from starlette.types import Receive, Scope, Send

_PATH: Final = re.compile(r"/stream/(?P<session_id>[^/]+)/(?:whep(?:/(?P<resource>[^/]+))?|(?P<sign_in>sign_in))")

_log = structlog.stdlib.get_logger(__name__)


class FrontDoor:
    """Lets viewers with a grant through to their session's signalling."""

    def __init__(
        self,
        resolve: Resolve,
        grants: Grants,
        *,
        key: bytes | None = None,
        allow_origin: str | Collection[str] = "*",
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        limits: Limits | None = None,
    ) -> None:
        """Stand between viewers and nodes.

        Args:
            resolve: says where a session is.
            grants: verifies grants.
            key: signs WHEP resources, 32 bytes, the same in every replica: ``ClusterKey.derive("frontdoor")``.
                Without one resources do not outlive the process.
            allow_origin: ``"*"``, or the origins whose pages may use this.
            now: the wall clock, aware.
            limits: how much is too much.
        """
        self._limits = limits or Limits()
        self._cors = Cors(allow_origin)
        entry = Entry(resolve, grants, now)
        self._whep = Whep(entry, Resources(key or secrets.token_bytes(32)), self._limits)
        self._sockets = Sockets(entry, self._limits)
        self._requests = 0
        self._open_sockets = 0

    @property
    def open_sockets(self) -> int:
        """How many viewers' WebSockets are open."""
        return self._open_sockets

    @staticmethod
    def owns(scope: Scope) -> bool:
        """Whether this request is the front door's: what is not belongs to whoever stands beside it."""
        return scope["type"] in ("http", "websocket") and _PATH.fullmatch(_path(scope)) is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or WebSocket (ASGI 3). Its id is in every line of the log, and in an HTTP answer."""
        if scope["type"] not in ("http", "websocket"):
            raise ValueError(f"The front door serves http and websocket, not {scope['type']}.")
        name = request_id(header(scope, b"x-request-id").decode("latin-1"))
        match = _PATH.fullmatch(_path(scope))
        session_id = match["session_id"] if match else ""
        with structlog.contextvars.bound_contextvars(request_id=name, session_id=session_id):
            if scope["type"] == "http":
                await self._http(scope, receive, send, name)
            else:
                await self._websocket(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send, name: str) -> None:
        if scope["method"] == "OPTIONS":
            await self._cors.preflight(scope)(send)
            return
        try:
            if self._requests >= self._limits.requests:
                raise full()
            self._requests += 1
            try:
                answer = await self._route(scope, receive)
            finally:
                self._requests -= 1
        except Refusal as refusal:
            _log.info("viewer_refused", path=scope["path"], reason=refusal.error.reason, status=refusal.http_status)
            answer = refused(refusal)
        headers = (*answer.headers, *self._cors.headers(scope), (b"x-request-id", name.encode("ascii")))
        await Answer(answer.status, headers, answer.body)(send)

    async def _route(self, scope: Scope, receive: Receive) -> Answer:
        given = credential.take(scope)
        match = _PATH.fullmatch(_path(scope))
        if match is None:
            raise Refusal(NotFound(f"There is nothing at {_path(scope)}.", reason="ROUTE_NOT_FOUND"))
        session_id, resource = match["session_id"], match["resource"]
        if match["sign_in"]:
            error = InvalidArgument(
                "upgrade", "this route is a WebSocket: connect with one", reason="WEBSOCKET_REQUIRED"
            )
            raise Refusal(error, 426, {"Upgrade": "websocket", "Connection": "Upgrade"})
        allowed = ("PATCH", "DELETE") if resource else ("POST",)
        if scope["method"] not in allowed:
            raise _wrong_method(scope["method"], allowed)
        if resource:
            return await self._whep.on_resource(scope, receive, session_id, resource, given)
        return await self._whep.post(scope, receive, session_id, given)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = credential.take(scope)
        match = _PATH.fullmatch(_path(scope))
        try:
            if match is None or not match["sign_in"]:
                raise Refusal(NotFound(f"There is no WebSocket at {_path(scope)}.", reason="ROUTE_NOT_FOUND"))
            if self._open_sockets >= self._limits.sockets:
                raise full()
            self._open_sockets += 1
            try:
                await self._sockets.sign_in(scope, receive, send, match["session_id"], given)
            finally:
                self._open_sockets -= 1
        except Refusal as refusal:
            _log.info("viewer_refused", path=scope["path"], reason=refusal.error.reason, status=refusal.http_status)
            await self._deny(scope, receive, send, refusal)

    async def _deny(self, scope: Scope, receive: Receive, send: Send, refusal: Refusal) -> None:
        await receive()  # websocket.connect
        if "websocket.http.response" in (scope.get("extensions") or {}):
            answer = refused(refusal)
            await Answer(answer.status, (*answer.headers, *self._cors.headers(scope)), answer.body)(
                send, websocket=True
            )
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": refusal.error.reason})


def _path(scope: Scope) -> str:
    """The path below where the application is mounted (ASGI: ``path`` includes ``root_path``)."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


def _wrong_method(method: str, allowed: tuple[str, ...]) -> Refusal:
    error: FootlightsError = InvalidArgument(
        "method", f"{method} is not for this route: use {' or '.join(allowed)}", reason="METHOD_NOT_ALLOWED"
    )
    return Refusal(error, 405, {"Allow": ", ".join(("OPTIONS", *allowed))})
