"""An application is given its relay before it is given out, and again before the credentials end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from footlights.agent.v1.agent_pb2 import Assignment, LaunchReport, LinkRequest, LinkResponse, Relay
from footlights.v1.application_pb2 import Signaling, Version

from footlights.agent.config import AgentConfig
from footlights.agent.link.outbox import Outbox
from footlights.agent.relays import ASK_S, LOOK_AGAIN_S, SETTLE_S, LaunchRelay
from footlights.launch.launcher import LaunchPlan
from footlights.launch.probes.relay import RelayAccess
from footlights.protocol import handshake
from footlights.supervision import Supervisor
from tests.agent.conftest import Applications, Machine, Node
from tests.agent.hub import Hub
from tests.launch.plans import make_plan

PATH = "/v1/streaming/creds"
TURN = "turn:127.0.0.1:3478"
PASSWORD = "p4ssw0rd-of-the-relay"


def turn(number: int = 1, valid_s: float = 3600) -> Relay:
    relay = Relay(urls=[TURN], username=f"user-{number}", password=f"{PASSWORD}-{number}")
    relay.valid_for.FromMilliseconds(round(valid_s * 1000))
    return relay


def relayed(application: Applications, **wishes: Any) -> Assignment:
    return application(wishes=wishes, signaling={"websocket_path": "/sign_in", "relay_path": PATH})


def message(hub: Hub) -> str:
    """What is said of the launch; empty where nothing was reported yet."""
    return hub.reports["launch-1"].message if "launch-1" in hub.reports else ""


async def given(hub: Hub, request_id: str) -> list[dict[str, Any]]:
    """All that the application was given."""
    await hub.tail("launch-1", request_id)
    await hub.until(lambda: hub.done(request_id))
    return [json.loads(line.removeprefix("creds ")) for line in hub.lines(request_id) if line.startswith("creds ")]


async def test_it_is_given_before_viewers_come(hub: Hub, node: Node, application: Applications) -> None:
    """Asked for as it starts; ready without it, it waits. What was sent is in no file of the agent's."""
    await hub.until(lambda: hub.connections)
    await hub.want(relayed(application))
    await hub.until(lambda: "waits for its relay" in message(hub))
    waits = hub.reports["launch-1"].state
    relay = turn()
    relay.launch_id = "launch-1"
    await hub.say(LinkResponse(relay=relay))
    ready = await hub.until_state("launch-1", LaunchReport.READY)

    assert (waits, ready.message) == (LaunchReport.STARTING, "")
    assert await given(hub, "given") == [
        {"stunIp": "127.0.0.1", "stunPort": 3478, "username": "user-1", "password": f"{PASSWORD}-1"}
    ]
    assert node.agent is not None
    kept = [file for file in node.agent.config.data_dir.rglob("*") if file.is_file()]
    # Its output is the application's own, which prints what it is given.
    assert not [file for file in kept if file.parent.name != "output" and PASSWORD.encode() in file.read_bytes()]


async def test_it_is_given_others_before_they_end(hub: Hub, node: Node, application: Applications) -> None:
    """For as long as it runs; and by the agent that comes after, which has none of them."""
    hub.relay = lambda number: turn(number, valid_s=1.5)
    await hub.until(lambda: hub.connections)
    await hub.want(relayed(application))
    await hub.until(lambda: len(hub.relays) >= 3)
    names = [each["username"] for each in await given(hub, "three")]
    await node.crash()
    asked = len(hub.relays)
    await node.start()
    await hub.until(lambda: len(hub.relays) > asked)

    assert names[:2] == ["user-1", "user-2"]
    assert set(hub.relays) == {"launch-1"}


async def test_one_that_refuses_it_says_so_and_is_asked_again(hub: Hub, node: Node, application: Applications) -> None:
    """By `success: false`, whatever the status; what it repeats of the credentials is not shown."""
    hub.relay = turn
    refusal = (200, {"success": False, "errorMessage": f"no such relay for {PASSWORD}-1"})
    await hub.until(lambda: hub.connections)
    await hub.want(relayed(application, creds=refusal))
    await hub.until(lambda: "no such relay" in message(hub))
    said = hub.reports["launch-1"]
    application.tell("launch-1")
    ready = await hub.until_state("launch-1", LaunchReport.READY)

    assert said.state == LaunchReport.STARTING
    assert "for [redacted]" in said.message
    assert PASSWORD not in said.message
    assert ready.message == ""


@pytest.mark.parametrize("urls", [[], ["stun:127.0.0.1:19302"]])
async def test_without_a_relay_it_is_ready_all_the_same(
    hub: Hub, node: Node, application: Applications, urls: list[str]
) -> None:
    """Where the control plane has none; it is given a STUN server where there is one."""
    hub.relay = lambda _: Relay(urls=urls)
    await hub.until(lambda: hub.connections)
    await hub.want(relayed(application))
    await hub.until_state("launch-1", LaunchReport.READY)

    found = [(each["stunPort"], each["username"], each["password"]) for each in await given(hub, "none")]
    assert found == [(19302, "", "")] * len(urls)


async def test_a_control_plane_of_the_release_before_is_not_asked(
    hub: Hub, config: AgentConfig, machine: Machine, application: Applications
) -> None:
    """It would not answer; the application is ready at once."""
    hub.features = tuple(name for name in handshake.FEATURES if name != handshake.RELAYS)
    async with Node(config, machine):
        await hub.until(lambda: hub.connections)
        await hub.want(relayed(application))
        await hub.until_state("launch-1", LaunchReport.READY)
        await hub.want(Assignment(launch_id="launch-1", epoch=2, desired=Assignment.STOPPED))
        await hub.until(lambda: hub.reports["launch-1"].state == LaunchReport.EXITED)

    assert hub.relays == []


async def test_one_that_takes_none_is_asked_nothing(hub: Hub, node: Node, application: Applications) -> None:
    """Nor is the control plane."""
    hub.relay = turn
    await hub.until(lambda: hub.connections)
    await hub.want(application(signaling={"websocket_path": "/sign_in"}))
    await hub.until_state("launch-1", LaunchReport.READY)

    assert await given(hub, "nothing") == []
    assert hub.relays == []


class Hands:
    """A clock moved by hand, and an application that answers as it is told."""

    boot_id = "one"

    def __init__(self) -> None:
        self.at = 1000.0
        self.problem = ""
        self.taken: list[RelayAccess] = []

    def now(self) -> float:
        return self.at

    async def give_relay(self, plan: LaunchPlan, relay: RelayAccess, secret: str = "") -> str:
        self.taken.append(relay)
        return self.problem


class Asking:
    """A launch's relay, and what is asked of it over the link."""

    def __init__(self, tmp_path: Path) -> None:
        self.hands = Hands()
        self.outbox = Outbox(lambda _: None, Supervisor())
        self.outbox.welcomed(handshake.FEATURES)
        probes: Any = self.hands
        self.relay = LaunchRelay("launch-1", self.outbox, probes, self.hands)
        self.plan = make_plan(Version(version="1.0.0", signaling=Signaling(relay_path=PATH)), tmp_path)

    async def after(self, seconds: float) -> int:
        """Let time pass and look; return how often it was asked for."""
        self.hands.at += seconds
        await self.relay.keep(self.plan, "", ready=True)
        asked: list[LinkRequest] = []
        while not self.outbox.empty:
            message = await self.outbox.next(0)
            assert message is not None
            asked.append(message)
        assert all(each.relay_request.launch_id == "launch-1" for each in asked)
        return len(asked)


async def test_it_is_asked_again_where_no_answer_comes(tmp_path: Path) -> None:
    """Not all the time; and an application that is ready is given out without it after a while."""
    asking = Asking(tmp_path)

    asked = [await asking.after(seconds) for seconds in (0, 1, ASK_S, 1)]
    waits = asking.relay.pending(asking.plan)
    await asking.after(SETTLE_S)

    assert asked == [1, 0, 1, 0]
    assert waits == "it waits for its relay"
    assert asking.relay.pending(asking.plan) == ""


async def test_credentials_that_have_ended_are_said(tmp_path: Path) -> None:
    """Where no others came, as without a link; and no more once they did."""
    asking = Asking(tmp_path)
    asking.relay.take(turn(valid_s=90))
    asked = [await asking.after(seconds) for seconds in (0, 59, 1.5)]
    before = asking.relay.note
    await asking.after(30)
    ended = asking.relay.note
    asking.relay.take(turn(2, valid_s=90))
    await asking.after(0)

    assert asked == [0, 0, 1]
    assert (before, "have ended" in ended, asking.relay.note) == ("", True, "")
    assert [each.username for each in asking.hands.taken] == ["user-1", "user-2"]
    assert PASSWORD not in repr(asking.hands.taken)


async def test_one_that_is_not_taken_is_a_note_on_the_session(tmp_path: Path) -> None:
    """It does not end: who reaches it without a relay still does."""
    asking = Asking(tmp_path)
    asking.hands.problem = "no such call"
    asking.relay.take(turn())
    await asking.after(0)
    pending, note = asking.relay.pending(asking.plan), asking.relay.note
    await asking.after(SETTLE_S)

    assert pending == "it does not have its relay: no such call"
    assert "not all viewers may see it: no such call" in note
    assert asking.relay.pending(asking.plan) == ""
    assert len(asking.hands.taken) == 2


async def test_a_control_plane_that_had_none_is_asked_later(tmp_path: Path) -> None:
    """It may have been started again with one."""
    asking = Asking(tmp_path)
    asking.relay.take(Relay())

    assert [await asking.after(seconds) for seconds in (0, LOOK_AGAIN_S - 1, 1)] == [0, 0, 1]
    assert asking.hands.taken == []
