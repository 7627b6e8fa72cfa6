"""What is needed of a container engine: the protocol that Docker's Engine API and podman's command both keep."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence


class EngineError(Exception):
    """The engine did not do what it was asked; ``status`` is its HTTP status, 0 where it did not answer."""

    def __init__(self, message: str, *, status: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


@contextlib.contextmanager
def understanding(engine: str) -> Iterator[None]:
    """Read an engine's answer in the block. Raises EngineError where it is not as expected, as of a release too old."""
    try:
        yield
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        text = f"{engine} answers in a way that is not understood ({error!r}): it may be too old"
        raise EngineError(text, status=500) from error


@dataclass(frozen=True, slots=True)
class PublishedPort:
    """A port of the node that leads to the same one of the container."""

    number: int
    protocol: str
    """``tcp`` or ``udp``."""
    host: str = ""
    """The node's address; empty: every one."""


@dataclass(frozen=True, slots=True)
class ContainerNetwork:
    """Which addresses a container with a network of its own has, as the node's packet filter knows them."""

    own: str
    """Those of this container alone."""
    shared: str
    """Those of all containers, where the engine keeps them apart on one network."""


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """A container to create.

    Always: an init, a read-only root, no capabilities, no new privileges, the engine's own filter of system calls, its
    own processes, users' messages and names; never restarted or removed by itself; a bounded log.
    """

    name: str
    image: str
    program: str
    """What is run in place of the image's entry point; empty: that."""
    command: tuple[str, ...]
    """What follows."""
    environment: tuple[tuple[str, str], ...]
    mounts: tuple[str, ...]
    labels: Mapping[str, str]
    user: str
    working_directory: str
    shm_size_bytes: int
    stop_grace_s: int
    device: str
    """A CDI device such as ``nvidia.com/gpu=GPU-…``; empty for none."""
    network: ContainerNetwork | None
    """The network of its own, which no other container reaches; None for the node's."""
    ports: tuple[PublishedPort, ...]
    """Those that are published, where the network is its own."""
    directories: tuple[str, ...]
    """Where it may write: directories in memory, each empty at first and of ``directory_bytes`` at most."""
    directory_bytes: int
    memory_bytes: int
    """All memory, those directories and swap included."""
    processors: float
    """How many it may use at most; 0: all."""
    tasks: int
    """The number of processes and threads."""
    secret_environment: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """More of its environment, which no command line may have."""


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What an image says of its containers."""

    user: str = ""
    """``user[:group]``, by name or number; empty: root."""
    volumes: tuple[str, ...] = ()
    """Directories that engines put a new volume at, without bound."""

    @classmethod
    def of(cls, config: Mapping[str, Any] | None) -> ImageFacts:
        """Read the ``Config`` of an inspected image, which Docker and podman write alike."""
        config = config or {}
        return cls(user=str(config.get("User") or ""), volumes=tuple(sorted(config.get("Volumes") or ())))


@dataclass(frozen=True, slots=True)
class ContainerState:
    """A container as its engine sees it."""

    status: str
    running: bool
    pid: int
    exit_code: int
    message: str = ""
    cause: str = ""
    """As `launcher.Status` has it."""

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> ContainerState:
        """Read the ``State`` of an inspected container, which Docker and podman write alike."""
        return cls(
            status=str(state["Status"]),
            running=bool(state["Running"]),
            pid=int(state.get("Pid") or 0),
            exit_code=int(state.get("ExitCode") or 0),
            message=str(state.get("Error") or ""),
            cause="it used more memory than it may have, and was ended" if state.get("OOMKilled") else "",
        )


def by_name(listed: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, str]]:
    """Return the labels of listed containers by name, which Docker and podman write alike.

    One that is being made or removed may have no name: it is called by its id, and one without either is left out.
    """
    found: dict[str, Mapping[str, str]] = {}
    for one in listed:
        name = next(iter(one["Names"] or ()), "").lstrip("/") or str(one.get("Id") or "")
        if name:
            found[name] = dict(one.get("Labels") or {})
    return found


class Engine(Protocol):
    """Every call raises EngineError where the engine refuses or does not answer."""

    name: str
    user_namespace: bool
    """Whether the users of its containers are others on the node; known after a ping."""

    async def ping(self) -> None:
        """Find out whether the engine answers and could run a container now, with all of its limits."""

    async def image(self, image: str) -> ImageFacts | None:
        """Look at an image of this machine; None where it is not there."""

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
        """Remove a container, running or not, and its network; one that is not there is no error."""

    async def list(self, labels: Mapping[str, str]) -> Mapping[str, Mapping[str, str]]:
        """List the containers with all of these labels, running or not: name -> its labels."""

    async def close(self) -> None:
        """Release connections."""
