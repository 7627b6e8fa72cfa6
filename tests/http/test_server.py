"""What a listener does with clients that never become a request, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import uvicorn
from websockets.asyncio.client import connect

from footlights.http.server import ConnectionLimits, Connections

DEADLINE_S = 10.0


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - conditions of all kinds
            await asyncio.sleep(0.01)


class Listener:
    """A listener with an application that answers with what it was sent."""

    def __init__(self, port: int, connections: Connections) -> None:
        self.port, self.connections = port, connections
        self.stuck = asyncio.Event()

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, *pieces: bytes) -> tuple[int, dict[str, Any]]:
        """Send pieces, each once the one before has left; return status and JSON of the answer."""
        reader, writer = await self.open()
        with contextlib.closing(writer):
            for piece in pieces:
                with contextlib.suppress(ConnectionError):
                    writer.write(piece)
                    await writer.drain()
            return await answer(reader)


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, Any]]:
    async with asyncio.timeout(DEADLINE_S):
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head.split()[1])
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
        body = await reader.readexactly(int(fields[b"content-length"]))
    return status, json.loads(body)


def reason(body: dict[str, Any]) -> str:
    [info] = body["details"]
    assert info["domain"] == "test.example"
    return str(info["reason"])


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
        return
    if scope["path"] == "/endless":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
            await asyncio.sleep(0)
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    names = sorted(name.decode() for name, _ in scope["headers"])
    text = json.dumps({"method": scope["method"], "body": body.decode(), "headers": names}).encode()
    headers = [(b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text})


@contextlib.asynccontextmanager
async def listening(
    limits: ConnectionLimits, on_refused: Callable[[], object] = lambda: None
) -> AsyncIterator[Listener]:
    connections = Connections(limits, error_domain="test.example", on_refused=on_refused)
    config = uvicorn.Config(application, lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=1)
    connections.configure(config)
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
    listener = socket.create_server(("127.0.0.1", 0))

    async def sweep() -> None:
        while True:
            await asyncio.sleep(0.05)
            await connections.sweep()

    tasks = [asyncio.create_task(server.serve(sockets=[listener])), asyncio.create_task(sweep())]
    try:
        await until(lambda: server.started)
        yield Listener(listener.getsockname()[1], connections)
    finally:
        server.should_exit = True
        await tasks[0]
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize(
    "endless", [b"GET / HTTP/1.1\r\nX: ", b"GET /", b"GET / HTTP/1.1\r\n"], ids=["value", "path", "fields"]
)
async def test_a_head_without_end_is_refused_after_its_first_64_kib(endless: bytes) -> None:
    """One value, one path or many fields: 431 after little more than the limit, however much was to come."""
    filling = b"a: b\r\n" * 11_000 if endless.endswith(b"\r\n") else b"a" * 66_000
    async with listening(ConnectionLimits()) as listener:
        reader, writer = await listener.open()
        sent = 0
        with contextlib.closing(writer):
            writer.write(endless)
            with contextlib.suppress(ConnectionError):
                async with asyncio.timeout(DEADLINE_S):
                    while not reader.at_eof() and sent < 120 << 20:
                        writer.write(filling)
                        sent += len(filling)
                        await writer.drain()
                        if reader._buffer:  # type: ignore[attr-defined]
                            break
            status, body = await answer(reader)

        assert (status, reason(body)) == (431, "HEAD_TOO_LARGE")
        assert sent < 8 << 20
        assert (await listener.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"))[0] == 200


async def test_a_head_of_almost_64_kib_and_a_large_body_behind_it_pass() -> None:
    """The bound is of the head alone: neither a large body nor a second request counts."""
    head = b"POST / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 60_000 + b"\r\nContent-Length: 1000000\r\n\r\n"
    async with listening(ConnectionLimits()) as listener:
        reader, writer = await listener.open()
        with contextlib.closing(writer):
            for _ in range(3):
                writer.write(head + b"b" * 1_000_000)
                status, body = await answer(reader)
                assert (status, len(body["body"])) == (200, 1_000_000)


async def test_half_a_request_is_not_held() -> None:
    """A head that stops is answered 408, also on a kept connection; one without a byte is closed."""
    half = b"GET / HTTP/1.1\r\nHost: a\r\n"
    async with listening(ConnectionLimits(head_s=0.3)) as listener:
        halves = [await listener.open() for _ in range(50)]
        silent, kept = await listener.open(), await listener.open()
        for _, writer in halves:
            writer.write(half)
        kept[1].write(half + b"\r\n" + half)

        for reader, _ in halves:
            status, body = await answer(reader)
            assert (status, reason(body)) == (408, "HEAD_TOO_SLOW")
        assert (await answer(kept[0]))[0] == 200
        assert (await answer(kept[0]))[0] == 408
        async with asyncio.timeout(DEADLINE_S):
            assert await silent[0].read() == b""
            for _, writer in [*halves, silent, kept]:
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()
        await until(lambda: not listener.connections.count)


async def test_a_slow_body_is_the_applications_matter() -> None:
    """Once the head is there its time is over: a body may come later, by the application's own rules."""
    async with listening(ConnectionLimits(head_s=0.2)) as listener:
        reader, writer = await listener.open()
        with contextlib.closing(writer):
            writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n")
            await asyncio.sleep(0.5)
            writer.write(b"abc")
            status, body = await answer(reader)

    assert (status, body["body"]) == (200, "abc")


async def test_who_reads_nothing_is_cut_off() -> None:
    """An answer that nobody takes does not hold its connection."""
    async with listening(ConnectionLimits(write_s=0.3)) as listener:
        _, writer = await listener.open()
        with contextlib.closing(writer):
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
            await until(lambda: listener.connections.count)
            await until(lambda: not listener.connections.count)


async def test_connections_are_bounded_per_address_and_in_all() -> None:
    """One too many is told so and closed; those before go on, and once one leaves there is room again."""
    refused: list[None] = []
    for limits in (ConnectionLimits(connections_per_ip=3), ConnectionLimits(connections=3)):
        async with listening(limits, lambda: refused.append(None)) as listener:
            open_ = [await listener.open() for _ in range(3)]
            status, body = await listener.ask()
            assert (status, reason(body)) == (503, "TOO_MANY_CONNECTIONS")

            reader, writer = open_[0]
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await answer(reader))[0] == 200
            writer.close()
            await until(lambda: listener.connections.count == 2)
            assert (await listener.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"))[0] == 200
            for _, writer in open_:
                writer.close()
    assert len(refused) == 2


async def test_websockets_count_as_connections_and_end() -> None:
    """A WebSocket stays counted once, works, and makes room when it ends."""
    async with listening(ConnectionLimits(connections_per_ip=1)) as listener:
        async with connect(f"ws://127.0.0.1:{listener.port}/", compression=None) as socket_:
            await socket_.send("hello")
            assert await socket_.recv() == "hello"
            assert listener.connections.count == 1
            assert (await listener.ask())[0] == 503
        await until(lambda: not listener.connections.count)
        assert (await listener.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"))[0] == 200


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("offer", [b"h2c", b"TLS/1.0", b"websocket-not"])
async def test_an_upgrade_that_is_not_served_is_ignored(offer: bytes, together: bool) -> None:
    """The request is read whole, body included, in one piece or two, and the connection goes on."""
    head = b"POST /x HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade, HTTP2-Settings\r\nUpgrade: " + offer
    head += b"\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nContent-Length: 5\r\nX-Own: 1\r\n\r\n"
    async with listening(ConnectionLimits()) as listener:
        reader, writer = await listener.open()
        with contextlib.closing(writer):
            for _ in range(2):
                for piece in [head + b"whole"] if together else [head, b"wh", b"ole"]:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
                status, body = await answer(reader)
                assert (status, body["method"], body["body"]) == (200, "POST", "whole")
                assert body["headers"] == ["connection", "content-length", "host", "x-own"]


@pytest.mark.parametrize(
    "nonsense", [b"\x16\x03\x01\x02\x00\x01", b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", b"HELO\r\n\r\n"]
)
async def test_what_is_not_http_is_refused(nonsense: bytes) -> None:
    """A TLS hello, a proxy's CONNECT and other protocols are answered 400."""
    async with listening(ConnectionLimits()) as listener:
        status, body = await listener.ask(nonsense)

    assert (status, reason(body)) == (400, "NOT_HTTP")
