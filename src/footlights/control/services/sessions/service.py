"""StreamingService: each handler names what it does, and the module that does it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from footlights.control.call import bounds
from footlights.control.call.pages import PAGE_BYTES, Chunk, PagedList, Place
from footlights.control.services import etags
from footlights.control.services.sessions import access, explain, extend, logs, request_checks, resolve, update
from footlights.control.services.sessions.cursors import Cursors
from footlights.control.services.sessions.follow import Followed
from footlights.control.services.sessions.present import NOT_BASIC, list_sessions, show_session
from footlights.store.sessions import listing
from footlights.v1 import session_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from datetime import datetime

    from footlights.control.call.context import Call
    from footlights.control.call.sealed import Sealer
    from footlights.control.replication.peers import Peers
    from footlights.control.routes import Origin
    from footlights.control.services.sessions.connect import SessionConnector
    from footlights.control.services.sessions.create import SessionCreator
    from footlights.control.services.sessions.follow import SessionFollower
    from footlights.control.services.sessions.resolve import Resolved
    from footlights.control.services.sessions.terminate import SessionTerminator
    from footlights.control.services.writes import Writes
    from footlights.control.settings import ServerSettings
    from footlights.control.signals import Signals
    from footlights.store import Store, Transaction
    from footlights.store.schema import SessionRow

log = structlog.get_logger(__name__)


class StreamingService:
    """Serves sessions. It reads them and writes what is wanted of them, never what was observed."""

    def __init__(
        self,
        store: Store,
        bus: Signals,
        *,
        writes: Writes,
        creator: SessionCreator,
        terminator: SessionTerminator,
        connector: SessionConnector,
        follower: SessionFollower,
        peers: Peers,
        origin: Origin,
        sealer: Sealer,
        clock: Callable[[], datetime],
        settings: ServerSettings,
    ) -> None:
        self._store, self._bus, self._writes, self._peers = store, bus, writes, peers
        self._creator, self._terminator, self._connector = creator, terminator, connector
        self._follower, self._sealer, self._cursors = follower, sealer, Cursors(sealer)
        self._origin, self._clock, self._settings = origin, clock, settings

    async def list_sessions(
        self, request: session_pb2.ListSessionsRequest, call: Call, *, most_bytes: int = PAGE_BYTES
    ) -> session_pb2.ListSessionsResponse:
        """Return one page of the sessions that the caller may see."""
        wanted, order = request_checks.list_filter(call.caller, request), request_checks.list_order(request)
        about = request_checks.selection(wanted.username, request)
        pages = PagedList(self._sealer, "sessions", request)

        def read(tx: Transaction) -> session_pb2.ListSessionsResponse:
            selection = listing.Selection(tx, wanted, order, offset=request.offset)

            def some(after: Place | None, limit: int) -> Chunk[session_pb2.Session]:
                found = selection.read(limit, after=after)
                shown = list_sessions(tx, found.rows, self._origin)
                if request.view == session_pb2.ListSessionsRequest.BASIC:
                    for message in shown:
                        for name in NOT_BASIC:
                            message.ClearField(name)
                places = [listing.place(row, order) for row in found.rows]
                return Chunk(list(zip(places, shown, strict=True)), found.more)

            page = pages.page(
                request,
                some,
                most_bytes=most_bytes,
                carry=lambda: self._cursors.seal(self._cursors.now(tx), about),
                released=lambda token: request_checks.released_place(token, wanted, order),
            )
            count, capped = selection.count()
            return session_pb2.ListSessionsResponse(
                items=page.items,
                count=count,
                count_is_capped=capped,
                # Who goes on by the offset adds this to it.
                limit=len(page.items) if page.cut else request.limit,
                offset=request.offset,
                next_page_token=page.next_page_token,
                cursor=page.carried,
            )

        return await self._store.read(read)

    async def create_session(self, request: session_pb2.CreateSessionRequest, call: Call) -> session_pb2.Session:
        """Create a session."""
        return await self._creator.create(request, call)

    async def get_session(self, request: session_pb2.GetSessionRequest, call: Call) -> session_pb2.Session:
        """Return one session."""
        return await self._store.read(
            lambda tx: show_session(tx, access.find(tx, call.caller, request.session_id), self._origin)
        )

    async def update_session(self, request: session_pb2.UpdateSessionRequest, call: Call) -> session_pb2.Session:
        """Change a session that has not ended."""
        session_id = request.session.session_id

        def write(tx: Transaction) -> session_pb2.Session:
            row = self._unchanged(tx, call, session_id, request.etag)
            return show_session(tx, update.update(tx, row, call.caller, request, now=self._clock()), self._origin)

        def done(session: session_pb2.Session) -> None:
            self._bus.session_changed(session.node)
            log.info("session_updated", session_id=session_id)

        return await self._writes.run(request, call, write, answer=session_pb2.Session, done=done)

    async def terminate_session(
        self, request: session_pb2.TerminateSessionRequest, call: Call
    ) -> session_pb2.TerminateSessionResponse:
        """End a session."""
        return await self._terminator.terminate(request, call)

    def watch_session(self, request: session_pb2.WatchSessionRequest, call: Call) -> AsyncIterator[session_pb2.Session]:
        """Follow one session to its end."""
        return self._follower.sessions(Followed(session_id=request.session_id), call.caller, request.after_revision)

    def watch_sessions(
        self, request: session_pb2.WatchSessionsRequest, call: Call
    ) -> AsyncIterator[session_pb2.Session]:
        """Follow the sessions that the caller may see."""
        username = access.visible_username(call.caller, request.username)
        wanted = Followed(username=username, application=request.application)
        return self._follower.sessions(wanted, call.caller, request.after_revision)

    def follow_sessions(
        self, request: session_pb2.FollowSessionsRequest, call: Call
    ) -> AsyncIterator[session_pb2.FollowSessionsResponse]:
        """Follow sessions in frames."""
        return self._follower.follow(request_checks.followed(call.caller, request), call.caller, request.cursor)

    async def connect_session(
        self, request: session_pb2.ConnectSessionRequest, call: Call
    ) -> session_pb2.ConnectSessionResponse:
        """Grant one viewer the way to a session's picture."""
        return await self._connector.connect(call.caller, request.session_id)

    async def extend_session(self, request: session_pb2.ExtendSessionRequest, call: Call) -> session_pb2.Session:
        """Give a session more time."""
        more_s = bounds.bounded("extend_by", request.extend_by)

        def write(tx: Transaction) -> session_pb2.Session:
            row = self._unchanged(tx, call, request.session_id, request.etag)
            return show_session(tx, extend.extend(tx, row, more_s, now=self._clock()), self._origin)

        def done(session: session_pb2.Session) -> None:
            self._bus.session_changed(session.node)
            log.info("session_extended", session_id=request.session_id, seconds=more_s)

        return await self._writes.run(request, call, write, answer=session_pb2.Session, done=done)

    async def get_session_log(self, request: session_pb2.GetSessionLogRequest, call: Call) -> session_pb2.SessionLog:
        """Return the last lines of the application's output."""
        source = await self._store.read(lambda tx: logs.find(tx, call.caller, request.session_id))
        return await logs.read(self._peers, source, request.tail_lines)

    async def tail_session_log(
        self, request: session_pb2.TailSessionLogRequest, call: Call
    ) -> AsyncIterator[session_pb2.SessionLog]:
        """Follow the application's output."""
        source = await self._store.read(lambda tx: logs.find(tx, call.caller, request.session_id))
        async for part in logs.tail(self._peers, source, request.tail_lines):
            yield part

    async def explain_placement(
        self, request: session_pb2.ExplainPlacementRequest, call: Call
    ) -> session_pb2.ExplainPlacementResponse:
        """Say what would happen to such a session now."""
        now = self._clock()

        def read(tx: Transaction) -> tuple[Resolved, explain.FleetSnapshot]:
            resolved = resolve.resolve(
                tx,
                request.application,
                request.application_version,
                request.profile,
                installation=self._settings.installation_limits,
            )
            resolve.isolate(resolved.needs, call.caller, self._settings.least_isolation)
            return resolved, explain.read(tx, now=now)

        resolved, snapshot = await self._store.read(read)
        # The answer for a large fleet takes longer than the event loop may be held.
        return await asyncio.to_thread(explain.explain, snapshot, resolved, request.priority, call.caller.subject)

    @staticmethod
    def _unchanged(tx: Transaction, call: Call, session_id: str, etag: str) -> SessionRow:
        """Return a session that the caller may see and that has the etag of its request, if that has one."""
        row = access.find(tx, call.caller, session_id)
        etags.check(etag, etags.of_session(row), f"session {session_id}")
        return row
