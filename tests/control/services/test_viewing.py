"""Connecting to, extending and watching sessions.

Covers ``sessions.connect``, ``sessions.extend`` and ``sessions.present`` with ``etags`` of sessions, and the watches
without frames.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from footlights.v1 import application_pb2, session_pb2

from footlights import errors
from footlights.auth.grants import Grants
from footlights.control.services.sessions.connect import player_config
from footlights.store.sessions import session_rows
from tests.control.harness import PUBLIC_URL, Control, State, control, gpu, lines, seconds, version

Limits = application_pb2.Limits


async def connect(plane: Control, session_id: str, token: str | None = None) -> session_pb2.ConnectSessionResponse:
    request = session_pb2.ConnectSessionRequest(session_id=session_id)
    answer: session_pb2.ConnectSessionResponse = await plane.call("StreamingService.ConnectSession", request, token)
    return answer


async def extend(plane: Control, session_id: str, more: float, token: str | None = None) -> session_pb2.Session:
    request = session_pb2.ExtendSessionRequest(session_id=session_id, extend_by=seconds(more))
    answer: session_pb2.Session = await plane.call("StreamingService.ExtendSession", request, token)
    return answer


# Connecting


async def test_connecting_grants_one_viewer_the_way(plane: Control) -> None:
    """A grant of this session only, the URLs it is for, and when it ceases to open connections."""
    session = await plane.running(await plane.agent())

    answer = await connect(plane, session.session_id)

    assert answer.whep_url == f"{PUBLIC_URL}/stream/{session.session_id}/whep"
    assert answer.signaling_url == f"wss://streams.example.com/stream/{session.session_id}/sign_in"
    grant = Grants(plane.key.keys("grants")).verify(answer.token, plane.clock())
    assert (grant.session_id, grant.subject) == (session.session_id, "admin")
    assert answer.expire_time.ToDatetime(plane.clock().tzinfo) == plane.clock() + timedelta(seconds=300)
    assert grant.expire_time == plane.clock() + timedelta(seconds=300)
    assert (await connect(plane, session.session_id)).token != answer.token


async def test_each_session_has_its_own_way_through_the_relay(tmp_path: Path, migrated: Path) -> None:
    """The answer also names the relay, with a user name and a password that end by themselves."""
    secret = tmp_path / "turn.secret"
    secret.write_text("north\n")
    relay: dict[str, Any] = {"turn_urls": ("turn:relay:3478",), "turn_secret_file": secret, "turn_ttl_s": 3600.0}
    async with control(tmp_path, migrated, ice_servers=("stun:stun:3478",), **relay) as plane:
        await plane.apply()
        session = await plane.running(await plane.agent())

        answer = await connect(plane, session.session_id)

    stun, turn = answer.ice_servers
    assert (list(stun.urls), stun.username) == (["stun:stun:3478"], "")
    assert list(turn.urls) == ["turn:relay:3478"]
    assert turn.username == f"{int(plane.clock().timestamp()) + 3600}:{session.session_id}"
    assert turn.credential


async def test_only_the_ways_that_an_application_speaks_are_given(plane: Control) -> None:
    """An application without WHEP has no WHEP URL, one without NVIDIA's signalling nothing for NVIDIA's player."""
    await plane.apply(version("2.0.0", signaling=application_pb2.Signaling(websocket_path="/sign_in")))
    agent = await plane.agent("node-a", gpu("GPU-1"), gpu("GPU-2"))
    player = await connect(plane, (await plane.running(agent)).session_id)
    await plane.apply(version("3.0.0", signaling=application_pb2.Signaling(whep_path="/whep")))
    whep = await connect(plane, (await plane.running(agent)).session_id)

    assert (player.whep_url, bool(player.signaling_url), bool(player.app_streamer)) == ("", True, True)
    assert (bool(whep.whep_url), whep.signaling_url, bool(whep.app_streamer)) == (True, "", False)


async def test_nvidias_player_is_told_all_that_it_needs(plane: Control) -> None:
    """By its own names: where signalling and media are, the session and the grant; numbers are whole."""
    session = await plane.running(await plane.agent())

    answer = (await plane.rest("POST", f"/v1/sessions/{session.session_id}:connect", json={})).json()

    assert answer["app_streamer"] == {
        "signalingServer": "streams.example.com",
        "signalingPort": 443,
        "signalingPath": f"/stream/{session.session_id}",
        "forceWSS": True,
        "sessionId": session.session_id,
        "authenticate": True,
        "accessToken": answer["token"],
        "maxReconnects": 20,
        "mediaServer": "192.0.2.7",
        "mediaPort": 20001,
    }
    assert answer["signaling_url"] == f"wss://streams.example.com/stream/{session.session_id}/sign_in"


async def test_nvidias_player_negotiates_where_the_application_has_a_relay(plane: Control) -> None:
    """A fixed address of the media would keep it from the relay."""
    signaling = application_pb2.Signaling(websocket_path="/sign_in", relay_path="/v1/streaming/creds")
    await plane.apply(version("2.0.0", signaling=signaling))
    session = await plane.running(await plane.agent())

    told = (await connect(plane, session.session_id)).app_streamer

    assert "signalingServer" in told
    assert {"mediaServer", "mediaPort"}.isdisjoint(told)


@pytest.mark.parametrize(
    ("method", "uri", "told"),
    [
        ("MESSAGE", "/srv/a.usd", "/srv/a.usd"),
        ("MESSAGE", "https://assets.example.com/a.usd?signature=secret", ""),
        ("NONE", "/srv/a.usd", ""),
    ],
)
async def test_a_client_is_told_which_stage_to_ask_for(plane: Control, method: str, uri: str, told: str) -> None:
    """Where the version takes it by a message of a client; no address that is a secret."""
    delivery = application_pb2.StageDelivery(method=application_pb2.StageDelivery.Method.Value(method))
    signaling = application_pb2.Signaling(websocket_path="/sign_in")
    roots = ["/srv", "https://assets.example.com/"]
    await plane.apply(version("2.0.0", signaling=signaling, stage_delivery=delivery, allowed_stage_roots=roots))
    session = await plane.running(await plane.agent(), application_arguments={"usd_stage_uri": uri})

    assert (await connect(plane, session.session_id)).usd_stage_uri == told


@pytest.mark.parametrize(
    ("public_url", "server", "port", "secure"),
    [
        ("http://127.0.0.1:8080", "127.0.0.1", 8080, False),
        ("http://streams.example.com", "streams.example.com", 80, False),
        ("https://[2001:db8::7]:8443", "[2001:db8::7]", 8443, True),
    ],
)
def test_nvidias_player_is_told_of_tls(public_url: str, server: str, port: int, secure: bool) -> None:
    """It takes TLS by itself on port 443 alone."""
    told = player_config(f"ws{public_url.removeprefix('http')}/stream/s/sign_in", "grant", "s", ("", 0))

    assert (told["signalingServer"], told["signalingPort"], told["forceWSS"]) == (server, port, secure)
    assert "mediaServer" not in told


async def test_ice_servers_are_those_of_the_settings(tmp_path: Path, migrated: Path) -> None:
    """For clients behind a NAT."""
    urls = ("stun:stun.example.com", "turn:turn.example.com")
    async with control(tmp_path, migrated, ice_servers=urls, grant_ttl_s=7) as plane:
        await plane.apply()
        session = await plane.running(await plane.agent())

        answer = await connect(plane, session.session_id)

    assert [list(server.urls) for server in answer.ice_servers] == [list(urls)]
    assert answer.expire_time.ToDatetime(plane.clock().tzinfo) == plane.clock() + timedelta(seconds=7)


async def test_a_session_is_connected_to_in_the_states_that_have_a_picture(plane: Control) -> None:
    """Before: watch it, which is nothing that a retry helps; after: never; each with its state."""
    agent = await plane.agent()
    told: dict[str, str] = {}

    async def attempt(session_id: str) -> None:
        state = State.Name((await plane.get(session_id)).state)
        answer = await plane.rest("POST", f"/stream/{session_id}:connect", json={})
        body = answer.json()
        told[state] = f"{answer.status_code} {answer.headers.get('retry-after', '')} {body.get('message', 'granted')}"

    session_id = (await plane.create()).session_id
    await attempt(session_id)
    await plane.place()
    await attempt(session_id)
    assignment = await agent.ready(session_id)
    await attempt(session_id)
    await agent.report(assignment, "READY", viewers=1)
    await attempt(session_id)
    await plane.terminate(session_id)
    await attempt(session_id)
    await agent.report(assignment, "EXITED", exit_code=0)
    await attempt(session_id)
    crashed = await plane.running(agent)
    await agent.report(await agent.assignment(crashed.session_id), "EXITED", exit_code=1)
    await attempt(crashed.session_id)

    assert {state: said.split(" ")[0] for state, said in told.items()} == {
        "PENDING": "400",
        "STARTING": "400",
        "READY": "200",
        "ACTIVE": "200",
        "TERMINATING": "400",
        "TERMINATED": "400",
        "FAILED": "400",
    }
    assert told["PENDING"].startswith("400  The session is PENDING and has no picture yet")
    assert ":watch" in told["STARTING"]
    assert "is FAILED and has no picture any more. Create a new one" in told["FAILED"]


async def test_routes_are_there_while_there_is_something_to_reach(plane: Control) -> None:
    """Nested as published: signalling by the public host, media by the node."""
    agent = await plane.agent()
    session = await plane.running(agent)

    shown = (await plane.rest("GET", f"/stream/{session.session_id}")).json()

    assert shown["routes"] == {
        "streams.example.com": {
            "routes": [{"description": "signaling", "protocol": "TCP", "source_port": 443, "destination_port": 20000}]
        },
        "192.0.2.7": {
            "routes": [{"description": "media", "protocol": "UDP", "source_port": 20001, "destination_port": 20001}]
        },
    }
    await plane.terminate(session.session_id)
    assert (await plane.rest("GET", f"/stream/{session.session_id}")).json()["routes"] == {}


async def test_direct_routes_name_the_node_for_both(tmp_path: Path, migrated: Path) -> None:
    """For clients that dial nodes."""
    async with control(tmp_path, migrated, direct_routes=True) as plane:
        await plane.apply()
        session = await plane.running(await plane.agent())

    assert list(session.routes) == ["192.0.2.7"]
    assert [(route.description, route.source_port) for route in session.routes["192.0.2.7"].routes] == [
        ("signaling", 20000),
        ("media", 20001),
    ]


# Extending


async def test_a_session_is_extended_up_to_what_its_version_allows(plane: Control) -> None:
    """By as much as is left, in any living state; the agent is told."""
    await plane.apply(version("2.0.0", limits=Limits(max_duration=seconds(600))))
    agent = await plane.agent()
    session = await plane.running(agent, max_duration=seconds(60))

    longer = await extend(plane, session.session_id, 100)
    told = await agent.until("assignment")
    with pytest.raises(errors.InvalidArgument, match=r"441s more would make 601s.*allows 600s. Give at most 440s") as e:
        await extend(plane, session.session_id, 441)
    longest = await extend(plane, session.session_id, 440)

    assert longer.max_duration == told.limits.max_duration == seconds(160)
    assert (e.value.field, e.value.reason) == ("extend_by", "ABOVE_LIMIT")
    assert longest.max_duration == seconds(600)
    assert longest.revision > longer.revision > session.revision


@pytest.mark.parametrize("more", [0, -60, 3e8, 3e11])
async def test_an_extension_that_is_none_is_refused(plane: Control, more: float) -> None:
    """Also one that no clock could count to."""
    session = await plane.create(max_duration=seconds(60))

    with pytest.raises(errors.InvalidArgument) as caught:
        await extend(plane, session.session_id, more)

    assert caught.value.field == "extend_by"
    assert (await plane.get(session.session_id)).max_duration == seconds(60)


async def test_a_session_without_an_end_cannot_be_extended_nor_one_that_has_ended(plane: Control) -> None:
    """Each says why."""
    endless, gone = await plane.create(), await plane.create(max_duration=seconds(60))
    await plane.terminate(gone.session_id)

    with pytest.raises(errors.FailedPrecondition, match="no maximum duration"):
        await extend(plane, endless.session_id, 60)
    with pytest.raises(errors.FailedPrecondition, match="is TERMINATED and cannot be extended"):
        await extend(plane, gone.session_id, 60)


async def test_a_session_says_when_its_maximum_duration_ends_it(plane: Control) -> None:
    """From when it is ready until it ends, and later once it is extended; without a maximum nothing is expected."""
    await plane.apply(version("2.0.0", limits=Limits(max_duration=seconds(600))))
    agent = await plane.agent("node-a", gpu(slots=2))
    made = await plane.create(max_duration=seconds(300))
    await plane.place()
    assert not (await plane.get(made.session_id)).HasField("expected_end_time")
    assignment = await agent.ready(made.session_id)

    ready = await plane.get(made.session_id)
    assert ready.expected_end_time.seconds == ready.ready_time.seconds + 300
    extended = await extend(plane, made.session_id, 100)
    assert extended.expected_end_time.seconds == ready.ready_time.seconds + 400
    assert extended.limits.max_duration == seconds(400)
    await plane.terminate(made.session_id)
    await agent.report(assignment, "EXITED", exit_code=0)
    assert not (await plane.get(made.session_id)).HasField("expected_end_time")
    free = await plane.running(agent, application_version="1.0.0")
    assert not free.HasField("expected_end_time")


async def test_a_session_says_when_it_last_changed(plane: Control) -> None:
    """With each new revision, also of its place in the queue; and its etag changes with it."""
    made = await plane.create()
    seen = [made]
    for step in (plane.place, lambda: plane.agent(), plane.place, lambda: plane.terminate(made.session_id)):
        plane.clock.pass_s(1)
        await step()
        seen.append(await plane.get(made.session_id))

    for before, after in pairwise(seen):
        changed = after.revision != before.revision
        assert (after.etag != before.etag) is changed
        assert (after.updated_time != before.updated_time) is changed
        if changed:
            assert after.updated_time.seconds > before.updated_time.seconds
    assert len({session.revision for session in seen}) == 4


# Watching


async def take(stream: AsyncIterator[Any], count: int) -> list[Any]:
    found: list[Any] = []
    async with asyncio.timeout(10):
        while len(found) < count:
            found.append(await anext(stream))
    return found


def watch(plane: Control, session_id: str, after: int = 0, token: str | None = None) -> Any:
    request = session_pb2.WatchSessionRequest(session_id=session_id, after_revision=after)
    return plane.stream("StreamingService.WatchSession", request, token)


def watch_all(plane: Control, token: str | None = None, **members: Any) -> Any:
    return plane.stream("StreamingService.WatchSessions", session_pb2.WatchSessionsRequest(**members), token)


async def test_a_watch_begins_with_the_session_as_it_is_and_ends_with_it(plane: Control) -> None:
    """Every change in between, each with a greater revision; then the stream ends by itself."""
    agent = await plane.agent()
    created = await plane.create()
    states = []
    async with aclosing(watch(plane, created.session_id)) as stream, asyncio.timeout(10):
        [first] = await take(stream, 1)
        await plane.place()
        states += await take(stream, 1)
        assignment = await agent.ready(created.session_id)
        states += await take(stream, 1)
        await plane.terminate(created.session_id)
        states += await take(stream, 1)
        await agent.report(assignment, "EXITED", exit_code=0)
        states += [session async for session in stream]

    assert first == created
    assert [State.Name(session.state) for session in states] == ["STARTING", "READY", "TERMINATING", "TERMINATED"]
    revisions = [session.revision for session in (first, *states)]
    assert sorted(set(revisions)) == revisions


async def test_a_watch_goes_on_after_a_revision(plane: Control) -> None:
    """What was seen is not told again; what came meanwhile is."""
    created = await plane.create()
    async with aclosing(watch(plane, created.session_id, created.revision)) as stream:
        waiting = asyncio.create_task(anext(stream))
        await plane.agent()
        await plane.place()
        async with asyncio.timeout(10):
            assert (await waiting).state == State.STARTING
    await plane.terminate(created.session_id)
    async with aclosing(watch(plane, created.session_id, created.revision)) as stream:
        [now] = await take(stream, 1)
        assert now.state == State.TERMINATING


async def test_the_end_of_a_session_is_told_to_a_late_watcher(plane: Control) -> None:
    """One message, then the stream's end; nothing where it was seen already."""
    created = await plane.create()
    await plane.terminate(created.session_id)

    told = [session async for session in watch(plane, created.session_id)]
    again = [session async for session in watch(plane, created.session_id, told[0].revision)]

    assert [session.state for session in told] == [State.TERMINATED]
    assert again == []


async def test_all_sessions_are_watched_from_those_that_live(plane: Control) -> None:
    """First the living, then every change, also of sessions that are new; ends included."""
    gone, first = await plane.create(), await plane.create()
    await plane.terminate(gone.session_id)
    async with aclosing(watch_all(plane)) as stream:
        assert [session.session_id for session in await take(stream, 1)] == [first.session_id]
        second = await plane.create()
        await plane.terminate(first.session_id)
        told = await take(stream, 2)
    async with aclosing(watch_all(plane, after_revision=first.revision)) as stream:
        resumed = await take(stream, 3)

    assert [(session.session_id, session.state) for session in told] == [
        (second.session_id, State.PENDING),
        (first.session_id, State.TERMINATED),
    ]
    assert [session.session_id for session in resumed] == [gone.session_id, second.session_id, first.session_id]


async def test_other_users_sessions_are_invisible_to_a_watch(plane: Control) -> None:
    """Whatever is asked for; a service sees all, or one user's."""
    ann, bob = await plane.token(subject="ann"), await plane.token(subject="bob")
    hers = await plane.create(ann)
    async with (
        aclosing(watch_all(plane, ann)) as own,
        aclosing(watch_all(plane, await plane.token("SERVICE", "portal"))) as everything,
        aclosing(watch_all(plane, username="bob")) as of_bob,
    ):
        assert [session.session_id for session in await take(own, 1)] == [hers.session_id]
        his = await plane.create(bob)
        after = await plane.create(ann)
        assert [session.session_id for session in await take(own, 1)] == [after.session_id]
        assert [session.session_id for session in await take(everything, 3)] == [
            hers.session_id,
            his.session_id,
            after.session_id,
        ]
        assert [session.session_id for session in await take(of_bob, 1)] == [his.session_id]


async def test_a_developer_cannot_watch_somebody_else_by_name(plane: Control) -> None:
    """A filter that cannot be kept is refused, not replaced by another."""
    ann = await plane.token(subject="ann")

    with pytest.raises(errors.PermissionDenied, match="username: 'bob' is not you"):
        await take(watch_all(plane, ann, username="bob"), 1)


async def test_a_watch_over_rest_is_ndjson_or_events(plane: Control) -> None:
    """The same messages, as lines or as events whose id is the revision; Last-Event-ID resumes."""
    created = await plane.create()
    await plane.terminate(created.session_id)
    path = f"/stream/{created.session_id}:watch"

    ndjson = await plane.rest("GET", path)
    events = await plane.rest("GET", path, headers={"accept": "text/event-stream"})
    resumed = await plane.rest("GET", path, headers={"last-event-id": lines(ndjson)[0]["revision"]})

    assert [session["state"] for session in lines(ndjson)] == ["TERMINATED"]
    assert f"id: {lines(ndjson)[0]['revision']}" in events.text
    data = next(line for line in events.text.splitlines() if line.startswith("data:"))
    assert json.loads(data.removeprefix("data:"))["state"] == "TERMINATED"
    assert resumed.text.strip() == ""


async def test_devices_and_nodes_are_shown_with_who_holds_them(plane: Control) -> None:
    """An operator sees what is free and what is not."""
    agent = await plane.agent("node-a", gpu("GPU-0", slots=2), gpu("GPU-1"))
    session = await plane.running(agent)

    node = (await plane.rest("GET", "/nodes/node-a")).json()

    assert (node["state"], node["session_count"]) == ("READY", 1)
    assert [(device["uuid"], device["slots"], device["slots_leased"]) for device in node["devices"]] == [
        ("GPU-0", 2, 0),
        ("GPU-1", 1, 1),
    ]
    assert node["devices"][1]["sessions"] == [session.session_id]
    assert (await plane.rest("GET", "/nodes")).json()["items"] == [node]


async def test_a_presigned_stage_is_a_secret(plane: Control) -> None:
    """Sealed at rest, redacted in every answer, sent to the agent among the secrets; the same for a retry."""
    signed = "https://store.example/stages/a.usd?X-Amz-Signature=0123abc"
    shown = "https://store.example/stages/a.usd?[redacted]"
    await plane.apply(version("2.0.0", allowed_stage_roots=["https://store.example/stages/"]))
    agent = await plane.agent()
    given = {"application": "fake", "application_version": "2.0.0", "request_id": "k"}
    body = given | {"application_arguments": {"usd_stage_uri": signed}}

    made = await plane.rest("POST", "/v1/sessions", json=body)
    await plane.place()
    assignment = await agent.assignment(made.json()["session_id"])
    again = await plane.rest("POST", "/v1/sessions", json=body)
    listed = await plane.rest("GET", "/v1/sessions")
    refused = await plane.rest(
        "POST", "/v1/sessions", json=given | {"application_arguments": {"usd_stage_uri": signed.replace("stages", "x")}}
    )

    assert made.json()["application_arguments"]["usd_stage_uri"] == shown
    assert again.json()["session_id"] == made.json()["session_id"]
    assert json.loads(assignment.secrets) == {"usd_stage_uri": signed}
    assert refused.status_code in (400, 409)
    for answer in (made, again, listed, refused):
        assert "0123abc" not in answer.text
    row = await plane.store.read(lambda tx: session_rows.get(tx, made.json()["session_id"]))
    assert "0123abc" not in str(row)
