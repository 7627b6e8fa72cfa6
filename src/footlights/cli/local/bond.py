"""Ties processes together: a child that dies with its parent, and a parent that loses no descendant."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Collection, MutableMapping
from typing import Final

from footlights.linux import prctl

PARENT: Final = "FOOTLIGHTS_PARENT_PID"
"""Names the process that a child is to die with."""


def die_with_parent(environ: MutableMapping[str, str]) -> None:
    """Where ``environ`` names a parent: be sent SIGTERM when it dies, however it dies (prctl(2), Linux).

    Exits at once where it is dead already. The variable is removed, so that children of ours are not bound by it.
    """
    parent = environ.pop(PARENT, "")
    if not parent:
        return
    with contextlib.suppress(OSError):
        prctl.signal_on_parent_death(signal.SIGTERM)
    if os.getppid() != int(parent):
        raise SystemExit(0)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent dies, so that they can be found and ended (Linux)."""
    with contextlib.suppress(OSError):
        prctl.become_subreaper()


def reap_orphans(own: Collection[int]) -> bool:
    """Collect adopted children that have ended; those in ``own`` are left to who started them.

    Returns whether to call again soon: one of ``own`` stood in front, and others may be behind it.
    """
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        if ended is None:
            return False
        if ended.si_pid in own:
            return True
        with contextlib.suppress(ChildProcessError):
            os.waitpid(ended.si_pid, os.WNOHANG)
