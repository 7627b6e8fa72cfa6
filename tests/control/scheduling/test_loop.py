"""The placement loop: queues of any length, items that cannot be read or written, and holds.

Covers `pending` and `queue_places` through the loop as well.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from footlights.v1 import application_pb2, node_pb2
from sqlalchemy import update
from structlog.testing import capture_logs

from footlights.control.scheduling import pending
from footlights.control.scheduling.queue_places import NEAR, QueuePlaces
from footlights.scheduler import WaitReason, Wish
from footlights.store import Transaction
from footlights.store.schema import DEVICE, NODE, SESSION, SessionRow
from footlights.store.sessions import create, session_rows
from footlights.store.sessions.session_rows import PendingSession
from tests.control.harness import GIB, Control, State, gpu, version
from tests.store.rows import creation_of

BUSY = gpu("GPU-0", memory_total_bytes=2000 * GIB)
"""Most of its memory is in use: what wants more waits for it."""
LARGE = application_pb2.Needs(gpu=True, min_memory_bytes=1000 * GIB).SerializeToString()
SMALL = application_pb2.Needs(gpu=True).SerializeToString()
GARBAGE = b"\xff\xff\xff"


async def wait(plane: Control, count: int, **members: Any) -> list[str]:
    """Put sessions into the queue as they were created one after the other."""
    known: dict[str, Any] = {"launcher": "fake", "needs": LARGE, "queue_limit": 10**9, "now": plane.clock()}
    creations = [creation_of(**(known | members)) for _ in range(count)]
    made = await plane.store.write(lambda tx: create.create_all(tx, creations))
    return [each.session.session_id for each in made if not isinstance(each, Exception)]


async def queue(plane: Control) -> list[PendingSession]:
    return await plane.store.read(lambda tx: session_rows.pending_page(tx, 10**6).sessions)


async def change(plane: Control, session_id: str, **columns: Any) -> None:
    """Write into a session's row what no code of ours writes."""
    statement = update(SESSION).where(SESSION.c.session_id == session_id).values(**columns)
    await plane.store.write(lambda tx: tx.execute(statement) and None)


def skipped(logs: list[Any]) -> list[dict[str, Any]]:
    return [entry for entry in logs if entry["event"] == "item_skipped"]


# Long queues


async def test_what_fits_is_placed_whatever_waits_before_it(plane: Control) -> None:
    """Behind 2,500 that fit nowhere, in the same pass; and a second behind whom it takes the last slot waits."""
    await plane.agent("node-a", BUSY)
    await wait(plane, 2500)
    plane.clock.pass_s(1)
    [small], [other] = await wait(plane, 1, needs=SMALL), await wait(plane, 1, needs=SMALL)

    assert await plane.place() == 1

    assert (await plane.get(small)).state == State.STARTING
    assert (await plane.get(other)).state == State.PENDING


async def test_everybody_in_a_long_queue_is_told_a_place_and_why(plane: Control) -> None:
    """A bounded number in a pass, the near ones first; when all have been told, the round begins again."""
    await plane.agent("node-a", BUSY)
    await wait(plane, 2500)
    told = []
    for _ in range(4):
        await plane.place()
        told.append(sum(1 for row in await queue(plane) if row.queue))
        plane.clock.pass_s(60)
    rows = await queue(plane)

    assert told == [QueuePlaces.MOST_TOLD, 2 * QueuePlaces.MOST_TOLD, 2500, 2500]
    assert [row.queue["position"] for row in rows] == list(range(1, 2501))
    assert {tuple(row.queue["reasons"]) for row in rows} == {("MEMORY: 1 device",)}
    await plane.terminate(rows[0].session_id)
    for _ in range(3):
        await plane.place()
        plane.clock.pass_s(60)
    assert [row.queue["position"] for row in await queue(plane)] == list(range(1, 2500))


async def test_between_two_looks_at_a_long_queue_its_front_is_served(plane: Control) -> None:
    """A queue of many pages is not read as a whole at every signal."""
    await wait(plane, pending.PAGE + 10)
    await plane.place()
    plane.clock.pass_s(0.001)
    await plane.agent("node-a", gpu("GPU-0", memory_total_bytes=2000 * GIB, memory_free_bytes=2000 * GIB))

    assert await plane.place() == 1
    assert (await queue(plane))[0].queue["position"] == 1


def test_far_places_are_told_in_turn() -> None:
    """Where every place changes in every pass, those at the end are told as often as those before them."""
    places = QueuePlaces()
    places.MOST_TOLD = 100
    rows = [_row(number) for number in range(NEAR + 250)]
    told: list[int] = []
    for number in range(6):
        places.start(far=True)
        waiting = [pending.Decision(row, None, position + 1, position + 1) for position, row in enumerate(rows)]
        reasons = (WaitReason("NO_SLOT", number + 1, "device"),)
        news = places.news(waiting, {}, lambda _: reasons)  # noqa: B023
        places.end_of_queue()
        told += [int(row.session_id) for row, _ in news if int(row.session_id) >= NEAR]

    assert all(told.count(number) == 2 for number in range(NEAR, NEAR + 250))


def _row(number: int) -> PendingSession:
    known: dict[str, Any] = {"position": 0, "eta_s": None, "reasons": [], "wait_reasons": []}
    row: Any = dict.fromkeys(PendingSession._fields, None)
    return PendingSession(**(row | {"session_id": str(number), "queue": known}))


# What cannot be read or written


async def test_a_session_whose_needs_cannot_be_read_says_so_and_stops_no_other(plane: Control) -> None:
    """It is reported once, not at every pass; the others are placed, and explanations go on."""
    await plane.agent("node-a", gpu("GPU-0"))
    [bad], [good] = await wait(plane, 1, needs=GARBAGE, priority=1), await wait(plane, 1, needs=SMALL)

    with capture_logs() as logs:
        placed = await plane.place()
        await plane.place()
    told = await plane.rest("POST", "/stream:explain", json={"application": "fake"})

    assert placed == 1
    assert (await plane.get(good)).state == State.STARTING
    assert list((await plane.get(bad)).queue.reasons) == [why.text for why in pending.UNREADABLE]
    assert [entry["session_id"] for entry in skipped(logs)] == [bad]
    assert told.json()["queue_position"] == 2


async def test_limits_that_cannot_be_read_cost_no_other_its_estimate(plane: Control) -> None:
    """Of a session that holds a slot: the estimate does without it."""
    agent = await plane.agent()
    running = await plane.running(agent)
    [waiting] = await wait(plane, 1, needs=SMALL)
    await change(plane, running.session_id, limits=GARBAGE)

    await plane.place()

    assert (await plane.get(waiting)).queue.position == 1


@pytest.mark.parametrize("what", ["facts", "reading"])
async def test_a_node_that_cannot_be_read_gets_nothing_and_stops_no_other(plane: Control, what: str) -> None:
    """It is reported once; sessions go to the others, and it is used again once it reports what can be read."""
    await plane.agent("node-a", gpu("A"))
    await plane.agent("node-b", gpu("B"))
    table, column = (NODE, NODE.c.facts) if what == "facts" else (DEVICE, DEVICE.c.reading)

    async def store(value: bytes) -> None:
        statement = update(table).where(table.c.node == "node-a").values({column: value})
        await plane.store.write(lambda tx: tx.execute(statement) and None)
        plane.clock.pass_s(60)

    good = node_pb2.NodeFacts(launchers=["fake"], port_blocks=9) if what == "facts" else gpu("A")
    await store(GARBAGE)
    first, second = await wait(plane, 1, needs=SMALL), await wait(plane, 1, needs=SMALL)
    with capture_logs() as logs:
        placed = [await plane.place(), await plane.place()]
    told = await plane.rest("POST", "/stream:explain", json={"application": "fake"})
    await store(good.SerializeToString())

    assert placed == [1, 0]
    assert [entry["node"] for entry in skipped(logs)] == ["node-a"]
    assert told.json()["node_count"] == 1
    assert (await plane.get(first[0])).node == "node-b"
    assert await plane.place() == 1
    assert (await plane.get(second[0])).node == "node-a"


async def test_a_session_that_cannot_be_placed_stops_no_other(plane: Control) -> None:
    """Its slot goes to the next one at once; it is tried again after a minute, and says so meanwhile."""
    await plane.agent("node-a", gpu("A"))
    [bad], [good] = await wait(plane, 1, needs=SMALL, priority=1), await wait(plane, 1, needs=SMALL)
    timeline = (await plane.store.read(lambda tx: _get(tx, bad))).timeline
    await change(plane, bad, timeline=5)

    with capture_logs() as logs:
        placed = [await plane.place(), await plane.place()]
    row = (await queue(plane))[0]
    await change(plane, bad, timeline=timeline)
    await plane.agent("node-b", gpu("B"))
    plane.clock.pass_s(59)
    early = await plane.place()
    plane.clock.pass_s(1)

    assert placed == [0, 1]
    assert [entry["session_id"] for entry in skipped(logs)] == [bad]
    assert (await plane.get(good)).state == State.STARTING
    assert (row.session_id, tuple(row.queue["reasons"])) == (bad, tuple(why.text for why in pending.FAILED))
    assert (early, await plane.place()) == (0, 1)


def _get(tx: Transaction, session_id: str) -> SessionRow:
    row = session_rows.get(tx, session_id)
    assert row is not None
    return row


async def test_the_loop_outlives_any_failure(plane: Control) -> None:
    """A pass that fails is tried again, and then places."""
    await plane.agent()
    [made] = await wait(plane, 1, needs=SMALL)
    cache = plane.plane.placing._cache
    read, failures = cache.read, [ZeroDivisionError("one"), KeyError("two")]

    async def failing() -> None:
        if failures:
            raise failures.pop()
        await read()

    cache.read = failing  # type: ignore[method-assign]
    loop = asyncio.create_task(plane.plane.placing.run())
    try:
        async with asyncio.timeout(20):
            while (await plane.get(made)).state != State.STARTING:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    finally:
        loop.cancel()

    assert failures == []


# Holds


@pytest.mark.parametrize("how", ["confirmed", "unknown", "raised"])
async def test_held_slots_are_given_to_no_other_until_the_node_was_read_again(plane: Control, how: str) -> None:
    """Whatever became of them: then the store says whether they are free, and here nothing was written."""
    await plane.agent("node-a", gpu("A"))
    placing = plane.plane.placing
    await placing._work.claim()
    await plane.place()
    try:
        with placing.hold(Wish("mine", "fake")) as hold:
            chosen = hold.choice
            with placing.hold(Wish("other", "fake")) as second:
                meanwhile = second.choice
            if how == "confirmed":
                hold.confirm()
            elif how == "raised":
                raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    with placing.hold(Wish("other", "fake")) as third:
        after = third.choice
    plane.clock.pass_s(60)
    await plane.place()
    with placing.hold(Wish("other", "fake")) as fourth:
        fourth.confirm()

    assert chosen is not None
    assert (meanwhile, after) == (None, None)
    assert fourth.choice is not None


async def test_what_waits_keeps_from_a_creation_only_what_it_would_take_itself(plane: Control) -> None:
    """Nothing while it fits nowhere; everything that would do for it once something is free."""
    agent = await plane.agent("node-a", gpu("A"), gpu("B", kind=node_pb2.Device.SOFTWARE))
    placing = plane.plane.placing
    await placing._work.claim()
    await plane.place()
    gpu_needs = application_pb2.Needs(gpu=True)
    await plane.apply(version("1.0.0", needs=gpu_needs), application="drawing")
    running = await plane.running(agent, application="drawing")
    await plane.create(application="drawing")
    await plane.place()

    with placing.hold(Wish("other", "fake")) as hold:
        beside = hold.choice
    await agent.report(await agent.assignment(running.session_id), "EXITED", exit_code=0)
    await placing._cache.read()
    with placing.hold(Wish("mine", "fake", gpu=True)) as hold:
        behind = hold.choice

    assert beside is not None
    assert beside.device == "B"
    assert behind is None
