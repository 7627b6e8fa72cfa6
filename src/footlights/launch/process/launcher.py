"""Runs applications as processes of the node, each under its shim.

Everything is read afresh from the launch's directory and from /proc, so a new agent sees what the one before it saw.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import footlights
from footlights.launch import session_state
from footlights.launch.launcher import SESSION_FILE, LaunchError, LaunchPlan, LogPart, Phase, Status, node_error
from footlights.launch.plan import secret_variables
from footlights.launch.process import output, shim
from footlights.linux import cgroups, files, landlock, procfs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from footlights.launch.caches import CacheStore

CLUSTER_MARK, LAUNCH_MARK = "FOOTLIGHTS_CLUSTER_ID", "FOOTLIGHTS_LAUNCH_ID"
START_TIMEOUT_S = 30.0
"""How long a shim may take to execute its application: a fork and an exec, on a machine under load."""
_CONTROL_GROUPS = Path("/sys/fs/cgroup")


_SHIM_GONE = "its shim is gone: end it, its output is lost."


class ProcessLauncher:
    """Starts each application under a shim of its own; keeps the `launcher.Launcher` protocol."""

    name = "process"

    def __init__(
        self,
        root: Path,
        *,
        protected: Path | None = None,
        guarded: bool = True,
        caches: CacheStore | None = None,
        segment_bytes: int = output.SEGMENT_BYTES,
        segments: int = output.SEGMENTS,
    ) -> None:
        """Create it.

        Args:
            root: Where launches have their directories.
            protected: What applications must not write to, such as the agent's data directory; None for ``root``.
            guarded: Whether applications are confined to what they may write to, and in control groups.
            caches: What is kept for versions; None for nothing.
            segment_bytes: The size of one file of output.
            segments: How many of them are kept.
        """
        self._root = root.absolute()
        self._read_only = [os.path.realpath(protected or root), os.path.realpath(_CONTROL_GROUPS)] if guarded else []
        self._caches = caches
        self._own_group = cgroups.own_group() if guarded else None
        self._shims: dict[str, procfs.Identity] = {}
        """Those that were started here: what they said themselves, which no file can take back."""
        self._segment_bytes = segment_bytes
        self._segments = segments

    async def unavailable(self) -> str:
        """Always empty: a process needs nothing that a node could lack."""
        return ""

    async def prepare(self, plan: LaunchPlan) -> None:
        """Check that the command is here, which is all that a process needs."""
        command = plan.argv[0] if plan.argv else ""
        if not command:
            raise LaunchError("COMMAND_NOT_FOUND", "the version has no command: a process needs one.")
        if _executable(plan, command) is None:
            text = f"command {command!r} is not on this node: install it, or correct the version's command."
            raise LaunchError("COMMAND_NOT_FOUND", text)

    async def start(self, plan: LaunchPlan, secrets: bytes) -> None:
        """Start the application under a new shim; returns when it is executed."""
        directory = own_directory(self._root, plan)
        if (directory / shim.STATE).exists() or (directory / shim.EXIT).exists():
            return
        await self.prepare(plan)
        variables = secret_variables(plan, secrets)
        await asyncio.to_thread(self._write_order, plan, directory, secrets, variables)
        starter = await asyncio.create_subprocess_exec(
            *(sys.executable, "-S", "-P", "-m", shim.__name__, str(directory)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_shim_environment(plan),
            start_new_session=True,
        )
        try:
            said, complaint = await asyncio.wait_for(starter.communicate(), START_TIMEOUT_S)
        except TimeoutError:
            starter.kill()
            await self.stop(plan, kill=True)
            text = f"the shim did not execute the application within {START_TIMEOUT_S:.0f} s."
            raise LaunchError("START_TIMEOUT", text) from None
        try:
            answer = json.loads(said)
        except ValueError:
            text = (complaint or said).decode("utf-8", "replace")[-500:]
            raise LaunchError("SHIM_FAILED", f"the shim did not start: {text}") from None
        if answer["answer"] == "failed":
            reason, message = str(answer["reason"]), str(answer["message"])
            self._remove_group(plan.cluster_id, plan.launch_id)
            raise node_error(answer.get("errno"), message) or LaunchError(reason, message)
        if answer["answer"] == "started":
            self._shims[plan.launch_id] = procfs.Identity.from_json(answer["shim"])

    async def status(self, plan: LaunchPlan) -> Status:
        """Read the exit status, or find the tree."""
        return await asyncio.to_thread(self._status, plan)

    async def stop(self, plan: LaunchPlan, *, kill: bool = False) -> None:
        """Signal the shim; where it is gone, SIGKILL everything that still carries the launch's mark."""
        await asyncio.to_thread(self._stop, plan, kill)

    async def log(self, plan: LaunchPlan, *, tail_lines: int = 0, cursor: str = "") -> LogPart:
        """Read output by its place in the stream; a malformed cursor is its beginning."""
        return await asyncio.to_thread(self._log, plan, tail_lines, cursor)

    async def discard(self, plan: LaunchPlan) -> None:
        """Remove the launch's directory except its output, and its control group. Raises OSError: something is left."""
        await asyncio.to_thread(self._discard, plan)

    async def find(self, cluster_id: str) -> dict[str, frozenset[int]]:
        """Find the processes that carry the cluster's mark in their environment, shims included, or in its groups."""
        return await asyncio.to_thread(self._find, cluster_id)

    async def end_orphan(self, cluster_id: str, launch_id: str) -> None:
        """SIGKILL everything that carries the marks of a launch whose plan is lost. Repeat until it is not found."""
        await asyncio.to_thread(self._kill, cluster_id, launch_id)

    async def close(self) -> None:
        """Nothing is held."""

    def _write_order(self, plan: LaunchPlan, directory: Path, secrets: bytes, variables: Mapping[str, str]) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        session_state.make(directory)
        home = directory / session_state.HOME
        if self._caches is not None and dict(plan.environment).get("HOME") == str(home):
            for cache in self._caches.shown(plan.version):
                session_state.link(home / cache.relative, cache.source)
        group = cgroups.make(self._own_group, group_name(plan.cluster_id, plan.launch_id)) if self._own_group else None
        files.replace_file(directory / SESSION_FILE, secrets or b"{}")
        command = _executable(plan, plan.argv[0]) or plan.argv[0]
        files.replace_json(
            directory / shim.ORDER,
            {
                "argv": [command, *plan.argv[1:]],
                "environment": {**dict(plan.environment), **variables},
                "working_directory": plan.working_directory or str(directory / session_state.HOME),
                "stop_grace_s": plan.stop_grace_s,
                "segment_bytes": self._segment_bytes,
                "segments": self._segments,
                "group": str(group or ""),
                "read_only": self._read_only,
                "writable": [os.path.realpath(directory / session_state.STATE)],
            },
        )

    def _status(self, plan: LaunchPlan) -> Status:
        directory, group = plan.directory, self._group(plan)
        identity = self._shim(plan)
        if identity is not None and identity.alive():
            pids = procfs.descendants(identity.pid) | (cgroups.members(group) if group else frozenset())
            # The tree may have ended, and with it the shim, between the two looks.
            return Status(Phase.RUNNING, pids=pids) if pids or identity.alive() else self._status(plan)
        # Only now: an exit status is true when who wrote it is gone, and nothing of the application is left.
        ended = _read_json(directory / shim.EXIT)
        if (ended is not None or identity is not None) and group is not None and cgroups.populated(group):
            return Status(Phase.RUNNING, pids=cgroups.members(group), message=_SHIM_GONE)
        if ended is not None:
            code = ended.get("exit_code")
            exit_code = code if isinstance(code, int) else None
            killed = ended.get("killed") is True
            return Status(Phase.EXITED, exit_code=exit_code, message=_ending(code), killed=killed)
        if identity is None:
            return Status(Phase.UNKNOWN)
        if identity.boot_id != procfs.boot_id():
            return Status(Phase.EXITED, message="the node was restarted while it ran: its exit status is lost.")
        pids = procfs.marked({CLUSTER_MARK: plan.cluster_id, LAUNCH_MARK: plan.launch_id})
        if pids:
            return Status(Phase.RUNNING, pids=pids, message=_SHIM_GONE)
        return Status(Phase.EXITED, message="its shim was killed: its exit status is lost.")

    def _stop(self, plan: LaunchPlan, kill: bool) -> None:
        identity = self._shim(plan)
        if identity is not None and identity.send(signal.SIGUSR1 if kill else signal.SIGTERM):
            return
        if identity is not None or kill:
            self._kill(plan.cluster_id, plan.launch_id, self._group(plan))

    def _kill(self, cluster_id: str, launch_id: str, group: Path | None = None) -> None:
        """SIGKILL whatever carries a launch's mark, or is in its control group."""
        group = group or (self._own_group and self._own_group / group_name(cluster_id, launch_id))
        if group is not None:
            cgroups.end(group)
        procfs.kill(procfs.marked({CLUSTER_MARK: cluster_id, LAUNCH_MARK: launch_id}), signal.SIGKILL)

    def _find(self, cluster_id: str) -> dict[str, frozenset[int]]:
        found = procfs.marked_by(LAUNCH_MARK, {CLUSTER_MARK: cluster_id})
        prefix = group_name(cluster_id, "")
        for group in self._own_group.glob(f"{prefix}*") if self._own_group else ():
            if members := cgroups.members(group):
                launch_id = group.name.removeprefix(prefix)
                found[launch_id] = found.get(launch_id, frozenset()) | members
        return found

    def _shim(self, plan: LaunchPlan) -> procfs.Identity | None:
        return self._shims.get(plan.launch_id) or _shim_identity(plan.directory)

    def _group(self, plan: LaunchPlan) -> Path | None:
        """Return the control group that a launch was started in, also where the agent is in another one by now."""
        order = _read_json(plan.directory / shim.ORDER) or {}
        group = Path(str(order.get("group") or "/"))
        named = group.name == group_name(plan.cluster_id, plan.launch_id)
        return group if named and group.is_relative_to(_CONTROL_GROUPS) else None

    def _remove_group(self, cluster_id: str, launch_id: str, group: Path | None = None) -> None:
        group = group or (self._own_group and self._own_group / group_name(cluster_id, launch_id))
        if group is not None:
            cgroups.remove(group)

    def _log(self, plan: LaunchPlan, tail_lines: int, cursor: str) -> LogPart:
        directory = plan.directory / shim.OUTPUT
        identity = _shim_identity(plan.directory)
        complete = identity is None or not identity.alive()
        if tail_lines > 0:
            lines, truncated, end = output.read_tail(directory, tail_lines, complete=complete)
        else:
            start = int(cursor) if cursor.isascii() and cursor.isdigit() else 0
            lines, truncated, end = output.read_after(directory, start, complete=complete)
        return LogPart(lines=lines, truncated=truncated, cursor=str(end))

    def _discard(self, plan: LaunchPlan) -> None:
        group = self._group(plan)
        try:
            entries = list(os.scandir(own_directory(self._root, plan)))
        except FileNotFoundError:
            return
        # What the application wrote comes first, and what says where its group is only when that is gone.
        for entry in sorted(entries, key=lambda entry: (entry.name == shim.ORDER, entry.name != session_state.STATE)):
            if entry.name == shim.ORDER:
                self._remove_group(plan.cluster_id, plan.launch_id, group)
            if entry.name != shim.OUTPUT:
                session_state.remove(Path(entry.path))
        self._shims.pop(plan.launch_id, None)


def shortcomings() -> tuple[str, ...]:
    """Say what this machine lacks to keep what the agent trusts from its applications, for an operator."""
    found = []
    if (known := landlock.version()) < landlock.SIGNALS_SINCE:
        lacks = "write to the agent's files, and signal it" if known == 0 else "signal the agent and each other"
        found.append(f"applications of the process launcher can {lacks}: that takes Linux 6.12 with Landlock")
    group = cgroups.own_group()
    if group is None or not os.access(group, os.W_OK):
        text = "the end of an application is proved by its process tree alone: the agent may not make control groups"
        found.append(f"{text} (version 2, delegated to its user)")
    return tuple(found)


def own_directory(root: Path, plan: LaunchPlan) -> Path:
    """Return a launch's directory. Raises LaunchError where it is not below ``root``."""
    directory = plan.directory.absolute()
    if not directory.is_relative_to(root) or directory == root or ".." in directory.parts:
        raise LaunchError("BAD_DIRECTORY", f"{directory} is not below {root}: the plan is another agent's.")
    return directory


def _executable(plan: LaunchPlan, command: str) -> str | None:
    """Find the command as the application's own PATH has it, never as the agent's."""
    path = dict(plan.environment).get("PATH", os.defpath)
    if os.sep in command and not os.path.isabs(command):
        command = os.path.join(plan.working_directory or str(plan.directory), command)
    return shutil.which(command, path=path)


def _shim_environment(plan: LaunchPlan) -> dict[str, str]:
    source = str(Path(footlights.__path__[0]).parent)
    return {
        "PATH": os.defpath,
        "PYTHONPATH": source,
        "PYTHONDONTWRITEBYTECODE": "1",
        CLUSTER_MARK: plan.cluster_id,
        LAUNCH_MARK: plan.launch_id,
    }


def _shim_identity(directory: Path) -> procfs.Identity | None:
    state = _read_json(directory / shim.STATE)
    identity = None if state is None else state.get("shim")
    try:
        return procfs.Identity.from_json(identity) if isinstance(identity, dict) else None
    except ValueError:
        return None


def _read_json(path: Path) -> dict[str, object] | None:
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def group_name(cluster_id: str, launch_id: str) -> str:
    """Return the name of a launch's control group."""
    return f"footlights-{hashlib.sha256(cluster_id.encode()).hexdigest()[:12]}-{launch_id}"


def _ending(code: object) -> str:
    if not isinstance(code, int):
        return "its exit status is lost."
    if code < 0:
        try:
            return f"ended by {signal.Signals(-code).name}."
        except ValueError:
            return f"ended by signal {-code}."
    return f"exited with status {code}."
