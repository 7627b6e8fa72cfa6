"""Lists of sessions: in a total order, page by page, without a row twice or never."""

from __future__ import annotations

import asyncio
import base64
import json
from datetime import datetime
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from footlights import errors
from footlights.lifecycle import EndReason, LaunchState
from footlights.store import Store, Transaction
from footlights.store.schema import SessionRow
from footlights.store.sessions import listing, session_rows
from footlights.store.sessions.listing import Filter, Order, Page
from tests.store.databases import clean
from tests.store.rows import NOW, S, create, end, observe, running

ORDERS = [Order(by, descending) for by in ("created_time", "username") for descending in (False, True)]

people = st.sampled_from(["ann", "Ann", "bob", "Zoë", "ann-b", "ann b", "ann_b", "Åsa", "ann.c"])
histories = st.lists(st.tuples(people, st.integers(0, 3)), max_size=12)


async def walk(store: Store, wanted: Filter, order: Order, limit: int) -> tuple[list[str], list[int]]:
    """Follow page tokens to the end; return the ids and the sizes of the pages."""
    ids, sizes, token = [], [], ""
    while True:
        page = await store.read(partial(listing.page, wanted=wanted, order=order, limit=limit, page_token=token))
        ids += [row.session_id for row in page.items]
        sizes.append(len(page.items))
        token = page.next_page_token
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
                partial(listing.page, wanted=Filter(), order=order, limit=limit, offset=len(by_offset))
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

    page = await store.read(lambda tx: listing.page(tx, wanted, Order(), limit=10))

    assert "".join(names[row.session_id] for row in page.items) == found
    assert (page.count, page.count_is_capped, page.next_page_token) == (len(found), False, "")


async def _token(store: Store, wanted: Filter, order: Order) -> str:
    page = await store.read(lambda tx: listing.page(tx, wanted, order, limit=1))
    assert page.next_page_token
    return page.next_page_token


@pytest.mark.parametrize(
    ("wanted", "order"),
    [
        (Filter(username="ann"), Order()),
        (Filter(states=("PENDING",)), Order()),
        (Filter(from_time=NOW), Order()),
        (Filter(), Order(descending=True)),
        (Filter(), Order("username")),
    ],
    ids=str,
)
async def test_a_page_token_of_another_list_is_refused(store: Store, wanted: Filter, order: Order) -> None:
    """It would silently leave sessions out."""
    await _people(store)
    token = await _token(store, Filter(), Order())

    with pytest.raises(errors.InvalidArgument, match="other filters or another order") as caught:
        await store.read(lambda tx: listing.page(tx, wanted, order, limit=1, page_token=token))

    assert caught.value.field == "page_token"


def _forged(content: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


_SUM = listing._checksum(Filter(), Order())
_SUM_BY_NAME = listing._checksum(Filter(), Order("username"))


@pytest.mark.parametrize(
    ("token", "order"),
    [
        ("x", Order()),
        ("!!!!", Order()),
        ("ünï", Order()),
        (_forged(5), Order()),
        (_forged([]), Order()),
        (_forged({"a": 1}), Order()),
        (_forged([_SUM]), Order()),
        (_forged([_SUM, "5", "id"]), Order()),
        (_forged([_SUM, 5, 7]), Order()),
        (_forged([_SUM, True, "id"]), Order()),
        (_forged([_SUM, 10**30, "id"]), Order()),
        (_forged([_SUM, -(10**17), "id"]), Order()),
        (_forged([_SUM, 5, "a\0b"]), Order()),
        (_forged([_SUM_BY_NAME, ["ann"], 5, "id"]), Order("username")),
        (_forged([_SUM_BY_NAME, None, 5, "id"]), Order("username")),
        (_forged([_SUM_BY_NAME, "a\0b", 5, "id"]), Order("username")),
        (base64.urlsafe_b64encode(b"[" * 1500).decode(), Order()),
        (base64.urlsafe_b64encode(b"\xff\xfe").decode(), Order()),
    ],
)
async def test_what_is_no_page_token_is_refused(store: Store, token: str, order: Order) -> None:
    """Whatever a client sends, it is the client's mistake and never ours."""
    with pytest.raises(errors.InvalidArgument, match="is not a page token of this list"):
        await store.read(lambda tx: listing.page(tx, Filter(), order, limit=1, page_token=token))


async def test_a_page_token_is_good_while_sessions_come_and_go(store: Store) -> None:
    """What is new before the place does not shift the rest, and the place itself may be gone."""
    rows = await _people(store)
    token = await _token(store, Filter(), Order())

    def change(tx: Transaction) -> None:
        create(tx, now=NOW - S)
        end(tx, rows["a"], EndReason.USER_TERMINATED, "", now=NOW)

    await store.write(change)
    page = await store.read(lambda tx: listing.page(tx, Filter(), Order(), limit=10, page_token=token))

    assert [row.session_id for row in page.items] == [rows["b"].session_id, rows["c"].session_id]


@pytest.mark.parametrize(("cap", "count", "capped"), [(2, 2, True), (3, 3, False), (4, 3, False)])
async def test_a_count_is_exact_up_to_its_cap(store: Store, cap: int, count: int, capped: bool) -> None:
    """An exact count of a long history would cost more than the page."""
    await _people(store)

    page = await store.read(lambda tx: listing.page(tx, Filter(), Order(), limit=1, count_cap=cap))

    assert (page.count, page.count_is_capped) == (count, capped)


# Changes


async def test_changes_are_told_in_the_order_of_their_revisions(store: Store) -> None:
    """Each session at its last change; nothing that was seen is told again."""
    rows = await _people(store)

    def changed(tx: Transaction, after: int, **members: Any) -> list[str]:
        found = listing.changes_since(tx, after, **members).rows
        assert [row.revision for row in found] == sorted(row.revision for row in found)
        return [row.session_id for row in found]

    everything = [rows[name].session_id for name in "abcd"]
    assert await store.read(lambda tx: changed(tx, 0)) == everything
    assert await store.read(lambda tx: changed(tx, rows["b"].revision)) == everything[2:]
    assert await store.read(lambda tx: changed(tx, rows["d"].revision)) == []
    assert await store.read(lambda tx: changed(tx, 0, limit=2)) == everything[:2]
    assert await store.read(lambda tx: changed(tx, 0, username="ann")) == [everything[0], everything[2]]
    assert await store.read(lambda tx: changed(tx, 0, application="other")) == everything[2:]

    await store.write(lambda tx: session_rows.update_session(tx, rows["a"], now=NOW, priority=1))
    assert await store.read(lambda tx: changed(tx, rows["d"].revision)) == everything[:1]


async def test_the_living_are_those_that_have_not_ended(store: Store) -> None:
    """Oldest change first, so that the last one says where to go on."""
    rows = await _people(store)

    living = await store.read(listing.living)

    assert [row.session_id for row in living] == [rows[name].session_id for name in "abc"]
    assert [row.session_id for row in await store.read(lambda tx: listing.living(tx, username="bob"))] == [
        rows["b"].session_id
    ]


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
    assert Page((), 0, False, "") == Page((), 0, False, "")
