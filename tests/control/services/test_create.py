"""What a session is made of: idempotency, secrets, profiles, releases.

Covers ``sessions.create``, ``sessions.resolve`` and ``sessions.request_checks``.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from footlights.agent.v1 import agent_pb2
from footlights.v1 import application_pb2, node_pb2, profile_pb2, session_pb2
from google.protobuf.struct_pb2 import Struct

from footlights import errors
from footlights.logging import set_up_logging
from footlights.store.sessions import session_rows
from tests.control.harness import Control, State, control, gpu, problem, seconds, version

Argument = application_pb2.Argument
Limits = application_pb2.Limits
Needs = application_pb2.Needs


def _public(told: agent_pb2.Assignment) -> tuple[application_pb2.Needs, application_pb2.Limits]:
    """The needs and limits of an assignment as the public messages that have the same bytes."""
    return Needs.FromString(told.needs.SerializeToString()), Limits.FromString(told.limits.SerializeToString())


async def _all(plane: Control) -> int:
    return int((await plane.rest("GET", "/stream")).json()["count"])


# Idempotency


async def test_the_same_request_twice_is_one_session(plane: Control) -> None:
    """Also at once, also later, also after the release was pointed elsewhere: within 24 hours."""
    first, second = await asyncio.gather(plane.create(request_id="k"), plane.create(request_id="k"))
    await plane.apply(version("2.0.0"))
    plane.clock.pass_s(86_000)
    third = await plane.create(request_id="k")

    assert first.session_id == second.session_id == third.session_id
    assert third.application_version == "1.0.0"
    assert first.request_id == "k"
    assert await _all(plane) == 1

    plane.clock.pass_s(1000)
    await plane.reap()
    assert (await plane.create(request_id="k")).session_id != first.session_id


async def test_a_retry_sees_the_session_as_it_is_now(plane: Control) -> None:
    """The answer is the session, not a copy of the first answer."""
    agent = await plane.agent()
    made = await plane.running(agent, request_id="k")

    again = await plane.rest("POST", "/stream", json={"application": "fake", "request_id": "k"})

    assert again.status_code == 200
    assert again.json()["session_id"] == made.session_id
    assert again.json()["state"] == "READY"


async def test_the_same_key_with_another_body_is_refused(plane: Control) -> None:
    """409 over REST, with the reason; what stands for the same default is the same body."""
    made = await plane.create(request_id="k")

    published = Struct()
    published.update({"usd_stage_uri": "", "nucleus_connection_config": []})
    same = await plane.create(request_id="k", application_version="default", application_arguments=published)
    other = await plane.rest("POST", "/stream", json={"application": "fake", "request_id": "k", "priority": 1})

    assert same.session_id == made.session_id
    assert other.status_code == 409
    assert problem(other)["reason"] == "REQUEST_ID_REUSED"
    assert "'k' was used for another request" in problem(other)["message"]
    assert await _all(plane) == 1


async def test_the_header_is_another_way_to_send_the_key(plane: Control) -> None:
    """Both and different is an error; both and equal is one; REST and gRPC share the keys."""
    by_header = await plane.rest("POST", "/stream", json={"application": "fake"}, headers={"Idempotency-Key": "h"})
    by_field = await plane.create(request_id="h")
    by_metadata = await plane.call(
        "StreamingService.CreateSession", session_pb2.CreateSessionRequest(application="fake"), idempotency_key="h"
    )
    both = await plane.rest(
        "POST", "/stream", json={"application": "fake", "request_id": "h"}, headers={"Idempotency-Key": "h"}
    )
    different = await plane.rest(
        "POST", "/stream", json={"application": "fake", "request_id": "a"}, headers={"Idempotency-Key": "b"}
    )
    long = await plane.rest("POST", "/stream", json={"application": "fake"}, headers={"Idempotency-Key": "x" * 129})

    ids = {by_header.json()["session_id"], by_field.session_id, by_metadata.session_id, both.json()["session_id"]}
    assert len(ids) == 1
    assert different.status_code == 400
    assert problem(different)["field"] == "request_id"
    assert 'request_id is "a", but Idempotency-Key has "b"' in problem(different)["message"]
    assert problem(long)["field"] == "request_id"


async def test_keys_belong_to_their_caller(plane: Control) -> None:
    """Two callers with one key have two sessions."""
    ann, bob = await plane.token(subject="ann"), await plane.token(subject="bob")

    first, second = await plane.create(ann, request_id="k"), await plane.create(bob, request_id="k")

    assert first.session_id != second.session_id


async def test_a_full_queue_refuses_new_sessions_and_still_finds_old_ones(plane: Control) -> None:
    """429 with Retry-After; an idempotent retry of what was accepted is answered."""
    object.__setattr__(plane.settings, "queue_limit", 3)
    made = await plane.create(request_id="k")
    await plane.create()

    full = await plane.rest("POST", "/stream", json={"application": "fake"})

    assert full.status_code == 429
    assert problem(full)["reason"] == "QUEUE_FULL"
    assert 'footlights_calls_shed_total{reason="QUEUE"} 1.0' in (await plane.rest("GET", "/metrics")).text
    assert full.headers["retry-after"] == "60"
    assert (await plane.create(request_id="k")).session_id == made.session_id


GONE: dict[str, Callable[[Control], Awaitable[object]]] = {
    "the profile is deleted": lambda plane: plane.rest("DELETE", "/v1/profiles/small"),
    "the profile is for something else": lambda plane: plane.rest(
        "PUT", "/v1/profiles/small", json={"matches": [{"application": "other"}]}
    ),
    "the profile allows less": lambda plane: plane.rest(
        "PUT", "/v1/profiles/small", json={"limits": {"max_duration": "1s"}}
    ),
    "the application is deleted": lambda plane: plane.rest("DELETE", "/v1/applications/fake"),
}


@pytest.mark.parametrize("what", GONE)
async def test_a_retry_finds_its_session_when_what_it_names_is_gone(plane: Control, what: str) -> None:
    """It was created: the refusals that a new one would get are for new ones, validations and other requests."""
    await _profile(plane)
    asked = {"application": "fake", "profile": "small", "limits": {"max_duration": "60s"}}
    headers = {"Idempotency-Key": "k"}
    made = await plane.rest("POST", "/v1/sessions", json=asked, headers=headers)
    await plane.terminate(made.json()["session_id"])
    await GONE[what](plane)

    again = await plane.rest("POST", "/v1/sessions", json=asked, headers=headers)
    new = await plane.rest("POST", "/v1/sessions", json=asked, headers={"Idempotency-Key": "new"})
    tried = await plane.rest("POST", "/v1/sessions", json={**asked, "validate_only": True}, headers=headers)
    other = await plane.rest("POST", "/v1/sessions", json={**asked, "priority": -1}, headers=headers)

    assert again.json()["session_id"] == made.json()["session_id"]
    assert again.headers["idempotency-replayed"] == "true"
    assert new.status_code in (400, 404)
    assert problem(tried) == problem(new)
    assert problem(other)["reason"] == "REQUEST_ID_REUSED"


# Secrets

_SECRET = "hunter2-is-nobodys-business"
_NUCLEUS = {"url": "omniverse://nucleus.example.com", "token": "nucleus-secret-word"}


@contextmanager
def logged() -> Iterator[io.StringIO]:
    """Collect everything that is logged, as it would be printed."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    set_up_logging("json", "debug")
    stream = io.StringIO()
    handler = root.handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(stream)
    try:
        yield stream
    finally:
        root.handlers[:] = before
        root.setLevel(level)


async def test_a_secret_is_seen_by_its_application_alone(plane: Control) -> None:
    """Not in answers, lists, watches, errors, assignments' arguments, logs or the database: sealed for the agent."""
    secret = version("2.0.0", arguments=[Argument(name="password", type=Argument.STRING, secret=True, max_length=40)])
    await plane.apply(secret)
    agent = await plane.agent()
    arguments = {"password": _SECRET, "nucleus_connection_config": [_NUCLEUS]}
    with logged() as log:
        answer = await plane.rest("POST", "/stream", json={"application": "fake", "application_arguments": arguments})
        too_long = await plane.rest(
            "POST", "/stream", json={"application": "fake", "application_arguments": {"password": _SECRET * 3}}
        )
        session_id = answer.json()["session_id"]
        await plane.place()
        assignment = await agent.ready(session_id)
        texts = [
            answer.text,
            too_long.text,
            (await plane.rest("GET", f"/stream/{session_id}")).text,
            (await plane.rest("GET", "/stream")).text,
            (await plane.rest("GET", "/nodes")).text,
            str(assignment.arguments),
            log.getvalue(),
        ]
        async for watched in plane.stream(
            "StreamingService.WatchSession", session_pb2.WatchSessionRequest(session_id=session_id)
        ):
            texts.append(str(watched))
            break

    shown = answer.json()["application_arguments"]
    assert shown["password"] == "[redacted]"
    assert shown["nucleus_connection_config"] == [dict.fromkeys(_NUCLEUS, "[redacted]")]
    assert problem(too_long)["field"] == "application_arguments.password"
    assert json.loads(assignment.secrets) == arguments
    assert dict(assignment.arguments) == {}
    database = b"".join(path.read_bytes() for path in plane.settings.data_dir.glob("footlights.db*"))
    for word in (_SECRET, _NUCLEUS["token"], plane.admin.rpartition("_")[2]):
        assert all(word not in text for text in texts)
        assert word.encode() not in database
    assert "session_created" in log.getvalue()


async def test_secrets_are_taken_back_when_a_launch_is_to_stop(plane: Control) -> None:
    """What ends needs none, and an ended session has none."""
    secret = version("2.0.0", arguments=[Argument(name="password", type=Argument.STRING, secret=True)])
    await plane.apply(secret)
    agent = await plane.agent()
    given = Struct()
    given.update({"password": _SECRET})
    made = await plane.running(agent, application_arguments=given)

    await plane.terminate(made.session_id)
    stopping = await agent.assignment(made.session_id, "STOPPED")

    assert stopping.secrets == b""


async def test_plain_arguments_and_the_stage_reach_the_agent(plane: Control) -> None:
    """Converted, declared ones only; an empty stage opens the version's own."""
    declared = version(
        "2.0.0",
        arguments=[Argument(name="count", type=Argument.INTEGER)],
        default_usd_stage_uri="/srv/stages/default.usda",
        allowed_stage_roots=["/srv/stages"],
    )
    await plane.apply(declared)
    agent = await plane.agent("node-a", *_gpus(2))
    given = Struct()
    given.update({"count": 5, "usd_stage_uri": "/srv/stages/a.usda"})

    first = await plane.create(application_arguments=given)
    second = await plane.create()
    await plane.place()

    told = await agent.assignment(first.session_id)
    assert dict(told.arguments) == {"count": 5}
    assert told.usd_stage_uri == "/srv/stages/a.usda"
    assert (await agent.assignment(second.session_id)).usd_stage_uri == "/srv/stages/default.usda"
    assert told.version.version == "2.0.0"
    assert told.device_uuid
    given.update({"usd_stage_uri": "/etc/passwd"})
    with pytest.raises(errors.InvalidArgument) as caught:
        await plane.create(application_arguments=given)
    assert caught.value.field == "application_arguments.usd_stage_uri"


def _gpus(count: int) -> list[Any]:
    return [gpu(f"GPU-{number}") for number in range(count)]


# Releases and versions


async def test_a_release_is_resolved_when_the_session_is_created(plane: Control) -> None:
    """Pointing it elsewhere changes sessions to come, none that is."""
    before = await plane.create()
    await plane.apply(version("2.0.0"), releases={"default": "2.0.0", "stable": "1.0.0"})
    after = await plane.create()

    assert (before.application_version, after.application_version) == ("1.0.0", "2.0.0")
    assert (await plane.create(application_version="stable")).application_version == "1.0.0"
    assert (await plane.create(application_version="1.0.0")).application_version == "1.0.0"
    assert (await plane.get(before.session_id)).application_version == "1.0.0"


async def test_an_application_without_a_release_says_what_it_has(plane: Control) -> None:
    """So that a caller can name a version."""
    await plane.apply(version(), application="bare", releases={})

    with pytest.raises(errors.NotFound, match=r"bare has no version or release 'default'. Known: 1.0.0"):
        await plane.create(application="bare")


# Limits and profiles


async def _profile(plane: Control, name: str = "small", **members: Any) -> None:
    profile = profile_pb2.Profile(profile=name, **members)
    await plane.call("ProfileService.SetProfile", profile_pb2.SetProfileRequest(profile=profile))


async def test_a_session_may_ask_for_less_than_its_version_allows_and_not_for_more(plane: Control) -> None:
    """Limits are lowered by callers, never raised."""
    await plane.apply(version("2.0.0", limits=Limits(max_duration=seconds(600), idle_timeout=seconds(60))))

    assert (await plane.create()).max_duration == seconds(600)
    assert (await plane.create(max_duration=seconds(300))).max_duration == seconds(300)
    assert (await plane.create(max_duration=seconds(600))).max_duration == seconds(600)
    with pytest.raises(errors.InvalidArgument, match=r"601s is more than the 600s") as caught:
        await plane.create(max_duration=seconds(601))
    assert (caught.value.field, caught.value.reason) == ("max_duration", "ABOVE_LIMIT")
    with pytest.raises(errors.InvalidArgument) as caught:
        await plane.create(idle_timeout=seconds(61))
    assert caught.value.reason == "ABOVE_LIMIT"


NEW = ("unresponsive_timeout", "reconnect_timeout")


async def test_a_session_shows_all_limits_with_their_defaults(plane: Control) -> None:
    """Each of them is set, or named as unlimited; who created it and when it changed is there too."""
    await plane.apply(version("2.0.0", limits=Limits(max_duration=seconds(600))))
    token = await plane.token("SERVICE", "portal")

    made = await plane.create(token, username="ann")

    assert made.limits == Limits(
        start_timeout=seconds(900),
        stop_grace_period=seconds(10),
        queue_timeout=seconds(1800),
        max_duration=seconds(600),
        unlimited=["never_connected_timeout", "idle_timeout", *NEW],
    )
    assert (made.username, made.created_by) == ("ann", "portal")
    assert made.updated_time == made.created_time
    assert made.etag
    assert not made.HasField("expected_end_time")


async def test_a_session_may_ask_for_any_stricter_limit(plane: Control) -> None:
    """All of them; what it does not mention stays, and the answer, the node and the queue are told."""
    await plane.apply(version("2.0.0", limits=Limits(start_timeout=seconds(60), idle_timeout=seconds(60))))
    asked = Limits(
        start_timeout=seconds(59),
        never_connected_timeout=seconds(58),
        idle_timeout=seconds(57),
        max_duration=seconds(56),
        stop_grace_period=seconds(5),
        queue_timeout=seconds(54),
        unresponsive_timeout=seconds(53),
        reconnect_timeout=seconds(52),
    )

    made = await plane.create(limits=asked)

    assert made.limits == asked
    assert (made.max_duration, made.idle_timeout) == (seconds(56), seconds(57))
    assert (await plane.create(limits=Limits(start_timeout=seconds(60)))).limits.idle_timeout == seconds(60)
    agent = await plane.agent()
    await plane.place()
    assert _public(await agent.assignment(made.session_id))[1] == asked


@pytest.mark.parametrize(
    ("members", "field", "reason", "says"),
    [
        ({"start_timeout": seconds(901)}, "limits.start_timeout", "ABOVE_LIMIT", "901s is more than the 900s"),
        ({"stop_grace_period": seconds(11)}, "limits.stop_grace_period", "ABOVE_LIMIT", "the 10s"),
        ({"queue_timeout": seconds(1801)}, "limits.queue_timeout", "ABOVE_LIMIT", "the 1800s"),
        (
            {"unlimited": ["max_duration"]},
            "limits.max_duration",
            "ABOVE_LIMIT",
            "unlimited is more than the 600s",
        ),
        ({"unlimited": ["start_timeout"]}, "limits.unlimited", "NOT_ALLOWED", "cannot be unlimited"),
        (
            {"idle_timeout": seconds(9), "unlimited": ["idle_timeout"]},
            "limits.idle_timeout",
            "VALUE_CONFLICT",
            "named in unlimited",
        ),
        ({"idle_timeout": seconds(0)}, "limits.idle_timeout", "OUT_OF_RANGE", "more than 0s (got 0s)"),
    ],
)
async def test_a_limit_that_is_too_much_is_refused(
    plane: Control, members: dict[str, Any], field: str, reason: str, says: str
) -> None:
    """With its name, its value and what is allowed."""
    await plane.apply(version("2.0.0", limits=Limits(max_duration=seconds(600))))

    with pytest.raises(errors.InvalidArgument) as caught:
        await plane.create(limits=Limits(**members))

    assert (caught.value.field, caught.value.reason) == (field, reason)
    assert says in caught.value.message
    if reason == "ABOVE_LIMIT":
        assert set(caught.value.metadata) == {"field", "limit", "value", "allowed"}


async def test_a_limit_is_given_once(plane: Control) -> None:
    """By the deprecated member or in limits; both would leave open which one counts."""
    with pytest.raises(errors.InvalidArgument, match="given in limits as well") as caught:
        await plane.create(max_duration=seconds(5), limits=Limits(max_duration=seconds(5)))

    assert caught.value.field == "max_duration"


async def test_unlimited_goes_from_version_over_profile_to_session(plane: Control) -> None:
    """A profile takes a version's limit away; a session asks for no limit only where there is none."""
    await plane.apply(version("2.0.0", limits=Limits(max_duration=seconds(600), unlimited=["queue_timeout"])))
    await _profile(plane, limits=Limits(unlimited=["max_duration"], queue_timeout=seconds(60)))

    plain, free = await plane.create(), await plane.create(profile="small", limits=Limits(unlimited=["max_duration"]))

    assert plain.limits.max_duration == seconds(600)
    assert set(plain.limits.unlimited) == {"never_connected_timeout", "idle_timeout", "queue_timeout", *NEW}
    assert set(free.limits.unlimited) == {"never_connected_timeout", "idle_timeout", "max_duration", *NEW}
    assert free.limits.queue_timeout == seconds(60)
    assert not free.HasField("max_duration")
    # Of the two that wait for a device, only the one with a timeout gives up.
    for _ in range(4):
        await plane.reap()
        plane.clock.pass_s(100_000)
    assert (await plane.get(plain.session_id)).state == State.PENDING
    assert (await plane.get(free.session_id)).end_reason == session_pb2.Session.QUEUE_TIMEOUT


async def test_limits_are_stored_as_a_replica_of_the_release_before_reads_them(plane: Control) -> None:
    """It knows no ``unlimited``: what is unset does not exist, and a queue timeout is always set."""
    await plane.apply(version("2.0.0", limits=Limits(unlimited=["queue_timeout", "max_duration"])))
    made = await plane.create()

    row = await plane.store.read(lambda tx: session_rows.get(tx, made.session_id))

    assert row is not None
    stored = Limits.FromString(row.limits)
    stored.ClearField("unlimited")
    assert stored == Limits(
        start_timeout=seconds(900), stop_grace_period=seconds(10), queue_timeout=seconds(366 * 86400)
    )


async def test_a_profile_relaxes_what_a_version_needs(plane: Control) -> None:
    """A value that asks for less replaces the version's, and lists and labels are emptied by name."""
    needs = Needs(
        slots=2, gpu=True, graphics=True, min_memory_bytes=1 << 40, device_names=["A*"], node_labels={"z": "a"}
    )
    await plane.apply(version("2.0.0", needs=needs))
    relaxed = {"gpu": False, "slots": 0, "min_memory_bytes": "0", "cleared": ["device_names", "node_labels"]}
    await plane.rest("PUT", "/v1/profiles/small", json={"needs": relaxed})
    agent = await plane.agent("node-a", gpu(kind=node_pb2.Device.SOFTWARE, name="llvmpipe"))

    strict, made = await plane.create(), await plane.create(profile="small")
    await plane.place()

    assert _public(await agent.assignment(made.session_id))[0] == Needs(
        slots=1, gpu=False, graphics=True, min_memory_bytes=0
    )
    assert (await plane.get(strict.session_id)).state == State.PENDING


async def test_to_need_nothing_is_to_leave_it_out(plane: Control) -> None:
    """A version that is applied again by the other spelling is the same: both were stored alike before."""
    plain, spelt = version("2.0.0"), version("2.0.0")
    plain.needs.SetInParent()
    spelt.needs.gpu, spelt.needs.slots = False, 0

    await plane.apply(plain)

    assert list((await plane.apply(spelt)).created_versions) == []


async def test_a_profile_replaces_exactly_what_it_says(plane: Control) -> None:
    """Member by member: what it leaves unset is the version's; device names are replaced, labels added to."""
    needs = Needs(slots=2, min_memory_bytes=1, device_names=["A*"], node_labels={"zone": "a"})
    limits = Limits(max_duration=seconds(600), idle_timeout=seconds(60))
    await plane.apply(version("2.0.0", needs=needs, limits=limits))
    await _profile(
        plane,
        needs=Needs(gpu=True, device_names=["B*"], node_labels={"rack": "1"}),
        limits=Limits(idle_timeout=seconds(30)),
    )
    agent = await plane.agent("node-a", *_b(2), facts={"labels": {"zone": "a", "rack": "1"}})

    made = await plane.create(profile="small")
    await plane.place()
    told = await agent.assignment(made.session_id)

    assert made.profile == "small"
    assert (made.max_duration, made.idle_timeout) == (seconds(600), seconds(30))
    assert _public(told)[0] == Needs(
        slots=2, min_memory_bytes=1, gpu=True, device_names=["B*"], node_labels={"zone": "a", "rack": "1"}
    )
    assert (told.limits.start_timeout, told.limits.stop_grace_period) == (seconds(900), seconds(10))


# Isolation


async def _where(plane: Control, token: str | None = None, **members: Any) -> str:
    """Create a session and return the node on which it is placed; empty where it waits."""
    made = await plane.create(token, **members)
    await plane.place()
    return (await plane.get(made.session_id)).node


async def _bare(plane: Control, **members: Any) -> None:
    """Register a version of the process launcher, and link a node that has it."""
    await plane.apply(application_pb2.Version(version="1.0.0", command=["/bin/true"], **members), application="bare")
    facts = [{"name": "process", "isolation": "NONE"}, {"name": "fake", "isolation": "CONTAINER"}]
    await plane.agent("node-a", *_gpus(3), facts={"launchers": ["process", "fake"], "launcher_facts": facts})


@pytest.mark.parametrize("role", ["DEVELOPER", "SERVICE"])
async def test_a_session_waits_rather_than_run_beside_others_unseparated(plane: Control, role: str) -> None:
    """By default; an explanation and the session say that isolation is why, and what to do is in the runbook."""
    await _bare(plane)
    token = await plane.token(role)

    made = await plane.create(token, application="bare")
    await plane.place()
    waiting = await plane.get(made.session_id)
    request = session_pb2.ExplainPlacementRequest(application="bare")
    told = await plane.call("StreamingService.ExplainPlacement", request, token)

    assert (waiting.state, [why.reason for why in waiting.queue.wait_reasons]) == (
        State.PENDING,
        ["UNSATISFIABLE", "ISOLATION"],
    )
    assert not told.fits
    assert told.nodes[0].reason == "ISOLATION"
    assert told.nodes[0].message == "needs the isolation PROCESS; the process launcher gives NONE"


async def test_operators_are_free_and_what_is_isolated_is_placed(plane: Control) -> None:
    """An operator runs what it trusts; a launcher that isolates enough is for everybody."""
    await _bare(plane)
    await plane.apply()

    trusted = await _where(plane, application="bare")
    isolated = await _where(plane, await plane.token())
    explained = await plane.call(
        "StreamingService.ExplainPlacement", session_pb2.ExplainPlacementRequest(application="bare")
    )

    assert (trusted, isolated, explained.fits) == ("node-a", "node-a", True)


async def test_an_agent_of_the_release_before_is_taken_by_its_launchers_names(plane: Control) -> None:
    """It says nothing of isolation: a rolling upgrade neither stops what is isolated nor lets more through."""
    await plane.apply()
    await plane.apply(application_pb2.Version(version="1.0.0", command=["/bin/true"]), application="bare")
    await plane.agent("node-a", *_gpus(2), facts={"launchers": ["process", "fake"]})
    token = await plane.token()

    assert await _where(plane, token) == "node-a"
    assert await _where(plane, token, application="bare") == ""


async def test_a_version_needs_isolation_whoever_asks_and_a_profile_cannot_undo_the_servers(plane: Control) -> None:
    """The needs hold for operators as well; the server's own least one holds under any profile."""
    await _bare(plane)
    await _profile(plane, "strict", needs=Needs(isolation=Needs.CONTAINER))
    await _profile(plane, "loose", needs=Needs(isolation=Needs.NONE))

    assert await _where(plane, application="bare", profile="strict") == ""
    assert await _where(plane, await plane.token(), application="bare", profile="loose") == ""


async def test_a_fleet_without_strangers_needs_no_isolation(tmp_path: Path) -> None:
    """`--min-isolation none` is for those who trust every caller."""
    async with control(tmp_path, min_isolation="none") as plane:
        await _bare(plane)

        assert await _where(plane, await plane.token(), application="bare") == "node-a"


def _b(slots: int) -> list[Any]:
    return [gpu("GPU-0", name="B200", slots=slots)]


@pytest.mark.parametrize(
    ("matches", "well"),
    [
        ([], True),
        ([("fake", [])], True),
        ([("f*", ["1.*"])], True),
        ([("other", []), ("fa?e", ["1.0.0"])], True),
        ([("other", [])], False),
        ([("fake", ["2.*"])], False),
    ],
)
async def test_a_profile_is_for_what_it_matches(
    plane: Control, matches: list[tuple[str, list[str]]], well: bool
) -> None:
    """Applications and versions by wildcard; anything else is refused by name."""
    await _profile(plane, matches=[profile_pb2.Profile.Match(application=a, versions=v) for a, v in matches])

    if well:
        assert (await plane.create(profile="small")).profile == "small"
    else:
        with pytest.raises(errors.FailedPrecondition, match=r"'small' is not for fake 1\.0\.0") as caught:
            await plane.create(profile="small")
        assert caught.value.reason == "PROFILE_DOES_NOT_MATCH"


async def test_changing_a_profile_changes_no_session_that_is(plane: Control) -> None:
    """A session keeps what it was created with, also when the profile is gone."""
    await _profile(plane, limits=Limits(max_duration=seconds(600)))
    made = await plane.create(profile="small")

    await _profile(plane, limits=Limits(max_duration=seconds(60)))
    await plane.call("ProfileService.DeleteProfile", profile_pb2.DeleteProfileRequest(profile="small"))

    assert (await plane.get(made.session_id)).max_duration == seconds(600)


async def test_structured_mounts_reach_agents_of_both_releases(plane: Control) -> None:
    """An agent of the release before would start the application without a mount that it does not know."""
    volumes = [{"source": "/srv", "target": "/data", "read_only": True}, {"source": "cache", "target": "/c"}]
    container = {"image": "app:1", "mounts": ["/etc/a:/a"], "volume_mounts": volumes}
    body = {
        "application": {},
        "versions": [{"version": "1.0.0", "container": container}],
        "releases": {"default": "1.0.0"},
    }
    assert (await plane.rest("PUT", "/v1/applications/boxed", json=body)).status_code == 200
    agent = await plane.agent(facts={"launchers": ["container"]})

    made = await plane.create(application="boxed")
    await plane.place()
    told = (await agent.assignment(made.session_id)).version.container
    kept = (await plane.rest("GET", "/v1/applications/boxed/versions/1.0.0")).json()["container"]

    assert list(told.mounts) == ["/etc/a:/a", "/srv:/data:ro", "cache:/c"]
    assert not told.volume_mounts
    assert (kept["mounts"], kept["volume_mounts"][0]) == (["/etc/a:/a"], volumes[0])


@pytest.mark.parametrize(
    ("entrypoint", "command"), [([], ["viewer"]), (["kit", "a.kit"], ["--/app/auto_load_usd={usd_stage_uri}"])]
)
async def test_an_entry_point_of_its_own_waits_for_an_agent_that_knows_it(
    plane: Control, entrypoint: list[str], command: list[str]
) -> None:
    """An agent of the release before would run the image's, which may hand a session's text to a shell."""
    container = {"image": "app:1", "entrypoint": entrypoint}
    body = {
        "application": {},
        "versions": [
            {"version": "1.0.0", "container": container, "command": command},
            {"version": "1.0.1", "container": {"image": "app:1"}, "command": ["viewer"]},
        ],
        "releases": {"default": "1.0.0"},
    }
    assert (await plane.rest("PUT", "/v1/applications/boxed", json=body)).status_code == 200
    facts: dict[str, Any] = {"name": "container", "isolation": "CONTAINER"}
    await plane.agent("old", *_gpus(1), facts={"launchers": ["container"], "launcher_facts": [facts]})

    made = await plane.create(application="boxed")
    own = await _where(plane, application="boxed", application_version="1.0.1")
    told = (await plane.get(made.session_id)).queue.wait_reasons
    facts = {**facts, "entrypoints": True}
    agent = await plane.agent("new", gpu("GPU-new"), facts={"launchers": ["container"], "launcher_facts": [facts]})
    await plane.place()
    carried = (await agent.assignment(made.session_id)).version
    kept = (await plane.rest("GET", "/v1/applications/boxed/versions/1.0.0")).json()

    assert own == "old"
    assert "container+entrypoint" in " ".join(why.message for why in told)
    assert carried.container.HasField("entrypoint")
    assert [value.string_value for value in carried.container.entrypoint.values] == entrypoint
    assert (kept["container"]["entrypoint"], kept["command"]) == (entrypoint, command)
    assert (await plane.get(made.session_id)).node == "new"


async def test_a_hostile_stage_is_refused_when_the_session_is_created(plane: Control) -> None:
    """With its field and reason, before anything is placed; what parses nothing again takes any name."""
    roots = {"allowed_stage_roots": ["/srv/stages"]}
    foreign = {"image": "app:1"}
    body = {
        "application": {},
        "versions": [
            {"version": "1.0.0", "container": foreign, "command": ["--stage", "{usd_stage_uri}"], **roots},
            {
                "version": "1.0.1",
                "container": {**foreign, "entrypoint": []},
                "command": ["v", "{usd_stage_uri}"],
                **roots,
            },
        ],
        "releases": {"default": "1.0.0"},
    }
    assert (await plane.rest("PUT", "/v1/applications/boxed", json=body)).status_code == 200
    for name in ("a$(touch${IFS}pwned).usd", "a;id;.usd", "a b.usd", "`id`.usd"):
        wanted = {"application": "boxed", "application_arguments": {"usd_stage_uri": f"/srv/stages/{name}"}}
        refused = await plane.rest("POST", "/v1/sessions", json=wanted)
        taken = await plane.rest("POST", "/v1/sessions", json={**wanted, "application_version": "1.0.1"})

        assert (refused.status_code, refused.json()["details"][0]["reason"]) == (400, "TEXT_UNSAFE")
        assert "application_arguments.usd_stage_uri" in refused.text
        assert taken.status_code == 202, taken.text
    body["versions"] = [{"version": "1.0.2", "container": foreign, "command": ["--stage={usd_stage_uri}"]}]
    late = await plane.rest("PUT", "/v1/applications/boxed", json=body)
    assert (late.status_code, late.json()["details"][0]["reason"]) == (400, "VERSION_INVALID")


async def test_labels_and_priority_are_kept(plane: Control) -> None:
    """They are the caller's own."""
    made = await plane.create(labels={"team": "ünï", "empty": ""}, priority=7)

    assert dict(made.labels) == {"team": "ünï", "empty": ""}
    assert (made.priority, made.state) == (7, State.PENDING)
    assert plane.clock() - timedelta(0) == made.created_time.ToDatetime(plane.clock().tzinfo)


# Beside those who wait


async def test_what_fits_is_placed_at_once_while_others_wait(plane: Control) -> None:
    """Also where nothing may wait any more: neither the sessions that wait nor the bound of the queue concern it."""
    await plane.apply(version(needs=Needs(device_names=["NVIDIA B300"])), application="rare")
    agent = await plane.agent("node-a", gpu("A"), gpu("B", name="NVIDIA B300"))
    await plane.plane.placing._work.claim()
    await plane.place()
    await plane.running(agent, application="rare")
    object.__setattr__(plane.settings, "queue_limit", 2)
    await plane.create(application="rare")
    await plane.place()
    full = await plane.rest("POST", "/stream", json={"application": "rare"})

    fits = await plane.create()

    assert problem(full)["reason"] == "QUEUE_FULL"
    assert (fits.state, fits.node) == (State.STARTING, "node-a")


async def test_a_session_that_waits_comes_before_one_that_is_created(plane: Control) -> None:
    """Of what has just become free: the new one is behind it in the queue."""
    agent = await plane.agent("node-a", gpu("A"))
    running = await plane.running(agent)
    waiting = await plane.create()
    await plane.place()
    await agent.report(await agent.assignment(running.session_id), "EXITED", exit_code=0)
    await plane.plane.placing._cache.read()

    later = await plane.create()
    await plane.place()

    assert (await plane.get(waiting.session_id)).state == State.STARTING
    assert (await plane.get(later.session_id)).queue.position == 1


async def test_one_developer_leaves_places_for_the_next_one(plane: Control) -> None:
    """A thousand creations of what is not there are refused or set aside; another's are placed, and may wait."""
    await plane.apply(version(needs=Needs(device_names=["NVIDIA B300"])), application="rare")
    object.__setattr__(plane.settings, "queue_limit", 40)
    await plane.agent("node-a", *[gpu(f"GPU-{number}") for number in range(8)])
    ann, bob = await plane.token(subject="ann"), await plane.token(subject="bob")
    await plane.plane.placing._work.claim()
    await plane.place()

    answers = [
        await plane.rest("POST", "/stream", token, json={"application": name})
        for token, name, times in ((ann, "rare", 100), (bob, "fake", 8), (bob, "rare", 100))
        for _ in range(times)
    ]
    of_ann, placed, of_bob = answers[:100], answers[100:108], answers[108:]

    assert [sum(each.is_success for each in some) for some in (of_ann, placed, of_bob)] == [20, 8, 10]
    assert {each.json()["state"] for each in placed} == {"STARTING"}
    refused = problem(of_ann[-1])
    assert refused["reason"] == "QUEUE_FULL"
    assert refused["message"] == (
        "20 sessions that you created are waiting already; the other places of the queue, which has 40, are kept for "
        "others. Try again in a minute."
    )


async def test_one_user_of_a_service_leaves_places_for_its_others(plane: Control) -> None:
    """A portal creates with one token for all of its users."""
    object.__setattr__(plane.settings, "queue_limit", 40)
    portal = await plane.token("SERVICE", "portal")

    async def created(username: str) -> int:
        answers = [
            await plane.rest("POST", "/stream", portal, json={"application": "fake", "username": username})
            for _ in range(40)
        ]
        return sum(each.is_success for each in answers)

    assert [await created(name) for name in ("ann", "bob", "cem")] == [14, 4, 2]


# Stages that no application opens


def _viewer(number: str, **members: Any) -> application_pb2.Version:
    members = {"command": ["viewer"], "allowed_stage_roots": ["/srv/"]} | members
    return application_pb2.Version(version=number, **members)


BY_MESSAGE = application_pb2.StageDelivery(method=application_pb2.StageDelivery.MESSAGE)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (_viewer("2.0.0"), "/srv/a.usd is not opened: the version takes no stage."),
        (_viewer("2.0.0", stage_delivery=BY_MESSAGE), "/srv/a.usd is opened once a client asks for it:"),
        (_viewer("2.0.0", command=["viewer", "{usd_stage_uri}"]), ""),
    ],
    ids=["none", "message", "command"],
)
async def test_a_session_says_that_its_stage_is_not_opened(
    plane: Control, made: application_pb2.Version, says: str
) -> None:
    """From its creation on, in its answers and in lists; and nothing where it has no stage."""
    await plane.apply(made)
    wanted = {"application": "fake", "application_version": "2.0.0"}

    session = (
        await plane.rest(
            "POST", "/v1/sessions", json=wanted | {"application_arguments": {"usd_stage_uri": "/srv/a.usd"}}
        )
    ).json()
    bare = (await plane.rest("POST", "/v1/sessions", json=wanted)).json()
    listed = (await plane.rest("GET", "/v1/sessions")).json()["items"]

    assert session.get("stage_message", "").startswith(says)
    assert bool(session.get("stage_message")) == bool(says)
    assert not bare.get("stage_message")
    assert session.get("stage_message") in [each.get("stage_message") for each in listed]
