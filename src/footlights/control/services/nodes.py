"""NodeService: shows nodes, cordons, drains and forgets them."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import structlog

from footlights import errors
from footlights.control import stored
from footlights.control.call import bounds
from footlights.control.scheduling import quarantine
from footlights.protocol import times
from footlights.store.cluster import replica_rows
from footlights.store.launches import launch_rows
from footlights.store.nodes import node_rows as rows
from footlights.store.schema import moment
from footlights.v1 import node_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from footlights.control.call.context import Call
    from footlights.control.liveness.mass_loss import MassLossGuard
    from footlights.control.signals import Signals
    from footlights.store import Store, Transaction
    from footlights.store.schema import DeviceRow, LeaseRow, NodeRow

log = structlog.get_logger(__name__)

NOTICE_TTL = timedelta(minutes=2)
"""How long a notice is shown: an agent repeats within less what still holds."""


class NodeService:
    """Serves nodes."""

    def __init__(self, store: Store, bus: Signals, brake: MassLossGuard, clock: Callable[[], datetime]) -> None:
        self._store, self._bus, self._brake, self._clock = store, bus, brake, clock

    async def list_nodes(self, request: node_pb2.ListNodesRequest, call: Call) -> node_pb2.ListNodesResponse:
        """Return all nodes."""
        now = self._clock()

        def read(tx: Transaction) -> tuple[list[node_pb2.Node], replica_rows.ActiveGuard | None]:
            devices, leases = defaultdict(list), defaultdict(list)
            for device in rows.devices(tx):
                devices[device.node].append(device)
            for lease in launch_rows.live_leases(tx):
                leases[lease.node].append(lease)
            found = [_message(row, devices[row.node], leases[row.node], now=now) for row in rows.everyone(tx)]
            quarantine.show(tx, found, now=now)
            return found, replica_rows.active_guard(tx)

        items, elsewhere = await self._store.read(read)
        answer = node_pb2.ListNodesResponse(items=items)
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
        return await self._set(request.node, cordoned=True, draining=False)

    async def uncordon_node(self, request: node_pb2.UncordonNodeRequest, call: Call) -> node_pb2.Node:
        """Schedule on a node again."""
        return await self._set(request.node, cordoned=False, draining=False)

    async def drain_node(self, request: node_pb2.DrainNodeRequest, call: Call) -> node_pb2.Node:
        """Schedule nothing new on a node, and end its sessions at the deadline."""
        deadline = None
        if request.HasField("deadline"):
            fix = "Give 0s to end its sessions at once."
            left = bounds.bounded("deadline", request.deadline, zero=True, fix=fix)
            deadline = self._clock() + timedelta(seconds=left)
        return await self._set(request.node, cordoned=True, draining=True, drain_time=deadline)

    async def update_node(self, request: node_pb2.UpdateNodeRequest, call: Call) -> node_pb2.Node:
        """Not served yet."""
        raise errors.Unavailable("Not served yet.", reason=errors.LocalReason.NOT_SERVED)

    async def forget_node(self, request: node_pb2.ForgetNodeRequest, call: Call) -> node_pb2.ForgetNodeResponse:
        """Remove a node that will not come back, and end its sessions."""
        now = self._clock()

        def write(tx: Transaction) -> int:
            row = _find(tx, request.node)
            if row.connected:
                raise errors.FailedPrecondition(
                    f"Node {request.node} is connected. Drain it and stop its agent first.",
                    reason=errors.Reason.NODE_CONNECTED,
                    metadata={"node": request.node},
                )
            return rows.forget(tx, request.node, now=now)

        ended = await self._store.write(write)
        log.warning("node_forgotten", node=request.node, ended=ended)
        self._bus.node_changed(request.node)
        return node_pb2.ForgetNodeResponse(ended_session_count=ended)

    async def _set(
        self, name: str, *, cordoned: bool, draining: bool, drain_time: datetime | None = None
    ) -> node_pb2.Node:
        now = self._clock()

        def write(tx: Transaction) -> node_pb2.Node:
            _find(tx, name)
            rows.set_placing(tx, name, cordoned=cordoned, draining=draining, drain_time=drain_time, now=now)
            return _show(tx, name, now)

        node = await self._store.write(write)
        self._bus.node_changed(name)
        return node


def _find(tx: Transaction, name: str) -> NodeRow:
    row = rows.get(tx, name)
    if row is None:
        raise errors.NotFound(
            f"node: there is no node {name!r}. List them with GET /nodes.",
            reason=errors.Reason.NODE_NOT_FOUND,
            metadata={"field": "node", "node": name},
        )
    return row


def _show(tx: Transaction, name: str, now: datetime) -> node_pb2.Node:
    found = _message(_find(tx, name), rows.devices(tx, name), rows.live_leases(tx, name), now=now)
    quarantine.show(tx, [found], now=now, node=name)
    return found


def _show_brake(shown: node_pb2.Brake, cause: str, message: str, since: datetime) -> None:
    shown.reason, shown.message = cause, message
    shown.since_time.CopyFrom(times.timestamp(since))


def _message(row: NodeRow, devices: Sequence[DeviceRow], leases: Sequence[LeaseRow], *, now: datetime) -> node_pb2.Node:
    message = node_pb2.Node(
        node=row.node,
        state=stored.node_state(row, bool(leases)),
        facts=node_pb2.NodeFacts.FromString(row.facts),
        created_time=times.timestamp(row.created_time),
        epoch=row.epoch,
        session_count=len({lease.session_id for lease in leases}),
    )
    for name in ("connected_time", "last_seen_time", "drain_time"):
        time = getattr(row, name)
        if time is not None:
            getattr(message, name).CopyFrom(times.timestamp(time))
    for reason, (text, met) in sorted(row.notices.items()):
        if abs(now - moment(met)) < NOTICE_TTL:
            message.notices.add(reason=reason, message=text, time=times.timestamp(moment(met)))
    for device in devices:
        shown = message.devices.add()
        shown.MergeFromString(device.reading)
        held = [lease for lease in leases if lease.device == device.uuid]
        shown.slots = device.slots
        shown.slots_leased = len(held)
        shown.sessions.extend(sorted({lease.session_id for lease in held}))
    message.devices.sort(key=lambda device: (device.index, device.uuid))
    if ailment := stored.needs_reboot(node_pb2.Device.FromString(row.reading) for row in devices if row.sick):
        message.notices.add(reason=stored.REBOOT_NEEDED, message=ailment, time=times.timestamp(now))
        if message.state == node_pb2.Node.READY:
            message.state = node_pb2.Node.CORDONED
    return message
