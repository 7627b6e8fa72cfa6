"""A process with a pid of our choice: ``python -S victim.py PID`` runs ``sleep`` as exactly that pid, and waits for it.

clone3(2) with ``set_tid`` needs CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE; the exit status is 3 where it is refused.
"""

from __future__ import annotations

import ctypes
import os
import sys

_CLONE3 = 435
_SIGCHLD = 17


class _Arguments(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("pidfd", ctypes.c_uint64),
        ("child_tid", ctypes.c_uint64),
        ("parent_tid", ctypes.c_uint64),
        ("exit_signal", ctypes.c_uint64),
        ("stack", ctypes.c_uint64),
        ("stack_size", ctypes.c_uint64),
        ("tls", ctypes.c_uint64),
        ("set_tid", ctypes.c_uint64),
        ("set_tid_size", ctypes.c_uint64),
    )


def main() -> int:
    wanted = (ctypes.c_int * 1)(int(sys.argv[1]))
    arguments = _Arguments(exit_signal=_SIGCHLD, set_tid=ctypes.addressof(wanted), set_tid_size=1)
    libc = ctypes.CDLL(None, use_errno=True)
    pid = libc.syscall(_CLONE3, ctypes.byref(arguments), ctypes.sizeof(arguments))
    if pid == 0:
        os.execv("/bin/sleep", ["sleep", "600"])
    if pid < 0:
        print(os.strerror(ctypes.get_errno()), flush=True)
        return 3
    print(pid, flush=True)
    os.waitpid(pid, 0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
