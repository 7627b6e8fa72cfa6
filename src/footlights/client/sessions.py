"""Sessions: StreamingService, watching that survives a lost connection, and waiting."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from footlights.client.errors import DeadlineExceeded, SessionOver
from footlights.errors import LocalReason, OutOfRange, Unavailable
from footlights.protocol import enums, times
from footlights.v1 import session_pb2 as pb
from footlights.v1.session_pb2_grpc import StreamingServiceStub

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from footlights.client.connection import Connection

_READY: Final = frozenset({pb.Session.READY, pb.Session.ACTIVE})
_ENDED: Final = frozenset({pb.Session.TERMINATED, pb.Session.FAILED})
_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _GIVE_UP_S = 0.2, 5.0, 300.0


class Sessions:
    """StreamingService. Every method raises ``footlights.errors.Error``; ``timeout_s`` is the call's deadline."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = StreamingServiceStub(connection.channel)

    async def create(self, request: pb.CreateSessionRequest, *, timeout_s: float | None = None) -> pb.Session:
        """Create a session."""
        return await self._connection.call(self._stub.CreateSession, request, pb.Session, timeout_s)

    async def list(
        self, request: pb.ListSessionsRequest | None = None, *, timeout_s: float | None = None
    ) -> pb.ListSessionsResponse:
        """Return one page of sessions; by default those that have not ended."""
        wanted = request or pb.ListSessionsRequest()
        return await self._connection.call(self._stub.ListSessions, wanted, pb.ListSessionsResponse, timeout_s)

    async def get(self, session_id: str, *, timeout_s: float | None = None) -> pb.Session:
        """Return the current state of a session."""
        request = pb.GetSessionRequest(session_id=session_id)
        return await self._connection.call(self._stub.GetSession, request, pb.Session, timeout_s)

    async def terminate(self, session_id: str, *, timeout_s: float | None = None) -> pb.TerminateSessionResponse:
        """Request the end of a session; ``wait_ended`` waits for it."""
        request = pb.TerminateSessionRequest(session_id=session_id)
        return await self._connection.call(self._stub.TerminateSession, request, pb.TerminateSessionResponse, timeout_s)

    async def connect(
        self, session_id: str, *, wait_s: float | None = None, timeout_s: float | None = None
    ) -> pb.ConnectSessionResponse:
        """Return a grant for one viewer, and the URLs to use it with.

        Args:
            session_id: the session.
            wait_s: how long to watch the session until it is ready; None: not at all.
            timeout_s: the deadline of the call.

        Raises:
            FailedPrecondition: it is not ready (reason ``SESSION_NOT_READY``), or has ended (``SESSION_ENDED``).
            SessionOver: it ended while it was waited for.
            DeadlineExceeded: it was not ready after ``wait_s`` seconds.
        """
        if wait_s is not None:
            await self.wait_ready(session_id, timeout_s=wait_s)
        request = pb.ConnectSessionRequest(session_id=session_id)
        return await self._connection.call(self._stub.ConnectSession, request, pb.ConnectSessionResponse, timeout_s)

    async def extend(self, session_id: str, extend_by_s: float, *, timeout_s: float | None = None) -> pb.Session:
        """Let a session run ``extend_by_s`` seconds longer."""
        request = pb.ExtendSessionRequest(session_id=session_id)
        request.extend_by.CopyFrom(times.duration(extend_by_s))
        return await self._connection.call(self._stub.ExtendSession, request, pb.Session, timeout_s)

    async def log(
        self, session_id: str, *, tail_lines: int | None = None, timeout_s: float | None = None
    ) -> pb.SessionLog:
        """Return the last lines of the application's output."""
        request = pb.GetSessionLogRequest(session_id=session_id, tail_lines=tail_lines)
        return await self._connection.call(self._stub.GetSessionLog, request, pb.SessionLog, timeout_s)

    def tail_log(
        self, session_id: str, *, tail_lines: int | None = None, timeout_s: float | None = None
    ) -> AsyncGenerator[pb.SessionLog, None]:
        """Stream the application's output as it is written."""
        request = pb.TailSessionLogRequest(session_id=session_id, tail_lines=tail_lines)
        return self._connection.stream(self._stub.TailSessionLog, request, pb.SessionLog, timeout_s)

    async def explain(
        self, request: pb.ExplainPlacementRequest, *, timeout_s: float | None = None
    ) -> pb.ExplainPlacementResponse:
        """Return where such a session would be placed now, node by node and device by device."""
        return await self._connection.call(self._stub.ExplainPlacement, request, pb.ExplainPlacementResponse, timeout_s)

    async def watch(self, session_id: str, *, after_revision: int = 0) -> AsyncGenerator[pb.Session, None]:
        """Yield a session now and at every change, until it has ended. Resumes after a lost connection."""

        def begin(revision: int) -> AsyncGenerator[pb.Session, None]:
            request = pb.WatchSessionRequest(session_id=session_id, after_revision=revision)
            return self._connection.stream(self._stub.WatchSession, request, pb.Session, None)

        async with aclosing(_resumed(begin, after_revision)) as sessions:
            async for session in sessions:
                yield session
                if has_ended(session):
                    return

    async def watch_all(self, request: pb.WatchSessionsRequest | None = None) -> AsyncGenerator[pb.Session, None]:
        """Yield every session that the caller may see, now and at every change. Resumes like ``watch``."""
        wanted = request or pb.WatchSessionsRequest()

        def begin(revision: int) -> AsyncGenerator[pb.Session, None]:
            again = pb.WatchSessionsRequest()
            again.CopyFrom(wanted)
            again.after_revision = revision
            return self._connection.stream(self._stub.WatchSessions, again, pb.Session, None)

        async with aclosing(_resumed(begin, wanted.after_revision)) as sessions:
            async for session in sessions:
                yield session

    async def wait_ready(
        self, session_id: str, *, timeout_s: float, on_change: Callable[[pb.Session], None] = lambda _: None
    ) -> pb.Session:
        """Wait until viewers can connect to a session; ``on_change`` is called with every change.

        Raises:
            SessionOver: it is ending or has ended instead.
            DeadlineExceeded: it was not ready after ``timeout_s`` seconds; it keeps starting.
        """
        session = await self._wait(
            session_id, lambda session: is_ready(session) or is_over(session), timeout_s, on_change
        )
        if is_over(session):
            raise SessionOver(session)
        return session

    async def wait_ended(
        self, session_id: str, *, timeout_s: float, on_change: Callable[[pb.Session], None] = lambda _: None
    ) -> pb.Session:
        """Wait until a session has ended and its device is free.

        Raises:
            DeadlineExceeded: it had not ended after ``timeout_s`` seconds; it keeps ending.
        """
        return await self._wait(session_id, has_ended, timeout_s, on_change)

    async def _wait(
        self,
        session_id: str,
        done: Callable[[pb.Session], bool],
        timeout_s: float,
        on_change: Callable[[pb.Session], None],
    ) -> pb.Session:
        last = "not seen"
        try:
            async with asyncio.timeout(timeout_s), aclosing(self.watch(session_id)) as changes:
                async for session in changes:
                    on_change(session)
                    last = enums.field_name(session, "state")
                    if done(session):
                        return session
        except TimeoutError:
            raise DeadlineExceeded(
                f"Session {session_id} is still {last} after {timeout_s:g} s. Wait longer, or terminate it.",
                reason=LocalReason.WAIT_TIMEOUT,
                metadata={"session_id": session_id, "state": last},
            ) from None
        raise AssertionError("a watch ends only when the session has ended, and then every wait is done")


def is_ready(session: pb.Session) -> bool:
    """Return whether viewers can connect to a session."""
    return session.state in _READY


def is_over(session: pb.Session) -> bool:
    """Return whether viewers cannot connect to a session any more; it may still hold its device."""
    return session.state == pb.Session.TERMINATING or has_ended(session)


def has_ended(session: pb.Session) -> bool:
    """Return whether a session has ended and its device is free, also in a state that this release does not know."""
    return session.state in _ENDED or session.HasField("ended_time")


async def _resumed(
    begin: Callable[[int], AsyncGenerator[pb.Session, None]], revision: int
) -> AsyncGenerator[pb.Session, None]:
    """Read consecutive watches, each from where the last one ended; repeated revisions are dropped.

    The first one must be answered; later ones are retried for ``_GIVE_UP_S`` seconds before ``Unavailable`` is raised.
    """
    seen: dict[str, int] = {}
    lost_since: float | None = None
    pause_s = _FIRST_PAUSE_S
    while True:
        overlap = dict(seen)
        try:
            async with aclosing(begin(revision)) as sessions:
                async for session in sessions:
                    lost_since, pause_s = None, _FIRST_PAUSE_S
                    if overlap.pop(session.session_id, -1) >= session.revision:
                        continue
                    seen[session.session_id] = session.revision
                    revision = max(revision, session.revision)
                    yield session
                    if has_ended(session):
                        seen.pop(session.session_id, None)
        except OutOfRange:
            # The database was restored meanwhile: begin again with what there is now.
            if not revision:
                raise
            seen, revision = {}, 0
        except Unavailable:
            lost_since = time.monotonic() if lost_since is None else lost_since
            if not revision or time.monotonic() - lost_since > _GIVE_UP_S:
                raise
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
