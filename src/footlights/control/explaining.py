"""What would happen to a session, from the fleet as it is now."""

from __future__ import annotations

from footlights import scheduler
from footlights.control import convert
from footlights.control.fleet import Fleet
from footlights.v1 import session_pb2


def explanation(seen: Fleet, wish: scheduler.Wish, priority: int) -> session_pb2.ExplainPlacementResponse:
    """Return the verdict of every node and device on a wish, and its place and wait where it would not fit."""
    answer = session_pb2.ExplainPlacementResponse()
    for node in scheduler.verdicts(wish, seen.nodes):
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
    decision = scheduler.place([*seen.wishes()[:ahead], wish], seen.nodes)[-1]
    if isinstance(decision, scheduler.Placement):
        answer.fits, answer.node, answer.device = True, decision.node, decision.device
        return answer
    answer.queue_position = decision.position
    eta = seen.eta_s(decision.position)
    if eta is not None:
        answer.eta.CopyFrom(convert.duration(eta))
    return answer
