"""AgentService: opens a link, tells an agent what to run, and records what it reports."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

import structlog

from footlights import errors, ids
from footlights.agent.v1 import agent_pb2
from footlights.auth.roles import Role
from footlights.control.call.context import peer_address
from footlights.control.call.pipeline import stopping
from footlights.control.dispatch import observations
from footlights.control.dispatch.link import AgentLink
from footlights.control.dispatch.registry import heartbeat_interval_s
from footlights.protocol import bounds, counterparts, handshake, times
from footlights.store.nodes import acceptance, inventory, links, node_rows
from footlights.store.nodes.inventory import ReportedDevice, ReportedDevices
from footlights.store.nodes.links import LinkClosing, LinkOpening

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from google.protobuf.message import Message

    from footlights.control.call.context import Call, MessageStream
    from footlights.control.dispatch.identity import DuplicateIdentities
    from footlights.control.dispatch.log_streams import LogStreams
    from footlights.control.dispatch.node_addresses import NodeAddresses
    from footlights.control.dispatch.node_identities import NodeIdentities
    from footlights.control.dispatch.registry import LinkRegistry
    from footlights.control.dispatch.relays import RelayAnswers
    from footlights.control.dispatch.reports import ReportRecorder
    from footlights.control.dispatch.sender import AssignmentSender
    from footlights.control.observability.metrics import Metrics
    from footlights.control.signals import Signals
    from footlights.store import Store, Transaction

    LinkStream = MessageStream[agent_pb2.LinkRequest, agent_pb2.LinkResponse]

log = structlog.get_logger(__name__)

MAX_UNRECORDED = 1000
"""Messages of one agent that wait for the store; then its stream is held back."""

MAX_UNRECORDED_BYTES = 4 << 20
"""The same in bytes: ends with their last lines are large."""

MESSAGE_CUT = "MESSAGE_CUT"
"""The notice on a node whose agent sends more than a message may carry."""

MESSAGE_REFUSED = "MESSAGE_REFUSED"
"""The notice on a node whose agent says what it may not."""

_NOTICE_CHARACTERS = 1024

MOST_DEVICES_AT_ONCE = 16
"""Of so many the event loop reads the devices itself: a thread costs more."""

MAX_HELLO_PARTS = 1000
"""Agents send a part of the largest hello in each mebibyte."""

_HELLO_TIMEOUT_S = 20.0
"""For all of it: an agent waits as long for its welcome."""

_MOST_SAID = 16
"""Fields of a hello that are named where many were cut."""

_TEXTS: Final = ("reason", "message", "steps", "log_tail")
"""What of a report is for people."""


@dataclass(frozen=True, slots=True)
class Welcome:
    """What every agent is told when its link opens."""

    cluster_id: str
    heartbeat_interval_s: float
    """The shortest: a large fleet sends them less often."""
    abandon_after_s: float
    """How long an agent keeps unwatched sessions without a link."""
    front_door: str = ""
    """Where agents pass viewers on to that dial nodes; empty: nowhere."""


@dataclass(frozen=True, slots=True)
class AgentPolicy:
    """What is believed of an agent."""

    auto_accept: bool
    """Whether its node is accepted without an operator, also where its hardware has changed."""
    addresses: NodeAddresses
    """Where its node may be."""


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
        policy: AgentPolicy,
        identities: NodeIdentities,
        relays: RelayAnswers,
        replica: str,
        clock: Callable[[], datetime],
    ) -> None:
        self._store, self._signals, self._registry = store, signals, registry
        self._sender, self._recorder, self._duplicates, self._logs = sender, recorder, duplicates, logs
        self._metrics, self._welcome, self._policy = metrics, welcome, policy
        self._identities, self._relays = identities, relays
        self._replica, self._clock = replica, clock
        self._arriving: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def link(self, stream: LinkStream, call: Call) -> None:
        """Hold one agent's link.

        It reads and writes through the stream: a generator between would cost each link kibibytes.
        """
        try:
            await self._hold(stream, call)
        except errors.InvalidArgument as error:
            await self._note_refused(call.caller.subject, error)
            raise

    async def _hold(self, stream: LinkStream, call: Call) -> None:
        # First of all: a void identity takes nothing from the node that it was for, and each try may write something.
        await self._identities.admit(call.caller.subject, call)
        self._registry.admit(call.caller.subject)
        hello, left_out = await self._read_hello(stream, call)
        await self._policy.addresses.check(hello.facts, call.peer)
        link = await self._open(hello, call.peer)
        try:
            await self._identities.opened(link, call)
            if left_out:
                await self._note_cut(link.node, left_out)
            await self._recorder.record(link, list(hello.launches))
            # It would stay in memory for as long as the link does.
            del hello
            self._signals.sessions.publish()
            self._signals.placing.publish(link.node)
            await stream.write(self._welcome_message(link))
            link.begin_full_set()
            for message in await self._sender.full_set(link):
                await stream.write(message)
            await link.hold(stream.write, lambda: self._read(link, stream))
        finally:
            await self._close(link)

    def stop(self, redirect: Sequence[str]) -> None:
        """Have all agents told, as their links end, that this server stops, and which addresses they may dial."""
        for number, link in enumerate(self._registry.links):
            # Each address is the first one of as many agents as the next.
            first = number % max(1, len(redirect))
            link.prepare_goodbye(stopping(), [*redirect[first:], *redirect[:first]])

    async def _read_hello(self, stream: LinkStream, call: Call) -> tuple[agent_pb2.Hello, list[str]]:
        """Return a whole hello, and what of it is left out."""
        try:
            async with asyncio.timeout(_HELLO_TIMEOUT_S):
                hello = await self._read_first(stream, call)
                return hello, await self._complete(hello, stream)
        except TimeoutError:
            raise errors.FailedPrecondition(
                f"The agent sent no whole hello within {_HELLO_TIMEOUT_S:g} s. A link must begin with one.",
                reason=errors.Reason.HELLO_MISSING,
            ) from None
        except errors.Exhausted as error:
            _say_refused(call.caller.subject, error)
            raise

    async def _read_first(self, stream: LinkStream, call: Call) -> agent_pb2.Hello:
        first = await stream.read()
        if first is None or first.WhichOneof("message") != "hello":
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
                f"The agent's identity is that of {caller.subject!r}, not of node {hello.node!r}. Give it one: "
                f"footlights nodes invite {hello.node}",
                reason=errors.Reason.WRONG_NODE,
                metadata={"subject": caller.subject, "node": hello.node},
            )
        theirs = _protocol(hello)
        if not handshake.meets(theirs):
            raise errors.FailedPrecondition(
                f"The agent speaks versions {theirs.least} to {theirs.greatest} of the link, this control plane "
                f"versions {handshake.LEAST} to {handshake.GREATEST}. Install neighbouring releases on both.",
                reason=errors.Reason.PROTOCOL_VERSION,
                metadata={"least": str(theirs.least), "greatest": str(theirs.greatest)},
            )
        return hello

    async def _complete(self, hello: agent_pb2.Hello, stream: LinkStream) -> list[str]:
        """Read the rest of a hello, each part bounded as it arrives: what is kept of them together is bounded, too.

        Return what is left out.
        """
        knows_bounds = _knows_bounds(hello)
        left_out = _bounded(agent_pb2.LinkRequest(hello=hello), hello, knows_bounds=knows_bounds)
        whole, size = not hello.HasField("part") or hello.part.last, hello.ByteSize()
        for _ in range(MAX_HELLO_PARTS):
            if whole:
                return left_out
            more = await stream.read()
            if more is None or more.WhichOneof("message") != "launches":
                break
            said = _bounded(more, more, knows_bounds=knows_bounds)
            reports, count = more.launches.launches, len(hello.launches) + len(more.launches.launches)
            size += more.ByteSize()
            if knows_bounds and (count > bounds.MAX_LAUNCHES or size > bounds.MAX_MESSAGE_BYTES):
                raise errors.InvalidArgument(
                    "hello.launches",
                    f"has {count} items and {size} bytes so far. Give at most {bounds.MAX_LAUNCHES} and "
                    f"{bounds.MAX_MESSAGE_BYTES}.",
                    reason=errors.Reason.TOO_MANY,
                )
            if count > bounds.MAX_LAUNCHES:
                said.append(f"launches: more than {bounds.MAX_LAUNCHES}")
                del reports[bounds.MAX_LAUNCHES - len(hello.launches) :]
            if size > bounds.MAX_MESSAGE_BYTES:
                said.append("launches: the texts of some")
                for report in reports:
                    for name in _TEXTS:
                        report.ClearField(name)
            hello.launches.extend(reports)
            left_out += [each for each in said if each not in left_out][: _MOST_SAID - len(left_out)]
            whole = more.launches.part.last
        raise errors.FailedPrecondition(
            "The rest of the agent's hello is missing: launch sets must follow until the last one.",
            reason=errors.Reason.HELLO_MISSING,
        )

    async def _note_cut(self, node: str, left_out: Sequence[str]) -> None:
        log.warning("link_message_cut", node=node, kind="hello", left_out=left_out)
        text = f"The agent sends more than a message may carry; the rest is left out: {'; '.join(left_out)}."
        now = self._clock()
        await self._store.write(lambda tx: node_rows.notice(tx, node, MESSAGE_CUT, text, now=now))

    async def _note_refused(self, node: str, error: errors.InvalidArgument) -> None:
        log.warning("link_refused", node=node, reason=error.reason, error=error.message)
        text, now = f"The agent's link was refused: {error.message}"[:_NOTICE_CHARACTERS], self._clock()
        await self._store.write(lambda tx: node_rows.notice(tx, node, MESSAGE_REFUSED, text, now=now))

    def _welcome_message(self, link: AgentLink) -> agent_pb2.LinkResponse:
        return agent_pb2.LinkResponse(
            welcome=agent_pb2.Welcome(
                epoch=link.epoch,
                heartbeat_interval=times.duration(link.interval_s),
                cluster_id=self._welcome.cluster_id,
                abandon_after=times.duration(self._welcome.abandon_after_s),
                protocol=handshake.ours(),
                front_door=self._welcome.front_door,
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
            counterparts.facts(hello.facts).SerializeToString(),
            await _readings(hello.inventory),
            self._clock(),
            hub=self._replica,
            address=peer_address(peer),
            after_epoch=await self._duplicates.check(hello),
            accept=self._policy.auto_accept,
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
            protocol=_protocol(hello),
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
            features=sorted(link.features),
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
        room = MAX_UNRECORDED_BYTES
        try:
            while (request := await stream.read()) is not None:
                self._registry.touch(link)
                kind, size = request.WhichOneof("message"), request.ByteSize()
                if left_out := _bounded(request, request, knows_bounds=link.knows_bounds):
                    log.warning("link_message_cut", node=link.node, kind=kind, left_out=left_out)
                if kind == "log_part":
                    self._logs.add(link, request.log_part)
                elif kind == "certificate_request":
                    await self._identities.renew(link, request.certificate_request)
                elif kind == "relay_request":
                    await self._relays.answer(link, request.relay_request)
                elif kind == "goodbye":
                    log.info("link_goodbye", node=link.node, epoch=link.epoch, reason=request.goodbye.reason)
                elif kind != "heartbeat" or request.heartbeat.reports:
                    full = len(unrecorded) >= MAX_UNRECORDED or room <= 0
                    if recorder is not None and (recorder.done() or full):
                        await recorder
                        recorder, room = None, MAX_UNRECORDED_BYTES
                    room -= size
                    unrecorded.append(request)
                    recorder = recorder or asyncio.create_task(
                        self._record(link, unrecorded), name=f"record-{link.node}"
                    )
                # It would stay in memory until the next one arrives.
                del request
                if wait_s := link.take_message(size):
                    await asyncio.sleep(wait_s)
            if recorder is not None:
                await recorder
        except errors.Exhausted as error:
            _say_refused(link.node, error)
            raise
        except errors.InvalidArgument as error:
            link.prepare_goodbye(error)
            raise
        finally:
            if recorder is not None:
                recorder.cancel()

    async def _record(self, link: AgentLink, unrecorded: list[agent_pb2.LinkRequest]) -> None:
        """Record what the agent said; what arrives while one write is under way shares the next."""
        while unrecorded:
            requests, unrecorded[:] = list(unrecorded), []
            reports: list[agent_pb2.LaunchReport] = []
            inventory_message: agent_pb2.Inventory | None = None
            for request in requests:
                match request.WhichOneof("message"):
                    case "heartbeat":
                        reports.extend(request.heartbeat.reports)
                    case "report":
                        reports.append(request.report)
                    case "inventory":
                        # It has all devices: of several the last one counts.
                        inventory_message = request.inventory
                    case _:
                        log.warning("link_odd", node=link.node)
            try:
                await self._recorder.record(link, reports)
                if inventory_message is not None:
                    if wait_s := link.take_inventory():
                        await asyncio.sleep(wait_s)
                    await self._record_inventory(link, inventory_message)
            except Exception as error:
                link.close(error)
                return

    async def _record_inventory(self, link: AgentLink, message: agent_pb2.Inventory) -> None:
        readings = await _readings(message)
        await self._policy.addresses.check(message.facts, link.peer)
        facts = counterparts.facts(message.facts).SerializeToString() if message.HasField("facts") else None
        now = self._clock()

        def write(tx: Transaction) -> None:
            row = node_rows.get(tx, link.node)
            if row is None or row.epoch != link.epoch:
                return
            inventory.replace(tx, [ReportedDevices(link.node, readings, now)])
            accepted = acceptance.judge(row, readings, accept=self._policy.auto_accept)
            if accepted != (row.acceptance, row.accepted_hardware):
                acceptance.record(tx, link.node, accepted)
            if facts is not None:
                node_rows.set_facts(tx, link.node, facts)

        await self._store.write(write)
        self._signals.placing.publish(link.node)


def _knows_bounds(hello: agent_pb2.Hello) -> bool:
    """Say whether an agent cuts what it sends to its bounds: one of the release before knows none."""
    return bool(hello.protocol.features)


def _bounded(request: agent_pb2.LinkRequest, kept: Message, *, knows_bounds: bool) -> list[str]:
    """Refuse what is beyond its bounds, or cut ``kept``, which it is or holds, for an agent that knows none.

    Return what was cut. Raises InvalidArgument, which names fields and values.
    """
    if not knows_bounds:
        return bounds.cut(kept)
    bounds.refuse(request)
    return []


async def _readings(inventory_message: agent_pb2.Inventory) -> Sequence[ReportedDevice]:
    """Return an agent's devices as they are stored; those of a large node are not read on the event loop."""
    if len(inventory_message.devices) <= MOST_DEVICES_AT_ONCE:
        return observations.readings(inventory_message)
    return await asyncio.to_thread(observations.readings, inventory_message)


def _protocol(hello: agent_pb2.Hello) -> agent_pb2.Protocol:
    """Return what an agent understands; one of the release before says the version only."""
    if hello.HasField("protocol"):
        return hello.protocol
    return agent_pb2.Protocol(least=hello.protocol_version, greatest=hello.protocol_version)


def _say_refused(node: str, error: errors.Exhausted) -> None:
    log.warning("link_message_refused", reason=error.reason, **{**error.metadata, "node": node})
