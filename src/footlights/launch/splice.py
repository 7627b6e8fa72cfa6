"""The agent's door in front of an application that cannot check its launch's secret.

It listens on the port that is given out, reads the head of a request, and joins the connection to the application's own
port where the head proves the secret. All others are refused, and the application does not hear of them. A connection
that was let in is passed on as it is, so WebSockets work. Media does not pass here.

A viewer that dials this port as NVIDIA's players do is passed on to the front door (`front_door`), which then comes
here itself, with a proof.

The application itself listens where only the node reaches it: on loopback, in a network of its own, or on any address
where the node's packet filter (`firewall`) is loaded.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from footlights.launch import connections
from footlights.launch.connections import HEAD_BYTES, HEAD_S, Callers, Head
from footlights.launch.front_door import FrontDoorWay
from footlights.launch.probes import loopback
from footlights.protocol.launch_secrets import CHALLENGE, HEADER, PROOF, Proofs

if TYPE_CHECKING:
    from collections.abc import Callable

    from footlights.launch.launcher import Ports

MOST_CONNECTIONS: Final = 128
"""Of one launch, by callers that have shown the secret."""
MOST_UNKNOWN: Final = 64
"""Of one launch, by callers that have not shown it."""
MOST_PASSED: Final = 64
"""Of one launch, by viewers that the front door has let in: as many as a session may have there."""
_DIAL_S: Final = 5.0
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
        front_door: Where viewers are passed on to who dial this port themselves.
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
        front_door: FrontDoorWay | None = None,
    ) -> None:
        self._ports, self._host, self._head_s = ports, host, head_s
        self._entered = entered
        self._proofs, self._secret = Proofs(secret), secret
        self._source, self._front_door = source, front_door or FrontDoorWay()
        self._server: asyncio.Server | None = None
        self._callers = Callers(MOST_UNKNOWN)
        """Known are those that have shown the secret, or that the front door has let in."""
        self._passed: set[asyncio.Task[None]] = set()
        """Those of viewers that the front door has let in."""

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
        await self._callers.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with self._callers.serving(writer) as task:
            try:
                text = await connections.read_head(reader, self._head_s)
                head = Head.of(text)
                if self._front_door.takes(head, tls=False):
                    await self._front_door.pass_on(reader, writer, head, joined=lambda: self._note_passed(task))
                elif await self._is_let_in(writer, head):
                    self._callers.know(task)
                    self._entered()
                    await self._pass(reader, writer, text)
            finally:
                self._passed.discard(task)

    def _note_passed(self, task: asyncio.Task[None]) -> bool:
        """Note that the front door has let a viewer in; False where there are too many."""
        if len(self._passed) >= MOST_PASSED:
            return False
        self._callers.know(task)
        self._passed.add(task)
        return True

    async def _is_let_in(self, writer: asyncio.StreamWriter, head: Head) -> bool:
        proofs = head.values(_NAME)
        proof = proofs[0] if len(proofs) == 1 else ""
        if not self._proofs.accept(proof, head.method, head.target):
            if proof:  # without, a front door asks for the challenge
                _log.warning("splice_refused", port=self._ports.splice, peer=str(writer.get_extra_info("peername")))
            text = f"the header {PROOF} lacks a proof of this launch's secret"
            await connections.answer(writer, "401 Unauthorized", text, f"{CHALLENGE}: {self._proofs.challenge}\r\n")
            return False
        if self._callers.known_count - len(self._passed) >= MOST_CONNECTIONS:
            await connections.answer(
                writer, "503 Service Unavailable", f"there are {MOST_CONNECTIONS} connections already"
            )
            return False
        return True

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        try:
            async with asyncio.timeout(_DIAL_S):
                inner, inner_writer = await loopback.connect(self._ports.signal, self._source)
        except (OSError, TimeoutError):
            await connections.answer(writer, "502 Bad Gateway", "the application does not take connections")
            return
        try:
            for each in (writer, inner_writer):
                connections.keep_alive(each)
            inner_writer.write(self._presented(head))
            await connections.join(reader, writer, inner, inner_writer)
        finally:
            inner_writer.transport.abort()

    def _presented(self, head: bytes) -> bytes:
        """Add the launch's secret, for an application that asks for it although its version does not say so.

        The proof was for this door, and is good once. The application is on this node and has the secret itself.
        """
        first, _, rest = head.partition(b"\r\n")
        return b"%s\r\n%s: %s\r\n%s" % (first, HEADER.encode(), self._secret.encode(), rest)
