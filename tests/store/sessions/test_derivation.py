"""States that are read, changed and written together: the same comes of them as one by one, for few statements."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from footlights import errors
from footlights import ids as names
from footlights.lifecycle import EndReason, LaunchState, Stage
from footlights.store import BatchWrite, Store, Transaction, open_store
from footlights.store.launches import launch_rows
from footlights.store.launches.launch_rows import Observation, PlacementDecision
from footlights.store.launches.slots import ChosenSlots
from footlights.store.nodes import node_rows
from footlights.store.nodes.node_rows import NodeScheduling
from footlights.store.schema import LaunchRow, SessionRow
from footlights.store.sessions import session_rows
from footlights.store.sessions.derivation import SessionStates
from tests.store.rows import NOW, S, account, begin, create, join, observe, read, running

L = LaunchState
LIFE: list[tuple[LaunchState, dict[str, Any]]] = [
    (L.STARTING, {"steps": {Stage.PULLING: NOW + S}}),
    (L.STARTING, {"steps": {Stage.PROCESS_UP: NOW + 2 * S}, "message": "loads"}),
    (L.READY, {"steps": {Stage.APPLICATION_READY: NOW + 3 * S}, "ports": (1, 2, 3), "viewers": 0}),
    (L.READY, {"viewers": 2, "ever_connected": True, "steps": {Stage.FIRST_VIEWER: NOW + 4 * S}}),
    (L.STOPPING, {"message": "stops"}),
    (L.EXITED, {"exit_code": 0, "log_tail": ("a", "b")}),
]
"""What an agent says of a launch that ends by itself."""


def note(tx: Transaction, seen: Sequence[Observation]) -> list[LaunchRow | None]:
    """Record what the agent of node-a says of several launches."""
    lives = SessionStates.of_launches(tx, [each.launch_id for each in seen])
    found = [launch_rows.note(lives, "node-a", each, now=NOW + 9 * S) for each in seen]
    lives.write()
    return found


def end(tx: Transaction, session_ids: Sequence[str]) -> list[str]:
    """Ask for the ends of several sessions."""
    lives = SessionStates.of_sessions(tx, session_ids)
    for session_id in session_ids:
        session = lives.session(session_id)
        assert session is not None
        lives.end(session, EndReason.USER_TERMINATED, "by ann", now=NOW)
    lives.write()
    return list(session_ids)


NOTES: BatchWrite[Observation, LaunchRow | None] = BatchWrite("notes", note)
ENDS: BatchWrite[str, str] = BatchWrite("ends", end)


async def many(store: Store, count: int) -> list[LaunchRow]:
    """Begin so many launches on node-a."""

    def write(tx: Transaction) -> list[LaunchRow]:
        join(tx, "node-a", *(f"GPU-{number}" for number in range(count)))
        return [begin(tx, create(tx), device=f"GPU-{number}") for number in range(count)]

    return await store.write(write)


@contextmanager
def counted(store: Store) -> Iterator[list[str]]:
    """The statements that are written meanwhile."""
    statements: list[str] = []

    def count(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    event.listen(store.engine.writer, "before_cursor_execute", count)
    try:
        yield statements
    finally:
        event.remove(store.engine.writer, "before_cursor_execute", count)


async def test_reports_of_one_launch_together_are_the_same_as_one_after_the_other(store: Store) -> None:
    """In every column but the revision, of which the session gets one for all of them."""
    together, apart = await many(store, 2)

    def report(launch: LaunchRow) -> list[Observation]:
        return [Observation(launch.launch_id, launch.epoch, state, **members) for state, members in LIFE]

    before = await store.read(lambda tx: read(tx, together.session_id))
    found = await store.write(lambda tx: note(tx, report(together)))
    for each in report(apart):
        await store.write(partial(note, seen=[each]))

    def look(tx: Transaction) -> list[tuple[LaunchRow | None, SessionRow]]:
        return [(launch_rows.get(tx, each.launch_id), read(tx, each.session_id)) for each in (together, apart)]

    (one, first), (two, second) = await store.read(look)
    assert found[-1] == one
    assert [launch.state for launch in found if launch] == [state.value for state, _ in LIFE]
    for table, mine, other in ((LaunchRow, one, two), (SessionRow, first, second)):
        for name in set(table._fields) - {"launch_id", "session_id", "device", "revision"}:
            assert getattr(mine, name) == getattr(other, name), name
    assert (first.state, first.end_reason) == ("TERMINATED", "COMPLETED")
    assert first.revision > before.revision
    assert await store.read(launch_rows.live_leases) == []


async def test_a_batch_costs_as_many_statements_as_one(store: Store) -> None:
    """Forty lives, or one: reports, ends and proofs are read and written by the same few statements."""
    one, *others = await many(store, 41)

    async def life(part: Sequence[LaunchRow]) -> list[str]:
        with counted(store) as statements:
            for state, members in LIFE[:4]:
                seen = [Observation(each.launch_id, each.epoch, state, **members) for each in part]
                await store.write(partial(note, seen=seen))
            await store.write(lambda tx: end(tx, [each.session_id for each in part]))
            gone = [Observation(each.launch_id, each.epoch, L.EXITED, exit_code=0) for each in part]
            await store.write(lambda tx: note(tx, gone))
        return statements

    alone, together = await life([one]), await life(others)

    assert len(together) == len(alone) <= 44, alone
    assert await store.read(launch_rows.live_leases) == []
    states = await store.read(lambda tx: {read(tx, each.session_id).state for each in others})
    assert states == {"TERMINATED"}


async def test_who_is_noted_in_vain_holds_up_no_other(store: Store) -> None:
    """Unknown launches, another node's, old epochs, ended ones: each changes nothing, its neighbours do."""
    good, ended, old = await many(store, 3)
    await store.write(lambda tx: observe(tx, ended, L.EXITED, exit_code=1))
    last = await store.read(lambda tx: launch_rows.get(tx, ended.launch_id))

    found = await store.write(
        lambda tx: note(
            tx,
            [
                Observation("unknown", 1, L.READY),
                Observation(ended.launch_id, 1, L.LOST),
                Observation(old.launch_id, 0, L.EXITED),
                Observation(good.launch_id, 1, L.READY),
            ],
        )
    )

    assert found[:3] == [None, last, old]
    assert found[3] is not None
    assert found[3].state == "READY"
    assert (await store.read(lambda tx: read(tx, old.session_id))).state == "STARTING"


async def test_a_device_that_fails_several_launches_at_once_remembers_each(store: Store) -> None:
    """And a session that is refused is back in the queue while its neighbour ends."""
    _, first = await running(store, 0)
    _, second = await running(store, 1, state=L.ASSIGNED)

    await store.write(
        lambda tx: note(
            tx,
            [
                Observation(first.launch_id, 1, L.FAILED, reason="GPU_LOST", message="gone"),
                Observation(second.launch_id, 1, L.REJECTED, reason="GPU_LOST", message="gone"),
            ],
        )
    )

    one, two = await store.read(lambda tx: (read(tx, first.session_id), read(tx, second.session_id)))
    assert (one.state, one.end_reason) == ("FAILED", "GPU_LOST")
    assert (two.state, two.launch_id, two.launch_count) == ("PENDING", None, 1)


async def test_replicas_that_change_the_same_sessions_lose_nothing(store: Store, database: str, tmp_path: Path) -> None:
    """One tells sessions to end while another records that they become ready, run and end: each change is met once."""
    begun = await many(store, 30)
    other = open_store(tmp_path, database) if database else store

    async def live(launch: LaunchRow) -> None:
        for state, members in LIFE[:4]:
            seen = Observation(launch.launch_id, launch.epoch, state, **members)
            await other.write_batched(NOTES, seen)

    try:
        lives = [live(each) for each in begun]
        ends = [store.write_batched(ENDS, each.session_id) for each in reversed(begun)]
        await asyncio.gather(*lives, *ends)
        gone = [other.write_batched(NOTES, Observation(each.launch_id, 1, L.EXITED, exit_code=0)) for each in begun]
        await asyncio.gather(*gone)
    finally:
        if other is not store:
            await other.close()

    for launch in begun:
        row = await store.read(partial(read, session_id=launch.session_id))
        assert (row.state, row.end_reason, row.status_message) == ("TERMINATED", "USER_TERMINATED", "by ann")
        assert [stage for stage, _ in row.timeline].count("ENDING") == 1
        assert (await store.read(partial(account, session_id=row.session_id, now=NOW + 20 * S))).balanced
    assert await store.read(launch_rows.live_leases) == []


async def test_what_fails_fails_alone(store: Store) -> None:
    """One of many items breaks the call that they share: the others are written all the same."""
    begun = await many(store, 5)
    ids = [launch.session_id for launch in begun]

    answers = await asyncio.gather(
        *(store.write_batched(ENDS, each) for each in [*ids[:2], "unknown", *ids[2:]]), return_exceptions=True
    )

    assert [isinstance(answer, BaseException) for answer in answers] == [False, False, True, False, False, False]
    states = await store.read(lambda tx: [read(tx, each).state for each in ids])
    assert states == ["TERMINATING"] * 5


async def test_what_has_changed_meanwhile_is_not_overwritten(store: Store) -> None:
    """The revision guards what was read, should anybody change it without the lock."""
    row = await store.write(create)

    def write(tx: Transaction) -> None:
        lives = SessionStates.of_sessions(tx, [row.session_id])
        session_rows.update_session(tx, row, now=NOW, priority=1)
        known = lives.session(row.session_id)
        assert known is not None
        lives.end(known, EndReason.USER_TERMINATED, "", now=NOW)
        lives.write()

    with pytest.raises(errors.Conflict, match="at the same time"):
        await store.write(write)

    assert await store.read(lambda tx: read(tx, row.session_id)) == row


async def test_a_session_that_has_ended_is_settled_for_good(store: Store) -> None:
    """Also where somebody settles it again."""
    row, launch = await running(store)
    await store.write(lambda tx: observe(tx, launch, L.EXITED, exit_code=0))
    ended = await store.read(lambda tx: read(tx, row.session_id))

    await store.write(lambda tx: session_rows.derive(tx, [row.session_id], now=NOW + 60 * S))

    assert await store.read(lambda tx: read(tx, row.session_id)) == ended


# Placing


async def test_the_placements_of_a_pass_are_answered_one_by_one(store: Store) -> None:
    """Placed; a slot that is taken, before or by a neighbour; a session that has changed, or twice; a closed node."""

    def prepare(tx: Transaction) -> list[SessionRow]:
        join(tx, "node-a", "GPU-0", "GPU-1")
        join(tx, "node-b")
        node_rows.set_scheduling(tx, "node-b", NodeScheduling(cordoned=True), now=NOW)
        begin(tx, create(tx), 1)
        return [create(tx, session_id=name) for name in "abcdef"]

    a, b, c, d, e, f = await store.write(prepare)
    await store.write(lambda tx: session_rows.update_session(tx, d, now=NOW, priority=3))

    def grant(row: SessionRow, *slots: int, node: str = "node-a", device: str = "GPU-0") -> PlacementDecision:
        ids = tuple(names.new_id() for _ in slots)
        return PlacementDecision(row.session_id, row.revision, ChosenSlots(node, device, slots, names.new_id(), ids))

    grants = [
        grant(a, 0),
        grant(b, 0, 1),
        grant(c, 0, 1, device="GPU-1"),
        grant(d, 0, device="GPU-1"),
        grant(e, 0, node="node-b"),
        grant(f, 1),
        grant(c, 0, device="GPU-1"),
    ]
    answers = await store.write(lambda tx: launch_rows.begin(tx, grants, now=NOW + S))

    said = [str(answer) if isinstance(answer, errors.Conflict) else answer.session_id for answer in answers]
    assert said[0] == "a"
    assert "leased already" in said[1]
    assert said[2] == "c"
    assert "has changed since" in said[3]
    assert "takes no sessions" in said[4]
    assert "leased already" in said[5]
    assert "has changed since" in said[6]
    held = [lease.session_id for lease in await store.read(launch_rows.live_leases)]
    assert sorted(each for each in held if each in "abcdef") == ["a", "c", "c"]
    for row, state in ((a, "STARTING"), (b, "PENDING"), (c, "STARTING"), (e, "PENDING"), (f, "PENDING")):
        assert (await store.read(partial(read, session_id=row.session_id))).state == state
    for answer in answers:
        if not isinstance(answer, errors.Conflict):
            assert await store.read(partial(launch_rows.get, launch_id=answer.launch_id)) == answer


async def test_a_pass_costs_as_many_statements_as_one_placement(store: Store) -> None:
    """A queue that is let in at once does not hold up the writer."""

    def prepare(tx: Transaction) -> list[SessionRow]:
        join(tx, "node-a", *(f"GPU-{number}" for number in range(40)))
        return [create(tx) for _ in range(40)]

    one, *others = await store.write(prepare)

    async def place(rows: Sequence[SessionRow], first: int) -> int:
        grants = [
            PlacementDecision(
                row.session_id,
                row.revision,
                ChosenSlots("node-a", f"GPU-{number}", (0,), names.new_id(), (names.new_id(),)),
            )
            for number, row in enumerate(rows, first)
        ]
        with counted(store) as statements:
            answers = await store.write(lambda tx: launch_rows.begin(tx, grants, now=NOW))
        assert not any(isinstance(answer, errors.Conflict) for answer in answers)
        return len(statements)

    assert await place(others, 1) == await place([one], 0) <= 9
