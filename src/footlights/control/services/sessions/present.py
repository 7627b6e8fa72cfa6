"""Sessions as API messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from footlights.control import stored
from footlights.control.scheduling import views
from footlights.lifecycle import SessionState
from footlights.protocol.output import bounded_tail
from footlights.protocol.times import duration, timestamp
from footlights.store.launches import launch_rows
from footlights.store.nodes import node_rows
from footlights.store.schema import LaunchRow, SessionRow, moment
from footlights.v1 import node_pb2, session_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from footlights.store import Transaction


NOT_BASIC: Final[tuple[Literal["application_arguments", "timeline", "routes"], ...]] = (
    "application_arguments",
    "timeline",
    "routes",
)
"""What a list leaves out in its basic view."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where viewers reach this control plane, and whether they connect to nodes directly."""

    host: str
    port: int
    direct_routes: bool = False


def list_sessions(tx: Transaction, rows: Sequence[SessionRow], origin: Origin) -> list[session_pb2.Session]:
    """Return sessions as items of a list: without output, of which a page may hold more than a client takes."""
    return show_sessions(tx, rows, origin, output=False)


def show_sessions(
    tx: Transaction, rows: Sequence[SessionRow], origin: Origin, *, output: bool = True
) -> list[session_pb2.Session]:
    """Return sessions as messages, with what their launch and node add."""
    found = launch_rows.some(tx, [row.launch_id for row in rows if row.launch_id], output=output)
    routed = {launch.node for launch in found.values() if launch.signal_port and launch.ended_time is None}
    facts = {node: node_pb2.NodeFacts.FromString(raw) for node, raw in node_rows.facts(tx, routed).items()}
    readings = node_rows.readings(tx, {(launch.node, launch.device) for launch in found.values()})
    names_of = {device: views.device_name(raw) for device, raw in readings.items()}
    shown = []
    for row in rows:
        current = found.get(row.launch_id) if row.launch_id else None
        node, name = None, ""
        if current is not None:
            node, name = facts.get(current.node), names_of.get((current.node, current.device), "")
        shown.append(session_message(row, current, node, name, origin=origin))
    return shown


def show_session(tx: Transaction, row: SessionRow, origin: Origin) -> session_pb2.Session:
    """Return one session as its message."""
    return show_sessions(tx, [row], origin)[0]


def session_message(
    row: SessionRow,
    launch: LaunchRow | None = None,
    facts: node_pb2.NodeFacts | None = None,
    device_name: str = "",
    *,
    origin: Origin,
) -> session_pb2.Session:
    """Return one session as a message."""
    applied = stored.limits(row)
    message = session_pb2.Session(
        session_id=row.session_id,
        application=row.application,
        application_version=row.application_version,
        username=row.username,
        created_time=timestamp(row.created_time),
        state=session_pb2.Session.State.Value(row.state),
        condition=session_pb2.Session.Condition.Value(row.condition),
        status_message=row.status_message,
        revision=row.revision,
        profile=row.profile,
        priority=row.priority,
        labels=row.labels,
        request_id=row.request_id,
        launch_count=row.launch_count,
    )
    message.application_arguments.update(row.arguments)
    if row.end_reason:
        message.end_reason = session_pb2.Session.EndReason.Value(row.end_reason)
    if row.ready_time is not None:
        message.ready_time.CopyFrom(timestamp(row.ready_time))
    if row.ended_time is not None:
        message.ended_time.CopyFrom(timestamp(row.ended_time))
    if applied.HasField("max_duration"):
        message.max_duration.CopyFrom(applied.max_duration)
    if applied.HasField("idle_timeout"):
        message.idle_timeout.CopyFrom(applied.idle_timeout)
    for stage, when in row.timeline:
        message.timeline.add(stage=session_pb2.Session.Milestone.Stage.Value(stage), time=timestamp(moment(when)))
    if row.state == SessionState.PENDING:
        _queue(message, row.queue)
    if launch is not None:
        _launch(message, row, launch, facts, device_name, origin)
    return message


def _queue(message: session_pb2.Session, queue: Mapping[str, Any]) -> None:
    message.queue.SetInParent()
    if queue:
        message.queue.position = queue["position"]
        message.queue.reasons.extend(queue["reasons"])
        if queue["eta_s"] is not None:
            message.queue.eta.CopyFrom(duration(queue["eta_s"]))
        if not message.status_message:
            message.status_message = f"Waits for a device: {', '.join(queue['reasons'])}."


def _launch(
    message: session_pb2.Session,
    row: SessionRow,
    launch: LaunchRow,
    facts: node_pb2.NodeFacts | None,
    device_name: str,
    origin: Origin,
) -> None:
    message.node = launch.node
    message.device = launch.device
    message.device_name = device_name
    if launch.exit_code is not None:
        message.exit_code = launch.exit_code
    if SessionState(row.state).has_picture:
        if launch.viewers is not None:
            message.viewers = launch.viewers
        if facts is not None and launch.signal_port:
            _routes(message, launch, facts, origin)
    if row.state == SessionState.FAILED:
        message.log_tail.extend(bounded_tail(launch.log_tail))


def _routes(message: session_pb2.Session, launch: LaunchRow, facts: node_pb2.NodeFacts, origin: Origin) -> None:
    node_host = facts.public_address
    signaling = (node_host, launch.signal_port) if origin.direct_routes else (origin.host, origin.port)
    for description, protocol, (host, source), destination in (
        ("signaling", "TCP", signaling, launch.signal_port),
        ("media", "UDP", (node_host, launch.media_port), launch.media_port),
    ):
        message.routes[host].routes.add(
            description=description, protocol=protocol, source_port=source, destination_port=destination
        )
