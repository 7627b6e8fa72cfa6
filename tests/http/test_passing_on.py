"""Connections that are passed on: bytes both ways, at the pace of the slower side, and an end for both."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import uvicorn

from footlights.http.passing_on import HTTP2_PREFACE
from footlights.http.server import ConnectionLimits, Connections


async def _app(scope: object, receive: object, send: object) -> None:
    raise AssertionError("nothing here is HTTP/1.1")


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        yield


@contextlib.asynccontextmanager
async def before(port: int) -> AsyncIterator[tuple[int, Connections]]:
    """Run a listener that passes HTTP/2 on to a port."""
    connections = Connections(ConnectionLimits(connections_per_ip=2))
    connections.http2_at = ("127.0.0.1", port)
    config = uvicorn.Config(_app, port=0, lifespan="off", log_config=None)
    connections.configure(config)
    server = _Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1], connections
    finally:
        server.should_exit = True
        await task


async def test_bytes_pass_both_ways_and_an_end_is_both_sides() -> None:
    """What came first too; the connection counts as its client's until it is over, and other ones are refused."""
    ended = asyncio.Event()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.close()
        ended.set()

    other = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with other, before(other.sockets[0].getsockname()[1]) as (port, connections):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        sent = HTTP2_PREFACE + bytes(4 << 20)
        # Nothing is read for a while: it waits where it comes from.
        writer.write(sent)
        async with asyncio.timeout(20):
            assert await reader.readexactly(len(sent)) == sent
        assert connections.count == 1
        writer.close()
        async with asyncio.timeout(10):
            await ended.wait()
            while connections.count:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_a_server_that_is_not_there_ends_the_connection() -> None:
    """Its client is not left waiting."""
    async with before(1) as (port, connections):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HTTP2_PREFACE)
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            while connections.count:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        writer.close()
