"""Request coalescing: reads that arrive together, or while one is under way, share the next transaction.

A read costs a millisecond, whatever it reads: a hop to a thread and back, a transaction, and threads that compete for
the interpreter. Thousands of agents that come back at once would spend it on reads of one row each.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from footlights.store import Store, Unit

Request = TypeVar("Request")
Answer = TypeVar("Answer")


class Coalescer(Generic[Request, Answer]):
    """One kind of read. Each request is answered from a state of the database that is no older than the request.

    A request that comes alone is answered at once.
    """

    PAUSE_S = 0.03
    """Between two reads: requests that come meanwhile wait for those that come a little later."""

    MOST = 250
    """Requests that share a read: a bound on statements, and on how long the first waits for the last."""

    def __init__(self, store: Store, unit: Callable[[Sequence[Request]], Unit[Sequence[Answer]]]) -> None:
        """``unit`` makes of some requests a unit that returns as many answers."""
        self._store, self._unit = store, unit
        self._waiting: list[tuple[Request, asyncio.Future[Answer]]] = []
        self._reader: asyncio.Task[None] | None = None
        self._answered = -1e9

    async def __call__(self, request: Request) -> Answer:
        """Return the answer. Raises what the unit raises, and what ``Store.read`` does."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        if self._reader is None:
            self._reader = asyncio.create_task(self._read(), name="coalescer")
        return await future

    async def _read(self) -> None:
        try:
            while self._waiting:
                if (pause := self._answered + self.PAUSE_S - time.monotonic()) > 0 and len(self._waiting) < self.MOST:
                    await asyncio.sleep(pause)
                asked, self._waiting = self._waiting[: self.MOST], self._waiting[self.MOST :]
                if asked := [(request, future) for request, future in asked if not future.done()]:
                    await self._answer(asked)
        finally:
            self._reader = None

    async def _answer(self, asked: Sequence[tuple[Request, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._store.read(self._unit([request for request, _ in asked]))
            for (_, future), answer in zip(asked, answers, strict=True):
                if not future.done():
                    future.set_result(answer)
        except Exception as error:
            for _, future in asked:
                if not future.done():
                    future.set_exception(error)
        finally:
            for _, future in asked:
                # Only where this was cancelled.
                future.cancel()
            self._answered = time.monotonic()
