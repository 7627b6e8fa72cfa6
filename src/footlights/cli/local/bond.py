"""Process supervision by prctl: a child that ends with its parent, and a parent that keeps all descendants."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Collection, MutableMapping
from typing import Final

PARENT: Final = "FOOTLIGHTS_PARENT_PID"
"""The variable with the pid of the process that a child ends with."""

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def die_with_parent(environ: MutableMapping[str, str]) -> None:
    """If ``environ`` names a parent, receive SIGTERM when it ends, however it ends (prctl(2), Linux).

    Exits at once if it has already ended. The variable is removed, so that it does not affect our own children.
    """
    parent = environ.pop(PARENT, "")
    if not parent:
        return
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):
        raise SystemExit(0)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent dies, so that they can be found and ended (Linux)."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def reap_orphans(own: Collection[int]) -> bool:
    """Collect adopted children that have ended, except those in ``own``, which asyncio collects.

    Returns whether to call again soon: one of ``own`` came first, and others may follow.
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


def _prctl(option: int, argument: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, argument, 0, 0, 0)
