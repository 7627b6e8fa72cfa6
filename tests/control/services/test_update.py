"""Changing a session that has not ended: labels, priority, limits; who may, how far, and who hears of it.

Covers ``sessions.update`` and ``sessions.extend``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from footlights.v1 import application_pb2, session_pb2
from google.protobuf.field_mask_pb2 import FieldMask
from sqlalchemy import update

from footlights import errors
from footlights.store.schema import SESSION
from tests.control.harness import Control, State, control, problem, seconds, version

Limits = application_pb2.Limits


async def _update(
    plane: Control, session_id: str, *paths: str, token: str | None = None, **members: Any
) -> session_pb2.Session:
    request = session_pb2.UpdateSessionRequest(
        session=session_pb2.Session(session_id=session_id, **members), update_mask=FieldMask(paths=paths)
    )
    changed: session_pb2.Session = await plane.call("StreamingService.UpdateSession", request, token)
    return changed


async def _found(plane: Control, label: str) -> list[str]:
    request = session_pb2.ListSessionsRequest(label=[label])
    return [item.session_id for item in (await plane.call("StreamingService.ListSessions", request)).items]


# Labels


async def test_labels_are_replaced_set_and_removed(plane: Control) -> None:
    """All at once or one by one; lists find the session by what it has now."""
    made = await plane.create(labels={"team": "a", "ticket": "7"})

    replaced = await _update(plane, made.session_id, labels={"team": "b", "new": "1"})
    one = await _update(plane, made.session_id, "labels.team", labels={"team": "c"})
    removed = await _update(plane, made.session_id, "labels.new")

    assert dict(replaced.labels) == {"team": "b", "new": "1"}
    assert dict(one.labels) == {"team": "c", "new": "1"}
    assert dict(removed.labels) == {"team": "c"}
    assert await plane.get(made.session_id) == removed
    assert [await _found(plane, label) for label in ("team=a", "ticket=7", "team=b", "new=1")] == [[]] * 4
    assert await _found(plane, "team=c") == [made.session_id]
    assert removed.revision > replaced.revision > made.revision


async def test_labels_on_postgres_are_found_as_they_are_now(replicas: tuple[Control, Control]) -> None:
    """At every replica."""
    one, other = replicas
    made = await one.create(labels={"team": "a", "kept": "1"})

    await _update(one, made.session_id, "labels.team", labels={"team": "b"})

    for plane in (one, other):
        request = session_pb2.ListSessionsRequest(label=["team=b", "kept=1"])
        assert len((await plane.call("StreamingService.ListSessions", request, one.admin)).items) == 1
        request = session_pb2.ListSessionsRequest(label=["team=a"])
        assert not (await plane.call("StreamingService.ListSessions", request, one.admin)).items


async def test_labels_keep_their_bounds(plane: Control) -> None:
    """Also counted together with those that were there."""
    made = await plane.create(labels={f"k{number}": "" for number in range(32)})

    with pytest.raises(errors.InvalidArgument, match="there would be 33"):
        await _update(plane, made.session_id, "labels.more", labels={"more": ""})
    with pytest.raises(errors.InvalidArgument, match="too long or empty"):
        await _update(plane, made.session_id, "labels.k1", labels={"k1": "x" * 257})

    assert await plane.get(made.session_id) == made


# Priority


async def test_a_higher_priority_is_placed_first(plane: Control) -> None:
    """While it waits, by who may give one."""
    first, second = await plane.create(), await plane.create()
    ann = await plane.token()

    changed = await _update(plane, second.session_id, priority=5)
    agent = await plane.agent()
    await plane.place()
    await agent.ready(second.session_id)

    assert changed.priority == 5
    assert (await plane.get(first.session_id)).state == State.PENDING
    with pytest.raises(errors.FailedPrecondition) as caught:
        await _update(plane, second.session_id, priority=6)
    assert (caught.value.reason, caught.value.metadata["state"]) == ("SESSION_NOT_PENDING", "READY")
    mine = await plane.create(ann)
    with pytest.raises(errors.PermissionDenied) as denied:
        await _update(plane, mine.session_id, priority=1, token=ann)
    assert denied.value.metadata["permission"] == "sessions.priority"
    assert (await _update(plane, mine.session_id, priority=-1, token=ann)).priority == -1
    with pytest.raises(errors.InvalidArgument, match="at most 100"):
        await _update(plane, mine.session_id, priority=101)


# Limits


async def _limited(plane: Control, **limits: Any) -> None:
    await plane.apply(version("2.0.0", limits=Limits(**limits)))


async def test_limits_are_lowered_and_raised_within_what_the_version_allows(plane: Control) -> None:
    """And cleared back to it; the agent is told."""
    await _limited(plane, max_duration=seconds(600), idle_timeout=seconds(60))
    agent = await plane.agent()
    made = await plane.running(agent, max_duration=seconds(100))

    lowered = await _update(plane, made.session_id, limits=Limits(idle_timeout=seconds(10)))
    told = await agent.until("assignment")
    raised = await _update(plane, made.session_id, limits=Limits(max_duration=seconds(600)))
    cleared = await _update(plane, made.session_id, "limits.idle_timeout")

    assert (lowered.max_duration, lowered.idle_timeout) == (seconds(100), seconds(10))
    assert told.limits.idle_timeout == seconds(10)
    assert (raised.max_duration, raised.idle_timeout) == (seconds(600), seconds(10))
    assert (cleared.max_duration, cleared.idle_timeout) == (seconds(600), seconds(60))
    for name, above in (
        ("max_duration", Limits(max_duration=seconds(601))),
        ("idle_timeout", Limits(idle_timeout=seconds(61))),
    ):
        with pytest.raises(errors.InvalidArgument) as caught:
            await _update(plane, made.session_id, limits=above)
        assert (caught.value.field, caught.value.reason) == (f"session.limits.{name}", "ABOVE_LIMIT")
    with pytest.raises(errors.InvalidArgument):
        await _update(plane, made.session_id, limits=Limits(idle_timeout=seconds(0)))


async def test_all_limits_are_replaced_together(plane: Control) -> None:
    """What is not named falls back to what the version allows."""
    await _limited(plane, max_duration=seconds(600), idle_timeout=seconds(60))
    made = await plane.create(max_duration=seconds(100), idle_timeout=seconds(10))

    changed = await _update(plane, made.session_id, "limits", limits=Limits(max_duration=seconds(50)))

    assert (changed.max_duration, changed.idle_timeout) == (seconds(50), seconds(60))


async def test_a_lower_maximum_ends_a_session_that_has_run_for_longer(plane: Control) -> None:
    """At its agent's next word; a higher one keeps it."""
    await _limited(plane, max_duration=seconds(600))
    agent = await plane.agent()
    made = await plane.running(agent, max_duration=seconds(60))
    assignment = await agent.assignment(made.session_id)
    await _update(plane, made.session_id, limits=Limits(max_duration=seconds(120)))
    await agent.until("assignment")
    await agent.report(assignment, "READY", ready_for=seconds(119))
    still = (await plane.get(made.session_id)).state

    await _update(plane, made.session_id, limits=Limits(max_duration=seconds(30)))
    await agent.until("assignment")
    await agent.report(assignment, "READY", ready_for=seconds(119.5))

    assert (still, (await plane.get(made.session_id)).state) == (State.READY, State.TERMINATING)


async def test_a_limit_that_nothing_bounds_may_be_unlimited(plane: Control) -> None:
    """One that the version sets may not; some never."""
    await _limited(plane, idle_timeout=seconds(60))
    made = await plane.create(max_duration=seconds(100))

    changed = await _update(plane, made.session_id, limits=Limits(unlimited=["max_duration"]))

    assert not changed.HasField("max_duration")
    for given, field in (
        (Limits(unlimited=["idle_timeout"]), "session.limits.idle_timeout"),
        (Limits(unlimited=["start_timeout"]), "session.limits.unlimited"),
        (Limits(unlimited=["colour"]), "session.limits.unlimited"),
        (Limits(unlimited=["max_duration"], max_duration=seconds(5)), "session.limits.max_duration"),
    ):
        with pytest.raises(errors.InvalidArgument) as caught:
            await _update(plane, made.session_id, limits=given)
        assert caught.value.field == field
    again = await _update(plane, made.session_id, limits=Limits(max_duration=seconds(100)))
    assert again.max_duration == seconds(100)
    assert "max_duration" not in again.limits.unlimited


async def test_a_cleared_limit_is_unlimited_where_nothing_bounds_it(plane: Control) -> None:
    """Also the time in the queue, which its version may leave open."""
    await _limited(plane, unlimited=["queue_timeout"])
    made = await plane.create(limits=Limits(queue_timeout=seconds(60), max_duration=seconds(100)))

    changed = await _update(plane, made.session_id, "limits")

    assert {"queue_timeout", "max_duration"} <= set(changed.limits.unlimited)
    assert not changed.limits.HasField("queue_timeout")
    assert await plane.get(made.session_id) == changed


async def test_a_session_that_waits_may_be_given_more_time_to_wait(plane: Control) -> None:
    """What has begun to count down is counted again from its creation, longer or shorter."""
    await _limited(plane, queue_timeout=seconds(600))
    longer = await plane.create(limits=Limits(queue_timeout=seconds(60)))
    shorter = await plane.create()
    await plane.reap()
    await _update(plane, longer.session_id, limits=Limits(queue_timeout=seconds(300)))
    await _update(plane, shorter.session_id, limits=Limits(queue_timeout=seconds(30)))

    plane.clock.pass_s(61)
    await plane.reap()

    assert (await plane.get(longer.session_id)).state == State.PENDING
    assert (await plane.get(shorter.session_id)).end_reason == session_pb2.Session.QUEUE_TIMEOUT


async def test_a_session_of_an_older_server_keeps_what_is_known_to_be_allowed(plane: Control) -> None:
    """How far it may be extended; its other limits may be lowered."""
    await _limited(plane, max_duration=seconds(600), idle_timeout=seconds(60))
    made = await plane.create(max_duration=seconds(100), idle_timeout=seconds(30))
    await plane.store.write(lambda tx: tx.changed(update(SESSION).values(allowed_limits=None)))

    changed = await _update(plane, made.session_id, limits=Limits(max_duration=seconds(600), idle_timeout=seconds(20)))

    assert (changed.max_duration, changed.idle_timeout) == (seconds(600), seconds(20))
    with pytest.raises(errors.InvalidArgument):
        await _update(plane, made.session_id, limits=Limits(max_duration=seconds(601)))


# Whatever is changed


async def test_what_has_ended_or_is_ending_cannot_be_changed(plane: Control) -> None:
    """Nor extended."""
    agent = await plane.agent()
    made = await plane.running(agent)
    await plane.terminate(made.session_id)

    with pytest.raises(errors.FailedPrecondition) as caught:
        await _update(plane, made.session_id, labels={"a": "b"})

    assert caught.value.reason == "SESSION_ENDED"
    assert caught.value.metadata == {"session_id": made.session_id, "state": "TERMINATING"}


async def test_a_change_that_changes_nothing_is_answered_and_no_change(plane: Control) -> None:
    """The revision stays, and with it the etag."""
    made = await plane.create(labels={"a": "b"})

    same = await _update(plane, made.session_id, labels={"a": "b"})
    nothing = await _update(plane, made.session_id)

    assert same == nothing == await plane.get(made.session_id)
    assert same.revision == made.revision


async def test_other_users_sessions_are_not_there(plane: Control) -> None:
    """As for every other call."""
    theirs = await plane.create(await plane.token(subject="bob"))

    with pytest.raises(errors.NotFound):
        await _update(plane, theirs.session_id, labels={"a": "b"}, token=await plane.token(subject="ann"))


async def test_over_rest_the_mask_is_what_the_body_has(plane: Control) -> None:
    """Or what the query names; a member that only answers have is passed over, and refused where it is named."""
    made = await plane.create(labels={"team": "a"}, priority=3)
    path = f"/v1/sessions/{made.session_id}"

    lowered = await plane.rest("PATCH", path, json={"priority": 0})
    cleared = await plane.rest("PATCH", path, params={"update_mask": "labels.team"}, json={})
    passed = await plane.rest("PATCH", path, json={"username": "bob"})
    refused = await plane.rest("PATCH", path, params={"update_mask": "username"}, json={"username": "bob"})

    assert (passed.status_code, passed.json()["username"]) == (200, made.username)
    assert (lowered.status_code, lowered.json()["priority"]) == (200, 0)
    assert (cleared.status_code, cleared.json()["labels"]) == (200, {})
    assert refused.status_code == 400
    assert (problem(refused)["field"], problem(refused)["reason"]) == ("update_mask", "FIELD_IMMUTABLE")
    assert "'username' cannot be changed" in problem(refused)["message"]


async def test_an_installation_has_defaults_and_caps_of_its_own(tmp_path: Path, migrated: Path) -> None:
    """Defaults where nothing is set; caps over all that is, which the session names; nothing may ask for more."""
    settings: dict[str, Any] = {
        "limit_defaults": ("idle_timeout=10m, queue_timeout=90",),
        "limit_caps": ("max_duration=1h,idle_timeout=30m", "start_timeout=20m"),
    }
    async with control(tmp_path, migrated, **settings) as plane:
        await plane.apply()
        plain = await plane.create()
        await plane.apply(version("2.0.0", limits=Limits(max_duration=seconds(7200), unlimited=["idle_timeout"])))
        capped = await plane.create()
        less = await plane.create(limits=Limits(max_duration=seconds(60)))
        with pytest.raises(
            errors.InvalidArgument, match="unlimited is more than the 3600s that the installation allows"
        ):
            await plane.create(limits=Limits(unlimited=["max_duration"]))
        longer = session_pb2.ExtendSessionRequest(session_id=less.session_id, extend_by=seconds(3600))
        with pytest.raises(errors.InvalidArgument, match="allows 3600s"):
            await plane.call("StreamingService.ExtendSession", longer)
        restored = await _update(plane, less.session_id, "limits.max_duration")

    assert (plain.limits.idle_timeout, plain.limits.queue_timeout) == (seconds(600), seconds(90))
    assert (plain.limits.start_timeout, plain.limits.max_duration) == (seconds(900), seconds(3600))
    assert list(plain.limits.capped) == ["max_duration"]
    assert (capped.limits.max_duration, capped.limits.idle_timeout) == (seconds(3600), seconds(1800))
    assert list(capped.limits.capped) == ["idle_timeout", "max_duration"]
    assert (less.limits.max_duration, list(less.limits.capped)) == (seconds(60), ["idle_timeout"])
    assert (restored.limits.max_duration, list(restored.limits.capped)) == (
        seconds(3600),
        ["idle_timeout", "max_duration"],
    )
