"""AgentService: opens a link, tells an agent what to run, and records what it reports."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from functools import partial

import grpc
import structlog

from footlights import errors, names
from footlights.auth.roles import Role
from footlights.auth.secrets import Box
from footlights.control import assignments, calls, convert
from footlights.control.changes import Bus
from footlights.control.hub import Hub, OpenLink
from footlights.control.metrics import Metrics
from footlights.control.settings import ServerSettings
from footlights.lifecycle import LaunchState, SessionClock, due
from footlights.store import Store, Transaction, launches, nodes, sessions
from footlights.store.revisions import last_revision
from footlights.store.tables import Launch
from footlights.v1 import agent_pb2, agent_pb2_grpc

log = structlog.get_logger(__name__)

PROTOCOL_VERSION = 1
_HELLO_TIMEOUT_S = 10.0
_SEEN_PERIOD_S = 15.0

Report = agent_pb2.LaunchReport

_STATES = frozenset(number for name, number in Report.State.items() if name in LaunchState.__members__)
"""The states that this control plane knows: a newer agent may have more."""


class Agents(agent_pb2_grpc.AgentServiceServicer):
    """Serves agents' links."""

    def __init__(
        self,
        store: Store,
        bus: Bus,
        hub: Hub,
        box: Box,
        metrics: Metrics,
        settings: ServerSettings,
        cluster_id: str,
        clock: Callable[[], datetime],
    ) -> None:
        """Take what it writes to, whom it wakes, and what it opens secrets with."""
        self._store, self._bus, self._hub, self._box = store, bus, hub, box
        self._metrics, self._settings, self._cluster_id, self._clock = metrics, settings, cluster_id, clock

    async def Link(
        self,
        request_iterator: AsyncIterator[agent_pb2.LinkRequest],
        context: grpc.aio.ServicerContext[agent_pb2.LinkRequest, agent_pb2.LinkResponse],
    ) -> AsyncIterator[agent_pb2.LinkResponse]:
        """Hold one agent's link."""
        hello = await self._hello(request_iterator)
        link = await self._open(hello)
        reader: asyncio.Task[None] | None = None
        try:
            await self._observe(link, list(hello.launches))
            self._bus.session_changed(link.node)
            reader = asyncio.create_task(self._read(link, request_iterator), name=f"link-{link.node}")
            yield agent_pb2.LinkResponse(
                welcome=agent_pb2.Welcome(
                    epoch=link.epoch,
                    heartbeat_interval=convert.duration(self._settings.heartbeat_interval_s),
                    cluster_id=self._cluster_id,
                    abandon_after=convert.duration(self._settings.abandon_after_s),
                )
            )
            async for message in self._tell(link, reader):
                yield message
            if link.farewell is not None:
                raise link.farewell
        finally:
            if reader is not None:
                reader.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await reader
            if self._hub.remove(link):
                await self._store.write(lambda tx: nodes.unlink(tx, link.node, link.epoch, now=self._clock()))
                log.info("A link ended", action="link_ended", node=link.node, epoch=link.epoch)
                self._bus.placing.wake()

    async def _hello(self, incoming: AsyncIterator[agent_pb2.LinkRequest]) -> agent_pb2.Hello:
        try:
            first = await asyncio.wait_for(anext(incoming), _HELLO_TIMEOUT_S)
        except (TimeoutError, StopAsyncIteration):
            raise errors.FailedPrecondition(
                f"The link said nothing within {_HELLO_TIMEOUT_S:g} s. Its first message must be a hello.",
                reason="HELLO_MISSING",
            ) from None
        if first.WhichOneof("message") != "hello":
            raise errors.FailedPrecondition("The first message of a link must be a hello.", reason="HELLO_MISSING")
        hello = first.hello
        names.check_node("hello.node", hello.node)
        if not hello.incarnation:
            raise errors.InvalidArgument("hello.incarnation", "is missing. Mint one when the agent starts.")
        caller = calls.current().caller
        if caller.role is not Role.NODE or caller.subject != hello.node:
            raise errors.PermissionDenied(
                f"The token is for {caller.subject!r}, not for node {hello.node!r}. Create one with: "
                f"footlights tokens create --role node --subject {hello.node}",
                reason="WRONG_NODE",
                metadata={"subject": caller.subject, "node": hello.node},
            )
        if hello.protocol_version != PROTOCOL_VERSION:
            raise errors.FailedPrecondition(
                f"The agent speaks version {hello.protocol_version} of the link, this control plane version "
                f"{PROTOCOL_VERSION}. Install the same release on both.",
                reason="PROTOCOL_VERSION",
            )
        return hello

    async def _open(self, hello: agent_pb2.Hello) -> OpenLink:
        now = self._clock()
        facts = hello.facts.SerializeToString()
        readings = convert.readings(hello.inventory)
        row = await self._store.write(
            lambda tx: nodes.link(tx, hello.node, hello.incarnation, facts, readings, now=now)
        )
        known = {report.launch_id for report in hello.launches}
        link = OpenLink(hello.node, hello.incarnation, row.epoch, known)
        self._hub.add(link)
        log.info(
            "A link opened",
            action="link_opened",
            node=link.node,
            epoch=link.epoch,
            devices=len(readings),
            launches=len(known),
        )
        return link

    async def _tell(self, link: OpenLink, reader: asyncio.Task[None]) -> AsyncIterator[agent_pb2.LinkResponse]:
        """Yield the full set of assignments, then what changes, and whatever else is to be said."""
        changes = self._bus.node(link.node)
        seen = changes.count
        told = await self._assignments(link)
        yield agent_pb2.LinkResponse(assignments=agent_pb2.Assignments(assignments=told.values()))
        outbox: asyncio.Task[agent_pb2.LinkResponse | None] | None = None
        woken: asyncio.Task[int] | None = None
        try:
            while True:
                outbox = outbox or asyncio.create_task(link.outbox.get())
                woken = woken or asyncio.create_task(changes.wait(seen, 5.0))
                await asyncio.wait((outbox, woken, reader), return_when=asyncio.FIRST_COMPLETED)
                if outbox.done():
                    message = outbox.result()
                    outbox = None
                    if message is None:
                        return
                    yield message
                if woken.done():
                    seen = woken.result()
                    woken = None
                    fresh = await self._assignments(link)
                    for launch_id, assignment in fresh.items():
                        if told.get(launch_id) != assignment:
                            yield agent_pb2.LinkResponse(assignment=assignment)
                    told = fresh
                if reader.done():
                    reader.result()
                    return
        finally:
            for task in (outbox, woken):
                if task is not None:
                    task.cancel()

    async def _assignments(self, link: OpenLink) -> dict[str, agent_pb2.Assignment]:
        def read(tx: Transaction) -> tuple[dict[str, agent_pb2.Assignment], dict[str, str]]:
            found = assignments.live(tx, link.node, self._box)
            return found, {launch.launch_id: launch.state for launch, _ in launches.live_on(tx, link.node)}

        found, states = await self._store.read(read)
        link.limits = {launch_id: convert.time_limits(each.limits) for launch_id, each in found.items()}
        for launch_id, assignment in found.items():
            if launch_id in link.known:
                continue
            if states[launch_id] == "ASSIGNED":
                link.known.add(launch_id)
            else:
                # It was begun over an earlier link and the agent does not know it: it must not begin a second time.
                assignment.desired = agent_pb2.Assignment.STOPPED
        return found

    async def _read(self, link: OpenLink, incoming: AsyncIterator[agent_pb2.LinkRequest]) -> None:
        noted = link.heard
        async for request in incoming:
            self._hub.hear(link)
            match request.WhichOneof("message"):
                case "heartbeat":
                    await self._observe(link, list(request.heartbeat.reports))
                    if link.heard - noted > _SEEN_PERIOD_S:
                        noted = link.heard
                        seen = partial(nodes.seen, node=link.node, epoch=link.epoch, now=self._clock())
                        await self._store.write(seen)
                case "report":
                    await self._observe(link, [request.report])
                case "inventory":
                    await self._inventory(link, request.inventory)
                case "log_part":
                    self._hub.log_part(link, request.log_part)
                case _:
                    log.warning("An agent sent a message that is not known here", action="link_odd", node=link.node)

    async def _inventory(self, link: OpenLink, inventory: agent_pb2.Inventory) -> None:
        readings = convert.readings(inventory)
        facts = inventory.facts.SerializeToString() if inventory.HasField("facts") else None

        def write(tx: Transaction) -> None:
            row = nodes.get(tx, link.node)
            if row is None or row.epoch != link.epoch:
                return
            nodes.set_devices(tx, link.node, readings)
            if facts is not None:
                nodes.set_facts(tx, link.node, facts)

        await self._store.write(write)
        self._bus.placing.wake()

    async def _observe(self, link: OpenLink, reports: Sequence[Report]) -> None:
        """Record reports, end sessions whose time is up, and let the agent forget what is recorded for good."""
        known = [report for report in reports if report.state in _STATES]
        if len(known) < len(reports):
            log.warning("An agent reported a state that is not known here", action="link_odd", node=link.node)
        fresh = [report for report in known if self._is_news(link, report)]
        if not fresh:
            return
        now = self._clock()

        def write(tx: Transaction) -> tuple[list[Launch | None], bool]:
            row = nodes.get(tx, link.node)
            if row is None or row.epoch != link.epoch:
                return [], False
            before = last_revision(tx)
            found = [self._record(tx, link.node, report, now) for report in fresh]
            return found, last_revision(tx) != before

        found, changed = await self._store.write(write)
        for report, launch in zip(fresh, found, strict=False):
            if launch is None or launch.ended_time is not None:
                link.reported.pop(report.launch_id, None)
                if report.state >= Report.EXITED:
                    link.say(agent_pb2.LinkResponse(forget=agent_pb2.Forget(launch_id=report.launch_id)))
            if launch is not None and launch.ended_time == now:
                self._count(launch)
        if changed:
            self._bus.session_changed(link.node)

    def _is_news(self, link: OpenLink, report: Report) -> bool:
        bare = Report()
        bare.CopyFrom(report)
        for name in ("ready_for", "idle_for", "starting_for"):
            bare.ClearField(name)
        for step in bare.steps:
            step.ClearField("age")
        text = bare.SerializeToString(deterministic=True)
        limits = link.limits.get(report.launch_id)
        expired = limits is not None and report.state == Report.READY and due(_session_clock(report), limits)
        if link.reported.get(report.launch_id) == text and not expired:
            return False
        link.reported[report.launch_id] = text
        return True

    @staticmethod
    def _record(tx: Transaction, node: str, report: Report, now: datetime) -> Launch | None:
        launch = launches.observe(tx, node, convert.observation(report, now), now=now)
        if launch is None or launch.state != "READY" or launch.desired == "STOPPED":
            return launch
        session = sessions.get(tx, launch.session_id)
        if session is not None and session.launch_id == launch.launch_id:
            over = due(_session_clock(report), convert.time_limits(convert.limits(session)))
            if over is not None:
                sessions.end(tx, session, *over, now=now)
        return launch

    def _count(self, launch: Launch) -> None:
        log.info(
            "A launch ended",
            action="launch_ended",
            node=launch.node,
            launch_id=launch.launch_id,
            session_id=launch.session_id,
            state=launch.state,
            reason=launch.reason,
            exit_code=launch.exit_code,
        )
        if launch.state == "REJECTED":
            self._metrics.refused(launch.reason)
        if launch.start_s is not None:
            self._metrics.started(launch.start_s)


def _session_clock(report: Report) -> SessionClock:
    return SessionClock(
        ready_for_s=convert.seconds(report.ready_for),
        ever_connected=report.ever_connected,
        idle_for_s=convert.seconds(report.idle_for) if report.HasField("idle_for") else None,
    )
