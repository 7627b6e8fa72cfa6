"""Keeps a process and all that it starts from some files and from other processes' lives, by Landlock (landlock(7)).

It needs no rights and cannot be undone. What is in a domain may still read everything that its user may.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
import sys
from typing import TYPE_CHECKING

from footlights.linux import prctl

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION, _PATH_BENEATH, _SCOPE_SIGNAL = 1, 1, 1 << 1
_WRITE_FILE, _TRUNCATE = 1 << 1, 1 << 14
_CHANGE_DIRECTORY = sum(1 << bit for bit in range(4, 13))
"""Removing, and making anything."""
_REFER = 1 << 13
"""Moving between directories."""
SIGNALS_SINCE = 6
"""The version from which on others' lives are guarded as well (Linux 6.12)."""


def version() -> int:
    """Return the kernel's version of Landlock; 0 where there is none, or it is switched off."""
    if sys.platform != "linux":
        return 0
    try:
        return _call(_CREATE_RULESET, None, 0, _VERSION)
    except OSError:
        return 0


def confine(read_only: Sequence[str], writable: Sequence[str]) -> None:
    """Put this process into a domain of its own: it changes nothing below ``read_only``, except below ``writable``.

    From version 6 on, it can signal what is in its domain alone; in any it can trace only that. Files and directories
    that are later made beside the ancestors of ``read_only`` cannot be written to either. Without Landlock it does
    nothing.

    Args:
        read_only: Absolute paths without symbolic links.
        writable: Directories that may be below them.

    Raises:
        OSError: the kernel refuses.
    """
    found = version()
    if found < 1:
        return
    files = _WRITE_FILE | (_TRUNCATE if found >= 3 else 0)
    handled = files | _CHANGE_DIRECTORY | (_REFER if found >= 2 else 0)
    attributes = struct.pack("=QQQ", handled, 0, _SCOPE_SIGNAL)
    ruleset = _call(_CREATE_RULESET, attributes, 24 if found >= SIGNALS_SINCE else 8, 0)
    try:
        for path in (*_beside({*read_only}, "/"), *writable):
            _allow(ruleset, path, handled, files)
        prctl.forgo_new_privileges()
        _call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _beside(paths: set[str], directory: str) -> Iterator[str]:
    """Yield everything in a directory except ``paths`` and their ancestors, and the same of each ancestor."""
    if directory in paths:
        return
    prefix = directory.rstrip("/") + "/"
    if not any(path.startswith(prefix) for path in paths):
        yield directory
        return
    try:
        names = os.listdir(directory)
    except OSError:
        # Not to be listed, but one of ``paths`` is below: nothing of it is made writable.
        return
    for name in names:
        yield from _beside(paths, prefix + name)


def _allow(ruleset: int, path: str, rights: int, files: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return  # gone since it was listed
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISLNK(mode):
            rule = struct.pack("=Qi", rights if stat.S_ISDIR(mode) else files, descriptor)
            _call(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
    finally:
        os.close(descriptor)


def _call(number: int, *arguments: int | bytes | None) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    given = [ctypes.c_long(value) if isinstance(value, int) else ctypes.c_char_p(value) for value in arguments]
    result = int(libc.syscall(ctypes.c_long(number), *given))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"landlock: {os.strerror(ctypes.get_errno())}")
    return result
