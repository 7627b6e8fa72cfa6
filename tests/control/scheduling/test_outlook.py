"""Estimates of waits: from the leases that could serve, at the ends that were measured or declared."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

import pytest
from footlights.v1 import application_pb2, node_pb2

from footlights.control import stored
from footlights.control.scheduling.outlook import History, Outlook, WaitingSession
from footlights.store.launches.launch_rows import HeldSlots
from tests.bench import waits
from tests.control.harness import Control, gpu, inventory, seconds, version
from tests.scheduler.fleets import device, node, wish

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
Limits, Needs = application_pb2.Limits, application_pb2.Needs
LENGTHS = {"app": [60.0, 120.0, 180.0, 240.0, 300.0, 360.0, 420.0, 480.0, 540.0, 600.0]}


def held(number: int, *, ran_s: float | None = 0.0, most_s: float | None = None, **members: Any) -> HeldSlots:
    """A lease of a session that became ready so long ago; None: not yet."""
    limits = Limits(stop_grace_period=seconds(10), unlimited=["max_duration"] if most_s is None else [])
    if most_s is not None:
        limits.max_duration.CopyFrom(seconds(most_s))
    known: dict[str, Any] = {
        "launch_id": f"{number:04}",
        "node": "a",
        "device": f"{number:04}",
        "slots": [0],
        "created_time": NOW,
        "ending_time": None,
        "overdue": False,
        "application": "app",
        "application_version": "1",
        "limits": stored.packed_limits(limits),
        "ready_time": None if ran_s is None else NOW - timedelta(seconds=ran_s),
    }
    return HeldSlots(**(known | members))


def ends(history: History, *leases: HeldSlots) -> list[float]:
    outlook = Outlook.of(history, leases, lambda _node, _device: "gpu", now=NOW)
    return [end.in_s for end in outlook.ends]


def test_a_lease_ends_when_sessions_of_its_application_usually_do() -> None:
    """At half of those that lasted longer than it has; at its maximum duration where that is earlier."""
    history = History(lengths=LENGTHS)

    assert ends(history, held(0)) == [360]
    assert ends(history, held(0, ran_s=300)) == [180]
    assert ends(history, held(0, most_s=100)) == [100]


def test_without_enough_measured_it_ends_at_its_maximum_duration_or_nobody_knows() -> None:
    """Four sessions are too few, and so is a rest of four that lasted longer."""
    few = History(lengths={"app": LENGTHS["app"][:4]})

    assert ends(few, held(0, ran_s=40, most_s=100)) == [60]
    assert ends(few, held(0)) == []
    assert ends(History(lengths=LENGTHS), held(0, ran_s=430), held(1, ran_s=700, most_s=800)) == [100]


def test_of_many_leases_some_end_early_and_some_late() -> None:
    """As sessions do: the first of ten is expected at the tenth part of the lengths, not at their median."""
    found = ends(History(lengths=LENGTHS), *[held(number) for number in range(10)])

    assert found == LENGTHS["app"]


def test_a_lease_that_is_not_ready_or_is_ending() -> None:
    """What is left of its start counts as well; a stop takes its grace at the most; an overdue one has no end."""
    history = History(starts={("app", "1"): 30.0}, start_s=5.0, lengths=LENGTHS)
    starting = held(0, ran_s=None, created_time=NOW - timedelta(seconds=10))
    stopping = held(1, ending_time=NOW - timedelta(seconds=4))

    assert ends(history, starting) == [20 + 360]
    assert ends(history, stopping) == [6]
    assert ends(history, held(2, overdue=True)) == []


def test_the_start_of_the_version_counts_or_that_of_all() -> None:
    """An estimate is until READY."""
    history = History(starts={("app", "1"): 30.0}, start_s=5.0, lengths=LENGTHS)
    nodes = [node("a", device("0000", leased=frozenset({0})), device("0001", leased=frozenset({0})))]
    outlook = Outlook.of(history, [held(0, most_s=10), held(1, most_s=20)], lambda _node, _device: "gpu", now=NOW)
    waiting = [
        WaitingSession(name, wish(application="app", application_version=name), name, held(0).limits) for name in "12"
    ]

    assert outlook.etas(nodes, waiting) == {"1": 40, "2": 25}


async def test_a_wish_for_a_gpu_is_told_the_end_of_the_lease_that_it_waits_for(plane: Control) -> None:
    """Not that of sessions on other devices, which it had; explain says the same."""
    await plane.apply(version(limits=Limits(max_duration=seconds(120))), application="small")
    await plane.apply(version(limits=Limits(max_duration=seconds(3600)), needs=Needs(gpu=True)), application="large")
    agent = await plane.agent(
        "node-a", gpu("GPU"), gpu("S", name="Software renderer", kind=node_pb2.Device.SOFTWARE, slots=4)
    )
    for application in ("large", *["small"] * 4):
        await plane.running(agent, application=application)
    large, small = await plane.create(application="large"), await plane.create(application="small")
    await plane.place()

    told = [(await plane.get(each.session_id)).queue.estimated_wait_duration.seconds for each in (large, small)]
    explained = await plane.rest("POST", "/stream:explain", json={"application": "large"})

    assert told == [pytest.approx(3600, abs=5), pytest.approx(120, abs=5)]
    assert explained.json()["eta"] is None, "of who holds the GPU after the first one nothing is known"


async def test_what_was_measured_is_told(plane: Control) -> None:
    """Sessions of ten minutes have run for a hundred seconds each: so one that waits is told so, with those behind."""
    await plane.apply(version("2.0.0", limits=Limits(max_duration=seconds(600))))
    agent = await plane.agent()
    for _ in range(6):
        running = await plane.running(agent)
        plane.clock.pass_s(100)
        await agent.report(await agent.assignment(running.session_id), "EXITED", exit_code=0)
    await plane.running(agent)
    waiting = [await plane.create() for _ in range(3)]
    await plane.place()

    told = [(await plane.get(each.session_id)).queue.estimated_wait_duration.seconds for each in waiting]
    explained = (await plane.rest("POST", "/stream:explain", json={"application": "fake"})).json()

    assert told == [pytest.approx(100 * number, rel=0.1) for number in (1, 2, 3)]
    assert float(explained["eta"].removesuffix("s")) == pytest.approx(400, rel=0.1)


async def test_the_end_of_a_refusal_is_told(plane: Control) -> None:
    """The device is offered to the session again after half a minute, of which ten seconds are over."""
    agent = await plane.agent()
    made = await plane.create()
    await plane.place()
    await agent.report(await agent.assignment(made.session_id), "REJECTED", reason="FOREIGN_PROCESS")
    plane.clock.pass_s(10)
    await plane.place()

    queue = (await plane.get(made.session_id)).queue

    assert [each.reason for each in queue.wait_reasons] == ["REFUSED"]
    assert queue.estimated_wait_duration.seconds == 20


async def test_the_end_of_a_quarantine_is_told(plane: Control) -> None:
    """A device that came and went is taken again when it stays well: the first that waits is told so, and no other."""
    agent = await plane.agent()
    for _ in range(3):
        lost = [node_pb2.Device.HealthReason(reason="GPU_IS_LOST", message="it fell off the bus")]
        for reading in (gpu(health=node_pb2.Device.LOST, health_reasons=lost), gpu()):
            await agent.say(inventory=inventory(reading))
            await agent.settled()
        plane.clock.pass_s(60)
    made = await plane.create()
    await plane.place()

    queue = (await plane.get(made.session_id)).queue
    explained = (await plane.rest("POST", "/stream:explain", json={"application": "fake"})).json()

    assert [each.reason for each in queue.wait_reasons] == ["QUARANTINED"]
    assert queue.estimated_wait_duration.seconds == 60
    assert explained["eta"] is None, "of how long the one before it will keep the device nothing is known"


def test_estimates_are_near_to_what_waits_become() -> None:
    """In a simulated fleet at full load: half of them within a third of the usual wait, far nearer than maxima are."""
    ended = [each for each in waits.Simulation(100, seed=3, hours=5).run() if each.told is not None]
    real = [each.placed + each.start_s - each.came for each in ended]
    errors = [abs(each.told - wait) for each, wait in zip(ended, real, strict=True) if each.told is not None]
    before = [
        abs(each.told_before - wait) for each, wait in zip(ended, real, strict=True) if each.told_before is not None
    ]

    assert len(errors) > 30
    assert median(errors) < median(real) / 3
    assert median(errors) < median(before) / 5
