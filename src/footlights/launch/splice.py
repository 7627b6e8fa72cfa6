"""The agent's door in front of an application that cannot check its launch's secret.

It listens on the port that is given out, reads the head of a request, and joins the connection to the application's own
port where the head proves the secret. All others are refused, and the application does not hear of them. A connection
that was let in is passed on as it is, so WebSockets work. Media does not pass here.

Callers that have not shown the secret take no place from those that have: there are so many of them at most, and a new
one ends the oldest, of the address that has the most.

The application itself listens where only the node reaches it: on loopback, in a network of its own, or on any address
where the node's packet filter (`firewall`) is loaded.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from typing import TYPE_CHECKING, Final

import structlog

from footlights.launch.probes import loopback
from footlights.protocol.launch_secrets import CHALLENGE, HEADER, PROOF, Proofs

if TYPE_CHECKING:
    from collections.abc import Callable

    from footlights.launch.launcher import Ports

HEAD_BYTES: Final = 64 << 10
HEAD_S: Final = 10.0
MOST_CONNECTIONS: Final = 128
"""Of one launch, by callers that have shown the secret."""
MOST_UNKNOWN: Final = 64
"""Of one launch, by callers that have not shown it."""
_DIAL_S: Final = 5.0
_PIECE: Final = 64 << 10
_NAME: Final = PROOF.lower()
_log = structlog.get_logger(__name__)


class Splice:
    """The door of one launch.

    Args:
        ports: The launch's.
        secret: What lets in.
        host: The address to listen on; empty is every one.
        source: The address to connect to the application from; empty is any.
        head_s: How long a caller may take to send a head, in seconds.
        entered: Called for each connection that is let in.
    """

    def __init__(
        self,
        ports: Ports,
        secret: str,
        host: str = "",
        *,
        source: str = "",
        head_s: float = HEAD_S,
        entered: Callable[[], None] = lambda: None,
    ) -> None:
        self._ports, self._host, self._head_s = ports, host, head_s
        self._entered = entered
        self._proofs, self._secret = Proofs(secret), secret
        self._source = source
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._unknown: dict[asyncio.Task[None], str] = {}
        """Connections that have not shown the secret, the oldest first, and their addresses."""

    async def open(self) -> None:
        """Listen from now on. Raises OSError where the port is taken."""
        if self._server is None:
            # One more than is read of a head: the reader's limit is what it holds back.
            self._server = await asyncio.start_server(
                self._serve, self._host or None, self._ports.splice, limit=HEAD_BYTES
            )

    async def close(self) -> None:
        """Close the port and every connection."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            writer.transport.abort()
            return
        if len(self._unknown) >= MOST_UNKNOWN:
            self._end_an_unknown()
        peer = writer.get_extra_info("peername")
        self._unknown[task] = str(peer[0]) if peer else ""
        self._connections.add(task)
        try:
            if await self._is_let_in(writer, head := await self._head(reader)):
                del self._unknown[task]
                self._entered()
                await self._pass(reader, writer, head)
        except (OSError, EOFError):
            pass  # either side is gone
        except asyncio.CancelledError:
            pass  # closed: nobody waits for this task's end but `close`
        finally:
            self._unknown.pop(task, None)
            self._connections.discard(task)
            writer.transport.abort()

    def _end_an_unknown(self) -> None:
        """End the oldest connection of the address that has the most."""
        crowd = Counter(self._unknown.values()).most_common(1)[0][0]
        oldest = next(task for task, host in self._unknown.items() if host == crowd)
        del self._unknown[oldest]
        oldest.cancel()

    async def _is_let_in(self, writer: asyncio.StreamWriter, head: bytes) -> bool:
        method, target, proof = _read(head)
        if not self._proofs.accept(proof, method, target):
            if proof:  # without, a front door asks for the challenge
                _log.warning("splice_refused", port=self._ports.splice, peer=str(writer.get_extra_info("peername")))
            text = f"the header {PROOF} lacks a proof of this launch's secret"
            await _answer(writer, "401 Unauthorized", text, f"{CHALLENGE}: {self._proofs.challenge}\r\n")
            return False
        if len(self._connections) - len(self._unknown) >= MOST_CONNECTIONS:
            await _answer(writer, "503 Service Unavailable", f"there are {MOST_CONNECTIONS} connections already")
            return False
        return True

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        try:
            async with asyncio.timeout(_DIAL_S):
                inner, inner_writer = await loopback.connect(self._ports.signal, self._source)
        except (OSError, TimeoutError):
            await _answer(writer, "502 Bad Gateway", "the application does not take connections")
            return
        try:
            for each in (writer, inner_writer):
                _keep_alive(each)
            inner_writer.write(self._presented(head))
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, inner_writer))
                group.create_task(_pump(inner, writer))
        except* (OSError, EOFError):
            pass  # a connection that broke on one side breaks on the other
        finally:
            inner_writer.transport.abort()

    def _presented(self, head: bytes) -> bytes:
        """Add the launch's secret, for an application that asks for it although its version does not say so.

        The proof was for this door, and is good once. The application is on this node and has the secret itself.
        """
        first, _, rest = head.partition(b"\r\n")
        return b"%s\r\n%s: %s\r\n%s" % (first, HEADER.encode(), self._secret.encode(), rest)

    async def _head(self, reader: asyncio.StreamReader) -> bytes:
        """Read a request's head; empty where it is too long, too slow or cut off."""
        try:
            async with asyncio.timeout(self._head_s):
                return await reader.readuntil(b"\r\n\r\n")
        except (asyncio.LimitOverrunError, asyncio.IncompleteReadError, TimeoutError):
            return b""


def _read(head: bytes) -> tuple[str, str, str]:
    """Return a head's method, target and proof; the proof is empty where it has none, or several."""
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target = (*first.split(" "), "", "")[:2]
    values = [
        value.strip()
        for name, separator, value in (line.partition(":") for line in lines)
        if separator and name.lower() == _NAME
    ]
    return method, target, values[0] if len(values) == 1 else ""


async def _answer(writer: asyncio.StreamWriter, status: str, text: str, headers: str = "") -> None:
    body = f"{text}\n".encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
    writer.write(f"{head}{headers}\r\n".encode() + body)
    writer.close()
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(1):
            await writer.wait_closed()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on bytes, with back-pressure, until the end of them, and pass on that end."""
    while piece := await reader.read(_PIECE):
        writer.write(piece)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


def _keep_alive(writer: asyncio.StreamWriter) -> None:
    """Find out within about a minute when the other side lost its power."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for option, value in ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3)):
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
