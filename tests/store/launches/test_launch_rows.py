"""Launches and leases: begun once, observed by the link, ended by proof."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from footlights import errors
from footlights.lifecycle import LaunchState, Stage
from footlights.store import Store, Transaction, open_store
from footlights.store.launches import launch_rows
from footlights.store.launches.launch_rows import Observation
from footlights.store.nodes import fleet
from footlights.store.schema import LaunchRow, SessionRow
from tests.store.rows import NOW, S, begin, create, join, observe, observe_one, read, running

L = LaunchState


async def test_beginning_leases_the_slots_and_starts_the_session(store: Store) -> None:
    """In one transaction: launch, leases, session."""
    row, launch = await running(store, 0, 1, state=L.ASSIGNED)

    leases = await store.read(launch_rows.live_leases)

    assert (row.state, row.launch_id, row.launch_count) == ("STARTING", launch.launch_id, 1)
    assert (launch.state, launch.slots, launch.desired, launch.epoch) == ("ASSIGNED", [0, 1], "RUNNING", 1)
    assert sorted((each.node, each.device, each.slot, each.launch_id) for each in leases) == [
        ("node-a", "GPU-0", 0, launch.launch_id),
        ("node-a", "GPU-0", 1, launch.launch_id),
    ]


async def test_a_slot_that_is_leased_cannot_be_leased_again(store: Store) -> None:
    """The second session stays as it was, also the slots of its wish that were free."""
    await running(store, 1)
    other = await store.write(create)

    with pytest.raises(errors.Conflict, match="leased already"):
        await store.write(lambda tx: begin(tx, other, 0, 1))

    assert await store.read(lambda tx: read(tx, other.session_id)) == other
    assert len(await store.read(launch_rows.live_leases)) == 1
    assert await store.read(lambda tx: launch_rows.last(tx, other.session_id)) is None


async def test_a_freed_slot_can_be_leased_at_once(store: Store) -> None:
    """Released leases are history and in no launch's way."""
    _, launch = await running(store)

    def take_over(tx: Transaction) -> LaunchRow:
        observe(tx, launch, L.EXITED, exit_code=0)
        return begin(tx, create(tx))

    again = await store.write(take_over)

    assert [each.launch_id for each in await store.read(launch_rows.live_leases)] == [again.launch_id]


async def test_a_session_that_has_changed_is_not_placed(store: Store) -> None:
    """Placing decided on what it read; the faster one is right."""
    row = await store.write(create)
    await store.write(join)
    await store.write(lambda tx: begin(tx, row, 0))

    with pytest.raises(errors.Conflict, match="has changed since"):
        await store.write(lambda tx: begin(tx, row, 1))
    with pytest.raises(errors.Conflict, match="has changed since"):
        await store.write(lambda tx: begin(tx, read(tx, row.session_id), 1))

    assert len(await store.read(launch_rows.live_leases)) == 1


async def _race(stores: list[Store], rows: list[SessionRow], slots: list[int]) -> list[Any]:
    def placing(number: int) -> Callable[[Transaction], LaunchRow]:
        return lambda tx: begin(tx, rows[number], slots[number])

    calls = (stores[number % len(stores)].write(placing(number)) for number in range(len(rows)))
    return await asyncio.gather(*calls, return_exceptions=True)


async def test_of_many_who_race_for_a_slot_exactly_one_gets_it(store: Store) -> None:
    """20 sessions, 2 slots, all at once."""
    await store.write(join)
    rows = [await store.write(create) for _ in range(20)]

    outcomes = await _race([store], rows, [number % 2 for number in range(20)])

    won = [outcome for outcome in outcomes if not isinstance(outcome, Exception)]
    assert len(won) == 2
    assert all(isinstance(outcome, errors.Conflict) for outcome in outcomes if isinstance(outcome, Exception))
    assert sorted(each.slot for each in await store.read(launch_rows.live_leases)) == [0, 1]


async def test_replicas_that_race_for_a_slot_get_it_once(store: Store, database: str, tmp_path: Path) -> None:
    """Two control planes on one Postgres: the index decides, whatever each has read."""
    if not database:
        pytest.skip("SQLite has one server: its data directory is locked")
    await store.write(join)
    rows = [await store.write(create) for _ in range(20)]
    other = open_store(tmp_path, database)

    try:
        outcomes = await _race([store, other], rows, [number // 2 % 2 for number in range(20)])
    finally:
        await other.close()

    assert sum(not isinstance(outcome, Exception) for outcome in outcomes) == 2
    assert sorted(each.slot for each in await store.read(launch_rows.live_leases)) == [0, 1]


async def test_one_session_that_is_placed_twice_at_once_gets_one_launch(store: Store) -> None:
    """Two passes of placing over the same queue."""
    await store.write(join)
    row = await store.write(create)

    outcomes = await _race([store], [row, row], [0, 1])

    assert [isinstance(outcome, errors.Conflict) for outcome in outcomes] in ([True, False], [False, True])
    assert (await store.read(lambda tx: read(tx, row.session_id))).launch_count == 1


# Observing


async def test_what_an_agent_reports_is_recorded_and_shown(store: Store) -> None:
    """Ports, viewers, message: and the session gets a new revision whenever it shows something new."""
    row, launch = await running(store, state=L.STARTING)

    seen = await store.write(lambda tx: observe(tx, launch, L.READY, ports=(1, 2, 3), viewers=0, message="warm"))
    shown = await store.read(lambda tx: read(tx, row.session_id))

    assert (seen.signal_port, seen.media_port, seen.http_port, seen.viewers) == (1, 2, 3, 0)
    assert (shown.state, shown.status_message) == ("READY", "warm")
    assert shown.revision > row.revision


async def test_viewers_make_a_session_active_and_each_change_of_them_is_a_revision(store: Store) -> None:
    """READY and ACTIVE follow presence, and watchers hear of every number."""
    row, launch = await running(store)
    revisions, states = [row.revision], []

    for viewers in (1, 2, 0):
        await store.write(partial(observe, launch=launch, state=L.READY, viewers=viewers))
        now = await store.read(lambda tx: read(tx, row.session_id))
        revisions.append(now.revision)
        states.append(now.state)

    assert states == ["ACTIVE", "ACTIVE", "READY"]
    assert sorted(set(revisions)) == revisions


async def test_the_same_report_again_changes_nothing(store: Store) -> None:
    """Not the launch, not the session, not the revision."""
    row, launch = await running(store)
    report: dict[str, Any] = {"ports": (1, 2, 3), "viewers": 1, "steps": {Stage.APPLICATION_READY: NOW}}
    await store.write(lambda tx: observe(tx, launch, L.READY, **report))
    before = await store.read(lambda tx: (read(tx, row.session_id), launch_rows.get(tx, launch.launch_id)))

    await store.write(lambda tx: observe(tx, launch, L.READY, now=NOW + 60 * S, **report))

    assert await store.read(lambda tx: (read(tx, row.session_id), launch_rows.get(tx, launch.launch_id))) == before


async def test_a_state_never_goes_back(store: Store) -> None:
    """A report that was overtaken by another is no news."""
    row, launch = await running(store)

    seen = await store.write(lambda tx: observe(tx, launch, L.STARTING))

    assert seen.state == "READY"
    assert (await store.read(lambda tx: read(tx, row.session_id))).state == "READY"


async def test_the_end_of_a_launch_is_recorded_once_with_everything(store: Store) -> None:
    """Exit code, last lines, moment; slots free; the first final state wins."""
    row, launch = await running(store)

    seen = await store.write(
        lambda tx: observe(tx, launch, L.EXITED, exit_code=-9, log_tail=["a", "b"], viewers=3, now=NOW + S)
    )
    again = await store.write(lambda tx: observe(tx, launch, L.LOST, now=NOW + 2 * S))

    assert seen == again
    assert (seen.state, seen.exit_code, seen.log_tail, seen.viewers) == ("EXITED", -9, ["a", "b"], None)
    assert seen.ended_time == NOW + S
    ended = await store.read(lambda tx: read(tx, row.session_id))
    assert (ended.state, ended.end_reason) == ("FAILED", "CRASHED")
    assert "signal 9" in ended.status_message


async def test_reports_of_an_older_epoch_or_another_node_are_void(store: Store) -> None:
    """A lease's epoch and its node fence what may be said of a launch."""
    _, launch = await running(store)

    def speak(tx: Transaction) -> tuple[LaunchRow | None, LaunchRow | None, LaunchRow | None]:
        old = Observation(launch.launch_id, launch.epoch - 1, L.EXITED)
        strange = Observation(launch.launch_id, launch.epoch, L.EXITED)
        unknown = Observation("unknown", 1, L.EXITED)
        return (
            observe_one(tx, "node-a", old, now=NOW),
            observe_one(tx, "node-b", strange, now=NOW),
            observe_one(tx, "node-a", unknown, now=NOW),
        )

    assert await store.write(speak) == (launch, None, None)
    assert len(await store.read(launch_rows.live_leases)) == 1


async def test_the_launches_of_a_node_are_those_that_have_not_ended(store: Store) -> None:
    """With their sessions: what the node is to run."""
    _, first = await running(store, 0)
    _, second = await running(store, 1)
    await store.write(lambda tx: observe(tx, first, L.EXITED, exit_code=0))

    live = await store.read(lambda tx: launch_rows.live_on(tx, "node-a"))

    assert [(launch.launch_id, session.session_id) for launch, session in live] == [
        (second.launch_id, second.session_id)
    ]
    [member] = await store.read(fleet.members)
    assert (member.launches, set(member.leased)) == (1, {("GPU-0", 1)})
    assert await store.read(lambda tx: launch_rows.live_on(tx, "node-b")) == []


async def test_a_session_remembers_its_last_launch(store: Store) -> None:
    """Also while it waits for the next one."""
    row, launch = await running(store, state=L.ASSIGNED)
    await store.write(lambda tx: observe(tx, launch, L.REJECTED))

    last = await store.read(lambda tx: launch_rows.last(tx, row.session_id))

    assert last is not None
    assert last.launch_id == launch.launch_id


async def test_the_latest_start_times_come_first(store: Store) -> None:
    """With what was started."""

    def history(tx: Transaction) -> None:
        join(tx)
        for number in range(4):
            launch = begin(tx, create(tx), now=NOW + number * S)
            ready = {Stage.APPLICATION_READY: NOW + (2 * number + 1) * S}
            observe(tx, launch, L.READY, steps=ready)
            observe(tx, launch, L.EXITED, exit_code=0)

    await store.write(history)

    found = await store.read(launch_rows.recent_start_times)
    assert found == [("fake", "1.0.0", start_s) for start_s in (4.0, 3.0, 2.0, 1.0)]
