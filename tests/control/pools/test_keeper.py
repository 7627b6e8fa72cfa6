"""Pools: instances are started ahead, handed over in one transaction, and nobody's session until then.

Covers `control.services.pools.service`, `control.services.pools.ahead` and `store.pools`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from footlights.v1 import application_pb2, node_pb2, pool_pb2, profile_pb2, session_pb2
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct

from footlights import errors
from footlights.store import Transaction, pools
from footlights.store.launches import launch_rows
from tests.control.harness import GIB, Agent, Control, Report, gpu, seconds, version

AHEAD = {"starts_ahead": True}
State = session_pb2.Session.State


async def set_pool(plane: Control, **members: Any) -> pool_pb2.Pool:
    """Define a pool of the application ``fake``, by default of one instance."""
    known: dict[str, Any] = {"pool": "warm", "application": "fake"}
    if "wait_goal" not in members:
        known["size"] = 1
    request = pool_pb2.SetPoolRequest(pool=pool_pb2.Pool(**(known | members)))
    answer: pool_pb2.Pool = await plane.call("PoolService.SetPool", request)
    return answer


async def get_pool(plane: Control, name: str = "warm") -> pool_pb2.Pool:
    """Return a pool as it is."""
    answer: pool_pb2.Pool = await plane.call("PoolService.GetPool", pool_pb2.GetPoolRequest(pool=name))
    return answer


async def keep(plane: Control) -> None:
    """Have placement and the pools make one pass."""
    plane.clock.pass_s(2)
    await plane.place()


async def warm_ids(plane: Control) -> list[str]:
    """Return the ids of the rows of warm instances that are wanted."""
    living = await plane.store.read(pools.instances)
    return [each.session_id for each in living if each.intent == "RUN"]


async def warm(plane: Control, agent: Agent, count: int = 1) -> list[str]:
    """Make passes until so many instances run, and have them be ready; return their ids."""
    await keep(plane)
    found = await warm_ids(plane)
    assert len(found) == count
    for session_id in found:
        await agent.ready(session_id)
    return found


async def taken_up(agent: Agent, session_id: str) -> Any:
    """Wait until a session is handed over to the agent, and have it taken up."""
    while not agent.assigned or not any(
        each.session_id == session_id and each.handed_over for each in agent.assigned.values()
    ):
        await agent.until("assignment")
    [assignment] = [each for each in agent.assigned.values() if each.session_id == session_id]
    await agent.say(
        report=Report(
            launch_id=assignment.launch_id,
            epoch=assignment.epoch,
            state=Report.READY,
            taken_up=True,
            signal_port=20000,
            media_port=20001,
            http_port=20002,
            steps=[Report.Step(stage="APPLICATION_READY", age=seconds(0))],
        )
    )
    return assignment


async def create_warm(plane: Control, agent: Agent, **members: Any) -> session_pb2.Session:
    """Create a session that takes a warm instance, while the agent takes it up."""
    making = asyncio.create_task(plane.create(**members))
    await taken_up(agent, (await warm_ids_of_agent(agent))[0])
    return await making


async def warm_ids_of_agent(agent: Agent) -> Sequence[str]:
    """Return the ids under which the agent knows what it runs ahead."""
    return [each.session_id for each in agent.assigned.values() if each.ahead]


@pytest.fixture
async def agent(plane: Control) -> Agent:
    """One node with four slots, and the application."""
    await plane.apply()
    return await plane.agent("node-a", gpu(slots=4), facts=AHEAD)


async def test_there_are_only_so_many_pools(plane: Control, agent: Agent) -> None:
    """One too many is refused; those that there are can be set again."""
    now = plane.clock()
    names = [f"pool-{number}" for number in range(pools.MOST_POOLS)]

    def fill(tx: Transaction) -> None:
        for name in names:
            pools.put(tx, name, "fake", b"", now=now)

    await plane.store.write(fill)
    with pytest.raises(errors.FailedPrecondition) as refused:
        await set_pool(plane)
    await set_pool(plane, pool=names[0])

    assert refused.value.reason == errors.Reason.TOO_MANY_POOLS


async def test_a_session_takes_a_warm_instance_and_is_ready_in_the_answer(plane: Control, agent: Agent) -> None:
    """The answer to the creation is READY: the id, the launch and the lease are those of the warm instance."""
    await set_pool(plane)
    [instance] = await warm(plane, agent)
    before = await plane.store.read(launch_rows.live_leases)

    session = await create_warm(plane, agent, username="ann")

    assert session.state == State.READY
    assert session.session_id == instance
    assert (session.username, session.started_from_pool, session.launch_count) == ("ann", "warm", 1)
    assert session.ready_time.ToDatetime() >= session.created_time.ToDatetime()
    assert [(each.session_id, each.slot) for each in before] == [
        (each.session_id, each.slot) for each in await plane.store.read(launch_rows.live_leases)
    ]


async def test_a_warm_instance_is_nobodys_session(plane: Control, agent: Agent) -> None:
    """Lists, counts, watches, gets and ends of sessions do not know it; it holds a slot, and the pool shows it."""
    await set_pool(plane)
    [instance] = await warm(plane, agent)

    listed = (await plane.rest("GET", "/v1/sessions?include_ended=true")).json()
    assert (listed["items"], listed["count"]) == ([], 0)
    found = (await plane.rest("GET", f"/v1/sessions?search={instance[:8]}")).json()
    assert found["items"] == []
    for call in ("GetSession", "TerminateSession", "ConnectSession"):
        request = getattr(session_pb2, f"{call}Request")(session_id=instance)
        with pytest.raises(errors.NotFound):
            await plane.call(f"StreamingService.{call}", request)
    await plane.reap()
    await keep(plane)
    metrics = (await plane.rest("GET", "/metrics")).text
    assert not [line for line in metrics.splitlines() if line.startswith("footlights_sessions{")]
    assert 'footlights_pool_instances{pool="warm",state="ready"} 1.0' in metrics
    shown = await get_pool(plane)
    assert (shown.wanted_count, shown.ready_count, shown.resolved_version) == (1, 1, "1.0.0")
    assert [each.node for each in shown.instances] == ["node-a"]


async def test_a_taken_instance_is_replaced(plane: Control, agent: Agent) -> None:
    """The next session finds another one."""
    await set_pool(plane)
    await warm(plane, agent)
    first = await create_warm(plane, agent)

    await keep(plane)

    [second] = await warm_ids(plane)
    assert second != first.session_id


async def test_one_instance_is_taken_by_one_session(plane: Control, agent: Agent) -> None:
    """Of several that are created at once; the others are started as without a pool."""
    await set_pool(plane)
    [instance] = await warm(plane, agent)

    making = [asyncio.create_task(plane.create(username=f"user-{number}")) for number in range(4)]
    await taken_up(agent, instance)
    made = [await each for each in making]

    assert len({each.session_id for each in made}) == 4
    assert [each.started_from_pool for each in made if each.session_id == instance] == ["warm"]
    assert sum(bool(each.started_from_pool) for each in made) == 1


async def test_an_instance_that_starts_is_taken_too(plane: Control, agent: Agent) -> None:
    """It is ahead of one that would be started now; the session is ready when it is."""
    await set_pool(plane)
    await keep(plane)
    [instance] = await warm_ids(plane)

    session = await plane.create()
    assert (session.session_id, session.state) == (instance, State.STARTING)

    await agent.ready(instance)
    assert (await plane.get(instance)).state == State.STARTING, "not before its agent has taken it up"
    await taken_up(agent, instance)
    await agent.settled()
    assert (await plane.get(instance)).state == State.READY


async def test_a_repeated_request_finds_the_session_that_took_the_instance(plane: Control, agent: Agent) -> None:
    """The idempotency key names the session that was made, not the id that another would have had."""
    await set_pool(plane)
    await warm(plane, agent)
    session = await create_warm(plane, agent, request_id="one")

    again = await plane.create(request_id="one")

    assert again.session_id == session.session_id


@pytest.mark.parametrize(
    ("method", "arguments", "takes"),
    [
        ("SESSION_FILE", {}, True),
        ("SESSION_FILE", {"usd_stage_uri": ""}, True),
        ("SESSION_FILE", {"usd_stage_uri": "/srv/b.usd"}, False),
        ("SESSION_FILE", {"quality": 3}, False),
        ("MESSAGE", {"usd_stage_uri": "/srv/b.usd"}, True),
        ("MESSAGE", {"quality": 3}, False),
        ("HTTP", {"usd_stage_uri": "/srv/b.usd"}, True),
        ("HTTP", {"usd_stage_uri": "https://assets.example.com/b.usd?signature=1"}, False),
        ("HTTP", {"password": "x"}, False),
    ],
)
async def test_who_may_take_an_instance_follows_from_what_the_application_opens(
    plane: Control, method: str, arguments: dict[str, Any], takes: bool
) -> None:
    """Without an opening only what it was started with; a secret reaches no application that runs already."""
    declared = [
        application_pb2.Argument(name="quality", type=application_pb2.Argument.INTEGER),
        application_pb2.Argument(name="password", type=application_pb2.Argument.STRING, secret=True),
    ]
    declared[0].default_value.number_value = 1
    delivery = application_pb2.StageDelivery(method=application_pb2.StageDelivery.Method.Value(method))
    if method == "HTTP":
        delivery.path = "/open"
    roots = ["/srv", "https://assets.example.com/"]
    made = version("2.0.0", arguments=declared, stage_delivery=delivery, allowed_stage_roots=roots)
    await plane.apply(made)
    agent = await plane.agent("node-a", gpu(slots=4), facts=AHEAD, former=False)
    await set_pool(plane)
    await keep(plane)
    [instance] = await warm_ids(plane)

    session = await plane.create(application_arguments=ParseDict(arguments, Struct()))

    assert (session.session_id == instance) is takes
    if takes:
        given = await agent.assignment(instance)
        while not given.handed_over:
            await agent.until("assignment")
            given = await agent.assignment(instance)
        assert given.usd_stage_uri == arguments.get("usd_stage_uri", "")


async def test_timers_of_the_session_begin_when_it_is_taken_up(plane: Control, agent: Agent) -> None:
    """An instance waits for longer than its limits allow a session to; what is reported of that time ends nobody."""
    await plane.apply(version("2.0.0", limits=application_pb2.Limits(never_connected_timeout=seconds(60))))
    await set_pool(plane)
    [instance] = await warm(plane, agent, 1)
    [assignment] = [each for each in agent.assigned.values() if each.session_id == instance]
    assert assignment.ahead
    old = {"ready_for": seconds(900), "idle_for": seconds(900), "viewers": 0}
    await agent.report(assignment, "READY", **old)
    assert await warm_ids(plane) == [instance]

    making = asyncio.create_task(plane.create())
    while not agent.assigned[assignment.launch_id].handed_over:
        await agent.until("assignment")
    await agent.report(assignment, "READY", **old)
    assert (await plane.get(instance)).state == State.STARTING
    await taken_up(agent, instance)

    assert (await making).state == State.READY


async def test_a_waiting_session_gets_the_slot_of_an_instance(plane: Control) -> None:
    """The instance that it cannot use is ended, the session is placed there, and no other one is started meanwhile."""
    await plane.apply()
    await plane.apply(application="other")
    agent = await plane.agent("node-a", gpu(slots=2), facts=AHEAD)
    await set_pool(plane, size=2)
    first, second = await warm(plane, agent, 2)

    waiting = await plane.create(application="other")
    assert waiting.state == State.PENDING
    await keep(plane)
    [left] = await warm_ids(plane)
    await keep(plane)
    assert await warm_ids(plane) == [left], "one slot is enough for one session"
    assert "No slot is free" in (await get_pool(plane)).status_message
    [gone] = {first, second} - {left}
    await agent.report(await agent.assignment(gone, "STOPPED"), "EXITED")
    await keep(plane)

    assert (await plane.get(waiting.session_id)).state == State.STARTING


@pytest.mark.parametrize("how", ["CordonNode", "DrainNode"])
async def test_instances_go_first_from_a_node_that_is_taken_out_of_use(plane: Control, agent: Agent, how: str) -> None:
    """They end at once, while sessions stay; another one is started elsewhere."""
    await set_pool(plane)
    [instance] = await warm(plane, agent)
    session = await create_warm(plane, agent)
    await keep(plane)
    [instance] = await warm_ids(plane)
    request = node_pb2.CordonNodeRequest if how == "CordonNode" else node_pb2.DrainNodeRequest
    await plane.call(f"NodeService.{how}", request(node="node-a"))

    await keep(plane)

    assert await warm_ids(plane) == []
    assert (await plane.get(session.session_id)).state == State.READY
    await agent.assignment(instance, "STOPPED")
    await plane.agent("node-b", gpu("GPU-1", slots=4), facts=AHEAD)
    await keep(plane)
    [other] = await plane.store.read(lambda tx: [each for each in pools.instances(tx) if each.intent == "RUN"])
    assert other.node == "node-b"


async def test_instances_follow_the_release_forward_and_back(plane: Control, agent: Agent) -> None:
    """After a change of the release, and after a rollback, those of the version before are replaced."""
    await set_pool(plane)
    [first] = await warm(plane, agent)
    for number in ("2.0.0", "1.0.0"):
        await plane.apply(version(number), releases={"default": number})
        await keep(plane)
        living = await plane.store.read(pools.instances)
        assert [each.application_version for each in living if each.intent == "RUN"] == [number]
        assert first not in [each.session_id for each in living if each.intent == "RUN"]


async def test_a_profile_has_its_own_pool(plane: Control, agent: Agent) -> None:
    """An instance is for sessions with its profile alone, and is replaced where the profile's needs change."""
    profile = profile_pb2.Profile(profile="big", needs=application_pb2.Needs(slots=2))
    await plane.call("ProfileService.SetProfile", profile_pb2.SetProfileRequest(profile=profile))
    await set_pool(plane, profile="big")
    [instance] = await warm(plane, agent)

    assert (await plane.create()).session_id != instance
    profile.needs.min_memory_bytes = GIB
    await plane.call("ProfileService.SetProfile", profile_pb2.SetProfileRequest(profile=profile))
    await keep(plane)
    assert instance not in await warm_ids(plane)


async def test_an_instance_has_what_its_profile_gives(plane: Control, agent: Agent) -> None:
    """It is started with its environment, and replaced once that changes."""
    profile = profile_pb2.Profile(profile="fast", environment={"MODE": "fast"})
    await plane.call("ProfileService.SetProfile", profile_pb2.SetProfileRequest(profile=profile))
    await set_pool(plane, profile="fast")
    [instance] = await warm(plane, agent)
    [told] = [each for each in agent.assigned.values() if each.session_id == instance]

    profile.environment["MODE"] = "slow"
    await plane.call("ProfileService.SetProfile", profile_pb2.SetProfileRequest(profile=profile))
    await keep(plane)
    after = await warm_ids(plane)

    assert told.version.environment["MODE"] == "fast"
    assert instance not in after


async def test_an_instance_is_replaced_where_a_secret_has_to_be_given_as_well(plane: Control, agent: Agent) -> None:
    """What the profile's variables and arguments are is a part of its shape, also where nothing starts without it."""
    password = application_pb2.Argument(
        name="password", type=application_pb2.Argument.STRING, secret=True, required=True
    )
    await plane.apply(version("2.0.0", arguments=[password]))
    profile = profile_pb2.Profile(profile="nucleus", secrets={"password": "hush"}, environment={"MODE": "fast"})
    await plane.call("ProfileService.SetProfile", profile_pb2.SetProfileRequest(profile=profile))
    await set_pool(plane, profile="nucleus")
    [instance] = await warm(plane, agent)

    profile.environment["MODE"] = "slow"
    await plane.call("ProfileService.SetProfile", profile_pb2.SetProfileRequest(profile=profile))
    session = await plane.create(profile="nucleus")
    await keep(plane)

    assert session.session_id != instance
    assert instance not in await warm_ids(plane)


async def test_secrets_of_a_profile_are_in_its_instances(plane: Control, agent: Agent) -> None:
    """They are sent with the launch; a session with that profile takes it, unless it has a secret of its own."""
    password = application_pb2.Argument(name="password", type=application_pb2.Argument.STRING, secret=True)
    await plane.apply(version("2.0.0", arguments=[password]))
    profile = profile_pb2.Profile(profile="nucleus", secrets={"password": "hush"})
    await plane.call("ProfileService.SetProfile", profile_pb2.SetProfileRequest(profile=profile))
    await set_pool(plane, profile="nucleus")
    await keep(plane)
    [instance] = await warm_ids(plane)
    assert b"hush" in (await agent.assignment(instance)).secrets

    own = await plane.create(profile="nucleus", application_arguments=ParseDict({"password": "mine"}, Struct()))
    assert own.session_id != instance
    assert (await plane.create(profile="nucleus")).session_id == instance
    assert "hush" not in str((await plane.rest("GET", "/v1/pools/warm")).json())


async def test_a_pool_shrinks_and_is_deleted(plane: Control, agent: Agent) -> None:
    """Size 0 pauses it; deleted, its instances end, and sessions that took one stay."""
    await set_pool(plane, size=2)
    await warm(plane, agent, 2)
    session = await create_warm(plane, agent)
    await set_pool(plane, size=0)
    await keep(plane)
    assert await warm_ids(plane) == []

    await set_pool(plane, size=1)
    await keep(plane)
    assert len(await warm_ids(plane)) == 1
    await plane.call("PoolService.DeletePool", pool_pb2.DeletePoolRequest(pool="warm"))
    await keep(plane)
    assert await warm_ids(plane) == []
    assert (await plane.get(session.session_id)).state == State.READY


async def test_failures_back_off_and_say_why(plane: Control, agent: Agent) -> None:
    """After three failures nothing is started for a while; then one more is tried. No failed one comes to a queue."""
    await set_pool(plane)
    for _ in range(3):
        await keep(plane)
        [instance] = await warm_ids(plane)
        failed = await agent.assignment(instance)
        await agent.report(failed, "FAILED", reason="EXITED_EARLY", message="No licence.")
    await keep(plane)
    assert await warm_ids(plane) == []
    message = (await get_pool(plane)).status_message
    assert "3 instances failed" in message
    assert "No licence." in message

    plane.clock.pass_s(60)
    await agent.settled()
    await keep(plane)
    assert len(await warm_ids(plane)) == 1


@pytest.mark.parametrize("how", ["refuses", "has crashed"])
async def test_a_session_whose_instance_fails_to_take_it_up_is_started_from_the_beginning(
    plane: Control, agent: Agent, how: str
) -> None:
    """Its user waits as without a pool, and sees no failure."""
    await set_pool(plane)
    [instance] = await warm(plane, agent)
    making = asyncio.create_task(plane.create())
    assignment = await agent.assignment(instance)
    while not assignment.handed_over:
        await agent.until("assignment")
        assignment = await agent.assignment(instance)
    if how == "refuses":
        await agent.report(assignment, "FAILED", reason="HAND_OVER_FAILED", message="It did not open the stage.")
    else:
        await agent.report(assignment, "EXITED", exit_code=139)
    session = await making

    await keep(plane)

    again = await plane.get(session.session_id)
    assert again.state == State.STARTING
    assert again.launch_count == 2


async def test_an_agent_of_the_release_before_starts_nothing_ahead(plane: Control) -> None:
    """It would run the timers of a session; the pool says so."""
    await plane.apply()
    await plane.agent("node-a", gpu(slots=4))
    await set_pool(plane)
    await keep(plane)
    assert await warm_ids(plane) == []
    assert "No slot is free" in (await get_pool(plane)).status_message


async def test_an_instance_ends_where_its_agent_goes_back_to_the_release_before(plane: Control, agent: Agent) -> None:
    """Such an agent never takes a session up, so who took the instance would never be ready."""
    await set_pool(plane)
    await warm(plane, agent)
    [known] = agent.assigned.values()
    await agent.close()
    await plane.unlinked()
    running = Report(launch_id=known.launch_id, epoch=known.epoch, state=Report.READY)
    await plane.agent("node-a", gpu(slots=4), launches=[running])

    await keep(plane)

    assert await warm_ids(plane) == []
    assert not (await plane.create()).started_from_pool


@pytest.mark.parametrize(("limits", "span"), [({"unresponsive_timeout": seconds(30)}, 30), ({}, 120)])
async def test_an_instance_that_does_not_answer_is_given_to_nobody(
    plane: Control, agent: Agent, limits: dict[str, Any], span: int
) -> None:
    """The limit on silence is the application's too; it ends, and another one is started."""
    await plane.apply(version("2.0.0", limits=application_pb2.Limits(**limits)))
    await set_pool(plane)
    [instance] = await warm(plane, agent)
    assignment = await agent.assignment(instance)

    await agent.report(assignment, "READY", ready_for=seconds(900), unanswered_for=seconds(span - 1))
    assert await warm_ids(plane) == [instance]
    await agent.report(assignment, "READY", ready_for=seconds(900), unanswered_for=seconds(span))

    assert await warm_ids(plane) == []
    await keep(plane)
    [other] = await warm_ids(plane)
    assert other != instance


async def test_a_pool_that_cannot_be_is_refused_by_name(plane: Control, agent: Agent) -> None:
    """Each refusal names the field; nothing is written."""
    required = application_pb2.Argument(name="scene", type=application_pb2.Argument.STRING, required=True)
    await plane.apply(version("3.0.0", arguments=[required]), releases={"needy": "3.0.0"})
    for members, wanted in (
        ({"size": None}, "VALUE_CONFLICT"),
        ({"wait_goal": seconds(5), "size": 1}, "VALUE_CONFLICT"),
        ({"wait_goal": seconds(5), "min_size": 3, "max_size": 2}, "VALUE_CONFLICT"),
        ({"min_size": 1}, "VALUE_CONFLICT"),
        ({"application": "nothing"}, "APPLICATION_NOT_FOUND"),
        ({"application_version": "9.9.9"}, "VERSION_NOT_FOUND"),
        ({"profile": "nothing"}, "PROFILE_NOT_FOUND"),
        ({"application_version": "needy"}, "NOT_STARTED_AHEAD"),
    ):
        with pytest.raises(errors.Error) as refused:
            await set_pool(plane, **members)
        assert refused.value.reason == wanted, members
    listed = await plane.call("PoolService.ListPools", pool_pb2.ListPoolsRequest())
    assert list(listed.items) == []


async def test_a_wait_goal_makes_as_many_as_come_while_one_starts(plane: Control, agent: Agent) -> None:
    """Sessions come, starts take longer than the goal: the pool grows from its least size, up to its greatest."""
    await plane.agent("node-b", gpu("GPU-1", slots=64), facts=AHEAD)
    for _ in range(12):
        created = await plane.create()
        await plane.terminate(created.session_id)
    await set_pool(plane, wait_goal=seconds(1), min_size=1, max_size=3)
    await keep(plane)
    first = (await get_pool(plane)).wanted_count
    assert first == 1, "nothing was measured yet"
    [instance] = await warm_ids(plane)
    [launch] = [each for each in await plane.store.read(pools.instances) if each.session_id == instance]
    holder = next(each for each in plane.agents if each.node == launch.node)
    assignment = await holder.assignment(instance)
    plane.clock.pass_s(300)
    await holder.report(
        assignment, "READY", steps=[Report.Step(stage="APPLICATION_READY", age=seconds(0))], signal_port=20000
    )
    plane.clock.pass_s(60)
    await keep(plane)
    assert (await get_pool(plane)).wanted_count == 3


async def test_a_node_and_a_version_do_not_count_it_as_a_session(plane: Control, agent: Agent) -> None:
    """The node shows no session; a version whose instances live is not deleted, and the pool is named as why."""
    await set_pool(plane, application_version="1.0.0")
    await warm(plane, agent)

    assert (await plane.rest("GET", "/v1/nodes/node-a")).json()["session_count"] == 0
    await plane.apply(version("2.0.0"))
    with pytest.raises(errors.FailedPrecondition, match="a warm instance of a pool") as refused:
        await plane.call(
            "ApplicationService.DeleteVersion",
            application_pb2.DeleteVersionRequest(application="fake", version="1.0.0"),
        )
    assert refused.value.reason == "SESSIONS_ALIVE"
    await agent.close()
    await plane.unlinked()
    forgotten = await plane.call("NodeService.ForgetNode", node_pb2.ForgetNodeRequest(node="node-a"))
    assert forgotten.ended_session_count == 0
