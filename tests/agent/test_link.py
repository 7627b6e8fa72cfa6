"""The link: dialling, being refused, breaking, and agreeing again.

Also the tests of ``cluster`` and ``abandonment``.
"""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import random
import socket
import zlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from footlights.agent.v1.agent_pb2 import Assignment, Goodbye, Hello, LaunchReport, LinkResponse, Redirect, Welcome
from footlights.v1.application_pb2 import FakeBehavior, Version
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from footlights.agent.config import AgentConfig
from footlights.agent.launches.journal import Journal, JournalEntry
from footlights.agent.link import cluster
from footlights.agent.link.link import Backoff, Link, Pace
from footlights.agent.link.log_tails import LogTails
from footlights.agent.link.outbox import Outbox
from footlights.control.call.registry import role_not_served
from footlights.supervision import Supervisor
from tests.agent.conftest import Assign, Machine, Node, stopped
from tests.agent.hub import Hub
from tests.launch.plans import make_plan


class Nothing:
    """A node with nothing to say."""

    def hello(self) -> Hello:
        return Hello()

    def welcomed(self, welcome: Welcome) -> None:
        pass

    def received(self, message: LinkResponse) -> None:
        pass

    def reports(self) -> list[LaunchReport]:
        return []

    def left_out(self) -> list[str]:
        return []


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=50), st.integers())
def test_pauses_grow_to_a_bound(refusals: list[bool], seed: int) -> None:
    """From 0.2 s up to 5 s, a refusal 30 s, each at least half of that: never a busy loop, never out of reach."""
    backoff = Backoff(Pace(), random.Random(seed))
    for count, refused in enumerate(refusals):
        pause = backoff.next(refused=refused)
        due = 30.0 if refused else min(5.0, 0.2 * 2**count)
        assert due / 2 <= pause <= due
    backoff.welcomed()
    assert backoff.next(refused=False) <= 0.2


async def test_a_broken_link_is_dialled_again(hub: Hub, node: Node, fake: Assign) -> None:
    """What happened without a link is in the next hello; nothing is begun twice."""
    await hub.until(lambda: hub.connections)
    await hub.want(fake())
    await hub.until_state("launch-1", LaunchReport.READY)
    for count in range(2, 5):
        await hub.hang_up()
        await hub.until_links(count)
        assert [launch.state for launch in hub.link.hello.launches] == [LaunchReport.READY]
    assert len({connection.hello.incarnation for connection in hub.connections}) == 1
    assert hub.states("launch-1")[-1] == "READY"
    assert hub.states("launch-1").count("STARTING") <= 1


async def test_a_control_plane_that_is_down_hurts_nobody(hub: Hub, node: Node, fake: Assign) -> None:
    """Launches go on and end without it, and their ends are told when it is back."""
    await hub.until(lambda: hub.connections)
    await hub.want(fake("stays", slot=0))
    await hub.want(fake("ends", slot=1, behavior={"exit_after": 1.0, "exit_code": 4}))
    await hub.until_state("stays", LaunchReport.READY)
    await hub.until_state("ends", LaunchReport.READY)
    await hub.stop()
    assert node.agent is not None
    ended = next(runner for runner in node.agent.table.alive if runner.record.launch_id == "ends")
    await node.agent.launches.ended(ended.record.launch_id, timeout=10)
    await hub.start(hub.address)
    await hub.until(lambda: len(hub.connections) == 2)
    told = {launch.launch_id: launch for launch in hub.link.hello.launches}
    assert told["stays"].state == LaunchReport.READY
    assert (told["ends"].state, told["ends"].exit_code) == (LaunchReport.EXITED, 4)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (grpc.StatusCode.PERMISSION_DENIED, "not for it"),
        (grpc.StatusCode.ALREADY_EXISTS, "another agent"),
        (grpc.StatusCode.UNAUTHENTICATED, "token"),
    ],
)
async def test_a_refusal_is_said_once_and_tried_again(
    hub: Hub, config: AgentConfig, machine: Machine, code: grpc.StatusCode, words: str
) -> None:
    """Plainly and once, however often it is refused; when the reason is gone, there is a link."""
    hub.refusal = (code, "because")
    node = Node(config, machine)
    with capture_logs() as logs:
        await node.start()
        await hub.until(lambda: hub.dials >= 3)
    hub.refusal = None
    await hub.until(lambda: hub.connections)
    await node.stop()
    said = [line for line in logs if line["event"] == "not_linked"]
    assert len(said) == 1
    assert words in said[0]["problem"]
    assert "because" in said[0]["detail"]


@pytest.fixture
async def hubs(hub: Hub) -> AsyncIterator[list[Hub]]:
    """Two control planes' servers; the agents of ``config`` begin with the first one."""
    other = Hub()
    await other.start()
    other.cluster_id = hub.cluster_id
    first = zlib.crc32(b"node-1") % 2
    yield [hub, other] if first == 0 else [other, hub]
    await other.stop()


def knowing(config: AgentConfig, hubs: list[Hub]) -> AgentConfig:
    """An agent that knows both, so that it begins with the first of ``hubs``."""
    addresses = [hub.address for hub in hubs]
    return replace(config, server=",".join(addresses if zlib.crc32(b"node-1") % 2 == 0 else addresses[::-1]))


async def test_the_next_server_is_dialled_when_one_is_gone(
    hubs: list[Hub], config: AgentConfig, machine: Machine, fake: Assign
) -> None:
    """And the one before again when that is gone too; what runs goes on and is told to each."""
    first, second = hubs
    node = Node(knowing(config, hubs), machine)
    await node.start()
    await first.until(lambda: first.connections)
    await first.want(fake())
    await first.until_state("launch-1", LaunchReport.READY)
    second.assignments.update(first.assignments)
    await first.stop()
    await second.until(lambda: second.connections)
    told = [launch.state for launch in second.link.hello.launches]
    await first.start(first.address)
    await second.stop()
    await first.until(lambda: len(first.connections) == 2)
    await node.stop()

    assert told == [LaunchReport.READY]
    assert first.states("launch-1").count("STARTING") <= 1


async def test_a_server_that_hangs_up_is_not_the_next_one(
    hubs: list[Hub], config: AgentConfig, machine: Machine
) -> None:
    """A replica that stops closes its links first, and must not have them all back at once."""
    first, second = hubs
    node = Node(knowing(config, hubs), machine)
    await node.start()
    await first.until(lambda: first.connections)
    await first.hang_up()
    await second.until(lambda: second.connections)
    await node.stop()

    assert len(first.connections) == 1


async def test_what_one_server_refuses_the_next_one_is_asked_at_once(
    hubs: list[Hub], config: AgentConfig, machine: Machine
) -> None:
    """One that has no part in links; the long pause comes only where each has refused."""
    first, second = hubs
    first.refusal = (grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
    node = Node(knowing(config, hubs), machine, Pace(first_s=0.05, last_s=0.2, refused_s=3600))
    await node.start()
    await second.until(lambda: second.connections)
    await second.hang_up()
    await second.until(lambda: len(second.connections) == 2)
    await node.stop()

    assert first.connections == []


@pytest.mark.parametrize("redirected", [False, True])
async def test_a_server_that_stops_is_left_after_one_short_pause(
    hubs: list[Hub], config: AgentConfig, machine: Machine, redirected: bool
) -> None:
    """It says goodbye; its agents do not dial the next address all in one instant, also where it named that."""
    first, second = hubs
    known = replace(config, server=first.address) if redirected else knowing(config, hubs)
    node = Node(known, machine, Pace(first_s=0.6, last_s=3600))
    loop = asyncio.get_running_loop()
    await node.start()
    await first.until(lambda: first.connections)
    if redirected:
        await first.say(LinkResponse(redirect=Redirect(addresses=[second.address])))
    await first.say(LinkResponse(goodbye=Goodbye(reason="SERVER_STOPPING", message="Bye.")))
    left = loop.time()
    await first.hang_up()
    await second.until(lambda: second.dials)
    paused_s = loop.time() - left
    await second.until(lambda: second.connections and second.link.heartbeats)
    await node.stop()
    await second.until(lambda: second.goodbyes)

    assert paused_s >= 0.3
    assert second.goodbyes == ["AGENT_STOPPING"]


async def test_an_agent_goes_where_it_is_sent(hubs: list[Hub], hub: Hub, config: AgentConfig, machine: Machine) -> None:
    """For one try each, although it was not given these addresses; then its own are dialled again."""
    [other] = [each for each in hubs if each is not hub]
    node = Node(replace(config, server=hub.address), machine, Pace(first_s=0.05, last_s=0.2))
    await node.start()
    await hub.until(lambda: hub.connections)
    addresses = ["127.0.0.1:1", other.address]
    await hub.say(LinkResponse(redirect=Redirect(addresses=addresses)))
    await hub.say(LinkResponse(goodbye=Goodbye(reason="SERVER_STOPPING")))
    await hub.hang_up()
    await other.until(lambda: other.connections)
    await other.hang_up()
    await hub.until(lambda: len(hub.connections) == 2)
    await node.stop()

    assert len(other.connections) == 1


async def test_a_server_without_the_role_is_not_called_by_the_former_name(
    hubs: list[Hub], config: AgentConfig, machine: Machine
) -> None:
    """What it says is what is logged: it is no server of the release before, and the next one is dialled."""
    first, second = hubs
    first.error = role_not_served("hub")
    node = Node(knowing(config, hubs), machine)
    with capture_logs() as logs:
        await node.start()
        await second.until(lambda: second.connections)
    await node.stop()

    [line] = [each for each in logs if each["event"] == "not_linked"]
    assert "does not have the role hub" in line["detail"]
    assert first.dials == 1


async def test_an_address_that_a_server_named_has_less_time(hub: Hub, config: AgentConfig, machine: Machine) -> None:
    """It may not be reached from here; what is logged is the time that it had."""
    node = Node(replace(config, server=hub.address), machine, Pace(first_s=0.05, last_s=0.2))
    with capture_logs() as logs, socket.create_server(("127.0.0.1", 0)) as silent:
        await node.start()
        await hub.until(lambda: hub.connections)
        await hub.say(LinkResponse(redirect=Redirect(addresses=[f"127.0.0.1:{silent.getsockname()[1]}"])))
        await hub.say(LinkResponse(goodbye=Goodbye(reason="SERVER_STOPPING")))
        await hub.hang_up()
        await hub.until(lambda: len(hub.connections) == 2)
    await node.stop()

    [line] = [each for each in logs if each["event"] == "not_linked"]
    assert "no welcome within 5 s" in line["detail"]


async def test_a_server_of_the_release_before_is_linked_to(config: AgentConfig, machine: Machine, fake: Assign) -> None:
    """By the link's former name, with one version and everything in one message each."""
    old = Hub(former=True)
    await old.start()
    old.assignments["launch-1"] = fake()
    node = Node(replace(config, server=old.address, drain_on_stop=True), machine)
    await node.start()
    await old.until_state("launch-1", LaunchReport.READY)
    await old.hang_up()
    await old.until_links(2)
    hello = old.link.hello
    await node.stop()
    await old.stop()

    assert (hello.protocol_version, hello.HasField("protocol"), hello.HasField("part")) == (1, False, False)
    assert [launch.state for launch in hello.launches] == [LaunchReport.READY]
    assert old.goodbyes == []


async def test_a_set_in_parts_is_agreed_with_when_it_is_whole(hub: Hub, node: Node, fake: Assign) -> None:
    """What the first part does not name goes on; recipes that are named are those that were sent."""
    await hub.until(lambda: hub.connections)
    for number, name in enumerate(("one", "two")):
        await hub.want(fake(name, slot=number))
        await hub.until_state(name, LaunchReport.READY)
    hub.in_parts = True
    await hub.hang_up()
    await hub.until_links(2)
    await hub.until(lambda: hub.link.heartbeats >= 2)
    states = {name: hub.reports[name].state for name in ("one", "two")}
    del hub.assignments["two"]
    await hub.hang_up()
    await hub.until_state("two", LaunchReport.EXITED)

    assert states == {"one": LaunchReport.READY, "two": LaunchReport.READY}
    assert hub.reports["two"].reason == "UNASSIGNED"
    assert hub.reports["one"].state == LaunchReport.READY


async def test_a_recipe_that_was_not_sent_costs_the_link_only(hub: Hub, node: Node) -> None:
    """The next link begins again, and nothing is started with a recipe that nobody gave."""
    await hub.until(lambda: hub.connections)
    await hub.say(LinkResponse(assignment=Assignment(launch_id="launch-1", epoch=1, recipe_digest=b"unknown")))
    await hub.until_links(2)

    assert "launch-1" not in hub.reports


async def test_a_node_with_more_than_can_be_said_is_linked_and_says_so(
    hub: Hub, config: AgentConfig, machine: Machine
) -> None:
    """Its first labels are known, and a note says how many are left out."""
    labels = {f"label-{number:04}": "x" for number in range(5000)}
    node = Node(replace(config, labels=labels), machine)
    await node.start()
    await hub.until(lambda: hub.connections)
    await node.stop()

    facts = hub.link.hello.facts
    assert sorted(facts.labels) == sorted(labels)[:128]
    assert facts.notes[-1] == "the node has more than its agent can report: facts.labels: 128 of 5000"


async def test_hundreds_of_large_ends_that_nobody_heard_are_all_told(
    hub: Hub, config: AgentConfig, machine: Machine, tmp_path: Path
) -> None:
    """What an agent finds in its journal: in parts and reports that each fit a message, together more than any does."""
    journal = Journal(config.data_dir / "journal")
    journal.restore()
    for number in range(400):
        launch_id = f"old-{number}"
        assignment = Assignment(launch_id=launch_id, epoch=1, session_id="s")
        final = LaunchReport(launch_id=launch_id, epoch=1, state=LaunchReport.EXITED, exit_code=3)
        final.log_tail.extend("x" * 4000 for _ in range(5))
        plan = make_plan(Version(fake=FakeBehavior()), tmp_path, launch_id=launch_id)
        journal.write(JournalEntry(assignment, plan, begun=True, final=final))
    node = Node(config, machine)
    agent = await node.start()
    await hub.until(lambda: len(hub.reports) == 400, timeout=60)
    async with asyncio.timeout(60):
        await agent.table.none_left.wait()
    hello = hub.link.hello
    await node.stop()

    assert len(hub.connections) == 1
    assert len({report.launch_id for report in hello.launches}) == 400
    assert {report.state for report in hub.reports.values()} == {LaunchReport.EXITED}
    assert all(len(report.log_tail) == 5 for report in hub.reports.values())


def test_agents_spread_over_the_servers(config: AgentConfig) -> None:
    """By their names, always in the same way: about as many begin with each of three."""
    servers = "127.0.0.1:1,127.0.0.1:2,127.0.0.1:3"
    begun: Counter[str] = Counter()
    for number in range(300):
        one = replace(config, server=servers, node=f"node-{number}")
        outbox = Outbox(lambda _: None, Supervisor())
        logs = LogTails(outbox)
        links = [Link(one, Nothing(), outbox, logs) for _ in range(2)]
        assert links[0].server == links[1].server
        begun[links[0].server] += 1

    assert set(begun) == set(servers.split(","))
    assert min(begun.values()) > 60


async def test_a_rotated_token_is_taken_up(hub: Hub, config: AgentConfig, machine: Machine, tmp_path: Path) -> None:
    """The token file is read at each dial."""
    path = tmp_path / "token"
    path.write_text("old")
    node = Node(replace(config, token="", token_file=path), machine)
    await node.start()
    await hub.until(lambda: hub.dials >= 1)
    assert hub.connections == []
    path.write_text("node-token\n")
    await hub.until(lambda: hub.connections)
    await node.stop()


async def test_an_end_is_told_until_it_is_recorded(hub: Hub, node: Node, fake: Assign) -> None:
    """A final report comes again with every heartbeat and hello until the control plane says Forget."""
    hub.forgets = False
    await hub.until(lambda: hub.connections)
    wanted = fake()
    await hub.want(wanted)
    await hub.until_state("launch-1", LaunchReport.READY)
    await hub.want(stopped(wanted))
    await hub.until_state("launch-1", LaunchReport.EXITED)
    count = len(hub.history)
    await hub.until(lambda: len(hub.history) >= count + 2)
    await hub.hang_up()
    await hub.until(lambda: len(hub.connections) == 2)
    assert hub.link.hello.launches[0].state == LaunchReport.EXITED
    assert node.agent is not None
    hub.forgets = True
    await node.agent.table.none_left.wait()


async def test_nobody_watched_is_abandoned(hub: Hub, node: Node, fake: Assign) -> None:
    """Without a link for long, what nobody is connected to ends; what somebody is, or may be, goes on."""
    hub.abandon_s = 0.5
    await hub.until(lambda: hub.connections)
    await hub.want(fake("watched", slot=0, behavior={"viewers": 1}))
    await hub.want(fake("alone", slot=1, behavior={"viewers": 0}))
    await hub.want(fake("unknown", device="GPU-1", slot=0))
    for launch_id in ("watched", "alone", "unknown"):
        await hub.until_state(launch_id, LaunchReport.READY)
    await hub.until(lambda: hub.reports["watched"].viewers == 1 and hub.reports["alone"].HasField("viewers"))
    await hub.stop()
    assert node.agent is not None
    await node.agent.launches.ended("alone", timeout=10)
    await hub.start(hub.address)
    await hub.until(lambda: len(hub.connections) == 2)
    told = {launch.launch_id: launch for launch in hub.link.hello.launches}
    assert (told["alone"].state, told["alone"].reason) == (LaunchReport.EXITED, "ABANDONED")
    assert told["watched"].state == LaunchReport.READY
    assert told["unknown"].state == LaunchReport.READY


async def test_a_new_launch_during_the_drain_is_refused(hub: Hub, node: Node, fake: Assign) -> None:
    """An agent that is stopping begins nothing."""
    await hub.until(lambda: hub.connections)
    assert node.agent is not None
    node.agent.launches.close_to_new("stopping")
    await hub.want(fake())
    refused = await hub.until_state("launch-1", LaunchReport.REJECTED)
    assert refused.reason == "AGENT_STOPPED"


async def test_a_launch_of_another_cluster_is_left_alone(hub: Hub, node: Node, fake: Assign) -> None:
    """A full set of another cluster ends nothing of this one."""
    await hub.until(lambda: hub.connections)
    await hub.want(fake())
    await hub.until_state("launch-1", LaunchReport.READY)
    hub.assignments.clear()
    hub.cluster_id = "another"
    await hub.hang_up()
    await hub.until(lambda: len(hub.connections) == 2 and hub.link.heartbeats >= 2)
    assert hub.reports["launch-1"].state == LaunchReport.READY


def certificate(directory: Path) -> tuple[Path, bytes, bytes]:
    """A certificate for 127.0.0.1 that signs itself: its file, its PEM and its key's."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = directory / "ca.pem"
    path.write_bytes(pem)
    return path, pem, key_pem


async def test_a_link_over_tls(config: AgentConfig, machine: Machine, tmp_path: Path) -> None:
    """With the authority's file there is a link; without it the server is not believed."""
    path, pem, key = certificate(tmp_path)
    hub = Hub()
    await hub.start(credentials=grpc.ssl_server_credentials([(key, pem)]))
    unbelieving = Node(replace(config, server=hub.address, tls=True), machine)
    with capture_logs() as logs:
        await unbelieving.start()
        async with asyncio.timeout(10):
            while not any(line["event"] == "not_linked" for line in logs):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await unbelieving.stop()
    assert hub.dials == 0
    believing = Node(replace(config, server=hub.address, ca_file=path), machine)
    await believing.start()
    await hub.until(lambda: hub.connections)
    await believing.stop()
    await hub.stop()


def test_what_was_told_is_kept(tmp_path: Path) -> None:
    """The cluster and its patience are known before the next link; a file that is broken is as none."""
    path = tmp_path / "cluster.json"
    assert cluster.load(path) == cluster.Cluster()
    welcome = Welcome(cluster_id="c")
    welcome.abandon_after.FromSeconds(90)
    cluster.save(path, cluster.Cluster.of(welcome))
    assert cluster.load(path) == cluster.Cluster("c", 90.0)
    path.write_text("{")
    assert cluster.load(path) == cluster.Cluster()
