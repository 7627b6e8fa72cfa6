"""StreamSessionService: sessions as the Streaming Session Manager of Kit App Streaming has them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from google.protobuf.empty_pb2 import Empty

from footlights import errors
from footlights.control.services.kas.wording import in_its_words
from footlights.control.services.sessions import resolve
from footlights.kas.v1 import kit_app_streaming_pb2 as kas_pb2
from footlights.lifecycle import SessionState, known
from footlights.protocol import enums
from footlights.store import Transaction
from footlights.store import applications as rows
from footlights.v1 import profile_pb2, session_pb2

if TYPE_CHECKING:
    from footlights.control.call.context import Call
    from footlights.control.services.sessions.service import StreamingService
    from footlights.launch.recipe.limits import InstallationLimits
    from footlights.store import Store

DEFAULT: Final = "default"
"""The release that is meant where no version is named, and the profile that is implied."""
LATEST: Final = "latest"
"""What clients call the version that is meant where none is named."""
_UNSEEN: Final = "never_connected_timeout"
_NEVER_CONNECTED: Final = timedelta(minutes=10)
"""How long a stream that is ready waits for its viewer, where its version and profile do not say: clients end none that
is starting, so one whose page was closed meanwhile would hold its device indefinitely."""
_LIVE: Final = [enums.number_of(session_pb2.Session.State, each) for each in SessionState if not each.is_over]


class StreamSessionService:
    """Serves sessions to clients of Kit App Streaming."""

    def __init__(self, store: Store, sessions: StreamingService, installation: InstallationLimits) -> None:
        self._store, self._sessions, self._installation = store, sessions, installation

    @in_its_words
    async def list_streams(self, request: kas_pb2.ListStreamsRequest, call: Call) -> kas_pb2.ListStreamsResponse:
        """Return one page of those that have not ended."""
        asked = session_pb2.ListSessionsRequest(
            limit=request.limit, offset=request.offset, state=_LIVE, sort_by="created_time", order="ASC"
        )
        found = await self._sessions.list_sessions(asked, call)
        return kas_pb2.ListStreamsResponse(
            items=map(_stream, found.items), count=found.count, limit=found.limit, offset=found.offset
        )

    @in_its_words
    async def create_stream(self, request: kas_pb2.CreateStreamRequest, call: Call) -> kas_pb2.Stream:
        """Create a session."""
        asked = await self._store.read(lambda tx: self._chosen(tx, request))
        return _stream(await self._sessions.create_session(asked, call))

    @in_its_words
    async def delete_stream(self, request: kas_pb2.DeleteStreamRequest, call: Call) -> Empty:
        """End a session."""
        await self._sessions.terminate_session(session_pb2.TerminateSessionRequest(session_id=request.id), call)
        return Empty()

    @in_its_words
    async def get_stream(self, request: kas_pb2.GetStreamRequest, call: Call) -> kas_pb2.Stream:
        """Return one session that has not ended."""
        found = await self._sessions.get_session(session_pb2.GetSessionRequest(session_id=request.id), call)
        state = _state(found)
        if state is not None and state.is_over:
            ended = enums.name_of(session_pb2.Session.EndReason, found.end_reason) if found.end_reason else "is ending"
            raise errors.NotFound(
                f"The stream has ended: {ended}. {found.status_message}".strip(),
                reason=errors.Reason.SESSION_NOT_FOUND,
                metadata={"field": "id", "session_id": request.id},
            )
        return _stream(found)

    def _chosen(self, tx: Transaction, request: kas_pb2.CreateStreamRequest) -> session_pb2.CreateSessionRequest:
        """Return the session that is meant: of which version, with which profile, and for how long unseen."""
        version, profile = request.version, request.profile
        if version in ("", LATEST):
            version = DEFAULT if rows.release(tx, request.id, DEFAULT) else rows.newest_version(tx, request.id)
        found = rows.profile(tx, profile)
        if profile == DEFAULT and found is None:
            profile = ""
        asked = session_pb2.CreateSessionRequest(
            application=request.id,
            application_version=version,
            profile=profile,
            application_arguments=request.arguments,
        )
        try:
            resolved = resolve.resolve(tx, request.id, version, profile, installation=self._installation)
        except errors.Error:
            return asked  # whose creation says why it cannot be
        said = [*resolved.version.limits.unlimited]
        if found is not None:
            said += profile_pb2.Profile.FromString(found.definition).limits.unlimited
        if not resolved.limits.HasField(_UNSEEN) and _UNSEEN not in said:
            asked.limits.never_connected_timeout.FromTimedelta(_NEVER_CONNECTED)
        return asked


def _state(session: session_pb2.Session) -> SessionState | None:
    """Return a session's state; None for one that only a later release knows, of which nothing is assumed."""
    return known(SessionState, enums.name_of(session_pb2.Session.State, session.state))


def _stream(session: session_pb2.Session) -> kas_pb2.Stream:
    state = _state(session)
    condition = "starting" if state is None else state.lower()
    message, ready = session.status_message, state is not None and state.has_picture
    stream = kas_pb2.Stream(id=session.session_id)
    if ready and len(session.routes) > 1:
        ready, condition, message = False, "unreachable", session.routes_message
    elif ready and not session.routes:
        ready, condition = False, "starting"
    elif ready:
        condition, message = "ready", session.routes_message or message or "Session is active"
        for host, ways in session.routes.items():
            for way in ways.routes:
                stream.routes[host].routes.add(
                    description=way.description,
                    protocol=way.protocol,
                    source_port=way.source_port,
                    destination_port=way.destination_port,
                )
    message = " ".join(each for each in (message, session.stage_message) if each)
    stream.status.MergeFrom(kas_pb2.Stream.Status(condition=condition, message=message, status=ready))
    return stream
