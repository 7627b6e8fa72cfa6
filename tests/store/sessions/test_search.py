"""Lists by label and by text (`listing`, `search`): what a look at each session would find, in the same order."""

from __future__ import annotations

import itertools
import random
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import delete, select, update

from footlights.lifecycle import EndReason
from footlights.store import Store, Transaction
from footlights.store.schema import SESSION, SESSION_LABEL, SessionRow
from footlights.store.sessions import create as creating
from footlights.store.sessions import listing, search
from footlights.store.sessions.create import Created
from footlights.store.sessions.listing import Filter, Order
from tests.store import lists
from tests.store.lists import Page
from tests.store.rows import NOW, S, add_version, create, creation_of, end, read, values

pytestmark = pytest.mark.slow

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
        if number % 90 == 4:
            labels["note"] = '"x_y" is 100%'
        asked.append(
            creation_of(
                now=NOW + timedelta(seconds=number // 2),
                queue_limit=10**9,
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


def fits(row: SessionRow, wanted: Filter) -> bool:
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
    texts = (row.application, row.username, *row.labels.values())
    return any(part in each.lower() for each in texts) or (len(part) >= 6 and part in row.session_id)


async def all_pages(store: Store, wanted: Filter, order: Order, limit: int) -> tuple[list[SessionRow], Page]:
    """Follow the page tokens to the end; return every row and the first page."""
    rows: list[SessionRow] = []
    first: Page | None = None
    token: list[Any] | None = None
    while first is None or token:
        page = await store.read(partial(lists.page, wanted=wanted, order=order, limit=limit, after=token))
        rows += page.items
        token, first = page.following, first or page
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
    {"search": "x_y"},
    {"search": "100%"},
    {"search": "no such text"},
    {"search": "annann"},
    {"search": "design", "labels": (SALES,)},
    {"search": "bob", "labels": (DESIGN,), "application": "kit-108"},
    {"search": "bob", "username": "bob1@example.com"},
    {"search": "sales", "from_time": NOW + 600 * S},
]


ORDERS = (Order(), Order(descending=True), Order("username"), Order("username", True))
SOME_STATES: tuple[tuple[str, ...], ...] = ((), ("TERMINATED",), ("FAILED", "TERMINATED"), STATES)


async def test_lists_by_label_and_text_are_what_a_look_at_each_session_finds(store: Store) -> None:
    """Page by page in every order, with other filters and without, whichever way the sessions are found."""
    await store.write(history)
    everything = await store.read(lambda tx: tx.all(select(SESSION), SessionRow))
    prefixes = [{"search": everything[7].session_id[first:]} for first in (0, 10, 28)]

    ways = list(itertools.product(ORDERS, SOME_STATES))
    # Each filter meets every order and every choice of states, though not every pair of them.
    for number, members in enumerate([*FILTERS, *prefixes] * 4):
        order, states = ways[(number * 5) % len(ways)]
        wanted = Filter(states=states, **members)
        expected = [row for row in everything if fits(row, wanted)]
        expected.sort(key=partial(listing.place, order=order), reverse=order.descending)

        found, first = await all_pages(store, wanted, order, limit=700)

        assert [row.session_id for row in found] == [row.session_id for row in expected], (wanted, order)
        assert first.count == min(len(expected), listing.SEARCH_COUNT_CAP), (wanted, order)
        assert first.count_is_capped == (len(expected) > listing.SEARCH_COUNT_CAP), (wanted, order)
        few = await store.read(partial(lists.page, wanted=wanted, order=order, limit=7, offset=5))
        assert [row.session_id for row in few.items] == [row.session_id for row in expected[5:12]], (wanted, order)


async def test_labels_follow_their_sessions(store: Store) -> None:
    """Code that writes sessions writes no index of labels: triggers do, for a new session and a removed one."""

    def labels(tx: Transaction) -> list[tuple[str, str, str]]:
        return sorted(tuple(row)[:3] for row in tx.execute(select(SESSION_LABEL)))

    row = await store.write(lambda tx: create(tx, labels={"team": "a", "stage": "b"}))
    await store.write(create)
    at_first = await store.read(labels)
    await store.write(lambda tx: end(tx, read(tx, row.session_id), EndReason.USER_TERMINATED, "by ann", now=NOW))
    at_the_end = await store.read(labels)
    await store.write(lambda tx: tx.execute(delete(SESSION)) and None)

    assert at_first == at_the_end == [("label", "stage", "b"), ("label", "team", "a")]
    assert await store.read(labels) == []


async def test_an_older_server_beside_this_one_keeps_the_labels_right(store: Store) -> None:
    """It inserts and updates with the columns of its own version; what it wrote is found."""

    def write(tx: Transaction) -> None:
        row = SessionRow(**values(labels={"team": "old"}), created_time=NOW, revision=1)
        tx.execute(SESSION.insert(), [row._asdict()])

    await store.write(write)

    for wanted in (Filter(labels=(("team", "old"),)), Filter(search="old"), Filter(search="fake")):
        page = await store.read(partial(lists.page, wanted=wanted, order=Order(), limit=9))
        assert page.count == 1, wanted


async def test_any_part_of_an_id_of_six_characters_is_found(store: Store) -> None:
    """Wherever it lies in the id, in either case; five characters are too few."""
    await store.write(history)
    everything = await store.read(lambda tx: tx.all(select(SESSION), SessionRow))
    chosen = everything[700].session_id

    for part in (chosen, chosen[:6], chosen[9:17], chosen[-6:], chosen[-8:].upper(), chosen[20:28]):
        wanted = Filter(states=STATES, search=part)
        expected = {row.session_id for row in everything if part.lower() in row.session_id}
        found, _ = await all_pages(store, wanted, Order(), limit=700)
        assert {row.session_id for row in found} == expected, part
        assert chosen in expected
    five, _ = await all_pages(store, Filter(states=STATES, search=chosen[-5:]), Order(), limit=700)
    assert chosen not in {row.session_id for row in five}


async def test_more_names_than_are_compared_one_by_one_are_found_all_the_same(store: Store) -> None:
    """Where too many names match, each session's own are compared: slower, and the same."""
    users, tickets = search.MOST_NAMES + 100, search.MOST_LABELS + 50

    def fill(tx: Transaction) -> None:
        add_version(tx)
        asked = [
            creation_of(
                queue_limit=10**9,
                username=f"Guest{number}",
                labels={"ticket": f"T_{number}"} if number < tickets else {},
            )
            for number in range(users)
        ]
        creating.create_all(tx, asked)

    await store.write(fill)
    everything = await store.read(lambda tx: tx.all(select(SESSION), SessionRow))

    for part in ("guest", "guest1", "T_", "t_17", "T%", "no such text"):
        for states in ((), STATES):
            wanted = Filter(states=states, search=part)
            found, _ = await all_pages(store, wanted, Order(), limit=700)
            assert {row.session_id for row in found} == {row.session_id for row in everything if fits(row, wanted)}, (
                part
            )
