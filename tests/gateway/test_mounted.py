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
