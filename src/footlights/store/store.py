"""Units of work: read beside each other, written in group commits."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar, cast

from sqlalchemy.exc import SQLAlchemyError

from footlights import errors
from footlights.store import writer as batches
from footlights.store.engines.notify import Wakeups
from footlights.store.unit import Answer, Item, Joint, Transaction, Unit
from footlights.store.writer import Undone, Work

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Engine

log = logging.getLogger(__name__)
T = TypeVar("T")


class Store:
    """Runs units. Belongs to no loop; every method may be awaited on any.

    Raises from ``read`` and ``write`` what the unit raises, ``errors.Unavailable`` where the database fails, and
    ``errors.Conflict`` where a unit breaks a constraint.
    """

    MAX_BATCH = 256
    MAX_QUEUED = 10_000
    MAX_CROSSINGS = 5
    """How often a write is run again that crossed another process's."""

    def __init__(
        self, writer: Engine, reader: Engine, *, readers: int = 4, on_close: Callable[[], None] | None = None
    ) -> None:
        """Start the threads. ``writer`` begins immediate transactions, ``reader`` deferred ones."""
        self._writer, self._reader = writer, reader
        self._on_close = on_close
        self._queue: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._pool = ThreadPoolExecutor(readers, thread_name_prefix="store-read")
        self._thread = threading.Thread(target=self._write_loop, name="store-write", daemon=True)
        self._closed = False
        self.on_commit: Callable[[float], None] | None = None
        """Told, in the writer's thread, how many seconds each group of writes took until its commit was on disk."""
        self._thread.start()

    @property
    def dialect(self) -> str:
        """``sqlite`` or ``postgresql``."""
        return self._writer.dialect.name

    @property
    def shared(self) -> bool:
        """Whether other replicas may use the same database: on SQLite one server has it alone."""
        return self.dialect == "postgresql"

    @property
    def queued(self) -> int:
        """How many writes wait."""
        return self._queue.qsize()

    def wakeups(self, *, heard: Callable[[str], None], missed: Callable[[], None]) -> Wakeups:
        """Return the way to wake other replicas; only of a shared database."""
        return Wakeups(self._writer.url, heard=heard, missed=missed)

    async def read(self, unit: Unit[T]) -> T:
        """Run a unit that changes nothing on one consistent state of the database."""
        if self._closed:
            raise _stopping()
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._read_now, unit)

    async def write(self, unit: Unit[T]) -> T:
        """Run a unit and return its answer once it is on disk. What it raises undoes it alone."""
        return cast("T", await self._accept(unit, None))

    async def write_joint(self, joint: Joint[Item, Answer], item: Item) -> Answer:
        """Write an item together with those of the same joint that share its commit; return its answer once on disk."""
        return cast("Answer", await self._accept(joint, item))

    async def close(self) -> None:
        """Finish what was accepted, then release everything."""
        await asyncio.to_thread(self.close_now)

    def close_now(self) -> None:
        """Close without an event loop."""
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        self._thread.join()
        self._pool.shutdown()
        self._reader.dispose()
        self._writer.dispose()
        if self._on_close:
            self._on_close()

    def _accept(self, task: Unit[Any] | Joint[Any, Any], item: Any) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        if self._closed:
            raise _stopping()
        if self._queue.qsize() >= self.MAX_QUEUED:
            raise errors.Unavailable(
                f"{self.MAX_QUEUED} writes are waiting for the disk. Try again in a moment.",
                reason="STORE_OVERLOADED",
                retry_after_s=2,
            )
        work = Work(task, item, loop.create_future(), loop)
        self._queue.put(work)
        return work.future

    def _read_now(self, unit: Unit[T]) -> T:
        try:
            with self._reader.connect() as connection:
                return unit(Transaction(connection))
        except Exception as error:
            if batches.is_failure(error):
                raise batches.unavailable(error) from error
            raise

    def _write_loop(self) -> None:
        stopping = False
        while not stopping:
            batch: list[Work] = []
            work = self._queue.get()
            while work is not None:
                batch.append(work)
                if len(batch) == self.MAX_BATCH:
                    break
                try:
                    work = self._queue.get_nowait()
                except queue.Empty:
                    break
            stopping = work is None
            if batch:
                started = time.perf_counter()
                self._write_batch(batch)
                if self.on_commit is not None:
                    self.on_commit(time.perf_counter() - started)

    def _write_batch(self, batch: Sequence[Work]) -> None:
        self._commit(batch)
        crossed = [work for work in batch if work.crossed]
        batches.deliver([work for work in batch if not work.crossed])
        if crossed:
            # One replica writes what was asked for and another what is reported of the same session.
            log.debug("Writes crossed those of another process", extra={"action": "crossed", "count": len(crossed)})
        for work in crossed:
            for _ in range(self.MAX_CROSSINGS):
                if work.crossed:
                    work.renew()
                    self._commit([work])
        batches.deliver(crossed)

    def _commit(self, batch: Sequence[Work]) -> None:
        try:
            with self._writer.begin() as connection:
                batches.run(connection, batch)
        except Undone:
            pass
        except SQLAlchemyError as error:
            log.exception("A commit failed", extra={"action": "commit_failed"})
            for work in batch:
                work.failure = batches.unavailable(error)
        except BaseException as error:
            log.exception("The writer failed", extra={"action": "commit_failed"})
            for work in batch:
                work.failure = batches.translate(error) if isinstance(error, Exception) else error


def _stopping() -> errors.Unavailable:
    return errors.Unavailable("The store is closed: the server is stopping.", reason="STOPPING")


__all__ = ["Joint", "Store", "Transaction", "Unit"]
