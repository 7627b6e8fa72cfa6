"""The agent with real processes: shims, ports, output, and what is left when the agent itself is gone.

Also the tests of ``log_tails``, ``probes``, ``stage`` and ``exits``, and of what an agent does with a launch's secret.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from dataclasses import replace
from typing import Any

import pytest
from footlights.agent.v1.agent_pb2 import LaunchReport, LinkResponse, LogRequest
from footlights.v1.application_pb2 import Readiness, StageDelivery, Version

from footlights.agent.clock import BootClock
from footlights.agent.config import AgentConfig
from footlights.devices.fake_state import FakeProcess
from footlights.launch.probes import loopback
from footlights.lifecycle import Retry, meaning
from footlights.linux import procfs
from footlights.protocol.launch_secrets import HEADER, new_secret
from footlights.protocol.times import duration, seconds
from tests.agent.conftest import GPU, OTHER_GPU, Applications, Machine, Node, assignment, stopped
from tests.agent.hub import Hub
from tests.launch import knocking

WATCHED = {"viewers": 1, "last_input_seconds_ago": 0.5}


def pid_of(hub: Hub, request_id: str) -> int:
    """The application's pid, from its first line."""
    return int(next(line for line in hub.lines(request_id) if line.startswith("hello from ")).split()[-1])


async def test_a_process_serves_and_is_gone(hub: Hub, node: Node, application: Applications) -> None:
    """Ready by its own word, viewers as it says, ended by SIGTERM; its environment is not the agent's."""
    os.environ["AGENT_SECRET"] = "leaked"
    try:
        await hub.until(lambda: hub.connections)
        wanted = application(wishes={"status": {"viewers": 0}})
        await hub.want(wanted)
        ready = await hub.until_state("launch-1", LaunchReport.READY)
        await hub.until(lambda: hub.reports["launch-1"].HasField("idle_for"))
        application.tell("launch-1", status=WATCHED)
        await hub.until(lambda: hub.reports["launch-1"].viewers == 1)
        assert "FIRST_VIEWER" in {step.stage for step in hub.reports["launch-1"].steps}
        await hub.want(stopped(wanted))
        over = await hub.until_state("launch-1", LaunchReport.EXITED)
    finally:
        del os.environ["AGENT_SECRET"]
    assert over.exit_code == -signal.SIGTERM
    assert "secret is absent" in over.log_tail
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", ready.http_port)) != 0


async def test_a_crash_of_a_process_is_seen_at_once(hub: Hub, node: Node, application: Applications) -> None:
    """Killed by a signal: EXITED with its number, well before the next look was due."""
    hub.heartbeat_s = 60.0
    await hub.until(lambda: hub.connections)
    await hub.want(application())
    await hub.until_state("launch-1", LaunchReport.READY)
    await hub.tail("launch-1", "r")
    await hub.until(lambda: hub.done("r"))
    os.kill(pid_of(hub, "r"), signal.SIGSEGV)
    over = await hub.until_state("launch-1", LaunchReport.EXITED)
    assert over.exit_code == -signal.SIGSEGV


async def test_a_port_that_is_taken_is_not_ready(hub: Hub, node: Node, application: Applications) -> None:
    """A stranger on the launch's port: the application that took another port instead is ended, PORT_TAKEN."""
    await hub.until(lambda: hub.connections)
    application.tell("launch-1", ready=False, no_signal=True)
    await hub.want(application(wishes={"ready": False, "no_signal": True}))
    report = await hub.until_state("launch-1", LaunchReport.STARTING)
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stranger.bind(("127.0.0.1", report.signal_port))
        stranger.listen()
        application.tell("launch-1", ready=True, no_signal=True)
        failed = await hub.until_state("launch-1", LaunchReport.FAILED)
    assert failed.reason == "PORT_TAKEN"
    assert str(report.signal_port) in failed.message
    assert str(os.getpid()) in failed.message


NOT_READY: dict[str, tuple[dict[str, Any], str]] = {
    "error": (
        {"ready": 500, "says": "no GPU"},
        "GET http://127.0.0.1:{http}/v1/streaming/ready: 500 Internal Server Error, 'no GPU'. It listens on "
        "TCP 127.0.0.1:{signal}, TCP 127.0.0.1:{http}.",
    ),
    "hang": ({"hangs": True}, "no answer within "),
    "port": (
        {"http_offset": 9},
        "connection refused. It listens on TCP 127.0.0.1:{signal}, TCP 127.0.0.1:{wrong}, and not on its HTTP port "
        "{http}.",
    ),
    "signalling": (
        {"no_signal": True},
        "nothing listens on its signalling port, TCP {signal}. It listens on TCP 127.0.0.1:{http}, and not on its "
        "signalling port {signal}.",
    ),
}


async def test_why_it_is_not_ready_is_said(hub: Hub, node: Node, application: Applications) -> None:
    """While it starts and when its time is over: what was asked and answered, and the ports that it listens on."""
    places = [(GPU, 0), (GPU, 1), (OTHER_GPU, 0), (OTHER_GPU, 1)]
    await hub.until(lambda: hub.connections)
    for (case, (wishes, _)), (device, slot) in zip(NOT_READY.items(), places, strict=True):
        await hub.want(application(case, wishes=wishes, device=device, slot=slot, limits={"start_timeout": 7}))

    for case, (_, expected) in NOT_READY.items():
        over = await hub.until_state(case, LaunchReport.FAILED)
        text = expected.format(http=over.http_port, signal=over.signal_port, wrong=over.http_port + 9)
        said = {each.message for each in hub.history if (each.launch_id, each.state) == (case, LaunchReport.STARTING)}

        assert any(each.startswith("Not ready yet: ") and text in each for each in said), said
        assert over.reason == "START_TIMEOUT"
        assert over.message.startswith("The application was not ready within 7 s of its start: ")
        assert text in over.message


async def test_a_ready_application_that_hangs_is_said_and_its_timers_go_on(
    hub: Hub, node: Node, application: Applications
) -> None:
    """What it was asked, for how long it does not answer, that nobody came; and nothing of it once it answers again."""
    await hub.until(lambda: hub.connections)
    await hub.want(application(wishes={"status": {"viewers": 0}}, limits={"never_connected_timeout": 4}))
    await hub.until_state("launch-1", LaunchReport.READY)
    application.tell("launch-1", hangs=True)
    await hub.until(lambda: hub.reports["launch-1"].message)
    hung = hub.reports["launch-1"]
    application.tell("launch-1", status={"viewers": 0})
    await hub.until(lambda: not hub.reports["launch-1"].message)

    assert hung.state == LaunchReport.READY
    assert hung.message == (
        f"The application does not answer: GET http://127.0.0.1:{hung.http_port}/v1/streaming/status: "
        "no answer within 3 s."
    )
    assert hung.unanswered_for.ToMilliseconds() >= 5000
    assert hung.idle_for.ToMilliseconds() >= 5000
    assert not hub.reports["launch-1"].HasField("unanswered_for")


async def test_an_agent_that_restarts_adopts(
    hub: Hub, node: Node, application: Applications, config: AgentConfig
) -> None:
    """The application goes on without the agent; the next agent says it is READY, and can end it."""
    await hub.until(lambda: hub.connections)
    wanted = application(wishes={"status": WATCHED})
    await hub.want(wanted)
    await hub.until_state("launch-1", LaunchReport.READY)
    await hub.tail("launch-1", "before")
    await hub.until(lambda: hub.done("before"))
    pid = pid_of(hub, "before")
    await hub.until(lambda: hub.reports["launch-1"].ever_connected)
    await node.crash()
    os.kill(pid, 0)
    links = len(hub.connections)
    await node.start()
    await hub.until(lambda: len(hub.connections) > links)
    told = hub.link.hello.launches[0]
    assert told.state == LaunchReport.READY
    assert told.ever_connected
    assert told.ready_for.ToNanoseconds() > 0
    assert hub.link.hello.incarnation != hub.connections[0].hello.incarnation
    await hub.tail("launch-1", "after")
    await hub.until(lambda: hub.done("after"))
    assert hub.lines("after").count(f"hello from {pid}") == 1
    assert sum(line.startswith("hello") for line in hub.lines("after")) == 1
    await hub.want(stopped(wanted))
    over = await hub.until_state("launch-1", LaunchReport.EXITED)
    assert over.exit_code == -signal.SIGTERM


async def test_an_end_that_nobody_saw_has_its_true_status(hub: Hub, node: Node, application: Applications) -> None:
    """What exits while there is no agent is reported by the next one, in its hello, with its status."""
    await hub.until(lambda: hub.connections)
    await hub.want(application())
    await hub.until_state("launch-1", LaunchReport.READY)
    await hub.tail("launch-1", "r")
    await hub.until(lambda: hub.done("r"))
    pid = pid_of(hub, "r")
    stat = procfs.read_stat(pid)
    assert stat is not None
    await node.crash()
    application.tell("launch-1", exit=42, last_words="bye")
    async with asyncio.timeout(15):
        while procfs.read_stat(stat.parent) is not None:  # noqa: ASYNC110 - the shim, which writes the status down
            await asyncio.sleep(0.01)
    links = len(hub.connections)
    await node.start()
    await hub.until(lambda: len(hub.connections) > links)
    told = hub.link.hello.launches[0]
    assert (told.state, told.exit_code) == (LaunchReport.EXITED, 42)
    assert "bye" in told.log_tail


async def test_a_foreign_process_that_appears_is_refused_at_launch(
    hub: Hub, node: Node, application: Applications, machine: Machine
) -> None:
    """The device is read afresh: a compute process that came since the placing refuses; our own do not."""
    await hub.until(lambda: hub.connections)
    await hub.want(application("first", slot=0))
    await hub.until_state("first", LaunchReport.READY)
    await hub.tail("first", "r")
    await hub.until(lambda: hub.done("r"))
    ours = pid_of(hub, "r")
    machine.change(GPU, processes=(FakeProcess(ours, used_memory_bytes=1 << 30),))
    await hub.want(application("second", slot=1))
    await hub.until_state("second", LaunchReport.READY)
    await hub.want(stopped(application("second", slot=1)))
    await hub.until_state("second", LaunchReport.EXITED)
    stranger = FakeProcess(os.getpid(), used_memory_bytes=3 << 30, name="python")
    machine.change(GPU, processes=(FakeProcess(ours, used_memory_bytes=1 << 30), stranger))
    await hub.want(application("third", slot=1))
    refused = await hub.until_state("third", LaunchReport.REJECTED)
    assert refused.reason == "FOREIGN_PROCESS"
    assert str(os.getpid()) in refused.message
    await hub.until(lambda: hub.inventories[-1].devices[0].foreign_processes)
    assert [process.pid for process in hub.inventories[-1].devices[0].foreign_processes] == [os.getpid()]
    machine.change(GPU, processes=())


async def test_output_is_read_and_followed(hub: Hub, node: Node, application: Applications) -> None:
    """The last lines, then each new one until it is cancelled; an ended and forgotten launch still has its output."""
    await hub.until(lambda: hub.connections)
    wanted = application()
    await hub.want(wanted)
    await hub.until_state("launch-1", LaunchReport.READY)
    await hub.tail("launch-1", "follow", follow=True)
    await hub.until(lambda: any(line.startswith("hello") for line in hub.lines("follow")))
    application.tell("launch-1", say=[f"line {n}" for n in range(50)])
    await hub.until(lambda: "line 49" in hub.lines("follow"))
    assert not hub.done("follow")
    await hub.say(LinkResponse(log_request=LogRequest(request_id="follow", cancel=True)))
    await hub.tail("launch-1", "last", lines=3)
    await hub.until(lambda: hub.done("last"))
    assert hub.lines("last") == ["line 47", "line 48", "line 49"]
    await hub.tail("launch-1", "to-the-end", follow=True)
    await hub.want(stopped(wanted))
    await hub.until(lambda: hub.done("to-the-end"))
    await hub.until_state("launch-1", LaunchReport.EXITED)
    assert node.agent is not None
    await node.agent.table.none_left.wait()
    await hub.tail("launch-1", "history", lines=1)
    await hub.until(lambda: hub.done("history"))
    assert hub.lines("history") == ["line 49"]
    await hub.tail("unknown", "none")
    await hub.until(lambda: hub.done("none"))
    assert "unknown" in hub.parts[-1].error


async def test_stopping_an_agent_leaves_or_drains(
    hub: Hub, config: AgentConfig, machine: Machine, application: Applications
) -> None:
    """By default applications outlive the agent; with drain_on_stop they end, and their ends are told."""
    first = Node(config, machine)
    await first.start()
    await hub.until(lambda: hub.connections)
    await hub.want(application())
    await hub.until_state("launch-1", LaunchReport.READY)
    await hub.tail("launch-1", "r")
    await hub.until(lambda: hub.done("r"))
    pid = pid_of(hub, "r")
    await first.stop()
    os.kill(pid, 0)
    second = Node(replace(config, drain_on_stop=True), machine)
    await second.start()
    await hub.until(lambda: len(hub.connections) == 2)
    await second.stop()
    assert hub.reports["launch-1"].state == LaunchReport.EXITED
    assert hub.reports["launch-1"].reason == "AGENT_STOPPED"


async def test_a_command_that_is_not_there(hub: Hub, node: Node) -> None:
    """The launcher's reason reaches the report."""
    await hub.until(lambda: hub.connections)
    await hub.want(assignment("launch-1", Version(version="1.0.0", command=["/no/such/program"])))
    failed = await hub.until_state("launch-1", LaunchReport.FAILED)
    assert failed.reason == "COMMAND_NOT_FOUND"


SECRET = new_secret()
"""Of the launches below."""
WHEP = {"whep_path": "/whep"}


async def answered(port: int, presented: str = "", path: str = "/") -> int:
    """Ask what listens on a port; return the status."""
    status, _ = await loopback.ask(port, path, secret=presented)
    return status


async def test_an_application_that_checks_its_secret_is_asked_with_it(
    hub: Hub, node: Node, application: Applications
) -> None:
    """It finds the secret in its session file; readiness, presence and notices carry it, also by the next agent."""
    wishes = {"secret_header": HEADER, "status": {"viewers": 1}, "notice": 204}
    await hub.until(lambda: hub.connections)
    wanted = application(wishes=wishes, launch_secret=SECRET, signaling=WHEP | {"checks_secret": True})
    await hub.want(wanted)
    ready = await hub.until_state("launch-1", LaunchReport.READY)
    await hub.until(lambda: hub.reports["launch-1"].viewers == 1)

    assert await answered(ready.signal_port) == 401
    assert await answered(ready.http_port, path="/v1/streaming/status") == 401
    assert await answered(ready.http_port, SECRET, "/v1/streaming/status") == 200

    await node.crash()
    wanted.ClearField("launch_secret")  # of what runs it is not sent again
    await hub.want(wanted)
    application.tell("launch-1", **wishes | {"status": {"viewers": 2}})
    await node.start()
    await hub.until(lambda: hub.reports["launch-1"].viewers == 2)


async def test_the_agent_checks_for_an_application_that_cannot(hub: Hub, node: Node, application: Applications) -> None:
    """The port that is given out is the agent's: it lets in the front door alone, and again once it was restarted."""
    await hub.until(lambda: hub.connections)
    wanted = application(launch_secret=SECRET, signaling=WHEP)
    await hub.want(wanted)
    ready = await hub.until_state("launch-1", LaunchReport.READY)
    inner = ready.http_port + 1
    assert ready.signal_port not in (inner, ready.media_port, ready.http_port)
    assert await answered(inner) == 404, "the application's own, which the packet filter closes"

    await hub.until(lambda: hub.reports["launch-1"].HasField("viewers"))
    assert (hub.reports["launch-1"].viewers, hub.reports["launch-1"].ever_connected) == (0, False)
    assert [await knocking.status(ready.signal_port, each) for each in ("", new_secret(), SECRET)] == [401, 401, 404]
    # It reports no viewers, and WHEP keeps no connections: somebody may watch from now on, and is not ended as idle.
    await hub.until(lambda: hub.reports["launch-1"].ever_connected)
    await hub.until(lambda: not hub.reports["launch-1"].HasField("viewers"))
    assert not hub.reports["launch-1"].HasField("idle_for")
    await node.crash()
    with pytest.raises(OSError):  # noqa: PT011 - refused or reset
        await knocking.status(ready.signal_port, SECRET)
    wanted.ClearField("launch_secret")
    await hub.want(wanted)
    dials = hub.dials
    await node.start()
    await hub.until(lambda: hub.dials > dials and hub.connections)
    assert [await knocking.status(ready.signal_port, each) for each in ("", SECRET)] == [401, 404]

    await hub.want(stopped(wanted))
    await hub.until_state("launch-1", LaunchReport.EXITED)
    with pytest.raises(OSError):  # noqa: PT011
        await knocking.status(ready.signal_port, SECRET)


async def test_a_launch_without_a_secret_has_no_door(hub: Hub, node: Node, application: Applications) -> None:
    """An older control plane knows of none, and its front door could not show it."""
    await hub.until(lambda: hub.connections)
    await hub.want(application(signaling=WHEP))
    ready = await hub.until_state("launch-1", LaunchReport.READY)

    assert ready.signal_port == ready.http_port - 2
    assert await answered(ready.signal_port) == 404


async def test_what_a_ready_application_says_is_reported(hub: Hub, node: Node, application: Applications) -> None:
    """As Kit does, which is asked for no viewers: how it is, while it starts and afterwards."""
    await hub.until(lambda: hub.connections)
    wanted = application(wishes={"ready": False, "says": "Rtx not ready"})
    wanted.version.presence.source = wanted.version.presence.CONNECTIONS
    await hub.want(wanted)
    await hub.until(lambda: any("'Rtx not ready'" in each.message for each in hub.reports.values()))
    application.tell("launch-1", says="Ready for connection")
    await hub.until(lambda: hub.reports["launch-1"].message == "Ready for connection")
    application.tell("launch-1", ready=503, says="Streaming session ended (recycle instance)")
    await hub.until(lambda: hub.reports["launch-1"].message == "Streaming session ended (recycle instance)")
    assert hub.reports["launch-1"].state == LaunchReport.READY


class FastClock(BootClock):
    """A minute of it is two seconds."""

    def now(self) -> float:
        return super().now() * 30


async def test_one_that_is_ready_and_offers_nothing_is_given_up(
    hub: Hub, config: AgentConfig, machine: Machine, application: Applications
) -> None:
    """After the time that its version says, long before that of its start, and it is tried on another node."""
    node = Node(config, machine, clock=FastClock())
    await node.start()
    await hub.until(lambda: hub.connections)
    await hub.want(
        application(
            signaling={"websocket_path": "/sign_in"},
            readiness=Readiness(check=Readiness.OFFER, offer_timeout=duration(120)),
            limits={"start_timeout": 3600},
        )
    )

    over = await hub.until_state("launch-1", LaunchReport.FAILED)
    await node.stop()

    assert over.reason == "NO_OFFER"
    assert seconds(over.starting_for) >= 120
    assert over.message.startswith(f"no offer came by 127.0.0.1:{over.signal_port}/sign_in: ")
    assert meaning(over.reason).retry is Retry.ELSEWHERE


BY_HTTP = StageDelivery(method=StageDelivery.HTTP, path="/open")
SIGNED = "https://store.example.com/a.usd?sig=hunter2"


@pytest.mark.parametrize("again", [False, True], ids=["at once", "asked again"])
async def test_a_stage_is_sent_before_it_is_ready(hub: Hub, node: Node, application: Applications, again: bool) -> None:
    """An application that is given its stage by HTTP is READY once it has taken it; its signature is in no report."""
    await hub.until(lambda: hub.connections)
    wanted = application(wishes={"open": 503 if again else 200}, stage_delivery=BY_HTTP, stage=SIGNED)
    await hub.want(wanted)
    if again:
        await hub.until(lambda: "/open with the stage: 503" in hub.reports.get("launch-1", LaunchReport()).message)
        application.tell("launch-1", open=204)
    await hub.until_state("launch-1", LaunchReport.READY)
    seen = hub.reports["launch-1"].message
    await hub.want(stopped(wanted))
    over = await hub.until_state("launch-1", LaunchReport.EXITED)

    assert f'stage {{"usd_stage_uri": "{SIGNED}"}}' in over.log_tail
    assert "hunter2" not in seen


async def test_a_stage_that_is_refused_ends_it(hub: Hub, node: Node, application: Applications) -> None:
    """At once, with what the application says, and without the signature that it was sent."""
    await hub.until(lambda: hub.connections)
    await hub.want(application(wishes={"open": 422}, stage_delivery=BY_HTTP, stage=SIGNED))

    over = await hub.until_state("launch-1", LaunchReport.FAILED)

    assert over.reason == "STAGE_REFUSED"
    assert "/open with the stage: 422" in over.message
    assert "hunter2" not in over.message
    assert meaning(over.reason).retry is Retry.NEVER
