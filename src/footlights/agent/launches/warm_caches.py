"""Keeps what a session that runs here has made, for later sessions of its version. For a command, not for the agent."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from footlights.agent.launches.journal import read_entries
from footlights.errors import FailedPrecondition, LocalReason
from footlights.launch.caches import CacheError, CacheStore, KeptCache
from footlights.launch.launchers import traits_of
from footlights.launch.process.launcher import CLUSTER_MARK, LAUNCH_MARK
from footlights.linux import procfs

if TYPE_CHECKING:
    from pathlib import Path

    from footlights.launch.launcher import LaunchPlan


def take_from_session(data_dir: Path, session: str, *, most_bytes: int) -> KeptCache:
    """Keep the caches of a session, named by its id or its launch's. Blocking. Raises FailedPrecondition."""
    data_dir = data_dir.absolute()
    plan = next(
        (each.plan for each in read_entries(data_dir / "journal") if session in (each.launch_id, each.plan.session_id)),
        None,
    )
    if plan is None:
        raise _failed(f"no session {session} is on this node (by the journal in {data_dir})")
    home = dict(plan.environment).get("HOME") or traits_of(plan.version).home
    root, owner = _root_of(plan)
    try:
        return CacheStore(data_dir / "caches").take(plan.version, root, home, owner=owner, most_bytes=most_bytes)
    except CacheError as error:
        raise _failed(f"nothing of session {session} was kept: {error}") from error
    except OSError as error:
        text = f"nothing of session {session} was kept: {error}. A session's files are read by its user and root"
        raise _failed(text) from error


def _root_of(plan: LaunchPlan) -> tuple[str, int]:
    """Return the root of what a launch's processes see, and their user's id."""
    for pid in sorted(procfs.marked({CLUSTER_MARK: plan.cluster_id, LAUNCH_MARK: plan.launch_id})):
        with contextlib.suppress(OSError):
            process = procfs.PROC / str(pid)
            (process / "root").stat()
            [line] = [line for line in (process / "status").read_text().splitlines() if line.startswith("Uid:")]
            return str(process / "root"), int(line.split()[2])  # the effective one
    raise _failed(f"session {plan.session_id} does not run, or its processes may not be read: run this as root")


def _failed(text: str) -> FailedPrecondition:
    return FailedPrecondition(text, reason=LocalReason.CACHE_NOT_TAKEN)
