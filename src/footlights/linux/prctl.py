"""Ties processes together, by prctl(2): a child that dies with its parent, a parent that inherits every descendant."""

from __future__ import annotations

import ctypes
import errno
import os
import sys

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 1, 36, 38, 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4


def signal_on_parent_death(number: int) -> None:
    """Have the kernel send this process a signal when its parent dies, however it dies. Raises OSError."""
    _prctl(_PR_SET_PDEATHSIG, number)


def become_subreaper() -> None:
    """Become the parent of every descendant whose own parent dies. Raises OSError."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def forgo_new_privileges() -> None:
    """Get no rights from any program that this process or its children execute. Raises OSError."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def keep_capabilities() -> None:
    """Hand down none of the capabilities that this process was given (capabilities(7), ambient). Raises OSError.

    It has them itself; threads that were begun before hand theirs down.
    """
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)


def _prctl(option: int, value: int) -> None:
    if sys.platform != "linux":
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")
