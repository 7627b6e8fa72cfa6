"""Footlights' own application over real HTTP: the control plane of ``tests/control`` behind uvicorn, in one loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvicorn


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[int]:
    """Serve an application on 127.0.0.1 until the end of the block; gives its port."""
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_level="critical", proxy_headers=False, lifespan="off", server_header=False
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    await eventually(lambda: server.started or task.done())
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = server.force_exit = True
        async with asyncio.timeout(10):
            await task


@asynccontextmanager
async def asked(port: int, head: str, body: bytes = b"") -> AsyncIterator[asyncio.StreamReader]:
    """Send one request by hand, its first line and headers without the Host; gives what comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(head.replace("\n", "\r\n").encode() + b"\r\nHost: gw.test\r\n\r\n" + body)
        yield reader
    finally:
        writer.transport.abort()


async def read_until(reader: asyncio.StreamReader, mark: bytes) -> str:
    """What comes until a mark, which must come within five seconds."""
    async with asyncio.timeout(5):
        return (await reader.readuntil(mark)).decode()


async def eventually(condition: Callable[[], object], seconds: float = 5.0) -> float:
    """Wait until something holds; how long that took."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    while not condition():
        assert loop.time() - start < seconds, "it did not come about in time"
        await asyncio.sleep(0.005)
    return loop.time() - start
