"""The published Application Streaming API 2.0.0 at ``/stream``, call by call; and what earlier releases added to it."""

from __future__ import annotations

import json
from typing import Any

import grpc
import pytest
from footlights.v1 import session_pb2
from footlights.v1.session_pb2_grpc import StreamingServiceStub

from tests.control.harness import Control, problem

PUBLISHED = {"application", "application_version", "application_arguments"}
UNKNOWN = "01890000-0000-7000-8000-000000000000"


async def made(plane: Control, **members: Any) -> str:
    """The id of a new session."""
    answer = await plane.rest("POST", "/stream", json={"application": "fake", **members})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["session_id"])


async def listed(plane: Control, **query: str) -> list[str]:
    """The ids of a list."""
    answer = await plane.rest("GET", "/stream", params=query)
    assert answer.status_code == 200, answer.text
    return [item["session_id"] for item in answer.json()["items"]]


# The document's four calls


async def test_create_as_published(plane: Control) -> None:
    """The three published members are enough, with the published defaults; the answer is 202 with its Location."""
    await plane.apply()
    answer = await plane.rest("POST", "/stream", json={"application": "fake"})
    whole = await plane.rest(
        "POST",
        "/stream",
        json={
            "application": "fake",
            "application_version": "default",
            "application_arguments": {"usd_stage_uri": "", "nucleus_connection_config": []},
        },
    )

    none = await plane.rest(
        "POST",
        "/stream",
        json={
            "application": "fake",
            "application_arguments": {"usd_stage_uri": None, "nucleus_connection_config": None},
        },
    )

    found = answer.json()
    assert (answer.status_code, whole.status_code, none.status_code) == (202, 202, 202)
    assert none.json()["application_arguments"] == found["application_arguments"]
    assert answer.headers["location"] == f"/stream/{found['session_id']}"
    assert set(found) >= PUBLISHED
    assert {name: found[name] for name in PUBLISHED} == {name: whole.json()[name] for name in PUBLISHED}
    assert found["application_arguments"] == {"usd_stage_uri": "", "nucleus_connection_config": []}


async def test_terminate_as_published(plane: Control) -> None:
    """DELETE with the id in the body answers with the document's ``satus``; and so the id in the path."""
    await plane.apply()
    first, second = await made(plane), await made(plane)
    answers = [
        await plane.rest("DELETE", "/stream", json={"session_id": first}),
        await plane.rest("DELETE", "/stream", json={"session_id": first}),
        await plane.rest("DELETE", f"/stream/{second}"),
    ]

    assert [answer.status_code for answer in answers] == [200, 200, 200]
    for answer, session_id in zip(answers, (first, first, second), strict=True):
        assert answer.json() == {"session_id": session_id, "status": "deleted", "satus": "deleted"}
    assert await listed(plane) == []


async def test_get_as_published(plane: Control) -> None:
    """A session by its id, 202 while it is not ready; one that does not exist is 404."""
    await plane.apply()
    ready = await plane.running(await plane.agent())
    waiting = await plane.rest("GET", f"/stream/{await made(plane)}")
    answer = await plane.rest("GET", f"/stream/{ready.session_id}")

    assert (waiting.status_code, waiting.json()["state"]) == (202, "PENDING")
    assert (answer.status_code, answer.json()["session_id"]) == (200, ready.session_id)
    assert (await plane.rest("GET", f"/stream/{UNKNOWN}")).status_code == 404


async def test_list_as_published(plane: Control) -> None:
    """limit, offset, sort-by, order, username, from_time and to_time, with the published defaults."""
    await plane.apply()
    ids = []
    for username in ("c", "a", "b"):
        ids.append(await made(plane, username=username))
        plane.clock.pass_s(60)
    body = (await plane.rest("GET", "/stream")).json()

    assert [item["session_id"] for item in body["items"]] == ids
    assert (body["limit"], body["offset"], body["count"]) == (50, 0, 3)
    assert await listed(plane, limit="1", offset="1") == [ids[1]]
    assert await listed(plane, **{"sort-by": "created_time", "order": "DESC"}) == ids[::-1]
    assert await listed(plane, **{"sort-by": "username"}) == [ids[1], ids[2], ids[0]]
    assert await listed(plane, username="b") == [ids[2]]
    assert await listed(plane, from_time="2026-03-01T12:00:30Z", to_time="2026-03-01T12:01:30Z") == [ids[1]]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("offset=-1", "offset"),
        ("sort-by=state", "sort-by"),
        ("order=UP", "order"),
        ("from_time=noon", "from_time"),
        ("filter=state", "filter"),
        ("view=BASIC", "view"),
        ("include_ended=true", "include_ended"),
    ],
)
async def test_what_the_document_does_not_have(plane: Control, query: str, field: str) -> None:
    """A value out of its bounds is refused, and so is what only ``/v1/sessions`` has."""
    answer = await plane.rest("GET", f"/stream?{query}")

    assert answer.status_code == 400
    assert problem(answer)["field"] == field


async def test_terminate_without_an_id(plane: Control) -> None:
    """The published member is required."""
    answer = await plane.rest("DELETE", "/stream", json={})

    assert (answer.status_code, problem(answer)["field"]) == (400, "session_id")


@pytest.mark.parametrize("media_type", ["application/x-www-form-urlencoded", "text/plain", "application/json", None])
async def test_a_body_has_any_type(plane: Control, media_type: str | None) -> None:
    """The document asks for none, and `curl -d` sends that of a form. Our own paths are strict."""
    await plane.apply()
    headers = {"content-type": media_type} if media_type else {}
    created = await plane.rest("POST", "/stream", content=b'{"application": "fake"}', headers=headers)
    session_id = created.json()["session_id"]
    body = json.dumps({"session_id": session_id}).encode()
    ended = await plane.rest("DELETE", "/stream", content=body, headers=headers)
    ours = await plane.rest("POST", "/v1/sessions", content=b'{"application": "fake"}', headers=headers)

    assert (created.status_code, ended.status_code) == (202, 200)
    assert ours.status_code == (415 if media_type and "json" not in media_type else 202)


async def test_the_published_calls_are_not_deprecated(plane: Control) -> None:
    """They stay; what earlier releases had beside them below ``/stream`` says that it moves, and is counted."""
    await plane.apply()
    session_id = await made(plane)
    for method, path in (("GET", "/stream"), ("GET", f"/stream/{session_id}"), ("DELETE", f"/stream/{session_id}")):
        assert "deprecation" not in (await plane.rest(method, path)).headers
    old = await plane.rest("GET", f"/stream/{session_id}/log")

    assert old.headers["deprecation"].startswith("@")
    assert old.headers["link"] == f'</v1/sessions/{session_id}/log>; rel="successor-version"'
    sample = 'footlights_deprecated_requests_total{method="GET",path="%s"} %s'
    metrics = plane.plane.metrics.text().decode()
    assert sample % ("/stream/{session_id}/log", "1.0") in metrics
    assert sample % ("/nodes", "0.0") in metrics
    assert 'path="/stream"' not in metrics


async def test_deprecated_calls_over_grpc_are_counted_once(plane: Control) -> None:
    """From zero on, with the method GRPC; what comes over REST is counted by its path alone."""
    await plane.apply()
    session_id = await made(plane)
    await plane.rest("DELETE", f"/stream/{session_id}")
    watch = "/footlights.v1.StreamingService/WatchSession"

    def counted(method: str, path: str) -> float | None:
        labels = {"method": method, "path": path}
        return plane.plane.metrics.registry.get_sample_value("footlights_deprecated_requests_total", labels)

    assert (counted("GRPC", watch), counted("GRPC", f"{watch}s")) == (0, 0)
    assert counted("GRPC", "/footlights.v1.StreamingService/ListSessions") is None
    await plane.rest("GET", f"/stream/{session_id}:watch")
    assert (counted("GET", "/stream/{session_id}:watch"), counted("GRPC", watch)) == (1, 0)

    server = grpc.aio.server()
    server.add_generic_rpc_handlers(plane.plane.grpc_handlers())
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub, metadata = StreamingServiceStub(channel), (("authorization", f"Bearer {plane.admin}"),)
        async for _ in stub.WatchSession(session_pb2.WatchSessionRequest(session_id=session_id), metadata=metadata):
            pass
        await stub.GetSession(session_pb2.GetSessionRequest(session_id=session_id), metadata=metadata)
    await server.stop(None)
    assert (counted("GET", "/stream/{session_id}:watch"), counted("GRPC", watch)) == (1, 1)


async def test_the_methods_of_the_published_paths(plane: Control) -> None:
    """Both paths say what they can do."""
    found = [(await plane.rest("OPTIONS", path)).headers["allow"] for path in ("/stream", f"/stream/{UNKNOWN}")]

    assert found == ["DELETE, GET, HEAD, OPTIONS, POST", "DELETE, GET, HEAD, OPTIONS"]


# What earlier releases took there


async def test_members_of_earlier_releases(plane: Control) -> None:
    """A create with all of them works as before."""
    await plane.apply()
    answer = await plane.rest(
        "POST",
        "/stream",
        json={
            "application": "fake", "request_id": "k", "max_duration": "60s", "idle_timeout": "30s", "priority": 5,
            "labels": {"team": "x"}, "username": "ann",
        },
    )  # fmt: skip
    again = await plane.rest(
        "POST", "/stream", json={"application": "fake", "max_duration": "60s", "idle_timeout": "30s", "priority": 5,
                                 "labels": {"team": "x"}, "username": "ann"}, headers={"Idempotency-Key": "k"},
    )  # fmt: skip

    found = answer.json()
    assert answer.status_code == 202, answer.text
    assert (found["priority"], found["labels"], found["username"]) == (5, {"team": "x"}, "ann")
    assert (found["max_duration"], found["idle_timeout"]) == ("60s", "30s")
    assert again.json()["session_id"] == found["session_id"]


async def test_filters_of_earlier_releases(plane: Control) -> None:
    """state, application, label, search and page_token work as before."""
    await plane.apply()
    one, two = await made(plane, labels={"team": "x"}), await made(plane, labels={"team": "y"})
    page = (await plane.rest("GET", "/stream", params={"limit": "1"})).json()

    assert await listed(plane, state="PENDING") == [one, two]
    assert await listed(plane, state="READY") == []
    assert await listed(plane, application="fake") == [one, two]
    assert await listed(plane, application="other") == []
    assert await listed(plane, label="team=y") == [two]
    assert await listed(plane, search=two[-8:]) == [two]
    assert await listed(plane, limit="1", page_token=page["next_page_token"]) == [two]


async def test_both_services_have_the_same_sessions(plane: Control) -> None:
    """What one creates the other one sees; the published service has no other fields than StreamingService."""
    await plane.apply()
    session_id = await made(plane)
    ours, published = [(await plane.rest("GET", f"{path}/{session_id}")).json() for path in ("/v1/sessions", "/stream")]

    assert ours == published
