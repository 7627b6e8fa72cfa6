"""Runs units of work: reads beside each other, writes in group commits."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar, cast

import structlog

from footlights import errors
from footlights.store import writer
from footlights.store.unit import Answer, BatchWrite, Item, Transaction, Unit
from footlights.store.writer import Undone, Write

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from footlights.store.engines.engine import DatabaseEngine
    from footlights.store.engines.notify import Wakeups

log = structlog.get_logger(__name__)
T = TypeVar("T")


class Store:
    """Runs units. It belongs to no event loop; every method may be awaited on any.

    Raises from ``read`` and ``write`` what the unit raises, ``errors.Unavailable`` where the database fails,
    ``errors.Conflict`` where a unit breaks a constraint, ``errors.Internal`` where the database refuses a statement.
    """

    MAX_BATCH = 256
    MAX_QUEUED = 10_000
    MAX_RETRIES = 5
    """How often a write is run again that had a serialization conflict with another process."""

    def __init__(self, engine: DatabaseEngine, *, readers: int = 4, on_close: Callable[[], None] | None = None) -> None:
        self.engine = engine
        self._on_close = on_close
        self._queue: queue.SimpleQueue[Write | None] = queue.SimpleQueue()
        self._pool = ThreadPoolExecutor(readers, thread_name_prefix="store-read")
        self._thread = threading.Thread(target=self._write_loop, name="store-write", daemon=True)
        self._accepting = threading.Lock()
        """Held while work is accepted, and while it is decided that no more is."""
        self._closing = False
        self._closed = threading.Event()
        self._observers: list[Callable[[float], None]] = []
        self._thread.start()

    @property
    def shared(self) -> bool:
        """Whether other replicas may use the same database: on SQLite one server has it alone."""
        return self.engine.shared

    @property
    def queued(self) -> int:
        """How many writes wait."""
        return self._queue.qsize()

    def observe_commits(self, observer: Callable[[float], None]) -> None:
        """Call ``observer`` in the writer's thread with the seconds that each group of writes took."""
        self._observers.append(observer)

    def wakeups(self, *, heard: Callable[[str], None], missed: Callable[[], None]) -> Wakeups:
        """Return the way to wake other replicas; only of a shared database."""
        return self.engine.wakeups(heard=heard, missed=missed)

    async def read(self, unit: Unit[T]) -> T:
        """Run a unit that changes nothing on one consistent state of the database."""
        with self._accepting:
            self._check_open()
            future = asyncio.get_running_loop().run_in_executor(self._pool, self._read_now, unit)
        return await future

    async def write(self, unit: Unit[T]) -> T:
        """Run a unit and return its answer once it is on disk. A unit that raises is undone alone."""
        return cast("T", await self._accept(unit, None))

    async def write_batched(self, batch: BatchWrite[Item, Answer], item: Item) -> Answer:
        """Write an item together with those of the same kind that share its commit; return once it is on disk."""
        return cast("Answer", await self._accept(batch, item))

    async def close(self) -> None:
        """Finish what was accepted, then release everything."""
        await asyncio.to_thread(self.close_now)

    def close_now(self) -> None:
        """Close without an event loop; return once it is closed."""
        with self._accepting:
            first, self._closing = not self._closing, True
            if first:
                self._queue.put(None)
        if not first:
            self._closed.wait()
            return
        try:
            self._thread.join()
            self._pool.shutdown()
            self.engine.dispose()
            if self._on_close:
                self._on_close()
        finally:
            self._closed.set()

    def _check_open(self) -> None:
        if self._closing:
            raise errors.Unavailable(
                "The store is closed: the server is stopping. Try again: another one answers, or this one once it has "
                "restarted.",
                reason=errors.Reason.SERVER_STOPPING,
                retry_after_s=1,
            )

    def _accept(self, task: Unit[Any] | BatchWrite[Any, Any], item: Any) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        write = Write(task, item, loop.create_future(), loop)
        with self._accepting:
            self._check_open()
            if self._queue.qsize() >= self.MAX_QUEUED:
                raise errors.Unavailable(
                    f"{self.MAX_QUEUED} writes are waiting for the disk. Try again in a moment.",
                    reason=errors.Reason.STORE_OVERLOADED,
                    retry_after_s=2,
                )
            self._queue.put(write)
        return write.future

    def _read_now(self, unit: Unit[T]) -> T:
        try:
            with self.engine.reader.connect() as connection:
                return unit(Transaction(connection, self.engine))
        except Exception as error:
            told = writer.translate(error)
            if told is error:
                raise
            raise told from error

    def _write_loop(self) -> None:
        stopping = False
        while not stopping:
            batch: list[Write] = []
            write = self._queue.get()
            while write is not None:
                batch.append(write)
                if len(batch) == self.MAX_BATCH:
                    break
                try:
                    write = self._queue.get_nowait()
                except queue.Empty:
                    break
            stopping = write is None
            if batch:
                started = time.perf_counter()
                self._write_batch(batch)
                self._observed(time.perf_counter() - started)

    def _observed(self, took_s: float) -> None:
        for observer in self._observers:
            try:
                observer(took_s)
            except Exception:
                # The writer's thread must live on: every write waits for it.
                log.exception("commit_observer_failed")

    def _write_batch(self, batch: Sequence[Write]) -> None:
        self._commit(batch)
        conflicts = [write for write in batch if write.conflicts]
        writer.deliver([write for write in batch if not write.conflicts])
        if conflicts:
            # One replica writes what was asked for and another what is reported of the same session.
            log.debug("serialization_conflict", count=len(conflicts))
        for write in conflicts:
            for _ in range(self.MAX_RETRIES):
                if write.conflicts:
                    write.reset()
                    self._commit([write])
        writer.deliver(conflicts)

    def _commit(self, batch: Sequence[Write]) -> None:
        try:
            with self.engine.writer.begin() as connection:
                writer.run(Transaction(connection, self.engine), batch)
        except Undone:
            pass
        except BaseException as error:
            log.exception("commit_failed", count=len(batch))
            for write in batch:
                write.failure = writer.translate(error) if isinstance(error, Exception) else error
