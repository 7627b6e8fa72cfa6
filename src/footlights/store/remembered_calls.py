"""Writes by request id: each has one effect, and every repetition of it gets the same answer for 24 hours.

A call's row is written before its effect, in the same transaction: of two replicas that are given the same call at the
same moment, the second waits for the first one's commit and then finds its answer. Failed calls leave no row, so they
may be tried again.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from sqlalchemy import ColumnElement, bindparam, delete, func, or_, select, tuple_, update

from footlights import errors
from footlights.store.bulk import Inserter
from footlights.store.schema import REMEMBERED_CALL, RememberedCallRow

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from footlights.store.unit import Transaction

T = TypeVar("T")

TTL = timedelta(hours=24)

MOST_OF_A_CALLER = 100_000
"""So many calls of one caller are remembered: the newest."""

MOST_BYTES_OF_A_CALLER = 64 * 1024**2
"""So many bytes of answers to one caller are remembered: the newest."""

FORGOTTEN_AT_ONCE = 500
"""Calls that one transaction forgets."""

FORGOTTEN_IN_A_PASS = 50_000
"""Calls of more than a day ago that are looked for at once."""

_COLUMNS = (REMEMBERED_CALL.c.subject, REMEMBERED_CALL.c.method, REMEMBERED_CALL.c.request_id)


@dataclass(frozen=True, slots=True)
class CallKey:
    """One write of one caller, under the id that the caller gave it."""

    subject: str
    method: str
    """``/package.Service/Method``."""
    request_id: str
    digest: bytes
    """Of the request: another one under the same id is refused."""

    @property
    def key(self) -> tuple[str, str, str]:
        """What is remembered once. The id is hashed: with it secrets are made (``auth.tokens``)."""
        return self.subject, self.method, hashlib.sha256(self.request_id.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Written(Generic[T]):
    """The answer to a write."""

    answer: T
    replayed: bool = False
    """Whether it is the answer to an earlier call, and nothing was written now."""


class Remembered(NamedTuple):
    """Names one row."""

    subject: str
    method: str
    request_id: str
    created_time: datetime


def once(
    tx: Transaction,
    calls: Sequence[CallKey | None],
    write_all: Callable[[Sequence[int]], Sequence[T | errors.Error]],
    *,
    encode: Callable[[CallKey, T], bytes],
    decode: Callable[[CallKey, bytes], T],
    now: datetime,
) -> list[Written[T] | errors.Error]:
    """Answer each call: from memory where it was answered before, otherwise by writing it and remembering the answer.

    ``write_all`` gets the positions of the calls to write, None among ``calls`` always with them, and returns as many
    answers. An answer is an ``errors.AlreadyExists`` where another request has the same id.
    """
    first: dict[tuple[str, str, str], int] = {}
    begun: list[int] = []
    later: list[int] = []
    for number, call in enumerate(calls):
        repeated = call is not None and first.setdefault(call.key, number) != number
        (later if repeated else begun).append(number)
    answers: dict[int, Written[T] | errors.Error] = {}
    claimed = {number: call for number in begun if (call := calls[number]) is not None}
    for key, row in _claim(tx, list(claimed.values()), now).items():
        number = first[key]
        call = claimed[number]
        answers[number] = (
            Written(decode(call, row.answer), replayed=True) if row.digest == call.digest else reused(call.request_id)
        )
    due = [number for number in begun if number not in answers]
    remembered, failed = [], []
    for number, answer in zip(due, write_all(due) if due else (), strict=True):
        call = calls[number]
        answers[number] = answer if isinstance(answer, errors.Error) else Written(answer)
        if call is not None:
            if isinstance(answer, errors.Error):
                failed.append(call.key)
            else:
                remembered.append((call.key, encode(call, answer)))
    _answer(tx, remembered)
    if failed:
        tx.execute(delete(REMEMBERED_CALL).where(_among(failed)))
    if later:
        # They find what the first call of their id has left.
        again = once(
            tx,
            [calls[number] for number in later],
            lambda numbers: write_all([later[number] for number in numbers]),
            encode=encode,
            decode=decode,
            now=now,
        )
        answers.update(zip(later, again, strict=True))
    return [answers[number] for number in range(len(calls))]


def out_of_date(
    tx: Transaction, *, now: datetime, most: int = MOST_OF_A_CALLER, most_bytes: int = MOST_BYTES_OF_A_CALLER
) -> list[Remembered]:
    """Return what is to be forgotten: calls of more than a day ago, and the oldest of a caller that has too many."""
    table = REMEMBERED_CALL.c
    which = (*_COLUMNS, table.created_time)
    old = select(*which).where(table.created_time < now - TTL).order_by(table.created_time).limit(FORGOTTEN_IN_A_PASS)
    found = [Remembered(*row) for row in tx.execute(old)]
    size = func.length(table.answer)
    recent = table.created_time >= now - TTL
    busy = (
        select(table.subject)
        .where(recent)
        .group_by(table.subject)
        .having(or_(func.count() > most, func.sum(size) > most_bytes))
    )
    for subject in list(tx.execute(busy).scalars()):
        calls = bytes_of = 0
        newest = select(*which, size).where(table.subject == subject, recent).order_by(table.created_time.desc())
        for *row, length in tx.execute(newest):
            calls, bytes_of = calls + 1, bytes_of + length
            if calls > most or bytes_of > most_bytes:
                found.append(Remembered(*row))
    return found


def forget(tx: Transaction, calls: Sequence[Remembered]) -> int:
    """Remove calls, unless one was made again under its id; return how many there were."""
    which = tuple_(*_COLUMNS, REMEMBERED_CALL.c.created_time)
    return tx.changed(delete(REMEMBERED_CALL).where(which.in_([tuple(call) for call in calls])))


def reused(request_id: str) -> errors.AlreadyExists:
    """Return the error for one request id that is used for two different requests."""
    return errors.AlreadyExists(
        f"request_id: {request_id!r} was used for another request within 24 hours. Use a new one.",
        reason=errors.Reason.REQUEST_ID_REUSED,
        metadata={"field": "request_id", "request_id": request_id},
    )


def _claim(tx: Transaction, calls: Sequence[CallKey], now: datetime) -> dict[tuple[str, str, str], RememberedCallRow]:
    """Write the rows of calls, without answers; return those that were there, by key."""
    wanted = {call.key: call for call in calls}
    # In one order everywhere, so that two replicas never deadlock.
    rows = [(*key, wanted[key].digest, b"", now) for key in sorted(wanted)]
    if not rows or _insert(tx, rows) == len(rows):
        return {}
    found = tx.all(select(REMEMBERED_CALL).where(_among(list(wanted))), RememberedCallRow)
    return {(row.subject, row.method, row.request_id): row for row in found if row.answer}


def _answer(tx: Transaction, answers: Sequence[tuple[tuple[str, str, str], bytes]]) -> None:
    if answers:
        names = ("of_subject", "of_method", "of_request")
        tx.execute(_ANSWER, [{**dict(zip(names, key, strict=True)), "answered": answer} for key, answer in answers])


def _among(keys: Sequence[tuple[str, str, str]]) -> ColumnElement[bool]:
    return tuple_(*_COLUMNS).in_(keys)


_insert = Inserter(REMEMBERED_CALL, skip_conflicts=True)
_ANSWER = (
    update(REMEMBERED_CALL)
    .where(
        REMEMBERED_CALL.c.subject == bindparam("of_subject"),
        REMEMBERED_CALL.c.method == bindparam("of_method"),
        REMEMBERED_CALL.c.request_id == bindparam("of_request"),
    )
    .values(answer=bindparam("answered"))
)
