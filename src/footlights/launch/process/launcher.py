"""Runs applications as processes of the node, each under its shim.

Everything is read afresh from the launch's directory and from /proc, so a new agent sees what the one before it saw.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import footlights
from footlights.launch.launcher import LaunchError, LaunchPlan, LogPart, Phase, Status, node_error
from footlights.launch.process import output, shim
from footlights.linux import files, procfs

SESSION_FILE = "session.json"
CLUSTER_MARK, LAUNCH_MARK = "FOOTLIGHTS_CLUSTER_ID", "FOOTLIGHTS_LAUNCH_ID"
START_TIMEOUT_S = 30.0
"""How long a shim may take to execute its application: a fork and an exec, on a machine under load."""


class ProcessLauncher:
    """Starts each application under a shim of its own; keeps the `launcher.Launcher` protocol."""

    name = "process"

    def __init__(
        self,
        root: Path,
        *,
        segment_bytes: int = output.SEGMENT_BYTES,
        segments: int = output.SEGMENTS,
    ) -> None:
        self._root = root.absolute()
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
        await asyncio.to_thread(self._write_order, plan, directory, secrets)
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
            raise node_error(answer.get("errno"), message) or LaunchError(reason, message)

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
        """Remove the launch's directory except its output."""
        await asyncio.to_thread(self._discard, plan)

    async def find(self, cluster_id: str) -> dict[str, frozenset[int]]:
        """Find the processes that carry the cluster's mark in their environment, shims included."""
        return await asyncio.to_thread(procfs.marked_by, LAUNCH_MARK, {CLUSTER_MARK: cluster_id})

    async def end_orphan(self, cluster_id: str, launch_id: str) -> None:
        """SIGKILL everything that carries the marks of a launch whose plan is lost. Repeat until it is not found."""
        await asyncio.to_thread(_kill_marked, cluster_id, launch_id)

    async def close(self) -> None:
        """Nothing is held."""

    def _write_order(self, plan: LaunchPlan, directory: Path, secrets: bytes) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.replace_file(directory / SESSION_FILE, secrets or b"{}")
        command = _executable(plan, plan.argv[0]) or plan.argv[0]
        files.replace_json(
            directory / shim.ORDER,
            {
                "argv": [command, *plan.argv[1:]],
                "environment": dict(plan.environment),
                "working_directory": plan.working_directory or str(directory),
                "stop_grace_s": plan.stop_grace_s,
                "segment_bytes": self._segment_bytes,
                "segments": self._segments,
            },
        )

    def _status(self, plan: LaunchPlan) -> Status:
        directory = plan.directory
        ended = _read_json(directory / shim.EXIT)
        if ended is not None:
            code = ended.get("exit_code")
            return Status(Phase.EXITED, exit_code=code if isinstance(code, int) else None, message=_ending(code))
        identity = _shim_identity(directory)
        if identity is None:
            return Status(Phase.UNKNOWN)
        if identity.alive():
            pids = procfs.descendants(identity.pid)
            # The tree may have ended, and with it the shim, between the two looks.
            return Status(Phase.RUNNING, pids=pids) if pids or identity.alive() else self._status(plan)
        ended = _read_json(directory / shim.EXIT)
        if ended is not None:
            return self._status(plan)
        if identity.boot_id != procfs.boot_id():
            return Status(Phase.EXITED, message="the node was restarted while it ran: its exit status is lost.")
        pids = procfs.marked({CLUSTER_MARK: plan.cluster_id, LAUNCH_MARK: plan.launch_id})
        if pids:
            return Status(Phase.RUNNING, pids=pids, message="its shim is gone: end it, its output is lost.")
        return Status(Phase.EXITED, message="its shim was killed: its exit status is lost.")

    def _stop(self, plan: LaunchPlan, kill: bool) -> None:
        if (plan.directory / shim.EXIT).exists():
            return
        identity = _shim_identity(plan.directory)
        if identity is not None and identity.send(signal.SIGUSR1 if kill else signal.SIGTERM):
            return
        if identity is not None or kill:
            _kill_marked(plan.cluster_id, plan.launch_id)

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
        try:
            entries = list(os.scandir(own_directory(self._root, plan)))
        except FileNotFoundError:
            return
        for entry in entries:
            if entry.name == shim.OUTPUT:
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                Path(entry.path).unlink(missing_ok=True)


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


def _kill_marked(cluster_id: str, launch_id: str) -> None:
    procfs.kill(procfs.marked({CLUSTER_MARK: cluster_id, LAUNCH_MARK: launch_id}), signal.SIGKILL)


def _ending(code: object) -> str:
    if not isinstance(code, int):
        return "its exit status is lost."
    if code < 0:
        try:
            return f"ended by {signal.Signals(-code).name}."
        except ValueError:
            return f"ended by signal {-code}."
    return f"exited with status {code}."
