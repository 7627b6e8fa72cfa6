"""What would happen to a session, from the fleet as it is now.

Of a large fleet an answer shows some nodes for each verdict; the counts are over all nodes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from footlights import scheduler
from footlights.control.scheduling import crash_loops, pending, quarantine, views
from footlights.control.services.sessions.present import wait_reason
from footlights.protocol import times
from footlights.store.nodes import fleet
from footlights.supervision import Supervisor
from footlights.v1 import session_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from footlights.control.scheduling.crash_loops import CrashBlocks
    from footlights.control.scheduling.pending import Outlook, QueuePage
    from footlights.control.services.sessions.resolve import Resolved
    from footlights.store import Transaction
    from footlights.store.nodes.fleet import FleetNode


@dataclass(frozen=True, slots=True)
class FleetSnapshot:
    """What an explanation is made from, as it was read."""

    members: Sequence[FleetNode]
    queue: QueuePage
    outlook: Outlook
    crashes: CrashBlocks
    quarantined: Mapping[tuple[str, str], str]


def read(tx: Transaction, *, now: datetime) -> FleetSnapshot:
    """Read the fleet and the queue. The explanation is made outside the transaction: of a large fleet it takes long."""
    return FleetSnapshot(
        fleet.members(tx),
        pending.read_all(tx, now=now),
        pending.outlook(tx, now=now),
        crash_loops.load(tx, now=now),
        quarantine.load(tx, now=now),
    )


def explain(snapshot: FleetSnapshot, resolved: Resolved, priority: int) -> session_pb2.ExplainPlacementResponse:
    """Explain what would happen to a session of a version."""
    nodes = views.node_views(snapshot.members, snapshot.quarantined)
    version = resolved.version.application, resolved.version.version
    blocks = snapshot.crashes.of(*version)
    wish = views.needs_wish("", version, resolved.launcher, resolved.needs, {}, blocks)
    # A session waits behind those of its own priority; those behind it cannot delay it.
    ahead = sum(1 for row in snapshot.queue.rows if row.priority >= priority)
    before = replace(snapshot.queue, rows=snapshot.queue.rows[:ahead])
    wishes = pending.Wishes(Supervisor()).of_page(before, snapshot.crashes)
    answer = explanation(nodes, wish, wishes, snapshot.outlook)
    if answer.queue_position:
        answer.queue_position += ahead - len(wishes)  # those that cannot be read wait as well
    return answer


def explanation(
    nodes: Sequence[scheduler.NodeView], wish: scheduler.Wish, ahead: Sequence[scheduler.Wish], outlook: Outlook
) -> session_pb2.ExplainPlacementResponse:
    """Return verdicts on a wish, some for each outcome, counts over all nodes, and the place and wait in the queue."""
    index = scheduler.Index(nodes)
    unserved = index.unserved(wish)
    reasons = unserved or index.reasons(wish)
    answer = session_pb2.ExplainPlacementResponse(
        node_count=len(nodes),
        reasons=[each.text for each in reasons],
        wait_reasons=[wait_reason(each) for each in reasons],
    )
    for node in index.explain(wish):
        shown = answer.nodes.add(node=node.node, reason=node.verdict.reason, message=node.verdict.message)
        for device in node.devices:
            shown.devices.add(
                device=device.uuid,
                device_name=device.name,
                reason=device.verdict.reason,
                message=device.verdict.message,
            )
    if unserved:
        return answer
    waiting = sum(index.place(each) is None and not index.unserved(each) for each in ahead)
    choice = index.place(wish)
    if choice is not None:
        answer.fits, answer.node, answer.device = True, choice.node, choice.device
        return answer
    answer.queue_position = waiting + 1
    eta = outlook.eta_s(answer.queue_position)
    if eta is not None:
        answer.eta.CopyFrom(times.duration(eta))
        answer.estimated_wait_duration.CopyFrom(answer.eta)
    return answer
