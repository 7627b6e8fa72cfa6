"""ApplicationStreamingService: NVIDIA's published four calls, over the handlers of StreamingService.

The requests of both have equal numbers for equal members, so one is read from the bytes of the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from footlights.control.call.pages import WHOLE_BYTES
from footlights.ovc.v2 import application_streaming_pb2 as ovc_pb2
from footlights.v1 import session_pb2

if TYPE_CHECKING:
    from footlights.control.call.context import Call
    from footlights.control.services.sessions.service import StreamingService


class ApplicationStreamingService:
    """Serves sessions as the Application Streaming API 2.0.0 has them."""

    def __init__(self, sessions: StreamingService) -> None:
        self._sessions = sessions

    async def list_streams(self, request: ovc_pb2.ListStreamsRequest, call: Call) -> ovc_pb2.ListStreamsResponse:
        """Return one page of the sessions that the caller may see."""
        asked = session_pb2.ListSessionsRequest.FromString(request.SerializeToString())
        # As large as stock gRPC clients take. One that is cut says so by its limit, which clients add to the offset.
        found = await self._sessions.list_sessions(asked, call, most_bytes=WHOLE_BYTES)
        return ovc_pb2.ListStreamsResponse(
            items=found.items,
            count=found.count,
            count_is_capped=found.count_is_capped,
            limit=found.limit,
            offset=found.offset,
            next_page_token=found.next_page_token,
        )

    async def create_stream(self, request: ovc_pb2.CreateStreamRequest, call: Call) -> session_pb2.Session:
        """Create a session."""
        asked = session_pb2.CreateSessionRequest.FromString(request.SerializeToString())
        return await self._sessions.create_session(asked, call)

    async def terminate_stream(
        self, request: ovc_pb2.TerminateStreamRequest, call: Call
    ) -> ovc_pb2.TerminateStreamResponse:
        """End a session."""
        await self._sessions.terminate_session(session_pb2.TerminateSessionRequest(session_id=request.session_id), call)
        return ovc_pb2.TerminateStreamResponse(session_id=request.session_id, status="deleted", satus="deleted")

    async def get_stream(self, request: ovc_pb2.GetStreamRequest, call: Call) -> session_pb2.Session:
        """Return one session."""
        return await self._sessions.get_session(session_pb2.GetSessionRequest(session_id=request.session_id), call)
