"""Wake-ups between replicas, by Postgres' LISTEN and NOTIFY: hints, of which any may be lost.

One connection listens, another one tells. What is told while either is away is lost; when the listener is back, it is
told that something may have been.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    import psycopg
    from sqlalchemy import URL

log = logging.getLogger(__name__)

CHANNEL = "footlights"
MAX_BYTES = 7900
"""What one notification may carry (PostgreSQL, NOTIFY: "shorter than 8000 bytes")."""

_AGAIN_S = 1.0
_OPTIONS: dict[str, Any] = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}


class Wakeups:
    """Tells other replicas, and hears them."""

    MAX_WAITING = 1000

    def __init__(self, url: URL, *, heard: Callable[[str], None], missed: Callable[[], None]) -> None:
        """Take the database, and whom to call with what was told and when something may have been missed."""
        self._url = url.set(drivername="postgresql").render_as_string(hide_password=False)
        self._heard, self._missed = heard, missed
        self._waiting: asyncio.Queue[str] = asyncio.Queue(self.MAX_WAITING)
        self.listening = asyncio.Event()
        """Set while it hears."""

    def tell(self, text: str) -> None:
        """Tell all replicas, this one included; lost where nobody takes it or too much waits."""
        with contextlib.suppress(asyncio.QueueFull):
            self._waiting.put_nowait(text)

    async def run(self) -> None:
        """Hear and tell until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._for_ever(self._hear), name="wakeups-hear")
            group.create_task(self._for_ever(self._tell), name="wakeups-tell")

    async def _for_ever(self, part: Callable[[psycopg.AsyncConnection], Awaitable[None]]) -> None:
        import psycopg

        while True:
            try:
                async with self._connected() as connection:
                    await part(connection)
            except (psycopg.Error, OSError) as error:
                cause = " ".join(str(error).split())
                log.warning("Wake-ups between replicas are interrupted: %s", cause, extra={"action": "wakeups_lost"})
            await asyncio.sleep(_AGAIN_S)

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[psycopg.AsyncConnection]:
        import psycopg

        connection = await psycopg.AsyncConnection.connect(
            self._url, autocommit=True, application_name="footlights-wakeups", **_OPTIONS
        )
        try:
            yield connection
        finally:
            await connection.close()

    async def _hear(self, connection: psycopg.AsyncConnection) -> None:
        await connection.execute(f"LISTEN {CHANNEL}".encode())
        self._missed()
        self.listening.set()
        try:
            async for notice in connection.notifies():
                self._heard(notice.payload)
        finally:
            self.listening.clear()

    async def _tell(self, connection: psycopg.AsyncConnection) -> None:
        while True:
            text = await self._waiting.get()
            await connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, text))
