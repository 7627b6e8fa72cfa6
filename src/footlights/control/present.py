"""Rows to messages and back: the one place where the two definitions of a thing meet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from footlights import scheduler
from footlights.control.scheduling import node_conditions
from footlights.lifecycle import LaunchState, Stage, TimeLimits
from footlights.store.launches.launch_rows import Observation
from footlights.store.nodes.fleet import Member
from footlights.store.nodes.inventory import Reading
from footlights.store.schema import Application, Device, Launch, Lease, Node, Release, Session, Token, moment
from footlights.v1 import agent_pb2, application_pb2, node_pb2, session_pb2, token_pb2

NOTICE_TTL = timedelta(minutes=2)
"""How long a notice is shown: what lasts is met again within less."""

_SICK = (node_pb2.Device.UNHEALTHY, node_pb2.Device.LOST)
_ROUTED = ("READY", "ACTIVE")


@dataclass(frozen=True, slots=True)
class Origin:
    """How viewers reach this control plane, and whether they dial nodes themselves."""

    host: str
    port: int
    direct_routes: bool = False


def timestamp(time: datetime) -> Timestamp:
    """Return a moment as its message."""
    message = Timestamp()
    message.FromDatetime(time)
    return message


def duration(seconds: float) -> Duration:
    """Return a span as its message, to the microsecond."""
    message = Duration()
    message.FromTimedelta(timedelta(seconds=seconds))
    return message


def seconds(message: Duration) -> float:
    """Return a span in seconds."""
    return message.seconds + message.nanos / 1e9


def session(
    row: Session,
    launch: Launch | None = None,
    facts: node_pb2.NodeFacts | None = None,
    device_name: str = "",
    *,
    origin: Origin,
) -> session_pb2.Session:
    """Return a session as callers see it."""
    applied = limits(row)
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
    row: Session,
    launch: Launch,
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


def _routes(message: session_pb2.Session, launch: Launch, facts: node_pb2.NodeFacts, origin: Origin) -> None:
    node_host = facts.public_address
    signaling = (node_host, launch.signal_port) if origin.direct_routes else (origin.host, origin.port)
    for description, protocol, (host, source), destination in (
        ("signaling", "TCP", signaling, launch.signal_port),
        ("media", "UDP", (node_host, launch.media_port), launch.media_port),
    ):
        message.routes[host].routes.add(
            description=description, protocol=protocol, source_port=source, destination_port=destination
        )


def application(row: Application, releases: Iterable[Release]) -> application_pb2.Application:
    """Return an application with its releases."""
    return application_pb2.Application(
        application=row.application,
        display_name=row.display_name,
        description=row.description,
        tags=row.tags,
        created_time=timestamp(row.created_time),
        releases={release.release: release.version for release in releases},
    )


def release(row: Release) -> application_pb2.Release:
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


def token(row: Token) -> token_pb2.Token:
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


def node(row: Node, devices: Sequence[Device], leases: Sequence[Lease], *, now: datetime) -> node_pb2.Node:
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


def node_state(row: Node, busy: bool) -> node_pb2.Node.State.ValueType:
    """Return how a node is; ``busy`` is whether any of its slots is leased."""
    if not row.reachable:
        return node_pb2.Node.UNREACHABLE
    if row.draining:
        return node_pb2.Node.DRAINING if busy else node_pb2.Node.DRAINED
    return node_pb2.Node.CORDONED if row.cordoned else node_pb2.Node.READY


def readings(inventory: agent_pb2.Inventory) -> list[Reading]:
    """Return an agent's devices as they are stored."""
    return [_reading(device) for device in inventory.devices]


def _reading(device: node_pb2.Device) -> Reading:
    why = device.health_reasons[0] if device.health_reasons else node_pb2.Device.HealthReason()
    return Reading(
        uuid=device.uuid,
        slots=max(1, device.slots),
        reading=device.SerializeToString(),
        sick=device.health in _SICK,
        reason=why.reason,
        message=why.message,
    )


def node_view(member: Member, quarantined: Mapping[tuple[str, str], str]) -> scheduler.NodeView:
    """Return a node as placing sees it; ``quarantined`` is (node, device uuid) -> why."""
    facts = node_pb2.NodeFacts.FromString(member.facts)
    held: dict[str, set[int]] = {}
    for device, slot in member.leased:
        held.setdefault(device, set()).add(slot)
    readings = {uuid: node_pb2.Device.FromString(raw) for uuid, _, raw in member.devices}
    ailment = node_conditions.needs_reboot(readings.values())
    seen = (
        _device_view(
            uuid,
            slots,
            readings[uuid],
            frozenset(held.get(uuid, ())),
            quarantined.get((member.node, uuid), ""),
        )
        for uuid, slots, _ in member.devices
    )
    return scheduler.NodeView(
        name=member.node,
        devices=tuple(
            _barred(device, f"{node_conditions.REASON}: {ailment}") if ailment else device for device in seen
        ),
        connected=member.connected,
        cordoned=member.cordoned,
        draining=member.draining,
        launchers=frozenset(facts.launchers),
        labels=dict(facts.labels),
        port_blocks=facts.port_blocks or 1_000_000,
        launches=member.launches,
        warm=member.warm,
    )


def _barred(device: scheduler.DeviceView, why: str) -> scheduler.DeviceView:
    return replace(device, usable=False, health_reason=why) if device.usable else device


def _device_view(
    uuid: str, slots: int, reading: node_pb2.Device, leased: frozenset[int], quarantine: str
) -> scheduler.DeviceView:
    usable = reading.health not in _SICK
    why = reading.health_reasons[0] if reading.health_reasons else None
    return scheduler.DeviceView(
        uuid=uuid,
        name=reading.name,
        kind=node_pb2.Device.Kind.Name(reading.kind),
        slots=slots,
        leased=leased,
        memory_free_bytes=reading.memory_free_bytes if reading.HasField("memory_free_bytes") else None,
        memory_total_bytes=reading.memory_total_bytes if reading.HasField("memory_total_bytes") else None,
        graphics=reading.graphics,
        encoder=reading.encoder,
        usable=usable,
        health_reason="" if usable else f"{why.reason}: {why.message}" if why else "UNHEALTHY: no reason was given",
        foreign=_foreign(reading),
        quarantine=quarantine,
    )


def device_name(reading: bytes) -> str:
    """Return the name in a device's stored reading."""
    return node_pb2.Device.FromString(reading).name


def _foreign(reading: node_pb2.Device) -> str:
    if not reading.foreign_processes:
        return ""
    first = reading.foreign_processes[0]
    used = f"{first.used_memory_bytes / (1 << 30):.1f} GiB " if first.HasField("used_memory_bytes") else ""
    others = f" and {len(reading.foreign_processes) - 1} more" if len(reading.foreign_processes) > 1 else ""
    return f"{used}pid {first.pid} {first.name}".strip() + others


def wish(row: Session, avoid: Mapping[tuple[str, str], str], crashes: Mapping[str, str]) -> scheduler.Wish:
    """Return a session as placing sees it."""
    version = row.application, row.application_version
    needs = application_pb2.Needs.FromString(row.needs)
    return needs_wish(row.session_id, version, row.launcher, needs, avoid, crashes)


def needs_wish(
    session_id: str,
    version: tuple[str, str],
    launcher: str,
    needs: application_pb2.Needs,
    avoid: Mapping[tuple[str, str], str],
    crashes: Mapping[str, str],
) -> scheduler.Wish:
    """Return needs of a version, given as (application, version), as placing sees them."""
    return scheduler.Wish(
        session_id=session_id,
        application=version[0],
        application_version=version[1],
        launcher=launcher,
        slots=needs.slots or 1,
        min_memory_bytes=needs.min_memory_bytes,
        gpu=needs.gpu,
        graphics=needs.graphics,
        encoder=needs.encoder,
        device_names=tuple(needs.device_names),
        node_labels=dict(needs.node_labels),
        avoid=avoid,
        crashes=crashes,
    )


def limits(row: Session) -> application_pb2.Limits:
    """Return the limits that apply to a session."""
    return application_pb2.Limits.FromString(row.limits)


def time_limits(applied: application_pb2.Limits) -> TimeLimits:
    """Return the limits that apply to a ready session."""

    def span(name: str) -> float | None:
        return seconds(getattr(applied, name)) if applied.HasField(name) else None  # type: ignore[arg-type]

    return TimeLimits(span("never_connected_timeout"), span("idle_timeout"), span("max_duration"))


def observation(report: agent_pb2.LaunchReport, now: datetime) -> Observation:
    """Return an agent's report with its ages turned into moments of our own clock.

    What it says in an application's words may hold NUL, which Postgres takes in no text: U+FFFD stands for it.
    """
    steps = {}
    for step in report.steps:
        if step.stage in Stage.__members__:
            steps[Stage[step.stage]] = now - timedelta(seconds=seconds(step.age))
    return Observation(
        launch_id=report.launch_id,
        epoch=report.epoch,
        state=LaunchState[agent_pb2.LaunchReport.State.Name(report.state)],
        reason=report.reason,
        message=report.message.replace("\0", "\ufffd"),
        exit_code=report.exit_code if report.HasField("exit_code") else None,
        ports=(report.signal_port, report.media_port, report.http_port),
        viewers=report.viewers if report.HasField("viewers") else None,
        ever_connected=report.ever_connected,
        steps=steps,
        log_tail=tuple(report.log_tail),
    )


def utc_now() -> datetime:
    """Return this moment, the default clock."""
    return datetime.now(UTC)
