"""How an application ended, as the unit's last command writes it down (systemd.exec(5), ``EXIT_STATUS``)."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

RESERVED_BYTES: Final = 128
_PARTS: Final = 3
_RESULTS: Final = {
    "oom-kill": "it used more memory than it may have, and was ended",
    "timeout": "it did not end within its grace, and was killed",
}
_FAULTS: Final = {
    "CHDIR": (200, "WORKING_DIRECTORY_NOT_FOUND", "its working directory is not there, or it may not enter it"),
    "EXEC": (203, "COMMAND_NOT_EXECUTABLE", "its command could not be executed"),
    "USER": (217, "NO_USER", "systemd has no user for it"),
    "NAMESPACE": (226, "NO_NAMESPACE", "its view of the file system could not be made"),
    "SECCOMP": (228, "NO_SECCOMP", "its system calls could not be limited"),
    "CREDENTIALS": (243, "NO_CREDENTIALS", "its session file could not be passed"),
}
"""Steps of a start, and the statuses of processes that did not come further (systemd.exec(5))."""
_STEP: Final = re.compile(r"Failed at step ([A-Z_]+) ")


@dataclass(frozen=True, slots=True)
class UnitExit:
    """The end of an application."""

    exit_code: int | None
    """As `launcher.Status` has it."""
    message: str
    killed: bool = False
    """Whether it had to be, when its grace was over."""
    cause: str = ""
    """As `launcher.Status` has it."""


def reserve(path: Path) -> None:
    """Write the file as it is before the start. Raises OSError."""
    path.write_bytes(b" " * RESERVED_BYTES)
    path.chmod(0o600)


def read(path: Path) -> UnitExit | None:
    """Return what the file says; None where there is none, or it says nothing."""
    parts = _parts(path)
    if parts is None:
        return None
    result, code, status = parts
    exit_code = _exit_code(code, status)
    if result in _RESULTS:
        cause = _RESULTS[result] if result == "oom-kill" else ""
        return UnitExit(exit_code, f"{_RESULTS[result]}.", killed=result == "timeout", cause=cause)
    if exit_code is None:
        return UnitExit(None, f"its exit status is lost ({result}).")
    ended = f"exited with status {exit_code}." if exit_code >= 0 else f"ended by SIG{status}."
    return UnitExit(exit_code, ended)


def fault(path: Path, said: str) -> tuple[str, str]:
    """Say why a unit did not start, by the file or by what systemd ``said``: a reason, and a text without an end."""
    parts = _parts(path)
    step = _STEP.search(said)
    for name, (status, reason, text) in _FAULTS.items():
        # A fault of the whole unit is one of the command that writes the file as well.
        if (parts is not None and parts[2] == str(status)) or (step is not None and step.group(1) == name):
            return reason, text
    return "START_FAILED", f"systemd could not start it ({' '.join(parts) if parts else 'no status'})"


def _parts(path: Path) -> list[str] | None:
    try:
        parts = path.read_text(encoding="ascii", errors="replace").split()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return parts if len(parts) == _PARTS else None


def _exit_code(code: str, status: str) -> int | None:
    if code == "exited" and status.isdigit():
        return int(status)
    if code in ("killed", "dumped"):
        try:
            return -signal.Signals[f"SIG{status}"]
        except KeyError:
            return -int(status) if status.isdigit() else None
    return None
