"""Sessions: created once, ended once, derived with their launches; each change is one of the `revisions`."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

import pytest

from footlights import errors, ids
from footlights.lifecycle import EndReason, LaunchState, SessionState, Stage
from footlights.lifecycle.derivation import MAX_LAUNCHES
from footlights.store import Store, Transaction
from footlights.store.launches import launch_rows
from footlights.store.nodes import node_rows
from footlights.store.schema import SessionRow
from footlights.store.sessions import session_rows
from footlights.store.sessions.session_rows import PendingSession
from tests.store.rows import NOW, S, begin, create, end, join, observe, read, running, values

L = LaunchState


def stages(session: SessionRow) -> list[str]:
    return [stage for stage, _ in session.timeline]


async def test_a_new_session_is_pending_with_everything_it_was_given(store: Store) -> None:
    """JSON, bytes, moments and numbers come back as they went in, on every engine."""
    given = values(
        arguments={"count": 5, "ratio": 0.5, "deep": [{"a": None}], "text": "ünï"},
        labels={"team": "a"},
        secrets=b"\x00\xff",
        limits=b"\x01",
        max_total_s=7200.5,
        priority=-7,
    )

    created = NOW + timedelta(microseconds=123456)
    made = await store.write(lambda tx: create(tx, now=created, queue_limit=1, **given))

    assert {name: getattr(made, name) for name in given} == given
    assert made.created_time == created
    assert made.created_time.utcoffset() == timedelta(0)
    assert (made.state, made.condition, made.intent, made.launch_id) == ("PENDING", "OK", "RUN", None)
    assert stages(made) == ["QUEUED"]
    assert made.revision > 0


async def test_the_queue_is_bounded(store: Store) -> None:
    """Only waiting sessions count, and what is refused leaves nothing behind."""
    await running(store)
    for caller in ("ann", "bob"):
        await store.write(lambda tx: create(tx, created_by=caller, queue_limit=2))  # noqa: B023

    with pytest.raises(errors.Exhausted, match="2 sessions are waiting already") as caught:
        await store.write(lambda tx: create(tx, session_id="third", created_by="cem", queue_limit=2))

    assert (caught.value.reason, caught.value.retry_after_s) == ("QUEUE_FULL", 60)
    assert await store.read(lambda tx: session_rows.get(tx, "third")) is None


async def test_waiting_sessions_are_served_by_priority_then_time_then_id(store: Store) -> None:
    """The order of the queue is total."""
    for name, priority, later in (("late", 0, 5), ("b", 0, 1), ("a", 0, 1), ("vip", 9, 9), ("low", -1, 0)):
        await store.write(partial(create, session_id=name, priority=priority, now=NOW + later * S))

    order = [row.session_id for row in await store.read(lambda tx: session_rows.pending_page(tx, 10).sessions)]

    assert order == ["vip", "a", "b", "late", "low"]
    assert [row.session_id for row in await store.read(lambda tx: session_rows.pending_page(tx, 2).sessions)] == [
        "vip",
        "a",
    ]


@pytest.mark.parametrize("limit", range(1, 7))
async def test_the_queue_is_read_by_pages_in_the_same_order(store: Store, limit: int) -> None:
    """Every session once, whatever the size of a page, also where priorities and times are equal."""
    for name, priority, later in (("late", 0, 5), ("b", 0, 1), ("a", 0, 1), ("vip", 9, 9), ("low", -1, 0)):
        await store.write(partial(create, session_id=name, priority=priority, now=NOW + later * S))

    found, after = [], None
    while True:
        page = await store.read(partial(session_rows.pending_page, limit=limit, after=after))
        found += [row.session_id for row in page.sessions]
        assert len(page.sessions) <= limit
        after = page.following
        if after is None:
            break

    assert found == ["vip", "a", "b", "late", "low"]


# Ends


async def test_a_waiting_session_ends_at_once(store: Store) -> None:
    """It holds nothing, so its end needs no proof."""
    row = await store.write(create)

    ended = await store.write(
        lambda tx: end(tx, read(tx, row.session_id), EndReason.USER_TERMINATED, "by ann", now=NOW + S)
    )

    assert (ended.state, ended.end_reason, ended.status_message) == ("TERMINATED", "USER_TERMINATED", "by ann")
    assert ended.ended_time == NOW + S
    assert stages(ended) == ["QUEUED", "ENDING", "ENDED"]
    assert await store.read(lambda tx: session_rows.pending_page(tx, 10).sessions) == []


@pytest.mark.parametrize("state", [L.ASSIGNED, L.STARTING, L.READY, L.STOPPING])
async def test_a_session_with_a_launch_ends_when_the_launch_is_proved_gone(store: Store, state: LaunchState) -> None:
    """Until then it is TERMINATING and its slot is withheld."""
    row, launch = await running(store, state=state)

    ending = await store.write(
        lambda tx: end(tx, read(tx, row.session_id), EndReason.USER_TERMINATED, "by ann", now=NOW + S)
    )
    held = await store.read(launch_rows.live_leases)
    await store.write(lambda tx: observe(tx, launch, L.EXITED, exit_code=0, now=NOW + 2 * S))
    ended = await store.read(lambda tx: read(tx, row.session_id))

    assert (ending.state, ending.ended_time) == ("TERMINATING", None)
    assert len(held) == 1
    assert (ended.state, ended.end_reason) == ("TERMINATED", "USER_TERMINATED")
    assert ended.ended_time == NOW + 2 * S
    assert await store.read(launch_rows.live_leases) == []


async def test_the_first_reason_for_an_end_stays(store: Store) -> None:
    """Asking again, for another reason, changes nothing: not even the revision."""
    row, _ = await running(store)

    first = await store.write(lambda tx: end(tx, read(tx, row.session_id), EndReason.MAX_DURATION, "max", now=NOW))
    second = await store.write(lambda tx: end(tx, read(tx, row.session_id), EndReason.USER_TERMINATED, "user", now=NOW))

    assert first == second
    assert second.wish == "MAX_DURATION"


async def test_an_ended_session_never_changes_again(store: Store) -> None:
    """Late reports and late wishes meet a closed book, and its secrets are gone."""
    row, launch = await running(store)
    await store.write(lambda tx: observe(tx, launch, L.EXITED, exit_code=3))
    ended = await store.read(lambda tx: read(tx, row.session_id))

    def late(tx: Transaction) -> None:
        observe(tx, launch, L.READY, viewers=4)
        observe(tx, launch, L.LOST)
        end(tx, read(tx, row.session_id), EndReason.USER_TERMINATED, "late", now=NOW)
        node_rows.set_silent(tx, "node-a", 1, now=NOW)

    await store.write(late)

    assert await store.read(lambda tx: read(tx, row.session_id)) == ended
    assert (ended.state, ended.end_reason, ended.secrets) == ("FAILED", "CRASHED", b"")


# Retries


async def test_a_refused_launch_sends_its_session_back_to_its_place_in_the_queue(store: Store) -> None:
    """With the reason shown, its slots free, and none of its launches used up."""
    row, launch = await running(store, state=L.ASSIGNED)
    await store.write(lambda tx: create(tx, now=NOW + 60 * S))

    refused = {"reason": "FOREIGN_PROCESS", "message": "pid 4711 has 3.1 GiB"}
    await store.write(lambda tx: observe(tx, launch, L.REJECTED, now=NOW + S, **refused))
    back = await store.read(lambda tx: read(tx, row.session_id))

    assert (back.state, back.launch_id, back.failures, back.launch_count) == ("PENDING", None, 0, 1)
    assert back.status_message == "pid 4711 has 3.1 GiB"
    assert stages(back) == ["QUEUED"]
    assert (await store.read(lambda tx: session_rows.pending_page(tx, 1).sessions))[0].session_id == row.session_id
    assert await store.read(launch_rows.live_leases) == []
    remembered = await store.read(lambda tx: launch_rows.attempts(tx, [row.session_id]))
    assert [(each.device, each.reason) for each in remembered] == [("GPU-0", "FOREIGN_PROCESS")]
    assert await store.read(lambda tx: launch_rows.attempts(tx, [])) == []


async def test_failures_that_are_not_the_applications_are_retried_a_bounded_number_of_times(store: Store) -> None:
    """MAX_LAUNCHES launches, each its own, then the session fails with what it met."""

    def attempt(tx: Transaction) -> SessionRow:
        launch = begin(tx, read(tx, row.session_id))
        observe(tx, launch, L.FAILED, reason="PORT_TAKEN", message="port 47995 is taken")
        return read(tx, row.session_id)

    await store.write(join)
    row = await store.write(create)

    seen = [await store.write(attempt) for _ in range(MAX_LAUNCHES)]

    assert [each.state for each in seen] == ["PENDING"] * (MAX_LAUNCHES - 1) + ["FAILED"]
    assert (seen[-1].end_reason, seen[-1].status_message) == (
        "LAUNCH_FAILED",
        "Tried 5 times, the last time: port 47995 is taken",
    )
    assert seen[-1].launch_count == MAX_LAUNCHES
    assert await store.read(launch_rows.live_leases) == []


async def test_a_late_report_of_an_older_launch_does_not_touch_its_session(store: Store) -> None:
    """A session follows its current launch alone."""
    row, old = await running(store, state=L.ASSIGNED)

    def again(tx: Transaction) -> None:
        observe(tx, old, L.REJECTED)
        new = begin(tx, read(tx, row.session_id))
        observe(tx, new, L.READY)
        observe(tx, old, L.LOST)

    await store.write(again)

    assert (await store.read(lambda tx: read(tx, row.session_id))).state == "READY"


# Conflicts


async def test_of_two_who_read_the_same_revision_one_writes(store: Store) -> None:
    """The one concurrency primitive."""
    row = await store.write(create)

    await store.write(lambda tx: session_rows.update_session(tx, row, now=NOW, priority=1))
    with pytest.raises(errors.Conflict, match="changed at the same time"):
        await store.write(lambda tx: session_rows.update_session(tx, row, now=NOW, priority=2))

    assert (await store.read(lambda tx: read(tx, row.session_id))).priority == 1


# Pruning


async def test_only_what_ended_long_ago_is_pruned_and_all_of_it(store: Store) -> None:
    """With its launches and leases; the living stay, however old."""

    def history(tx: Transaction) -> tuple[str, str, str]:
        join(tx)
        made = []
        for days in (40, 10):
            launch = begin(tx, create(tx, now=NOW - timedelta(days=days)))
            observe(tx, launch, L.EXITED, exit_code=0, now=NOW - timedelta(days=days))
            made.append(launch.session_id)
        alive = begin(tx, create(tx, now=NOW - timedelta(days=90)))
        return made[0], made[1], alive.session_id

    old, recent, alive = await store.write(history)

    removed = await store.write(lambda tx: session_rows.prune(tx, before=NOW - timedelta(days=30), now=NOW))

    assert removed == 1
    there = await store.read(lambda tx: [session_rows.get(tx, each) is not None for each in (old, recent, alive)])
    assert there == [False, True, True]
    assert await store.read(lambda tx: launch_rows.last(tx, old)) is None
    assert await store.write(lambda tx: session_rows.prune(tx, before=NOW - timedelta(days=30), now=NOW)) == 0


async def test_pruning_takes_small_bites_oldest_first(store: Store) -> None:
    """One pass never holds the writer for a whole history."""

    def history(tx: Transaction) -> list[str]:
        made = []
        for days in (50, 60, 70):
            row = create(tx, session_id=ids.new_id(), now=NOW - timedelta(days=days))
            end(tx, row, EndReason.USER_TERMINATED, "", now=NOW - timedelta(days=days))
            made.append(row.session_id)
        return made

    made = await store.write(history)

    assert await store.write(lambda tx: session_rows.prune(tx, before=NOW, now=NOW, limit=2)) == 2

    left = await store.read(lambda tx: [each for each in made if session_rows.get(tx, each)])
    assert left == made[:1]


async def test_every_way_through_a_session_is_timed(store: Store) -> None:
    """Steps keep the first moment at which they were reached; ready_time is the moment of readiness."""
    row, launch = await running(store, state=L.ASSIGNED)

    def life(tx: Transaction) -> SessionRow:
        observe(tx, launch, L.STARTING, steps={Stage.PROCESS_UP: NOW + S}, now=NOW + 2 * S)
        steps = {Stage.PROCESS_UP: NOW + 9 * S, Stage.APPLICATION_READY: NOW + 4 * S}
        observe(tx, launch, L.READY, steps=steps, now=NOW + 5 * S)
        observe(tx, launch, L.READY, viewers=1, steps={Stage.FIRST_VIEWER: NOW + 6 * S}, now=NOW + 6 * S)
        return read(tx, row.session_id)

    found = await store.write(life)

    assert found.state == SessionState.ACTIVE
    assert stages(found) == ["QUEUED", "PLACED", "PROCESS_UP", "APPLICATION_READY", "FIRST_VIEWER"]
    assert [when for _, when in found.timeline] == sorted(when for _, when in found.timeline)
    assert found.ready_time == NOW + 4 * S
    assert await store.read(launch_rows.recent_start_times) == [("fake", "1.0.0", 4.0)]


async def test_how_long_sessions_lasted_is_known_of_those_that_were_ready(store: Store) -> None:
    """From ready to ended, newest first; what was never ready does not count."""

    def lives(tx: Transaction) -> None:
        for ready, ended in ((1, 5), (2, 9), (None, 12)):
            row = create(tx)
            times = {"ready_time": ready and NOW + ready * S, "ended_time": NOW + ended * S}
            session_rows.update_session(tx, row, now=NOW, **times)

    await store.write(lives)

    assert await store.read(session_rows.recent_lengths) == [("fake", 7.0), ("fake", 4.0)]


async def test_pending_sessions_are_read_in_pages(store: Store) -> None:
    """In the order of placing, none twice and none left out; those that have been placed meanwhile are skipped."""

    def fill(tx: Transaction) -> None:
        for number in range(40):
            create(tx, priority=number % 3 - 1, now=NOW + timedelta(seconds=number // 4))

    await store.write(fill)
    whole = await store.read(lambda tx: session_rows.pending_page(tx, 99).sessions)
    found: list[PendingSession] = []
    after = None
    while True:
        page = await store.read(partial(session_rows.pending_page, limit=7, after=after))
        assert len(page.sessions) <= 7
        found += page.sessions
        after = page.following
        if after is None:
            break

    assert found == whole
    assert len(found) == 40
    assert [(-row.priority, row.created_time) for row in whole] == sorted((-r.priority, r.created_time) for r in whole)
