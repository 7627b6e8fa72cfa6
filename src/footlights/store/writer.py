"""One commit: the units and joint items that share it, each undone alone where it fails.

Order. Units run in the order in which they came; so do the items of one joint among themselves. All items of a joint
run at the place of the first of them, so one that came later may overtake units that came before it. Nobody who waits
for an answer before the next write can tell: what has been answered is committed.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy.exc import IntegrityError, InterfaceError, InternalError, OperationalError, SQLAlchemyError

from footlights import errors
from footlights.store.unit import Changed, Joint, Transaction, Unit

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from sqlalchemy import Connection

log = logging.getLogger(__name__)
T = TypeVar("T")

_DEADLOCK, _NOT_UNIQUE = "40P01", "23505"
"""PostgreSQL, appendix A: deadlock_detected, unique_violation."""


_FAILURES = (OperationalError, InternalError, InterfaceError)
"""Postgres calls the end of a transaction that stood still an internal error."""


@dataclass(slots=True, eq=False)
class Work:
    """What one caller waits for: a unit, or an item of a joint."""

    task: Unit[Any] | Joint[Any, Any]
    item: Any
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    answer: Any = None
    failure: BaseException | None = None
    crossed: bool = False
    """Whether it failed because another process wrote at the same time: it can be run again, and sees that."""

    def fail(self, error: Exception) -> None:
        """Note why it failed."""
        self.failure, self.crossed = translate(error), _is_crossing(error)

    def renew(self) -> None:
        """Forget that it failed."""
        self.failure, self.crossed = None, False


class Undone(Exception):
    """Rolls back a commit whose only piece of work has failed; the work says why."""


def run(connection: Connection, batch: Sequence[Work]) -> None:
    """Run everything in one open transaction, and note each answer or failure on its work.

    Raises:
        Undone: the batch is one piece of work and failed; whatever encloses the transaction must roll it back.
    """
    transaction = Transaction(connection)
    if len(batch) == 1:
        # Nobody shares the commit, so its own rollback is enough: no savepoint.
        [work] = batch
        try:
            _settle(batch, _call(transaction, work.task, batch))
        except Exception as error:
            work.fail(error)
        if work.failure is not None:
            raise Undone
        return
    for task, works in _grouped(batch):
        failure = _attempt(transaction, task, works)
        if failure is None:
            continue
        if len(works) == 1 or _sqlstate(failure) == _DEADLOCK:
            for work in works:
                work.fail(failure)
            continue
        log.info(
            "A joint write failed; its items are tried one by one",
            extra={"action": "joint_split", "count": len(works), "error": str(failure)},
        )
        for work in works:
            alone = _attempt(transaction, task, [work])
            if alone is not None:
                work.fail(alone)


def deliver(batch: Sequence[Work]) -> None:
    """Wake whoever waits, each loop once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Work]] = {}
    for work in batch:
        by_loop.setdefault(work.loop, []).append(work)
    for loop, works in by_loop.items():
        try:
            loop.call_soon_threadsafe(_wake, works)
        except RuntimeError:
            # The callers' loop is closed: nobody waits any more.
            log.warning("A write finished after its loop was closed", extra={"action": "write_orphaned"})


def translate(error: Exception) -> Exception:
    """Return what a caller is told of an error of the engine's; other errors as they are."""
    if is_failure(error):
        return unavailable(error)
    if isinstance(error, IntegrityError):
        # Units look before they write, so only somebody who wrote at the same time can have made it untrue.
        conflict = errors.Conflict("The same was written at the same time. Read again and retry.")
        conflict.__cause__ = error
        return conflict
    return error


def is_failure(error: Exception) -> bool:
    """Say whether the engine has failed, rather than refused what it was asked for; also while it was connected to."""
    return isinstance(error, _FAILURES) or type(error).__module__.partition(".")[0] == "psycopg"


def unavailable(error: Exception) -> errors.Unavailable:
    """Return what a caller is told of an engine that fails."""
    cause = getattr(error, "orig", None) or error
    outcome = "Nothing was changed."
    if getattr(error, "connection_invalidated", False):
        # A commit that was cut off may come to light when the database is next recovered.
        outcome = "Whether anything was changed is not known: look, or try again with the same request_id."
    return errors.Unavailable(
        f"The store cannot be used: {cause}. {outcome}", reason="STORE_UNAVAILABLE", retry_after_s=2
    )


def _is_crossing(error: Exception) -> bool:
    return isinstance(error, Changed) or _sqlstate(error) in (_DEADLOCK, _NOT_UNIQUE)


def _sqlstate(error: Exception) -> str:
    """Return Postgres' own name of an error of its; empty for all others."""
    return str(getattr(getattr(error, "orig", None), "sqlstate", "") or "")


def _grouped(batch: Sequence[Work]) -> list[tuple[Unit[Any] | Joint[Any, Any], list[Work]]]:
    groups: list[tuple[Unit[Any] | Joint[Any, Any], list[Work]]] = []
    joints: dict[Joint[Any, Any], list[Work]] = {}
    for work in batch:
        if not isinstance(work.task, Joint):
            groups.append((work.task, [work]))
        elif work.task in joints:
            joints[work.task].append(work)
        else:
            joints[work.task] = [work]
            groups.append((work.task, joints[work.task]))
    return groups


def _attempt(transaction: Transaction, task: Unit[Any] | Joint[Any, Any], works: Sequence[Work]) -> Exception | None:
    """Run in a savepoint; return what undid it."""
    savepoint = transaction.connection.begin_nested()
    try:
        answers = _call(transaction, task, works)
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
    _settle(works, answers)
    return None


def _call(transaction: Transaction, task: Unit[Any] | Joint[Any, Any], works: Sequence[Work]) -> Sequence[Any]:
    if not isinstance(task, Joint):
        return [task(transaction)]
    answers = task.write_all(transaction, [work.item for work in works])
    if len(answers) != len(works):
        raise RuntimeError(f"{task.name} gave {len(answers)} answers to {len(works)} items")
    return answers


def _settle(works: Sequence[Work], answers: Sequence[Any]) -> None:
    for work, answer in zip(works, answers, strict=True):
        if isinstance(work.task, Joint) and isinstance(answer, errors.Error):
            work.failure = answer
        else:
            work.answer = answer


def _wake(works: Sequence[Work]) -> None:
    for work in works:
        if work.future.done():
            continue
        if work.failure is None:
            work.future.set_result(work.answer)
        else:
            work.future.set_exception(work.failure)


__all__ = ["Undone", "Work", "deliver", "run", "translate", "unavailable"]
