"""Explaining: every node's and device's verdict on one wish."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from footlights.scheduler.checks import device_refusal, node_refusal
from footlights.scheduler.views import NodeView, Verdict, Wish

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FITS = Verdict("FITS", "would be taken")


@dataclass(frozen=True, slots=True)
class DeviceVerdict:
    """A device, and why it is not taken, or that it fits."""

    uuid: str
    name: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class NodeVerdict:
    """A node, and why it is not taken, or that one of its devices fits."""

    node: str
    verdict: Verdict
    devices: tuple[DeviceVerdict, ...]
    """Empty where the node itself will not do."""


def verdicts(wish: Wish, nodes: Iterable[NodeView]) -> list[NodeVerdict]:
    """Say for every node, and for every device of a node that would do, why it is not taken, or that it fits."""
    found = []
    for node in nodes:
        if refusal := node_refusal(wish, node):
            found.append(NodeVerdict(node.name, refusal, ()))
            continue
        devices = tuple(
            DeviceVerdict(device.uuid, device.name, device_refusal(wish, node, device) or FITS)
            for device in node.devices
        )
        fits = any(device.verdict is FITS for device in devices)
        found.append(NodeVerdict(node.name, FITS if fits else Verdict("NO_DEVICE_FITS", "no device fits"), devices))
    return found


class WaitReason(NamedTuple):
    """Why a wish waits: a reason, and how many devices or nodes are not taken for it."""

    reason: str
    number: int = 0
    thing: str = ""
    """``device`` or ``node``; empty for a reason of the wish itself."""
    why: str = ""
    """A sentence in place of a count."""

    @property
    def text(self) -> str:
        """The reason and its count: ``NO_SLOT: 3 devices``."""
        return f"{self.reason}: {self.why or self._counted}"

    @property
    def message(self) -> str:
        """The same for a person: ``3 devices: all slots are leased``."""
        return self.why or f"{self._counted}: {_SAYS.get(self.reason, self.reason)}"

    @property
    def _counted(self) -> str:
        return f"{self.number} {self.thing}{'s' if self.number > 1 else ''}"


_SAYS: Final[Mapping[str, str]] = {
    "UNREACHABLE": "the agent is not connected",
    "DRAINING": "being drained",
    "CORDONED": "cordoned",
    "NOT_ACCEPTED": "new, or with new hardware, and not accepted by an operator yet",
    "NO_PORTS": "all ports are in use",
    "NO_DEVICE": "no device is reported",
    "NO_LAUNCHER": "the launcher of the version is not offered",
    "ISOLATION": "the launcher of the version isolates sessions less than is needed",
    "LABEL": "a label that is needed is missing",
    "UNWELL": "launches have failed there before the application ran",
    "CRASH_LOOP": "the version, or what it is given, has failed to start there too often",
    "UNHEALTHY": "unhealthy",
    "SHARED_DEVICE": "another node reports the same GPU, and has it",
    "QUARANTINED": "left alone for a while after failures",
    "NO_GPU": "not a GPU",
    "NO_GRAPHICS": "cannot draw",
    "NO_ENCODER": "no hardware video encoder",
    "DEVICE_NAME": "another kind of device is needed",
    "SLOTS": "too few slots",
    "NO_SLOT": "all slots are leased",
    "FOREIGN_PROCESS": "used by a process that is not of a session",
    "ENCODER_FULL": "the video encoder has no session left",
    "MEMORY": "too little free memory",
    "REFUSED": "refused this session a moment ago",
    "FITS": "free",
}
"""What a reason says of each device or node that it counts; a reason of a device's own health stands for itself."""


NOT_TO_BE_WAITED_FOR: Final = frozenset(
    {"DRAINING", "CORDONED", "NOT_ACCEPTED", "NO_NODE", "NO_DEVICE", "NO_LAUNCHER", "ISOLATION", "LABEL", "CRASH_LOOP"}
    | {"NO_GPU", "NO_GRAPHICS", "NO_ENCODER", "DEVICE_NAME", "SLOTS", "REFUSED", "UNSATISFIABLE"}
)
"""The reasons that do not pass as others end their sessions, or links come back."""


def counted(counts: Mapping[tuple[str, str], int]) -> tuple[WaitReason, ...]:
    """Return the counts by (reason, ``node`` or ``device``), most frequent first."""
    return tuple(
        WaitReason(reason, count, thing)
        for (reason, thing), count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        if count > 0
    )
