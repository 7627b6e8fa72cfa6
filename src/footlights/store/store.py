"""Units of work: read beside each other, written in group commits."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from sqlalchemy import Connection, Engine, Executable, Result
from sqlalchemy.exc import IntegrityError, OperationalError, SQLAlchemyError

from footlights import errors
from footlights.store.wakeups import Wakeups

log = logging.getLogger(__name__)
T = TypeVar("T")


class Transaction:
    """One open transaction, in the thread that runs its unit."""

    __slots__ = ("connection",)

    def __init__(self, connection: Connection) -> None:
        """Wrap a connection on which a transaction has begun."""
        self.connection = connection

    @property
    def dialect(self) -> str:
        """``sqlite`` or ``postgresql``."""
        return self.connection.dialect.name

    def execute(self, statement: Executable, parameters: Any = None) -> Result[*tuple[Any, ...]]:
        """Run one statement; ``parameters`` may be a list, for many rows at once."""
        return self.connection.execute(statement, parameters)

    def one(self, statement: Executable, table: type[T]) -> T | None:
        """Return the first row, which reads like ``table`` and cannot be changed; None where there is none."""
        return cast("T | None", self.connection.execute(statement).first())

    def all(self, statement: Executable, table: type[T]) -> list[T]:
        """Return every row; each reads like ``table`` and cannot be changed."""
        return cast("list[T]", list(self.connection.execute(statement).all()))

    def changed(self, statement: Executable) -> int:
        """Run an UPDATE or DELETE and return how many rows it met; 0 means that somebody was faster."""
        return self.connection.execute(statement).rowcount


Unit = Callable[[Transaction], T]


@dataclass(slots=True)
class _Work:
    unit: Unit[Any]
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop


class Store:
    """Runs units. Belongs to no loop; every method may be awaited on any.

    Raises from ``read`` and ``write`` what the unit raises, ``errors.Unavailable`` where the database fails, and
    ``errors.Conflict`` where a unit breaks a constraint.
    """

    MAX_BATCH = 256
    MAX_QUEUED = 10_000

    def __init__(
        self, writer: Engine, reader: Engine, *, readers: int = 4, on_close: Callable[[], None] | None = None
    ) -> None:
        """Start the threads. ``writer`` begins immediate transactions, ``reader`` deferred ones."""
        self._writer, self._reader = writer, reader
        self._on_close = on_close
        self._queue: queue.Queue[_Work | None] = queue.Queue(self.MAX_QUEUED)
        self._pool = ThreadPoolExecutor(readers, thread_name_prefix="store-read")
        self._thread = threading.Thread(target=self._write_loop, name="store-write", daemon=True)
        self._closed = False
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
        loop = asyncio.get_running_loop()
        work = _Work(unit, loop.create_future(), loop)
        if self._closed:
            raise _stopping()
        try:
            self._queue.put_nowait(work)
        except queue.Full:
            raise errors.Unavailable(
                f"{self.MAX_QUEUED} writes are waiting for the disk. Try again in a moment.",
                reason="STORE_OVERLOADED",
                retry_after_s=2,
            ) from None
        return cast("T", await work.future)

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

    def _read_now(self, unit: Unit[T]) -> T:
        try:
            with self._reader.connect() as connection:
                return unit(Transaction(connection))
        except OperationalError as error:
            raise _unavailable(error) from error

    def _write_loop(self) -> None:
        stopping = False
        while not stopping:
            batch: list[_Work] = []
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
                self._write_batch(batch)

    def _write_batch(self, batch: Sequence[_Work]) -> None:
        outcomes: list[tuple[_Work, Any, BaseException | None]]
        try:
            with self._writer.begin() as connection:
                outcomes = [self._attempt(connection, work, alone=len(batch) == 1) for work in batch]
        except _Undone as undone:
            outcomes = [(batch[0], None, undone.cause)]
        except SQLAlchemyError as error:
            log.exception("A commit failed", extra={"action": "commit_failed"})
            outcomes = [(work, None, _unavailable(error)) for work in batch]
        except BaseException as error:
            log.exception("The writer failed", extra={"action": "commit_failed"})
            outcomes = [(work, None, error) for work in batch]
        for work, answer, failure in outcomes:
            _deliver(work, answer, failure)

    @staticmethod
    def _attempt(connection: Connection, work: _Work, *, alone: bool) -> tuple[_Work, Any, BaseException | None]:
        transaction = Transaction(connection)
        if alone:
            # Nobody shares the commit, so its own rollback is enough: no savepoint.
            try:
                return work, work.unit(transaction), None
            except Exception as error:
                raise _Undone(_translate(error)) from error
        savepoint = connection.begin_nested()
        try:
            answer = work.unit(transaction)
            savepoint.commit()
        except Exception as error:
            try:
                savepoint.rollback()
            except SQLAlchemyError:
                # The engine has given up the whole transaction, as SQLite does on a full disk: say that, not this.
                raise error from None
            return work, None, _translate(error)
        return work, answer, None


class _Undone(Exception):
    """Rolls back a commit that holds one failed unit."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


def _translate(error: Exception) -> Exception:
    if isinstance(error, OperationalError):
        return _unavailable(error)
    if isinstance(error, IntegrityError):
        # Units look before they write, so only somebody who wrote at the same time can have made it untrue.
        conflict = errors.Conflict("The same was written at the same time. Read again and retry.")
        conflict.__cause__ = error
        return conflict
    return error


def _stopping() -> errors.Unavailable:
    return errors.Unavailable("The store is closed: the server is stopping.", reason="STOPPING")


def _unavailable(error: Exception) -> errors.Unavailable:
    cause = getattr(error, "orig", None) or error
    return errors.Unavailable(
        f"The store cannot be used: {cause}. Nothing was changed.", reason="STORE_UNAVAILABLE", retry_after_s=2
    )


def _deliver(work: _Work, answer: Any, failure: BaseException | None) -> None:
    def settle() -> None:
        if work.future.done():
            return
        if failure is None:
            work.future.set_result(answer)
        else:
            work.future.set_exception(failure)

    try:
        work.loop.call_soon_threadsafe(settle)
    except RuntimeError:
        # The caller's loop is closed: nobody waits any more.
        log.warning("A write finished after its loop was closed", extra={"action": "write_orphaned"})
