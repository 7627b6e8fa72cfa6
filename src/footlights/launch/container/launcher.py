"""Runs applications in containers, by Docker's Engine API (`docker`) or podman's command (`podman`).

Every container sees the one GPU of its launch by CDI, by UUID, and carries the launch's marks as labels and in its
environment. It has a network of its own, in which its three ports are published with their numbers, so an application
listens on every address, not on loopback; the operator may give all containers of a node the node's network instead.
It may write to directories in memory only: `HOME`, those for temporary files, and volumes that are not shared.

No application is root of the node: one whose image says no other user has an id of its own launch.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import posixpath
import signal
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

import psutil

import footlights
from footlights.launch import firewall
from footlights.launch.container import log_lines
from footlights.launch.container.engine import (
    ContainerNetwork,
    ContainerSpec,
    Engine,
    EngineError,
    ImageFacts,
    PublishedPort,
)
from footlights.launch.container.engines import ContainerEngines
from footlights.launch.launcher import PORTS_OF_A_LAUNCH, SESSION_FILE, LaunchError, LaunchPlan, LogPart, Phase, Status
from footlights.launch.launchers import CONTAINER
from footlights.launch.plan import OWN_FILES_SESSION_FILE, secret_variables
from footlights.launch.probes import loopback
from footlights.launch.process.launcher import CLUSTER_MARK, LAUNCH_MARK, own_directory
from footlights.linux import files, procfs
from footlights.v1.application_pb2 import StageDelivery

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from footlights.launch.caches import CacheStore, ShownCache
    from footlights.launch.container.rules import ContainerRules

CLUSTER_LABEL: Final = "dev.footlights.cluster"
LAUNCH_LABEL: Final = "dev.footlights.launch"
SESSION_LABEL: Final = "dev.footlights.session"
OUTPUT: Final = "output"
SAVED: Final = "container.log"
ENGINE: Final = "engine"
"""The file of a launch's directory that names the engine its container belongs to."""
HOME: Final = CONTAINER.home
TEMPORARY: Final = ("/tmp", "/var/tmp")  # noqa: S108  # in the container
FIRST_PORT: Final = 1024
"""The first port that an ordinary user may listen on."""
FIRST_USER: Final = 1_900_000_000
"""The user ids of launches begin here: none that a distribution, systemd or a user namespace gives out."""
KIT_STAGE: Final = "kit_stage.py"
"""The program that opens a stage in Kit, in a launch's directory and beside the session file in its container."""
_KIT_STAGE: Final = Path(footlights.__file__).with_name("recipes") / KIT_STAGE
DEFAULT_TASKS: Final = 4096
DEFAULT_DISK_BYTES: Final = 4 << 30
DEFAULT_MEMORY_SHARE: Final = 0.8


class ContainerLauncher:
    """Runs each application in a container of its own; keeps the `launcher.Launcher` protocol."""

    name = "container"

    def __init__(
        self, root: Path, engines: Sequence[Engine], rules: ContainerRules, *, caches: CacheStore | None = None
    ) -> None:
        self._root = root.absolute()
        self._rules = rules
        self._caches = caches
        self._engines = ContainerEngines(engines)
        self._stopping: dict[str, asyncio.Task[None]] = {}

    async def unavailable(self) -> str:
        """Ask the engines."""
        problem = await self._engines.check()
        return f"no container engine can be used ({problem})" if problem else ""

    async def prepare(self, plan: LaunchPlan) -> None:
        """Check what the node allows, and pull the image as the version's policy says."""
        container = plan.version.container
        policy = container.pull_policy or "missing"
        self._rules.check_image(container.image)
        await asyncio.to_thread(self._rules.mounts, plan.mounts)
        engine = await self._current()
        try:
            if policy != "always" and await engine.image(container.image) is not None:
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
        self._rules.check_image(plan.version.container.image)
        mounts, own = await asyncio.to_thread(self._rules.mounts, plan.mounts)
        variables = secret_variables(plan, secrets)
        await self._current()
        engine = await self._engine_of(plan)
        try:
            state = await engine.inspect(name)
            if state is not None and state.status != "created":
                return
            image = await engine.image(plan.version.container.image) or ImageFacts()
            user = user_of(plan, image, namespace=engine.user_namespace)
            await asyncio.to_thread(self._write_files, plan, engine, secrets, user)
            created = True
            directories = tuple(dict.fromkeys((*own, *image.volumes)))
            if self._caches is not None:
                kept = await asyncio.to_thread(self._caches.shown, plan.version)
                mounts = (*mounts, *_cache_mounts(plan, kept, mounts))
            spec = _spec(plan, self._rules, user=user, mounts=mounts, directories=directories)
            await engine.create(replace(spec, secret_environment=tuple(variables.items())))
            await engine.start(name)
        except EngineError as error:
            if created:
                with contextlib.suppress(EngineError):
                    await engine.remove(name)
            if error.status == 0:
                raise _unavailable(engine, error) from None
            raise _start_error(plan, engine, error) from None

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
        return Status(Phase.EXITED, exit_code=code, message=message, cause=state.cause)

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
        # Also where there is none: its network may be left, of an attempt that was cut off.
        await engine.remove(name)
        for file in (SESSION_FILE, KIT_STAGE, ENGINE):
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

    def _write_files(self, plan: LaunchPlan, engine: Engine, secrets: bytes, user: str) -> None:
        directory = own_directory(self._root, plan)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Before there is a container: the next agent must know which engine to ask for it.
        files.replace_file(directory / ENGINE, engine.name.encode("ascii"))
        path = directory / SESSION_FILE
        files.replace_file(path, secrets or b"{}")
        owner, _, group = user.partition(":")
        try:
            if engine.user_namespace:
                raise PermissionError  # the node has another number for that user
            os.chown(path, int(owner), int(group) if group.isdigit() else -1)
        except OSError:
            # It cannot be given away, as by a root without capabilities. Its directory is closed to others of the node.
            path.chmod(0o644)
        if opens_from_file(plan):
            (directory / KIT_STAGE).write_bytes(_KIT_STAGE.read_bytes())
            (directory / KIT_STAGE).chmod(0o644)


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


def _start_error(plan: LaunchPlan, engine: Engine, error: EngineError) -> LaunchError:
    """Say why an engine did not start a container: it may be that it does not know the device."""
    text = f"{engine.name} did not start it: {error.message}"
    if plan.cdi_device and "cdi" in error.message.lower() and plan.cdi_device in error.message:
        text += ". Make the CDI specification of the node again: nvidia-ctk cdi generate."
        return LaunchError("DEVICE_UNRESOLVABLE", text, rejected=True)
    return LaunchError("CONTAINER_START_FAILED", text)


def _unavailable(engine: Engine, error: EngineError) -> LaunchError:
    return LaunchError("ENGINE_UNAVAILABLE", f"{engine.name} does not answer: {error.message}", rejected=True)


def opens_from_file(plan: LaunchPlan) -> bool:
    """Whether a container has the program by which Kit opens a stage from the session file: no image has it."""
    return plan.version.stage_delivery.method == StageDelivery.SESSION_FILE


def _name(launch_id: str) -> str:
    return f"footlights-{launch_id}"


def user_of(plan: LaunchPlan, image: ImageFacts, *, namespace: bool) -> str:
    """Say whom a container runs as: the version's user, the image's, or one of its own where that would be root.

    With a ``namespace`` no user of the container is root of the node. Raises LaunchError ``USER_REFUSED`` where it is
    root, or a name of the image's, which may be root's.
    """
    asked = plan.version.container.user
    if namespace:
        return asked
    if asked and _is_root(asked):
        raise _refused("the container would run as root of the node: give container.user another id")
    if asked or (image.user and not _is_root(image.user)):
        user = asked or image.user
        if not user.partition(":")[0].isdigit():
            raise _refused(f"the image's user {user!r} is a name, which may be root's: give container.user its id")
        return user
    own = FIRST_USER + plan.ports.signal
    return f"{own}:{own}"


def _is_root(user: str) -> bool:
    name = user.partition(":")[0]
    return name == "root" or (name.isdigit() and int(name) == 0)


def _refused(text: str) -> LaunchError:
    return LaunchError("USER_REFUSED", f"{text}, or use an engine without root.", rejected=True)


def _spec(
    plan: LaunchPlan, rules: ContainerRules, *, user: str, mounts: tuple[str, ...], directories: tuple[str, ...]
) -> ContainerSpec:
    container = plan.version.container
    # A device comes by CDI or not at all: some engines also have a hook that gives whatever is named here.
    environment = {"HOME": HOME, **dict(plan.environment), "NVIDIA_VISIBLE_DEVICES": "void"}
    directory = plan.directory.absolute()
    own = [f"{directory / SESSION_FILE}:{OWN_FILES_SESSION_FILE}:ro"]
    if opens_from_file(plan):
        own.append(f"{directory / KIT_STAGE}:{posixpath.dirname(OWN_FILES_SESSION_FILE)}/{KIT_STAGE}:ro")
    return ContainerSpec(
        name=_name(plan.launch_id),
        image=container.image,
        program=plan.argv[0] if container.HasField("entrypoint") else "",
        command=plan.argv[1:] if container.HasField("entrypoint") else plan.argv,
        environment=tuple(sorted(environment.items())),
        mounts=(*mounts, *own),
        labels={CLUSTER_LABEL: plan.cluster_id, LAUNCH_LABEL: plan.launch_id, SESSION_LABEL: plan.session_id},
        user=user,
        working_directory=plan.working_directory,
        shm_size_bytes=container.shm_size_bytes,
        stop_grace_s=max(round(plan.stop_grace_s), 0),
        device=plan.cdi_device,
        network=_network(plan, rules) if plan.own_network else None,
        ports=_published(plan, rules) if plan.own_network else (),
        directories=_apart((environment["HOME"], *TEMPORARY, *directories), mounts),
        directory_bytes=container.disk_bytes or DEFAULT_DISK_BYTES,
        memory_bytes=container.memory_bytes or round(DEFAULT_MEMORY_SHARE * psutil.virtual_memory().total),
        processors=container.processors,
        tasks=container.tasks or DEFAULT_TASKS,
    )


def _cache_mounts(plan: LaunchPlan, kept: Sequence[ShownCache], mounts: Sequence[str]) -> Iterator[str]:
    """Mount what is kept below the home, to be read, where the version mounts nothing itself."""
    home = dict(plan.environment).get("HOME", HOME)
    taken = {posixpath.normpath(mount.split(":")[1]) for mount in mounts}
    for cache in kept:
        target = posixpath.join(home, cache.relative)
        if home.startswith("/") and ":" not in f"{cache.source}{target}" and posixpath.normpath(target) not in taken:
            yield f"{cache.source}:{target}:ro"


def _apart(directories: Sequence[str], mounts: Sequence[str]) -> tuple[str, ...]:
    """Say where directories in memory are put: not at the root, and not in a mount.

    Where one or a mount lies in another one, the directories between them are some too: the engine would make them as
    root's.
    """
    targets = [PurePosixPath(posixpath.normpath(mount.split(":")[1])) for mount in mounts]
    places = [PurePosixPath(posixpath.normpath(path)) for path in directories if path.startswith("/")]
    fit = [
        place
        for place in places
        if len(place.parts) > 1 and ":" not in str(place) and not any(place.is_relative_to(each) for each in targets)
    ]
    between = [
        each
        for inner in (*fit, *targets)
        for each in inner.parents
        if any(each != outer and each.is_relative_to(outer) for outer in fit)
    ]
    return tuple(dict.fromkeys(str(place) for place in (*fit, *between)))


def _network(plan: LaunchPlan, rules: ContainerRules) -> ContainerNetwork:
    """Choose the container's own addresses by its block of ports, which no other launch of the node has."""
    ports = plan.ports
    first = min(port for port in (ports.signal, ports.media, ports.http, ports.splice) if port)
    own = firewall.part_of(rules.subnets, max(first - FIRST_PORT, 0) // PORTS_OF_A_LAUNCH)
    return ContainerNetwork(own=own, shared=firewall.shared_part_of(rules.subnets))


def _published(plan: LaunchPlan, rules: ContainerRules) -> tuple[PublishedPort, ...]:
    """Publish a launch's ports; where the agent stands before the signalling port, that is the node's alone."""
    ports = plan.ports
    return (
        PublishedPort(ports.signal, "tcp", loopback.HOST if ports.splice else rules.signal_host),
        PublishedPort(ports.media, "udp", rules.media_host),
        PublishedPort(ports.http, "tcp", loopback.HOST),
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
