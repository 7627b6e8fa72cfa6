"""Streams over real HTTP: framing, failures, resumption, clients that leave and clients that do not read.

Covers `gateway.streaming`, `gateway.guard` and the uploads of `gateway.body`, and `encode.framing`.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator

import httpx2
import pytest

from footlights.gateway import Gateway, Options
from tests.conformance.echo import Echo, service
from tests.conformance.server import Running, serving
from tests.gateway.handlers import upstream_to
from tests.gateway.wire import opened, read_until, wait_for

EVENTS = {"accept": "text/event-stream"}


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    """A gateway of default options."""
    with serving(Options(keepalive_s=0.1)) as found:
        yield found


@pytest.fixture(scope="module", params=["grpc", "local"])
def strict(request: pytest.FixtureRequest) -> Iterator[Running]:
    """A strict one, with a socket between it and the service or none."""
    with serving(Options(strict=True, keepalive_s=0.1), local=request.param == "local") as found:
        yield found


def get(running: Running, target: str, headers: dict[str, str] | None = None) -> httpx2.Response:
    """An answer, whole."""
    return httpx2.get(f"http://127.0.0.1:{running.port}{target}", headers=headers or {}, timeout=10)


def test_lines(running: Running, strict: Running) -> None:
    """
    Without Accept a stream is lines of JSON.
    """
    for where, content_type in ((running, "application/json"), (strict, "application/x-ndjson")):
        answer = get(where, "/v1/things:watch?num32=2")

        assert answer.headers["content-type"] == content_type
        assert [json.loads(line)["result"]["seq"] for line in answer.text.splitlines()] == [0, 1]


def test_events(running: Running, strict: Running) -> None:
    """
    With it a stream is events: the message in strict mode, the line's object by default.
    """
    default, bare = get(running, "/v1/things:watch?num32=1", EVENTS), get(strict, "/v1/things:watch?num32=1", EVENTS)

    assert default.headers["content-type"] == bare.headers["content-type"] == "text/event-stream"
    assert bare.headers["cache-control"] == "no-cache"
    assert default.text == 'data: {"result":{"seq":0,"label":"l"}}\n\n'
    assert bare.text == 'data: {"seq":0,"label":"l"}\n\n'


def test_error_after_the_first_message(strict: Running) -> None:
    """
    A stream that breaks ends with its status: as a line, or as an event of its own type.
    """
    lines, events = (get(strict, "/v1/things:watch?num32=1&unum32=14", headers) for headers in ({}, EVENTS))

    assert json.loads(lines.text.splitlines()[-1])["error"]["code"] == 14
    name, data = events.text.strip().split("\n\n")[-1].split("\n")
    assert name == "event: error"
    assert json.loads(data.removeprefix("data: "))["message"] == "stream broke"


def test_error_before_the_first_message(running: Running, strict: Running) -> None:
    """
    A stream that fails before it begins has the failure's status; strict mode answers as for a unary call.
    """
    default = get(running, "/v1/things:watch?unum32=16")
    plain = get(strict, "/v1/things:watch?unum32=16", EVENTS)

    assert default.status_code == plain.status_code == 401
    assert default.json()["error"]["code"] == plain.json()["code"] == 16
    assert "www-authenticate" not in default.headers
    assert plain.headers["www-authenticate"] == "Bearer"


def test_no_messages(strict: Running) -> None:
    """
    A stream without messages is an empty 200.
    """
    answer = get(strict, "/v1/things:watch")

    assert (answer.status_code, answer.text) == (200, "")


def test_keepalive(strict: Running) -> None:
    """
    A quiet stream of events opens and says that it is alive, also before its first message.
    """
    for target, first in (("/v1/things:watch?flag=true", ""), ("/v1/things:watch?num32=1&flag=true", '"seq":0')):
        with opened(strict.port, f"GET {target} HTTP/1.1\nAccept: text/event-stream") as peer:
            got = read_until(peer, b": keep-alive\n\n").decode()

            assert got.startswith("HTTP/1.1 200")
            assert first in got


def test_lines_keep_alive(running: Running, strict: Running) -> None:
    """
    A quiet stream of lines sends blanks, which readers of JSON skip, and asks a proxy not to hold it back.
    """
    for where in (running, strict):
        with opened(where.port, "GET /v1/things:watch?num32=1&flag=true HTTP/1.1") as peer:
            got = read_until(peer, b"1\r\n \r\n1\r\n \r\n").lower()

        assert (b"x-accel-buffering: no" in got) is where.gateway.options.strict


@pytest.mark.parametrize("headers", [{}, EVENTS])
def test_a_server_that_stops_ends_its_streams(headers: dict[str, str]) -> None:
    """
    With a last frame of their own, in which they are told to come back; nothing new is begun.
    """
    with serving(Options(strict=True), local=True) as stopping, httpx2.Client(timeout=10) as client:
        url = f"http://127.0.0.1:{stopping.port}/v1/things:watch?num32=1&flag=true"
        with client.stream("GET", url, headers=headers) as answer:
            lines = answer.iter_lines()
            seen = [next(lines)]
            stopping.stop()
            seen += list(lines)
        after = get(stopping, "/v1/slow")

    said = next(line for line in reversed(seen) if line)
    status = json.loads(said.removeprefix("data: "))
    status = status.get("error", status)
    assert (status["code"], status["details"][0]["reason"]) == (14, "SERVER_STOPPING")
    assert (after.status_code, after.headers["retry-after"]) == (503, "1")


def test_a_cancelled_task_still_ends_its_stream() -> None:
    """
    As in a server that knows nothing of `Gateway.stop` and cancels what takes too long: the answer is whole.
    """
    asyncio.run(_cancelled())


async def _cancelled() -> None:
    echo, sent = Echo(), []
    began = asyncio.Event()

    async def receive() -> dict[str, object]:
        if not began.is_set():
            return {"type": "http.request", "body": b"", "more_body": False}
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    async def send(message: dict[str, object]) -> None:
        sent.append(message)
        began.set()

    async with upstream_to("local", service(), echo.functions()) as upstream:
        gateway = Gateway(upstream, [service()], Options(strict=True))
        path = "/v1/things:watch"
        scope = {"type": "http", "method": "GET", "path": path, "query_string": b"num32=1&flag=true", "headers": []}
        task = asyncio.create_task(gateway(scope, receive, send))  # type: ignore[arg-type]
        await began.wait()
        task.cancel()
        await task

    assert b'"code":14' in sent[-2]["body"]  # type: ignore[operator]
    assert sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


@pytest.mark.parametrize("accept", ["*/*", "text/event-stream"])
def test_disconnect_cancels_a_stream(strict: Running, accept: str) -> None:
    """
    A client that leaves a stream cancels its call within a second.
    """
    strict.echo.cancelled.clear()
    with opened(strict.port, f"GET /v1/things:watch?num32=1&flag=true HTTP/1.1\nAccept: {accept}") as peer:
        read_until(peer, b'"seq":0')
    assert wait_for(lambda: "Watch" in strict.echo.cancelled) < 1


@pytest.mark.parametrize(
    "head", ["GET /v1/slow?double_num=30 HTTP/1.1", "GET /v1/slow?double_num=30 HTTP/1.1\nContent-Length: 100"]
)
def test_disconnect_cancels_a_unary_call(strict: Running, head: str) -> None:
    """
    A client that leaves a unary call cancels it within a second, even with a body that its rule ignores.
    """
    strict.echo.cancelled.clear()
    strict.echo.running.clear()
    with opened(strict.port, head):
        wait_for(lambda: "Slow" in strict.echo.running)
    assert wait_for(lambda: "Slow" in strict.echo.cancelled) < 1


def test_disconnect_in_an_upload(strict: Running) -> None:
    """
    A client that leaves in the middle of an upload cancels its call.
    """
    head = "POST /v1/things:chat HTTP/1.1\nTransfer-Encoding: chunked"
    with opened(strict.port, head, b'c\r\n{"name":"a"}\r\n') as peer:
        read_until(peer, b'"label":"a"')
        before = strict.gateway.in_flight
    assert before == 1
    wait_for(lambda: strict.gateway.in_flight == 0)


def test_duplex(strict: Running) -> None:
    """
    A bidirectional stream answers while it is still being sent.
    """
    head = "POST /v1/things:chat HTTP/1.1\nTransfer-Encoding: chunked"
    with opened(strict.port, head) as peer:
        for name in ("a", "b", "c"):
            peer.sendall(b'c\r\n{"name":"%s"}\r\n' % name.encode())
            assert f'"label":"{name}"' in read_until(peer, b'"label":"%s"' % name.encode()).decode()
        peer.sendall(b"0\r\n\r\n")
        read_until(peer, b"0\r\n\r\n")


def test_bad_value_in_an_upload(strict: Running) -> None:
    """
    A value that is no message refuses the call.
    """
    answer = httpx2.post(
        f"http://127.0.0.1:{strict.port}/v1/things:upload", content='{"name":"a"}\n{"nope":1}', timeout=10
    )

    assert answer.status_code == 400
    assert "nope" in answer.json()["message"]


def test_slow_reader_holds_the_server_back(strict: Running) -> None:
    """
    A client that does not read stops the server from sending, and gets everything when it reads.
    """
    strict.echo.sent = 0
    padding = "x" * 6000
    with socket.socket() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.connect(("127.0.0.1", strict.port))
        peer.sendall(f"GET /v1/things:watch?num32=5000&parent={padding} HTTP/1.1\r\nHost: gw.test\r\n\r\n".encode())
        wait_for(lambda: strict.echo.sent > 10)
        seen = [-1]

        def is_still() -> bool:
            seen.append(strict.echo.sent)
            return len(seen) > 40 and len(set(seen[-40:])) == 1

        wait_for(is_still, 20)
        assert strict.echo.sent < 4000
        peer.settimeout(10)
        count, tail = 0, b""
        while not tail.endswith(b"0\r\n\r\n"):
            chunk = peer.recv(1 << 20)
            count += chunk.count(b'"seq":')
            tail = (tail + chunk)[-16:]

    assert strict.echo.sent == 5000
