"""What HTTP serves beside the API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest

from footlights.control.assembly import has_tls
from footlights.control.http import Probes, Readiness, admin
from footlights.control.observability.metrics import Metrics
from footlights.supervision import Supervisor
from tests.control.harness import Control, control, problem


async def test_a_probe_learns_whether_the_server_is_of_use(plane: Control) -> None:
    """Without a token: 200 while the store answers, 503 when it does not. Why is told to operators."""
    well = await plane.rest("GET", "/healthz", "")
    # Its token is remembered for a few seconds; afterwards only clients on this machine are told.
    await plane.rest("GET", "/metrics")
    await plane.store.close()
    ill, why = await plane.rest("GET", "/healthz", ""), await plane.rest("GET", "/healthz")

    assert (well.status_code, well.json()) == (200, {"status": "SERVING"})
    assert ill.status_code == 503
    assert ill.json() == {"status": "NOT_SERVING"}
    assert why.json() == {"status": "NOT_SERVING", "message": "The store cannot be read. The log says why."}


async def test_a_process_that_stops_is_not_ready_and_lives(plane: Control) -> None:
    """Readiness turns first, so that nothing new is sent here; liveness stays, so that nothing kills it early."""
    plane.plane.stop()

    ready, live = await plane.rest("GET", "/readyz"), await plane.rest("GET", "/livez", "")

    assert (ready.status_code, ready.json()["message"]) == (503, "The server is stopping.")
    assert live.status_code == 200
    refused = await plane.rest("GET", "/stream")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert problem(refused)["reason"] == "SERVER_STOPPING"


async def test_a_process_whose_loop_fails_again_and_again_is_not_ready(plane: Control) -> None:
    """It says which loop; after a pass that succeeds it is ready again."""

    class Failing(Supervisor):
        """Has loops that fail."""

        failing: tuple[str, ...] = ("placing", "reaping")  # type: ignore[assignment]

    supervisor = Failing()
    readiness = Readiness(plane.store, supervisor)

    assert await readiness.problem() == "These loops fail again and again: placing, reaping. The log says why."
    supervisor.failing = ()
    assert await readiness.problem() == ""


async def test_a_fault_beside_the_api_does_not_blame_the_store(plane: Control) -> None:
    """A page that fails is an internal error in the API's own form, and probes go on answering."""

    class Broken(Metrics):
        """Cannot be read."""

        def text(self) -> bytes:
            raise RuntimeError("boom")

    app = admin(Probes(Broken(), plane.plane.readiness, queued=lambda: 0))
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        failed, ready = await client.get("/metrics"), await client.get("/readyz")

    assert failed.status_code == 500
    assert problem(failed)["metadata"] == {"request_id": failed.headers["x-request-id"]}
    assert "store" not in failed.text
    assert ready.status_code == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/healthz", "/metrics", "/openapi.json", "/docs", "/"])
async def test_options_and_head_are_served_beside_the_api(plane: Control, path: str) -> None:
    """OPTIONS, without a token, says what a path allows, as a refusal does, and HEAD is answered like GET."""
    options, head = await plane.rest("OPTIONS", path, ""), await plane.rest("HEAD", path)
    refused = await plane.rest("PUT", path, "")

    assert (options.status_code, options.headers["allow"], options.content) == (204, "GET, HEAD, OPTIONS", b"")
    assert (head.status_code, head.content) == (307 if path == "/" else 200, b"")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "reason"),
    [
        ("GET", "/nowhere", {}, 404, "PATH_NOT_FOUND"),
        ("GET", "/docs/nowhere", {}, 404, "PATH_NOT_FOUND"),
        ("GET", "/console/nowhere", {}, 404, "PATH_NOT_FOUND"),
        ("POST", "/console/", {}, 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/metrics", {}, 405, "METHOD_NOT_ALLOWED"),
        ("PATCH", "/stream", {}, 405, "METHOD_NOT_ALLOWED"),
        ("OPTIONS", "/nowhere", {"headers": {"origin": "http://a", "access-control-request-method": "GET"}}, 404,
         "PATH_NOT_FOUND"),
        ("GET", "/stream", {"token": ""}, 401, "TOKEN_MISSING"),
        ("GET", f"/stream?state={'x' * 60_000}", {}, 414, "URL_TOO_LONG"),
        ("GET", "/stream", {"headers": {f"x-{n}": "1" for n in range(200)}}, 431, "TOO_MANY_HEADERS"),
        ("GET", "/stream", {"headers": {"grpc-timeout": "1n"}}, 504, "DEADLINE_EXCEEDED"),
        ("GET", "/stream", {"headers": {"grpc-timeout": "x"}}, 400, "INVALID_HEADER"),
        ("POST", "/stream", {"content": b"x" * (2 << 20)}, 413, "BODY_TOO_LARGE"),
        ("POST", "/stream", {"content": b"{"}, 400, "INVALID_JSON"),
        ("POST", "/stream/x/whep", {"token": ""}, 401, "GRANT_MISSING"),
        ("POST", "/stream/x/whep", {"token": "x"}, 401, "GRANT_INVALID"),
        ("PUT", "/stream/x/whep", {}, 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/stream/x/sign_in", {}, 426, "WEBSOCKET_REQUIRED"),
    ],
)  # fmt: skip
async def test_every_error_over_rest_has_one_error_info(
    tmp_path: Path, migrated: Path, method: str, path: str, options: dict[str, Any], status: int, reason: str
) -> None:
    """Whatever makes it: the router, CORS, limits, pages beside the API, the front door."""
    async with control(tmp_path, migrated, cors_origins=("http://a",)) as running:
        answer = await running.rest(method, path, **options)

    assert (answer.status_code, problem(answer)["reason"]) == (status, reason)
    assert path.startswith("/console/") or answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("method", "path", "role"),
    [("GET", "/nodes", "api"), ("GET", "/console/", "api"), ("POST", "/stream/x/whep", "frontdoor")],
)
async def test_a_request_for_another_role_is_refused_with_its_name(
    tmp_path: Path, migrated: Path, method: str, path: str, role: str
) -> None:
    """Not as something that does not exist, which would look as if a session were gone."""
    options: dict[str, Any] = {"roles": ("loops",), "database": "postgresql://unused@localhost/unused"}
    async with control(tmp_path, migrated, **options) as running:
        answer = await running.rest(method, path)

    told = problem(answer)
    assert (answer.status_code, told["code"]) == (501, 12)
    assert (told["reason"], told["metadata"]) == ("ROLE_NOT_SERVED", {"role": role})


async def test_metrics_are_prometheus_and_say_what_is_going_on(plane: Control) -> None:
    """Sessions by state, slots by use, nodes, calls by code: no label of a session or user."""
    agent = await plane.agent()
    session = await plane.running(agent)
    await plane.create()
    await plane.rest("GET", "/stream/nope")
    await plane.reap()

    answer = await plane.rest("GET", "/metrics")

    text = answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    for line in (
        'footlights_sessions{application="fake",state="READY"} 1.0',
        'footlights_sessions{application="fake",state="PENDING"} 1.0',
        'footlights_slots{kind="GPU",state="leased"} 1.0',
        'footlights_slots{kind="GPU",state="free"} 0.0',
        'footlights_nodes{state="READY"} 1.0',
    ):
        assert line in text
    assert 'grpc_code="NOT_FOUND"' in text
    assert session.session_id not in text
    assert "admin" not in text


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/sessions"),
        ("GET", "/v1/nowhere"),
        ("POST", "/v1/tokens"),
        ("GET", "/stream"),
        ("POST", "/stream/x/whep"),
        ("POST", "/v1/sessions/x/whep"),
        ("GET", "/console/"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
        ("GET", "/metrics"),
        ("GET", "/readyz"),
        ("PUT", "/readyz"),
        ("OPTIONS", "/v1/sessions"),
    ],
)
@pytest.mark.parametrize("token", [None, ""])
async def test_every_path_of_a_server_answers_so(plane: Control, method: str, path: str, token: str | None) -> None:
    """API, front door, console, documents and probes, with a token and without. Files of pages may be cached."""
    answer = await plane.rest(method, path, token)

    assert answer.headers.get_list("x-content-type-options") == ["nosniff"]
    assert answer.headers.get_list("strict-transport-security") == ["max-age=31536000"]
    expected = "no-cache" if path == "/console/" else "no-store"
    assert answer.headers.get_list("cache-control") == [expected]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://streams.example.com", True),
        ("http://streams.example.com", False),
        ("https://localhost:8443", False),
        ("https://127.0.0.1:8443", False),
    ],
)
def test_tls_is_demanded_of_browsers_for_a_name_of_its_own(url: str, expected: bool) -> None:
    """Not for that of this machine: the demand holds for all ports of a name, those of other programs included."""
    assert has_tls(url) is expected
