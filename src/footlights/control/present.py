"""Rows as callers see them: the messages of the API."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from footlights.control import limits as limits_of
from footlights.control.scheduling import node_conditions
from footlights.protocol.times import duration, timestamp
from footlights.store.nodes.node_rows import NodeStanding
from footlights.store.schema import (
    ApplicationRow,
    DeviceRow,
    LaunchRow,
    LeaseRow,
    NodeRow,
    ReleaseRow,
    SessionRow,
    TokenRow,
    moment,
)
from footlights.v1 import application_pb2, node_pb2, session_pb2, token_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

NOTICE_TTL = timedelta(minutes=2)
"""How long a notice is shown: what lasts is met again within less."""

_ROUTED = ("READY", "ACTIVE")


@dataclass(frozen=True, slots=True)
class Origin:
    """How viewers reach this control plane, and whether they dial nodes themselves."""

    host: str
    port: int
    direct_routes: bool = False


def session(
    row: SessionRow,
    launch: LaunchRow | None = None,
    facts: node_pb2.NodeFacts | None = None,
    device_name: str = "",
    *,
    origin: Origin,
) -> session_pb2.Session:
    """Return a session as callers see it."""
    applied = limits_of.of_session(row)
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
    if row.state == "PENDING":
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
    if row.state in _ROUTED:
        if launch.viewers is not None:
            message.viewers = launch.viewers
        if facts is not None and launch.signal_port:
            _routes(message, launch, facts, origin)
    if row.state == "FAILED":
        message.log_tail.extend(launch.log_tail)


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


def application(row: ApplicationRow, releases: Iterable[ReleaseRow]) -> application_pb2.Application:
    """Return an application with its releases."""
    return application_pb2.Application(
        application=row.application,
        display_name=row.display_name,
        description=row.description,
        tags=row.tags,
        created_time=timestamp(row.created_time),
        releases={release.release: release.version for release in releases},
    )


def release(row: ReleaseRow) -> application_pb2.Release:
    """Return a release."""
    return application_pb2.Release(
        application=row.application,
        release=row.release,
        version=row.version,
        updated_time=timestamp(row.updated_time),
    )


def version(application_id: str, recipe: bytes, created_time: datetime) -> application_pb2.Version:
    """Return a version from its stored recipe."""
    message = application_pb2.Version.FromString(recipe)
    message.application = application_id
    message.created_time.CopyFrom(timestamp(created_time))
    return message


def recipe(message: application_pb2.Version) -> bytes:
    """Return a version's recipe as it is stored: without what the control plane adds, and always the same bytes."""
    bare = application_pb2.Version()
    bare.CopyFrom(message)
    bare.ClearField("application")
    bare.ClearField("created_time")
    return bare.SerializeToString(deterministic=True)


def token(row: TokenRow) -> token_pb2.Token:
    """Return a token, without its secret."""
    message = token_pb2.Token(
        token_id=row.token_id,
        role=token_pb2.Token.Role.Value(row.role),
        subject=row.subject,
        description=row.description,
        created_time=timestamp(row.created_time),
    )
    if row.expire_time is not None:
        message.expire_time.CopyFrom(timestamp(row.expire_time))
    if row.revoked_time is not None:
        message.revoked_time.CopyFrom(timestamp(row.revoked_time))
    return message


def node(row: NodeRow, devices: Sequence[DeviceRow], leases: Sequence[LeaseRow], *, now: datetime) -> node_pb2.Node:
    """Return a node with its devices and who holds them."""
    message = node_pb2.Node(
        node=row.node,
        state=node_state(row, bool(leases)),
        facts=node_pb2.NodeFacts.FromString(row.facts),
        created_time=timestamp(row.created_time),
        epoch=row.epoch,
        session_count=len({lease.session_id for lease in leases}),
    )
    for name in ("connected_time", "last_seen_time", "drain_time"):
        time = getattr(row, name)
        if time is not None:
            getattr(message, name).CopyFrom(timestamp(time))
    for reason, (text, met) in sorted(row.notices.items()):
        if abs(now - moment(met)) < NOTICE_TTL:
            message.notices.add(reason=reason, message=text, time=timestamp(moment(met)))
    for device in devices:
        shown = message.devices.add()
        shown.MergeFromString(device.reading)
        held = [lease for lease in leases if lease.device == device.uuid]
        shown.slots = device.slots
        shown.slots_leased = len(held)
        shown.sessions.extend(sorted({lease.session_id for lease in held}))
    message.devices.sort(key=lambda device: (device.index, device.uuid))
    if ailment := node_conditions.needs_reboot(node_pb2.Device.FromString(row.reading) for row in devices if row.sick):
        message.notices.add(reason=node_conditions.REASON, message=ailment, time=timestamp(now))
        if message.state == node_pb2.Node.READY:
            message.state = node_pb2.Node.CORDONED
    return message


def node_state(row: NodeRow | NodeStanding, busy: bool) -> node_pb2.Node.State.ValueType:
    """Return how a node is; ``busy`` is whether any of its slots is leased."""
    if not row.reachable:
        return node_pb2.Node.UNREACHABLE
    if row.draining:
        return node_pb2.Node.DRAINING if busy else node_pb2.Node.DRAINED
    return node_pb2.Node.CORDONED if row.cordoned else node_pb2.Node.READY
