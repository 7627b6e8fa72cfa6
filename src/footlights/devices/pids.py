"""Whether the process ids that a GPU driver reports, which are the host's, are ours too."""

from __future__ import annotations

import os
import sys

_INITIAL_PID_NAMESPACE = 0xEFFFFFFC
"""Inode of the initial pid namespace: ``PID_NS_INIT_INO`` of Linux' ``include/uapi/linux/nsfs.h``, the same
on every kernel since 3.8. Asking ``/proc/1`` instead would compare a container's first process with itself,
and needs root."""


def are_the_hosts() -> bool | None:
    """Whether our pids are the host's: True also in a container that shares them; None where it cannot be told."""
    if not sys.platform.startswith("linux"):
        return True if sys.platform == "win32" else None
    try:
        return os.stat("/proc/self/ns/pid").st_ino == _INITIAL_PID_NAMESPACE
    except OSError:
        return None
