"""What is needed of a container engine: the protocol that Docker's Engine API and podman's command both keep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class EngineError(Exception):
    """The engine did not do what it was asked; ``status`` is its HTTP status, 0 where it did not answer."""

    def __init__(self, message: str, *, status: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """A container to create: on the host's network, with an init, never restarted or removed by itself, log bounded."""

    name: str
    image: str
    command: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    mounts: tuple[str, ...]
    labels: Mapping[str, str]
    user: str
    working_directory: str
    shm_size_bytes: int
    stop_grace_s: int
    device: str
    """A CDI device such as ``nvidia.com/gpu=GPU-…``; empty for none."""


@dataclass(frozen=True, slots=True)
class ContainerState:
    """A container as its engine sees it."""

    status: str
    running: bool
    pid: int
    exit_code: int
    message: str = ""

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> ContainerState:
        """Read the ``State`` of an inspected container, which Docker and podman write alike."""
        oom = "it was killed because memory ran out." if state.get("OOMKilled") else ""
        return cls(
            status=str(state["Status"]),
            running=bool(state["Running"]),
            pid=int(state.get("Pid") or 0),
            exit_code=int(state.get("ExitCode") or 0),
            message=oom or str(state.get("Error") or ""),
        )


class Engine(Protocol):
    """Every call raises EngineError where the engine refuses or does not answer."""

    name: str

    async def ping(self) -> None:
        """Find out whether the engine answers and could run a container now."""

    async def has_image(self, image: str) -> bool:
        """Whether an image is on this machine."""

    async def pull(self, image: str) -> None:
        """Fetch an image. Without a deadline of its own: a Kit image is tens of gigabytes."""

    async def create(self, spec: ContainerSpec) -> None:
        """Create a container; one of that name that is there already is left as it is."""

    async def start(self, name: str) -> None:
        """Start a container that was created."""

    async def inspect(self, name: str) -> ContainerState | None:
        """Look at a container; None where there is none."""

    async def stop(self, name: str, grace_s: int) -> None:
        """Send SIGTERM, wait, send SIGKILL; returns when it has ended."""

    async def kill(self, name: str) -> None:
        """Send SIGKILL; a container that does not run is no error."""

    async def logs(self, name: str, *, since_s: int, tail: int) -> Sequence[str]:
        """Read lines, each with its time (RFC 3339) before it; ``since_s`` and ``tail`` are 0 for all."""

    async def remove(self, name: str) -> None:
        """Remove a container, running or not; one that is not there is no error."""

    async def list(self, labels: Mapping[str, str]) -> Mapping[str, Mapping[str, str]]:
        """List the containers with all of these labels, running or not: name -> its labels."""

    async def close(self) -> None:
        """Release connections."""
