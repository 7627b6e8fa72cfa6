"""Lists by label and by text: the same sessions that a look at each of them would find, in the same order."""

from __future__ import annotations

import itertools
import random
from datetime import timedelta
from functools import partial
from typing import Any

from sqlalchemy import delete, select, update

from footlights.lifecycle import EndReason
from footlights.store import Store, Transaction
from footlights.store.schema import SESSION, SESSION_TERM, TERM, Session
from footlights.store.sessions import create as creating
from footlights.store.sessions import listing, search, session_rows
from footlights.store.sessions.create import Created
from footlights.store.sessions.listing import Filter, Order, Page
from tests.store.rows import NOW, S, add_version, create, creation_of, read

STATES = ("PENDING", "READY", "FAILED", "TERMINATED")
HISTORY = 1800
"""Enough that some labels and texts are met by more sessions than are named one by one."""


def history(tx: Transaction) -> None:
    """Sessions of all kinds, the same on every engine: most have ended, labels and texts are frequent and rare."""
    chance = random.Random(7)
    for application in ("usd-viewer", "kit-108", "composer"):
        add_version(tx, application)
    asked = []
    for number in range(HISTORY):
        labels = {"team": chance.choice(["design", "design", "sales"])}
        if number % 700 == 3:
            labels["ticket"] = f"OPS-{number}"
        asked.append(
            creation_of(
                now=NOW + timedelta(seconds=number // 2),
                queue_limit=HISTORY + 1,
                application=chance.choice(["usd-viewer", "usd-viewer", "kit-108", "composer"]),
                username=f"{chance.choice(['ann', 'bob', 'Cleo'])}{number % 5}@example.com",
                labels=labels,
            )
        )
    for number, made in enumerate(creating.create_all(tx, asked)):
        assert isinstance(made, Created)
        if number % 10:
            state = "FAILED" if number % 50 == 1 else "TERMINATED"
            message = f"By someone, 100% of {number % 40}, terminated" if number % 50 != 1 else 'It crashed: "x_y"'
            tx.execute(
                update(SESSION)
                .where(SESSION.c.session_id == made.session.session_id)
                .values(state=state, ended_time=NOW + timedelta(days=1), status_message=message)
            )


def fits(row: Session, wanted: Filter) -> bool:
    """What a filter means, session by session."""
    if row.state not in wanted.states if wanted.states else row.ended_time is not None:
        return False
    if wanted.username not in ("", row.username) or wanted.application not in ("", row.application):
        return False
    if wanted.from_time is not None and row.created_time < wanted.from_time:
        return False
    if any(row.labels.get(key) != value for key, value in wanted.labels):
        return False
    part = wanted.search.lower()
    texts = (row.application, row.username, row.status_message, *row.labels.values())
    return any(part in each.lower() for each in texts) or (len(part) >= 8 and row.session_id.startswith(part))


async def all_pages(store: Store, wanted: Filter, order: Order, limit: int) -> tuple[list[Session], Page]:
    """Follow the page tokens to the end; return every row and the first page."""
    rows: list[Session] = []
    first, token = None, ""
    while first is None or token:
        page = await store.read(partial(listing.page, wanted=wanted, order=order, limit=limit, page_token=token))
        rows += page.items
        token, first = page.next_page_token, first or page
    return rows, first


DESIGN, SALES, TICKET = ("team", "design"), ("team", "sales"), ("ticket", "OPS-703")
FILTERS: list[dict[str, Any]] = [
    {"labels": (DESIGN,)},
    {"labels": (TICKET,)},
    {"labels": (("team", "nobody"),)},
    {"labels": (("design", "team"),)},
    {"labels": (DESIGN, TICKET)},
    {"labels": (SALES, TICKET)},
    {"labels": (DESIGN, SALES)},
    {"search": "usd-view"},
    {"search": "ANN"},
    {"search": "cleo3"},
    {"search": "example"},
    {"search": "ops-"},
    {"search": "100% of 7"},
    {"search": "x_y"},
    {"search": '"x_'},
    {"search": "100% of 7, t"},
    {"search": "no such text"},
    {"search": "annann"},
    {"search": "design", "labels": (SALES,)},
    {"search": "bob", "labels": (DESIGN,), "application": "kit-108"},
    {"search": "bob", "username": "bob1@example.com"},
    {"search": "terminated", "from_time": NOW + 600 * S},
]


ORDERS = (Order(), Order(descending=True), Order("username"), Order("username", True))
SOME_STATES: tuple[tuple[str, ...], ...] = ((), ("TERMINATED",), ("FAILED", "TERMINATED"), STATES)


async def test_lists_by_label_and_text_are_what_a_look_at_each_session_finds(store: Store) -> None:
    """Page by page in every order, with other filters and without, whichever way the sessions are found."""
    await store.write(history)
    everything = await store.read(lambda tx: tx.all(select(SESSION), Session))
    prefixes = [{"search": everything[7].session_id[:length]} for length in (8, 12, 36)]

    ways = list(itertools.product(ORDERS, SOME_STATES))
    # Each filter meets every order and every choice of states, though not every pair of them.
    for number, members in enumerate([*FILTERS, *prefixes] * 4):
        order, states = ways[(number * 5) % len(ways)]
        wanted = Filter(states=states, **members)
        expected = [row for row in everything if fits(row, wanted)]
        expected.sort(key=partial(listing._place, order=order), reverse=order.descending)

        found, first = await all_pages(store, wanted, order, limit=700)

        assert [row.session_id for row in found] == [row.session_id for row in expected], (wanted, order)
        assert first.count == min(len(expected), listing.SEARCH_COUNT_CAP), (wanted, order)
        assert first.count_is_capped == (len(expected) > listing.SEARCH_COUNT_CAP), (wanted, order)
        few = await store.read(partial(listing.page, wanted=wanted, order=order, limit=7, offset=5))
        assert [row.session_id for row in few.items] == [row.session_id for row in expected[5:12]], (wanted, order)


async def test_terms_follow_their_sessions(store: Store) -> None:
    """Whoever writes sessions writes no terms: triggers do, for a new session, a new message and a removed one."""

    def terms(tx: Transaction) -> list[tuple[str, str, str]]:
        return sorted(tuple(row)[:3] for row in tx.execute(select(SESSION_TERM)))

    def known(tx: Transaction) -> set[tuple[str, str]]:
        return {(row.kind, row.text) for row in tx.execute(select(TERM))}

    row = await store.write(lambda tx: create(tx, labels={"team": "a", "stage": "b"}))
    at_first = await store.read(terms)
    await store.write(
        lambda tx: session_rows.end(tx, read(tx, row.session_id), EndReason.USER_TERMINATED, "by ann", now=NOW)
    )
    at_the_end = await store.read(terms)
    everything = await store.read(known)
    await store.write(lambda tx: tx.execute(delete(SESSION)) and None)

    assert at_first == [("label", "stage", "b"), ("label", "team", "a")]
    assert at_the_end == [*at_first, ("message", "", "by ann")]
    assert {("application", "fake"), ("username", "ann"), ("label", "a"), ("message", "by ann")} <= everything
    assert await store.read(terms) == []


async def test_an_older_server_beside_this_one_keeps_the_terms_right(store: Store) -> None:
    """It inserts and updates with the columns of its own version; what it wrote is found."""

    def write(tx: Transaction) -> None:
        row = creating._sessions.new({**creation_of(labels={"team": "old"}).values, "created_time": NOW, "revision": 1})
        tx.execute(SESSION.insert(), [dict(zip(SESSION.c.keys(), row, strict=True))])

    await store.write(write)

    for wanted in (Filter(labels=(("team", "old"),)), Filter(search="old"), Filter(search="fake")):
        page = await store.read(partial(listing.page, wanted=wanted, order=Order(), limit=9))
        assert page.count == 1, wanted


async def test_terms_that_no_session_has_any_more_are_forgotten(store: Store) -> None:
    """A label that is new with every session would fill the table of terms for ever."""

    def make(tx: Transaction) -> None:
        for number, days in enumerate((60, 50, 1)):
            row = create(tx, labels={"ticket": str(number)}, username=f"user{number}", now=NOW - timedelta(days=days))
            session_rows.end(tx, row, EndReason.USER_TERMINATED, f"message {number}", now=NOW - timedelta(days=days))

    def texts(tx: Transaction) -> set[str]:
        return set(tx.execute(select(TERM.c.text).where(TERM.c.kind != "application")).scalars())

    await store.write(make)
    await store.write(lambda tx: session_rows.prune(tx, before=NOW - timedelta(days=30)))
    unused, after = await store.read(lambda tx: search.unused_terms(tx, 0))
    await store.write(lambda tx: create(tx, labels={"ticket": "0"}, username="user2"))
    removed = await store.write(lambda tx: search.forget_terms(tx, unused))

    assert (len(unused), after, removed) == (6, 0, 5)
    assert await store.read(texts) == {"0", "2", "user2", "message 2"}
    assert await store.read(lambda tx: search.unused_terms(tx, 0)) == ([], 0)
    assert (await store.read(lambda tx: listing.page(tx, Filter(STATES, search="user"), Order(), limit=9))).count == 2


async def test_terms_are_looked_at_in_parts(store: Store) -> None:
    """However many there are, neither looking nor removing takes long; after the last part comes the first."""
    named = [{"number": number, "kind": "label", "key": "ticket", "text": str(number)} for number in range(1, 10_006)]
    await store.write(lambda tx: tx.execute(TERM.insert(), named))
    first, middle = await store.read(lambda tx: search.unused_terms(tx, 0))
    second, end = await store.read(lambda tx: search.unused_terms(tx, middle))

    assert (len(first), middle) == (search.MOST_LOOKED_AT, search.MOST_LOOKED_AT)
    assert (len(second), end) == (5, 0)
    assert await store.write(lambda tx: search.forget_terms(tx, first)) == len(first)
