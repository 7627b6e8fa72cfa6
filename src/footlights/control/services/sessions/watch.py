"""Following sessions by revision. A signal wakes a watch early; a period guarantees that it looks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from footlights.control.services.sessions import access
from footlights.control.services.sessions.present import show_session, show_sessions
from footlights.store.sessions import listing
from footlights.store.sessions.feed import BATCH, Feed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from footlights.auth.roles import Caller
    from footlights.control.services.sessions.present import Origin
    from footlights.control.signals import Signals
    from footlights.store import Store, Transaction
    from footlights.v1 import session_pb2

PERIOD_S = 5.0


async def watch_one(
    store: Store, bus: Signals, *, caller: Caller, session_id: str, after_revision: int, origin: Origin
) -> AsyncIterator[session_pb2.Session]:
    """Yield one session as it is, then at every change, until it has ended.

    Raises NotFound where there is none that the caller may see.
    """
    revision = after_revision
    with bus.sessions.subscribe() as changes:
        while True:
            session = await store.read(lambda tx: show_session(tx, access.find(tx, caller, session_id), origin))
            if session.revision > revision:
                revision = session.revision
                yield session
            if session.HasField("ended_time"):
                return
            await changes.next(PERIOD_S)


async def watch_many(
    store: Store, bus: Signals, *, username: str, application: str, after_revision: int, origin: Origin
) -> AsyncIterator[session_pb2.Session]:
    """Yield the sessions that have not ended, or all that changed after a revision; then every change, indefinitely.

    With several replicas, one that resumes after a revision starts a little before it: a change may be sent twice, and
    none is missed.
    """
    with bus.sessions.subscribe() as changes:
        if after_revision:
            feed = Feed(after_revision, time.monotonic)
        else:

            def begin(tx: Transaction) -> tuple[list[session_pb2.Session], Feed]:
                rows = listing.living(tx, username=username, application=application)
                return show_sessions(tx, rows, origin), Feed.now(tx, time.monotonic)

            sessions, feed = await store.read(begin)
            for session in sessions:
                yield session

        def follow(tx: Transaction) -> list[session_pb2.Session]:
            return show_sessions(tx, feed.read(tx, username=username, application=application), origin)

        while True:
            sessions = await store.read(follow)
            for session in sessions:
                yield session
            if len(sessions) < BATCH:
                await changes.next(PERIOD_S)
