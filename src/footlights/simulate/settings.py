"""The settings of a simulation."""

from __future__ import annotations

import math
from dataclasses import dataclass

from footlights.errors import InvalidArgument
from footlights.simulate.profile import SimulationProfile

MOST_NODES = 20_000
NODES_A_PROCESS = 500
"""What one process carries with ease; more need more."""


@dataclass(frozen=True, slots=True)
class Simulation:
    """One simulation. Raises InvalidArgument."""

    profile: SimulationProfile
    servers: tuple[str, ...]
    """The control plane's gRPC addresses: nodes and requests are dealt out among them."""
    nodes: int = 100
    gpus: int = 8
    slots_per_gpu: int = 1
    processes: int = 0
    """How many processes hold the nodes; 0 is one for every 500."""
    sessions_per_s: float = 0.0
    """How many sessions are asked for a second, in the mean; 0 leaves that to others."""
    duration_s: float = math.inf
    """How long sessions are asked for, from when all nodes are linked."""
    seed: int = 1
    keep: bool = False
    mishap_rate: float = 1.0
    """How many times as often as the profile says nodes are interrupted; 0 for never."""
    tls: bool = False
    ca_file: str = ""
    insecure: bool = False

    def __post_init__(self) -> None:
        _check(bool(self.servers) and all(self.servers), "server", "is empty. Give HOST:PORT, or several with commas.")
        _check(1 <= self.nodes <= MOST_NODES, "nodes", f"must be from 1 to {MOST_NODES} (got {self.nodes}).")
        _check(1 <= self.gpus <= 64, "gpus", f"must be from 1 to 64 (got {self.gpus}).")
        _check(1 <= self.slots_per_gpu <= 64, "slots-per-gpu", f"must be from 1 to 64 (got {self.slots_per_gpu}).")
        _check(0 <= self.processes <= 64, "processes", f"must be from 0 to 64 (got {self.processes}).")
        rate, usual = self.sessions_per_s, 0 <= self.sessions_per_s <= 10_000
        _check(usual, "sessions-per-s", f"must be from 0 to 10000 (got {rate:g}).")
        _check(self.duration_s > 0, "duration", f"must be more than 0 seconds (got {self.duration_s:g}).")
        _check(0 <= self.mishap_rate <= 1000, "mishap-rate", f"must be from 0 to 1000 (got {self.mishap_rate:g}).")

    @property
    def workers(self) -> int:
        """How many processes it takes."""
        return self.processes or math.ceil(self.nodes / NODES_A_PROCESS)


def _check(good: bool, name: str, problem: str) -> None:
    if not good:
        raise InvalidArgument(f"--{name}", problem)
