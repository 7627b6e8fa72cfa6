"""Runs applications in containers, by Docker's Engine API (`docker`) or podman's command (`podman`).

Every container is on the host's network, for Kit binds its media to the node's own address; sees the one GPU of its
launch by CDI, by UUID; and carries the launch's marks as labels and in its environment. Nothing is kept in memory
but requests on their way: the engine knows what runs.

PROVED only against stand-ins for the Engine API and for podman's command: no real engine was available. The request
that creates a container was compared with the one that Docker's own command line (28.2) sends.

The session file is mounted at `plan.CONTAINER_SESSION_FILE` and belongs to the version's ``container.user`` where that
is given in digits and the agent is root; otherwise to the agent's user, which the image's own user must then be.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from footlights.launch.container import log_lines
from footlights.launch.launcher import LaunchError, LaunchPlan, LogPart, Phase, Status
from footlights.launch.plan import CONTAINER_SESSION_FILE, GPU_KINDS
from footlights.launch.process.launcher import CLUSTER_MARK, LAUNCH_MARK, SESSION_FILE, write_session_file
from footlights.linux import procfs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CLUSTER_LABEL: Final = "dev.footlights.cluster"
LAUNCH_LABEL: Final = "dev.footlights.launch"
SESSION_LABEL: Final = "dev.footlights.session"
DOCKER_SOCKET: Final = Path("/var/run/docker.sock")
OUTPUT: Final = "output"
SAVED: Final = "container.log"


class EngineError(Exception):
    """The engine did not do what it was asked; it may do so later."""

    def __init__(self, message: str, *, status: int = 0) -> None:
        """Say what the engine said; ``status`` is its HTTP status, 0 where it has none or did not answer."""
        super().__init__(message)
        self.message = message
        self.status = status


@dataclass(frozen=True, slots=True)
class Spec:
    """A container as it is to be created: on the host's network, with an init, never restarted, never removed by
    itself, its log bounded, stopped by SIGTERM.
    """

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
class State:
    """A container as its engine sees it."""

    status: str
    """``created``, ``running``, ``exited`` and so on."""
    running: bool
    pid: int
    exit_code: int
    message: str = ""


class Engine(Protocol):
    """What is needed of an engine. Every call raises EngineError where the engine refuses or does not answer."""

    name: str

    async def has_image(self, image: str) -> bool: ...

    async def pull(self, image: str) -> None: ...

    async def create(self, spec: Spec) -> None:
        """Create a container; one of that name that is there already is left as it is."""
        ...

    async def start(self, name: str) -> None: ...

    async def inspect(self, name: str) -> State | None:
        """Look at a container; None where there is none."""
        ...

    async def stop(self, name: str, grace_s: int) -> None:
        """Send SIGTERM, wait, send SIGKILL; returns when it has ended."""
        ...

    async def kill(self, name: str) -> None: ...

    async def logs(self, name: str, *, since_s: int, tail: int) -> Sequence[str]:
        """Read lines, each with its time (RFC 3339) before it; ``since_s`` and ``tail`` are 0 for all."""
        ...

    async def remove(self, name: str) -> None:
        """Remove a container, running or not; one that is not there is no error."""
        ...

    async def list(self, labels: Mapping[str, str]) -> Mapping[str, Mapping[str, str]]:
        """List the containers with all of these labels, running or not: name -> its labels."""
        ...

    async def close(self) -> None: ...


def detect(*, docker_socket: Path = DOCKER_SOCKET, path: str | None = None) -> Engine:
    """Choose the engine that is here: Docker where its socket may be used, else podman.

    Raises:
        LaunchError: ``ENGINE_UNAVAILABLE``, rejected: another node may have one.
    """
    if docker_socket.is_socket() and os.access(docker_socket, os.R_OK | os.W_OK):
        return _engine("docker", docker_socket)
    if shutil.which("podman", path=path):
        return _engine("podman", docker_socket)
    raise LaunchError(
        "ENGINE_UNAVAILABLE",
        f"this node has no container engine: {docker_socket} cannot be used and podman is not on the agent's PATH. "
        "Install one, or let the agent's user use it.",
        rejected=True,
    )


class ContainerLauncher:
    """Runs each application in a container of its own; keeps the `launcher.Launcher` protocol."""

    name = "container"

    def __init__(self, root: Path, *, engine: Engine | str | None = None, docker_socket: Path = DOCKER_SOCKET) -> None:
        """Keep launches below ``root``.

        Args:
            root: The directory that every plan's directory lies in.
            engine: An engine, ``docker`` or ``podman``; None detects it at the first use.
            docker_socket: Where Docker's Engine API listens.
        """
        self._root = root.absolute()
        self._socket = docker_socket
        self._engine: Engine | None = _engine(engine, docker_socket) if isinstance(engine, str) else engine
        self._stopping: dict[str, asyncio.Task[None]] = {}

    @property
    def engine(self) -> Engine:
        """The engine in use. Raises LaunchError where none is here."""
        if self._engine is None:
            self._engine = detect(docker_socket=self._socket)
        return self._engine

    async def prepare(self, plan: LaunchPlan) -> None:
        """Pull the image as the version's policy says."""
        container = plan.version.container
        policy = container.pull_policy or "missing"
        engine = self.engine
        try:
            present = policy != "always" and await engine.has_image(container.image)
            if present:
                return
            if policy == "never":
                raise LaunchError(
                    "IMAGE_NOT_FOUND",
                    f"image {container.image!r} is not on this node and the version's pull_policy is never: "
                    "load it, or choose another policy.",
                )
            await engine.pull(container.image)
        except EngineError as error:
            if error.status == 0:
                raise _unavailable(engine, error) from None
            raise LaunchError(
                "IMAGE_PULL_FAILED", f"image {container.image!r} could not be pulled: {error.message}"
            ) from None

    async def start(self, plan: LaunchPlan, secrets: bytes) -> None:
        """Create the container and start it; one that is there already is left as it is."""
        engine, name = self.engine, _name(plan.launch_id)
        created = False
        try:
            state = await engine.inspect(name)
            if state is not None and state.status != "created":
                return
            await asyncio.to_thread(self._write_session_file, plan, secrets)
            created = True
            await engine.create(_spec(plan))
            await engine.start(name)
        except EngineError as error:
            if created:
                with contextlib.suppress(EngineError):
                    await engine.remove(name)
            if error.status == 0:
                raise _unavailable(engine, error) from None
            raise LaunchError("CONTAINER_START_FAILED", f"{engine.name} did not start it: {error.message}") from None

    async def status(self, plan: LaunchPlan) -> Status:
        """Ask the engine. Raises EngineError where it does not answer: then nothing is known."""
        state = await self.engine.inspect(_name(plan.launch_id))
        if state is None or state.status == "created":
            return Status(Phase.UNKNOWN)
        if state.running:
            pids = await asyncio.to_thread(_pids, plan.cluster_id, plan.launch_id, state.pid)
            return Status(Phase.RUNNING, pids=pids)
        code = _exit_code(state.exit_code)
        message = state.message or (f"exited with status {code}." if code >= 0 else f"ended by signal {-code}.")
        return Status(Phase.EXITED, exit_code=code, message=message)

    async def stop(self, plan: LaunchPlan, *, kill: bool = False) -> None:
        """Have the engine stop it in the background, or kill it."""
        name = _name(plan.launch_id)
        if kill:
            state = await self.engine.inspect(name)
            if state is not None and state.running:
                await self.engine.kill(name)
        elif name not in self._stopping:
            task = asyncio.create_task(self._stop(name, max(round(plan.stop_grace_s), 0)), name=f"stop {name}")
            self._stopping[name] = task
            task.add_done_callback(lambda _: self._stopping.pop(name, None))

    async def log(self, plan: LaunchPlan, *, tail_lines: int = 0, cursor: str = "") -> LogPart:
        """Read the engine's log, or what ``discard`` saved of it."""
        since_s = 0 if tail_lines > 0 else log_lines.second_of(cursor)
        try:
            lines = await self.engine.logs(
                _name(plan.launch_id), since_s=since_s, tail=tail_lines + 1 if tail_lines > 0 else 0
            )
        except EngineError as error:
            if error.status != 404:
                raise
            lines = await asyncio.to_thread(_saved, plan)
        return log_lines.part(lines, tail_lines=tail_lines, cursor=cursor)

    async def discard(self, plan: LaunchPlan) -> None:
        """Save the log below the launch's directory, and remove the container and the session file."""
        name = _name(plan.launch_id)
        try:
            lines = await self.engine.logs(name, since_s=0, tail=0)
        except EngineError as error:
            if error.status != 404:
                raise
        else:
            await asyncio.to_thread(_save, plan, lines)
            await self.engine.remove(name)
        (plan.directory / SESSION_FILE).unlink(missing_ok=True)

    async def find(self, cluster_id: str) -> dict[str, frozenset[int]]:
        """Find the cluster's containers, running or not; pids where they can be told."""
        containers = await self.engine.list({CLUSTER_LABEL: cluster_id})
        running = await asyncio.to_thread(procfs.marked_by, LAUNCH_MARK, {CLUSTER_MARK: cluster_id})
        launches = [labels.get(LAUNCH_LABEL, "") for labels in containers.values()]
        return {launch: running.get(launch, frozenset()) for launch in launches if launch}

    async def end_orphan(self, cluster_id: str, launch_id: str) -> None:
        """Remove the launch's containers."""
        for name in await self.engine.list({CLUSTER_LABEL: cluster_id, LAUNCH_LABEL: launch_id}):
            await self.engine.remove(name)

    async def close(self) -> None:
        """Let go of the engine; an orderly stop that is under way is the engine's, or is asked for again."""
        for task in list(self._stopping.values()):
            task.cancel()
        await asyncio.gather(*self._stopping.values(), return_exceptions=True)
        if self._engine is not None:
            await self._engine.close()

    async def _stop(self, name: str, grace_s: int) -> None:
        # What the engine does not do now, it is asked for again: status goes on saying that the container runs.
        with contextlib.suppress(EngineError):
            state = await self.engine.inspect(name)
            if state is not None and state.running:
                await self.engine.stop(name, grace_s)

    def _write_session_file(self, plan: LaunchPlan, secrets: bytes) -> None:
        directory = plan.directory.absolute()
        if not directory.is_relative_to(self._root) or directory == self._root or ".." in directory.parts:
            raise LaunchError("BAD_DIRECTORY", f"{directory} is not below {self._root}: the plan is another agent's.")
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = directory / SESSION_FILE
        write_session_file(path, secrets)
        user, _, group = plan.version.container.user.partition(":")
        if user.isdigit() and os.geteuid() == 0:
            os.chown(path, int(user), int(group) if group.isdigit() else -1)


def _engine(name: str, docker_socket: Path) -> Engine:
    if name == "docker":
        from footlights.launch.container.docker import DockerEngine

        return DockerEngine(docker_socket)
    if name == "podman":
        from footlights.launch.container.podman import PodmanEngine

        return PodmanEngine()
    raise ValueError(f"engine {name!r} is unknown: choose docker or podman")


def _unavailable(engine: Engine, error: EngineError) -> LaunchError:
    return LaunchError("ENGINE_UNAVAILABLE", f"{engine.name} does not answer: {error.message}", rejected=True)


def _name(launch_id: str) -> str:
    return f"footlights-{launch_id}"


def _spec(plan: LaunchPlan) -> Spec:
    container = plan.version.container
    session_file = f"{plan.directory.absolute() / SESSION_FILE}:{CONTAINER_SESSION_FILE}:ro"
    return Spec(
        name=_name(plan.launch_id),
        image=container.image,
        command=plan.argv,
        environment=plan.environment,
        mounts=(*plan.mounts, session_file),
        labels={CLUSTER_LABEL: plan.cluster_id, LAUNCH_LABEL: plan.launch_id, SESSION_LABEL: plan.session_id},
        user=container.user,
        working_directory=plan.working_directory,
        shm_size_bytes=container.shm_size_bytes,
        stop_grace_s=max(round(plan.stop_grace_s), 0),
        device=f"nvidia.com/gpu={plan.device_uuid}" if plan.device_kind in GPU_KINDS else "",
    )


def _pids(cluster_id: str, launch_id: str, pid: int) -> frozenset[int]:
    """Find a container's processes by their mark.

    The engine's pid is believed only where that process carries the mark: an agent that is itself in a pid namespace
    would take somebody else for it.
    """
    marked = procfs.marked({CLUSTER_MARK: cluster_id, LAUNCH_MARK: launch_id})
    return marked | procfs.descendants(pid) if pid in marked else marked


def _exit_code(code: int) -> int:
    """Engines write 128 + N for signal N, which an application's own status of that value cannot be told from."""
    return 128 - code if 128 < code < 128 + signal.NSIG else code


def _save(plan: LaunchPlan, lines: Sequence[str]) -> None:
    folder = plan.directory / OUTPUT
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / SAVED).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _saved(plan: LaunchPlan) -> list[str]:
    try:
        return (plan.directory / OUTPUT / SAVED).read_text(encoding="utf-8").split("\n")[:-1]
    except FileNotFoundError:
        return []
