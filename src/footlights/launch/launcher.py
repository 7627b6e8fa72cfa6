"""What a launcher does for the agent: the protocol that process, container and fake all keep."""

from __future__ import annotations

import enum
import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from footlights.v1.application_pb2 import Version


SESSION_FILE: Final = "session.json"
"""The session file in a launch's own directory."""
PORTS_OF_A_LAUNCH: Final = 4
"""Consecutive ones: the first is the front door's, the second for media, the others are asked by the agent alone."""


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of one launch: signalling (TCP), media (UDP), readiness and presence (TCP), and the agent's own."""

    signal: int
    """Where the application listens for signalling. With a ``splice`` only the node itself is to reach it."""
    media: int
    http: int
    splice: int = 0
    """Where the agent listens in front of ``signal`` and checks the launch's secret; 0 where the application does."""

    @property
    def entrance(self) -> int:
        """The port that the front door is given."""
        return self.splice or self.signal

    def with_splice(self) -> Ports:
        """Return a block's ports for an application behind the agent's door: the first one is the door."""
        return Ports(signal=self.splice, media=self.media, http=self.http, splice=self.signal)

    def without_splice(self) -> Ports:
        """Return a block's ports for an application that has no door before it."""
        return Ports(signal=self.signal, media=self.media, http=self.http)


@dataclass(frozen=True, slots=True)
class DeviceAccess:
    """How an application gets at its device, and at no other."""

    kind: str
    """``GPU``, ``MIG``, ``SOFTWARE`` or ``FAKE``, as in the proto."""
    index: int = 0
    """Its place in the driver's list, now. Kit's ``activeGpu`` counts in Vulkan's order."""
    variables: tuple[str, ...] = ()
    cdi_class: str = ""
    hardware: bool = True
    """Whether it is a GPU; an application on another device is shown none."""


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """One launch, rendered: everything that is needed to start it, and nothing that is secret. It is journalled."""

    launch_id: str
    session_id: str
    cluster_id: str
    device_uuid: str
    device_index: int
    device_kind: str
    ports: Ports
    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    """The environment of the application, sorted by name: nothing is inherited."""
    working_directory: str
    """Empty: the launch's own home directory."""
    stop_grace_s: float
    directory: Path
    """The launch's own directory, mode 0700: plan, output, exit status, session file."""
    version: Version
    """The recipe that this was rendered from (container, fake behaviour, readiness, presence, signalling)."""
    mounts: tuple[str, ...] = ()
    """The container's mounts, rendered: ``SOURCE:TARGET[:ro]``."""
    cdi_device: str = ""
    """The device's name for container engines, such as ``nvidia.com/gpu=GPU-…``; empty where it needs none."""
    secret_environment: tuple[tuple[str, str], ...] = ()
    """The variables that hold secrets, as templates over their names (``plan.secret_variables``)."""
    own_network: bool = False
    """Whether it has a network of its own: what listens on its ports on the node is not the application."""


class Phase(enum.Enum):
    """How far a launch is, as its launcher sees it."""

    RUNNING = "RUNNING"
    EXITED = "EXITED"
    """Proved: every process of the tree is gone and the exit status is known."""
    UNKNOWN = "UNKNOWN"
    """Nothing was ever started under this plan, or every trace of it is gone."""


@dataclass(frozen=True, slots=True)
class Status:
    """A launch as its launcher sees it now."""

    phase: Phase
    exit_code: int | None = None
    """The application's exit status; -N where signal N killed it; None where it cannot be known."""
    pids: frozenset[int] = frozenset()
    """The process tree, in the node's pid namespace; empty where the launcher does not know."""
    message: str = ""
    killed: bool = False
    """Whether it was killed because it did not end within its grace, as far as the launcher knows."""
    cause: str = ""
    """Why it ended, beyond its exit status, such as that memory ran out: a clause, without a full stop."""


class LaunchError(Exception):
    """The application could not be started: final for this launch. ``rejected``: another node or device may do."""

    def __init__(self, reason: str, message: str, *, rejected: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.rejected = rejected


_NODE_ERRNOS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN}
)


def node_error(number: int | None, message: str) -> LaunchError | None:
    """Make the error where it was the node that failed (its disk, its memory, its descriptors): another may do."""
    if number not in _NODE_ERRNOS:
        return None
    text = f"The node lacks resources that a start needs: {message} Check its disk, memory and file limits."
    return LaunchError("NODE_RESOURCES", text, rejected=True)


@dataclass(frozen=True, slots=True)
class LogPart:
    """Lines of a launch's output, without line ends."""

    lines: tuple[str, ...]
    truncated: bool
    cursor: str
    """Where the next part begins; opaque, for ``Launcher.log(cursor=...)``."""


class Launcher(Protocol):
    """Starts applications and watches them. All calls may be repeated after an agent's restart, from the plan alone."""

    name: str

    async def unavailable(self) -> str:
        """Why nothing can be started on this node now, such as no container engine; empty where it can."""

    async def prepare(self, plan: LaunchPlan) -> None:
        """Fetch what the start needs (pull an image). Repeatable. Raises LaunchError."""

    async def start(self, plan: LaunchPlan, secrets: bytes) -> None:
        """Start the application; returns when its process runs. A second call starts nothing. Raises LaunchError.

        ``secrets``: a JSON object for the session file, may be empty. What the plan's ``secret_environment`` names of
        it is in the environment as well. Nothing of it is on a command line.
        """

    async def status(self, plan: LaunchPlan) -> Status:
        """Say how the launch is now; also for one that was started by an agent before this one.

        Where that is unknown now, this raises, as ``stop``, ``log``, ``discard``, ``find`` and ``end_orphan`` do.
        """

    async def stop(self, plan: LaunchPlan, *, kill: bool = False) -> None:
        """Begin to end it (SIGTERM, then SIGKILL after the plan's grace; at once with ``kill``). Returns at once."""

    async def log(self, plan: LaunchPlan, *, tail_lines: int = 0, cursor: str = "") -> LogPart:
        """Read output: the last ``tail_lines``, or what came after ``cursor``. At most 1 MiB a call."""

    async def discard(self, plan: LaunchPlan) -> None:
        """Remove every trace of an ended launch except its output directory, which the agent removes by age."""

    async def find(self, cluster_id: str) -> dict[str, frozenset[int]]:
        """Find everything on this machine that carries the cluster's mark: launch id -> pids (for orphans)."""

    async def end_orphan(self, cluster_id: str, launch_id: str) -> None:
        """Kill what ``find`` shows of a launch whose plan is lost. May have to be repeated until it shows no more."""

    async def close(self) -> None:
        """Release connections; running applications go on."""
