"""Answers of a later server to the SDK and the command line, with a value that they do not know in every enum.

The enums come from the descriptors of the answers: a new one is covered by itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import partial

import pytest
from footlights.v1 import session_pb2
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from footlights.client import Client, SessionOver, field_name, has_ended, is_over, is_ready
from tests.cli.conftest import Run, run
from tests.client.standin import FILES, Standin
from tests.client.test_client import CALLS
from tests.skew.test_invented_rows import NUMBER, enum_fields, put

__all__ = ["run"]

S = session_pb2.Session
COMMANDS = {
    "ListSessions": "sessions list",
    "CreateSession": "sessions create a",
    "TerminateSession": "sessions terminate s1",
    "GetSession": "sessions show s1",
    "WatchSession": "sessions watch s1",
    "ExtendSession": "sessions extend s1 --by 1m",
    "ListVersions": "apps versions a",
    "ListProfiles": "profiles list",
    "ListPools": "pools list",
    "GetPool": "pools show p1",
    "SetPool": "pools set p1 --application a --size 1",
    "ListNodes": "nodes list",
    "GetNode": "nodes show n1",
    "CordonNode": "nodes cordon n1",
    "UncordonNode": "nodes uncordon n1",
    "DrainNode": "nodes drain n1",
    "ListViewers": "sessions viewers s1",
    "ListTokens": "tokens list",
    "GetCaller": "tokens whoami",
    "RevokeToken": "tokens revoke t1 --yes",
    "CreateToken": "tokens create --role developer --subject a",
}
METHODS: dict[str, MethodDescriptor] = {
    method.name: method
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


@pytest.fixture
def standin() -> Iterator[Standin]:
    yield from Standin().serve()


@pytest.fixture
async def client(standin: Standin) -> AsyncIterator[Client]:
    async with Client.connect(standin.address, "fl_secret") as client:
        yield client


def invented(method: str) -> list[tuple[str, Message]]:
    """Return an answer of the method for each enum in it, with a value that nobody knows."""
    found = []
    kind = message_factory.GetMessageClass(METHODS[method].output_type)
    for path, _ in enum_fields(METHODS[method].output_type):
        answer = kind()
        if method == "WatchSession":
            answer = S(session_id="s1", revision=1, state=S.TERMINATED)
            answer.ended_time.GetCurrentTime()
        put(answer, path, NUMBER)
        found.append((".".join(path), answer))
    return found


def test_every_call_that_answers_with_an_enum_is_covered() -> None:
    """A new call of the SDK is in one of the lists."""
    with_enums = {name for name in METHODS if list(enum_fields(METHODS[name].output_type))}
    sdk = {name for name, _ in CALLS}

    assert with_enums & sdk <= {name for name, _ in CALLS}
    assert set(COMMANDS) <= set(METHODS)
    assert {name for name in with_enums & sdk if name.startswith(("List", "Get"))} - set(COMMANDS) <= {
        "GetProfile",
        "GetVersion",
        "GetApplication",
    }


@pytest.mark.parametrize("method", sorted({name for name, _ in CALLS if list(enum_fields(METHODS[name].output_type))}))
async def test_the_sdk_returns_a_value_that_it_does_not_know(standin: Standin, client: Client, method: str) -> None:
    """The answer is the caller's as it came."""
    [make] = [call for name, call in CALLS if name == method]
    for where, answer in invented(method):
        standin.on(method, answer)
        assert await make(client) == answer, where


def _streamed(answer: Message, _request: Message) -> Iterator[Message]:
    return iter([answer])


@pytest.mark.parametrize("method", [method for method in COMMANDS if list(enum_fields(METHODS[method].output_type))])
def test_the_command_line_shows_a_value_that_it_does_not_know(standin: Standin, run: Run, method: str) -> None:
    """As a table and as JSON: by its number where the member is shown, and without a traceback."""
    for where, answer in invented(method):
        standin.on(method, partial(_streamed, answer) if METHODS[method].server_streaming else answer)
        for output in ("table", "json"):
            result = run(*COMMANDS[method].split(), "-o", output)
            assert result.exit_code == 0, (where, output, result.output, result.exception)
        assert str(NUMBER) in result.output, where


async def test_waiting_for_a_session_goes_on_through_states_that_are_not_known(
    standin: Standin, client: Client
) -> None:
    """Neither ready nor over: the wait lasts until a state that is known, or until the session has ended."""
    odd = S(session_id="s1", revision=1, state=NUMBER)  # type: ignore[arg-type]
    ready = S(session_id="s1", revision=2, state=S.READY)
    standin.on("WatchSession", lambda _: iter([odd, ready]))
    seen: list[str] = []

    session = await client.sessions.wait_ready(
        "s1", timeout_s=10, on_change=lambda session: seen.append(field_name(session, "state"))
    )

    assert session == ready
    assert seen == ["99", "READY"]
    assert not any(told(odd) for told in (is_ready, is_over, has_ended))


async def test_a_session_that_ended_in_a_state_that_is_not_known_has_ended(standin: Standin, client: Client) -> None:
    """Its time says so: every wait and every watch is done."""
    over = S(session_id="s1", revision=1, state=NUMBER, end_reason=NUMBER)  # type: ignore[arg-type]
    over.ended_time.GetCurrentTime()
    standin.on("WatchSession", lambda _: iter([over]))

    assert [session async for session in client.sessions.watch("s1")] == [over]
    assert await client.sessions.wait_ended("s1", timeout_s=10) == over
    with pytest.raises(SessionOver) as ended:
        await client.sessions.wait_ready("s1", timeout_s=10)
    assert ended.value.metadata == {"session_id": "s1", "state": "99", "end_reason": "99"}
