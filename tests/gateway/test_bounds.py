"""What a client controls is bounded, each with its own status.

Covers `gateway.app`, `gateway.body` and `gateway.options`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from footlights.gateway import Gateway, LocalUpstream, Options
from tests.conformance.echo import message, service
from tests.conformance.server import Running, serving
from tests.gateway.handlers import HandlerCall, LocalHandlers
from tests.gateway.wire import opened, read_until, wait_for

OPTIONS = Options(
    strict=True, max_body_bytes=1000, max_header_count=20, max_url_bytes=500, max_concurrent_calls=2, retry_after_s=7,
    default_timeout_s=5, max_timeout_s=0.3, body_timeout_s=0.3,
)  # fmt: skip


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    """A gateway with little room."""
    with serving(OPTIONS) as found:
        yield found


@pytest.fixture
def client(running: Running) -> Iterator[httpx2.Client]:
    """A client of it."""
    with httpx2.Client(base_url=f"http://127.0.0.1:{running.port}", timeout=10) as found:
        yield found


def test_body(client: httpx2.Client) -> None:
    """
    A body that is too large is 413, announced or not.
    """

    def chunks() -> Iterator[bytes]:
        yield b'{"name":"'
        for _ in range(20):
            yield b"x" * 100

    assert client.post("/v1/putstar", content="x" * 1001).status_code in (405, 413)
    assert client.put("/v1/putstar", content='"' + "x" * 1001).status_code == 413
    assert client.put("/v1/putstar", content=chunks()).status_code == 413
    assert client.put("/v1/putstar", content='{"name":"' + "x" * 900 + '"}').status_code == 200


def test_upload(client: httpx2.Client) -> None:
    """
    A client stream may be long; one message of it may not.
    """
    long = '{"name":"x"}\n' * 70

    assert client.post("/v1/things:upload", content=(part.encode() for part in [long] * 3)).json()["received"] == 210
    large = client.post("/v1/things:upload", content=iter([b'{"name":"' + b"x" * 2000 + b'"}']))
    assert large.status_code == 413


def test_headers(client: httpx2.Client) -> None:
    """
    Too many headers are 431.
    """
    answer = client.get("/v1/things", headers={f"x-{index}": "v" for index in range(30)})

    assert answer.status_code == 431


def test_url(client: httpx2.Client) -> None:
    """
    A URL that is too long is 414.
    """
    assert client.get("/v1/things?name=" + "x" * 600).status_code == 414


def test_deadline(client: httpx2.Client) -> None:
    """
    A call has a deadline, which a client can shorten and lengthen up to a limit; it is 504.
    """
    for headers in ({}, {"grpc-timeout": "10S"}, {"grpc-timeout": "50m"}):
        answer = client.get("/v1/slow", headers=headers)

        assert answer.status_code == 504
        assert answer.json()["code"] == 4


def test_pausing_body(running: Running) -> None:
    """
    A body that pauses too long is 408.
    """
    with opened(running.port, "PUT /v1/putstar HTTP/1.1\nContent-Length: 10", b"{") as peer:
        assert b" 408 " in read_until(peer, b"\r\n")


def test_overload(running: Running, client: httpx2.Client) -> None:
    """
    Beyond the limit calls are shed at once, with 503 and Retry-After, and taken again when there is room.
    """
    watch = "GET /v1/things:watch?num32=1&flag=true HTTP/1.1"
    with opened(running.port, watch) as one, opened(running.port, watch) as other:
        read_until(one, b'"seq":0')
        read_until(other, b'"seq":0')
        answer = client.get("/v1/things")

        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "7"
        assert answer.json()["details"][0]["reason"] == "OVERLOADED"
        assert answer.json()["details"][1]["retryDelay"] == "7s"
        assert client.get("/nope").status_code == 404
    wait_for(lambda: client.get("/v1/things").status_code == 200)


async def test_overload_at_one_moment() -> None:
    """
    Requests that arrive together never exceed the limit, also where each one waits for its turn before it runs.
    """
    running, most = 0, 0
    together = asyncio.Event()

    async def pace() -> bool:
        await together.wait()
        return True

    async def slow(request: Any, call: HandlerCall) -> Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return message("Echo")()

    functions = {rpc.name: slow for rpc in service().methods if not rpc.server_streaming}
    upstream = LocalUpstream(LocalHandlers(service(), functions))
    gateway = Gateway(upstream, [service()], Options(strict=True, max_concurrent_calls=5, pace=pace))
    transport = httpx2.ASGITransport(app=gateway)
    async with httpx2.AsyncClient(transport=transport, base_url="http://gateway") as asked:
        answers = [asyncio.create_task(asked.get("/v1/things")) for _ in range(60)]
        await asyncio.sleep(0)
        assert gateway.in_flight <= 5
        together.set()
        statuses = [answer.status_code for answer in await asyncio.gather(*answers)]

    assert most == 5
    assert (statuses.count(200), statuses.count(503)) == (5, 55)
    assert gateway.in_flight == 0


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /v1/things?" + b"%" * 50 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /v1/simple/\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /v1/things HTTP/1.1\r\nHost: \xff\r\nGrpc-Metadata-X-Bin: \xff\r\n\r\n",
        b"GET /v1/things HTTP/1.1\r\nHost: a\r\nGrpc-Timeout: 99999999999999999999S\r\n\r\n",
        b"GET /v1/things HTTP/1.1\r\nHost: a\r\nAccept: \xff\r\nAuthorization: \x01\r\n\r\n",
        b"PUT /v1/putstar HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n\xff\xfe\x00\x00",
        b"PUT /v1/putstar HTTP/1.1\r\nHost: a\r\nContent-Length: 900\r\n\r\n" + b"[" * 900,
        b"PUT /v1/putstar HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n" + b'"\\ud800"',
        b"GET /v1/things?labels[=1&[a]=2&[]=3 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET " + b"/" * 400 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /v1/deep/" + b"a/" * 200 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
def test_hostile(running: Running, request_bytes: bytes) -> None:
    """
    A hostile request gets an answer below 500, and the next one is served.
    """
    import socket

    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as peer:
        peer.sendall(request_bytes)
        status = int(read_until(peer, b"\r\n").split()[1])

    assert status < 500
