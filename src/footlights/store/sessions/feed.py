"""Following changes by revision without missing one.

SQLite has one writer, so revisions are committed in order. On Postgres a transaction may commit a smaller revision
after a greater one was read. So an overlap is read again, and what was read of it before is dropped. The overlap begins
after the greatest revision for which every transaction with a smaller one is known to have ended: those that had drawn
one by then had an id within ``_DRAWN_S``, and none of these ids is in progress any more. Where a long transaction, such
as a backup, delays that knowledge, it is assumed after ``_ENDED_S``: no transaction of ours lasts as long.

A ``Position`` is where a reader is, as values: another reader, at any replica, goes on from there. Of the overlap it
reads what was written by transactions that were not known to have ended: Postgres keeps with each row which one wrote
it, and savepoints have greater numbers than their transactions.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import ColumnElement, select, union_all

from footlights.store.schema import REMOVAL, SESSION, RemovalRow, SessionRow
from footlights.store.sessions.filtering import SOMEBODYS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Select

    from footlights.store.unit import Transaction

BATCH = 500
OVERLAP = 5000
"""How many revisions earlier a follower starts that comes from elsewhere: it is told what it has not seen of these."""

_RETOLD = 1000
"""The same where it is not known what it has seen: it is told all of these again."""

_DRAWN_S = 4.0
"""Longer than Postgres lets one of our transactions stand still."""
_ENDED_S = 60.0


class Position(NamedTuple):
    """How far the changes of sessions were read."""

    revision: int
    """The greatest that was read."""
    low: int
    """Every change with a smaller revision was read."""
    transaction: int | None = None
    """Every change of a transaction with a smaller id was read; None where it is not known, or commits keep order."""
    session_id: str = ""
    """The session that had the greatest revision; empty where none has it."""

    @classmethod
    def now(cls, tx: Transaction) -> Position:
        """Return the position of one who has read all that this transaction sees."""
        revision, session_id = _newest(tx)
        transactions = tx.engine.transactions(tx.connection)
        if transactions is None:
            return cls(revision, revision, None, session_id)
        return cls(revision, max(0, revision - OVERLAP), transactions[0], session_id)

    @classmethod
    def after(cls, tx: Transaction, revision: int) -> Position:
        """Return the position of one who knows a revision only: it may be told again what it has heard."""
        return cls(revision, max(0, revision - _RETOLD) if tx.engine.shared else revision)


class SessionEnd(NamedTuple):
    """The end of a session."""

    session_id: str
    revision: int
    end_reason: str


@dataclass(slots=True)
class _Mark:
    """A revision that was the greatest at a certain time."""

    revision: int
    at: float
    transaction: int | None = None
    """Every transaction that had drawn a smaller one has a smaller id than this."""


_Source = tuple["Select[Any]", "ColumnElement[int]", type[Any]]


class Feed:
    """Follows the changes of sessions: each call reads what is new. Belongs to one reader."""

    def __init__(self, start: Position, monotonic: Callable[[], float]) -> None:
        self.position = start
        """How far it was read."""
        self._start, self._monotonic = start, monotonic
        self._low = start.low
        self._seen: dict[str, int] = {}
        self._marks: deque[_Mark] = deque()

    def read(
        self, tx: Transaction, *, username: str = "", application: str = "", session_id: str = ""
    ) -> list[SessionRow | RemovalRow]:
        """Return what has changed and was not read yet, oldest change first: at most ``BATCH``, else there is more."""

        def mine(columns: Any) -> list[ColumnElement[bool]]:
            asked = {"username": username, "application": application, "session_id": session_id}
            return [columns[name] == value for name, value in asked.items() if value]

        return self._read(
            tx,
            [
                (select(SESSION).where(*mine(SESSION.c), SOMEBODYS), SESSION.c.revision, SessionRow),
                (select(REMOVAL).where(*mine(REMOVAL.c)), REMOVAL.c.revision, RemovalRow),
            ],
        )

    def read_ends(self, tx: Transaction) -> list[SessionEnd]:
        """Return the ends that were not read yet, as ``read`` does; a feed is read by one of the two only."""
        ends = select(SESSION.c.session_id, SESSION.c.revision, SESSION.c.end_reason)
        ended = ends.where(SESSION.c.ended_time.is_not(None), SOMEBODYS)
        return self._read(tx, [(ended, SESSION.c.revision, SessionEnd)])

    def _read(self, tx: Transaction, sources: Sequence[_Source]) -> list[Any]:
        transactions = tx.engine.transactions(tx.connection)
        fresh: list[Any] = []
        newest, newest_id = _newest(tx)
        after = self.position.revision if transactions is None else self._low
        while True:
            rows, bound = self._some(tx, sources, after)
            fresh += [row for row in rows if self._seen.get(row.session_id) != row.revision]
            if bound is None or len(fresh) >= BATCH:
                break
            after = bound
        # Where all was read, changes that are filtered out count as read too.
        whole = bound is None and len(fresh) <= BATCH
        fresh = fresh[:BATCH]
        revision, session_id = self.position.revision, self.position.session_id
        if whole:
            revision, session_id = newest, newest_id
        elif fresh and fresh[-1].revision > revision:
            revision, session_id = fresh[-1].revision, fresh[-1].session_id
        self.position = Position(revision, revision, None, session_id)
        if transactions is not None:
            self._seen.update((row.session_id, row.revision) for row in fresh)
            self._advance(transactions)
            self.position = Position(revision, self._low, transactions[0], session_id)
        return fresh

    def _some(self, tx: Transaction, sources: Sequence[_Source], after: int) -> tuple[list[Any], int | None]:
        """Return changes after a revision, in order, and up to which they are complete; None: all were read."""
        rows: list[Any] = []
        bound: int | None = None
        for statement, revision, kind in sources:
            later = statement.where(revision > after, *self._unread(tx, revision)).order_by(revision).limit(BATCH)
            read = tx.readable(later, kind)
            rows += read.rows
            if read.found >= BATCH:
                # Beyond those that cannot be decoded, too.
                last = (
                    max(tx.execute(later.with_only_columns(revision)).scalars())
                    if read.skipped
                    else read.rows[-1].revision
                )
                bound = last if bound is None else min(bound, last)
        rows.sort(key=lambda row: row.revision)
        return [row for row in rows if bound is None or row.revision <= bound], bound

    def _unread(self, tx: Transaction, revision: ColumnElement[int]) -> list[ColumnElement[bool]]:
        """Return what else holds for changes in the overlap with the reader before this one."""
        start = self._start
        if start.transaction is None or self._low >= start.revision:
            return []
        return [(revision > start.revision) | tx.engine.written_since(revision, start.transaction)]

    def _advance(self, transactions: tuple[int, int]) -> None:
        now = self._monotonic()
        oldest, next_ = transactions
        for mark in self._marks:
            if mark.transaction is None and now - mark.at >= _DRAWN_S:
                mark.transaction = next_
        low = self._low
        while self._marks and self._over(self._marks[0], oldest, now):
            low = self._marks.popleft().revision
        if low > self._low:
            self._low = low
            self._seen = {name: revision for name, revision in self._seen.items() if revision > low}
        if not self._marks or self._marks[-1].revision < self.position.revision:
            self._marks.append(_Mark(self.position.revision, now))

    @staticmethod
    def _over(mark: _Mark, oldest: int, now: float) -> bool:
        return (mark.transaction is not None and oldest >= mark.transaction) or now - mark.at >= _ENDED_S


def holder(tx: Transaction, revision: int) -> str:
    """Return the session, or the one that was removed, whose last change has this revision; empty where none has."""
    either = union_all(
        *(select(table.c.session_id).where(table.c.revision == revision) for table in (SESSION, REMOVAL))
    )
    return str(tx.execute(either).scalar() or "")


def _newest(tx: Transaction) -> tuple[int, str]:
    """Return the greatest revision that is seen, and whose it is."""
    found = [
        tx.execute(
            select(table.c.revision, table.c.session_id).order_by(table.c.revision.desc()).limit(1)
        ).one_or_none()
        for table in (SESSION, REMOVAL)
    ]
    return max(((int(row[0]), str(row[1])) for row in found if row is not None), default=(0, ""))
