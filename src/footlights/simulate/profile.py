"""A profile: how a fleet, its applications and its users behave. Read from YAML or TOML, checked member by member."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from footlights.devices.records import read_record
from footlights.errors import InvalidArgument
from footlights.simulate.spread import Spread

_PACKAGE = "footlights.simulate"


@dataclass(frozen=True, slots=True)
class Gpu:
    """A model of GPU that nodes have."""

    name: str
    memory_gib: float
    weight: float = 1.0
    """How many of the nodes have it, against the others."""


@dataclass(frozen=True, slots=True)
class SimulatedApplication:
    """Something that is asked for."""

    name: str
    weight: float = 1.0
    """How often, against the others."""
    slots: int = 1
    memory_gib: float = 0.0
    start_timeout_s: float = 300.0
    never_connected_s: float = 600.0
    idle_s: float = 1800.0
    max_s: float = 28800.0


@dataclass(frozen=True, slots=True)
class Start:
    """How launches start. The probabilities exclude each other and are drawn again for each launch."""

    process_s: Spread = field(default_factory=lambda: Spread(constant=0.3))
    """From the order until its process is up."""
    cold_s: Spread = field(default_factory=lambda: Spread(median=30.0, p99=90.0))
    """Until it is ready where the node has not run the application recently."""
    warm_s: Spread = field(default_factory=lambda: Spread(median=8.0, p99=20.0))
    """Until it is ready where the node has."""
    warm_for_s: float = 3600.0
    """How long a node stays warm for an application after the last one."""
    refused: float = 0.0
    """The device will not do: another is tried."""
    failed: float = 0.0
    """The application cannot be started, or exits before it is ready."""
    never_ready: float = 0.0
    """It runs and is never ready: the start times out."""

    def __post_init__(self) -> None:
        _probabilities(self, "refused", "failed", "never_ready")


@dataclass(frozen=True, slots=True)
class SessionBehavior:
    """How sessions end, and who watches them."""

    length_s: Spread = field(default_factory=lambda: Spread(median=900.0, p99=7200.0))
    """From ready until its owner ends it, or the application its own life."""
    patience_s: Spread = field(default_factory=lambda: Spread(constant=900.0))
    """From created until its owner gives up and ends what is not ready."""
    completed: float = 0.0
    """The application exits with status 0 at the end of its length."""
    crashed: float = 0.0
    """It crashes at a moment within its length."""
    abandoned: float = 0.0
    """Its owner never ends it: its timers have to."""
    stop_s: Spread = field(default_factory=lambda: Spread(constant=0.5))
    unwatched: float = 0.0
    connect_s: Spread = field(default_factory=lambda: Spread(median=3.0, p99=20.0))
    """From ready to the first viewer."""
    visit_s: Spread = field(default_factory=lambda: Spread(median=600.0, p99=3600.0))
    away_s: Spread = field(default_factory=lambda: Spread(median=120.0, p99=900.0))

    def __post_init__(self) -> None:
        _probabilities(self, "completed", "crashed", "abandoned")
        _probabilities(self, "unwatched")


@dataclass(frozen=True, slots=True)
class Mishap:
    """One kind of interruption; it happens to each node independently."""

    per_hour: float = 0.0
    """How often it happens to one node, on average."""
    for_s: Spread = field(default_factory=lambda: Spread(constant=10.0))
    """How long the node has no link then."""


@dataclass(frozen=True, slots=True)
class Mishaps:
    """Interruptions of nodes."""

    link_lost: Mishap = field(default_factory=Mishap)
    """The link is cut; launches go on."""
    agent_restarted: Mishap = field(default_factory=Mishap)
    """Another incarnation, which has adopted the launches."""
    machine_gone: Mishap = field(default_factory=Mishap)
    """The machine dies with its launches, and is started again."""


@dataclass(frozen=True, slots=True)
class SimulationProfile:
    """All of it."""

    name: str
    description: str = ""
    gpus: tuple[Gpu, ...] = (Gpu("NVIDIA L40S", 48.0),)
    applications: tuple[SimulatedApplication, ...] = (SimulatedApplication("simulated"),)
    start: Start = field(default_factory=Start)
    sessions: SessionBehavior = field(default_factory=SessionBehavior)
    nodes: Mishaps = field(default_factory=Mishaps)

    def __post_init__(self) -> None:
        for name, choices in (("gpus", self.gpus), ("applications", self.applications)):
            if not choices or sum(max(0.0, each.weight) for each in choices) <= 0:
                raise InvalidArgument(name, "has none with a weight above 0. Give at least one.")


def load(choice: str) -> SimulationProfile:
    """Read a profile: a built-in one by its name, or a YAML or TOML file. Raises InvalidArgument."""
    if choice in built_in():
        text = resources.files(_PACKAGE).joinpath("profiles", f"{choice}.yaml").read_text(encoding="utf-8")
        return read({"name": choice, **yaml.safe_load(text)})
    path = Path(choice)
    if path.suffix not in (".yaml", ".yml", ".toml"):
        text = f"unknown profile {choice!r}; choose from {', '.join(built_in())}, or give a YAML or TOML file."
        raise InvalidArgument("profile", text)
    try:
        text = path.read_text(encoding="utf-8")
        found = tomllib.loads(text) if path.suffix == ".toml" else yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument("profile", f"{choice} cannot be read: {error}") from error
    except (tomllib.TOMLDecodeError, yaml.YAMLError) as error:
        raise InvalidArgument("profile", f"{choice} is not what its name says: {error}") from error
    if not isinstance(found, Mapping):
        raise InvalidArgument("profile", f"{choice} holds no mapping. See the built-in ones for the form.")
    return read({"name": path.stem, **found})


def read(values: Mapping[str, Any]) -> SimulationProfile:
    """Make a profile of plain values, as ``dataclasses.asdict`` gives them. Raises InvalidArgument as ``load``."""
    return read_record(SimulationProfile, values)


def built_in() -> list[str]:
    """The names of the profiles that ship with Footlights."""
    folder = resources.files(_PACKAGE).joinpath("profiles")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def _probabilities(record: object, *names: str) -> None:
    together = sum(getattr(record, name) for name in names)
    if together > 1:
        raise InvalidArgument(names[0], f"{' + '.join(names)} is {together:g}; probabilities are at most 1 together.")
