"""One commit: the units and batch items that share it, each undone alone where it fails.

Order: units run in the order in which they came; so do the items of one batch write among themselves. All items of a
batch write run at the place of the first of them, so one that came later may overtake units that came before it. A
caller that waits for an answer before its next write cannot tell: what has been answered is committed.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog
from sqlalchemy.exc import (
    DatabaseError,
    IntegrityError,
    InterfaceError,
    InternalError,
    NotSupportedError,
    OperationalError,
    PendingRollbackError,
    SQLAlchemyError,
    TimeoutError,  # noqa: A004  # the pool's
)

from footlights import errors
from footlights.store.unit import BatchWrite, Changed, Transaction, Unit

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

log = structlog.get_logger(__name__)

_DEADLOCK, _CONFLICTS = "40P01", frozenset({"40P01", "40001", "23505"})
"""PostgreSQL, appendix A: deadlock_detected; with it serialization_failure and unique_violation."""

_FAILURES = (OperationalError, InternalError, InterfaceError, NotSupportedError, PendingRollbackError, TimeoutError)
"""Postgres calls the end of a transaction that stood still an internal error, and what a standby refuses either that
or a feature that is not supported."""


@dataclass(slots=True, eq=False)
class Write:
    """What one caller waits for: a unit, or an item of a batch write."""

    task: Unit[Any] | BatchWrite[Any, Any]
    item: Any
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    answer: Any = None
    failure: BaseException | None = None
    conflicts: bool = False
    """Whether it failed because another process wrote at the same time: run again, it sees what that wrote."""

    def fail(self, error: Exception) -> None:
        """Record why it failed."""
        self.failure, self.conflicts = translate(error), _is_conflict(error)

    def reset(self) -> None:
        """Forget that it failed."""
        self.failure, self.conflicts = None, False


class Undone(Exception):
    """Rolls back a commit whose only write has failed; the write says why."""


def run(transaction: Transaction, batch: Sequence[Write]) -> None:
    """Run everything in one open transaction, and record each answer or failure on its write.

    Raises Undone where the only write has failed: the caller must roll the transaction back.
    """
    if len(batch) == 1:
        # Nothing else shares the commit, so its own rollback is enough: no savepoint.
        [write] = batch
        try:
            _record(batch, _call(transaction, write.task, batch))
        except Exception as error:
            write.fail(error)
        if write.failure is not None:
            raise Undone
        return
    for task, writes in _grouped(batch):
        failure = _attempt(transaction, task, writes)
        if failure is None:
            continue
        if len(writes) == 1 or _sqlstate(failure) == _DEADLOCK:
            for write in writes:
                write.fail(failure)
            continue
        log.info("batch_write_split", count=len(writes), error=str(failure))
        for write in writes:
            alone = _attempt(transaction, task, [write])
            if alone is not None:
                write.fail(alone)


def deliver(batch: Sequence[Write]) -> None:
    """Wake the callers, each event loop once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Write]] = {}
    for write in batch:
        by_loop.setdefault(write.loop, []).append(write)
    for loop, writes in by_loop.items():
        try:
            loop.call_soon_threadsafe(_wake, writes)
        except RuntimeError:
            # The callers' loop is closed: no caller waits any more.
            log.warning("write_orphaned", count=len(writes))


def translate(error: Exception) -> Exception:
    """Return what a caller is told of an error of the database; other errors as they are."""
    if _is_failure(error):
        return _unavailable(error)
    if isinstance(error, IntegrityError):
        # Units look before they write, so only a write at the same time can have made it untrue.
        conflict = errors.Conflict("The same was written at the same time. Read again and retry.")
        conflict.__cause__ = error
        return conflict
    if isinstance(error, SQLAlchemyError):
        refused = errors.Internal(
            f"The database refuses a statement: {_cause(error)}", reason=errors.Reason.STORE_REFUSED
        )
        refused.__cause__ = error
        return refused
    return error


def _is_failure(error: Exception) -> bool:
    """Say whether the database has failed, rather than refused a statement; also while it was connected to."""
    driver = isinstance(error, sqlite3.Error) or type(error).__module__.partition(".")[0] == "psycopg"
    # A file that is damaged, or is no database, is the base class and nothing more.
    return driver or isinstance(error, _FAILURES) or type(error) is DatabaseError


def _unavailable(error: Exception) -> errors.Unavailable:
    outcome = "Nothing was changed."
    if getattr(error, "connection_invalidated", False):
        # A commit that was cut off may come to light when the database is next recovered.
        outcome = "Whether anything was changed is not known: look, or try again with the same request_id."
    unavailable = errors.Unavailable(
        f"The store cannot be used: {_cause(error)}. {outcome}", reason=errors.Reason.STORE_UNAVAILABLE, retry_after_s=2
    )
    unavailable.__cause__ = error
    return unavailable


def _cause(error: Exception) -> str:
    """Return the database's own words in one line, without the statement that some drivers quote."""
    return str(getattr(error, "orig", None) or error).partition("\nLINE ")[0].replace("\n", " ").strip()


def _is_conflict(error: Exception) -> bool:
    return isinstance(error, Changed) or _sqlstate(error) in _CONFLICTS


def _sqlstate(error: Exception) -> str:
    """Return Postgres' own name of one of its errors; empty for all others."""
    return str(getattr(getattr(error, "orig", None), "sqlstate", "") or "")


def _grouped(batch: Sequence[Write]) -> list[tuple[Unit[Any] | BatchWrite[Any, Any], list[Write]]]:
    groups: list[tuple[Unit[Any] | BatchWrite[Any, Any], list[Write]]] = []
    batch_writes: dict[BatchWrite[Any, Any], list[Write]] = {}
    for write in batch:
        if not isinstance(write.task, BatchWrite):
            groups.append((write.task, [write]))
        elif write.task in batch_writes:
            batch_writes[write.task].append(write)
        else:
            batch_writes[write.task] = [write]
            groups.append((write.task, batch_writes[write.task]))
    return groups


def _attempt(
    transaction: Transaction, task: Unit[Any] | BatchWrite[Any, Any], writes: Sequence[Write]
) -> Exception | None:
    """Run in a savepoint; return what undid it."""
    savepoint = transaction.connection.begin_nested()
    try:
        answers = _call(transaction, task, writes)
        savepoint.commit()
    except Exception as error:
        try:
            savepoint.rollback()
        except SQLAlchemyError:
            # The engine has given up the whole transaction, as SQLite does on a full disk: say that, not this.
            raise error from None
        if transaction.connection.invalidated:
            # So it is where the connection is gone: nothing else of the batch can succeed on it.
            raise
        return error
    _record(writes, answers)
    return None


def _call(transaction: Transaction, task: Unit[Any] | BatchWrite[Any, Any], writes: Sequence[Write]) -> Sequence[Any]:
    if not isinstance(task, BatchWrite):
        return [task(transaction)]
    answers = task.write_all(transaction, [write.item for write in writes])
    if len(answers) != len(writes):
        raise RuntimeError(f"{task.name} gave {len(answers)} answers to {len(writes)} items")
    return answers


def _record(writes: Sequence[Write], answers: Sequence[Any]) -> None:
    for write, answer in zip(writes, answers, strict=True):
        if isinstance(write.task, BatchWrite) and isinstance(answer, errors.Error):
            write.failure = answer
        else:
            write.answer = answer


def _wake(writes: Sequence[Write]) -> None:
    for write in writes:
        if write.future.done():
            continue
        if write.failure is None:
            write.future.set_result(write.answer)
        else:
            write.future.set_exception(write.failure)
