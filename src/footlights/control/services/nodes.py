"""NodeService: shows nodes, cordons, drains and forgets them."""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Protocol

import structlog
from google.protobuf.message import DecodeError

from footlights import errors
from footlights.control import stored
from footlights.control.call import bounds
from footlights.control.call.pages import PAGE_BYTES, Chunk, ListPage, PagedList, Place
from footlights.control.scheduling import guard, quarantine, shared_devices, views
from footlights.control.services import etags, masks, node_filters
from footlights.control.services.enrollment import identity_message
from footlights.control.services.writes import WriteRequest
from footlights.filters import matches, parse
from footlights.protocol import times
from footlights.store import pools
from footlights.store.cluster import replica_rows
from footlights.store.nodes import acceptance, fleet, identities
from footlights.store.nodes import node_rows as rows
from footlights.store.nodes.node_rows import NodeScheduling
from footlights.store.schema import moment
from footlights.v1 import node_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence, Set

    from footlights.control.call.context import Call
    from footlights.control.call.sealed import Sealer
    from footlights.control.liveness.mass_loss import MassLossGuard
    from footlights.control.services.writes import Writes
    from footlights.control.signals import Signals
    from footlights.store import Store, Transaction
    from footlights.store.schema import DeviceRow, LeaseRow, NodeRow

log = structlog.get_logger(__name__)

NOTICE_TTL = timedelta(minutes=2)
"""How long a notice is shown: an agent repeats within less what still holds."""

OPERATOR = "OPERATOR"
"""The reason for which a node is cordoned where a call has done it."""

_MOST_NAMED = 8
"""Devices that are named in a sentence."""

_MUTABLE = ("scheduling.cordoned", "scheduling.message")


class NodeService:
    """Serves nodes."""

    def __init__(
        self,
        store: Store,
        writes: Writes,
        bus: Signals,
        brake: MassLossGuard,
        clock: Callable[[], datetime],
        *,
        sealer: Sealer,
    ) -> None:
        self._store, self._writes, self._bus, self._brake, self._clock = store, writes, bus, brake, clock
        self._sealer = sealer

    async def list_nodes(self, request: node_pb2.ListNodesRequest, call: Call) -> node_pb2.ListNodesResponse:
        """Return one page of nodes, by name."""
        now = self._clock()
        condition = parse(request.filter, node_filters.MEMBERS)
        pages = PagedList(self._sealer, "nodes", request)

        def read(tx: Transaction) -> tuple[ListPage[node_pb2.Node], replica_rows.ActiveGuard | None]:
            known = guard.load(tx, now=now)

            def some(after: Place | None, limit: int) -> Chunk[node_pb2.Node]:
                found = rows.page(tx, after[0] if after else "", limit)
                items: dict[str, node_pb2.Node | None] = dict.fromkeys(row.node for row in found.rows)
                for row, message in zip(found.rows, _messages(tx, found.rows, known, now=now), strict=True):
                    if condition is None or matches(condition, node_filters.values(row, message)):
                        if request.view != node_pb2.ListNodesRequest.FULL:
                            for device in message.devices:
                                device.ClearField("events")
                        items[row.node] = message
                return Chunk([([name], message) for name, message in items.items()], found.found == limit)

            return pages.page(request, some, sparse=condition is not None), replica_rows.active_guard(tx)

        page, elsewhere = await self._store.read(read)
        answer = node_pb2.ListNodesResponse(items=page.items, next_page_token=page.next_page_token)
        # Each replica watches the heartbeats of its own nodes, and this one may have none.
        if (hold := self._brake.pause) is not None:
            _show_brake(answer.brake, hold.cause.value, hold.message, hold.since)
        elif elsewhere is not None:
            _show_brake(answer.brake, elsewhere.cause, elsewhere.message, elsewhere.since)
        return answer

    async def get_node(self, request: node_pb2.GetNodeRequest, call: Call) -> node_pb2.Node:
        """Return one node."""
        now = self._clock()
        return await self._store.read(lambda tx: _show(tx, request.node, now))

    async def cordon_node(self, request: node_pb2.CordonNodeRequest, call: Call) -> node_pb2.Node:
        """Schedule nothing new on a node."""

        def cordon(known: NodeScheduling, _: node_pb2.Node) -> NodeScheduling:
            return _cordoned(known, request.message)

        return await self._set(request.node, request, call, cordon)

    async def uncordon_node(self, request: node_pb2.UncordonNodeRequest, call: Call) -> node_pb2.Node:
        """Schedule on a node again."""
        return await self._set(request.node, request, call, lambda *_: NodeScheduling())

    async def accept_node(self, request: node_pb2.AcceptNodeRequest, call: Call) -> node_pb2.Node:
        """Let sessions be placed on a node that is new, or whose hardware has changed."""
        now = self._clock()

        def write(tx: Transaction) -> node_pb2.Node:
            _find(tx, request.node, lock=True)
            shown = _show(tx, request.node, now)
            etags.check(request.etag, shown.etag, f"node {request.node}")
            acceptance.accept(tx, request.node, {stored.hardware(device) for device in shown.devices} - {""})
            return _show(tx, request.node, now)

        def done(_: node_pb2.Node) -> None:
            log.info("node_accepted", node=request.node, subject=call.caller.subject)
            self._bus.node_changed(request.node)

        return await self._writes.run(request, call, write, answer=node_pb2.Node, done=done)

    async def drain_node(self, request: node_pb2.DrainNodeRequest, call: Call) -> node_pb2.Node:
        """Schedule nothing new on a node, and end its sessions when the time is over."""
        given = [name for name in ("drain_timeout", "deadline") if request.HasField(name)]
        if len(given) > 1:
            raise errors.InvalidArgument(
                "drain_timeout",
                "cannot be combined with deadline. Give drain_timeout.",
                reason=errors.Reason.VALUE_CONFLICT,
            )
        drain_time = None
        for name in given:
            fix = "Give 0s to end its sessions at once."
            left = bounds.bounded(name, getattr(request, name), zero=True, fix=fix)
            drain_time = self._clock() + timedelta(seconds=left)

        def drain(known: NodeScheduling, _: node_pb2.Node) -> NodeScheduling:
            return replace(_cordoned(known, request.message), draining=True, drain_time=drain_time)

        return await self._set(request.node, request, call, drain)

    async def update_node(self, request: node_pb2.UpdateNodeRequest, call: Call) -> node_pb2.Node:
        """Change what is wanted of a node."""

        def update(known: NodeScheduling, shown: node_pb2.Node) -> NodeScheduling:
            wanted = node_pb2.Node(node=request.node.node)
            wanted.scheduling.cordoned, wanted.scheduling.message = known.cordoned, known.message
            paths = masks.apply(wanted, request.node, request.update_mask, mutable=_MUTABLE, identity=("node",))
            if not wanted.scheduling.cordoned:
                if "scheduling.message" in paths and wanted.scheduling.message:
                    now = f"for {shown.scheduling.reason} only" if shown.scheduling.cordoned else "not"
                    raise errors.InvalidArgument(
                        "node.scheduling.message",
                        f"says why an operator has cordoned a node, and this one is {now}. Set cordoned as well.",
                    )
                return NodeScheduling()
            return replace(known, cordoned=True, message=wanted.scheduling.message)

        return await self._set(request.node.node, request, call, update)

    async def forget_node(self, request: node_pb2.ForgetNodeRequest, call: Call) -> node_pb2.ForgetNodeResponse:
        """Remove a node that will not come back, and end its sessions."""
        now = self._clock()

        def write(tx: Transaction) -> node_pb2.ForgetNodeResponse:
            row = _find(tx, request.node, lock=True)
            etags.check(request.etag, _show(tx, request.node, now).etag, f"node {request.node}")
            if row.connected:
                raise errors.FailedPrecondition(
                    f"Node {request.node} is connected. Drain it and stop its agent first.",
                    reason=errors.Reason.NODE_CONNECTED,
                    metadata={"node": request.node},
                )
            return node_pb2.ForgetNodeResponse(ended_session_count=rows.forget(tx, request.node, now=now))

        def done(answer: node_pb2.ForgetNodeResponse) -> None:
            log.warning("node_forgotten", node=request.node, ended=answer.ended_session_count)
            self._bus.node_changed(request.node)

        return await self._writes.run(request, call, write, answer=node_pb2.ForgetNodeResponse, done=done)

    async def _set(
        self,
        name: str,
        request: _SchedulingRequest,
        call: Call,
        change: Callable[[NodeScheduling, node_pb2.Node], NodeScheduling],
    ) -> node_pb2.Node:
        """Change what is wanted of a node; ``change`` gets what is wanted now, and the node as it is shown."""
        now = self._clock()

        def write(tx: Transaction) -> node_pb2.Node:
            row = _find(tx, name, lock=True)
            shown = _show(tx, name, now)
            etags.check(request.etag, shown.etag, f"node {name}")
            known = rows.scheduling(row)
            wanted = change(known, shown)
            if replace(wanted, subject=known.subject, since=known.since) == known:
                # Who has done it stays who did it.
                return shown
            if wanted.cordoned:
                since = known.since if known.cordoned else now
                wanted = replace(wanted, subject=call.caller.subject, since=since)
            rows.set_scheduling(tx, name, wanted, now=now)
            return _show(tx, name, now)

        def done(node: node_pb2.Node) -> None:
            scheduling = node.scheduling
            log.info("node_scheduling_set", node=name, cordoned=scheduling.cordoned, draining=scheduling.draining)
            self._bus.node_changed(name)

        return await self._writes.run(request, call, write, answer=node_pb2.Node, done=done)


class _SchedulingRequest(WriteRequest, Protocol):
    etag: str


def _cordoned(known: NodeScheduling, message: str) -> NodeScheduling:
    """Return what is wanted of a node that is cordoned now; the reason of before stays where none is given."""
    return NodeScheduling(cordoned=True, message=message or known.message)


def _find(tx: Transaction, name: str, *, lock: bool = False) -> NodeRow:
    row = rows.get(tx, name, lock=lock)
    if row is None:
        raise errors.NotFound(
            f"node: there is no node {name!r}. List them with GET /v1/nodes.",
            reason=errors.Reason.NODE_NOT_FOUND,
            metadata={"field": "node", "node": name},
        )
    return row


def _show(tx: Transaction, name: str, now: datetime) -> node_pb2.Node:
    return _messages(tx, [_find(tx, name)], guard.load(tx, now=now), now=now)[0]


def _messages(tx: Transaction, found: Sequence[NodeRow], known: guard.Guard, *, now: datetime) -> list[node_pb2.Node]:
    names = [row.node for row in found]
    devices, leases = defaultdict(list), defaultdict(list)
    for device in rows.devices(tx, names):
        devices[device.node].append(device)
    for lease in rows.live_leases(tx, names):
        leases[lease.node].append(lease)
    unwell = known.unwell_nodes()
    ahead = {each.session_id for each in pools.instances(tx)}
    messages = [
        _message(row, devices[row.node], leases[row.node], ahead, now=now, unwell=row.node in unwell) for row in found
    ]
    quarantine.show(tx, messages, now=now)
    guard.show(known, messages, now=now)
    kept: Counter[tuple[str, str]] = Counter()
    for name, held in fleet.held_needs(tx, names).items():
        for uuid, _, needs in held:
            kept[name, uuid] += views.share(needs).memory_bytes
    for message in messages:
        for shown in message.devices:
            shown.MergeFrom(node_pb2.Device(memory_reserved_bytes=kept[message.node, shown.uuid]))
    _show_shared(tx, messages, now)
    proven = identities.some(tx, names)
    for message in messages:
        if (identity := proven.get(message.node)) is not None:
            message.identity.CopyFrom(identity_message(identity))
        _fit(message)
    return messages


def _show_shared(tx: Transaction, messages: Sequence[node_pb2.Node], now: datetime) -> None:
    """Note on each node which of its GPUs other nodes report as well."""
    devices = [device for message in messages for device in message.devices if stored.hardware(device)]
    uuids = {uuid for device in devices for uuid in (device.uuid, device.parent_uuid)} - {""}
    several = [nodes for nodes in rows.reporting(tx, sorted(uuids)).values() if len(nodes) > 1]
    if not several:
        return
    members = fleet.members(tx, sorted(set().union(*several)))
    taken = {(member.node, device) for member in members for device, _ in member.leased}
    shared = shared_devices.SharedDevices(lambda node, device: (node, device) in taken)
    for member in members:
        with contextlib.suppress(DecodeError):
            shared.set_node(views.node_view(member, {}), member.created_time)
    shown = {message.node: message for message in messages}
    for node, text in shared.notices(shown):
        shown[node].notices.add(reason=shared_devices.REASON, message=text, time=times.timestamp(now))


def _fit(message: node_pb2.Node) -> None:
    """Leave out the oldest events of the devices of a node that has very many, until a client can take it."""
    for most in (10, 5, 2, 1, 0):
        if message.ByteSize() <= PAGE_BYTES:
            return
        for device in message.devices:
            del device.events[: max(0, len(device.events) - most)]


def _show_brake(shown: node_pb2.Brake, cause: str, message: str, since: datetime) -> None:
    shown.reason, shown.message = cause, message
    shown.since_time.CopyFrom(times.timestamp(since))


def _message(
    row: NodeRow,
    devices: Sequence[DeviceRow],
    leases: Sequence[LeaseRow],
    ahead: Set[str],
    *,
    now: datetime,
    unwell: bool,
) -> node_pb2.Node:
    message = node_pb2.Node(
        node=row.node,
        state=stored.node_state(row, busy=bool(leases), unwell=unwell),
        condition=node_pb2.Node.CONNECTED if row.reachable else node_pb2.Node.DISCONNECTED,
        facts=node_pb2.NodeFacts.FromString(row.facts),
        created_time=times.timestamp(row.created_time),
        epoch=row.epoch,
        session_count=len({lease.session_id for lease in leases} - ahead),
    )
    for name in ("connected_time", "last_seen_time", "drain_time"):
        time = getattr(row, name)
        if time is not None:
            getattr(message, name).CopyFrom(times.timestamp(time))
    for reason, (text, met) in sorted(row.notices.items()):
        if abs(now - moment(met)) < NOTICE_TTL:
            message.notices.add(reason=reason, message=text, time=times.timestamp(moment(met)))
    leased = defaultdict(list)
    for lease in leases:
        leased[lease.device].append(lease)
    for device in devices:
        shown = message.devices.add()
        shown.MergeFromString(device.reading)
        held = leased[device.uuid]
        shown.slots = device.slots
        shown.slots_leased = len(held)
        shown.sessions.extend(sorted({lease.session_id for lease in held}))
    # Each kind is numbered by itself: GPUs first, then the software renderers beside them.
    message.devices.sort(key=lambda device: (device.kind == node_pb2.Device.SOFTWARE, device.index, device.uuid))
    if ailment := stored.needs_reboot(node_pb2.Device.FromString(row.reading) for row in devices if row.sick):
        message.notices.add(reason=stored.REBOOT_NEEDED, message=ailment, time=times.timestamp(now))
        if message.state in (node_pb2.Node.READY, node_pb2.Node.UNWELL):
            message.state = node_pb2.Node.CORDONED
    _acceptance(message, row)
    _scheduling(message, rows.scheduling(row), ailment)
    return message


def _acceptance(message: node_pb2.Node, row: NodeRow) -> None:
    """Show why a node has to be accepted first."""
    if not row.acceptance:
        return
    text = "The node is new"
    if row.acceptance == acceptance.HARDWARE_CHANGED:
        known = acceptance.hardware(row) | {""}
        added = [device for device in message.devices if stored.hardware(device) not in known]
        named = ", ".join(f"{device.name or 'device'} {device.uuid}" for device in added[:_MOST_NAMED])
        more = f" and {len(added) - _MOST_NAMED} more" if len(added) > _MOST_NAMED else ""
        text = f"The node has devices that were not accepted: {named}{more}"
    text += f". If that is as it should be: footlights nodes accept {row.node}."
    message.acceptance.reason, message.acceptance.message = row.acceptance, text


def _scheduling(message: node_pb2.Node, wanted: NodeScheduling, ailment: str) -> None:
    """Show what is wanted of a node; ``ailment`` is why its driver asks for a reboot, empty where it does not."""
    shown = node_pb2.Node.Scheduling()
    if wanted.cordoned or wanted.draining:
        shown.cordoned, shown.draining = True, wanted.draining
        shown.reason, shown.message, shown.subject = OPERATOR, wanted.message, wanted.subject
        if wanted.since is not None:
            shown.since_time.CopyFrom(times.timestamp(wanted.since))
        if wanted.drain_time is not None:
            shown.drain_time.CopyFrom(times.timestamp(wanted.drain_time))
    elif message.HasField("acceptance"):
        shown.cordoned, shown.reason, shown.message = True, message.acceptance.reason, message.acceptance.message
    elif ailment:
        shown.cordoned, shown.reason, shown.message = True, stored.REBOOT_NEEDED, ailment
    message.scheduling.CopyFrom(shown)
    identity = node_pb2.Node(node=message.node, created_time=message.created_time, scheduling=message.scheduling)
    if message.HasField("acceptance"):
        identity.acceptance.CopyFrom(message.acceptance)
    message.etag = etags.of_contents(identity)
