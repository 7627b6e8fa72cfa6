"""Runs applications in containers, by Docker's Engine API (`docker`) or podman's command (`podman`).

Every container is on the host's network, for Kit binds its media to the node's own address; sees the one GPU of its
launch by CDI, by UUID; and carries the launch's marks as labels and in its environment. The session file belongs to
the version's ``container.user`` where that is given and the agent is root; otherwise to the agent's user.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING, Final

from footlights.launch.container import log_lines
from footlights.launch.container.engine import ContainerSpec, Engine, EngineError
from footlights.launch.container.engines import ContainerEngines
from footlights.launch.launcher import LaunchError, LaunchPlan, LogPart, Phase, Status
from footlights.launch.plan import OWN_FILES_SESSION_FILE
from footlights.launch.process.launcher import CLUSTER_MARK, LAUNCH_MARK, SESSION_FILE, own_directory
from footlights.linux import files, procfs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

CLUSTER_LABEL: Final = "dev.footlights.cluster"
LAUNCH_LABEL: Final = "dev.footlights.launch"
SESSION_LABEL: Final = "dev.footlights.session"
OUTPUT: Final = "output"
SAVED: Final = "container.log"
ENGINE: Final = "engine"
"""The file of a launch's directory that names the engine its container belongs to."""


class ContainerLauncher:
    """Runs each application in a container of its own; keeps the `launcher.Launcher` protocol."""

    name = "container"

    def __init__(self, root: Path, engines: Sequence[Engine]) -> None:
        self._root = root.absolute()
        self._engines = ContainerEngines(engines)
        self._stopping: dict[str, asyncio.Task[None]] = {}

    async def unavailable(self) -> str:
        """Ask the engines."""
        problem = await self._engines.check()
        return f"no container engine can be used ({problem})" if problem else ""

    async def prepare(self, plan: LaunchPlan) -> None:
        """Pull the image as the version's policy says."""
        container = plan.version.container
        policy = container.pull_policy or "missing"
        engine = await self._current()
        try:
            present = policy != "always" and await engine.has_image(container.image)
            if present:
                return
            if policy == "never":
                text = f"image {container.image!r} is not on this node and the version's pull_policy is never: "
                raise LaunchError("IMAGE_NOT_FOUND", f"{text}load it, or choose another policy.")
            await engine.pull(container.image)
        except EngineError as error:
            if error.status == 0:
                raise _unavailable(engine, error) from None
            text = f"image {container.image!r} could not be pulled: {error.message}"
            raise LaunchError("IMAGE_PULL_FAILED", text) from None

    async def start(self, plan: LaunchPlan, secrets: bytes) -> None:
        """Create the container and start it; one that is there already is left as it is."""
        name, created = _name(plan.launch_id), False
        await self._current()
        engine = await self._engine_of(plan)
        try:
            state = await engine.inspect(name)
            if state is not None and state.status != "created":
                return
            await asyncio.to_thread(self._write_files, plan, engine.name, secrets)
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
        state = await (await self._engine_of(plan)).inspect(_name(plan.launch_id))
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
        name, engine = _name(plan.launch_id), await self._engine_of(plan)
        if kill:
            state = await engine.inspect(name)
            if state is not None and state.running:
                await engine.kill(name)
        elif name not in self._stopping:
            task = asyncio.create_task(_stop(engine, name, max(round(plan.stop_grace_s), 0)), name=f"stop {name}")
            self._stopping[name] = task
            task.add_done_callback(lambda _: self._stopping.pop(name, None))

    async def log(self, plan: LaunchPlan, *, tail_lines: int = 0, cursor: str = "") -> LogPart:
        """Read the engine's log, or what ``discard`` saved of it."""
        since_s = 0 if tail_lines > 0 else log_lines.second_of(cursor)
        tail = tail_lines + 1 if tail_lines > 0 else 0
        lines: Sequence[str] | None = await asyncio.to_thread(_saved, plan)
        if lines is None:
            engine = await self._engine_of(plan)
            lines = await _logs(engine, _name(plan.launch_id), since_s=since_s, tail=tail)
        return log_lines.part(lines or (), tail_lines=tail_lines, cursor=cursor)

    async def discard(self, plan: LaunchPlan) -> None:
        """Save the log below the launch's directory, and remove the container and the session file."""
        name, engine = _name(plan.launch_id), await self._engine_of(plan)
        if (lines := await _logs(engine, name, since_s=0, tail=0)) is not None:
            await asyncio.to_thread(_save, plan, lines)
            await engine.remove(name)
        for file in (SESSION_FILE, ENGINE):
            (plan.directory / file).unlink(missing_ok=True)

    async def find(self, cluster_id: str) -> dict[str, frozenset[int]]:
        """Find the cluster's containers, running or not; with pids where they are known."""
        containers = await self._list({CLUSTER_LABEL: cluster_id})
        running = await asyncio.to_thread(procfs.marked_by, LAUNCH_MARK, {CLUSTER_MARK: cluster_id})
        launches = [labels.get(LAUNCH_LABEL, "") for _, _, labels in containers]
        return {launch: running.get(launch, frozenset()) for launch in launches if launch}

    async def end_orphan(self, cluster_id: str, launch_id: str) -> None:
        """Remove the launch's containers."""
        for engine, name, _ in await self._list({CLUSTER_LABEL: cluster_id, LAUNCH_LABEL: launch_id}):
            await engine.remove(name)

    async def close(self) -> None:
        """Release the engines; an orderly stop that is under way is completed by its engine, or is asked for again."""
        for task in list(self._stopping.values()):
            task.cancel()
        await asyncio.gather(*self._stopping.values(), return_exceptions=True)
        await self._engines.close()

    async def _current(self) -> Engine:
        try:
            return await self._engines.current()
        except EngineError as error:
            text = f"this node has no container engine that can be used: {error.message}"
            raise LaunchError("ENGINE_UNAVAILABLE", text, rejected=True) from None

    async def _engine_of(self, plan: LaunchPlan) -> Engine:
        """Return the engine that a launch's container belongs to: the one in use where it does not say."""
        try:
            name = await asyncio.to_thread((plan.directory / ENGINE).read_text, encoding="ascii")
        except (FileNotFoundError, NotADirectoryError):
            return await self._engines.current()
        return self._engines.named(name)

    async def _list(self, labels: dict[str, str]) -> list[tuple[Engine, str, Mapping[str, str]]]:
        """Find containers at every engine that answers. Raises EngineError where none does."""
        found: list[tuple[Engine, str, Mapping[str, str]]] = []
        failure: EngineError | None = None
        answered = False
        for engine in self._engines.all:
            try:
                containers = await engine.list(labels)
            except EngineError as error:
                failure = error
            else:
                answered = True
                found += [(engine, name, labels) for name, labels in containers.items()]
        if failure is not None and not answered:
            raise failure
        return found

    def _write_files(self, plan: LaunchPlan, engine: str, secrets: bytes) -> None:
        directory = own_directory(self._root, plan)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Before there is a container: the next agent must know which engine to ask for it.
        files.replace_file(directory / ENGINE, engine.encode("ascii"))
        path = directory / SESSION_FILE
        files.replace_file(path, secrets or b"{}")
        user, _, group = plan.version.container.user.partition(":")
        if user.isdigit() and os.geteuid() == 0:
            os.chown(path, int(user), int(group) if group.isdigit() else -1)


async def _stop(engine: Engine, name: str, grace_s: int) -> None:
    # What the engine does not do now, it is asked for again: status goes on saying that the container runs.
    with contextlib.suppress(EngineError):
        state = await engine.inspect(name)
        if state is not None and state.running:
            await engine.stop(name, grace_s)


async def _logs(engine: Engine, name: str, *, since_s: int, tail: int) -> Sequence[str] | None:
    """Read a container's log; None where there is no such container."""
    try:
        return await engine.logs(name, since_s=since_s, tail=tail)
    except EngineError as error:
        if error.status != 404:
            raise
        return None


def _unavailable(engine: Engine, error: EngineError) -> LaunchError:
    return LaunchError("ENGINE_UNAVAILABLE", f"{engine.name} does not answer: {error.message}", rejected=True)


def _name(launch_id: str) -> str:
    return f"footlights-{launch_id}"


def _spec(plan: LaunchPlan) -> ContainerSpec:
    container = plan.version.container
    session_file = f"{plan.directory.absolute() / SESSION_FILE}:{OWN_FILES_SESSION_FILE}:ro"
    return ContainerSpec(
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
        device=plan.cdi_device,
    )


def _pids(cluster_id: str, launch_id: str, pid: int) -> frozenset[int]:
    """Find a container's processes by their mark. The engine's pid is believed only where that process carries it."""
    marked = procfs.marked({CLUSTER_MARK: cluster_id, LAUNCH_MARK: launch_id})
    return marked | procfs.descendants(pid) if pid in marked else marked


def _exit_code(code: int) -> int:
    """Engines write 128 + N for signal N; an application's own status of that value looks the same."""
    return 128 - code if 128 < code < 128 + signal.NSIG else code


def _save(plan: LaunchPlan, lines: Sequence[str]) -> None:
    folder = plan.directory / OUTPUT
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / SAVED).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _saved(plan: LaunchPlan) -> list[str] | None:
    """Read the log that ``discard`` saved; None where it did not."""
    try:
        return (plan.directory / OUTPUT / SAVED).read_text(encoding="utf-8").split("\n")[:-1]
    except FileNotFoundError:
        return None
