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
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

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


class Callers:
    """The connections of one door, each served by a task of its own; there are so many strangers at most."""

    def __init__(self, most_strangers: int) -> None:
        self._most_strangers = most_strangers
        self._tasks: set[asyncio.Task[None]] = set()
        self._strangers: dict[asyncio.Task[None], str] = {}
        """Those that have not shown who they are, the oldest first, and their addresses."""

    @property
    def known_count(self) -> int:
        """How many have shown who they are."""
        return len(self._tasks) - len(self._strangers)

    @contextlib.contextmanager
    def serving(self, writer: asyncio.StreamWriter) -> Iterator[asyncio.Task[None]]:
        """Count a connection while the body serves it, as a stranger's at first, and end it after that.

        The body ends without an error where either side is gone, the stranger is one too many, or the door is closed.
        """
        task = asyncio.current_task()
        assert task is not None, "connections are served by tasks"
        self._enter(task, writer)
        try:
            yield task
        except (OSError, EOFError):
            pass  # either side is gone
        except asyncio.CancelledError:
            pass  # ended here: nobody waits for this task's end but `close`
        finally:
            self._strangers.pop(task, None)
            self._tasks.discard(task)
            writer.transport.abort()

    def know(self, task: asyncio.Task[None]) -> None:
        """Note that one has shown who it is."""
        self._strangers.pop(task, None)

    async def close(self) -> None:
        """End all of them."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _enter(self, task: asyncio.Task[None], writer: asyncio.StreamWriter) -> None:
        """Add a stranger; where there are too many, end the oldest of the address that has the most."""
        if len(self._strangers) >= self._most_strangers:
            crowd = Counter(self._strangers.values()).most_common(1)[0][0]
            oldest = next(task for task, host in self._strangers.items() if host == crowd)
            del self._strangers[oldest]
            oldest.cancel()
        peer = writer.get_extra_info("peername")
        self._strangers[task] = str(peer[0]) if peer else ""
        self._tasks.add(task)


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
