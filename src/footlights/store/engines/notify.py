"""Wake-ups between replicas, by Postgres' LISTEN and NOTIFY: hints, any of which may be lost.

One connection listens, another one sends. What is sent while either is down is lost; when the listener is back, it
calls ``missed``.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    import psycopg

log = structlog.get_logger(__name__)

CHANNEL = "footlights"
MAX_BYTES = 7900
"""What one notification may carry (PostgreSQL, NOTIFY: "shorter than 8000 bytes")."""

_RETRY_S = 1.0


class Wakeups:
    """Sends notifications to all replicas, and receives theirs."""

    MAX_WAITING = 1000

    def __init__(
        self, parameters: Mapping[str, object], *, heard: Callable[[str], None], missed: Callable[[], None]
    ) -> None:
        self._parameters: dict[str, Any] = {"application_name": "footlights-wakeups", **parameters, "autocommit": True}
        self._heard, self._missed = heard, missed
        self._waiting: asyncio.Queue[str] = asyncio.Queue(self.MAX_WAITING)
        self.listening = asyncio.Event()
        """Set while notifications are received."""

    def tell(self, text: str) -> None:
        """Notify all replicas; dropped where too many notifications wait."""
        with contextlib.suppress(asyncio.QueueFull):
            self._waiting.put_nowait(text)

    async def run(self) -> None:
        """Receive and send until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_up(self._receive), name="wakeups-receive")
            group.create_task(self._keep_up(self._send), name="wakeups-send")

    async def _keep_up(self, part: Callable[[psycopg.AsyncConnection], Awaitable[None]]) -> None:
        import psycopg

        while True:
            try:
                async with self._connected() as connection:
                    await part(connection)
            except (psycopg.Error, OSError) as error:
                log.warning("wakeups_interrupted", error=" ".join(str(error).split()))
            except Exception:
                log.exception("wakeups_interrupted")
            await asyncio.sleep(_RETRY_S)

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[psycopg.AsyncConnection]:
        import psycopg

        connection = await psycopg.AsyncConnection.connect(**self._parameters)
        try:
            yield connection
        finally:
            await connection.close()

    async def _receive(self, connection: psycopg.AsyncConnection) -> None:
        await connection.execute(f"LISTEN {CHANNEL}".encode())
        self._missed()
        self.listening.set()
        try:
            async for notice in connection.notifies():
                self._heard(notice.payload)
        finally:
            self.listening.clear()

    async def _send(self, connection: psycopg.AsyncConnection) -> None:
        while True:
            text = await self._waiting.get()
            await connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, text))
