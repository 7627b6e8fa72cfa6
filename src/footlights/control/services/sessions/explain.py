"""What would happen to a session, from the fleet as it is now.

Of a large fleet an answer shows some nodes for each verdict; the counts are over all nodes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from google.protobuf.struct_pb2 import Struct

from footlights import errors, scheduler
from footlights.control import stored
from footlights.control.scheduling import guard, pending, quarantine, views
from footlights.control.scheduling.outlook import History, Outlook, WaitingSession, affected
from footlights.control.services.sessions import resolve
from footlights.control.services.sessions.present import wait_reason
from footlights.protocol import times
from footlights.store.launches import launch_rows
from footlights.store.nodes import fleet
from footlights.supervision import Supervisor
from footlights.v1 import session_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from footlights.control.scheduling.guard import Guard
    from footlights.control.scheduling.pending import QueuePage
    from footlights.control.scheduling.views import TimeApart
    from footlights.control.services.sessions.resolve import Resolved
    from footlights.store import Transaction
    from footlights.store.launches.launch_rows import HeldSlots
    from footlights.store.nodes.fleet import FleetNode


MOST_ESTIMATED = pending.PAGE
"""What stands further behind has no estimate."""


@dataclass(frozen=True, slots=True)
class FleetSnapshot:
    """What an explanation is made from, as it was read."""

    members: Sequence[FleetNode]
    queue: QueuePage
    now: datetime
    history: History
    held: Sequence[HeldSlots]
    guard: Guard
    quarantined: Mapping[tuple[str, str], TimeApart]


def read(tx: Transaction, *, now: datetime) -> FleetSnapshot:
    """Read the fleet and the queue. The explanation is made outside the transaction: of a large fleet it takes long."""
    known = guard.load(tx, now=now)
    return FleetSnapshot(
        fleet.members(tx),
        pending.read_all(tx, now=now),
        now,
        History.load(tx),
        launch_rows.held_slots(tx),
        known,
        known.devices() | quarantine.load(tx, now=now),
    )


def explain(
    snapshot: FleetSnapshot, resolved: Resolved, priority: int, username: str
) -> session_pb2.ExplainPlacementResponse:
    """Explain what would happen to a session of a version that a user creates without arguments."""
    nodes = views.node_views(snapshot.members, snapshot.quarantined)
    version = resolved.version.application, resolved.version.version
    wish = views.needs_wish("", version, resolved.launcher, resolved.needs, {})
    wish = views.kept_away(replace(wish, username=username, given=_given_nothing(resolved)), snapshot.guard)
    # A session waits behind those of its own priority; those behind it cannot delay it.
    ahead = sum(1 for row in snapshot.queue.rows if row.priority >= priority)
    before = replace(snapshot.queue, rows=snapshot.queue.rows[:ahead])
    waiting = pending.Wishes(Supervisor()).of_page(before, snapshot.guard)
    mine = WaitingSession("", wish, "", stored.packed_limits(resolved.limits))
    now = snapshot.now

    def outlook(index: scheduler.Index) -> Outlook:
        return Outlook.of(snapshot.history, snapshot.held, index.device_name, now=now)

    answer = explanation(nodes, mine, waiting, outlook)
    if answer.queue_position:
        answer.queue_position += ahead - len(waiting)  # those that cannot be read wait as well
    return answer


def _given_nothing(resolved: Resolved) -> str | None:
    """Return what stands for the defaults of a version; None where it has an argument without one."""
    try:
        return resolve.arguments(resolved, Struct(), {}).given
    except errors.Error:
        return None


def explanation(
    nodes: Sequence[scheduler.NodeView],
    mine: WaitingSession,
    ahead: Sequence[WaitingSession],
    outlook: Callable[[scheduler.Index], Outlook],
) -> session_pb2.ExplainPlacementResponse:
    """Return verdicts on a wish, some for each outcome, counts over all nodes, and the place and wait in the queue."""
    index, wish = scheduler.Index(nodes), mine.wish
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
    waiting = [each for each in ahead if index.place(each.wish) is None and not index.unserved(each.wish)]
    choice = index.place(wish)
    if choice is not None:
        answer.fits, answer.node, answer.device = True, choice.node, choice.device
        return answer
    answer.queue_position = len(waiting) + 1
    if answer.queue_position > MOST_ESTIMATED:
        return answer
    seen, line = outlook(index), [*waiting, mine]
    apart = [node.name for node in nodes if any(device.back_s is not None for device in node.devices)]
    around = affected(index, seen.ends, [each.wish for each in line], apart=apart)
    eta = seen.etas(around, line).get(mine.session_id)
    if eta is not None:
        answer.eta.CopyFrom(times.duration(eta))
        answer.estimated_wait_duration.CopyFrom(answer.eta)
    return answer
