"""AgentService: opens a link, tells an agent what to run, and records what it reports."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import structlog

from footlights import errors, ids
from footlights.auth.roles import Role
from footlights.control.dispatch import addresses, observations
from footlights.control.dispatch.link import Hub, OpenLink
from footlights.control.dispatch.reports import Observing
from footlights.control.liveness.heartbeats import heartbeat_interval_s
from footlights.protocol import times
from footlights.store.nodes import inventory, links, node_rows
from footlights.store.nodes.inventory import Inventory
from footlights.store.nodes.links import Arrival, Departure
from footlights.v1 import agent_pb2

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from footlights.control.call.context import Call, MessageStream
    from footlights.control.dispatch.identity import Duplicates
    from footlights.control.dispatch.sender import Telling
    from footlights.control.observability.metrics import Metrics
    from footlights.control.replication.signals import Bus
    from footlights.control.settings import ServerSettings
    from footlights.store import Store, Transaction

    LinkStream = MessageStream[agent_pb2.LinkRequest, agent_pb2.LinkResponse]

log = structlog.get_logger(__name__)

PROTOCOL_VERSION = 1

_HELLO_TIMEOUT_S = 10.0
MAX_UNRECORDED = 1000
"""Messages of one agent that wait for the store; then its stream is held back."""


class Agents:
    """Serves agents' links."""

    def __init__(
        self,
        store: Store,
        bus: Bus,
        hub: Hub,
        telling: Telling,
        duplicates: Duplicates,
        metrics: Metrics,
        settings: ServerSettings,
        me: str,
        cluster_id: str,
        clock: Callable[[], datetime],
    ) -> None:
        """Take what it writes to, whom it wakes, who tells agents and who refuses them, and which replica this is."""
        self._store, self._bus, self._hub, self._telling = store, bus, hub, telling
        self._duplicates, self._metrics = duplicates, metrics
        self._settings, self._me, self._cluster_id, self._clock = settings, me, cluster_id, clock
        self._observing = Observing(store, bus, metrics, clock)
        self._arriving: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def link(self, stream: LinkStream, call: Call) -> None:
        """Hold one agent's link.

        It reads and writes through the stream: each generator that a link goes through instead costs it kibibytes,
        as does a hello that somebody still refers to.
        """
        hello = await self._hello(stream, call)
        peer = call.peer
        addresses.check(hello.facts, peer)
        link = await self._open(hello, peer)
        try:
            await self._observing.record(link, list(hello.launches))
            del hello
            self._bus.watchers()
            self._bus.waiting(link.node)
            await stream.write(self._welcome(link))
            await stream.write(agent_pb2.LinkResponse(assignments=await self._telling.full_set(link)))
            await link.hold(stream.write, lambda: self._read(link, stream))
        finally:
            await self._close(link)

    async def _hello(self, stream: LinkStream, call: Call) -> agent_pb2.Hello:
        try:
            async with asyncio.timeout(_HELLO_TIMEOUT_S):
                first = await stream.read()
        except TimeoutError:
            first = None
        if first is None:
            raise errors.FailedPrecondition(
                f"The link said nothing within {_HELLO_TIMEOUT_S:g} s. Its first message must be a hello.",
                reason="HELLO_MISSING",
            ) from None
        if first.WhichOneof("message") != "hello":
            raise errors.FailedPrecondition("The first message of a link must be a hello.", reason="HELLO_MISSING")
        hello = first.hello
        ids.check_node("hello.node", hello.node)
        if not hello.incarnation:
            raise errors.InvalidArgument("hello.incarnation", "is missing. Mint one when the agent starts.")
        caller = call.caller
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

    def _welcome(self, link: OpenLink) -> agent_pb2.LinkResponse:
        return agent_pb2.LinkResponse(
            welcome=agent_pb2.Welcome(
                epoch=link.epoch,
                heartbeat_interval=times.duration(link.interval_s),
                cluster_id=self._cluster_id,
                abandon_after=times.duration(self._settings.abandon_after_s),
            )
        )

    async def _open(self, hello: agent_pb2.Hello, peer: str) -> OpenLink:
        # One at a time: of two that come in the same instant, the second one finds the first one's link.
        async with self._arriving.setdefault(hello.node, asyncio.Lock()):
            try:
                return await self._admit(hello, peer)
            except errors.Conflict:
                # The other one came to another replica, which can be asked now.
                return await self._admit(hello, peer)

    async def _admit(self, hello: agent_pb2.Hello, peer: str) -> OpenLink:
        arrival = Arrival(
            hello.node,
            hello.incarnation,
            hello.facts.SerializeToString(),
            observations.readings(hello.inventory),
            self._clock(),
            hub=self._me,
            after_epoch=await self._duplicates.check(hello),
        )
        epoch = await self._store.write_joint(links.ARRIVALS, arrival)
        known = {report.launch_id for report in hello.launches}
        interval_s = heartbeat_interval_s(self._settings.heartbeat_interval_s, self._hub.fleet_size)
        link = OpenLink(hello.node, hello.incarnation, epoch, known, peer=peer, interval_s=interval_s)
        self._hub.add(link)
        self._metrics.linked(len(self._hub))
        log.info(
            "link_opened",
            node=link.node,
            epoch=link.epoch,
            devices=len(arrival.readings),
            launches=len(known),
        )
        return link

    async def _close(self, link: OpenLink) -> None:
        removed = self._hub.remove(link)
        self._metrics.linked(len(self._hub))
        if removed:
            departure = Departure(link.node, link.epoch, self._clock())
            await self._store.write_joint(links.DEPARTURES, departure)
            log.info("link_ended", node=link.node, epoch=link.epoch)
            self._bus.waiting(link.node)

    async def _read(self, link: OpenLink, stream: LinkStream) -> None:
        """Hear the agent. What it says is recorded by a task that lives only while there is something to record."""
        unrecorded: list[agent_pb2.LinkRequest] = []
        recorder: asyncio.Task[None] | None = None
        try:
            while (request := await stream.read()) is not None:
                self._hub.hear(link)
                kind = request.WhichOneof("message")
                if kind == "log_part":
                    self._hub.log_part(link, request.log_part)
                elif kind != "heartbeat" or request.heartbeat.reports:
                    if recorder is not None and (recorder.done() or len(unrecorded) >= MAX_UNRECORDED):
                        await recorder
                        recorder = None
                    unrecorded.append(request)
                    recorder = recorder or asyncio.create_task(
                        self._record(link, unrecorded), name=f"record-{link.node}"
                    )
                del request
            if recorder is not None:
                await recorder
        finally:
            if recorder is not None:
                recorder.cancel()

    async def _record(self, link: OpenLink, unrecorded: list[agent_pb2.LinkRequest]) -> None:
        """Record what the agent said; what arrives while one write is under way shares the next."""
        while unrecorded:
            requests, unrecorded[:] = list(unrecorded), []
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
                        log.warning("link_odd", node=link.node)
            try:
                await self._observing.record(link, reports)
                for told in inventories:
                    await self._inventory(link, told)
            except Exception as error:
                link.end(error)
                return

    async def _inventory(self, link: OpenLink, told: agent_pb2.Inventory) -> None:
        readings = observations.readings(told)
        addresses.check(told.facts, link.peer)
        facts = told.facts.SerializeToString() if told.HasField("facts") else None
        now = self._clock()

        def write(tx: Transaction) -> None:
            row = node_rows.get(tx, link.node)
            if row is None or row.epoch != link.epoch:
                return
            inventory.replace(tx, [Inventory(link.node, readings, now)])
            if facts is not None:
                node_rows.set_facts(tx, link.node, facts)

        await self._store.write(write)
        self._bus.waiting(link.node)
