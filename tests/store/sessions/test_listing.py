"""Lists of sessions: in a total order, page by page, without a row twice or never."""

from __future__ import annotations

import asyncio
from datetime import datetime
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from footlights.lifecycle import EndReason, LaunchState
from footlights.store import Store, Transaction
from footlights.store.schema import SessionRow
from footlights.store.sessions import listing, session_rows
from footlights.store.sessions.listing import Filter, Order
from tests.store import lists
from tests.store.databases import clean
from tests.store.lists import Page
from tests.store.rows import NOW, S, create, end, observe, running

ORDERS = [Order(by, descending) for by in listing.ORDERS for descending in (False, True)]

people = st.sampled_from(["ann", "Ann", "bob", "Zoë", "ann-b", "ann b", "ann_b", "Åsa", "ann.c"])
histories = st.lists(st.tuples(people, st.integers(0, 3)), max_size=12)


async def walk(store: Store, wanted: Filter, order: Order, limit: int) -> tuple[list[str], list[int]]:
    """Follow page tokens to the end; return the ids and the sizes of the pages."""
    ids: list[str] = []
    sizes: list[int] = []
    token: list[Any] | None = None
    while True:
        page = await store.read(partial(lists.page, wanted=wanted, order=order, limit=limit, after=token))
        ids += [row.session_id for row in page.items]
        sizes.append(len(page.items))
        token = page.following
        if not token:
            return ids, sizes


@pytest.mark.parametrize("order", ORDERS, ids=str)
@given(history=histories, limit=st.integers(1, 5))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pages_by_token_are_the_same_list_as_pages_by_offset(
    store: Store, order: Order, history: list[tuple[str, int]], limit: int
) -> None:
    """Whatever the names and ties: every session once, in the same order, and only the last page has no token."""

    async def both() -> None:
        clean(store)

        def write(tx: Transaction) -> None:
            for username, second in history:
                create(tx, username=username, now=NOW + second * S)

        await store.write(write)
        by_token, sizes = await walk(store, Filter(), order, limit)
        by_offset: list[str] = []
        while len(by_offset) < len(history):
            page = await store.read(
                partial(lists.page, wanted=Filter(), order=order, limit=limit, offset=len(by_offset))
            )
            assert page.items
            assert page.count == len(history)
            by_offset += [row.session_id for row in page.items]
        assert by_token == by_offset
        assert len(set(by_token)) == len(history)
        assert all(size == limit for size in sizes[:-1])

    asyncio.run(both())


async def _people(store: Store) -> dict[str, SessionRow]:
    def write(tx: Transaction) -> dict[str, SessionRow]:
        made = {
            "a": create(tx, username="ann", application="viewer", now=NOW),
            "b": create(tx, username="bob", application="viewer", now=NOW + S),
            "c": create(tx, username="ann", application="other", now=NOW + 2 * S),
            "d": create(tx, username="bob", application="other", now=NOW + 3 * S),
        }
        made["d"] = end(tx, made["d"], EndReason.USER_TERMINATED, "", now=NOW + 4 * S)
        return made

    return await store.write(write)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Filter(), "abc"),
        (Filter(states=("TERMINATED",)), "d"),
        (Filter(states=("PENDING", "TERMINATED")), "abcd"),
        (Filter(states=("FAILED",)), ""),
        (Filter(username="ann"), "ac"),
        (Filter(application="viewer"), "ab"),
        (Filter(username="bob", application="other", states=("TERMINATED",)), "d"),
        (Filter(from_time=NOW + S), "bc"),
        (Filter(to_time=NOW + S), "a"),
        (Filter(from_time=NOW + S, to_time=NOW + 2 * S), "b"),
        (Filter(from_time=NOW + 2 * S, to_time=NOW + S), ""),
    ],
    ids=str,
)
async def test_filters_narrow_the_list_and_its_count(store: Store, wanted: Filter, found: str) -> None:
    """By default what has not ended; times are from (included) to (excluded)."""
    names = {row.session_id: name for name, row in (await _people(store)).items()}

    page = await store.read(lambda tx: lists.page(tx, wanted, Order(), limit=10))

    assert "".join(names[row.session_id] for row in page.items) == found
    assert (page.count, page.count_is_capped, page.following) == (len(found), False, None)


async def test_a_place_is_good_while_sessions_come_and_go(store: Store) -> None:
    """What is new before the place does not shift the rest, and the place itself may be gone."""
    rows = await _people(store)
    first = await store.read(lambda tx: lists.page(tx, Filter(), Order(), limit=1))

    def change(tx: Transaction) -> None:
        create(tx, now=NOW - S)
        end(tx, rows["a"], EndReason.USER_TERMINATED, "", now=NOW)

    await store.write(change)
    page = await store.read(lambda tx: lists.page(tx, Filter(), Order(), limit=10, after=first.following))

    assert [row.session_id for row in page.items] == [rows["b"].session_id, rows["c"].session_id]


@pytest.mark.parametrize(("cap", "count", "capped"), [(2, 2, True), (3, 3, False), (4, 3, False)])
async def test_a_count_is_exact_up_to_its_cap(store: Store, cap: int, count: int, capped: bool) -> None:
    """An exact count of a long history would cost more than the page."""
    await _people(store)

    page = await store.read(lambda tx: lists.page(tx, Filter(), Order(), limit=1, count_cap=cap))

    assert (page.count, page.count_is_capped) == (count, capped)


# Changes


async def test_the_living_are_those_that_have_not_ended(store: Store) -> None:
    """Oldest change first, so that the last one says where to go on."""
    rows = await _people(store)
    everything = [(rows[name].revision, rows[name].session_id) for name in "abc"]

    assert await store.read(listing.living) == everything
    assert await store.read(lambda tx: listing.living(tx, username="bob")) == everything[1:2]
    assert await store.read(lambda tx: listing.living(tx, application="other")) == everything[2:]


async def test_everything_is_met_in_the_order_of_its_last_change(store: Store) -> None:
    """Each session once, in stretches."""
    rows = await _people(store)
    await store.write(lambda tx: session_rows.update_session(tx, rows["a"], now=NOW, priority=1))

    def met(tx: Transaction, after: int, **members: Any) -> str:
        found = listing.changed(tx, after, 2, **members)
        return "".join(name for each in found for name in rows if rows[name].session_id == each.session_id)

    assert await store.read(lambda tx: met(tx, 0)) == "bc"
    assert await store.read(lambda tx: met(tx, rows["c"].revision)) == "da"
    assert await store.read(lambda tx: met(tx, rows["d"].revision)) == "a"
    assert await store.read(lambda tx: met(tx, 0, username="bob")) == "bd"
    assert await store.read(lambda tx: met(tx, 0, application="viewer")) == "ba"


async def test_states_are_counted_by_application(store: Store) -> None:
    """For the gauges: the living only."""
    await _people(store)
    _, launch = await running(store)
    await store.write(lambda tx: observe(tx, launch, LaunchState.READY, viewers=1))

    assert await store.read(listing.state_counts) == {
        ("PENDING", "viewer"): 2,
        ("PENDING", "other"): 1,
        ("ACTIVE", "fake"): 1,
    }


def test_a_moment_without_a_zone_cannot_be_stored() -> None:
    """It would mean another time on another machine."""
    from footlights.store.schema import microseconds, moment

    assert moment(microseconds(NOW)) == NOW
    with pytest.raises(ValueError, match="has no time zone"):
        microseconds(datetime(2026, 1, 1))  # noqa: DTZ001  # the point of the test


def test_a_page_is_a_value() -> None:
    """Pages and orders can be compared."""
    assert Page((), 0, False, None) == Page((), 0, False, None)
