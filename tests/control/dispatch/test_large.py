"""Agents with much to say, or to be told: sets in parts, bounds, and how the two sides agree on both."""

from __future__ import annotations

import time
from collections import Counter

import pytest
from footlights.agent.v1 import agent_pb2
from footlights.v1 import application_pb2, session_pb2
from structlog.testing import capture_logs

from footlights import errors
from footlights.control.dispatch.link import MAX_UNSENT
from footlights.control.dispatch.service import MAX_HELLO_PARTS
from footlights.protocol import handshake
from footlights.protocol.bounds import MAX_LAUNCHES, PART_BYTES
from footlights.store.schema import SESSION
from tests.control.harness import Agent, Control, Report, State, gpu, known, version

LAUNCHES = 64
SECRETS = 5
SECRET_CHARACTERS = 65_536


async def _fill_with_the_largest(plane: Control) -> Agent:
    """Have a node assigned as many launches as a device has slots, each with all that a version may hold."""
    secrets = [
        application_pb2.Argument(
            name=f"secret_{number}", type=application_pb2.Argument.STRING, secret=True, max_length=SECRET_CHARACTERS
        )
        for number in range(SECRETS)
    ]
    environment = {f"VARIABLE_{number}": "x" * 8000 for number in range(31)}
    await plane.apply(version("2.0.0", arguments=secrets, environment=environment))
    agent = await plane.agent("node-a", gpu(slots=LAUNCHES))
    given = {f"secret_{number}": "s" * SECRET_CHARACTERS for number in range(SECRETS)}
    for _ in range(LAUNCHES):
        await plane.create(application_arguments=given)
    await plane.place()
    while len(agent.assigned) < LAUNCHES:
        await agent.until("assignment")
    await agent.close()
    return agent


def _assigned(agent: Agent) -> list[Report]:
    return [known(each, "ASSIGNED") for each in agent.assigned.values()]


def _is_all_there(assigned: dict[str, agent_pb2.Assignment]) -> None:
    assert len(assigned) == LAUNCHES
    for each in assigned.values():
        assert len(each.version.environment) == 31
        assert len(each.secrets) > SECRETS * SECRET_CHARACTERS


async def test_the_largest_set_of_assignments_goes_in_parts(plane: Control) -> None:
    """64 launches with the largest version and large secrets: no part is large, and the recipe is sent once."""
    agent = await _fill_with_the_largest(plane)
    protocol = handshake.ours()
    protocol.features.remove(handshake.SECRETS_ONCE)

    again = await plane.new_agent("node-a", agent.token).open(
        [gpu(slots=LAUNCHES)], _assigned(agent), hello={"protocol": protocol}, former=False
    )

    _is_all_there(again.assigned)
    kinds = [kind for kind, _ in again.received]
    assert kinds[:2] == ["welcome", "recipe"]
    assert kinds.count("recipe") == 1
    assert kinds.count("assignments") > LAUNCHES * SECRETS * SECRET_CHARACTERS // PART_BYTES
    assert max(size for _, size in again.received) <= PART_BYTES + 100


async def test_parts_are_as_small_as_an_agent_takes_them(plane: Control) -> None:
    """It says the greatest message that it takes."""
    agent = await plane.agent("node-a", gpu(slots=20))
    for _ in range(20):
        await plane.create()
    await plane.place()
    protocol = handshake.ours()
    protocol.max_message_bytes = 500
    again = await plane.new_agent("node-a", agent.token).open(
        [gpu(slots=20)], hello={"protocol": protocol}, former=False
    )

    assert len(again.assigned) == 20
    assert max(size for kind, size in again.received if kind == "assignments") <= 500


async def test_secrets_that_no_message_may_carry_are_refused(plane: Control) -> None:
    """Over gRPC, which takes requests as large; the owner is told at once, and nothing is created."""
    secrets = [
        application_pb2.Argument(
            name=f"secret_{number}", type=application_pb2.Argument.STRING, secret=True, max_length=SECRET_CHARACTERS
        )
        for number in range(40)
    ]
    await plane.apply(version("2.0.0", arguments=secrets))
    given = {argument.name: "s" * SECRET_CHARACTERS for argument in secrets}
    with pytest.raises(errors.InvalidArgument, match=f"its secrets are 26.* at most {2 << 20} are allowed") as caught:
        await plane.create(application_arguments=given)

    assert [each.field for each in caught.value.violations] == ["application_arguments"]
    assert (await plane.rest("GET", "/v1/sessions")).json()["items"] == []


async def test_needs_that_no_message_may_carry_are_refused(plane: Control) -> None:
    """A version's with those of a profile."""
    labels = {f"label-{number}": "x" * 60 for number in range(1500)}
    await plane.apply(version("2.0.0", needs=application_pb2.Needs(node_labels=labels)))
    with pytest.raises(errors.FailedPrecondition, match=f"no node is sent more than {64 << 10}") as caught:
        await plane.create()

    assert (caught.value.reason, caught.value.metadata) == ("ASSIGNMENT_TOO_LARGE", {"fields": "needs"})


async def test_an_assignment_that_no_message_may_carry_ends_its_session(plane: Control) -> None:
    """What the release before took. Half a secret is no secret: its owner is told, others on the node are begun."""
    made = await plane.create()
    sealed = plane.key.box().seal(b"s" * 2_600_000, made.session_id.encode())
    large = SESSION.update().where(SESSION.c.session_id == made.session_id).values(secrets=sealed)
    await plane.store.write(lambda tx: tx.changed(large))
    agent = await plane.new_agent("node-a", await plane.token("NODE", "node-a")).open([gpu(slots=2)], former=False)
    other = await plane.create()
    await plane.place()
    assert await agent.assignment(other.session_id)
    stopped = await agent.assignment(made.session_id, "STOPPED")
    await agent.report(stopped, "LOST")

    ended = await plane.get(made.session_id)
    assert (ended.state, ended.end_reason) == (State.FAILED, session_pb2.Session.LAUNCH_FAILED)
    assert "secrets: 26" in ended.status_message
    assert f"at most {2 << 20} are allowed" in ended.status_message


async def test_an_agent_of_the_release_before_links_again_with_the_largest_set(plane: Control) -> None:
    """It takes no parts: each launch is assigned by itself, and the set that names them all ends none."""
    agent = await _fill_with_the_largest(plane)

    again = await plane.new_agent("node-a", agent.token).open([gpu(slots=LAUNCHES)], _assigned(agent))

    _is_all_there(again.assigned)
    assert [kind for kind, _ in again.received] == ["welcome", *["assignment"] * LAUNCHES, "assignments"]
    assert again.received[-1][1] < PART_BYTES


async def test_a_recipe_is_sent_once_over_a_link(plane: Control) -> None:
    """Assignments name it by its digest; a new link begins again."""
    agent = await plane.new_agent("node-a", await plane.token("NODE", "node-a")).open([gpu(slots=3)], former=False)
    for _ in range(2):
        made = await plane.create()
        await plane.place()
        assert (await agent.assignment(made.session_id)).version.version == "1.0.0"
    first = [kind for kind, _ in agent.received]
    await agent.close()
    again = await plane.new_agent("node-a", agent.token).open([gpu(slots=3)], former=False)

    assert first == ["welcome", "assignments", "recipe", "assignment", "assignment"]
    assert [kind for kind, _ in again.received] == ["welcome", "recipe", "assignments"]
    assert {each.version.version for each in again.assigned.values()} == {"1.0.0"}


async def test_a_hello_with_thousands_of_ended_launches_is_taken(plane: Control) -> None:
    """In parts; what runs goes on, all ends are recorded, and the agent is let forget them a part at a time."""
    agent = await plane.agent()
    made = await plane.running(agent)
    assignment = await agent.assignment(made.session_id)
    await agent.close()
    ended = [
        Report(launch_id=f"old-{number}", epoch=1, state=Report.EXITED, message="m" * 300) for number in range(5000)
    ]

    again = await plane.new_agent("node-a", agent.token).open(launches=[known(assignment), *ended], former=False)
    forgotten = {(await again.until("forget")).launch_id for _ in range(MAX_UNSENT // 2)}
    left = [report for report in ended if report.launch_id not in forgotten]
    await again.say(heartbeat=agent_pb2.Heartbeat(reports=left[:100]))
    later = {(await again.until("forget")).launch_id for _ in range(100)}

    assert later == {report.launch_id for report in left[:100]}
    assert (await plane.get(made.session_id)).state == State.READY
    assert await plane.state() == "READY"


async def test_a_hello_that_stays_without_its_last_part_is_no_hello(plane: Control) -> None:
    """What it did not name yet is not taken for lost."""
    agent = plane.new_agent("node-a", await plane.token("NODE", "node-a"))
    hello = {"part": agent_pb2.Part(last=False), "protocol": handshake.ours()}
    agent.begin()
    await agent.say(hello=agent_pb2.Hello(node="node-a", incarnation="one", **hello))  # type: ignore[arg-type]
    await agent.say(heartbeat=agent_pb2.Heartbeat())

    assert (await agent.ended()).reason == "HELLO_MISSING"


async def test_a_hello_that_never_ends_is_no_hello(plane: Control) -> None:
    """Parts without launches take no memory, but the link is not held for them either."""
    agent = plane.new_agent("node-a", await plane.token("NODE", "node-a"))
    hello = {"part": agent_pb2.Part(last=False), "protocol": handshake.ours()}
    agent.begin()
    await agent.say(hello=agent_pb2.Hello(node="node-a", incarnation="one", **hello))  # type: ignore[arg-type]
    for _ in range(MAX_HELLO_PARTS + 1):
        await agent.say(launches=agent_pb2.LaunchSet(part=agent_pb2.Part(last=False)))

    assert (await agent.ended()).reason == "HELLO_MISSING"


@pytest.mark.parametrize(
    ("first", "more", "each", "says"),
    [
        (MAX_LAUNCHES + 5, [10], 0, "hello.launches: has 10005 items. Give at most 10000."),
        (10, [MAX_LAUNCHES], 0, "hello.launches: has 10010 items and"),
        (10, [40, 40], 16_000, "hello.launches[0].message: has 16000 bytes. Give at most 4096."),
        (10, [400] * 12, 4_000, "bytes so far. Give at most 10000 and 16777216."),
    ],
    ids=["first", "together", "each text", "all texts"],
)
async def test_a_hello_is_refused_once_it_is_too_large(
    plane: Control, first: int, more: list[int], each: int, says: str
) -> None:
    """While it arrives, whatever its parts hold; the error names the field and its value, the node shows it."""

    def reports(count: int) -> list[Report]:
        found = []
        for _ in range(count):
            numbers.append(len(numbers))
            found.append(Report(launch_id=f"l-{numbers[-1]}", epoch=1, state=Report.READY, message="m" * each))
        return found

    numbers: list[int] = []
    await (await plane.agent()).close()
    await plane.unlinked()
    agent = plane.new_agent("node-a", await plane.token("NODE", "node-a"))
    part = agent_pb2.Part(last=False)
    greeting = agent_pb2.Hello(
        node="node-a", incarnation="one", launches=reports(first), part=part, protocol=handshake.ours()
    )
    agent.begin()
    await agent.say(hello=greeting)
    for at, count in enumerate(more, 1):
        part = agent_pb2.Part(last=at == len(more))
        await agent.say(launches=agent_pb2.LaunchSet(launches=reports(count), part=part))
    error = await agent.ended()

    assert isinstance(error, errors.InvalidArgument)
    assert says in error.message
    [notice] = (await plane.rest("GET", "/nodes/node-a")).json()["notices"]
    assert (notice["reason"], says in notice["message"]) == ("MESSAGE_REFUSED", True)


async def test_twenty_thousand_devices_are_refused_before_they_are_looked_at(plane: Control) -> None:
    """The event loop is not held: it took ten seconds of it once."""
    agent = plane.new_agent("node-a", await plane.token("NODE", "node-a"))
    devices = [gpu(f"GPU-{number}") for number in range(20_000)]
    started = time.process_time()
    with pytest.raises(errors.InvalidArgument, match=r"hello.inventory.devices: has 20000 items. Give at most 256."):
        await agent.open(devices, former=False)

    assert time.process_time() - started < 3
    assert (await plane.rest("GET", "/nodes/node-a")).status_code == 404


async def test_a_message_beyond_its_bounds_ends_the_link_and_nothing_of_it_is_stored(plane: Control) -> None:
    """An honest agent cuts what it sends: whoever does not is told which field, and with which value."""
    agent = await plane.agent(former=False)
    made = await plane.running(agent)
    assignment = await agent.assignment(made.session_id)
    await agent.say(report=known(assignment, message="m" * 900_000))
    goodbye = await agent.until("goodbye")
    error = await agent.ended()

    assert (error.reason, error.message) == ("TOO_LONG", "report.message: has 900000 bytes. Give at most 4096.")
    assert (goodbye.reason, goodbye.message) == (error.reason, error.message)
    assert "m" * 100 not in str(await plane.get(made.session_id))


async def test_what_no_message_may_carry_is_cut_and_said(plane: Control) -> None:
    """
    By the release before, whose agents know no bounds: labels, notes and devices of absurd size. The node is linked,
    and its notice and the log say what is left out.
    """
    facts = {"labels": {f"label-{number}": "x" * 500 for number in range(5000)}, "notes": ["n" * 100_000] * 100}
    devices = [gpu(f"GPU-{number}", note="d" * 100_000) for number in range(300)]
    with capture_logs() as logs:
        await plane.new_agent("node-a", await plane.token("NODE", "node-a")).open(devices, facts=facts)

    node = (await plane.rest("GET", "/nodes/node-a")).json()
    assert (node["state"], len(node["devices"]), len(node["facts"]["labels"])) == ("READY", 256, 128)
    assert all(note.endswith("[cut]") for note in node["facts"]["notes"])
    [notice] = [each for each in node["notices"] if each["reason"] == "MESSAGE_CUT"]
    assert "facts.labels: 128 of 5000" in notice["message"]
    [line] = [each for each in logs if each["event"] == "link_message_cut"]
    assert line["node"] == "node-a"


async def test_a_report_that_is_too_large_is_cut_and_logged(plane: Control) -> None:
    """An application's words never end the link of its node: agents cut them, and for the release before we do."""
    agent = await plane.agent()
    made = await plane.running(agent)
    assignment = await agent.assignment(made.session_id)
    with capture_logs() as logs:
        await agent.report(assignment, "FAILED", message="m" * 100_000, log_tail=["x" * 100_000] * 100)

    ended = await plane.get(made.session_id)
    assert ended.state == State.FAILED
    assert sum(map(len, ended.log_tail)) < 70_000
    assert len(ended.status_message) < 5000
    [line] = [each for each in logs if each["event"] == "link_message_cut"]
    assert (line["node"], line["kind"]) == ("node-a", "report")


@pytest.mark.parametrize(("least", "greatest", "linked"), [(1, 9, True), (0, 1, True), (2, 9, False), (0, 0, False)])
async def test_a_link_is_refused_only_where_the_ranges_do_not_meet(
    plane: Control, least: int, greatest: int, linked: bool
) -> None:
    """And features that this release does not know are ignored."""
    agent = plane.new_agent("node-a", await plane.token("NODE", "node-a"))
    theirs = agent_pb2.Protocol(least=least, greatest=greatest, features=["telepathy", "parts"])
    if linked:
        await agent.open(hello={"protocol": theirs}, former=False)
        assert agent.welcome.protocol == handshake.ours()
        return
    with pytest.raises(errors.FailedPrecondition) as caught:
        await agent.open(hello={"protocol": theirs}, former=False)
    assert caught.value.reason == "PROTOCOL_VERSION"
    assert caught.value.metadata == {"least": str(least), "greatest": str(greatest)}


async def _goodbye(agent: Agent) -> tuple[list[str], str]:
    """Where an agent is sent, and the reason that it is told last; it is that with which its link ends."""
    addresses: list[str] = []
    while (message := await agent.next()).WhichOneof("message") != "goodbye":
        addresses += message.redirect.addresses
    assert (await agent.ended()).reason == message.goodbye.reason
    return addresses, message.goodbye.reason


async def test_a_server_that_stops_says_goodbye(plane: Control) -> None:
    """And names the addresses of others, where agents may dial these."""
    one = await plane.new_agent("node-a", await plane.token("NODE", "node-a")).open(former=False)
    two = await plane.agent("node-b", gpu("GPU-9"))
    plane.plane.agents.stop(["192.0.2.1:50051"])
    plane.plane.pipeline.stop()

    assert await _goodbye(one) == (["192.0.2.1:50051"], "SERVER_STOPPING")
    assert (await two.ended()).reason == "SERVER_STOPPING"


async def test_agents_are_spread_over_the_others(plane: Control) -> None:
    """Each address is the first one of as many agents; all are told all."""
    agents = [
        await plane.new_agent(f"node-{number}", await plane.token("NODE", f"node-{number}")).open(
            [gpu(f"GPU-{number}")], former=False
        )
        for number in range(6)
    ]
    others = ["192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1"]
    plane.plane.agents.stop(others)
    plane.plane.pipeline.stop()
    told = [(await _goodbye(agent))[0] for agent in agents]

    assert Counter(each[0] for each in told) == dict.fromkeys(others, 2)
    assert all(sorted(each) == others for each in told)


async def test_a_link_that_is_replaced_is_told_so(plane: Control) -> None:
    """Before it is closed."""
    older = await plane.new_agent("node-a", await plane.token("NODE", "node-a")).open(former=False)
    plane.clock.pass_s(8)
    await plane.new_agent("node-a", older.token).open(hello={"incarnation": "two"}, former=False)

    assert await _goodbye(older) == ([], "LINK_REPLACED")


async def test_an_agent_says_goodbye(plane: Control) -> None:
    """The log says that the link ended in order."""
    agent = await plane.new_agent("node-a", await plane.token("NODE", "node-a")).open(former=False)
    with capture_logs() as logs:
        await agent.say(goodbye=agent_pb2.Goodbye(reason="AGENT_STOPPING"))
        await agent.settled()

    [line] = [each for each in logs if each["event"] == "link_goodbye"]
    assert (line["node"], line["reason"]) == ("node-a", "AGENT_STOPPING")
