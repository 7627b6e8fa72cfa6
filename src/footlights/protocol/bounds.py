"""How large each field of the agents' link may be: one table for both sides.

What is for people or for counting is cut to its bound (``cut``), with a mark in the text, and both sides say so. What
an application is started with cannot be cut: ``excess`` says that it must not be sent.

The table makes the largest message of each kind a known number, so none is refused by gRPC: it is below
``MAX_MESSAGE_BYTES`` on either side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from footlights.protocol.output import CUT, LEFT_OUT, MAX_LINE_CHARACTERS, MAX_TAIL_BYTES, bounded_tail

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, FieldDescriptor
    from google.protobuf.message import Message

PACKAGE: Final = "footlights.agent.v1."

MAX_MESSAGE_BYTES: Final = 16 << 20
"""The greatest message that either side takes."""

PART_BYTES: Final = 1 << 20
"""A set that is larger is sent in parts of about this size."""

MAX_LAUNCHES: Final = 10_000
"""Launches in a hello: those that run, and those that ended and are not acknowledged."""


@dataclass(frozen=True, slots=True)
class Bound:
    """How large a field may be; 0 is no bound of this kind."""

    size: int = 0
    """Bytes of a text (in UTF-8), of a value, or of a message as a whole."""
    items: int = 0
    """Of a list or a map."""
    total: int = 0
    """Bytes of all items together: senders of messages divide them into parts."""
    whole: bool = False
    """Whether it cannot be cut."""


_ID = Bound(256)
_NAME = Bound(256)
_TEXT = Bound(4096)
_PARTS = Bound(items=MAX_LAUNCHES, total=PART_BYTES)

BOUNDS: Final[dict[str, Bound]] = {
    "Hello.node": _ID,
    "Hello.incarnation": _ID,
    "Hello.launches": _PARTS,
    "LaunchSet.launches": _PARTS,
    "Heartbeat.reports": _PARTS,
    "Protocol.features": Bound(64, items=64),
    "Inventory.devices": Bound(items=256),
    "NodeFacts.hostname": _NAME,
    "NodeFacts.os": _NAME,
    "NodeFacts.agent_version": _NAME,
    "NodeFacts.driver_version": _NAME,
    "NodeFacts.public_address": _NAME,
    "NodeFacts.signal_address": _NAME,
    "NodeFacts.launchers": Bound(64, items=16),
    "NodeFacts.launcher_facts": Bound(items=16),
    "NodeFacts.Launcher.name": Bound(64),
    "NodeFacts.labels": Bound(256, items=128),
    "NodeFacts.notes": Bound(1024, items=32),
    "NodeFacts.boot_id": _ID,
    "Device.uuid": _ID,
    "Device.name": _NAME,
    "Device.health_reasons": Bound(items=4),
    "Device.HealthReason.reason": Bound(64),
    "Device.HealthReason.message": Bound(512),
    "Device.parent_uuid": _ID,
    "Device.mig_profile": Bound(64),
    "Device.pci_bus_id": Bound(64),
    "Device.foreign_processes": Bound(items=16),
    "Device.ForeignProcess.name": Bound(128),
    "Device.note": Bound(512),
    "LaunchReport.launch_id": _ID,
    "LaunchReport.reason": Bound(128),
    "LaunchReport.message": _TEXT,
    "LaunchReport.steps": Bound(items=16),
    "LaunchReport.Step.stage": Bound(64),
    "LaunchReport.log_tail": Bound(4 * MAX_LINE_CHARACTERS, items=1000, total=MAX_TAIL_BYTES),
    "LogPart.request_id": _ID,
    "LogPart.lines": Bound(64 << 10, items=1000, total=512 << 10),
    "LogPart.error": _TEXT,
    "LogRequest.request_id": _ID,
    "LogRequest.launch_id": _ID,
    "Goodbye.reason": Bound(64),
    "Goodbye.message": _TEXT,
    "Welcome.cluster_id": _ID,
    "Notice.reason": Bound(64),
    "Notice.message": _TEXT,
    "Forget.launch_id": _ID,
    "Redirect.addresses": Bound(256, items=16),
    "CarriedRecipe.digest": Bound(64, whole=True),
    "CarriedRecipe.recipe": Bound(1 << 20, whole=True),
    "Assignments.assignments": _PARTS,
    "Assignment.launch_id": _ID,
    "Assignment.session_id": _ID,
    "Assignment.device_uuid": _ID,
    "Assignment.slots": Bound(items=64),
    "Assignment.version": Bound(1 << 20, whole=True),
    "Assignment.arguments": Bound(2 << 20, whole=True),
    "Assignment.usd_stage_uri": Bound(16 << 10, whole=True),
    "Assignment.secrets": Bound(2 << 20, whole=True),
    "Assignment.launch_secret": Bound(256, whole=True),
    "Assignment.needs": Bound(64 << 10, whole=True),
    "Assignment.limits": Bound(1024, whole=True),
    "Assignment.recipe_digest": Bound(64, whole=True),
    "ViewerNotice.reason": Bound(64),
    "ViewerNotice.message": _TEXT,
}
"""By message and field, as ``Hello.node``."""

_MOST_SAID: Final = 8
"""Fields that are named where many were cut."""

_Cutter = Callable[[Any, str, list[str]], None]


def cut(message: Message) -> list[str]:
    """Cut a message's fields to their bounds; return what was cut, as sentences without an end."""
    found: list[str] = []
    for each in _cutters(message.DESCRIPTOR):
        each(message, "", found)
    if len(found) > _MOST_SAID:
        found[_MOST_SAID:] = [f"{len(found) - _MOST_SAID} more"]
    return found


def excess(message: Message) -> list[str]:
    """Return which fields of a message are too large and cannot be cut."""
    found = []
    for field in message.DESCRIPTOR.fields:
        bound = bound_of(field)
        if bound is None or not bound.whole:
            continue
        value = getattr(message, field.name)
        size = value.ByteSize() if field.message_type is not None else len(_encoded(value))
        if size > bound.size:
            found.append(f"{field.name}: {size} bytes, at most {bound.size} are allowed")
    return found


def bound_of(field: Any) -> Bound | None:
    """Return a field's bound; None where its type is bounded already."""
    assert field.containing_type is not None
    return BOUNDS.get(f"{field.containing_type.full_name.removeprefix(PACKAGE)}.{field.name}")


def cut_text(text: str, size: int) -> str:
    """Return a text in at most ``size`` bytes; what was cut is marked."""
    if len(text) * 4 <= size:
        return text
    encoded = _encoded(text)
    if len(encoded) <= size:
        return text
    return encoded[: size - len(CUT.encode())].decode(errors="ignore") + CUT


@cache
def _cutters(descriptor: Descriptor) -> tuple[_Cutter, ...]:
    found: list[_Cutter] = []
    for field in descriptor.fields:
        bound = bound_of(field)
        if bound is not None and bound.whole:
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            if bound is not None:
                found.append(_map(field.name, bound))
        elif field.message_type is not None:
            if bound is not None and bound.items:
                found.append(_items(field.name, bound.items))
            if field.message_type.full_name.startswith(PACKAGE) and (inner := _cutters(field.message_type)):
                found.append(_within(field, inner))
        elif bound is not None and field.full_name.endswith(".log_tail"):
            found.append(_tail(field.name, bound))
        elif bound is not None and field.is_repeated:
            found.append(_items(field.name, bound.items))
            if bound.size:
                found.append(_texts(field.name, bound))
        elif bound is not None:
            found.append(_text(field.name, bound.size))
    return tuple(found)


def _within(field: FieldDescriptor, inner: tuple[_Cutter, ...]) -> _Cutter:
    name, repeated = field.name, field.is_repeated

    def apply(message: Any, path: str, found: list[str]) -> None:
        if repeated:
            for index, item in enumerate(getattr(message, name)):
                for each in inner:
                    each(item, f"{path}{name}[{index}].", found)
        elif message.HasField(name):
            for each in inner:
                each(getattr(message, name), f"{path}{name}.", found)

    return apply


def _text(name: str, size: int) -> _Cutter:
    def apply(message: Any, path: str, found: list[str]) -> None:
        text = getattr(message, name)
        short = cut_text(text, size)
        if short is not text:
            found.append(f"{path}{name}: {size} of {len(_encoded(text))} bytes")
            setattr(message, name, short)

    return apply


def _items(name: str, items: int) -> _Cutter:
    def apply(message: Any, path: str, found: list[str]) -> None:
        values = getattr(message, name)
        if len(values) > items:
            found.append(f"{path}{name}: {items} of {len(values)}")
            del values[items:]

    return apply


def _texts(name: str, bound: Bound) -> _Cutter:
    size, total = bound.size, bound.total

    def apply(message: Any, path: str, found: list[str]) -> None:
        values = getattr(message, name)
        sizes = []
        for index, text in enumerate(values):
            short = cut_text(text, size)
            if short is not text:
                found.append(f"{path}{name}[{index}]: {size} of {len(_encoded(text))} bytes")
                values[index] = short
            sizes.append(len(_encoded(short)))
        if not total or sum(sizes) <= total:
            return
        kept, room = 0, total - len(LEFT_OUT.encode())
        while sizes[kept] <= room:
            room -= sizes[kept]
            kept += 1
        found.append(f"{path}{name}: {kept} of {len(values)}")
        del values[kept:]
        values.append(LEFT_OUT)

    return apply


def _tail(name: str, bound: Bound) -> _Cutter:
    def apply(message: Any, path: str, found: list[str]) -> None:
        lines = getattr(message, name)
        if not lines:
            return
        kept = bounded_tail(lines[-bound.items :])
        if kept != lines:
            found.append(f"{path}{name}: {len(kept)} of {len(lines)} lines")
            lines[:] = kept

    return apply


def _map(name: str, bound: Bound) -> _Cutter:
    def apply(message: Any, path: str, found: list[str]) -> None:
        entries = getattr(message, name)
        if len(entries) > bound.items:
            found.append(f"{path}{name}: {bound.items} of {len(entries)}")
            for key in sorted(entries)[bound.items :]:
                del entries[key]
        for key, value in list(entries.items()):
            short = cut_text(key, bound.size), cut_text(value, bound.size)
            if short[0] is not key or short[1] is not value:
                found.append(f"{path}{name}: an entry of {len(_encoded(key)) + len(_encoded(value))} bytes")
                del entries[key]
                entries[short[0]] = short[1]

    return apply


def _encoded(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()
