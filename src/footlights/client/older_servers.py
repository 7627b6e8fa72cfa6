"""What the client does for servers of the release before this one. All of it is removed with the next release.

They ignore members that they do not know, and carry out what should only be checked; they have no FollowSessions.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, TypeVar

import grpc

from footlights.client.errors import ServerTooOld, from_rpc
from footlights.errors import OutOfRange, Reason
from footlights.v1 import application_pb2
from footlights.v1 import session_pb2 as pb
from footlights.v1.application_pb2_grpc import ApplicationServiceStub

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from google.protobuf.message import Message

    from footlights.client.connection import Connection
    from footlights.v1.session_pb2_grpc import StreamingServiceStub

_RequestT = TypeVar("_RequestT", bound="Message")
_MUST_BE_KNOWN: Final = ("validate_only", "etag", "drain_timeout", "filter", "order_by", "include_ended")
_REVISION: Final = "revision "
"""What the cursors of ``follow`` begin with, which a later server does not know."""


async def adapted(channel: grpc.aio.Channel, request: _RequestT, **how: Any) -> _RequestT:
    """Return a request that the server does not misunderstand: ``request`` itself, unless the server is older.

    Asks the server only if the request has members that it must know. A proxy that chooses a server for every call may
    ask one and send the call to another.

    Raises:
        ServerTooOld: It would ignore a member that it must not ignore.
    """
    asked = {field.name for field, _ in request.ListFields() if field.name in _MUST_BE_KNOWN}
    if not asked or not await _is_older(channel, **how):
        return request
    for name in ("drain_timeout", "include_ended"):
        if asked == {name}:
            copy: Any = type(request)()
            copy.CopyFrom(request)
            if name == "drain_timeout":
                copy.deadline.CopyFrom(copy.drain_timeout)
            elif not copy.state:
                copy.state.extend(pb.Session.State.values()[1:])
            copy.ClearField(name)
            meant: _RequestT = copy
            return meant
    raise _too_old(", ".join(sorted(asked)))


async def follow(
    connection: Connection, stub: StreamingServiceStub, request: pb.FollowSessionsRequest
) -> AsyncGenerator[pb.FollowSessionsResponse, None]:
    """Yield the frames of one FollowSessions; those of an older server are made from its watch, and SET only."""
    try:
        async with aclosing(connection.stream(stub.FollowSessions, request, pb.FollowSessionsResponse, None)) as frames:
            async for frame in frames:
                yield frame
        return
    except ServerTooOld:
        pass
    if request.filter or request.state or request.label:
        raise _too_old("filter, state, label")
    if not request.cursor.startswith(_REVISION) and request.cursor:
        raise OutOfRange(
            "The server is older than the one that the cursor is of. List again.",
            reason=Reason.CURSOR_GONE,
            metadata={"revision": ""},
        )
    revision = int(request.cursor.removeprefix(_REVISION) or 0)
    if request.session_id:
        one = pb.WatchSessionRequest(session_id=request.session_id, after_revision=revision)
        sessions = connection.stream(stub.WatchSession, one, pb.Session, None)
    else:
        several = pb.WatchSessionsRequest(
            after_revision=revision, username=request.username, application=request.application
        )
        sessions = connection.stream(stub.WatchSessions, several, pb.Session, None)
    async with aclosing(sessions):
        async for session in sessions:
            revision = max(revision, session.revision)
            yield pb.FollowSessionsResponse(
                change=pb.FollowSessionsResponse.SET, session=session, cursor=f"{_REVISION}{revision}"
            )


async def _is_older(channel: grpc.aio.Channel, **how: Any) -> bool:
    """Return whether the server lacks an RPC that this release has. The request is invalid: nothing is read."""
    try:
        await ApplicationServiceStub(channel).GetRelease(application_pb2.GetReleaseRequest(), **how)
    except grpc.aio.AioRpcError as problem:
        return isinstance(from_rpc(problem), ServerTooOld)
    return False


def _too_old(members: str) -> ServerTooOld:
    return ServerTooOld(
        f"The control plane is of an earlier release than this client and would ignore {members}. The call was not "
        "made. Upgrade it, or leave them out.",
        metadata={"members": members},
    )
