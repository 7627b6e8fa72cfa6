"""How far the estimates of waits are from what the waits become, by load: a simulated fleet, in simulated time.

Four nodes of eight GPUs and four of two serve three applications, whose sessions start and last as the profile ``kit``
has it; one needs the larger GPU. Arrivals are random at a share of what the fleet can serve. Each session that waits is
told its estimate when it comes, exactly as the placement loop would; later its wait is known. Beside it: the estimate
as it was before, from the n-th end of any lease by its maximum duration.
"""

from __future__ import annotations

import asyncio
import statistics
from collections import defaultdict, deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

from footlights.v1 import application_pb2

from footlights.control import stored
from footlights.control.scheduling.outlook import History, Outlook, WaitingSession, affected
from footlights.protocol.times import duration
from footlights.scheduler import DeviceView, Index, NodeView, SlotChoice, Wish
from footlights.simulate import profile
from footlights.store.launches.launch_rows import HeldSlots
from tests.bench.figures import Bench, Figure

LOADS = (90, 100, 120)
"""Arrivals, as a percentage of what the fleet serves."""
GIB = 1 << 30
HOURS, WARM_UP_H = 10.0, 3.0
MOST_S = 3600.0
"""The maximum duration of every session."""
APPLICATIONS = {
    "viewer": ({}, 600.0, 6),
    "composer": ({}, 1800.0, 2),
    "large": ({"min_memory_bytes": 80 * GIB}, 900.0, 1),
}
"""What each needs, the median of its sessions' length in seconds, and its weight."""
BEGAN = datetime(2026, 3, 1, tzinfo=UTC)
_REMEMBERED = 1000


@dataclass(slots=True)
class SimulatedSession:
    session_id: str
    application: str
    came: float
    start_s: float
    length_s: float
    choice: SlotChoice | None = None
    placed: float = 0.0
    told: float | None = None
    told_before: float | None = None


async def measure(_directory: Path) -> list[Figure]:
    """Take all figures."""
    return await asyncio.to_thread(lambda: [figure for load in LOADS for figure in _at(load)])


def _at(load: int) -> list[Figure]:
    ended = Simulation(load, seed=load).run()
    real = [(each, each.placed + each.start_s - each.came) for each in ended if each.told is not None]
    errors = [abs(each.told - wait) for each, wait in real if each.told is not None]
    before = [abs(each.told_before - wait) for each, wait in real if each.told_before is not None]
    waits = [wait for _, wait in real]
    if len(real) < 20:
        raise RuntimeError(f"only {len(real)} sessions waited at a load of {load} %")
    where = f"at {load} % load, {len(real)} waits with a median of {statistics.median(waits):.0f} s"
    return [
        Figure(f"wait_error_{load}_s", errors, "s", f"|estimated - real wait|, {where}"),
        Figure(f"wait_error_{load}_p90_s", [_p90(errors)], "s", f"its p90, {where}"),
        Figure(f"wait_error_{load}_before_s", before or [0.0], "s", "the same from the n-th end of any lease"),
        Figure(f"wait_error_{load}_before_p90_s", [_p90(before or [0.0])], "s", "its p90"),
    ]


def _p90(found: list[float]) -> float:
    return sorted(found)[int(0.9 * (len(found) - 1))]


class Simulation:
    """One run: events in simulated time, decisions by the index, estimates by the outlook."""

    def __init__(self, load: int, seed: int, hours: float = HOURS) -> None:
        self._random, self._load, self._hours = Random(seed), load, hours
        self._start = profile.load("kit").start.warm_s
        self._index = Index(_fleet())
        self._slots = sum(device.slots for node in self._index.nodes() for device in node.devices)
        self._events: list[tuple[float, int, SimulatedSession | None]] = []
        self._numbers = count()
        self._waiting: list[SimulatedSession] = []
        self._running: dict[str, SimulatedSession] = {}
        self._lengths: deque[tuple[str, float]] = deque(maxlen=_REMEMBERED)
        self._starts: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_REMEMBERED))
        self._ended: list[SimulatedSession] = []
        packed = application_pb2.Limits(max_duration=duration(MOST_S))
        self._limits = stored.packed_limits(packed)

    def run(self) -> list[SimulatedSession]:
        """Return the sessions that came after the warm-up and have been placed."""
        weights = [weight for _, _, weight in APPLICATIONS.values()]
        held_s = [min(MOST_S, 1.4 * median) for _, median, _ in APPLICATIONS.values()]
        mean_s = sum(map(float.__mul__, map(float, weights), held_s)) / sum(weights)
        every_s = mean_s / (self._slots * self._load / 100)
        self._at(0.0, None)
        while self._events:
            now, _, session = heappop(self._events)
            if session is not None:
                self._end(session, now)
            elif now < self._hours * 3600:
                self._come(now)
                self._at(now + self._random.expovariate(1 / every_s), None)
            self._place(now)
        return self._ended

    def _at(self, when: float, what: SimulatedSession | None) -> None:
        heappush(self._events, (when, next(self._numbers), what))

    def _come(self, now: float) -> None:
        names = list(APPLICATIONS)
        application = self._random.choices(names, [APPLICATIONS[name][2] for name in names])[0]
        median_s = APPLICATIONS[application][1]
        length_s = min(MOST_S, self._random.lognormvariate(0, 0.8) * median_s)
        start_s = self._start.draw(self._random)
        session = SimulatedSession(f"{next(self._numbers):08}", application, now, start_s, length_s)
        self._waiting.append(session)
        self._place(now)
        if session.choice is None and now >= WARM_UP_H * 3600:
            self._tell(session, now)

    def _place(self, now: float) -> None:
        left, refused = [], set()
        for session in self._waiting:
            if session.application not in refused:
                session.choice = self._index.place(_wish(session))
            if session.choice is None:
                refused.add(session.application)
                left.append(session)
                continue
            self._index.confirm(session.choice)
            session.placed = now
            self._running[session.session_id] = session
            self._at(now + session.start_s + session.length_s, session)
        self._waiting = left

    def _end(self, session: SimulatedSession, now: float) -> None:
        assert session.choice is not None
        del self._running[session.session_id]
        self._index.release(session.choice.node, session.choice.device, session.choice.slots)
        self._lengths.append((session.application, now - session.placed - session.start_s))
        self._starts[session.application].append(session.start_s)
        self._ended.append(session)

    def _tell(self, session: SimulatedSession, now: float) -> None:
        lengths: defaultdict[str, list[float]] = defaultdict(list)
        for application, length_s in self._lengths:
            lengths[application].append(length_s)
        starts = {(name, "1"): statistics.median(found) for name, found in self._starts.items()}
        history = History(starts, 0.0, {name: sorted(found) for name, found in lengths.items()})
        held = [_held(each, now, self._limits) for each in self._running.values()]
        outlook = Outlook.of(history, held, self._index.device_name, now=BEGAN + timedelta(seconds=now))
        line = [WaitingSession(each.session_id, _wish(each), each.application, self._limits) for each in self._waiting]
        nodes = affected(self._index, outlook.ends, [], apart=[])
        session.told = outlook.etas(nodes, line).get(session.session_id)
        # As it was: the n-th end of any lease, by its maximum duration, and the median of all starts.
        ends = sorted(each.placed + each.start_s + MOST_S - now for each in self._running.values())
        position = len(self._waiting)
        if position <= len(ends):
            every = [start for found in self._starts.values() for start in found][-50:]
            session.told_before = ends[position - 1] + statistics.median(every)


def _fleet() -> list[NodeView]:
    def device(uuid: str, name: str, memory_gib: int) -> DeviceView:
        memory = memory_gib * GIB
        return DeviceView(uuid, name, "GPU", 1, memory_free_bytes=memory, memory_total_bytes=memory)

    small = [NodeView(f"s{n}", tuple(device(f"s{n}-{i}", "NVIDIA L40S", 48) for i in range(8))) for n in range(4)]
    return [
        *small,
        *[NodeView(f"l{n}", tuple(device(f"l{n}-{i}", "NVIDIA H200", 141) for i in range(2))) for n in range(4)],
    ]


def _wish(session: SimulatedSession) -> Wish:
    needs: Any = APPLICATIONS[session.application][0]
    return Wish(
        session.session_id, "process", application=session.application, application_version="1", gpu=True, **needs
    )


def _held(session: SimulatedSession, now: float, limits: bytes) -> HeldSlots:
    assert session.choice is not None
    ready = session.placed + session.start_s
    return HeldSlots(
        session.session_id,
        session.choice.node,
        session.choice.device,
        session.choice.slots,
        BEGAN + timedelta(seconds=session.placed),
        None,
        False,
        session.application,
        "1",
        limits,
        BEGAN + timedelta(seconds=ready) if ready <= now else None,
    )


BENCH = Bench(
    tuple(f"wait_error_{load}{part}_s" for load in LOADS for part in ("", "_p90", "_before", "_before_p90")), measure
)
