"""Following sessions by revision. A wake-up hurries a watcher; a period guarantees it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from footlights.control.services.sessions import access
from footlights.store.sessions import listing
from footlights.store.sessions.feed import BATCH, Feed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from footlights.auth.roles import Caller
    from footlights.control.present import Origin
    from footlights.control.signals import Signals
    from footlights.store import Store, Transaction
    from footlights.v1 import session_pb2

PERIOD_S = 5.0


async def one(
    store: Store, bus: Signals, caller: Caller, session_id: str, after_revision: int, origin: Origin
) -> AsyncIterator[session_pb2.Session]:
    """Yield one session as it is, then at every change, until it has ended.

    Raises:
        errors.NotFound: there is none that the caller may see.
    """
    revision = after_revision
    with bus.sessions.subscribe() as changes:
        while True:
            session = await store.read(lambda tx: access.show_one(tx, access.find(tx, caller, session_id), origin))
            if session.revision > revision:
                revision = session.revision
                yield session
            if session.HasField("ended_time"):
                return
            await changes.next(PERIOD_S)


async def many(
    store: Store, bus: Signals, *, username: str, application: str, after_revision: int, origin: Origin
) -> AsyncIterator[session_pb2.Session]:
    """Yield the living sessions as they are (or all that changed after a revision), then every change, for ever.

    Where there are several replicas, one that is resumed after a revision begins a little before it: what was seen is
    told again rather than that something is missed.
    """
    with bus.sessions.subscribe() as changes:
        if after_revision:
            feed = Feed(after_revision, time.monotonic)
        else:

            def begin(tx: Transaction) -> tuple[list[session_pb2.Session], Feed]:
                rows = listing.living(tx, username=username, application=application)
                return access.show(tx, rows, origin), Feed.now(tx, time.monotonic)

            sessions, feed = await store.read(begin)
            for session in sessions:
                yield session

        def follow(tx: Transaction) -> list[session_pb2.Session]:
            return access.show(tx, feed.read(tx, username=username, application=application), origin)

        while True:
            sessions = await store.read(follow)
            for session in sessions:
                yield session
            if len(sessions) < BATCH:
                await changes.next(PERIOD_S)
