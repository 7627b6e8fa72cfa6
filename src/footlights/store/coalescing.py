"""Questions to the store that are asked together: those that come in one instant, or during a reading, share the next.

A reading costs a millisecond, whatever it reads: a hop to a thread and back, a transaction, and the turns of threads
that all want the interpreter. Asked one by one, thousands of agents that come back at once would spend it on that.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from footlights.store import Store, Unit

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class Gathered(Generic[Question, Answer]):
    """One kind of question. Each is answered from a state of the database that is no older than the question.

    Whoever asks alone is answered at once.
    """

    PAUSE_S = 0.03
    """From one reading to the next: who asks meanwhile waits for those who ask a little later."""

    MOST = 250
    """Questions that are read together: a bound on statements, and on how long the first waits for the last."""

    def __init__(self, store: Store, unit: Callable[[Sequence[Question]], Unit[Sequence[Answer]]]) -> None:
        """Take where it reads, and what makes of questions the unit that returns as many answers."""
        self._store, self._unit = store, unit
        self._waiting: list[tuple[Question, asyncio.Future[Answer]]] = []
        self._reader: asyncio.Task[None] | None = None
        self._answered = -1e9

    async def __call__(self, question: Question) -> Answer:
        """Return the answer. Raises what the unit raises, and what ``Store.read`` does."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        if self._reader is None:
            self._reader = asyncio.create_task(self._read(), name="gathered")
        return await future

    async def _read(self) -> None:
        try:
            while self._waiting:
                if (pause := self._answered + self.PAUSE_S - time.monotonic()) > 0 and len(self._waiting) < self.MOST:
                    await asyncio.sleep(pause)
                asked, self._waiting = self._waiting[: self.MOST], self._waiting[self.MOST :]
                if asked := [(question, future) for question, future in asked if not future.done()]:
                    await self._answer(asked)
        finally:
            self._reader = None

    async def _answer(self, asked: Sequence[tuple[Question, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._store.read(self._unit([question for question, _ in asked]))
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
