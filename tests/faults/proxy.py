"""A TCP proxy on the way of one agent's link, that cuts, silences or slows what goes through it."""

from __future__ import annotations

import asyncio
import contextlib
import enum


class Way(enum.Enum):
    """What becomes of the bytes."""

    OPEN = "OPEN"
    CUT = "CUT"
    """Connections are reset, new ones refused."""
    HALF_OPEN = "HALF_OPEN"
    """Connections stay, nothing passes: no byte, no end. New ones are accepted and meet silence."""
    SLOW = "SLOW"
    """Everything is late by ``delay_s``, and narrow."""


class Proxy:
    """Listens on a port of its own for whoever wants to reach ``target``."""

    DELAY_S = 0.25
    NARROW_BYTES = 2048

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.port = 0
        self.way = Way.OPEN
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def turn(self, way: Way) -> None:
        """Change what becomes of every connection, old and new. Bytes that were withheld are lost with theirs."""
        before, self.way = self.way, way
        self._changed.set()
        self._changed = asyncio.Event()
        if way is Way.CUT or before is Way.HALF_OPEN:
            for task in self._open:
                task.cancel()

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        onward: asyncio.StreamWriter | None = None
        try:
            while self.way is Way.HALF_OPEN:
                await self._changed.wait()
            if self.way is Way.CUT:
                return
            back, onward = await asyncio.open_connection(*self.target)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(reader, onward))
                group.create_task(self._pass(back, writer))
        except (asyncio.CancelledError, OSError, ExceptionGroup):
            pass
        finally:
            self._open.discard(task)
            for side in (writer, onward):
                if side is not None:
                    with contextlib.suppress(Exception):
                        side.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            data = await reader.read(self.NARROW_BYTES if self.way is Way.SLOW else 65536)
            if not data:
                raise ConnectionResetError
            if self.way is Way.SLOW:
                await asyncio.sleep(self.DELAY_S)
            while self.way is Way.HALF_OPEN:
                await self._changed.wait()
            writer.write(data)
            await writer.drain()
