"""Sessions as API messages."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from footlights.control import stored
from footlights.control.routes import add_routes
from footlights.control.scheduling import views
from footlights.control.services import etags
from footlights.launch.recipe.stages import unopened
from footlights.lifecycle import Intent, SessionState, known
from footlights.protocol import enums
from footlights.protocol.output import bounded_tail
from footlights.protocol.times import duration, seconds, timestamp
from footlights.scheduler import WaitReason
from footlights.store import applications
from footlights.store.launches import launch_rows
from footlights.store.nodes import node_rows
from footlights.store.schema import LaunchRow, SessionRow, moment
from footlights.v1 import application_pb2, node_pb2, session_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from google.protobuf.internal.enum_type_wrapper import _EnumTypeWrapper

    from footlights.control.routes import Origin
    from footlights.store import Transaction


V = TypeVar("V", bound=int)
NOT_BASIC: Final[tuple[Literal["application_arguments", "timeline", "routes"], ...]] = (
    "application_arguments",
    "timeline",
    "routes",
)
"""What a list leaves out in its basic view."""


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
    signaling: dict[tuple[str, str], application_pb2.Signaling] = {}
    shown = []
    for row in rows:
        current = found.get(row.launch_id) if row.launch_id else None
        if current is None:
            shown.append(session_message(row))
            continue
        node, name = facts.get(current.node), names_of.get((current.node, current.device), "")
        message = session_message(row, current, device_name=name)
        if node is not None and current.signal_port and _has_picture(row):
            version = row.application, row.application_version
            signaling[version] = signaling.get(version) or _signaling(tx, *version)
            add_routes(message, current, signaling[version], node, origin)
        shown.append(message)
    return shown


def _has_picture(row: SessionRow) -> bool:
    state = known(SessionState, row.state)
    return state is not None and state.has_picture


def _signaling(tx: Transaction, application: str, version: str) -> application_pb2.Signaling:
    row = applications.version(tx, application, version)
    return application_pb2.Version.FromString(row.recipe if row else b"").signaling


def wait_reason(why: WaitReason) -> session_pb2.Session.WaitReason:
    """Return why a session waits as its message."""
    counts = {f"{why.thing}_count": why.number} if why.thing else {}
    return session_pb2.Session.WaitReason(reason=why.reason, message=why.message, **counts)


def show_session(tx: Transaction, row: SessionRow, origin: Origin) -> session_pb2.Session:
    """Return one session as its message."""
    return show_sessions(tx, [row], origin)[0]


def session_message(
    row: SessionRow,
    launch: LaunchRow | None = None,
    device_name: str = "",
) -> session_pb2.Session:
    """Return one session as a message, without its routes."""
    applied = stored.limits(row)
    unknown: dict[str, str] = {}
    message = session_pb2.Session(
        session_id=row.session_id,
        application=row.application,
        application_version=row.application_version,
        username=row.username,
        created_by=row.created_by,
        created_time=timestamp(row.created_time),
        updated_time=timestamp(_updated(row)),
        state=_number(unknown, "state", session_pb2.Session.State, row.state),
        condition=_number(unknown, "condition", session_pb2.Session.Condition, row.condition),
        end_reason=_number(unknown, "end_reason", session_pb2.Session.EndReason, row.end_reason),
        status_message=row.status_message,
        revision=row.revision,
        profile=row.profile,
        priority=row.priority,
        labels=row.labels,
        request_id=row.request_id,
        launch_count=row.launch_count,
        started_from_pool=row.from_pool or "",
        limits=applied,
        etag=etags.of_session(row),
        stage_message=unopened(row.stage_delivery, row.usd_stage_uri),
    )
    message.application_arguments.update(row.arguments)
    if row.ready_time is not None:
        message.ready_time.CopyFrom(timestamp(row.ready_time))
    if row.ended_time is not None:
        message.ended_time.CopyFrom(timestamp(row.ended_time))
    state = known(SessionState, row.state)
    if state is not None and state.has_picture and row.ready_time is not None and applied.HasField("max_duration"):
        longest = timedelta(seconds=seconds(applied.max_duration))
        message.expected_end_time.CopyFrom(timestamp(row.ready_time + longest))
    if applied.HasField("max_duration"):
        message.max_duration.CopyFrom(applied.max_duration)
    if applied.HasField("idle_timeout"):
        message.idle_timeout.CopyFrom(applied.idle_timeout)
    for number, (stage, when) in enumerate(row.timeline):
        shown = _number(unknown, f"timeline[{number}].stage", session_pb2.Session.Milestone.Stage, stage)
        message.timeline.add(stage=shown, time=timestamp(moment(when)))
    message.unknown_values.update(unknown)
    if row.state == SessionState.PENDING:
        _queue(message, row.queue)
    if launch is not None:
        _launch(message, row, launch, device_name)
    return message


def _updated(row: SessionRow) -> datetime:
    """Return when a session last changed: its timeline says it of one that a replica of the release before wrote."""
    known_times = (row.updated_time, row.ended_time, *(moment(when) for _, when in row.timeline))
    return max((each for each in known_times if each is not None), default=row.created_time)


def _number(unknown: dict[str, str], member: str, kind: _EnumTypeWrapper[V], text: str) -> V:
    """Return the number of a stored value; unspecified, and its text in ``unknown``, for one of a later release."""
    number = enums.number_of(kind, text)
    if not number and text:
        unknown[member] = text
    return number


def _queue(message: session_pb2.Session, queue: Mapping[str, Any]) -> None:
    message.queue.SetInParent()
    if queue:
        message.queue.position = queue["position"]
        message.queue.set_aside = not queue["position"]
        message.queue.reasons.extend(queue["reasons"])
        message.queue.wait_reasons.extend(wait_reason(WaitReason(*each[:4])) for each in queue.get("wait_reasons", ()))
        if queue["eta_s"] is not None:
            message.queue.eta.CopyFrom(duration(queue["eta_s"]))
            message.queue.estimated_wait_duration.CopyFrom(message.queue.eta)
        if not message.status_message:
            message.status_message = _waits(message.queue)


def _waits(queue: session_pb2.Session.Queue) -> str:
    if queue.set_aside:
        return f"Set aside: {queue.wait_reasons[0].message}. It is placed when a node that could serve it joins."
    return f"Waits for a device: {', '.join(queue.reasons)}."


def _launch(
    message: session_pb2.Session,
    row: SessionRow,
    launch: LaunchRow,
    device_name: str,
) -> None:
    message.node = launch.node
    message.device = launch.device
    message.device_name = device_name
    if launch.exit_code is not None:
        message.exit_code = launch.exit_code
    if _has_picture(row) and launch.viewers is not None:
        message.viewers = launch.viewers
    if row.state == SessionState.FAILED and row.intent == Intent.RUN:
        message.failure_reason = launch.reason
    if row.state == SessionState.FAILED:
        message.log_tail.extend(bounded_tail(launch.log_tail))
