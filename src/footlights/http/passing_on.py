"""A connection whose bytes are passed on to another server, both ways, at the pace of the slower side."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

HTTP2_PREFACE: Final = b"PRI * HTTP/2.0\r\n"
"""What a connection begins with that speaks HTTP/2 without asking, as gRPC does."""


class PassedOn(asyncio.Protocol):
    """A client's connection, from the moment on at which it is passed on."""

    def __init__(self, to: tuple[str, int], on_closed: Callable[[PassedOn], object]) -> None:
        """``to`` is where the other server listens; ``on_closed`` is called when the client's connection is over."""
        self._to, self._on_closed = to, on_closed
        self._other: asyncio.Transport | None = None
        self._early = b""
        self._task: asyncio.Task[None] | None = None
        self.transport: asyncio.Transport

    def take_over(self, transport: asyncio.Transport, data: bytes) -> None:
        """Take over a connection on which ``data`` was read."""
        self.transport, self._early = transport, data
        transport.set_protocol(self)
        transport.pause_reading()
        self._task = asyncio.get_running_loop().create_task(self._connect(), name="passing_on")

    async def _connect(self) -> None:
        try:
            other, _ = await asyncio.get_running_loop().create_connection(lambda: _Other(self.transport), *self._to)
        except OSError:
            self.transport.abort()
            return
        if self.transport.is_closing():
            other.abort()
            return
        self._other = other
        other.write(self._early)
        self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Pass it on."""
        if self._other is not None:
            self._other.write(data)

    def pause_writing(self) -> None:
        """Read no more of the other side: the client does not keep up."""
        if self._other is not None:
            self._other.pause_reading()

    def resume_writing(self) -> None:
        """Read on."""
        if self._other is not None:
            self._other.resume_reading()

    def connection_lost(self, _: Exception | None) -> None:
        """End the other side too."""
        self._on_closed(self)
        if self._other is not None:
            self._other.abort()

    def cut_off_if_overdue(self, now: float) -> None:
        """Nothing: the other server has its own bounds."""


class _Other(asyncio.Protocol):
    """The connection to the other server."""

    def __init__(self, client: asyncio.Transport) -> None:
        self._client = client

    def data_received(self, data: bytes) -> None:
        self._client.write(data)

    def pause_writing(self) -> None:
        self._client.pause_reading()

    def resume_writing(self) -> None:
        self._client.resume_reading()

    def connection_lost(self, _: Exception | None) -> None:
        self._client.close()
