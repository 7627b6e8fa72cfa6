"""Following sessions: what matches as it is, a mark, then every change. One mechanism for all watches of sessions.

A signal wakes a watch early; a period guarantees that it looks. A watch keeps one batch in memory, and the ids of the
living sessions that its client has; a client that reads slowly holds up its own watch and nothing else.
"""

from __future__ import annotations

from collections import Counter
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from footlights import errors
from footlights.control.services.sessions import access
from footlights.control.services.sessions.cursors import Cursor, Cursors
from footlights.control.services.sessions.present import list_sessions, show_sessions
from footlights.filters import matches
from footlights.protocol.times import timestamp
from footlights.store.launches import launch_rows
from footlights.store.schema import RemovalRow
from footlights.store.sessions import filtering, listing, session_rows
from footlights.store.sessions.feed import BATCH, Feed, Position
from footlights.v1 import session_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
    from datetime import datetime

    from footlights.auth.roles import Caller
    from footlights.control.routes import Origin
    from footlights.control.signals import Signals
    from footlights.filters import Condition
    from footlights.store import Store, Transaction
    from footlights.store.schema import LaunchRow, SessionRow

PERIOD_S = 5.0
BOOKMARK_S = 15.0
"""How long a watch is silent at most."""

_STRETCH = 100
_Response = session_pb2.FollowSessionsResponse


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """Which sessions a watch is about."""

    username: str = ""
    application: str = ""
    session_id: str = ""
    states: frozenset[str] = frozenset()
    labels: tuple[tuple[str, str], ...] = ()
    condition: Condition | None = None
    ended: bool = False
    """Whether those are asked for that had ended before it began."""
    possible: frozenset[str] = frozenset()
    """The states that those may have which match; empty: all."""
    selection: str = ""
    """What a cursor is bound to."""

    @property
    def changeable(self) -> bool:
        """Whether a session may match now and not later."""
        return bool(self.states or self.labels or self.condition)

    def among(self, tx: Transaction, rows: Sequence[SessionRow]) -> set[str]:
        """Return the ids of those that match."""
        launched: dict[str, LaunchRow] = {}
        if self.condition is not None:
            launched = launch_rows.some(tx, [row.launch_id for row in rows if row.launch_id], output=False)
        return {row.session_id for row in rows if self._has(row, launched.get(row.launch_id or ""))}

    def _has(self, row: SessionRow, launch: LaunchRow | None) -> bool:
        return (
            (not self.states or row.state in self.states)
            and all(row.labels.get(key) == value for key, value in self.labels)
            and (self.condition is None or matches(self.condition, filtering.values(row, launch)))
        )


class Frame(NamedTuple):
    """One thing that a watch says."""

    change: session_pb2.FollowSessionsResponse.Change.ValueType
    session: session_pb2.Session | None
    cursor: Cursor


class SessionFollower:
    """Runs watches."""

    def __init__(
        self,
        store: Store,
        bus: Signals,
        cursors: Cursors,
        origin: Origin,
        *,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float],
        most_per_caller: int,
    ) -> None:
        self._store, self._bus, self._cursors, self._origin = store, bus, cursors, origin
        self._clock, self._monotonic = clock, monotonic
        self._most_per_caller = most_per_caller
        self._watches: Counter[str] = Counter()

    async def follow(self, wanted: Followed, caller: Caller, cursor: str) -> AsyncGenerator[_Response, None]:
        """Yield frames, from a cursor on where there is one.

        Raises NotFound where one session is asked for that the caller may not see, InvalidArgument and OutOfRange where
        the cursor cannot be used, Exhausted where the caller has too many watches.
        """
        start = await self._store.read(lambda tx: self._cursors.open(tx, cursor, wanted.selection)) if cursor else None
        async with aclosing(self._frames(wanted, caller, start, output=False)) as frames:
            async for frame in frames:
                yield _Response(
                    change=frame.change,
                    session=frame.session,
                    cursor=self._cursors.seal(frame.cursor, wanted.selection),
                    time=timestamp(self._clock()),
                )

    async def sessions(
        self, wanted: Followed, caller: Caller, after_revision: int
    ) -> AsyncGenerator[session_pb2.Session, None]:
        """Yield sessions without frames, as the watches of before do."""

        def begin(tx: Transaction) -> Cursor:
            self._cursors.check(tx, after_revision)
            return Cursor("", Position.after(tx, after_revision))

        start = await self._store.read(begin) if after_revision else None
        async with aclosing(self._frames(wanted, caller, start, output=True)) as frames:
            async for frame in frames:
                if frame.change == _Response.SET and frame.session is not None:
                    yield frame.session

    async def _frames(
        self, wanted: Followed, caller: Caller, start: Cursor | None, *, output: bool
    ) -> AsyncGenerator[Frame, None]:
        def begin(tx: Transaction) -> _Watch:
            show = show_sessions if output else list_sessions
            return _Watch(tx, wanted, caller, start, show=show, origin=self._origin, monotonic=self._monotonic)

        with self._counted(caller.subject), self._bus.sessions.subscribe() as signals:
            watch = await self._store.read(begin)
            while (stretch := await self._store.read(watch.stretch)) is not None:
                for frame in stretch:
                    yield frame
            said = self._monotonic()
            synced = False
            while True:
                frames, more = await self._store.read(watch.changes)
                for frame in frames:
                    yield frame
                if not more and not synced:
                    synced = True
                    yield Frame(_Response.SYNCED, None, watch.cursor)
                elif not more and not frames and not watch.over:
                    if self._monotonic() - said < BOOKMARK_S:
                        await signals.next(PERIOD_S)
                        continue
                    yield Frame(_Response.BOOKMARK, None, watch.cursor)
                said = self._monotonic()
                if watch.over and not more:
                    return

    @contextmanager
    def _counted(self, subject: str) -> Iterator[None]:
        if self._watches[subject] >= self._most_per_caller:
            raise errors.Exhausted(
                f"{subject} has {self._most_per_caller} watches at this server already. Close some, or share one.",
                reason=errors.Reason.TOO_MANY_WATCHES,
                metadata={"limit": str(self._most_per_caller)},
            )
        self._watches[subject] += 1
        try:
            yield
        finally:
            self._watches[subject] -= 1
            if not self._watches[subject]:
                del self._watches[subject]


class _Watch:
    """What one watch has said. It runs in transactions, one after the other."""

    def __init__(
        self,
        tx: Transaction,
        wanted: Followed,
        caller: Caller,
        start: Cursor | None,
        *,
        show: Callable[[Transaction, Sequence[SessionRow], Origin], list[session_pb2.Session]],
        origin: Origin,
        monotonic: Callable[[], float],
    ) -> None:
        """Find out what there is. Raises NotFound where one session is wanted that the caller may not see."""
        self._wanted, self._show, self._origin = wanted, show, origin
        self._complete = start is None
        """Whether the client has nothing from before."""
        self._has: set[str] = set()
        """The living sessions that the client has: only kept where some may stop to match."""
        self._lacks: set[str] = set()
        """The living sessions that it has not: only kept where it may have others from before."""
        self._ahead: dict[str, int] = {}
        """The revisions of sessions that changed after the beginning and were sent so: not to be sent again."""
        self.over = False
        """Whether the one session has ended."""
        self.cursor = Cursors.now(tx)._replace(begun=0) if start is None else start
        """Where to go on after what was said."""
        self._feed = Feed(self.cursor.position, monotonic)
        self._waiting: list[tuple[int, str]] | None = []
        """Those that there were at the beginning and are not sent yet, last one first; None: they are read in order."""
        if wanted.session_id:
            row = access.find(tx, caller, wanted.session_id)
            self.over = row.ended_time is not None
        if self.cursor.begun is None:
            return
        if wanted.session_id:
            self._waiting = [(0, wanted.session_id)]
        elif wanted.ended:
            self._waiting = None
        else:
            living = listing.living(tx, username=wanted.username, application=wanted.application)
            self._waiting = [each for each in reversed(living) if each[0] > self.cursor.begun]

    def stretch(self, tx: Transaction) -> list[Frame] | None:
        """Return some of what there was at the beginning; None once all was returned."""
        if self._waiting is None:
            listed = self._walk(tx)
        else:
            some = self._waiting[: -_STRETCH - 1 : -1]
            del self._waiting[-_STRETCH:]
            known = {row.session_id: row for row in session_rows.some(tx, [session_id for _, session_id in some])}
            # By the revision that each had at the beginning: another watch goes on by these.
            listed = [(revision, known.get(session_id)) for revision, session_id in some]
        if not listed:
            self.cursor = self.cursor._replace(begun=None)
            return None
        rows = [row for _, row in listed if row is not None]
        found = self._wanted.among(tx, rows)
        shown = self._shown(tx, rows, found)
        frames = []
        for revision, row in listed:
            self.cursor = self.cursor._replace(begun=revision)
            if row is not None and row.session_id in found:
                frames.append(Frame(_Response.SET, shown[row.session_id], self.cursor))
                self._note(row, has=True)
                if row.revision > min(revision, self.cursor.position.revision):
                    self._ahead[row.session_id] = row.revision
        return frames

    def changes(self, tx: Transaction) -> tuple[list[Frame], bool]:
        """Return what has changed, and whether there is more."""
        wanted = self._wanted
        rows = self._feed.read(
            tx, username=wanted.username, application=wanted.application, session_id=wanted.session_id
        )
        there = [row for row in rows if not isinstance(row, RemovalRow)]
        found = wanted.among(tx, there)
        shown = self._shown(tx, there, found)
        frames = []
        for row in rows:
            if isinstance(row, RemovalRow):
                frames.append(self._removed(row.session_id))
            elif row.session_id in found:
                if self._ahead.pop(row.session_id, None) != row.revision:
                    frames.append(Frame(_Response.SET, shown[row.session_id], self.cursor))
                    self._note(row, has=True)
            elif row.session_id in self._has or not (self._complete or row.session_id in self._lacks):
                frames.append(self._removed(row.session_id))
                self._note(row, has=False)
            if wanted.session_id and (isinstance(row, RemovalRow) or row.ended_time is not None):
                self.over = True
        # In between, a client would go on from before all of it: late changes may have smaller revisions.
        self.cursor = self.cursor._replace(position=self._feed.position)
        if frames:
            frames[-1] = frames[-1]._replace(cursor=self.cursor)
        return frames, len(rows) >= BATCH

    def _walk(self, tx: Transaction) -> list[tuple[int, SessionRow | None]]:
        """Return sessions in the order of their last changes, as far as they had changed at the beginning."""
        begun = self.cursor.begun or 0
        if begun >= self.cursor.position.revision:
            return []
        wanted = self._wanted
        rows = listing.changed(
            tx, begun, _STRETCH, username=wanted.username, application=wanted.application, states=wanted.possible
        )
        return [(row.revision, row) for row in rows]

    def _shown(self, tx: Transaction, rows: Sequence[SessionRow], found: set[str]) -> dict[str, session_pb2.Session]:
        messages = self._show(tx, [row for row in rows if row.session_id in found], self._origin)
        return {message.session_id: message for message in messages}

    def _removed(self, session_id: str) -> Frame:
        self._has.discard(session_id)
        self._ahead.pop(session_id, None)
        return Frame(_Response.REMOVED, session_pb2.Session(session_id=session_id), self.cursor)

    def _note(self, row: SessionRow, *, has: bool) -> None:
        """Remember what the client has; of those that have ended nothing changes any more."""
        if not self._wanted.changeable:
            return
        living = row.ended_time is None
        for ids, holds in ((self._has, has), (self._lacks, not has and not self._complete)):
            if holds and living:
                ids.add(row.session_id)
            else:
                ids.discard(row.session_id)
