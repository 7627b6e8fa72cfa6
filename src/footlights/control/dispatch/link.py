"""One agent's link: what was said over it, what is to be said next, and whether it is still heard.

A link owns its protocol. It is GREETING until its hello is recorded, then its agent is sent the FULL_SET of
assignments, and from then on, LIVE, what changes. Once CLOSED it stays so.
"""

from __future__ import annotations

import asyncio
import enum
import time
from collections import deque
from datetime import datetime
from typing import TYPE_CHECKING, Any

from footlights import errors, ids
from footlights.agent.v1 import agent_pb2
from footlights.control.dispatch import rates
from footlights.control.dispatch.rates import Rate
from footlights.lifecycle import SessionClock, due
from footlights.protocol import handshake, parts, times

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from footlights.agent.v1 import certificate_pb2
    from footlights.control.dispatch.assignments import LaunchAssignment
    from footlights.lifecycle import TimeLimits

Fingerprint = tuple[str, int, bytes, datetime | None, datetime | None]
"""What an assignment follows from that may change while its launch lives."""

MAX_UNSENT = 1000
"""Messages that wait for one agent; one that does not take them is closed."""

GOODBYE_S = 1.0
"""How long an agent has to take the reason for which its link ends."""

LAST_WORDS_S = 0.25
"""Where this process stood still, the last words of a dead agent and its end are read together: wait for both."""


class LinkState(enum.Enum):
    """How far a link has come."""

    GREETING = enum.auto()
    FULL_SET = enum.auto()
    LIVE = enum.auto()
    CLOSED = enum.auto()


class AgentLink:
    """One agent's open stream. Thousands are open, so it holds as little as can be while nothing is said.

    Tasks and queues exist only while there is something to send, events only while a caller waits for them.
    """

    __slots__ = (
        "_bytes",
        "_carried",
        "_changed",
        "_close_reason",
        "_closed",
        "_farewell",
        "_holder",
        "_inventories",
        "_known",
        "_limits",
        "_messages",
        "_monotonic",
        "_outbox",
        "_part_bytes",
        "_reported",
        "_spoken",
        "_state",
        "_told",
        "_touched",
        "_write",
        "_writer",
        "epoch",
        "features",
        "incarnation",
        "interval_s",
        "knows_bounds",
        "node",
        "peer",
    )

    def __init__(
        self,
        node: str,
        incarnation: str,
        epoch: int,
        known: set[str],
        *,
        peer: str = "inproc:",
        protocol: agent_pb2.Protocol | None = None,
        interval_s: float = 5.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.node, self.incarnation, self.epoch = node, incarnation, epoch
        self.knows_bounds = protocol is not None and bool(protocol.features)
        protocol = protocol or agent_pb2.Protocol()
        self.features = features = handshake.shared(protocol)
        self._part_bytes = handshake.part_bytes(protocol)
        self.peer, self.interval_s = peer, interval_s
        self._monotonic = monotonic
        self._touched = monotonic()
        self._messages, self._bytes, self._inventories = Rate(monotonic), Rate(monotonic), Rate(monotonic)
        self._state = LinkState.GREETING
        self._close_reason: Exception | None = None
        self._known = known
        self._told: dict[str, Fingerprint] = {}
        """By launch, what the assignment that the agent has follows from."""
        self._limits: dict[str, TimeLimits] = {}
        self._reported: dict[str, bytes] = {}
        """The last report of each launch without its durations."""
        self._changed = False
        """Whether assignments have changed before it was live."""
        self._outbox: deque[agent_pb2.LinkResponse] | None = None
        self._write: Callable[[agent_pb2.LinkResponse], Awaitable[None]] | None = None
        self._writer: asyncio.Task[None] | None = None
        self._holder: asyncio.Task[Any] | None = None
        self._carried = parts.CarriedRecipes() if handshake.RECIPES in features else None
        self._farewell: tuple[agent_pb2.LinkResponse, ...] = ()
        self._closed: asyncio.Event | None = None
        self._spoken: asyncio.Event | None = None

    # Its life

    @property
    def state(self) -> LinkState:
        """How far it has come."""
        return self._state

    @property
    def close_reason(self) -> Exception | None:
        """Why it was closed, for the agent; None where the agent itself ended it."""
        return self._close_reason

    async def hold(
        self, write: Callable[[agent_pb2.LinkResponse], Awaitable[None]], listen: Callable[[], Awaitable[object]]
    ) -> None:
        """Send with ``write`` what is queued, until ``listen`` returns or the link is closed.

        Raises the close reason, where there is one.
        """
        task = asyncio.current_task()
        assert task is not None
        self._write, self._holder = write, task
        self._start_writer()
        try:
            if self._state is not LinkState.CLOSED:
                await listen()
        except asyncio.CancelledError:
            # Cancelled by `close`, unless the stream itself is gone.
            if self._state is not LinkState.CLOSED or task.uncancel():
                raise
        finally:
            self._holder = None
            await self._part()
        if self._close_reason is not None:
            raise self._close_reason

    def close(self, reason: Exception | None = None) -> None:
        """Close it, for a reason that the agent is told; the first reason stays."""
        if self._state is LinkState.CLOSED:
            return
        self._state, self._close_reason = LinkState.CLOSED, reason
        if isinstance(reason, errors.Error):
            self.prepare_goodbye(reason)
        if self._holder is not None:
            self._holder.cancel()
        if self._closed is not None:
            self._closed.set()

    def prepare_goodbye(self, reason: errors.Error, redirect: Sequence[str] = ()) -> None:
        """Have the agent told at the end why its link ends, and which addresses it is to dial instead."""
        said: list[agent_pb2.LinkResponse] = []
        if redirect and handshake.REDIRECT in self.features:
            said.append(agent_pb2.LinkResponse(redirect=agent_pb2.Redirect(addresses=redirect)))
        if handshake.GOODBYE in self.features:
            goodbye = agent_pb2.Goodbye(reason=reason.reason, message=reason.message)
            said.append(agent_pb2.LinkResponse(goodbye=goodbye))
        self._farewell = tuple(said)

    async def _part(self) -> None:
        """Say goodbye, where the agent is to be told something and reads; nothing else that waits is sent."""
        if self._farewell and self._write is not None:
            self._outbox = deque(self._farewell)
            self._start_writer()
            assert self._writer is not None
            await asyncio.wait({self._writer}, timeout=GOODBYE_S)
        self._write = None
        if self._writer is not None:
            self._writer.cancel()

    def closed(self) -> asyncio.Event:
        """Return what is set once it is closed."""
        if self._closed is None:
            self._closed = asyncio.Event()
            if self._state is LinkState.CLOSED:
                self._closed.set()
        return self._closed

    # Being heard

    def touch(self) -> None:
        """Note that it was heard at this moment."""
        if self._spoken is not None:
            self._spoken.set()
            self._spoken = None
        self._touched = self._monotonic()

    def silent_for(self) -> float:
        """Return for how many seconds nothing was heard."""
        return self._monotonic() - self._touched

    def take_message(self, size: int) -> float:
        """Count a message of so many bytes; return for how many seconds nothing more is to be read."""
        return max(self._messages.take(1, rates.MESSAGES), self._bytes.take(size, rates.BYTES))

    def take_inventory(self) -> float:
        """Count an inventory; return for how many seconds it is to wait."""
        return self._inventories.take(1, rates.INVENTORIES)

    async def responds(self, timeout_s: float) -> bool:
        """Ask the agent something and say whether it is alive: it says anything in time, and does not close.

        It is asked for a log that does not exist, which it answers at once: its next heartbeat need not be awaited.
        """
        self._spoken = self._spoken or asyncio.Event()
        spoken, closed = self._spoken, self.closed()
        self.send(agent_pb2.LinkResponse(log_request=agent_pb2.LogRequest(request_id=ids.new_id())))
        waits = asyncio.ensure_future(spoken.wait()), asyncio.ensure_future(closed.wait())
        try:
            await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if spoken.is_set():
                await asyncio.wait(waits[1:], timeout=LAST_WORDS_S)
        finally:
            for wait in waits:
                wait.cancel()
        return spoken.is_set() and not closed.is_set()

    # Assignments

    def begin_full_set(self) -> None:
        """Note that the hello is recorded: the full set is next."""
        if self._state is LinkState.GREETING:
            self._state = LinkState.FULL_SET

    def full_set(
        self, running: Mapping[str, Fingerprint], found: Mapping[str, LaunchAssignment]
    ) -> list[agent_pb2.LinkResponse]:
        """Return all that the node is to run, as the agent is to be told it; from now on it is told what changes.

        ``running`` is what all assignments of the node follow from; one that ``found`` lacks could not be made.
        """
        fresh = self._take(running, found)
        if self._state is not LinkState.CLOSED:
            self._state = LinkState.LIVE
        if handshake.PARTS not in self.features:
            return list(parts.former_set([launch.whole() for launch in fresh]))
        carried = self._carried
        named = [(launch.whole(), None) if carried is None else (launch.named(), launch.recipe) for launch in fresh]
        carried = carried or parts.CarriedRecipes()
        return list(parts.assignment_parts(named, carried, part_bytes=self._part_bytes))

    def offer(self, running: Mapping[str, Fingerprint], found: Mapping[str, LaunchAssignment]) -> None:
        """Tell the agent what it was not told yet of what its node is to run; arguments as in ``full_set``."""
        for launch in self._take(running, found):
            if not self._assign(launch):
                self.close(
                    errors.Unavailable("The agent does not read what it is sent.", reason=errors.Reason.LINK_SLOW)
                )

    def offer_new(self, launch: LaunchAssignment, fingerprint: Fingerprint) -> bool:
        """Tell the agent of one launch that was just begun; False where that has to wait for the assignment sender."""
        if self._state is not LinkState.LIVE:
            return False
        launch_id = launch.message.launch_id
        if launch_id in self._known:
            # It was told already, and what was told since may be newer.
            return True
        if not self._assign(launch):
            return False
        self._known.add(launch_id)
        self._limits[launch_id] = launch.limits
        self._told[launch_id] = fingerprint
        return True

    def outdated(self, running: Mapping[str, Fingerprint]) -> list[str]:
        """Return which of these launches the agent was not told in this form."""
        return [launch_id for launch_id, fingerprint in running.items() if self._told.get(launch_id) != fingerprint]

    def was_told(self, running: Mapping[str, Fingerprint]) -> bool:
        """Say whether the agent was told exactly this."""
        return self._told == running

    def knows(self, launch_id: str) -> bool:
        """Say whether the agent knows a launch."""
        return launch_id in self._known

    def note_change(self) -> bool:
        """Note that assignments have changed; False where it is not live yet, and is looked at when it is."""
        if self._state is LinkState.LIVE:
            return True
        self._changed = True
        return False

    @property
    def changed_early(self) -> bool:
        """Whether assignments changed before it was live."""
        return self._changed

    def _take(
        self, running: Mapping[str, Fingerprint], found: Mapping[str, LaunchAssignment]
    ) -> list[LaunchAssignment]:
        """Note what the node is to run, and return what the agent was not told yet."""
        fresh, told = [], {}
        for launch_id, fingerprint in running.items():
            if self._told.get(launch_id) == fingerprint:
                told[launch_id] = fingerprint
                continue
            launch = found.get(launch_id)
            if launch is None:
                continue
            told[launch_id] = fingerprint
            self._limits[launch_id] = launch.limits
            if launch_id not in self._known:
                if launch.state == "ASSIGNED":
                    self._known.add(launch_id)
                else:
                    # It was begun over an earlier link and the agent does not know it: it must not begin a second time.
                    launch = launch.stopped()
            fresh.append(launch)
        self._told = told
        for launch_id in self._limits.keys() - running.keys():
            del self._limits[launch_id]
        return fresh

    # Reports

    def accept(self, report: agent_pb2.LaunchReport) -> bool:
        """Take a report; False where it says no more than the last one of its launch, and no time limit is over."""
        bare = agent_pb2.LaunchReport()
        bare.CopyFrom(report)
        for name in ("ready_for", "idle_for", "starting_for", "unwatched_for", "unanswered_for"):
            bare.ClearField(name)
        for step in bare.steps:
            step.ClearField("age")
        text = bare.SerializeToString(deterministic=True)
        bounds = self._limits.get(report.launch_id)
        expired = bounds is not None and report.state == report.READY and due(session_clock(report), bounds) is not None
        if self._reported.get(report.launch_id) == text and not expired:
            return False
        self._reported[report.launch_id] = text
        return True

    def expects(self, launch_id: str) -> bool:
        """Say whether a report of a launch may be this node's: it is assigned to it, or its agent named it at first."""
        return launch_id in self._known or launch_id in self._told

    def disown(self, launch_id: str) -> None:
        """Note that a launch is not the node's, or is over for good: what the agent says of it counts no more."""
        self._known.discard(launch_id)
        self.expect_again(launch_id)

    def expect_again(self, launch_id: str) -> None:
        """Accept the next report of a launch whatever it says."""
        self._reported.pop(launch_id, None)

    def retry(self, launch_id: str) -> None:
        """Have the agent told of a launch again, and accept what it then reports: its last report was lost here."""
        self._told.pop(launch_id, None)
        self.expect_again(launch_id)

    # Sending

    def send(self, *messages: agent_pb2.LinkResponse) -> bool:
        """Queue messages, all or none; False where the agent does not keep up."""
        if self._outbox is None:
            self._outbox = deque()
        if len(self._outbox) + len(messages) > MAX_UNSENT:
            return False
        self._outbox.extend(messages)
        self._start_writer()
        return True

    def send_certificate(self, certificate: certificate_pb2.Certificate) -> None:
        """Give the agent another certificate; where much waits already, it asks again."""
        self.send(agent_pb2.LinkResponse(certificate=certificate))

    def forget(self, launch_id: str) -> None:
        """Let the agent forget a launch that is over; where much waits already, when it reports that again."""
        if self._outbox is None or len(self._outbox) < MAX_UNSENT // 2:
            self.send(agent_pb2.LinkResponse(forget=agent_pb2.Forget(launch_id=launch_id)))

    def _assign(self, launch: LaunchAssignment) -> bool:
        """Queue an assignment, after its recipe where that was not carried yet."""
        recipe = launch.recipe
        if self._carried is None or recipe is None:
            return self.send(agent_pb2.LinkResponse(assignment=launch.whole()))
        assignment = agent_pb2.LinkResponse(assignment=launch.named())
        if recipe.digest in self._carried:
            return self.send(assignment)
        if not self.send(agent_pb2.LinkResponse(recipe=recipe), assignment):
            return False
        self._carried.add(recipe.digest)
        return True

    def _start_writer(self) -> None:
        if self._write is not None and self._outbox and self._writer is None:
            self._writer = asyncio.create_task(self._send_all(self._write), name=f"link-{self.node}")

    async def _send_all(self, write: Callable[[agent_pb2.LinkResponse], Awaitable[None]]) -> None:
        try:
            while self._outbox:
                await write(self._outbox.popleft())
            self._outbox = None
        except Exception as error:
            self.close(errors.Unavailable(f"The link is broken: {error}", reason=errors.Reason.LINK_BROKEN))
        finally:
            self._writer = None


def session_clock(report: agent_pb2.LaunchReport) -> SessionClock:
    """Return how long a session is ready and idle, as its agent measures it."""
    return SessionClock(
        ready_for_s=times.seconds(report.ready_for),
        ever_connected=report.ever_connected,
        idle_for_s=times.seconds(report.idle_for) if report.HasField("idle_for") else None,
        unwatched_for_s=times.seconds(report.unwatched_for) if report.HasField("unwatched_for") else None,
        unanswered_for_s=times.seconds(report.unanswered_for) if report.HasField("unanswered_for") else None,
    )
