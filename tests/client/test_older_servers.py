"""A client of this release and a server of the one before, which has no FollowSessions and ignores new members."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import pytest
from footlights.v1 import application_pb2, node_pb2, session_pb2
from footlights.v1.application_pb2 import Container, Version
from footlights.v1.profile_pb2 import Profile
from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration

from footlights.client import Client, ServerTooOld
from footlights.client.older_servers import MUST_BE_KNOWN, MUST_BE_KNOWN_INSIDE
from footlights.errors import InvalidArgument, OutOfRange, Reason, Unavailable
from tests.client.standin import Frame, Standin, frame
from tests.contract import descriptors
from tests.protocol.test_former import POOL

S = session_pb2.Session
Request = session_pb2.FollowSessionsRequest


@pytest.fixture
def older() -> Iterator[Standin]:
    """It answers UNIMPLEMENTED to what is not scripted, as any gRPC server."""
    yield from Standin().serve()


@pytest.fixture
async def client(older: Standin) -> AsyncIterator[Client]:
    async with Client.connect(older.address, "fl_secret") as client:
        yield client


def session(state: S.State.ValueType, revision: int) -> S:
    return S(session_id="s1", state=state, revision=revision)


async def test_one_session_is_watched_through_a_lost_connection(older: Standin, client: Client) -> None:
    """From the last revision on."""
    rounds = iter([[session(S.PENDING, 4), session(S.READY, 5)], [session(S.TERMINATED, 6)]])

    def answer(_: Any) -> Iterator[S]:
        told = next(rounds)
        yield from told
        if told[-1].state != S.TERMINATED:
            raise Unavailable("restarting")

    older.on("WatchSession", answer)

    async with asyncio.timeout(10):
        ended = await client.sessions.wait_ended("s1", timeout_s=9)

    assert ended.revision == 6
    assert [request.after_revision for request in older.requests("WatchSession")] == [0, 5]


async def test_many_sessions_are_followed_as_far_as_it_can(older: Standin, client: Client) -> None:
    """User and application are selected; filters are refused, because they would be ignored."""
    older.on("WatchSessions", lambda _: iter([session(S.READY, 5), session(S.READY, 3)]))

    request = Request(username="ada", application="a")
    async with asyncio.timeout(10), aclosing(client.sessions.follow(request)) as stream:
        seen = [await anext(stream), await anext(stream)]
    with pytest.raises(ServerTooOld) as caught:
        await anext(client.sessions.follow(Request(filter="priority > 3")))

    assert [(each.change, each.session.revision) for each in seen] == [(Frame.SET, 5), (Frame.SET, 3)]
    asked = older.requests("WatchSessions")[0]
    assert (asked.username, asked.application, asked.after_revision) == ("ada", "a", 0)
    assert caught.value.reason == "SERVER_TOO_OLD"


async def test_an_upgrade_and_its_return_start_over(older: Standin, client: Client) -> None:
    """Neither release has a place for the other's cursor: the caller is told, as of any cursor that is gone."""
    older.on("WatchSessions", lambda _: iter([session(S.READY, 5)]))
    with pytest.raises(OutOfRange) as caught:
        await anext(client.sessions.follow(Request(cursor="sealed")))
    assert caught.value.reason == "CURSOR_GONE"

    def later(request: Any) -> Iterator[Frame]:
        if request.cursor.startswith("revision"):
            raise InvalidArgument("cursor", "is not a cursor of this server.", reason=Reason.INVALID_CURSOR)
        yield frame(session(S.ACTIVE, 7))

    over: list[None] = []
    async with asyncio.timeout(10), aclosing(client.sessions.follow(start_over=lambda: over.append(None))) as stream:
        first = await anext(stream)
        older.on("FollowSessions", later)
        second = await anext(stream)

    assert [first.session.revision, second.session.revision, len(over)] == [5, 7, 1]


async def test_what_it_would_carry_out_is_not_sent(older: Standin, client: Client) -> None:
    """It does not know that a call is to be checked only, or only for what was read: nothing is ended."""
    older.on("TerminateSession", session_pb2.TerminateSessionResponse())
    for options in ({"validate_only": True}, {"etag": "e"}):
        with pytest.raises(ServerTooOld) as caught:
            await client.sessions.terminate("s1", **options)
        assert caught.value.metadata == {"members": next(iter(options))}
    await client.sessions.terminate("s1")

    assert len(older.requests("TerminateSession")) == 1


Limits, Needs = application_pb2.Limits, application_pb2.Needs
UNTOLD = {
    "limits": lambda c, **o: c.sessions.create(
        session_pb2.CreateSessionRequest(application="a", limits=Limits(queue_timeout=Duration(seconds=1))), **o
    ),
    "limits, unlimited": lambda c, **o: c.sessions.create(
        session_pb2.CreateSessionRequest(application="a", limits=Limits(unlimited=["max_duration"])), **o
    ),
    "cleared": lambda c, **o: c.profiles.set(Profile(profile="p", needs=Needs(cleared=["device_names"])), **o),
    "unlimited": lambda c, **o: c.applications.create_version(
        "a", Version(version="1", limits=Limits(unlimited=["idle_timeout"])), **o
    ),
    "volume_mounts": lambda c, **o: c.applications.apply(
        application_pb2.ApplyApplicationRequest(
            versions=[Version(version="1", container=Container(volume_mounts=[Container.VolumeMount(source="a")]))]
        ),
        **o,
    ),
}


@pytest.mark.parametrize("members", UNTOLD)
async def test_what_it_would_ignore_inside_is_not_sent(older: Standin, client: Client, members: str) -> None:
    """A session without its limit, or a version without its mount, is not what was asked for."""
    with pytest.raises(ServerTooOld) as caught:
        await UNTOLD[members](client)

    assert caught.value.metadata == {"members": members}
    assert {call.method for call in older.calls} == {"GetRelease"}


async def test_it_creates_with_the_limits_that_it_has(older: Standin, client: Client) -> None:
    """By the members that it knows."""
    older.on("CreateSession", S())
    limits = Limits(max_duration=Duration(seconds=60), idle_timeout=Duration(seconds=5))

    await client.sessions.create(session_pb2.CreateSessionRequest(application="a", limits=limits))

    (request,) = older.requests("CreateSession")
    assert (request.max_duration.seconds, request.idle_timeout.seconds) == (60, 5)
    assert not request.HasField("limits")


HARMLESS = {
    "request_id": "What the older server does not recognise as repeated is not repeated: tests/client/test_retries.py.",
    "message": "A text for other operators; the node is cordoned or drained all the same.",
    "view": "The answer has more than was asked for.",
    "checks_secret": "It gives launches no secret, and such an application then asks for none.",
    "cache_paths": "Sessions start with empty caches.",
    "forwarded_headers": "Applications do without them.",
    "max_viewers": "The application refuses one more itself.",
    "relay_path": "The application is told no relay, and its address is used.",
    "offer_timeout": "The default of a minute counts.",
    "limit": "The whole list comes as one page.",
    "page_token": "One of a later server: the list begins again, and no item is missed.",
}
"""New members of requests that an older server may ignore, and why."""


def test_each_new_member_must_be_known_or_may_be_ignored() -> None:
    """By the descriptors of the release before; inside of requests, what is output only is not meant for the server."""
    ignored = set()
    for method in descriptors.public_methods():
        if not method.full_name.startswith("footlights.v1.") or _before(method.input_type) is None:
            continue  # What it does not have it answers with UNIMPLEMENTED.
        for depth, message in _reached(method.input_type):
            before = _before(message)
            if before is None:
                continue  # It is in a new member.
            known = MUST_BE_KNOWN_INSIDE if depth else MUST_BE_KNOWN
            new = {field.name for field in message.fields if not (depth and _is_output(field))} - before
            ignored |= {name for name in new if not {name, f"{message.name}.{name}"} & known}
            # Calls that the older server understands are not refused.
            assert not before & known, message.full_name

    assert ignored == set(HARMLESS)


def _before(message: Descriptor) -> set[str] | None:
    """The members that it had in the release before; None: there was no such message."""
    try:
        return set(POOL.FindMessageTypeByName(message.full_name).fields_by_name)
    except KeyError:
        return None


def _reached(request: Descriptor) -> Iterator[tuple[int, Descriptor]]:
    """A request and our messages in it, with their depth."""
    found: list[tuple[int, Descriptor]] = [(0, request)]
    for depth, message in found:
        yield depth, message
        inside = {field.message_type for field in message.fields if field.message_type is not None}
        found += [
            (depth + 1, each)
            for each in inside
            if each.full_name.startswith("footlights.") and each not in [known for _, known in found]
        ]


def _is_output(field: FieldDescriptor) -> bool:
    return field_behavior_pb2.OUTPUT_ONLY in field.GetOptions().Extensions[field_behavior_pb2.field_behavior]


async def test_it_lists_what_it_can(older: Standin, client: Client) -> None:
    """Those that have ended by their states; filters and orders are refused, because they would be ignored."""
    older.on("ListSessions", session_pb2.ListSessionsResponse())

    await client.sessions.list(session_pb2.ListSessionsRequest(include_ended=True))
    for members in ({"filter": "priority > 3"}, {"order_by": "priority"}):
        with pytest.raises(ServerTooOld):
            await client.sessions.list(session_pb2.ListSessionsRequest(**members))  # type: ignore[arg-type]

    (request,) = older.requests("ListSessions")
    assert (len(request.state), request.include_ended) == (7, False)


async def test_it_drains_in_the_same_time(older: Standin, client: Client) -> None:
    """By the member that it knows."""
    older.on("DrainNode", node_pb2.Node())

    await client.nodes.drain("n", 60)

    (request,) = older.requests("DrainNode")
    assert (request.deadline.seconds, request.HasField("drain_timeout")) == (60, False)
