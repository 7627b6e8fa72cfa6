"""AgentService: opens a link, tells an agent what to run, and records what it reports."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import structlog

from footlights import errors, ids
from footlights.auth.roles import Role
from footlights.control.dispatch import addresses, observations
from footlights.control.dispatch.link import AgentLink
from footlights.control.dispatch.registry import heartbeat_interval_s
from footlights.protocol import times
from footlights.store.nodes import inventory, links, node_rows
from footlights.store.nodes.inventory import ReportedDevices
from footlights.store.nodes.links import LinkClosing, LinkOpening
from footlights.v1 import agent_pb2

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from footlights.control.call.context import Call, MessageStream
    from footlights.control.dispatch.identity import DuplicateIdentities
    from footlights.control.dispatch.log_streams import LogStreams
    from footlights.control.dispatch.registry import LinkRegistry
    from footlights.control.dispatch.reports import ReportRecorder
    from footlights.control.dispatch.sender import AssignmentSender
    from footlights.control.observability.metrics import Metrics
    from footlights.control.signals import Signals
    from footlights.store import Store, Transaction

    LinkStream = MessageStream[agent_pb2.LinkRequest, agent_pb2.LinkResponse]

log = structlog.get_logger(__name__)

PROTOCOL_VERSION = 1

MAX_UNRECORDED = 1000
"""Messages of one agent that wait for the store; then its stream is held back."""

_HELLO_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Welcome:
    """What every agent is told when its link opens."""

    cluster_id: str
    heartbeat_interval_s: float
    """The shortest: a large fleet sends them less often."""
    abandon_after_s: float
    """How long an agent keeps unwatched sessions without a link."""


class AgentService:
    """Serves agents' links."""

    def __init__(
        self,
        store: Store,
        signals: Signals,
        registry: LinkRegistry,
        *,
        sender: AssignmentSender,
        recorder: ReportRecorder,
        duplicates: DuplicateIdentities,
        logs: LogStreams,
        metrics: Metrics,
        welcome: Welcome,
        replica: str,
        clock: Callable[[], datetime],
    ) -> None:
        self._store, self._signals, self._registry = store, signals, registry
        self._sender, self._recorder, self._duplicates, self._logs = sender, recorder, duplicates, logs
        self._metrics, self._welcome, self._replica, self._clock = metrics, welcome, replica, clock
        self._arriving: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def link(self, stream: LinkStream, call: Call) -> None:
        """Hold one agent's link.

        It reads and writes through the stream: a generator between would cost each link kibibytes.
        """
        hello = await self._read_hello(stream, call)
        addresses.check(hello.facts, call.peer)
        link = await self._open(hello, call.peer)
        try:
            await self._recorder.record(link, list(hello.launches))
            # It would stay in memory for as long as the link does.
            del hello
            self._signals.sessions.publish()
            self._signals.placing.publish(link.node)
            await stream.write(self._welcome_message(link))
            link.begin_full_set()
            await stream.write(agent_pb2.LinkResponse(assignments=await self._sender.full_set(link)))
            await link.hold(stream.write, lambda: self._read(link, stream))
        finally:
            await self._close(link)

    async def _read_hello(self, stream: LinkStream, call: Call) -> agent_pb2.Hello:
        try:
            async with asyncio.timeout(_HELLO_TIMEOUT_S):
                first = await stream.read()
        except TimeoutError:
            first = None
        if first is None:
            raise errors.FailedPrecondition(
                f"The agent sent nothing within {_HELLO_TIMEOUT_S:g} s. The first message of a link must be a hello.",
                reason=errors.Reason.HELLO_MISSING,
            ) from None
        if first.WhichOneof("message") != "hello":
            raise errors.FailedPrecondition(
                "The first message of a link must be a hello.", reason=errors.Reason.HELLO_MISSING
            )
        hello = first.hello
        ids.check_node("hello.node", hello.node)
        if not hello.incarnation:
            raise errors.InvalidArgument("hello.incarnation", "is missing. Mint one when the agent starts.")
        caller = call.caller
        if caller.role is not Role.NODE or caller.subject != hello.node:
            raise errors.PermissionDenied(
                f"The token is for {caller.subject!r}, not for node {hello.node!r}. Create one with: "
                f"footlights tokens create --role node --subject {hello.node}",
                reason=errors.Reason.WRONG_NODE,
                metadata={"subject": caller.subject, "node": hello.node},
            )
        if hello.protocol_version != PROTOCOL_VERSION:
            raise errors.FailedPrecondition(
                f"The agent speaks version {hello.protocol_version} of the link, this control plane version "
                f"{PROTOCOL_VERSION}. Install the same release on both.",
                reason=errors.Reason.PROTOCOL_VERSION,
                metadata={"least": str(hello.protocol_version), "greatest": str(hello.protocol_version)},
            )
        return hello

    def _welcome_message(self, link: AgentLink) -> agent_pb2.LinkResponse:
        return agent_pb2.LinkResponse(
            welcome=agent_pb2.Welcome(
                epoch=link.epoch,
                heartbeat_interval=times.duration(link.interval_s),
                cluster_id=self._welcome.cluster_id,
                abandon_after=times.duration(self._welcome.abandon_after_s),
            )
        )

    async def _open(self, hello: agent_pb2.Hello, peer: str) -> AgentLink:
        # One at a time: of two that come in the same instant, the second one finds the first one's link.
        async with self._arriving.setdefault(hello.node, asyncio.Lock()):
            try:
                return await self._admit(hello, peer)
            except errors.Conflict:
                # The other one came to another replica, which can be asked now.
                return await self._admit(hello, peer)

    async def _admit(self, hello: agent_pb2.Hello, peer: str) -> AgentLink:
        arrival = LinkOpening(
            hello.node,
            hello.incarnation,
            hello.facts.SerializeToString(),
            observations.readings(hello.inventory),
            self._clock(),
            hub=self._replica,
            after_epoch=await self._duplicates.check(hello),
        )
        epoch = await self._store.write_batched(links.OPENINGS, arrival)
        known = {report.launch_id for report in hello.launches}
        interval_s = heartbeat_interval_s(self._welcome.heartbeat_interval_s, self._registry.fleet_size)
        link = AgentLink(
            hello.node,
            hello.incarnation,
            epoch,
            known,
            peer=peer,
            interval_s=interval_s,
            monotonic=self._registry.monotonic,
        )
        self._registry.add(link)
        self._metrics.linked(len(self._registry))
        log.info(
            "link_opened",
            node=link.node,
            epoch=link.epoch,
            devices=len(arrival.readings),
            launches=len(hello.launches),
        )
        return link

    async def _close(self, link: AgentLink) -> None:
        removed = self._registry.remove(link)
        self._metrics.linked(len(self._registry))
        if removed:
            departure = LinkClosing(link.node, link.epoch, self._clock())
            await self._store.write_batched(links.CLOSINGS, departure)
            log.info("link_closed", node=link.node, epoch=link.epoch)
            self._signals.placing.publish(link.node)

    async def _read(self, link: AgentLink, stream: LinkStream) -> None:
        """Hear the agent. What it says is recorded by a task that lives only while there is something to record."""
        unrecorded: list[agent_pb2.LinkRequest] = []
        recorder: asyncio.Task[None] | None = None
        try:
            while (request := await stream.read()) is not None:
                self._registry.touch(link)
                kind = request.WhichOneof("message")
                if kind == "log_part":
                    self._logs.add(link, request.log_part)
                elif kind != "heartbeat" or request.heartbeat.reports:
                    if recorder is not None and (recorder.done() or len(unrecorded) >= MAX_UNRECORDED):
                        await recorder
                        recorder = None
                    unrecorded.append(request)
                    recorder = recorder or asyncio.create_task(
                        self._record(link, unrecorded), name=f"record-{link.node}"
                    )
                # It would stay in memory until the next one arrives.
                del request
            if recorder is not None:
                await recorder
        finally:
            if recorder is not None:
                recorder.cancel()

    async def _record(self, link: AgentLink, unrecorded: list[agent_pb2.LinkRequest]) -> None:
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
                await self._recorder.record(link, reports)
                for inventory_message in inventories:
                    await self._record_inventory(link, inventory_message)
            except Exception as error:
                link.close(error)
                return

    async def _record_inventory(self, link: AgentLink, message: agent_pb2.Inventory) -> None:
        readings = observations.readings(message)
        addresses.check(message.facts, link.peer)
        facts = message.facts.SerializeToString() if message.HasField("facts") else None
        now = self._clock()

        def write(tx: Transaction) -> None:
            row = node_rows.get(tx, link.node)
            if row is None or row.epoch != link.epoch:
                return
            inventory.replace(tx, [ReportedDevices(link.node, readings, now)])
            if facts is not None:
                node_rows.set_facts(tx, link.node, facts)

        await self._store.write(write)
        self._signals.placing.publish(link.node)
