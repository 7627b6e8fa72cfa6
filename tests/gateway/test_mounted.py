"""The gateway as Footlights mounts it: strict mode over the real handlers, pipeline and store, through uvicorn.

Covers `gateway.site`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import httpx2
import pytest

from tests.control.harness import Control
from tests.gateway.served import asked, eventually, read_until, served

EVENTS = "\nAccept: text/event-stream"


@pytest.fixture
async def port(plane: Control) -> AsyncIterator[int]:
    """The control plane's HTTP port."""
    async with served(plane.plane.app) as found:
        yield found


@pytest.mark.parametrize(
    ("accept", "content_type"), [("", "application/x-ndjson"), (EVENTS, "text/event-stream")], ids=["lines", "events"]
)
async def test_a_watch_of_nothing_is_open_at_once(plane: Control, port: int, accept: str, content_type: str) -> None:
    """A client that watches a fleet without sessions learns that it is connected, and then of the first session."""
    token = f"\nAuthorization: Bearer {plane.admin}"
    async with asked(port, f"GET /stream:watch HTTP/1.1{token}{accept}") as reader:
        head = (await read_until(reader, b"\r\n\r\n")).lower()

        assert head.startswith("http/1.1 200")
        assert f"content-type: {content_type}\r\n" in head
        assert "x-request-id: " in head
        if accept:
            await read_until(reader, b": keep-alive\n\n")
        created = await plane.create()
        assert created.session_id in await read_until(reader, b"\n\r\n")


@pytest.mark.parametrize("accept", ["", EVENTS], ids=["lines", "events"])
@pytest.mark.parametrize(
    ("target", "token", "status"),
    [
        ("/stream:watch", "", 401),
        ("/stream:watch", "Bearer nobody", 401),
        ("/stream:watch?after_revision=x", None, 400),
        ("/stream:watch?nope=1", None, 400),
        ("/stream/01890000-0000-7000-8000-000000000000:watch", None, 404),
    ],
)
async def test_a_watch_that_is_refused_has_a_status_of_its_own(
    plane: Control,
    port: int,
    accept: str,
    target: str,
    token: str | None,
    status: int,
) -> None:
    """Opening early never hides who may not watch, or what is not there."""
    token = f"Bearer {plane.admin}" if token is None else token
    authorization = f"\nAuthorization: {token}" if token else ""
    async with asked(port, f"GET {target} HTTP/1.1{authorization}{accept}") as reader:
        head = (await read_until(reader, b"\r\n\r\n")).lower()

        assert head.startswith(f"http/1.1 {status} ")
        assert "content-type: application/json\r\n" in head
        assert head.count("x-request-id: ") == 1
        assert ("www-authenticate: bearer\r\n" in head) == (status == 401)


@pytest.mark.parametrize("accept", ["", EVENTS], ids=["lines", "events"])
async def test_a_watchers_leaving_ends_its_call(plane: Control, port: int, accept: str) -> None:
    """Within a second, also where nothing was ever sent."""
    token = f"\nAuthorization: Bearer {plane.admin}"
    pipeline = plane.plane.pipeline
    async with asked(port, f"GET /stream:watch HTTP/1.1{token}{accept}") as reader:
        await read_until(reader, b"\r\n\r\n")
        assert pipeline.running == 1
    assert await eventually(lambda: not pipeline.running) < 1


@pytest.mark.parametrize("accept", ["", EVENTS], ids=["lines", "events"])
async def test_a_server_that_stops_ends_its_streams_with_a_retry_hint(plane: Control, port: int, accept: str) -> None:
    """The last thing in a watch says that the server stops and when to come back; then the stream ends in order."""
    token = f"\nAuthorization: Bearer {plane.admin}"
    async with asked(port, f"GET /stream:watch HTTP/1.1{token}{accept}") as reader:
        await read_until(reader, b"\r\n\r\n")
        plane.plane.stop()
        rest = await read_until(reader, b"0\r\n\r\n")

    assert ("event: error" in rest) == bool(accept)
    assert '"reason": "SERVER_STOPPING"' in rest.replace('":"', '": "')
    assert "retry_delay" in rest
    assert await plane.plane.pipeline.finished(5)


@pytest.mark.parametrize(
    ("path", "status", "reason"),
    [
        ("/%0A", 404, "PATH_NOT_FOUND"),
        ("//", 404, "PATH_NOT_FOUND"),
        ("/stream%0A", 404, "PATH_NOT_FOUND"),
        ("/console%0A", 404, "PATH_NOT_FOUND"),
        ("/docs%0A", 404, "PATH_NOT_FOUND"),
        ("/docs/a%0A/b", 404, "PATH_NOT_FOUND"),
        ("/healthz%0a", 404, "PATH_NOT_FOUND"),
        ("/nope", 404, "PATH_NOT_FOUND"),
        ("/stream/%zz", 400, "INVALID_URL"),
        ("/stream/%ff", 400, "INVALID_URL"),
        ("/stream/a%0Ab", 401, "TOKEN_MISSING"),
        ("/nodes/", 404, "PATH_NOT_FOUND"),
        ("/v1/nodes/", 404, "PATH_NOT_FOUND"),
        ("/v1/nodes//", 404, "PATH_NOT_FOUND"),
        ("/v1/sessions/:watch", 404, "PATH_NOT_FOUND"),
    ],
)
async def test_hostile_paths_are_the_gateways(port: int, path: str, status: int, reason: str) -> None:
    """A path that no route has gets the same clean refusal, whatever is in it."""
    async with asked(port, f"GET {path} HTTP/1.1\nConnection: close") as reader:
        head = (await read_until(reader, b"\r\n\r\n")).lower()
        body = json.loads(await reader.read())

    assert head.startswith(f"http/1.1 {status} ")
    assert "content-type: application/json\r\n" in head
    assert body["details"][0]["reason"] == reason


async def test_details_have_proto_names(plane: Control, port: int) -> None:
    """The members of an error's details are spelt as everything else: ``field_violations``, ``retry_delay``."""
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        headers = {"authorization": f"Bearer {plane.admin}"}
        ours = (await client.get("/stream?limit=0", headers=headers)).json()
        gateways = (await client.get("/stream?limit=x", headers=headers)).json()

    for body in (ours, gateways):
        assert [v["field"] for d in body["details"] for v in d.get("field_violations", ())] == ["limit"]
        assert "fieldViolations" not in json.dumps(body)


async def test_what_every_error_says(plane: Control, port: int) -> None:
    """The name of the code is in errors of the gateway, of the handlers, and in the end of a stream that failed."""
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        headers = {"authorization": f"Bearer {plane.admin}"}
        found = [
            (await client.get(path, headers=headers)).json()["status"]
            for path in ("/nope", "/v1/nodes/nope", "/v1/nodes?limit=0", "/stream/nope:watch")
        ]
        unknown = (await client.get("/v1/nodes")).json()["status"]

    assert found == ["NOT_FOUND", "NOT_FOUND", "INVALID_ARGUMENT", "NOT_FOUND"]
    assert unknown == "UNAUTHENTICATED"


async def test_head_and_options_of_the_mounted_gateway(plane: Control, port: int) -> None:
    """HEAD needs a token as GET does; OPTIONS says what a path can do to anybody."""
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        headers = {"authorization": f"Bearer {plane.admin}"}
        refused, head = await client.head("/v1/nodes"), await client.head("/v1/nodes", headers=headers)
        got, options = await client.get("/v1/nodes", headers=headers), await client.options("/v1/nodes/a")

    assert (refused.status_code, head.status_code, options.status_code) == (401, 200, 204)
    assert head.headers["content-length"] == got.headers["content-length"]
    assert options.headers["allow"] == "DELETE, GET, HEAD, OPTIONS, PATCH"


async def test_a_token_is_not_stored(plane: Control, port: int) -> None:
    """A new token is 201 and kept by no cache; at its old path it is still 200."""
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        headers = {"authorization": f"Bearer {plane.admin}"}
        asked = {"role": "DEVELOPER", "subject": "ann"}
        new, old = [await client.post(path, json=asked, headers=headers) for path in ("/v1/tokens", "/tokens")]

    assert (new.status_code, old.status_code) == (201, 200)
    assert new.headers["cache-control"] == old.headers["cache-control"] == "no-store"
    assert "deprecation" in old.headers
    assert "deprecation" not in new.headers


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_another_id_in_the_body(plane: Control, port: int, method: str) -> None:
    """A profile is not written under another name than the path's, nor is another one."""
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        headers = {"authorization": f"Bearer {plane.admin}"}
        answer = await client.request(method, "/v1/profiles/a", json={"profile": "b"}, headers=headers)
        found = (await client.get("/v1/profiles", headers=headers)).json()["items"]

    assert answer.status_code == 400
    assert answer.json()["details"][0]["metadata"]["field"] == "profile.profile"
    assert found == []
