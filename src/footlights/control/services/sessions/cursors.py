"""Cursors of watches: where a client goes on, at any replica, and how one that cannot go on is told.

A cursor is gone where what came after it is not known any more: the database was restored since, or sessions were
removed longer ago than that is remembered. A restored database is told by what its engine says of its identity, by a
revision that it has not reached, and by the session that had the cursor's revision. What is left: a SQLite file that is
overwritten in place with an older copy, passes the cursor's revision, and has there a change of a session that has
changed since.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from footlights import errors
from footlights.store.cluster.revisions import last_revision
from footlights.store.sessions import removals
from footlights.store.sessions.feed import Position, holder

if TYPE_CHECKING:
    from footlights.control.call.sealed import Sealer
    from footlights.store import Transaction

_KIND = "cursor"


class Cursor(NamedTuple):
    """Where a watch goes on."""

    database: str
    position: Position
    """Up to which changes were sent."""
    begun: int | None = None
    """Of a watch that has not sent yet what there was when it began: the revision of the last session that it sent."""


class Cursors:
    """Makes cursors and opens them."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    @staticmethod
    def now(tx: Transaction) -> Cursor:
        """Return the cursor of one who knows all that this transaction sees."""
        return Cursor(tx.engine.identity(tx.connection), Position.now(tx))

    def seal(self, cursor: Cursor, selection: str) -> str:
        """Return a cursor as clients keep it. ``selection`` tells which sessions it is about."""
        return self._sealer.seal(_KIND, [cursor.database, *cursor.position, cursor.begun, selection])

    def open(self, tx: Transaction, text: str, selection: str) -> Cursor:
        """Return what a client kept.

        Raises InvalidArgument where it is not a cursor of these sessions, OutOfRange where one cannot go on from it.
        """
        found = self._sealer.open(_KIND, text)
        if found is None:
            raise _refused("is not a cursor of this server, or one of another version")
        database, *position, begun, selected = found
        if selected != selection:
            raise _refused("is of a list or a watch with other filters")
        cursor = Cursor(database, Position(*position), begun)
        revision = cursor.position.revision
        self.check(tx, revision)
        if database != tx.engine.identity(tx.connection):
            raise gone(revision, "the database was restored or moved since")
        if revision < removals.floor(tx):
            raise gone(revision, "sessions were removed since, and it is not known any more which")
        there = holder(tx, revision)
        if there and cursor.position.session_id and there != cursor.position.session_id:
            raise gone(revision, "the database was restored since")
        return cursor

    @staticmethod
    def check(tx: Transaction, revision: int) -> None:
        """Raise OutOfRange for a revision that this database has not reached."""
        if revision > (reached := last_revision(tx)):
            raise gone(revision, f"the database was restored since, and has reached revision {reached}")


def _refused(problem: str) -> errors.InvalidArgument:
    return errors.InvalidArgument(
        "cursor", f"{problem}. Leave it out to begin again.", reason=errors.Reason.INVALID_CURSOR
    )


def gone(revision: int, why: str) -> errors.OutOfRange:
    """Make the error of a place that nothing can be sent from."""
    return errors.OutOfRange(
        f"Changes after revision {revision} are not known: {why}. List again, or watch from the beginning.",
        reason=errors.Reason.CURSOR_GONE,
        metadata={"revision": str(revision)},
    )
