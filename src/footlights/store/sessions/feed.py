"""Following changes by revision without missing one.

SQLite has one writer, so revisions are committed in order. On Postgres a transaction may commit a smaller revision
after a greater one was read. So an overlap is read again, and what was read of it before is dropped. The overlap begins
after the greatest revision for which every transaction with a smaller one is known to have ended: those that had drawn
one by then had an id within ``_DRAWN_S``, and none of these ids is in progress any more. Where a long transaction, such
as a backup, delays that knowledge, it is assumed after ``_ENDED_S``: no transaction of ours lasts as long.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from footlights.store.cluster.revisions import last_revision
from footlights.store.schema import SessionRow
from footlights.store.sessions import listing

if TYPE_CHECKING:
    from collections.abc import Callable

    from footlights.store.unit import Readable, Transaction

BATCH = 500
OVERLAP = 1000
"""How many revisions earlier a follower starts that comes from another replica."""

_DRAWN_S = 4.0
"""Longer than Postgres lets one of our transactions stand still."""
_ENDED_S = 60.0


@dataclass(slots=True)
class _Mark:
    """A revision that was the greatest at a certain time."""

    revision: int
    at: float
    transaction: int | None = None
    """Every transaction that had drawn a smaller one has a smaller id than this."""


Change = TypeVar("Change", SessionRow, listing.SessionEnd)


class Feed:
    """Follows the changes of sessions: each call reads what is new. Belongs to one reader."""

    def __init__(self, after: int, monotonic: Callable[[], float]) -> None:
        self.revision = after
        """The greatest that was read."""
        self._low, self._monotonic = max(0, after - OVERLAP), monotonic
        self._seen: dict[str, int] = {}
        self._marks: deque[_Mark] = deque()

    @classmethod
    def now(cls, tx: Transaction, monotonic: Callable[[], float]) -> Feed:
        """Start with what this transaction does not see."""
        feed = cls(last_revision(tx), monotonic)
        if tx.engine.shared:
            rows = listing.changes_since(tx, feed._low, limit=OVERLAP).rows
            feed._seen = {row.session_id: row.revision for row in rows}
        return feed

    def read(self, tx: Transaction, *, username: str = "", application: str = "") -> list[SessionRow]:
        """Return what has changed and was not read yet, oldest change first: at most ``BATCH``, else there is more."""
        return self._read(
            tx,
            lambda after: listing.changes_since(tx, after, username=username, application=application, limit=BATCH),
        )

    def read_ends(self, tx: Transaction) -> list[listing.SessionEnd]:
        """Return the ends that were not read yet, as ``read`` does; a feed is read by one of the two only."""
        return self._read(tx, lambda after: listing.ended_since(tx, after, limit=BATCH))

    def _read(self, tx: Transaction, changes: Callable[[int], Readable[Change]]) -> list[Change]:
        transactions = tx.engine.transactions(tx.connection)
        fresh: list[Change] = []
        newest = last_revision(tx)
        after = self.revision if transactions is None else self._low
        while True:
            read = changes(after)
            fresh += [row for row in read.rows if self._seen.get(row.session_id) != row.revision]
            if read.found < BATCH or not read.rows or len(fresh) >= BATCH:
                break
            after = read.rows[-1].revision
        # Where all was read, changes that are filtered out count as read too.
        whole = read.found < BATCH and len(fresh) <= BATCH
        fresh = fresh[:BATCH]
        self.revision = newest if whole else max([self.revision, *(row.revision for row in fresh)])
        if transactions is not None:
            self._seen.update((row.session_id, row.revision) for row in fresh)
            self._advance(transactions)
        return fresh

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
        if not self._marks or self._marks[-1].revision < self.revision:
            self._marks.append(_Mark(self.revision, now))

    @staticmethod
    def _over(mark: _Mark, oldest: int, now: float) -> bool:
        return (mark.transaction is not None and oldest >= mark.transaction) or now - mark.at >= _ENDED_S
