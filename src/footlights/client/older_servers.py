"""What the client does for servers of the release before this one. All of it is removed with the next release.

They ignore members that they do not know, and carry out what should only be checked; they have no FollowSessions.
tests/client/test_older_servers.py compares what is listed here with the descriptors of that release.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, TypeVar

import grpc

from footlights.client.errors import ServerTooOld, from_rpc
from footlights.errors import OutOfRange, Reason
from footlights.v1 import application_pb2, node_pb2
from footlights.v1 import session_pb2 as pb
from footlights.v1.application_pb2_grpc import ApplicationServiceStub

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from google.protobuf.message import Message

    from footlights.client.connection import Connection
    from footlights.v1.session_pb2_grpc import StreamingServiceStub

_RequestT = TypeVar("_RequestT", bound="Message")

MUST_BE_KNOWN: Final = frozenset(
    {"validate_only", "etag", "limits", "drain_timeout", "filter", "order_by", "include_ended"}
)
"""The members of requests that are new and change what a call does."""
MUST_BE_KNOWN_INSIDE: Final = frozenset(
    {
        *("unlimited", "cleared", "volume_mounts", "stage_from_session_file", "stage_delivery"),
        *("Profile.environment", "Profile.arguments", "Profile.secrets"),
        *("unresponsive_timeout", "reconnect_timeout"),
        *("systemd", "isolation", "memory_bytes", "processors", "tasks", "disk_bytes", "entrypoint"),
    }
)
"""Those of the messages in requests; with the message's name where others have one of that name that is older."""

_REVISION: Final = "revision "
"""What the cursors of ``follow`` begin with, which a later server does not know."""


async def adapted(channel: grpc.aio.Channel, request: _RequestT, **how: Any) -> _RequestT:
    """Return a request that the server does not misunderstand: ``request`` itself, or one in an older server's words.

    Asks the server only if the request has members that it must know. A proxy that chooses a server for every call may
    ask one and send the call to another.

    Raises:
        ServerTooOld: It would ignore a member that it must not ignore.
    """
    if not _unknown_to_older(request) or not await _is_older(channel, **how):
        return request
    reworded = _in_older_words(request)
    if unknown := _unknown_to_older(reworded):
        raise _too_old(", ".join(sorted(unknown)))
    return reworded


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


def _unknown_to_older(request: Message) -> set[str]:
    """Return the names of the members that an older server must not ignore."""
    unknown = {field.name for field, _ in request.ListFields() if field.name in MUST_BE_KNOWN}
    for inside in _messages_in(request):
        unknown |= {
            field.name
            for field, _ in inside.ListFields()
            if {field.name, f"{inside.DESCRIPTOR.name}.{field.name}"} & MUST_BE_KNOWN_INSIDE
        }
    return unknown


def _messages_in(message: Message) -> Iterator[Message]:
    """Yield our messages in a message, at any depth."""
    for field, value in message.ListFields():
        kind = field.message_type
        # The maps of requests have texts and numbers.
        if kind is None or kind.GetOptions().map_entry or not kind.full_name.startswith("footlights."):
            continue
        for inside in value if field.is_repeated else [value]:
            yield inside
            yield from _messages_in(inside)


def _in_older_words(request: _RequestT) -> _RequestT:
    """Return a request without the members for which the release before has others."""
    copy: Any = type(request)()
    copy.CopyFrom(request)
    if isinstance(copy, node_pb2.DrainNodeRequest) and copy.HasField("drain_timeout"):
        copy.deadline.CopyFrom(copy.drain_timeout)
        copy.ClearField("drain_timeout")
    if isinstance(copy, pb.ListSessionsRequest) and copy.include_ended:
        if not copy.state:
            copy.state.extend(pb.Session.State.values()[1:])
        copy.ClearField("include_ended")
    if isinstance(copy, pb.CreateSessionRequest) and copy.HasField("limits"):
        for name in ("max_duration", "idle_timeout"):
            if copy.limits.HasField(name) and not copy.HasField(name):
                getattr(copy, name).CopyFrom(getattr(copy.limits, name))
                copy.limits.ClearField(name)
        if not copy.limits.ListFields():
            copy.ClearField("limits")
    reworded: _RequestT = copy
    return reworded


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
