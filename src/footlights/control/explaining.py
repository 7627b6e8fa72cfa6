"""What would happen to a session, from the fleet as it is now."""

from __future__ import annotations

from footlights import scheduler
from footlights.control import convert
from footlights.control.fleet import Fleet
from footlights.v1 import session_pb2


def explanation(seen: Fleet, wish: scheduler.Wish, priority: int) -> session_pb2.ExplainPlacementResponse:
    """Return verdicts on a wish, some of every sort, their counts over all, and its place and wait if it must wait."""
    index = scheduler.Index(seen.nodes)
    answer = session_pb2.ExplainPlacementResponse(node_count=len(seen.nodes), reasons=index.reasons(wish))
    for node in index.explain(wish):
        shown = answer.nodes.add(node=node.node, reason=node.verdict.reason, message=node.verdict.message)
        for device in node.devices:
            shown.devices.add(
                device=device.uuid,
                device_name=device.name,
                reason=device.verdict.reason,
                message=device.verdict.message,
            )
    # Its place is behind those of its own priority; what is behind it can take nothing from it.
    ahead = sum(1 for row in seen.waiting if row.priority >= priority)
    decision = index.place_all([*seen.wishes()[:ahead], wish])[-1]
    if isinstance(decision, scheduler.Placement):
        answer.fits, answer.node, answer.device = True, decision.node, decision.device
        return answer
    answer.queue_position = decision.position
    eta = seen.eta_s(decision.position)
    if eta is not None:
        answer.eta.CopyFrom(convert.duration(eta))
    return answer
