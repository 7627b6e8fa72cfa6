"""StreamingService: creates, shows, connects, extends and ends sessions."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import grpc
import structlog

from footlights import errors
from footlights.auth import relays
from footlights.control import limits
from footlights.control.call import bounds
from footlights.control.call import context as calls
from footlights.control.services.sessions import access, explain, logs, request_checks, resolve
from footlights.control.services.sessions import watch as watching
from footlights.lifecycle import SessionState
from footlights.protocol import times
from footlights.store import Store, Transaction, applications
from footlights.store.launches import launch_rows
from footlights.store.sessions import listing
from footlights.store.sessions import session_rows as rows
from footlights.v1 import application_pb2, session_pb2, session_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from google.protobuf.timestamp_pb2 import Timestamp

    from footlights.auth.grants import Grants
    from footlights.control.present import Origin
    from footlights.control.replication.peers import Peers
    from footlights.control.services.sessions.create import Creating
    from footlights.control.services.sessions.resolve import Resolved
    from footlights.control.services.sessions.terminate import Ending
    from footlights.control.settings import ServerSettings
    from footlights.control.signals import Signals
    from footlights.store.schema import SessionRow

log = structlog.get_logger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]


class Sessions(session_pb2_grpc.StreamingServiceServicer):
    """Serves sessions: reads them, and writes intent, never observed state."""

    def __init__(
        self,
        store: Store,
        bus: Signals,
        peers: Peers,
        creating: Creating,
        ending: Ending,
        grants: Grants,
        settings: ServerSettings,
        origin: Origin,
        public_url: str,
        clock: Callable[[], datetime],
    ) -> None:
        """Take what it reads and writes, whom it wakes and asks, who creates and ends, what signs grants."""
        self._store, self._bus, self._peers, self._grants = store, bus, peers, grants
        self._creating, self._ending = creating, ending
        self._settings, self._origin, self._public_url, self._clock = settings, origin, public_url, clock
        self._relays = relays.of(settings.turn_urls, settings.turn_secret_file, settings.turn_ttl_s)

    async def ListSessions(
        self, request: session_pb2.ListSessionsRequest, context: Context
    ) -> session_pb2.ListSessionsResponse:
        """Return one page of the sessions that the caller may see."""
        caller = calls.current().caller
        if request.page_token and request.offset:
            raise errors.InvalidArgument(
                "page_token", f"does not go together with offset={request.offset}. Give one of them."
            )
        username = request.username
        if not caller.may("sessions.all"):
            if username and username != caller.subject:
                return session_pb2.ListSessionsResponse(limit=request.limit, offset=request.offset)
            username = caller.subject
        wanted = listing.Filter(
            states=tuple(sorted(session_pb2.Session.State.Name(state) for state in set(request.state) if state)),
            username=username,
            application=request.application,
            from_time=_moment(request, "from_time"),
            to_time=_moment(request, "to_time"),
            labels=request_checks.wanted_labels(request.label),
            search=request_checks.search(request.search),
        )
        order = listing.Order(request.sort_by, request.order == "DESC")

        def read(tx: Transaction) -> session_pb2.ListSessionsResponse:
            page = listing.page(
                tx, wanted, order, limit=request.limit, offset=request.offset, page_token=request.page_token
            )
            return session_pb2.ListSessionsResponse(
                items=access.show(tx, page.items, self._origin),
                count=page.count,
                count_is_capped=page.count_is_capped,
                limit=request.limit,
                offset=request.offset,
                next_page_token=page.next_page_token,
            )

        return await self._store.read(read)

    async def CreateSession(self, request: session_pb2.CreateSessionRequest, context: Context) -> session_pb2.Session:
        """Accept a session; placing does the rest."""
        return await self._creating.create(request)

    async def GetSession(self, request: session_pb2.GetSessionRequest, context: Context) -> session_pb2.Session:
        """Return one session."""
        caller = calls.current().caller
        return await self._store.read(
            lambda tx: access.show_one(tx, access.find(tx, caller, request.session_id), self._origin)
        )

    async def TerminateSession(
        self, request: session_pb2.TerminateSessionRequest, context: Context
    ) -> session_pb2.TerminateSessionResponse:
        """Ask for a session's end."""
        await self._ending.end(calls.current().caller, request.session_id)
        return session_pb2.TerminateSessionResponse(session_id=request.session_id, status="deleted", satus="deleted")

    async def WatchSession(
        self, request: session_pb2.WatchSessionRequest, context: Context
    ) -> AsyncIterator[session_pb2.Session]:
        """Follow one session to its end."""
        caller = calls.current().caller
        watch = watching.one(self._store, self._bus, caller, request.session_id, request.after_revision, self._origin)
        async for session in watch:
            yield session

    async def WatchSessions(
        self, request: session_pb2.WatchSessionsRequest, context: Context
    ) -> AsyncIterator[session_pb2.Session]:
        """Follow the sessions that the caller may see."""
        caller = calls.current().caller
        username = request.username
        if not caller.may("sessions.all"):
            if username and username != caller.subject:
                request_checks.require(
                    caller, "sessions.all", "username", f"{username!r} is not you ({caller.subject})"
                )
            username = caller.subject
        watch = watching.many(
            self._store,
            self._bus,
            username=username,
            application=request.application,
            after_revision=request.after_revision,
            origin=self._origin,
        )
        async for session in watch:
            yield session

    async def ConnectSession(
        self, request: session_pb2.ConnectSessionRequest, context: Context
    ) -> session_pb2.ConnectSessionResponse:
        """Grant one viewer the way to a session's picture."""
        caller = calls.current().caller

        def read(tx: Transaction) -> tuple[SessionRow, application_pb2.Signaling]:
            row = access.find(tx, caller, request.session_id)
            version = applications.version(tx, row.application, row.application_version)
            recipe = application_pb2.Version.FromString(version.recipe if version else b"")
            return row, recipe.signaling

        row, signaling = await self._store.read(read)
        state = SessionState(row.state)
        if state.awaits_picture:
            raise errors.Unavailable(
                f"The session is {row.state} and has no picture yet. Wait until it is READY: "
                f"GET /stream/{row.session_id}:watch.",
                reason="SESSION_NOT_READY",
                metadata={"state": row.state},
                retry_after_s=1,
            )
        if not state.has_picture:
            raise errors.FailedPrecondition(
                f"The session is {row.state} and has no picture any more. Create a new one.",
                reason="SESSION_ENDED",
                metadata={"state": row.state, "end_reason": row.end_reason},
            )
        log.info("session_connected", session_id=row.session_id)
        now, ttl = self._clock(), self._settings.grant_ttl_s
        base = f"{self._public_url}/stream/{row.session_id}"
        answer = session_pb2.ConnectSessionResponse(
            token=self._grants.mint(row.session_id, caller.subject, ttl, now),
            whep_url=f"{base}/whep" if signaling.whep_path else "",
            signaling_url=f"ws{base.removeprefix('http')}/sign_in" if signaling.websocket_path else "",
        )
        if self._settings.ice_servers:
            answer.ice_servers.add(urls=self._settings.ice_servers)
        if self._relays is not None:
            relay = self._relays.issue(row.session_id, now)
            answer.ice_servers.add(urls=relay.urls, username=relay.username, credential=relay.credential)
        answer.expire_time.FromDatetime(now)
        answer.expire_time.FromNanoseconds(answer.expire_time.ToNanoseconds() + int(ttl * 1e9))
        return answer

    async def ExtendSession(self, request: session_pb2.ExtendSessionRequest, context: Context) -> session_pb2.Session:
        """Give a session more time."""
        caller = calls.current().caller
        more = bounds.positive("extend_by", request.extend_by)

        def write(tx: Transaction) -> tuple[session_pb2.Session, str]:
            row = access.find(tx, caller, request.session_id)
            if row.intent == "END" or row.ended_time is not None:
                raise errors.FailedPrecondition(
                    f"The session is {row.state} and cannot be extended. Create a new one.",
                    reason="SESSION_ENDED",
                    metadata={"state": row.state},
                )
            applied = limits.of_session(row)
            if not applied.HasField("max_duration"):
                raise errors.FailedPrecondition(
                    "The session has no maximum duration, so there is nothing to extend.", reason="NO_MAX_DURATION"
                )
            total = times.seconds(applied.max_duration) + more
            allowed = row.max_total_s if row.max_total_s is not None else bounds.MAX_S
            if total > allowed:
                left = allowed - times.seconds(applied.max_duration)
                fix = f"Give at most {left:g}s." if left > 0 else "It has them already: create a new session in time."
                raise errors.InvalidArgument(
                    "extend_by",
                    f"{more:g}s more would make {total:g}s in all; {row.application} {row.application_version} "
                    f"allows {allowed:g}s. {fix}",
                    reason="ABOVE_MAX_DURATION",
                )
            applied.max_duration.CopyFrom(times.duration(total))
            changed = rows.update_session(tx, row, limits=applied.SerializeToString())
            launch = launch_rows.get(tx, row.launch_id) if row.launch_id else None
            return access.show_one(tx, changed, self._origin), launch.node if launch else ""

        session, node = await self._store.write(write)
        self._bus.session_changed(node)
        log.info("session_extended", session_id=request.session_id, seconds=more)
        return session

    async def GetSessionLog(
        self, request: session_pb2.GetSessionLogRequest, context: Context
    ) -> session_pb2.SessionLog:
        """Return the last lines of the application's output."""
        launch = await self._launch(request.session_id)
        return await logs.read(self._peers, launch, request.tail_lines)

    async def TailSessionLog(
        self, request: session_pb2.TailSessionLogRequest, context: Context
    ) -> AsyncIterator[session_pb2.SessionLog]:
        """Follow the application's output."""
        launch = await self._launch(request.session_id)
        async for part in logs.tail(self._peers, launch, request.tail_lines):
            yield part

    async def ExplainPlacement(
        self, request: session_pb2.ExplainPlacementRequest, context: Context
    ) -> session_pb2.ExplainPlacementResponse:
        """Say what would happen to such a session now."""
        now = self._clock()

        def read(tx: Transaction) -> tuple[Resolved, explain.Seen]:
            resolved = resolve.resolve(tx, request.application, request.application_version, request.profile)
            return resolved, explain.read(tx, now=now)

        resolved, seen = await self._store.read(read)
        return await asyncio.to_thread(explain.explain, seen, resolved, request.priority)

    async def _launch(self, session_id: str) -> logs.Source:
        caller = calls.current().caller

        def read(tx: Transaction) -> logs.Source:
            row = access.find(tx, caller, session_id)
            launch = launch_rows.get(tx, row.launch_id) if row.launch_id else launch_rows.last(tx, session_id)
            if launch is None:
                raise errors.NotFound(
                    f"Session {session_id} has not been launched, so there is no log.", reason="LOG_NOT_FOUND"
                )
            return logs.Source(launch.node, launch.launch_id, launch.ended_time is not None, tuple(launch.log_tail))

        return await self._store.read(read)


def _moment(request: session_pb2.ListSessionsRequest, name: Literal["from_time", "to_time"]) -> datetime | None:
    if not request.HasField(name):
        return None
    stamp: Timestamp = getattr(request, name)
    return stamp.ToDatetime(UTC)
