"""Runs each application in a unit of its own; see the package's note."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import json
import os
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Final

from footlights.launch import writable
from footlights.launch.launcher import SESSION_FILE, LaunchError, LaunchPlan, LogPart, Phase, Status, node_error
from footlights.launch.plan import resolve_command, secret_variables
from footlights.launch.process.launcher import own_directory
from footlights.launch.recipe.stages import parse_root, parse_stage
from footlights.launch.systemd import devices, exits, support, unit
from footlights.launch.systemd.manager import SystemdError
from footlights.linux import files, procfs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from footlights.launch.caches import CacheStore
    from footlights.launch.systemd.manager import UnitManager
    from footlights.launch.systemd.unit_journal import UnitJournal

STARTED: Final = "unit.json"
"""The file of a launch's directory that says that its unit was started, in which boot, and its control group."""
START_TIMEOUT_S: Final = unit.START_TIMEOUT_S + 20.0
_FIRST_LINE_BYTES: Final = 256
_LOOK_AGAIN_S: Final = 0.02
_UNMOUNT_S: Final = 5.0
GROUPS: Final = ("render", "video")
CONTROL_GROUPS: Final = Path("/sys/fs/cgroup")


class SystemdLauncher:
    """Has systemd run applications; keeps the `launcher.Launcher` protocol."""

    name = "systemd"

    def __init__(
        self,
        root: Path,
        manager: UnitManager,
        journal: UnitJournal,
        *,
        allowed_roots: Sequence[str] = (),
        writable_roots: Sequence[str] = (),
        caches: CacheStore | None = None,
        denied_networks: Sequence[str] = (),
    ) -> None:
        self._root = root.absolute()
        self._manager = manager
        self._journal = journal
        self._allowed_roots = tuple(os.path.realpath(path) for path in allowed_roots)
        self._writable_roots = tuple(writable_roots)
        self._caches = caches
        self._denied_networks = tuple(denied_networks)
        self._flushed: set[str] = set()

    async def unavailable(self) -> str:
        """Ask systemd for its version, and look at the control groups."""
        try:
            version, features = await self._manager.facts()
        except SystemdError as error:
            return f"systemd cannot be used ({error})"
        found = await asyncio.to_thread(support.controllers, procfs.PROC, CONTROL_GROUPS)
        return support.lacks(version, features, found)

    async def prepare(self, plan: LaunchPlan) -> None:
        """Check that all that the unit is to show is there, and may be shown."""
        await asyncio.to_thread(self._view, plan)

    async def start(self, plan: LaunchPlan, secrets: bytes) -> None:
        """Have systemd start the unit; returns when its command is executed."""
        directory = own_directory(self._root, plan)
        if (directory / STARTED).exists() or exits.read(directory / unit.EXIT) is not None:
            return
        argv, view = await asyncio.to_thread(self._view, plan)
        variables = secret_variables(plan, secrets)
        try:
            await asyncio.to_thread(_write_files, directory, secrets, variables, view)
        except OSError as error:
            raise node_error(error.errno, f"{error}.") or LaunchError("START_FAILED", f"{error}.") from None
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                result = await self._manager.start(unit.units_of(plan, argv, view))
        except SystemdError as error:
            if error.unit_exists:
                return
            await asyncio.to_thread(_forget, directory)
            text = f"systemd did not start the unit: {error}."
            raise LaunchError("SYSTEMD_REFUSED", text, rejected=not error.name) from None
        except TimeoutError:
            await self.stop(plan, kill=True)
            text = f"systemd did not start the unit within {START_TIMEOUT_S:g} s."
            raise LaunchError("START_TIMEOUT", text) from None
        if result != "done":
            raise await self._start_error(plan, argv[0], result)
        await self._note_start(plan)

    async def status(self, plan: LaunchPlan) -> Status:
        """Ask systemd about the unit, and where it is gone, read how it ended."""
        state = await self._manager.state(unit.service_name(plan))
        if state is not None and state.lives:
            return Status(Phase.RUNNING, pids=await self._manager.processes(unit.service_name(plan)))
        return await asyncio.to_thread(_ended, plan)

    async def stop(self, plan: LaunchPlan, *, kill: bool = False) -> None:
        """Have systemd stop the unit; with ``kill``, end every process of it now."""
        if kill:
            await self._kill(unit.service_name(plan))
        else:
            await self._manager.stop(unit.service_name(plan))

    async def log(self, plan: LaunchPlan, *, tail_lines: int = 0, cursor: str = "") -> LogPart:
        """Read the journal."""
        name = unit.service_name(plan)
        if name not in self._flushed:
            state = await self._manager.state(name)
            if state is None or not state.lives:
                # What an application wrote last is under way to the journal when it is gone.
                await self._journal.flush()
                self._flushed = {*sorted(self._flushed)[-1000:], name}
        return await self._journal.read(name, tail_lines=tail_lines, cursor=cursor)

    async def discard(self, plan: LaunchPlan) -> None:
        """Remove the launch's files. The unit went with its last process, and its /tmp goes with the unit, a bit later.

        Raises LaunchError where that is still mounted.
        """
        directory, give_up = own_directory(self._root, plan), asyncio.get_running_loop().time() + _UNMOUNT_S
        while left := await asyncio.to_thread(_forget, directory):
            if asyncio.get_running_loop().time() >= give_up:
                raise LaunchError("STATE_LEFT", f"{left}.")
            await asyncio.sleep(_LOOK_AGAIN_S)

    async def find(self, cluster_id: str) -> dict[str, frozenset[int]]:
        """Find the cluster's units by their names."""
        names = await self._manager.find(f"{unit.prefix(cluster_id)}*.service")
        return {unit.launch_of(name, cluster_id): await self._manager.processes(name) for name in names}

    async def end_orphan(self, cluster_id: str, launch_id: str) -> None:
        """Stop a unit, and kill all of its processes."""
        await self._kill(f"{unit.prefix(cluster_id)}{launch_id}.service")

    async def close(self) -> None:
        """Disconnect from systemd; units go on."""
        await self._manager.close()

    async def _kill(self, name: str) -> None:
        """End every process of a unit, except the one that writes down how the application ended."""
        state = await self._manager.state(name)
        if state is not None and state.lives and not state.records:
            await self._manager.kill(name, signal.SIGKILL)
            await self._manager.stop(name)

    def _view(self, plan: LaunchPlan) -> tuple[list[str], unit.UnitView]:
        """Decide what the unit shows, and which file its command is. Raises LaunchError."""
        readable = list(dict.fromkeys(self._allowed(path) for path in _asked(plan)))
        environment = unit.environment_of(plan)
        path = environment["PATH"]
        if not plan.argv:
            raise LaunchError("COMMAND_NOT_FOUND", "the version has no command: a unit needs one.")
        command = resolve_command(plan.argv[0], path)
        if not os.path.isabs(command) or shutil.which(command) is None:
            text = f"command {command!r} is not on this node: install it, or correct the version's command."
            raise LaunchError("COMMAND_NOT_FOUND", text)
        if not _is_below(command, (*unit.SYSTEM, *readable)):
            text = f"the unit does not show {command!r}: add its directory to the version's systemd.read_only_paths."
            raise LaunchError("COMMAND_NOT_FOUND", text)
        if why := _no_program(command):
            raise LaunchError("COMMAND_NOT_EXECUTABLE", f"command {command!r} could not be executed: {why}.")
        folder = plan.working_directory
        if folder and not (_is_below(folder, (unit.HOME, "/tmp", *unit.SYSTEM, *readable))):  # noqa: S108  # the session's own
            text = f"the unit does not show working_directory {folder!r}: add it to systemd.read_only_paths."
            raise LaunchError("WORKING_DIRECTORY_NOT_FOUND", text)
        view = unit.UnitView(
            readable=tuple(readable),
            caches=self._caches.shown(plan.version) if self._caches and environment["HOME"] == unit.HOME else (),
            device_nodes=devices.nodes_of(plan),
            groups=tuple(name for name in GROUPS if _has_group(name)),
            denied_networks=self._denied_networks,
            memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        )
        return [command, *plan.argv[1:]], view

    def _allowed(self, path: str) -> str:
        """Return a path that the node shows to applications. Raises LaunchError."""
        if not os.path.exists(path):
            text = f"{path!r} is not on this node: install it, or correct the version's paths and stage roots."
            raise LaunchError("PATH_NOT_FOUND", text, rejected=True)
        if not _is_below(os.path.realpath(path), (*self._allowed_roots, *unit.SYSTEM)):
            roots = ", ".join(self._allowed_roots) or "none"
            text = f"this node does not show {path!r} to applications: allow it with --allowed-root (allowed: {roots})."
            raise LaunchError("PATH_NOT_ALLOWED", text, rejected=True)
        real = os.path.realpath(path)
        if (written := writable.place_of(real, self._writable_roots)) and written != real:
            text = f"{path!r} lies in {written!r}, which applications write to, and could be replaced meanwhile: show "
            raise LaunchError("PATH_NOT_ALLOWED", f"{text}that directory itself.", rejected=True)
        return path

    async def _start_error(self, plan: LaunchPlan, command: str, result: str) -> LaunchError:
        directory, name = own_directory(self._root, plan), unit.service_name(plan)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_TIMEOUT_S):
                # The job ends before the unit: how it went is written down in between.
                while (state := await self._manager.state(name)) is not None and state.lives:  # noqa: ASYNC110
                    await asyncio.sleep(_LOOK_AGAIN_S)
        said = await self._journal.complaints(name)
        reason, text = await asyncio.to_thread(exits.fault, directory / unit.EXIT, said)
        await asyncio.to_thread(_forget, directory)
        details = f" systemd says: {said.rstrip('.')}." if said else ""
        return LaunchError(reason, f"{text} (command {command!r}, job {result}).{details}")

    async def _note_start(self, plan: LaunchPlan) -> None:
        """Note that the unit was started; should the agent die before, the unit itself says so."""
        state = await self._manager.state(unit.service_name(plan))
        noted = {"boot_id": procfs.boot_id(), "control_group": state.control_group if state else ""}
        with contextlib.suppress(OSError):
            await asyncio.to_thread(files.replace_json, plan.directory / STARTED, noted)


def _asked(plan: LaunchPlan) -> list[str]:
    """List the paths of the node that a version wants shown, those of its stages included."""
    version = plan.version
    roots = [parse_root(root) for root in version.allowed_stage_roots]
    paths = [*version.systemd.read_only_paths, *(root.text for root in roots if not root.scheme)]
    if version.default_usd_stage_uri:
        stage = parse_stage(version.default_usd_stage_uri)
        if not stage.scheme:
            paths.append(os.path.dirname(stage.text))
    return paths


def _is_below(path: str, roots: Sequence[str]) -> bool:
    return any(Path(path).is_relative_to(root) for root in roots)


def _no_program(command: str) -> str:
    """Say why a command would not be executed: the program that executes it in the unit tells nobody. Empty: it may."""
    if "=" in command:
        return f"env(1), which begins every unit, takes it for a variable: choose a path without '=' ({unit.ENV})"
    try:
        with open(command, "rb") as file:
            first = file.readline(_FIRST_LINE_BYTES)
    except OSError:
        return ""  # it may be executed by others than the agent
    if first.startswith(b"#!"):
        interpreter = os.fsdecode((first[2:].split() or [b""])[0])
        return "" if os.path.exists(interpreter) else f"its interpreter {interpreter!r} is not on this node"
    return "" if b"\0" in first or not first.isascii() else "it is a text that does not begin with '#!'"


def _has_group(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def _write_files(directory: Path, secrets: bytes, variables: Mapping[str, str], view: unit.UnitView) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    files.replace_file(directory / SESSION_FILE, secrets or b"{}")
    lines = "".join(f"{name}={value}\n" for name, value in variables.items())
    files.replace_file(directory / unit.VARIABLES, lines.encode("utf-8", "surrogateescape"))
    exits.reserve(directory / unit.EXIT)
    _make_root(directory / unit.ROOT, view)


def _make_root(root: Path, view: unit.UnitView) -> None:
    """Make the mount points of the application's root: those that systemd made, only root could remove."""
    root.mkdir(mode=0o755, exist_ok=True)
    for name in ("dev", "proc", "run/systemd/journal", "sys", "tmp", "var/tmp", unit.HOME.lstrip("/")):
        (root / name).mkdir(mode=0o755, parents=True, exist_ok=True)
    for path in unit.view_of_root(view):
        point = root / path.lstrip("/")
        if os.path.isdir(path):
            point.mkdir(mode=0o755, parents=True, exist_ok=True)
        elif os.path.exists(path):
            point.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            point.touch(mode=0o644)
    # Whatever the agent's umask, the application's user must enter them.
    for folder, _, names in os.walk(root):
        Path(folder).chmod(0o755)
        for name in names:
            Path(folder, name).chmod(0o644)


def _forget(directory: Path) -> str:
    """Remove a launch's files; return why one is left, empty where none is."""
    for name in (SESSION_FILE, unit.VARIABLES, unit.EXIT, STARTED):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            (directory / name).unlink()
    try:
        with contextlib.suppress(FileNotFoundError):
            (directory / unit.TMP).rmdir()
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(directory / unit.ROOT)
    except OSError as error:
        return str(error)
    return ""


def _ended(plan: LaunchPlan) -> Status:
    """Say how a unit that is gone ended."""
    try:
        started = json.loads((plan.directory / STARTED).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        started = None
    group = str(started.get("control_group", "")) if isinstance(started, dict) else ""
    if group and support.populated(CONTROL_GROUPS, group):
        return Status(Phase.RUNNING, message="its unit has ended, but the kernel has not let all of its processes go.")
    ended = exits.read(plan.directory / unit.EXIT)
    if ended is not None:
        return Status(
            Phase.EXITED,
            exit_code=ended.exit_code,
            message=ended.message,
            killed=ended.killed,
            cause=ended.cause,
        )
    if not isinstance(started, dict):
        return Status(Phase.UNKNOWN)
    if started.get("boot_id") != procfs.boot_id():
        return Status(Phase.EXITED, message="the node was restarted while it ran: its exit status is lost.")
    return Status(Phase.EXITED, message="its unit is gone: its exit status is lost.")
