"""Wake-ups between replicas: received while both sides are up, and reported as missed where they may have been."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest

from footlights.store import Store, open_store
from footlights.store.cluster.revisions import last_revision
from footlights.store.engines.notify import MAX_BYTES, Wakeups
from tests.store.databases import Postgres
from tests.system.stack import until

CUT = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE application_name = 'footlights-wakeups' AND datname = current_database()"
)


@pytest.fixture
def url(a_postgres: Postgres) -> str:
    return a_postgres.create()


@pytest.fixture
def shared(url: str, tmp_path: Path) -> Iterator[Store]:
    store = open_store(tmp_path / "data", url)
    yield store
    store.close_now()


class Listener:
    """One replica's end."""

    def __init__(self, store: Store) -> None:
        self.heard: list[str] = []
        self.missed = 0
        self.wakeups: Wakeups = store.wakeups(heard=self.heard.append, missed=self._count)

    def _count(self) -> None:
        self.missed += 1

    async def until(self, condition: Callable[[], object], what: str) -> None:
        async def there() -> object:
            return condition()

        await until(there, what=what)


@asynccontextmanager
async def listening(store: Store) -> AsyncIterator[Listener]:
    listener = Listener(store)
    running = asyncio.create_task(listener.wakeups.run())
    try:
        await listener.until(listener.wakeups.listening.is_set, "it listens")
        yield listener
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_what_is_told_is_heard_by_all(shared: Store) -> None:
    """The teller included, in its order, as long as it may be, and whatever it says."""
    texts = ["one", "'; DROP TABLE session; --", "ü" * 100, "x" * MAX_BYTES]
    async with listening(shared) as one, listening(shared) as two:
        for text in texts:
            one.wakeups.tell(text)
        await two.until(lambda: len(two.heard) == len(texts), "all is heard")
        await one.until(lambda: len(one.heard) == len(texts), "its own words too")

    assert (one.heard, two.heard) == (texts, texts)


async def test_each_beginning_of_listening_says_that_something_may_have_been_missed(shared: Store, url: str) -> None:
    """Also after a connection was lost; then both sides go on by themselves."""
    async with listening(shared) as one, listening(shared) as two:
        assert (one.missed, two.missed) == (1, 1)
        with psycopg.connect(url, autocommit=True) as connection:
            assert len(connection.execute(CUT).fetchall()) == 4
        await two.until(lambda: two.missed == 2, "it listens again")

        async def told_again() -> None:
            while "again" not in two.heard:
                # What is told over the connection that is lost without its knowing is lost too.
                one.wakeups.tell("again")
                await asyncio.sleep(0.1)

        await asyncio.wait_for(told_again(), 15)


async def test_what_is_not_taken_is_dropped_beyond_a_bound(shared: Store) -> None:
    """A teller that cannot tell keeps so many and no more; no caller waits for it."""
    listener = Listener(shared)
    for number in range(Wakeups.MAX_WAITING + 50):
        listener.wakeups.tell(str(number))
    running = asyncio.create_task(listener.wakeups.run())
    try:
        await listener.until(lambda: listener.heard and listener.heard[-1] == str(Wakeups.MAX_WAITING - 1), "the last")
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    assert len(listener.heard) <= Wakeups.MAX_WAITING


async def test_options_of_the_url_hold_for_wakeups_too(url: str, tmp_path: Path) -> None:
    """A list of hosts of which the first is down, server settings, and a name: as for the store's own connections."""
    head, _, host = url.partition("?host=")
    options = "options=-c%20statement_timeout%3D77s&application_name=mine"
    store = open_store(tmp_path / "data", f"{head}?host={tmp_path}&host={host}&{options}")
    shown = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'mine' AND datname = current_database()"
    try:
        async with listening(store) as one:
            # The store's own connections are opened when they are used.
            await store.read(last_revision)
            one.wakeups.tell("hello")
            await one.until(lambda: one.heard == ["hello"], "it is heard")
            timeouts = []
            async with one.wakeups._connected() as connection:
                timeouts.append(await (await connection.execute("SHOW statement_timeout")).fetchone())
            with psycopg.connect(url) as connection:
                count = connection.execute(shown.encode()).fetchone()
    finally:
        store.close_now()

    assert timeouts == [("77s",)]
    assert count is not None
    assert count[0] >= 3
