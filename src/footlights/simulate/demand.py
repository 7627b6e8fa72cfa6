"""The service that asks for sessions: creates them at their drawn times, follows them, and ends them."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from footlights.errors import Error, NotFound, Unavailable
from footlights.protocol import enums
from footlights.protocol.times import duration, unix_seconds
from footlights.simulate.fleet import AT_ONCE, LABEL
from footlights.simulate.node import NUMBER
from footlights.simulate.tally import Tally
from footlights.v1 import application_pb2, session_pb2

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from footlights.client import Client
    from footlights.simulate.model import Model, SimulatedArrival
    from footlights.simulate.profile import SimulatedApplication

_MOST_UNDER_WAY: Final = 2000
"""How many creations may wait for their answer; more are not sent, and counted."""
_CREATE_S: Final = 30.0
_SETTLE_S: Final = 90.0
_AGAIN_S: Final = 1.0
_PAGE: Final = 1000
_STATES: Final = session_pb2.Session.State
_OVER: Final = frozenset({_STATES.TERMINATED, _STATES.FAILED})
_READY: Final = frozenset({_STATES.READY, _STATES.ACTIVE})


@dataclass(slots=True)
class _Owned:
    """A session that the control plane has acknowledged."""

    arrival: SimulatedArrival
    state: session_pb2.Session.State.ValueType = session_pb2.Session.PENDING
    ending: bool = False
    timer: asyncio.TimerHandle | None = None


class Demand:
    """One simulation's sessions."""

    def __init__(self, model: Model, clients: Sequence[Client], run: str) -> None:
        self._model, self._clients, self._run = model, clients, run
        self._username = f"simulation-{run}"
        self._owned: dict[str, _Owned] = {}
        self._states: Counter[str] = Counter()
        self._early: dict[str, session_pb2.Session] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._following: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._stopping = False
        self.tally = Tally()
        self.lost: list[str] = []

    @property
    def states(self) -> Counter[str]:
        """How many sessions are in each state, as last reported."""
        return +self._states

    @property
    def acknowledged(self) -> int:
        """How many sessions the control plane has said it took."""
        return len(self._owned)

    async def register(self) -> None:
        """Register the profile's applications; again is the same. Raises footlights.errors.Error."""
        for application in self._model.profile.applications:
            await self._clients[0].applications.apply(_manifest(application, self._run))

    def follow(self) -> None:
        """Begin to follow the sessions' states; ``close`` ends it."""
        self._following = asyncio.create_task(self._follow(), name="follow sessions")

    async def run(self, per_s: float, duration_s: float) -> None:
        """Ask for sessions at their times, ``duration_s`` seconds long: late answers delay nothing."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        for arrival in self._model.arrivals(per_s):
            if arrival.at_s > duration_s:
                break
            if (left := began + arrival.at_s - loop.time()) > 0:
                await asyncio.sleep(left)
            if len(self._tasks) >= _MOST_UNDER_WAY:
                self.tally.count("not_sent")
                continue
            self._spawn(self._create(arrival))
        if duration_s < math.inf:
            await asyncio.sleep(max(0.0, began + duration_s - loop.time()))
        elif per_s == 0:
            await asyncio.Event().wait()

    async def settle(self, *, end: bool) -> None:
        """Wait for the answers that are under way; with ``end``, end every session and wait until all are over."""
        self._stopping = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_CREATE_S)
        if not end:
            return
        room = asyncio.Semaphore(AT_ONCE)

        async def one(session_id: str) -> None:
            async with room:
                await self._terminate(session_id)

        with suppress(TimeoutError):
            async with asyncio.timeout(_SETTLE_S):
                await asyncio.gather(*(one(key) for key, each in self._owned.items() if each.state not in _OVER))
                while any(each.state not in _OVER for each in self._owned.values()):
                    self._changed.clear()
                    await self._changed.wait()

    async def audit(self) -> None:
        """Compare what was acknowledged with what the control plane has; fills ``lost``. Raises errors.Error."""
        known: dict[str, session_pb2.Session.State.ValueType] = {}
        request = session_pb2.ListSessionsRequest(username=self._username, limit=_PAGE, state=_STATES.values()[1:])
        while True:
            page = await self._clients[0].sessions.list(request)
            known.update((session.session_id, session.state) for session in page.items)
            for session in page.items:
                self._time(session)
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
        self.lost = sorted(set(self._owned) - set(known))
        self.tally.count("unanswered_but_created", len(set(known) - set(self._owned)))
        self._states = Counter(
            enums.name_of(_STATES, state) for session_id, state in known.items() if session_id in self._owned
        )

    async def close(self) -> None:
        """Stop following and forget the timers."""
        for owned in self._owned.values():
            if owned.timer is not None:
                owned.timer.cancel()
        left = [*self._tasks, *([self._following] if self._following else [])]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    # One session's way

    async def _create(self, arrival: SimulatedArrival) -> None:
        request = session_pb2.CreateSessionRequest(
            application=arrival.application,
            application_version=_version(self._run),
            username=self._username,
            request_id=f"{self._run}-{arrival.number}",
        )
        request.application_arguments.update({NUMBER: arrival.number})
        self.tally.count("asked")
        began = time.perf_counter()
        try:
            session = await self._ask(arrival.number, request)
        except Error as error:
            self.tally.count(f"error {error.reason}")
            return
        self.tally.time("create_s", time.perf_counter() - began)
        owned = self._owned[session.session_id] = _Owned(arrival)
        self._states["PENDING"] += 1
        self._rearm(session.session_id, owned, arrival.patience_s)
        self._note(self._early.pop(session.session_id, session))

    async def _ask(self, number: int, request: session_pb2.CreateSessionRequest) -> session_pb2.Session:
        """Ask one server, and then the others: the request's id makes it one session."""
        count = len(self._clients)
        for turn in range(count - 1):
            try:
                return await self._clients[(number + turn) % count].sessions.create(request, timeout_s=_CREATE_S)
            except Unavailable:
                self.tally.count("asked_elsewhere")
        return await self._clients[(number + count - 1) % count].sessions.create(request, timeout_s=_CREATE_S)

    async def _terminate(self, session_id: str) -> None:
        owned = self._owned[session_id]
        if owned.state in _OVER or owned.ending:
            return
        owned.ending = True
        for turn in range(len(self._clients) + 2):
            try:
                await self._clients[(owned.arrival.number + turn) % len(self._clients)].sessions.terminate(session_id)
            except NotFound:
                return  # the audit says so
            except Error as error:
                self.tally.count(f"error {error.reason}")
                await asyncio.sleep(_AGAIN_S)
            else:
                return
        owned.ending = False

    def _rearm(self, session_id: str, owned: _Owned, after_s: float) -> None:
        if owned.timer is not None:
            owned.timer.cancel()
            owned.timer = None
        if after_s < math.inf:
            loop = asyncio.get_running_loop()
            owned.timer = loop.call_later(after_s, lambda: self._spawn(self._terminate(session_id)))

    def _note(self, session: session_pb2.Session) -> None:
        owned = self._owned.get(session.session_id)
        if owned is None:
            # Told before the answer to its creation came; or that answer was lost.
            self._early[session.session_id] = session
            return
        before, owned.state = owned.state, session.state
        self._states[enums.name_of(_STATES, before)] -= 1
        self._states[enums.name_of(_STATES, session.state)] += 1
        if session.state in _READY and before not in _READY and not owned.ending:
            self._rearm(session.session_id, owned, owned.arrival.length_s)
        if session.state in _OVER and before not in _OVER:
            self._rearm(session.session_id, owned, math.inf)
            reason = enums.name_of(session_pb2.Session.EndReason, session.end_reason)
            self.tally.count(f"ended {reason}")
            self._changed.set()

    def _time(self, session: session_pb2.Session) -> None:
        """Time its way by the control plane's own clock, which wrote both ends."""
        reached = {milestone.stage: milestone.time for milestone in session.timeline}
        created = unix_seconds(session.created_time)
        for stage, name in (
            (session_pb2.Session.Milestone.PLACED, "placed_s"),
            (session_pb2.Session.Milestone.APPLICATION_READY, "ready_s"),
        ):
            if stage in reached:
                self.tally.time(name, unix_seconds(reached[stage]) - created)

    async def _follow(self) -> None:
        request = session_pb2.WatchSessionsRequest(username=self._username)
        for turn in range(1_000_000):
            client = self._clients[turn % len(self._clients)]
            try:
                async for session in client.sessions.watch_all(request):
                    request.after_revision = max(request.after_revision, session.revision)
                    self._note(session)
            except Error:
                self.tally.count("watch_restarted")
            await asyncio.sleep(_AGAIN_S)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _manifest(application: SimulatedApplication, run: str) -> application_pb2.ApplyApplicationRequest:
    limits = application_pb2.Limits(
        start_timeout=duration(application.start_timeout_s),
        never_connected_timeout=duration(application.never_connected_s),
        idle_timeout=duration(application.idle_s),
        max_duration=duration(application.max_s),
    )
    needs = application_pb2.Needs(
        slots=application.slots, min_memory_bytes=int(application.memory_gib * (1 << 30)), node_labels={LABEL: run}
    )
    version = application_pb2.Version(
        version=_version(run),
        description="Runs nothing: a launch of it does what the profile of its simulation says.",
        fake=application_pb2.FakeBehavior(),
        needs=needs,
        limits=limits,
        arguments=[application_pb2.Argument(name=NUMBER, type=application_pb2.Argument.INTEGER)],
    )
    return application_pb2.ApplyApplicationRequest(
        application=application_pb2.Application(application=application.name, display_name="Simulated"),
        versions=[version],
    )


def _version(run: str) -> str:
    """Each simulation's own: it can only be placed on its own nodes."""
    return f"1.0.0-r{run}"
