"""The SDK against a real gRPC server with scripted answers.

The modules `client`, `connection`, `errors`, `sessions`, `applications`, `pools` and `fleet`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from footlights.v1 import application_pb2, node_pb2, pool_pb2, profile_pb2, session_pb2, token_pb2, viewer_pb2
from google.protobuf import message_factory

from footlights.client import Client, DeadlineExceeded
from footlights.errors import (
    BY_CODE,
    Error,
    InvalidArgument,
    NotFound,
    Unavailable,
)
from tests.client.standin import FILES, Standin

S = session_pb2.Session


@pytest.fixture
def standin() -> Iterator[Standin]:
    yield from Standin().serve()


@pytest.fixture
async def client(standin: Standin) -> AsyncIterator[Client]:
    async with Client.connect(standin.address, "fl_secret") as client:
        yield client


def session(state: S.State.ValueType, revision: int, **members: Any) -> S:
    return S(session_id="s1", state=state, revision=revision, **members)


CALLS: list[tuple[str, Callable[..., Any]]] = [
    ("ListSessions", lambda c, **o: c.sessions.list(**o)),
    ("CreateSession", lambda c, **o: c.sessions.create(session_pb2.CreateSessionRequest(application="a"), **o)),
    ("UpdateSession", lambda c, **o: c.sessions.update(S(session_id="s1", priority=3), **o)),
    ("TerminateSession", lambda c, **o: c.sessions.terminate("s1", **o)),
    ("GetSession", lambda c, **o: c.sessions.get("s1", **o)),
    ("ConnectSession", lambda c, **o: c.sessions.connect("s1", **o)),
    ("ListViewers", lambda c, **o: c.sessions.list_viewers(viewer_pb2.ListViewersRequest(session_id="s1"), **o)),
    ("DisconnectViewer", lambda c, **o: c.sessions.disconnect("s1", "v1", **o)),
    ("ExtendSession", lambda c, **o: c.sessions.extend("s1", 60, **o)),
    ("GetSessionLog", lambda c, **o: c.sessions.log("s1", **o)),
    ("ExplainPlacement", lambda c, **o: c.sessions.explain(session_pb2.ExplainPlacementRequest(application="a"), **o)),
    ("ListApplications", lambda c, **o: c.applications.list(**o)),
    ("GetApplication", lambda c, **o: c.applications.get("a", **o)),
    ("ApplyApplication", lambda c, **o: c.applications.apply(application_pb2.ApplyApplicationRequest(), **o)),
    ("DeleteApplication", lambda c, **o: c.applications.delete("a", **o)),
    ("ListVersions", lambda c, **o: c.applications.list_versions("a", **o)),
    ("GetVersion", lambda c, **o: c.applications.get_version("a", "1.0.0", **o)),
    ("CreateVersion", lambda c, **o: c.applications.create_version("a", application_pb2.Version(version="1"), **o)),
    ("DeleteVersion", lambda c, **o: c.applications.delete_version("a", "1.0.0", **o)),
    ("ListReleases", lambda c, **o: c.applications.list_releases("a", **o)),
    ("GetRelease", lambda c, **o: c.applications.get_release("a", "default", **o)),
    ("SetRelease", lambda c, **o: c.applications.set_release("a", "default", "1.0.0", **o)),
    ("UpdateRelease", lambda c, **o: c.applications.update_release(application_pb2.Release(application="a"), **o)),
    ("DeleteRelease", lambda c, **o: c.applications.delete_release("a", "default", **o)),
    ("ListProfiles", lambda c, **o: c.profiles.list(**o)),
    ("GetProfile", lambda c, **o: c.profiles.get("p", **o)),
    ("SetProfile", lambda c, **o: c.profiles.set(profile_pb2.Profile(profile="p"), **o)),
    ("UpdateProfile", lambda c, **o: c.profiles.update(profile_pb2.Profile(profile="p"), **o)),
    ("ListPools", lambda c, **o: c.pools.list(**o)),
    ("GetPool", lambda c, **o: c.pools.get("p", **o)),
    ("SetPool", lambda c, **o: c.pools.set(pool_pb2.Pool(pool="p"), **o)),
    ("DeletePool", lambda c, **o: c.pools.delete("p", **o)),
    ("DeleteProfile", lambda c, **o: c.profiles.delete("p", **o)),
    ("ListNodes", lambda c, **o: c.nodes.list(**o)),
    ("GetNode", lambda c, **o: c.nodes.get("n", **o)),
    ("CordonNode", lambda c, **o: c.nodes.cordon("n", **o)),
    ("UncordonNode", lambda c, **o: c.nodes.uncordon("n", **o)),
    ("AcceptNode", lambda c, **o: c.nodes.accept("n", **o)),
    ("DrainNode", lambda c, **o: c.nodes.drain("n", **o)),
    ("UpdateNode", lambda c, **o: c.nodes.update(node_pb2.Node(node="n"), **o)),
    ("ForgetNode", lambda c, **o: c.nodes.forget("n", **o)),
    ("InviteNode", lambda c, **o: c.enrollment.invite("n", 60, **o)),
    ("RevokeNode", lambda c, **o: c.enrollment.revoke("n", **o)),
    ("GetAuthorities", lambda c, **o: c.enrollment.authorities(**o)),
    ("RotateAuthority", lambda c, **o: c.enrollment.rotate_authority(86400, **o)),
    ("RetireAuthorities", lambda c, **o: c.enrollment.retire_authorities(force=True, **o)),
    ("CreateToken", lambda c, **o: c.tokens.create(token_pb2.CreateTokenRequest(subject="ada"), **o)),
    ("ListTokens", lambda c, **o: c.tokens.list(**o)),
    ("RevokeToken", lambda c, **o: c.tokens.revoke("t", **o)),
    ("GetCaller", lambda c, **o: c.tokens.caller(**o)),
]
STREAMS = {"WatchSession", "WatchSessions", "FollowSessions", "TailSessionLog"}
METHODS = {
    method.name: method for file in FILES for s in file.DESCRIPTOR.services_by_name.values() for method in s.methods
}
OPTIONS: dict[str, Any] = {"request_id": "r1", "validate_only": True, "etag": "e1"}


def answer_of(method: str) -> Any:
    return message_factory.GetMessageClass(METHODS[method].output_type)()


def test_every_rpc_of_the_api_has_a_method() -> None:
    """The SDK covers each service but the agents'."""
    assert {name for name, _ in CALLS} | STREAMS == set(METHODS)


@pytest.mark.parametrize(("method", "call"), CALLS, ids=[name for name, _ in CALLS])
async def test_a_call_carries_token_and_deadline_and_gives_the_answer(
    standin: Standin, client: Client, method: str, call: Callable[..., Any]
) -> None:
    """Each method calls its own RPC, with the token and a deadline, and returns the API's message."""
    standin.on(method, answer_of(method))

    answer = await call(client)

    assert type(answer).DESCRIPTOR is METHODS[method].output_type
    (seen,) = standin.calls
    assert (seen.method, seen.authorization) == (method, "Bearer fl_secret")
    assert seen.seconds_left is not None
    assert 20 < seen.seconds_left < 32


@pytest.mark.parametrize(("method", "call"), CALLS, ids=[name for name, _ in CALLS])
async def test_options_of_writes_have_one_form(
    standin: Standin, client: Client, method: str, call: Callable[..., Any]
) -> None:
    """What the API has for a write is a keyword of the method, and replaces what the request says; others have none."""
    fields = METHODS[method].input_type.fields_by_name
    given = {name: value for name, value in OPTIONS.items() if name in fields}
    standin.on("GetRelease", NotFound("no"))
    standin.on(method, answer_of(method))

    await call(client, timeout_s=5, **given)
    for name in OPTIONS.keys() - given.keys():
        with pytest.raises(AttributeError, match=name):
            await call(client, **{name: OPTIONS[name]})

    request = standin.requests(method)[-1]
    assert {name: getattr(request, name) for name in given} == given
    assert len([each for each in standin.calls if each.method == method]) == 1


@pytest.mark.parametrize("kind", BY_CODE.values(), ids=lambda kind: kind.__name__)
async def test_the_servers_error_is_raised_here(standin: Standin, client: Client, kind: type[Error]) -> None:
    """Class, message, reason, metadata and delay are the server's."""
    sent = kind("Node n is gone.", metadata={"node": "n"}, retry_after_s=1.5)
    sent.reason = "OF_A_NEWER_SERVER"
    standin.on("GetNode", sent)

    with pytest.raises(kind) as caught:
        await client.nodes.get("n")

    error = caught.value
    facts = (type(error), error.message, error.reason, error.metadata, error.retry_after_s)
    assert facts == (kind, "Node n is gone.", "OF_A_NEWER_SERVER", {"node": "n"}, 1.5)


async def test_an_update_names_what_it_changes(standin: Standin, client: Client) -> None:
    """The paths are the mask; a member that is named and absent is sent as absent, to be cleared."""
    for method in ("UpdateSession", "UpdateRelease", "UpdateProfile", "UpdateNode"):
        standin.on(method, answer_of(method))

    await client.sessions.update(S(session_id="s1", labels={"team": "b"}), ["labels.team", "limits.max_duration"])
    await client.applications.update_release(application_pb2.Release(application="a", release="r", version="2"))
    await client.profiles.update(profile_pb2.Profile(profile="p"), ["needs"])
    await client.nodes.update(node_pb2.Node(node="n"), ["scheduling.message"])

    (request,) = standin.requests("UpdateSession")
    assert list(request.update_mask.paths) == ["labels.team", "limits.max_duration"]
    assert (dict(request.session.labels), request.session.HasField("limits")) == ({"team": "b"}, False)
    assert not standin.requests("UpdateRelease")[0].update_mask.paths
    assert list(standin.requests("UpdateProfile")[0].update_mask.paths) == ["needs"]
    assert list(standin.requests("UpdateNode")[0].update_mask.paths) == ["scheduling.message"]


async def test_operators_say_why_and_for_how_long(standin: Standin, client: Client) -> None:
    """The message of cordon and drain, and the time that sessions have; none is not the same as 0."""
    standin.on("GetRelease", NotFound("no"))
    standin.on("CordonNode", node_pb2.Node())
    standin.on("DrainNode", node_pb2.Node())

    await client.nodes.cordon("n", message="new driver")
    await client.nodes.drain("n", message="new disk")
    await client.nodes.drain("n", 0)

    assert standin.requests("CordonNode")[0].message == "new driver"
    unlimited, at_once = standin.requests("DrainNode")
    assert (unlimited.message, unlimited.HasField("drain_timeout")) == ("new disk", False)
    assert (at_once.HasField("drain_timeout"), at_once.HasField("deadline")) == (True, False)


async def test_an_invalid_argument_names_its_field_here_too(standin: Standin, client: Client) -> None:
    """Field and problem survive."""
    standin.on("ListSessions", InvalidArgument("limit", "0 is below 1. Give 1 to 1000."))

    with pytest.raises(InvalidArgument) as caught:
        await client.sessions.list()

    assert (caught.value.field, caught.value.problem) == ("limit", "0 is below 1. Give 1 to 1000.")


async def test_a_server_that_is_not_there_is_unreachable() -> None:
    """A refused connection is Unavailable with SERVER_UNREACHABLE, and not a wait without end."""
    async with asyncio.timeout(20), Client.connect("127.0.0.1:1", "t") as client:
        with pytest.raises(Unavailable) as caught:
            await client.tokens.caller()

    assert caught.value.reason == "SERVER_UNREACHABLE"


async def test_a_late_answer_is_a_deadline(standin: Standin, client: Client) -> None:
    """The deadline that the caller sets holds."""
    standin.on("GetCaller", lambda _: standin.stopping.wait(5) and None)

    with pytest.raises(DeadlineExceeded):
        await client.tokens.caller(timeout_s=0.1)
    standin.stopping.set()


async def test_a_log_is_followed_line_by_line(standin: Standin, client: Client) -> None:
    """tail_log yields what is written, and asks for as many lines as it was told."""
    parts = [session_pb2.SessionLog(lines=["a", "b"]), session_pb2.SessionLog(lines=["c"])]
    standin.on("TailSessionLog", lambda _: iter(parts))

    lines = [line async for part in client.sessions.tail_log("s1", tail_lines=7) for line in part.lines]

    assert lines == ["a", "b", "c"]
    assert standin.requests("TailSessionLog")[0].tail_lines == 7
