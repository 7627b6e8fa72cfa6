"""Lists of sessions among a million: what a page costs far from the start, and by every filter, on both engines.

The rows are seeded by SQL within the database: 992,000 sessions that have ended and 8,000 that live, of 500 users and
20 applications, with labels frequent and rare. Postgres is told not to wait for its disk while they are written, and
vacuumed after. Pages are then read as a server reads them, through the store.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from sqlalchemy import select

from footlights.lifecycle import SessionState
from footlights.store import Store, Transaction, open_store
from footlights.store.engines.opening import opened, upgrade
from footlights.store.schema import SESSION, SessionRow
from footlights.store.sessions import listing
from footlights.store.sessions.listing import Filter, Order
from tests.bench.figures import Bench, Figure
from tests.store import lists
from tests.store.databases import postgres
from tests.store.lists import Page

SESSIONS = 1_000_000
LIVING = 8_000
PAGES = 60
ROUNDS = 5
CALLS = 20

_BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
_ENDED = ("TERMINATED", "FAILED")


async def measure(directory: Path) -> list[Figure]:
    """Take the two figures, each of the worse engine, and what they are made of."""
    with postgres() as server:
        places = {"sqlite": (directory / "lite", ""), "postgres": (directory / "pg", server.create())}
        for place in places.values():
            await asyncio.to_thread(_seed, *place)
        stores = {name: open_store(*place) for name, place in places.items()}
        try:
            depth = {name: await _depth(store) for name, store in stores.items()}
            filtered = {name: await _filtered(store) for name, store in stores.items()}
        finally:
            for store in stores.values():
                store.close_now()
    worse = max(depth, key=lambda name: statistics.median(depth[name]))
    figures = [Figure("page_900k_vs_page_1", depth[worse], "", f"a page by token, far over first; {worse}", "<= 2")]
    p99 = {name: [statistics.quantiles(each, n=100)[98] for each in rounds] for name, rounds in filtered.items()}
    worse = max(p99, key=lambda name: statistics.median(p99[name]))
    figures.append(Figure("filtered_list_p99_ms", p99[worse], "ms", f"over {len(_FILTERS)} filters; {worse}", "<= 20"))
    for name, samples in p99.items():
        figures.append(Figure(f"filtered_list_{name}_p99_ms", samples, "ms", f"on {name} alone"))
    return figures


async def _depth(store: Store) -> list[float]:
    """A page after the 900,000th row over the first page, in both orders of both sort keys: the worst, each round."""
    ratios = []
    orders = (Order(), Order(descending=True), Order("username"), Order("username", True))
    everything = Filter(states=tuple(sorted(state.value for state in SessionState)))
    places = [await store.read(partial(_place, wanted=everything, order=order)) for order in orders]
    for _ in range(ROUNDS):
        worst = 0.0
        for order, far in zip(orders, places, strict=True):
            first = partial(lists.page, wanted=everything, order=order, limit=50)
            later = partial(lists.page, wanted=everything, order=order, limit=50, after=far)
            worst = max(worst, await _median(store, later) / await _median(store, first))
        ratios.append(worst)
    return ratios


def _place(tx: Transaction, wanted: Filter, order: Order) -> listing.Place:
    """The place of the 900,000th row, which is found the slow way."""
    keys = [SESSION.c.created_time, SESSION.c.session_id]
    if order.by == "username":
        keys.insert(0, SESSION.c.username)
    places = [key.desc() if order.descending else key.asc() for key in keys]
    found = select(SESSION.c.session_id).order_by(*places).offset(900_000).limit(1).scalar_subquery()
    row = tx.one(select(SESSION).where(SESSION.c.session_id == found), SessionRow)
    assert row is not None
    return listing.place(row, order)


async def _median(store: Store, read: Callable[..., Page]) -> float:
    took = []
    for _ in range(CALLS):
        began = time.perf_counter()
        await store.read(read)
        took.append(time.perf_counter() - began)
    return statistics.median(took)


async def _filtered(store: Store) -> list[list[float]]:
    """How long each list takes, in ms, each round: every filter in both directions, a page of 50 with its count."""
    rounds = []
    for number in range(ROUNDS + 1):
        took = []
        for wanted in _FILTERS:
            for descending in (False, True):
                read = partial(lists.page, wanted=wanted, order=Order(descending=descending), limit=50)
                for _ in range(2):
                    began = time.perf_counter()
                    await store.read(read)
                    took.append(1e3 * (time.perf_counter() - began))
        if number:  # The first one warms the caches.
            rounds.append(took)
    return rounds


_FILTERS = (
    Filter(),
    Filter(username="user7@example.com"),
    Filter(states=_ENDED, username="user7@example.com"),
    Filter(states=("TERMINATED",)),
    Filter(states=("PENDING",)),
    Filter(states=("FAILED",)),
    Filter(application="app-3"),
    Filter(states=_ENDED, application="app-3"),
    Filter(states=("PENDING",), application="app-3"),
    Filter(states=("FAILED",), application="app-3"),
    Filter(labels=(("team", "team-5"),)),
    Filter(states=_ENDED, labels=(("team", "team-5"),)),
    Filter(states=_ENDED, labels=(("ticket", "T-500000"),)),
    Filter(states=_ENDED, labels=(("team", "nobody"),)),
    Filter(search="user77@"),
    Filter(states=_ENDED, search="user77@"),
    Filter(states=_ENDED, search="app-3"),
    Filter(states=_ENDED, search="t-50000"),
    Filter(states=_ENDED, search="example"),
    Filter(states=_ENDED, search="no such text"),
    Filter(search="no such text"),
)


def _seed(directory: Path, uri: str) -> None:
    """Fill the first version's tables and bring them up to date: what triggers do row by row is done at once then."""
    directory.mkdir()
    with opened(directory, uri) as engine:
        upgrade(engine, "0001")
        with engine.writer.begin() as connection:
            connection.exec_driver_sql(_statement(engine.shared))
        upgrade(engine)
        if uri:
            with engine.writer.connect() as connection:
                plain = connection.execution_options(isolation_level="AUTOCOMMIT")
                for table in ("session", "session_term"):
                    plain.exec_driver_sql(f"VACUUM ANALYZE {table}")


def _statement(postgres: bool) -> str:
    began = (_BEGAN - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    numbers = (
        f"SELECT n FROM generate_series(1, {SESSIONS}::bigint) AS n"
        if postgres
        else f"WITH RECURSIVE some (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM some WHERE n < {SESSIONS}) "
        "SELECT n FROM some"
    )
    lives = f"n > {SESSIONS - LIVING}"
    ended = f"CASE WHEN {lives} THEN NULL ELSE {began} + n * 1000000 + 60000000 END"
    state = (
        f"CASE WHEN {lives} THEN CASE WHEN (n - n / 100 * 100) = 0 THEN 'PENDING' ELSE 'READY' END "
        "WHEN (n - n / 200 * 200) = 0 THEN 'FAILED' ELSE 'TERMINATED' END"
    )
    labels = (
        "'{\"team\": \"team-' || (n - n / 40 * 40) || '\"' || "
        "CASE WHEN (n - n / 1000 * 1000) = 0 THEN ', \"ticket\": \"T-' || n || '\"' ELSE '' END || '}'"
    )
    session_id = "printf('01930000-0000-7000-8000-%012x', n)"
    empty = "x''"
    if postgres:
        session_id, labels, empty = (
            "'01930000-0000-7000-8000-' || lpad(to_hex(n), 12, '0')",
            f"({labels})::json",
            "''",
        )
    return f"""
        INSERT INTO session (
            session_id, application, application_version, username, created_by, profile, priority, request_id,
            arguments, usd_stage_uri, secrets, labels, needs, limits, max_total_s, launcher, created_time, intent,
            wish, wish_message, launch_id, launch_count, failures, queue, state, condition, end_reason,
            status_message, timeline, ready_time, ended_time, revision)
        SELECT
            {session_id}, 'app-' || (n - n / 20 * 20), '1.0.0', 'user' || (n * 7 - n * 7 / 500 * 500) || '@example.com',
            'portal', '',
            0, '', '{{}}', '', {empty}, {labels}, {empty}, {empty}, NULL, 'process', {began} + n * 1000000, 'RUN',
            '', '', NULL, 0, 0, '{{}}', {state}, 'OK', '', CASE WHEN {lives} THEN '' ELSE 'Terminated.' END, '[]',
            NULL, {ended}, n
        FROM ({numbers}) AS numbers
    """


BENCH = Bench(
    (
        "page_900k_vs_page_1",
        "filtered_list_p99_ms",
        "filtered_list_sqlite_p99_ms",
        "filtered_list_postgres_p99_ms",
    ),
    measure,
)
