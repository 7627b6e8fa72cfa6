"""Filters of sessions: lists (SQL) and watches (values in memory) say the same of every session, in every order."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select

from footlights import ids
from footlights.filters import Both, Comparison, Condition, Either, Kind, Negation, matches, parse
from footlights.lifecycle import EndReason, SessionState
from footlights.store import Store, Transaction
from footlights.store.schema import LAUNCH, SESSION, LaunchRow, SessionRow
from footlights.store.sessions import filtering, listing
from footlights.store.sessions.listing import Filter, Order
from tests.store import lists
from tests.store.databases import clean
from tests.store.rows import NOW, S, values

pytestmark = pytest.mark.slow

NAMES = st.sampled_from(["ann", "Ann", "bob", "a%", "a_b", "", "Zoë", "an"])
LABELS = st.dictionaries(st.sampled_from(["team", "app/name"]), NAMES, max_size=2)
TIMES = st.integers(-3, 3).map(lambda second: NOW + second * S)


@st.composite
def sessions(draw: st.DrawFn) -> tuple[SessionRow, LaunchRow | None]:
    """A session in any state that a database may hold, and the launch that it has."""
    state = draw(st.sampled_from(SessionState))
    ended = state.ended
    row = SessionRow(
        **values(
            username=draw(NAMES),
            application=draw(NAMES),
            profile=draw(NAMES),
            labels=draw(LABELS),
            priority=draw(st.integers(-2, 2)),
            state=state.value,
            condition=draw(st.sampled_from(["OK", "UNREACHABLE"])),
            end_reason=draw(st.sampled_from(EndReason)).value if ended else "",
            ended_time=draw(TIMES) if ended else None,
            ready_time=draw(st.none() | TIMES),
        ),
        created_time=draw(TIMES),
        revision=0,
    )
    if draw(st.booleans()):
        return row, None
    launch = LaunchRow(ids.new_id(), row.session_id, draw(NAMES), draw(NAMES), [0], row.created_time)
    return row._replace(launch_id=launch.launch_id), launch


def _comparisons() -> st.SearchStrategy[Comparison]:
    found: list[st.SearchStrategy[Comparison]] = []
    for name, member in filtering.MEMBERS.items():
        compared: Mapping[Kind, tuple[list[str], st.SearchStrategy[Any]]] = {
            Kind.TEXT: (["=", "prefix"], NAMES),
            Kind.MAP: (["=", "prefix"], NAMES),
            Kind.NAME: (["="], st.sampled_from(member.names or ("-",))),
            Kind.NUMBER: (["=", "<", "<=", ">", ">="], st.integers(-3, 3)),
            Kind.TIME: (["=", "<", "<=", ">", ">="], TIMES),
        }
        signs, wanted = compared[member.kind]
        key = st.sampled_from(["team", "app/name"]) if member.kind is Kind.MAP else st.none()
        found.append(st.builds(Comparison, st.just(name), st.sampled_from(signs), wanted, key))
        found.append(st.builds(Comparison, st.just(name), st.just("set"), st.just(""), key))
    return st.one_of(found)


def _several(parts: st.SearchStrategy[Condition]) -> st.SearchStrategy[Condition]:
    some = st.lists(parts, min_size=2, max_size=4).map(tuple)
    return st.builds(Negation, parts) | st.builds(Both, some) | st.builds(Either, some)


CONDITIONS = st.recursive(_comparisons(), _several, max_leaves=8)


def _write(tx: Transaction, history: list[tuple[SessionRow, LaunchRow | None]]) -> None:
    for number, (row, launch) in enumerate(history):
        tx.execute(insert(SESSION), [row._replace(revision=number + 1)._asdict()])
        if launch is not None:
            tx.execute(insert(LAUNCH), [launch._asdict()])


def _met(tx: Transaction, condition: Condition) -> set[str]:
    return set(tx.execute(select(SESSION.c.session_id).where(filtering.sql(condition))).scalars())


def _key(row: SessionRow, order: Order) -> tuple[Any, ...]:
    keys = listing.place(row, order)
    if order.by == "ended_time":
        return (keys[0] is None, *([] if keys[0] is None else [keys[0]]), keys[1])
    return tuple(keys)


@pytest.mark.parametrize("by", listing.ORDERS)
@given(
    history=st.lists(sessions(), max_size=10), conditions=st.lists(CONDITIONS, min_size=1, max_size=8), data=st.data()
)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_lists_and_watches_agree_about_every_filter(
    store: Store, by: str, history: list[tuple[SessionRow, LaunchRow | None]], conditions: list[Condition], data: Any
) -> None:
    """The same sessions, whichever way they are found; page by page in the list's order, each once; and counted."""

    async def compare() -> None:
        clean(store)
        await store.write(partial(_write, history=history))
        for condition in conditions:
            order = Order(by, data.draw(st.booleans()))
            states = data.draw(st.sampled_from([(), ("READY",), ("FAILED", "PENDING")]))
            ended = data.draw(st.booleans())
            wanted = Filter(states=states, ended=ended, condition=condition)
            expected = [
                row
                for row, launch in history
                if matches(condition, filtering.values(row, launch))
                and (row.state in states if states else ended or row.ended_time is None)
            ]
            expected.sort(key=partial(_key, order=order), reverse=order.descending)
            found: list[str] = []
            after = None
            while True:
                page = await store.read(partial(lists.page, wanted=wanted, order=order, limit=3, after=after))
                found += [row.session_id for row in page.items]
                assert page.count == len(expected)
                if (after := page.following) is None:
                    break
            assert found == [row.session_id for row in expected], (condition, order)
            assert await store.read(partial(_met, condition=condition)) == {
                row.session_id for row, launch in history if matches(condition, filtering.values(row, launch))
            }

    asyncio.run(compare())


@pytest.mark.parametrize("member", ["username", "application", "profile"])
def test_an_empty_name_in_a_filter_is_a_name(store: Store, member: str) -> None:
    """It finds the sessions whose name is empty, not those of every name."""
    clean(store)
    history: list[tuple[SessionRow, LaunchRow | None]] = [
        (SessionRow(**values(**{member: name}), created_time=NOW, revision=0), None) for name in ("ann", "")
    ]

    async def found() -> list[str]:
        await store.write(partial(_write, history=history))
        wanted = Filter(ended=True, condition=Comparison(member, "=", ""))
        page = await store.read(partial(lists.page, wanted=wanted, order=Order(), limit=3))
        return [row.session_id for row in page.items]

    assert asyncio.run(found()) == [history[1][0].session_id]


def test_every_member_of_the_proto_can_be_named() -> None:
    """A filter with each of them is read; times are moments, numbers numbers."""
    text = " AND ".join(
        f"{name}.team = x"
        if member.kind is Kind.MAP
        else f"{name} = {member.names[0]}"
        if member.names
        else f"{name} = 5"
        if member.kind is Kind.NUMBER
        else f"{name} = 2026-01-01T00:00:00Z"
        if member.kind is Kind.TIME
        else f"{name} = x"
        for name, member in filtering.MEMBERS.items()
    )
    condition = parse(text, filtering.MEMBERS)

    assert isinstance(condition, Both)
    assert len(condition.parts) == len(filtering.MEMBERS)
    assert {type(part.value) for part in condition.parts if isinstance(part, Comparison)} == {str, int, datetime}
