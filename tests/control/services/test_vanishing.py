"""Clients that go away in the middle of a call, at every point of it: done or not done, never half, and never twice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from footlights.v1 import session_pb2

from footlights.store.launches import launch_rows
from tests.control.harness import Control, State

Make = Callable[[], Awaitable[Any]]


def points() -> Iterator[int]:
    """How many turns of the event loop a call is given: each of the first ones, then at growing distances."""
    turns = 0
    while turns < 200_000:
        yield turns
        turns = turns + 1 if turns < 40 else int(turns * 1.25)


async def cut_off(make: Make, turns: int) -> bool:
    """Make a call, and go away after so many turns of the loop; return whether it was answered before."""
    call = asyncio.ensure_future(make())
    for _ in range(turns):
        if call.done():
            break
        await asyncio.sleep(0)
    answered = call.done()
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    if answered:
        await call
    return answered


async def everywhere(make: Callable[[int], Make]) -> int:
    """Cut a call off at every point until it is answered three times; return how many points there were."""
    answered = 0
    for number, turns in enumerate(points()):
        answered += await cut_off(make(number), turns)
        if answered == 3:
            return number + 1
    raise AssertionError("the call was never answered")


@pytest.mark.timeout(60)
async def test_a_creation_that_is_cut_off_anywhere_is_done_once_or_not_at_all(plane: Control) -> None:
    """A retry with the same id finds what was made, or makes it; the queue has one session for each id."""

    def create(number: int) -> Make:
        return lambda: plane.create(request_id=f"r-{number}")

    count = await everywhere(create)
    before = {session["request_id"] for session in await listed(plane)}
    again = [(await plane.create(request_id=f"r-{number}")).session_id for number in range(count)]
    found = await listed(plane)

    assert count > 10
    assert before < {f"r-{number}" for number in range(count)}, "some were cut off before anything was done"
    assert len(before) >= 3
    assert sorted(session["session_id"] for session in found) == sorted(again)
    assert {session["state"] for session in found} == {"PENDING"}


@pytest.mark.timeout(60)
async def test_an_end_that_is_cut_off_anywhere_can_be_asked_for_again(plane: Control) -> None:
    """Asked for by halves it has no effect or the whole one; the slot is free once the launch is proved gone."""
    agent = await plane.agent()
    made = await plane.running(agent)

    def terminate(number: int) -> Make:
        return lambda: plane.terminate(made.session_id)

    await everywhere(terminate)
    await agent.report(await agent.assignment(made.session_id, "STOPPED"), "EXITED", exit_code=0)

    ended = await plane.get(made.session_id)
    assert (ended.state, ended.end_reason) == (State.TERMINATED, session_pb2.Session.USER_TERMINATED)
    assert await plane.store.read(launch_rows.live_leases) == []


@pytest.mark.timeout(60)
async def test_a_pass_of_placing_that_is_cut_off_anywhere_leases_each_slot_once(plane: Control) -> None:
    """As a server's that is stopped in the middle of it: the next pass places the rest, and none twice."""
    agent = await plane.agent()
    made = await plane.create()

    for turns in points():
        await cut_off(plane.place, turns)
        leases = await plane.store.read(launch_rows.live_leases)
        if leases:
            break
    await plane.place()

    assert [lease.session_id for lease in await plane.store.read(launch_rows.live_leases)] == [made.session_id]
    assert (await agent.assignment(made.session_id)).slots == [0]
    assert (await plane.get(made.session_id)).launch_count == 1


async def listed(plane: Control) -> list[dict[str, Any]]:
    answer = await plane.rest("GET", "/stream?limit=1000")
    found: list[dict[str, Any]] = answer.json()["items"]
    return found
