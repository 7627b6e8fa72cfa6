"""The SDK against a real gRPC server with scripted answers.

The modules `client`, `connection`, `errors`, `sessions`, `applications` and `fleet`.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from typing import Any

import pytest
from footlights.v1 import application_pb2, profile_pb2, session_pb2, token_pb2
from google.protobuf import message_factory

from footlights.client import Client, DeadlineExceeded, SessionOver
from footlights.errors import (
    BY_CODE,
    Conflict,
    Error,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Reason,
    Unauthenticated,
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


CALLS: list[tuple[str, Callable[[Client], Any]]] = [
    ("ListSessions", lambda c: c.sessions.list()),
    ("CreateSession", lambda c: c.sessions.create(session_pb2.CreateSessionRequest(application="a"))),
    ("TerminateSession", lambda c: c.sessions.terminate("s1")),
    ("GetSession", lambda c: c.sessions.get("s1")),
    ("ConnectSession", lambda c: c.sessions.connect("s1")),
    ("ExtendSession", lambda c: c.sessions.extend("s1", 60)),
    ("GetSessionLog", lambda c: c.sessions.log("s1")),
    ("ExplainPlacement", lambda c: c.sessions.explain(session_pb2.ExplainPlacementRequest(application="a"))),
    ("ListApplications", lambda c: c.applications.list()),
    ("GetApplication", lambda c: c.applications.get("a")),
    ("ApplyApplication", lambda c: c.applications.apply(application_pb2.ApplyApplicationRequest())),
    ("DeleteApplication", lambda c: c.applications.delete("a")),
    ("ListVersions", lambda c: c.applications.list_versions("a")),
    ("GetVersion", lambda c: c.applications.get_version("a", "1.0.0")),
    ("CreateVersion", lambda c: c.applications.create_version("a", application_pb2.Version(version="1.0.0"))),
    ("DeleteVersion", lambda c: c.applications.delete_version("a", "1.0.0")),
    ("ListReleases", lambda c: c.applications.list_releases("a")),
    ("SetRelease", lambda c: c.applications.set_release("a", "default", "1.0.0")),
    ("DeleteRelease", lambda c: c.applications.delete_release("a", "default")),
    ("ListProfiles", lambda c: c.profiles.list()),
    ("GetProfile", lambda c: c.profiles.get("p")),
    ("SetProfile", lambda c: c.profiles.set(profile_pb2.Profile(profile="p"))),
    ("DeleteProfile", lambda c: c.profiles.delete("p")),
    ("ListNodes", lambda c: c.nodes.list()),
    ("GetNode", lambda c: c.nodes.get("n")),
    ("CordonNode", lambda c: c.nodes.cordon("n")),
    ("UncordonNode", lambda c: c.nodes.uncordon("n")),
    ("DrainNode", lambda c: c.nodes.drain("n")),
    ("ForgetNode", lambda c: c.nodes.forget("n")),
    ("CreateToken", lambda c: c.tokens.create(token_pb2.CreateTokenRequest(subject="ada"))),
    ("ListTokens", lambda c: c.tokens.list()),
    ("RevokeToken", lambda c: c.tokens.revoke("t")),
    ("GetCaller", lambda c: c.tokens.caller()),
]
STREAMS = {"WatchSession", "WatchSessions", "TailSessionLog"}
METHODS = {
    method.name: method for file in FILES for s in file.DESCRIPTOR.services_by_name.values() for method in s.methods
}


def answer_of(method: str) -> Any:
    return message_factory.GetMessageClass(METHODS[method].output_type)()


def test_every_rpc_of_the_api_has_a_method() -> None:
    """The SDK covers each service but the agents'."""
    assert {name for name, _ in CALLS} | STREAMS == set(METHODS)


@pytest.mark.parametrize(("method", "call"), CALLS, ids=[name for name, _ in CALLS])
async def test_a_call_carries_token_and_deadline_and_gives_the_answer(
    standin: Standin, client: Client, method: str, call: Callable[[Client], Any]
) -> None:
    """Each method calls its own RPC, with the token and a deadline, and returns the API's message."""
    standin.on(method, answer_of(method))

    answer = await call(client)

    assert type(answer).DESCRIPTOR is METHODS[method].output_type
    (seen,) = standin.calls
    assert (seen.method, seen.authorization) == (method, "Bearer fl_secret")
    assert seen.seconds_left is not None
    assert 20 < seen.seconds_left < 32


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


async def test_waiting_sees_every_step_until_ready(standin: Standin, client: Client) -> None:
    """wait_ready follows the watch and returns the session that can be connected to."""
    standin.on(
        "WatchSession", lambda _: iter([session(S.PENDING, 1), session(S.STARTING, 2), session(S.READY, 3, node="n")])
    )
    steps: list[int] = []

    ready = await client.sessions.wait_ready("s1", timeout_s=5, on_change=lambda s: steps.append(s.revision))

    assert (ready.node, steps) == ("n", [1, 2, 3])


@pytest.mark.parametrize("state", [S.TERMINATING, S.TERMINATED, S.FAILED])
async def test_waiting_for_a_session_that_ends_instead_says_how(
    standin: Standin, client: Client, state: S.State.ValueType
) -> None:
    """SessionOver carries the session, and its message the state, the reason and what the server said."""
    over = session(state, 2, end_reason=S.CRASHED, status_message="exit 3")
    standin.on("WatchSession", lambda _: iter([session(S.STARTING, 1), over]))

    with pytest.raises(SessionOver) as caught:
        await client.sessions.wait_ready("s1", timeout_s=5)

    assert caught.value.session.end_reason == S.CRASHED
    assert "CRASHED" in caught.value.message
    assert "exit 3" in caught.value.message


async def test_waiting_ends_at_its_deadline(standin: Standin, client: Client) -> None:
    """The refusal names the state it is still in."""

    def forever(_: Any) -> Iterator[S]:
        yield session(S.PENDING, 1)
        standin.stopping.wait(5)

    standin.on("WatchSession", forever)

    with pytest.raises(DeadlineExceeded) as caught:
        await client.sessions.wait_ready("s1", timeout_s=1.5)
    standin.stopping.set()

    assert "PENDING" in caught.value.message
    assert caught.value.reason == "WAIT_TIMEOUT"


async def test_waiting_for_the_end_passes_terminating(standin: Standin, client: Client) -> None:
    """wait_ended returns when the device is free, not when the end was asked for."""
    standin.on("WatchSession", lambda _: iter([session(S.TERMINATING, 1), session(S.TERMINATED, 2)]))

    assert (await client.sessions.wait_ended("s1", timeout_s=5)).state == S.TERMINATED


async def test_a_watch_survives_a_lost_connection(standin: Standin, client: Client) -> None:
    """It goes on from the last revision, drops the overlap, and follows on after a clean end too."""
    first = [session(S.PENDING, 4), session(S.STARTING, 5)]
    rounds = itertools.count()

    def answer(_: Any) -> Iterator[S]:
        turn = next(rounds)
        if turn == 0:
            yield from first
            raise Unavailable("restarting")
        if turn == 1:
            yield session(S.STARTING, 5)
            return
        yield session(S.READY, 6)
        yield session(S.TERMINATED, 7)

    standin.on("WatchSession", answer)

    async with asyncio.timeout(10), aclosing(client.sessions.watch("s1")) as changes:
        seen = [change.revision async for change in changes]

    assert seen == [4, 5, 6, 7]
    assert [request.after_revision for request in standin.requests("WatchSession")] == [0, 5, 5]


async def test_a_watch_of_what_is_not_there_fails_at_once(standin: Standin, client: Client) -> None:
    """NOT_FOUND, a bad token and a server that does not answer are raised: only a watch that ran is resumed."""
    for error in (NotFound("no"), Unauthenticated("no"), Unavailable("no"), Conflict("no")):
        standin.on("WatchSession", error)
        with pytest.raises(type(error)):
            async for _ in client.sessions.watch("s1"):
                pass


async def test_a_log_is_followed_line_by_line(standin: Standin, client: Client) -> None:
    """tail_log yields what is written, and asks for as many lines as it was told."""
    parts = [session_pb2.SessionLog(lines=["a", "b"]), session_pb2.SessionLog(lines=["c"])]
    standin.on("TailSessionLog", lambda _: iter(parts))

    lines = [line async for part in client.sessions.tail_log("s1", tail_lines=7) for line in part.lines]

    assert lines == ["a", "b", "c"]
    assert standin.requests("TailSessionLog")[0].tail_lines == 7


async def test_connecting_watches_a_session_instead_of_retrying(standin: Standin, client: Client) -> None:
    """A session that is not ready is refused once; with a time to wait the client watches it, then connects once."""
    refusal = FailedPrecondition("The session is STARTING.", reason=Reason.SESSION_NOT_READY)
    standin.on("ConnectSession", refusal)
    with pytest.raises(FailedPrecondition) as refused:
        await client.sessions.connect("s1")
    assert refused.value.reason == "SESSION_NOT_READY"
    assert len(standin.requests("ConnectSession")) == 1

    standin.on("ConnectSession", session_pb2.ConnectSessionResponse(token="grant"))
    standin.on("WatchSession", lambda _: iter([session(S.STARTING, 1), session(S.READY, 2)]))

    assert (await client.sessions.connect("s1", wait_s=10)).token == "grant"
    assert len(standin.requests("ConnectSession")) == 2
