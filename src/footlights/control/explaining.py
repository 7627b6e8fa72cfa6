"""What would happen to a session, from the fleet as it is now.

Of a large fleet an answer shows some nodes of every sort; their counts are over all.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from footlights import scheduler
from footlights.control import convert, crashes, quarantine, waiting
from footlights.control.resolving import Resolved
from footlights.control.waiting import Outlook
from footlights.store import Transaction, fleet
from footlights.v1 import session_pb2


def explain(
    tx: Transaction, resolved: Resolved, priority: int, *, now: datetime
) -> session_pb2.ExplainPlacementResponse:
    """Read the fleet and the queue, and explain what would happen to a session of a version."""
    blocked, quarantined = crashes.load(tx, now=now), quarantine.load(tx, now=now)
    nodes = [convert.node_view(member, quarantined) for member in fleet.members(tx)]
    version = resolved.version.application, resolved.version.version
    wish = convert.needs_wish("", version, resolved.launcher, resolved.needs, {}, blocked.of(*version))
    queue = waiting.queue(tx, now=now)
    # Its place is behind those of its own priority; what is behind it can take nothing from it.
    ahead = sum(1 for row in queue.waiting if row.priority >= priority)
    return explanation(nodes, wish, queue.wishes(blocked)[:ahead], waiting.outlook(tx, now=now))


def explanation(
    nodes: Sequence[scheduler.NodeView], wish: scheduler.Wish, ahead: Sequence[scheduler.Wish], outlook: Outlook
) -> session_pb2.ExplainPlacementResponse:
    """Return verdicts on a wish, some of every sort, their counts over all, and its place and wait if it must wait."""
    index = scheduler.Index(nodes)
    answer = session_pb2.ExplainPlacementResponse(node_count=len(nodes), reasons=index.reasons(wish))
    for node in index.explain(wish):
        shown = answer.nodes.add(node=node.node, reason=node.verdict.reason, message=node.verdict.message)
        for device in node.devices:
            shown.devices.add(
                device=device.uuid,
                device_name=device.name,
                reason=device.verdict.reason,
                message=device.verdict.message,
            )
    decision = index.place_all([*ahead, wish])[-1]
    if isinstance(decision, scheduler.Placement):
        answer.fits, answer.node, answer.device = True, decision.node, decision.device
        return answer
    answer.queue_position = decision.position
    eta = outlook.eta_s(decision.position)
    if eta is not None:
        answer.eta.CopyFrom(convert.duration(eta))
    return answer
