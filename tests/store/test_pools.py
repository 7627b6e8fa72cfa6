"""Warm instances in the store: taken once, left out of what is shown, and over like any launch."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select

from footlights.lifecycle import EndReason, LaunchState, Stage
from footlights.store import Store, Transaction, pools
from footlights.store.bulk import Inserter
from footlights.store.cluster.revisions import allocate
from footlights.store.launches import launch_rows
from footlights.store.launches.slots import ChosenSlots
from footlights.store.pools import AheadStart
from footlights.store.schema import REMOVAL, SESSION, LaunchRow, SessionRow
from footlights.store.sessions import create as creating
from footlights.store.sessions import listing, session_rows
from footlights.store.sessions.create import Creation, Outcome
from footlights.store.sessions.idempotency import Request
from tests.store.rows import NOW, S, add_version, join, observe, read, values

SHAPE = "shape"


async def warm(store: Store, *, slot: int = 0, ready: bool = True, shape: str = SHAPE) -> tuple[SessionRow, LaunchRow]:
    """Start an instance on a node that is linked for it."""

    def write(tx: Transaction) -> tuple[SessionRow, LaunchRow]:
        add_version(tx)
        if not launch_rows.live_on(tx, "node-a"):
            join(tx)
        place = ChosenSlots("node-a", "GPU-0", (slot,), f"launch-{slot}", (f"lease-{slot}",))
        start = AheadStart(values(username="", created_by="", pool="warm", shape=shape), place)
        launch = pools.begin(tx, start, now=NOW)
        assert launch is not None
        if ready:
            observe(tx, launch, LaunchState.READY, steps={Stage.APPLICATION_READY: NOW + 20 * S}, now=NOW + 20 * S)
        row = read(tx, launch.session_id)
        return row, launch

    return await store.write(write)


def creation(name: str, **members: object) -> Creation:
    """Return the creation of a session that may take an instance."""
    request = Request("ann", name, name.encode())
    return Creation(values(labels={"of": name}, **members), NOW + 60 * S, 1000, request, shapes=("better", SHAPE))


async def test_one_of_many_takes_it_and_a_repetition_finds_that(store: Store) -> None:
    """The session has the id, the launch and the lease of the instance, and what its caller gave."""
    instance, _ = await warm(store)
    leases = await store.read(launch_rows.live_leases)

    writes = (store.write_batched(creating.SESSIONS, creation(str(n))) for n in range(5))
    made = await asyncio.gather(*writes)

    [taken] = [each for each in made if each.outcome is Outcome.TAKEN]
    session = await store.read(lambda tx: read(tx, instance.session_id))
    assert taken.session == session
    assert (session.pool, session.from_pool, session.shape) == (None, "warm", None)
    assert (session.created_time, session.ready_time, session.state) == (NOW + 60 * S, None, "STARTING")
    assert await store.read(launch_rows.live_leases) == leases
    again = await store.write_batched(creating.SESSIONS, creation(session.labels["of"]))
    assert (again.outcome, again.session.session_id) == (Outcome.KNOWN, session.session_id)
    label = listing.Filter(labels=(("of", session.labels["of"]),))
    found = await store.read(lambda tx: listing.Selection(tx, label, listing.Order()).read(10).rows)
    assert [each.session_id for each in found] == [session.session_id]


async def test_it_is_ready_when_its_agent_has_taken_it_up(store: Store) -> None:
    """Not by what the agent says of the time before; and its time as a warm instance is no use of the session's."""
    instance, launch = await warm(store)
    await store.write_batched(creating.SESSIONS, creation("one"))

    def report(tx: Transaction, *, taken_up: bool) -> SessionRow:
        steps = {Stage.APPLICATION_READY: NOW + 20 * S}
        observe(tx, launch, LaunchState.READY, now=NOW + 61 * S, taken_up=taken_up, steps=steps, ever_connected=True)
        return read(tx, instance.session_id)

    before = await store.write(lambda tx: report(tx, taken_up=False))
    after = await store.write(lambda tx: report(tx, taken_up=True))

    assert (before.state, before.ready_time) == ("STARTING", None)
    assert (after.state, after.ready_time) == ("READY", NOW + 60 * S)
    assert [stage for stage, _ in after.timeline] == ["QUEUED", "PLACED", "APPLICATION_READY"]
    now = await store.read(lambda tx: launch_rows.get(tx, launch.launch_id))
    assert now is not None
    spent = launch_rows.spent(now, now=NOW + 100 * S)
    assert (spent.starting, spent.warm, spent.used) == (20, 40, 40)


async def test_an_instance_that_fails_is_over_and_never_waits(store: Store) -> None:
    """A session would be placed again; nobody waits for this one. What no session took was never used."""
    instance, launch = await warm(store, ready=False)
    await store.write(lambda tx: observe(tx, launch, LaunchState.REJECTED, reason="MEMORY", now=NOW + 5 * S))

    row = await store.read(lambda tx: read(tx, instance.session_id))
    assert (row.state, row.ended_time) == ("FAILED", NOW + 5 * S)
    [failed] = await store.read(lambda tx: pools.failed(tx, since=NOW))
    assert (failed.pool, failed.shape) == ("warm", SHAPE)
    assert await store.read(launch_rows.live_leases) == []


async def test_what_ends_is_not_taken_and_what_is_taken_is_not_ended(store: Store) -> None:
    """Whichever of the two was first."""
    first, _ = await warm(store)
    second, _ = await warm(store, slot=1)
    reason = EndReason.USER_TERMINATED, "Its pool is smaller now."
    await store.write(lambda tx: pools.end(tx, {first.session_id: reason}, now=NOW + 30 * S))

    made = await store.write_batched(creating.SESSIONS, creation("one"))
    await store.write(lambda tx: pools.end(tx, {second.session_id: reason}, now=NOW + 61 * S))

    assert made.session.session_id == second.session_id
    assert (await store.read(lambda tx: read(tx, second.session_id))).intent == "RUN"
    assert await store.read(lambda tx: listing.state_counts(tx)) == {("STARTING", "fake"): 1}


async def test_a_removed_instance_is_no_removed_session(store: Store) -> None:
    """A watch that resumes hears nothing of what it never knew."""
    _, launch = await warm(store)
    await store.write(lambda tx: observe(tx, launch, LaunchState.EXITED, now=NOW + 5 * S))

    later = NOW + timedelta(days=30)
    assert await store.write(lambda tx: session_rows.prune(tx, before=later, now=later)) == 1

    assert await store.read(lambda tx: tx.execute(select(func.count()).select_from(REMOVAL)).scalar_one()) == 0


async def test_those_that_are_created_together_take_each_what_is_of_its_shape(store: Store) -> None:
    """However many there are of another shape."""
    for slot in range(3):
        await warm(store, slot=slot)
    other, _ = await warm(store, slot=3, shape="other")

    wanted = [creation("1"), creation("2"), replace(creation("3"), shapes=("other",))]

    made = await store.write(lambda tx: creating.create_all(tx, wanted))

    taken = [each for each in made if isinstance(each, creating.Created)]
    assert [each.outcome for each in taken] == [Outcome.TAKEN] * 3
    assert taken[2].session.session_id == other.session_id


async def test_how_long_sessions_last_is_told_by_sessions(store: Store) -> None:
    """However many warm instances have ended since."""

    def ends(tx: Transaction) -> None:
        add_version(tx)
        times: dict[str, Any] = {"created_time": NOW, "ready_time": NOW + S, "ended_time": NOW + 5 * S}
        gone: dict[str, Any] = {"created_time": NOW, "ended_time": NOW + 9 * S, "pool": "warm", "shape": SHAPE}
        members = [times, *[gone] * 1000]
        revisions = allocate(tx, len(members))
        rows = (SessionRow(**values(**each, revision=of)) for each, of in zip(members, revisions, strict=True))
        Inserter(SESSION)(tx, list(rows))

    await store.write(ends)

    assert await store.read(session_rows.recent_lengths) == [("fake", 4.0)]
