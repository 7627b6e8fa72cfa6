"""Asking a launch's port as a front door does: for a challenge first, then with a proof."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from footlights.launch.front_door import FrontDoorWay
from footlights.launch.launcher import Ports
from footlights.launch.splice import Splice
from footlights.protocol.launch_secrets import CHALLENGE, PROOF, prove
from tests.viewer.viewer_process import free_port


@asynccontextmanager
async def door(
    signal: int, secret: str, *, head_s: float = 10.0, front_door: str = "", at: int = 0
) -> AsyncIterator[int]:
    """Open the port before an application's, which listens on ``signal``; players are passed on to ``front_door``."""
    port = at or free_port()
    way = FrontDoorWay()
    way.learn(front_door)
    splice = Splice(Ports(signal, 1, 2, port), secret, "127.0.0.1", head_s=head_s, front_door=way)
    await splice.open()
    try:
        yield port
    finally:
        await splice.close()


async def ask(port: int, head: str, *, ends: bool = False) -> bytes:
    """Send a head and return all that is answered until the connection ends; with ``ends`` nothing comes after it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(head.encode("latin-1"))
        if ends:
            writer.write_eof()
        async with asyncio.timeout(10):
            return await reader.read(-1)
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def proof(port: int, secret: str, method: str = "GET", target: str = "/") -> str:
    """The header line that proves a secret to what listens on ``port``; an empty secret proves nothing."""
    if not secret:
        return ""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"{method} {target} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n".encode())
        answer = (await asyncio.wait_for(reader.read(-1), 10)).decode("latin-1")
    finally:
        writer.close()
    found = re.search(rf"{CHALLENGE}: (\S+)\r\n", answer)
    assert found is not None, answer
    return f"{PROOF}: {prove(secret, found[1], method, target)}\r\n"


async def status(port: int, secret: str = "", target: str = "/") -> int:
    """The status that what listens on ``port`` answers a GET with, by who proves a secret."""
    header = await proof(port, secret, target=target)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET {target} HTTP/1.0\r\nHost: node\r\n{header}\r\n".encode())
        line = await asyncio.wait_for(reader.readline(), 10)
    finally:
        writer.close()
    return int(line.split()[1])
