"""What the doors of a node do alike with connections: heads of requests, short answers, bytes passed on both ways.

Callers that have not shown who they are take no place from those that have: there are so many of them at most, and a
new one ends the oldest, of the address that has the most.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections import Counter
from dataclasses import dataclass
from typing import Final

HEAD_BYTES: Final = 64 << 10
HEAD_S: Final = 10.0
_PIECE: Final = 64 << 10
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A header's (RFC 9110, section 5.6.2)."""


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a request."""

    method: str
    target: str
    version: str
    headers: tuple[tuple[str, str], ...]
    """Names as they came, and values without blanks around them."""
    is_plain: bool
    """Whether it is written as it should be, so that all who read it read the same."""

    @classmethod
    def of(cls, text: bytes) -> Head:
        """Read one, however it is written."""
        first, *lines = text.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        words = first.split(" ")
        method, target, version = (*words, "", "", "")[:3]
        found = [line.partition(":") for line in lines]
        plain = len(words) == 3 and all(
            separator and _NAME.fullmatch(name) and value.isprintable() for name, separator, value in found
        )
        headers = tuple((name, value.strip()) for name, separator, value in found if separator)
        return cls(method, target, version, headers, plain and text.endswith(b"\r\n\r\n"))

    def values(self, wanted: str) -> tuple[str, ...]:
        """Return the values of a header, whose name is given in lower case."""
        return tuple(value for name, value in self.headers if name.lower() == wanted)


class Strangers:
    """Connections of callers that have not shown who they are, the oldest first, and their addresses."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._hosts: dict[asyncio.Task[None], str] = {}

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._hosts)

    def enter(self, task: asyncio.Task[None], writer: asyncio.StreamWriter) -> None:
        """Add one; where there are too many, end the oldest of the address that has the most."""
        if len(self._hosts) >= self._most:
            crowd = Counter(self._hosts.values()).most_common(1)[0][0]
            oldest = next(task for task, host in self._hosts.items() if host == crowd)
            del self._hosts[oldest]
            oldest.cancel()
        peer = writer.get_extra_info("peername")
        self._hosts[task] = str(peer[0]) if peer else ""

    def leave(self, task: asyncio.Task[None]) -> None:
        """Remove one: it is gone, or known by now."""
        self._hosts.pop(task, None)


async def read_head(reader: asyncio.StreamReader, timeout_s: float = HEAD_S) -> bytes:
    """Read a head; empty where it is too long, too slow or cut off."""
    try:
        async with asyncio.timeout(timeout_s):
            return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.LimitOverrunError, asyncio.IncompleteReadError, TimeoutError):
        return b""


async def answer(writer: asyncio.StreamWriter, status: str, text: str, headers: str = "") -> None:
    """Answer a request with a text, and end the connection."""
    body = f"{text}\n".encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
    writer.write(f"{head}{headers}\r\n".encode() + body)
    await finish(writer)


async def finish(writer: asyncio.StreamWriter) -> None:
    """End a connection once what was written is sent, or a second later."""
    writer.close()
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(1):
            await writer.wait_closed()


async def join(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    inner: asyncio.StreamReader,
    inner_writer: asyncio.StreamWriter,
) -> None:
    """Pass on bytes both ways until both have ended. A connection that broke on one side breaks on the other."""
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_pump(reader, inner_writer))
            group.create_task(_pump(inner, writer))
    except* (OSError, EOFError):
        pass


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on bytes, with back-pressure, until the end of them, and pass on that end."""
    while piece := await reader.read(_PIECE):
        writer.write(piece)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
    else:
        writer.close()  # TLS has no end of one way alone


def keep_alive(writer: asyncio.StreamWriter) -> None:
    """Find out within about a minute when the other side lost its power."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for option, value in ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3)):
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
