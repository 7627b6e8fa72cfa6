"""AgentService: opens a link, tells an agent what to run, and records what it reports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from functools import partial

import grpc
import structlog

from footlights import errors, names
from footlights.auth.roles import Role
from footlights.auth.secrets import Box
from footlights.control import addresses, assignments, calls, convert
from footlights.control.changes import Bus
from footlights.control.hub import Hub, OpenLink
from footlights.control.metrics import Metrics
from footlights.control.observing import Observing
from footlights.control.settings import ServerSettings
from footlights.store import Store, Transaction, nodes
from footlights.v1 import agent_pb2, agent_pb2_grpc

log = structlog.get_logger(__name__)

PROTOCOL_VERSION = 1

Requests = AsyncIterator[agent_pb2.LinkRequest]
Answers = AsyncIterator[agent_pb2.LinkResponse]
Inbox = asyncio.Queue[agent_pb2.LinkRequest]
_HELLO_TIMEOUT_S = 10.0
_SEEN_PERIOD_S = 15.0
_SPEAK_HEARTBEATS = 1.5
"""An agent that lives is heard within so many heartbeats."""
_SPEAK_TIMEOUT_S = 12.0
"""But a new agent does not wait for ever for its welcome."""
MAX_UNRECORDED = 1000
"""Messages of one agent that wait for the store; then its stream is held back."""


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
        self._settings, self._cluster_id, self._clock = settings, cluster_id, clock
        self._observing = Observing(store, bus, metrics, clock)

    async def Link(
        self,
        request_iterator: Requests,
        context: grpc.aio.ServicerContext[agent_pb2.LinkRequest, agent_pb2.LinkResponse],
    ) -> Answers:
        """Hold one agent's link."""
        hello = await self._hello(request_iterator)
        addresses.check(hello.facts, context.peer())
        await self._refuse_duplicate(hello)
        link = await self._open(hello, context.peer())
        workers: list[asyncio.Task[None]] = []
        try:
            await self._observing.record(link, list(hello.launches))
            self._bus.session_changed(link.node)
            inbox: Inbox = asyncio.Queue(MAX_UNRECORDED)
            workers.append(asyncio.create_task(self._read(link, request_iterator, inbox), name=f"read-{link.node}"))
            workers.append(asyncio.create_task(self._record(link, inbox), name=f"record-{link.node}"))
            yield agent_pb2.LinkResponse(
                welcome=agent_pb2.Welcome(
                    epoch=link.epoch,
                    heartbeat_interval=convert.duration(self._settings.heartbeat_interval_s),
                    cluster_id=self._cluster_id,
                    abandon_after=convert.duration(self._settings.abandon_after_s),
                )
            )
            async for message in self._tell(link, workers):
                yield message
            if link.farewell is not None:
                raise link.farewell
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            if self._hub.remove(link):
                await self._store.write(lambda tx: nodes.unlink(tx, link.node, link.epoch, now=self._clock()))
                log.info("A link ended", action="link_ended", node=link.node, epoch=link.epoch)
                self._bus.placing.wake()

    async def _hello(self, incoming: Requests) -> agent_pb2.Hello:
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

    async def _refuse_duplicate(self, hello: agent_pb2.Hello) -> None:
        """Refuse a second agent under a name whose agent is alive: it knows nothing of what runs there."""
        patience = min(_SPEAK_HEARTBEATS * self._settings.heartbeat_interval_s, _SPEAK_TIMEOUT_S)
        rival = await self._hub.rival(hello.node, hello.incarnation, patience)
        if rival is None:
            return
        host = hello.facts.hostname or "a host without a name"
        text = (
            f"A second agent, on {host}, tries to link as {hello.node} with the same token. "
            "Give each machine its own node name and token."
        )
        log.warning("Refused a second agent", action="link_duplicate", node=hello.node, host=host)
        rival.say(agent_pb2.LinkResponse(notice=agent_pb2.Notice(reason="DUPLICATE_IDENTITY", message=text)))
        now = self._clock()
        await self._store.write(lambda tx: nodes.notice(tx, hello.node, "DUPLICATE_IDENTITY", text, now=now))
        raise errors.AlreadyExists(
            f"Another agent is linked as {hello.node} and alive. If this machine was cloned from it, give this one its "
            "own node name and token; if the other is to go, stop it first.",
            reason="DUPLICATE_IDENTITY",
            metadata={"node": hello.node, "incarnation": rival.incarnation},
        )

    async def _open(self, hello: agent_pb2.Hello, peer: str) -> OpenLink:
        now = self._clock()
        facts = hello.facts.SerializeToString()
        readings = convert.readings(hello.inventory)
        row = await self._store.write(
            lambda tx: nodes.link(tx, hello.node, hello.incarnation, facts, readings, now=now)
        )
        known = {report.launch_id for report in hello.launches}
        link = OpenLink(hello.node, hello.incarnation, row.epoch, known, peer)
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

    async def _tell(self, link: OpenLink, workers: Sequence[asyncio.Task[None]]) -> Answers:
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
                await asyncio.wait((outbox, woken, *workers), return_when=asyncio.FIRST_COMPLETED)
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
                for worker in workers:
                    if worker.done():
                        worker.result()
                        return
        finally:
            for task in (outbox, woken):
                if task is not None:
                    task.cancel()

    async def _assignments(self, link: OpenLink) -> dict[str, agent_pb2.Assignment]:
        found = await self._store.read(lambda tx: assignments.live(tx, link.node, self._box))
        link.limits = {launch_id: convert.time_limits(each.limits) for launch_id, (each, _) in found.items()}
        for launch_id, (assignment, state) in found.items():
            if launch_id in link.known:
                continue
            if state == "ASSIGNED":
                link.known.add(launch_id)
            else:
                # It was begun over an earlier link and the agent does not know it: it must not begin a second time.
                assignment.desired = agent_pb2.Assignment.STOPPED
        return {launch_id: assignment for launch_id, (assignment, _) in found.items()}

    async def _read(
        self,
        link: OpenLink,
        incoming: Requests,
        inbox: Inbox,
    ) -> None:
        async for request in incoming:
            self._hub.hear(link)
            if request.WhichOneof("message") == "log_part":
                self._hub.log_part(link, request.log_part)
            else:
                await inbox.put(request)

    async def _record(self, link: OpenLink, inbox: Inbox) -> None:
        """Record what the agent said; what arrives while one write is under way shares the next."""
        noted = link.heard
        while True:
            requests = [await inbox.get()]
            while not inbox.empty():
                requests.append(inbox.get_nowait())
            reports: list[agent_pb2.LaunchReport] = []
            inventories: list[agent_pb2.Inventory] = []
            for request in requests:
                match request.WhichOneof("message"):
                    case "heartbeat":
                        reports.extend(request.heartbeat.reports)
                    case "report":
                        reports.append(request.report)
                    case "inventory":
                        inventories.append(request.inventory)
                    case _:
                        log.warning("An agent sent a message that is not known here", action="link_odd", node=link.node)
            await self._observing.record(link, reports)
            for inventory in inventories:
                await self._inventory(link, inventory)
            if link.heard - noted > _SEEN_PERIOD_S:
                noted = link.heard
                await self._store.write(partial(nodes.seen, node=link.node, epoch=link.epoch, now=self._clock()))

    async def _inventory(self, link: OpenLink, inventory: agent_pb2.Inventory) -> None:
        readings = convert.readings(inventory)
        addresses.check(inventory.facts, link.peer)
        facts = inventory.facts.SerializeToString() if inventory.HasField("facts") else None
        now = self._clock()

        def write(tx: Transaction) -> None:
            row = nodes.get(tx, link.node)
            if row is None or row.epoch != link.epoch:
                return
            nodes.set_devices(tx, link.node, readings, now=now)
            if facts is not None:
                nodes.set_facts(tx, link.node, facts)

        await self._store.write(write)
        self._bus.placing.wake()
