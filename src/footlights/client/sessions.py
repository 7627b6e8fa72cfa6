"""Sessions: StreamingService, following that survives a lost connection, and waiting."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

from footlights.client import older_servers
from footlights.client.errors import DeadlineExceeded, SessionOver
from footlights.client.pages import Items, items
from footlights.client.resuming import resumed
from footlights.client.session_states import has_ended, is_over, is_ready
from footlights.errors import LocalReason, NotFound, Reason, Unavailable
from footlights.protocol import enums, times
from footlights.v1 import session_pb2 as pb
from footlights.v1 import viewer_pb2
from footlights.v1.session_pb2_grpc import StreamingServiceStub
from footlights.v1.viewer_pb2_grpc import ViewerServiceStub

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable
    from typing import Unpack

    from footlights.client.connection import CallOptions, ChangeOptions, Connection, WriteOptions


class Sessions:
    """StreamingService and ViewerService. Every method raises ``footlights.errors.Error``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = StreamingServiceStub(connection.channel)
        self._viewers = ViewerServiceStub(connection.channel)

    async def create(self, request: pb.CreateSessionRequest, **options: Unpack[WriteOptions]) -> pb.Session:
        """Create a session."""
        return await self._connection.call(self._stub.CreateSession, request, pb.Session, options)

    async def list(
        self, request: pb.ListSessionsRequest | None = None, **options: Unpack[CallOptions]
    ) -> pb.ListSessionsResponse:
        """Return one page of sessions; by default those that have not ended."""
        wanted = request or pb.ListSessionsRequest()
        return await self._connection.call(self._stub.ListSessions, wanted, pb.ListSessionsResponse, options)

    def iterate(
        self, request: pb.ListSessionsRequest | None = None, **options: Unpack[CallOptions]
    ) -> Items[pb.ListSessionsResponse, pb.Session]:
        """Return all sessions that ``list`` has pages of."""
        return items(lambda wanted: self.list(wanted, **options), request or pb.ListSessionsRequest())

    async def get(self, session_id: str, **options: Unpack[CallOptions]) -> pb.Session:
        """Return the current state of a session."""
        request = pb.GetSessionRequest(session_id=session_id)
        return await self._connection.call(self._stub.GetSession, request, pb.Session, options)

    async def update(
        self, session: pb.Session, paths: Iterable[str] = (), **options: Unpack[ChangeOptions]
    ) -> pb.Session:
        """Change a session that has not ended.

        Args:
            session: its id, and the members to change: labels, limits, priority.
            paths: the members to change, such as ``labels.team``; one that ``session`` lacks is cleared. Empty: those
                that ``session`` has.
            options: as of every change.
        """
        request = pb.UpdateSessionRequest(session=session)
        request.update_mask.paths.extend(paths)
        return await self._connection.call(self._stub.UpdateSession, request, pb.Session, options)

    async def terminate(self, session_id: str, **options: Unpack[ChangeOptions]) -> pb.TerminateSessionResponse:
        """Request the end of a session; ``wait_ended`` waits for it."""
        request = pb.TerminateSessionRequest(session_id=session_id)
        return await self._connection.call(self._stub.TerminateSession, request, pb.TerminateSessionResponse, options)

    async def connect(
        self, session_id: str, *, wait_s: float | None = None, **options: Unpack[CallOptions]
    ) -> pb.ConnectSessionResponse:
        """Return a grant for one viewer, and what its player is told: a WHEP URL, or what NVIDIA's player takes.

        Args:
            session_id: the session.
            wait_s: how long to watch the session until it is ready; None: not at all.
            options: as of every call.

        Raises:
            FailedPrecondition: it is not ready (reason ``SESSION_NOT_READY``), or has ended (``SESSION_ENDED``).
            SessionOver: it ended while it was waited for.
            DeadlineExceeded: it was not ready after ``wait_s`` seconds.
        """
        if wait_s is not None:
            await self.wait_ready(session_id, timeout_s=wait_s)
        request = pb.ConnectSessionRequest(session_id=session_id)
        return await self._connection.call(self._stub.ConnectSession, request, pb.ConnectSessionResponse, options)

    async def list_viewers(
        self, request: viewer_pb2.ListViewersRequest, **options: Unpack[CallOptions]
    ) -> viewer_pb2.ListViewersResponse:
        """Return one page of a session's viewers, newest first."""
        return await self._connection.call(self._viewers.ListViewers, request, viewer_pb2.ListViewersResponse, options)

    def viewers(
        self, session_id: str, **options: Unpack[CallOptions]
    ) -> Items[viewer_pb2.ListViewersResponse, viewer_pb2.Viewer]:
        """Return all viewers of a session, also those that have left; newest first."""
        request = viewer_pb2.ListViewersRequest(session_id=session_id)
        return items(lambda wanted: self.list_viewers(wanted, **options), request)

    async def disconnect(self, session_id: str, viewer_id: str, **options: Unpack[WriteOptions]) -> viewer_pb2.Viewer:
        """Disconnect a viewer; its grant is refused from now on."""
        request = viewer_pb2.DisconnectViewerRequest(session_id=session_id, viewer_id=viewer_id)
        return await self._connection.call(self._viewers.DisconnectViewer, request, viewer_pb2.Viewer, options)

    async def extend(self, session_id: str, extend_by_s: float, **options: Unpack[ChangeOptions]) -> pb.Session:
        """Let a session run ``extend_by_s`` seconds longer."""
        request = pb.ExtendSessionRequest(session_id=session_id)
        request.extend_by.CopyFrom(times.duration(extend_by_s))
        return await self._connection.call(self._stub.ExtendSession, request, pb.Session, options)

    async def log(
        self, session_id: str, *, tail_lines: int | None = None, **options: Unpack[CallOptions]
    ) -> pb.SessionLog:
        """Return the last lines of the application's output."""
        request = pb.GetSessionLogRequest(session_id=session_id, tail_lines=tail_lines)
        return await self._connection.call(self._stub.GetSessionLog, request, pb.SessionLog, options)

    def tail_log(
        self, session_id: str, *, tail_lines: int | None = None, timeout_s: float | None = None
    ) -> AsyncGenerator[pb.SessionLog, None]:
        """Stream the application's output as it is written; ``timeout_s`` None: without a deadline."""
        request = pb.TailSessionLogRequest(session_id=session_id, tail_lines=tail_lines)
        return self._connection.stream(self._stub.TailSessionLog, request, pb.SessionLog, timeout_s)

    async def explain(
        self, request: pb.ExplainPlacementRequest, **options: Unpack[CallOptions]
    ) -> pb.ExplainPlacementResponse:
        """Return where such a session would be placed now, node by node and device by device."""
        return await self._connection.call(self._stub.ExplainPlacement, request, pb.ExplainPlacementResponse, options)

    def follow(
        self, request: pb.FollowSessionsRequest | None = None, *, start_over: Callable[[], None] | None = None
    ) -> AsyncGenerator[pb.FollowSessionsResponse, None]:
        """Yield the frames of a watch: sessions as they are, SYNCED, then changes; of one session until it has ended.

        Resumes after a lost connection where it was, for up to five minutes. A server of the release before sends only
        SET, and cannot filter.

        Args:
            request: which sessions, and where to begin; all that the caller may see if it is None.
            start_over: called where the server cannot continue at the cursor: forget what there was, everything is sent
                again. None: the error is raised, with the reason CURSOR_GONE or INVALID_CURSOR.
        """

        def begin(wanted: pb.FollowSessionsRequest) -> AsyncGenerator[pb.FollowSessionsResponse, None]:
            return older_servers.follow(self._connection, self._stub, wanted)

        return resumed(begin, request or pb.FollowSessionsRequest(), start_over)

    async def watch(self, session_id: str) -> AsyncGenerator[pb.Session, None]:
        """Yield a session now and at every change, until it has ended. Resumes like ``follow``.

        Raises:
            NotFound: there is no such session, or not any more.
        """
        last: pb.Session | None = None
        request = pb.FollowSessionsRequest(session_id=session_id)
        async with aclosing(self.follow(request, start_over=lambda: None)) as frames:
            async for frame in frames:
                if frame.change == pb.FollowSessionsResponse.REMOVED:
                    raise NotFound(
                        f"Session {session_id} is not kept any more.",
                        reason=Reason.SESSION_NOT_FOUND,
                        metadata={"field": "session_id", "session_id": session_id},
                    )
                if frame.change != pb.FollowSessionsResponse.SET or frame.session == last:
                    continue
                last = frame.session
                yield last
                if has_ended(last):
                    return

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
        raise Unavailable(f"The server ended the watch of session {session_id}, which was {last}. Try again.")
