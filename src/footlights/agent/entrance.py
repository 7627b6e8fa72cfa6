"""One port of a node for the signalling of viewers of all its sessions, with TLS where the operator has a certificate.

It leads to the front door and nowhere else (`launch.front_door`). NVIDIA's players use TLS at port 443 alone, so one
port for each session would not do.
"""

from __future__ import annotations

import asyncio
import ssl
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from footlights.agent.v1.node_pb2 import NodeFacts
from footlights.launch import connections
from footlights.launch.connections import HEAD_BYTES, Callers, Head

if TYPE_CHECKING:
    from footlights.agent.config import AgentConfig
    from footlights.launch.front_door import FrontDoorWay

MOST_STRANGERS: Final = 256
"""Callers that the front door has not let in."""
MOST_VIEWERS: Final = 1024
RETRY_S: Final = 5.0
"""After the port was taken, or its certificate not readable."""
_HANDSHAKE_S: Final = 10.0
_log = structlog.get_logger(__name__)


class _Silent(asyncio.StreamReaderProtocol):
    """A connection of which nothing is read yet: TLS begins only once its caller is counted."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.pause_reading()  # type: ignore[attr-defined]  # it is a socket's
        super().connection_made(transport)


class ViewerEntrance:
    """The port, as an agent's configuration has it; it may have none."""

    def __init__(self, config: AgentConfig, front_door: FrontDoorWay) -> None:
        self._config, self._front_door = config, front_door
        self._server: asyncio.Server | None = None
        self._port = 0
        self._problem = ""
        self._callers = Callers(MOST_STRANGERS)

    @property
    def is_wanted(self) -> bool:
        """Whether it is configured."""
        return self._config.signaling_address is not None

    @property
    def facts(self) -> NodeFacts.Entrance:
        """Where the node takes viewers now."""
        tls = bool(self._port) and self._config.signaling_cert is not None
        return NodeFacts.Entrance(session_ports=self._config.takes_viewers, port=self._port, tls=tls)

    @property
    def notes(self) -> list[str]:
        """Why it does not listen, for an operator."""
        return [self._problem] if self._problem else []

    async def open(self) -> None:
        """Listen where it does not yet; what keeps it from that is noted, and the sessions of the node go on."""
        address = self._config.signaling_address
        if address is None or self._server is not None:
            return
        host, port = address
        try:
            context = await asyncio.to_thread(self._tls)
            self._server = await asyncio.get_running_loop().create_server(
                lambda: _Silent(asyncio.StreamReader(limit=HEAD_BYTES), partial(self._serve, context)),
                host or None,
                port,
            )
        except (OSError, ssl.SSLError) as error:
            problem = f"viewers' signalling cannot be taken at {self._config.signaling_listen}: {error}"
            if problem != self._problem:
                _log.warning("entrance_not_open", listen=self._config.signaling_listen, error=str(error))
            self._problem = problem
            return
        self._problem = ""
        self._port = self._server.sockets[0].getsockname()[1]
        _log.info("entrance_open", host=host, port=self._port, tls=context is not None)

    async def close(self) -> None:
        """Close the port and every connection."""
        if self._server is not None:
            self._server.close()
            self._server, self._port = None, 0
        await self._callers.close()

    def _tls(self) -> ssl.SSLContext | None:
        if self._config.signaling_cert is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self._config.signaling_cert, self._config.signaling_key)
        return context

    async def _serve(
        self, context: ssl.SSLContext | None, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with self._callers.serving(writer) as task:
            if context is None:
                writer.transport.resume_reading()  # type: ignore[attr-defined]  # it is a socket's
            else:
                await writer.start_tls(context, ssl_handshake_timeout=_HANDSHAKE_S)
            head = Head.of(await connections.read_head(reader))
            if self._front_door.takes(head, tls=context is not None):
                await self._front_door.pass_on(reader, writer, head, joined=lambda: self._note_viewer(task))
            else:
                text = "this port is for the signalling of viewers: dial /sign_in with a WebSocket"
                await connections.answer(writer, "404 Not Found", text)

    def _note_viewer(self, task: asyncio.Task[None]) -> bool:
        """Note that the front door has let a viewer in; False where there are too many."""
        if self._callers.known_count >= MOST_VIEWERS:
            return False
        self._callers.know(task)
        return True
