"""What agents are answered that ask for a launch's relay."""

from __future__ import annotations

import base64
import hashlib
import hmac
from pathlib import Path
from typing import Any

import pytest
from footlights.agent.v1 import agent_pb2
from footlights.v1.application_pb2 import Signaling

from footlights.errors import InvalidArgument
from footlights.launch.recipe.recipe import validate
from tests.control.harness import Clock, control, gpu, version

TURN = ("turn:relay.example.com:3478", "turns:relay.example.com:443")
SECRET = b"shared-with-the-relay"
TAKES = Signaling(websocket_path="/sign_in", relay_path="/v1/streaming/creds")


@pytest.fixture
def relay(tmp_path: Path) -> dict[str, Any]:
    """Settings of a control plane that has a relay."""
    file = tmp_path / "turn.secret"
    file.write_bytes(SECRET)
    return {"turn_urls": TURN, "turn_secret_file": file, "turn_ttl_s": 600.0, "ice_servers": ("stun:192.0.2.1",)}


async def test_credentials_are_the_sessions_own_and_new_each_time(
    tmp_path: Path, migrated: Path, relay: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """As the relay checks them, with how long they are valid; and they are in no log."""
    clock = Clock()
    async with control(tmp_path / "plane", migrated, clock, **relay) as plane:
        await plane.apply(version(signaling=TAKES))
        agent = await plane.agent(former=False)
        session = await plane.create()
        await plane.place()
        launch_id = (await agent.assignment(session.session_id)).launch_id
        given = []
        for _ in range(2):
            await agent.say(relay_request=agent_pb2.RelayRequest(launch_id=launch_id))
            given.append(await agent.until("relay"))
            clock.pass_s(60)

    first, second = given
    ends = int(clock.wall.timestamp()) - 120 + 600
    digest = hmac.digest(SECRET, first.username.encode(), hashlib.sha1)
    assert (first.launch_id, tuple(first.urls), first.valid_for.seconds) == (launch_id, TURN, 600)
    assert first.username == f"{ends}:{session.session_id}"
    assert first.password == base64.b64encode(digest).decode()
    assert second.username == f"{ends + 60}:{session.session_id}"
    said = "".join(capsys.readouterr())
    assert launch_id in said
    assert not [each for each in given if each.password in said]


async def test_a_launch_that_is_another_nodes_or_over_or_takes_none_has_none(
    tmp_path: Path, migrated: Path, relay: dict[str, Any]
) -> None:
    """One that has a node's identity gets no access for others' sessions."""
    async with control(tmp_path / "plane", migrated, **relay) as plane:
        await plane.apply(version(signaling=TAKES), version("2.0.0"))
        agent = await plane.agent("node-a", former=False)
        takes, takes_not = [await plane.create(application_version=number) for number in ("1.0.0", "2.0.0")]
        await plane.place()
        launches = [(await agent.assignment(takes.session_id)).launch_id]
        other = await plane.agent("node-b", gpu("GPU-1"), former=False)
        await plane.place()
        for launch_id in (launches[0], "nonsense", ""):
            await other.say(relay_request=agent_pb2.RelayRequest(launch_id=launch_id))
        without = await other.assignment(takes_not.session_id)
        await other.say(relay_request=agent_pb2.RelayRequest(launch_id=without.launch_id))
        await other.settled()
        await plane.terminate(takes.session_id)
        ending = await agent.assignment(takes.session_id, "STOPPED")
        await agent.report(ending, "EXITED")
        await agent.settled()
        await agent.say(relay_request=agent_pb2.RelayRequest(launch_id=launches[0]))
        await agent.settled()
        received = {kind for each in (agent, other) for kind, _ in each.received}

    assert "relay" not in received


@pytest.mark.parametrize("servers", [("stun:192.0.2.1:19302", "turn:192.0.2.2"), ()])
async def test_without_a_relay_it_is_told_the_stun_servers(
    tmp_path: Path, migrated: Path, servers: tuple[str, ...]
) -> None:
    """Those that viewers are given; a relay among them has no credentials."""
    async with control(tmp_path / "plane", migrated, ice_servers=servers) as plane:
        await plane.apply(version(signaling=TAKES))
        agent = await plane.agent(former=False)
        session = await plane.create()
        await plane.place()
        launch_id = (await agent.assignment(session.session_id)).launch_id
        await agent.say(relay_request=agent_pb2.RelayRequest(launch_id=launch_id))
        given = await agent.until("relay")

    assert list(given.urls) == [url for url in servers if url.startswith("stun:")]
    assert (given.username, given.password, given.HasField("valid_for")) == ("", "", False)


def test_the_path_is_checked_as_other_paths_are() -> None:
    """At registration."""
    with pytest.raises(InvalidArgument, match=r"version\.signaling\.relay_path"):
        validate(version(signaling=Signaling(relay_path="creds http://x")))
