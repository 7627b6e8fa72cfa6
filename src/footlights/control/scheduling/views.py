"""Rows as the scheduler sees them: nodes, devices and wishes."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from google.protobuf.message import DecodeError

from footlights import scheduler
from footlights.control import stored
from footlights.launch.launchers import ENTRYPOINTS, LAUNCHERS
from footlights.protocol import enums
from footlights.protocol.isolation import Isolation
from footlights.v1 import application_pb2, node_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from footlights.control.scheduling.guard import Guard
    from footlights.store.nodes.fleet import FleetNode


_MEASURED: Final = (
    "memory_free_bytes",
    "memory_total_bytes",
    "memory_used_bytes",
    "encoder_sessions",
    "encoder_capacity_percent",
    "encoder_session_limit",
)
"""The figures of a device that placement sees under the same names; one that is unset is not known."""


class TimeApart(NamedTuple):
    """Why a device is left alone, and for how long from now."""

    text: str = ""
    left_s: float | None = None


def node_views(
    members: Iterable[FleetNode], quarantined: Mapping[tuple[str, str], TimeApart]
) -> list[scheduler.NodeView]:
    """Return nodes as placement sees them, without those that cannot be read: nothing is placed on these."""
    found = []
    for member in members:
        with contextlib.suppress(DecodeError):
            found.append(node_view(member, quarantined))
    return found


def node_view(member: FleetNode, quarantined: Mapping[tuple[str, str], TimeApart]) -> scheduler.NodeView:
    """Return a node as placement sees it; ``quarantined`` says why, by (node, device uuid).

    Raises DecodeError where its facts or a reading cannot be read.
    """
    facts = node_pb2.NodeFacts.FromString(member.facts)
    held: dict[str, set[int]] = {}
    for device, slot in member.leased:
        held.setdefault(device, set()).add(slot)
    kept: dict[str, dict[int, scheduler.Share]] = {}
    for device, slot, needs in member.needs:
        kept.setdefault(device, {})[slot] = share(needs)
    readings = {uuid: node_pb2.Device.FromString(raw) for uuid, _, raw in member.devices}
    reboot = stored.needs_reboot(readings.values())
    seen = (
        _device_view(
            uuid,
            slots,
            readings[uuid],
            frozenset(held.get(uuid, ())),
            kept.get(uuid, {}),
            quarantined.get((member.node, uuid), TimeApart()),
        )
        for uuid, slots, _ in member.devices
    )
    return scheduler.NodeView(
        name=member.node,
        devices=tuple(_unusable(device, f"{stored.REBOOT_NEEDED}: {reboot}") if reboot else device for device in seen),
        connected=member.connected,
        cordoned=member.cordoned,
        draining=member.draining,
        accepted=member.acceptance is None,
        launchers=_launchers(facts),
        labels=dict(facts.labels),
        port_blocks=facts.port_blocks or 1_000_000,
        launches=member.launches,
        warm=member.warm,
        starts_ahead=facts.starts_ahead,
    )


def _launchers(facts: node_pb2.NodeFacts) -> dict[str, Isolation]:
    said = {each.name: each for each in facts.launcher_facts}
    levels = {name: _isolation(name, said[name].isolation if name in said else 0) for name in facts.launchers}
    able = {f"{name}{ENTRYPOINTS}": level for name, level in levels.items() if name in said and said[name].entrypoints}
    return levels | able


def _isolation(launcher: str, said: int) -> Isolation:
    if said:
        return Isolation(min(said, max(Isolation)))  # a higher one of a later release gives what the lower ones do
    # An agent of the release before does not say.
    return LAUNCHERS[launcher].isolation if launcher in LAUNCHERS else Isolation.NONE


def _unusable(device: scheduler.DeviceView, why: str) -> scheduler.DeviceView:
    return replace(device, usable=False, health_reason=why) if device.usable else device


@functools.lru_cache(maxsize=1024)
def share(needs: bytes) -> scheduler.Share:
    """Return what is kept of a device for a session with these serialized needs; nothing where they cannot be read."""
    try:
        read = application_pb2.Needs.FromString(needs)
    except DecodeError:
        return scheduler.NO_SHARE
    return scheduler.Share(read.min_memory_bytes, read.encoder)


def _device_view(
    uuid: str,
    slots: int,
    reading: node_pb2.Device,
    leased: frozenset[int],
    shares: Mapping[int, scheduler.Share],
    apart: TimeApart,
) -> scheduler.DeviceView:
    usable = not stored.is_sick(reading)
    measured: dict[str, Any] = {name: getattr(reading, name) for name in _MEASURED if reading.HasField(name)}
    return scheduler.DeviceView(
        uuid=uuid,
        name=reading.name,
        kind=enums.name_of(node_pb2.Device.Kind, reading.kind),
        slots=slots,
        leased=leased,
        shares=shares,
        **measured,
        graphics=reading.graphics,
        encoder=reading.encoder,
        usable=usable,
        health_reason="" if usable else _health_reason(reading),
        foreign=_foreign(reading),
        quarantine=apart.text,
        back_s=apart.left_s,
        parent=reading.parent_uuid,
    )


def _health_reason(reading: node_pb2.Device) -> str:
    for why in reading.health_reasons:
        return f"{why.reason}: {why.message}"
    return f"{enums.field_name(reading, 'health')}: no reason was given"


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


def needs_wish(
    session_id: str,
    version: tuple[str, str],
    launcher: str,
    needs: application_pb2.Needs,
    avoid: Mapping[tuple[str, str], str],
) -> scheduler.Wish:
    """Return needs of a version, given as (application, version), as placement sees them."""
    return scheduler.Wish(
        session_id=session_id,
        application=version[0],
        application_version=version[1],
        launcher=launcher,
        isolation=needs.isolation or Isolation.NONE,
        slots=needs.slots or 1,
        min_memory_bytes=needs.min_memory_bytes,
        gpu=needs.gpu,
        graphics=needs.graphics,
        encoder=needs.encoder,
        device_names=tuple(needs.device_names),
        node_labels=dict(needs.node_labels),
        avoid=avoid,
    )


def kept_away(wish: scheduler.Wish, guard: Guard) -> scheduler.Wish:
    """Return a wish that is kept away from what a guard leaves alone."""
    kept = guard.of((wish.application, wish.application_version), wish.launcher, wish.username, wish.given)
    return replace(
        wish, crashes=kept.crashes, unwell=kept.unwell, back_s=kept.back_s, doubted=kept.doubted, trials=kept.trials
    )
