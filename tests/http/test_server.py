"""What a listener does with clients that never become a request, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import uvicorn
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from websockets.asyncio.client import connect

from footlights.http.server import ConnectionLimits, Connections

DEADLINE_S = 10.0
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
CODES = {400: (3, "INVALID_ARGUMENT"), 408: (4, "DEADLINE_EXCEEDED"), 431: (3, "INVALID_ARGUMENT"),
         503: (14, "UNAVAILABLE")}  # fmt: skip


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - conditions of all kinds
            await asyncio.sleep(0.01)


class Listener:
    """A listener with an application that answers with what it was sent."""

    def __init__(self, port: int, connections: Connections) -> None:
        self.port, self.connections = port, connections
        self.released = asyncio.Event()
        """What the path ``/held`` waits for."""

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
    said = json.loads(body)
    assert status == 200 or (said["code"], said["status"]) == CODES[status]
    return status, said


def reason(body: dict[str, Any]) -> str:
    [info] = body["details"]
    assert info["domain"] == "test.example"
    return str(info["reason"])


async def application(listener: Listener, scope: dict[str, Any], receive: Any, send: Any) -> None:
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
    if scope["path"] == "/early":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"{}"})
        return
    if scope["path"] == "/held":
        await listener.released.wait()
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message.get("body", b"")
        more = message.get("more_body", False)
    names = sorted(name.decode() for name, _ in scope["headers"])
    text = json.dumps({"method": scope["method"], "body": body.decode(), "headers": names}).encode()
    headers = [(b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text})


@contextlib.asynccontextmanager
async def listening(
    limits: ConnectionLimits, on_refused: Callable[[], object] = lambda: None, **options: Any
) -> AsyncIterator[Listener]:
    connections = Connections(limits, error_domain="test.example", on_refused=on_refused)
    socket_ = socket.create_server(("127.0.0.1", 0))
    listener = Listener(socket_.getsockname()[1], connections)
    config = uvicorn.Config(
        partial(application, listener),
        interface="asgi3",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,
        **options,
    )
    connections.configure(config)
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]

    async def sweep() -> None:
        while True:
            await asyncio.sleep(0.05)
            await connections.sweep()

    tasks = [asyncio.create_task(server.serve(sockets=[socket_])), asyncio.create_task(sweep())]
    try:
        await until(lambda: server.started)
        yield listener
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


STREAM = (
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\na\r\n\r\nbc\r\n", "a\r\n\r\nbc\r\n"),
    (b"\r\n" + GET, ""),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
     b"4\r\n\r\n\r\n\r\n1;x=y\r\nz\r\n0\r\nT: 1\r\n\r\n", "\r\n\r\nz"),
    (b"POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\nwhole", "whole"),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", ""),
    (b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx", "x"),
    (GET, ""),
)  # fmt: skip
"""Requests of every kind, and the body that each is answered with."""


async def test_requests_that_are_sent_ahead_are_answered_in_turn_wherever_reads_end() -> None:
    """Bodies with a length, in chunks with trailers, after an offer of h2c: split anywhere, all are read whole."""
    whole = b"".join(request for request, _ in STREAM)
    async with listening(ConnectionLimits()) as listener:
        for at in range(1, len(whole) + 1, 3):
            reader, writer = await listener.open()
            with contextlib.closing(writer):
                writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                writer.write(whole[:at])
                for _ in range(3):
                    await asyncio.sleep(0)
                writer.write(whole[at:])
                for request, body in STREAM:
                    if b"100-continue" in request:
                        async with asyncio.timeout(DEADLINE_S):
                            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
                    status, said = await answer(reader)
                    assert (status, said["body"]) == (200, body), at


@pytest.mark.parametrize(
    "before", [b"", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 90000\r\n\r\n" + b"b" * 90_000]
)
async def test_what_is_sent_ahead_takes_little_and_is_answered(before: bytes) -> None:
    """12,000 requests in one go, behind one that takes its time: two exist at a time, and all are answered."""
    ahead = b"GET / HTTP/1.1\r\n\r\n"

    def cycles() -> int:
        gc.collect()
        return sum(isinstance(each, RequestResponseCycle) for each in gc.get_objects())

    # Other tests of this process may have left some.
    left = cycles()
    async with listening(ConnectionLimits()) as listener:
        reader, writer = await listener.open()
        with contextlib.closing(writer):
            writer.write(before + GET.replace(b" / ", b" /held ") + ahead * 12_000)
            if before:
                assert (await answer(reader))[0] == 200
            await asyncio.sleep(0.2)
            assert cycles() - left <= 2
            listener.released.set()
            for _ in range(12_001):
                assert (await answer(reader))[0] == 200


async def test_an_endless_pipeline_is_not_read_while_an_answer_waits() -> None:
    """However often its application asks for more: what is kept is bounded, the rest stays with the client."""
    async with listening(ConnectionLimits()) as listener:
        _, writer = await listener.open()
        with contextlib.closing(writer):
            writer.write(GET.replace(b" / ", b" /held "))
            sent = 0
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    while sent < 64 << 20:
                        writer.write(GET * 4_000)
                        await writer.drain()
                        sent += len(GET) * 4_000
            assert sent < 32 << 20
            listener.released.set()


async def test_a_body_and_part_of_the_next_head_in_one_read_are_two_matters() -> None:
    """A body's end does not count as head: the request is answered, and so is the next once it is whole."""
    async with listening(ConnectionLimits()) as listener:
        reader, writer = await listener.open()
        with contextlib.closing(writer):
            writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 90000\r\n\r\n" + b"b" * 90_000 + GET[:9])
            assert len((await answer(reader))[1]["body"]) == 90_000
            writer.write(GET[9:])
            assert (await answer(reader))[0] == 200


@pytest.mark.parametrize(
    ("request_", "dribble"),
    [
        (GET, b"\r\n"),
        (b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n", b"x"),
        (b"POST /early HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    ],
    ids=["empty lines", "rest of a body", "chunks"],
)
@pytest.mark.parametrize("often", [False, True])
async def test_only_a_request_keeps_an_answered_connection(request_: bytes, dribble: bytes, often: bool) -> None:
    """Bytes that begin none, once or again and again, do not prolong its time."""
    async with listening(ConnectionLimits(), timeout_keep_alive=1) as listener:
        reader, writer = await listener.open()
        with contextlib.closing(writer):
            writer.write(request_)
            assert (await answer(reader))[0] == 200
            writer.write(dribble)
            async with asyncio.timeout(DEADLINE_S):
                with contextlib.suppress(ConnectionError):
                    while not reader.at_eof():
                        if often:
                            writer.write(dribble)
                        with contextlib.suppress(TimeoutError):
                            await asyncio.wait_for(reader.read(1), 0.1)
        await until(lambda: not listener.connections.count)


@pytest.mark.parametrize(
    "smuggled",
    [
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + GET,
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + GET,
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 34\r\n\r\n" + GET,
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nabcde",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\nabcde",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
        b"GET / HTTP/1.1\nHost: a\n\n",
    ],
)
async def test_a_body_without_one_length_is_refused(smuggled: bytes) -> None:
    """What two servers could read in two ways is 400, and nothing after it on the connection is a request."""
    async with listening(ConnectionLimits()) as listener:
        reader, writer = await listener.open()
        with contextlib.closing(writer):
            writer.write(GET + smuggled)
            assert (await answer(reader))[0] == 200
            status, body = await answer(reader)
            assert (status, reason(body)) == (400, "NOT_HTTP")
            async with asyncio.timeout(DEADLINE_S):
                assert await reader.read() == b""


async def test_a_websocket_behind_a_request_opens_after_its_answer() -> None:
    """Both in one read: the answer first, then the WebSocket, which works."""
    upgrade = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    upgrade += b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    async with listening(ConnectionLimits()) as listener:
        reader, writer = await listener.open()
        with contextlib.closing(writer):
            writer.write(GET + upgrade)
            assert (await answer(reader))[0] == 200
            async with asyncio.timeout(DEADLINE_S):
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
                writer.write(b"\x81\x82\0\0\0\0hi")
                assert await reader.readexactly(4) == b"\x81\x02hi"
            assert listener.connections.count == 1


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    private = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, *private) + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_tls_counts_and_ends_before_its_handshake(certificate: Path, loop: Any) -> None:
    """Who connects and says nothing is counted at once, turned away above the limit, and gone after a head's time.

    TLS itself works, also where the request comes with the end of the handshake; nonsense ends the connection.
    """
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    async def check() -> None:
        limits = ConnectionLimits(connections_per_ip=3, head_s=1)
        refused: list[None] = []
        options = {"ssl_certfile": str(certificate), "ssl_keyfile": str(certificate)}
        async with listening(limits, lambda: refused.append(None), **options) as listener:
            silent = [await listener.open() for _ in range(20)]
            await until(lambda: len(refused) == 17)
            assert listener.connections.count == 3
            await until(lambda: not listener.connections.count)
            for reader, writer in silent:
                async with asyncio.timeout(DEADLINE_S):
                    with contextlib.suppress(ConnectionError):
                        assert await reader.read() == b""
                writer.close()

            for _ in range(5):
                reader, writer = await asyncio.open_connection("127.0.0.1", listener.port, ssl=context)
                with contextlib.closing(writer):
                    writer.write(GET * 2)
                    assert [(await answer(reader))[0] for _ in range(2)] == [200, 200]
                    assert listener.connections.count == 1
                await until(lambda: not listener.connections.count)
            _, writer = await listener.open()
            writer.write(GET)
            await until(lambda: not listener.connections.count)
            writer.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(check())
