"""What placement takes and gives: wishes, nodes and devices, as facts of one moment, and the slots that it chooses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from footlights.protocol.isolation import Isolation

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Wish:
    """What one session wants. Wishes are placed in the order given."""

    session_id: str
    launcher: str
    """``process``, ``container`` or ``fake``."""
    isolation: int = Isolation.NONE
    """How far that launcher must separate it from everything else on its node; a later release may have higher ones."""
    slots: int = 1
    min_memory_bytes: int = 0
    gpu: bool = False
    graphics: bool = False
    encoder: bool = False
    device_names: tuple[str, ...] = ()
    """Wildcard patterns, one of which the device's name must match; empty is any."""
    node_labels: Mapping[str, str] = field(default_factory=dict)
    avoid: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """(node, device uuid) -> why that device refused this session a moment ago; with the uuid "", the whole node."""
    crashes: Mapping[str, str] = field(default_factory=dict)
    """Node -> how the version, or what it is given, has failed there recently; under the empty name, everywhere."""
    unwell: Mapping[str, str] = field(default_factory=dict)
    """Node -> how anything with this launcher has failed there recently."""
    back_s: Mapping[str, float] = field(default_factory=dict)
    """Node -> in how many seconds ``crashes`` and ``unwell`` are over there, where that is known; "" is everywhere."""
    avoid_s: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """(node, device uuid) -> in how many seconds ``avoid`` is over there."""
    doubted: frozenset[str] = frozenset()
    """Nodes that are taken last: they have failed recently, and nothing has been well there since."""
    trials: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Node -> what the session would be the only one to try there, for who gives the wish."""
    username: str = ""
    given: str | None = None
    """What stands for what the user gives; None where that is not known."""
    application: str = ""
    application_version: str = ""
    """With the application, what a node is warm for; empty is warm nowhere."""

    @property
    def share(self) -> Share:
        """What is kept for it of its device."""
        return Share(self.min_memory_bytes, self.encoder)


class Share(NamedTuple):
    """What a launch may use of its device beside its slots."""

    memory_bytes: int = 0
    encoder: bool = False


NO_SHARE: Final = Share()


class LeftAlone(NamedTuple):
    """The nodes that a wish is kept away from after failures."""

    crashed: frozenset[str]
    """Because of its version, or what that is given; the empty name is every node."""
    unwell: frozenset[str]

    @classmethod
    def of(cls, wish: Wish) -> LeftAlone:
        """Return those of a wish."""
        if not wish.crashes and not wish.unwell:
            return _NOTHING
        return cls(*(frozenset(name for name, why in each.items() if why) for each in (wish.crashes, wish.unwell)))


_NOTHING = LeftAlone(frozenset(), frozenset())


@dataclass(frozen=True, slots=True)
class DeviceView:
    """A device as last reported, and which of its slots are leased."""

    uuid: str
    name: str
    kind: str
    slots: int
    leased: frozenset[int] = frozenset()
    memory_free_bytes: int | None = None
    memory_total_bytes: int | None = None
    shares: Mapping[int, Share] = field(default_factory=dict)
    """By the first slot of each launch that has it leased: what is kept for it, whether it uses that already or not."""
    memory_used_bytes: int | None = None
    """How much its launches use of what is kept for them; None where that is not known."""
    encoder_sessions: int | None = None
    """How many streams are encoded on it."""
    encoder_capacity_percent: int | None = None
    """What its driver says is left of its encoder."""
    encoder_session_limit: int | None = None
    graphics: bool = True
    encoder: bool = True
    usable: bool = True
    health_reason: str = ""
    """Why it is not usable: ``GPU_IS_LOST: ...``."""
    foreign: str = ""
    """What else runs on it, for people; empty where nothing does or it cannot be told."""
    quarantine: str = ""
    """Why it is left alone for a while although it is usable, for people; empty where it is not."""
    back_s: float | None = None
    """In how many seconds that is over, if it stays well; None where that is not known."""
    parent: str = ""
    """The uuid of the GPU that it is a part of; empty where it is none."""


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node as last reported."""

    name: str
    devices: tuple[DeviceView, ...]
    connected: bool = True
    cordoned: bool = False
    draining: bool = False
    accepted: bool = True
    """Whether an operator has accepted it, with the hardware that it has."""
    launchers: Mapping[str, Isolation] = field(default_factory=lambda: {"process": Isolation.NONE})
    """How far each launcher that it offers separates an application from everything else there."""
    labels: Mapping[str, str] = field(default_factory=dict)
    port_blocks: int = 1_000_000
    """How many launches its ports allow at once."""
    launches: int = 0
    """How many launches it has now."""
    warm: frozenset[tuple[str, str]] = frozenset()
    """(application, version) of what has become ready here before: its caches are filled, its next start is short."""
    starts_ahead: bool = True
    """Whether its agent starts instances before there are sessions for them."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is said of a node or device: a stable reason, and a sentence with its figures."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class SlotChoice:
    """The wish gets these slots."""

    session_id: str
    node: str
    device: str
    slots: tuple[int, ...]
    share: Share = NO_SHARE
