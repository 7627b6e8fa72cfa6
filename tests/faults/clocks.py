"""Wall clocks that jump, one a process: a small library of our own that leaves every other clock alone."""

from __future__ import annotations

import hashlib
import struct
import subprocess
from pathlib import Path

from tests.devices.standin import compiler

_SOURCE = Path(__file__).with_name("clock.c")
_CACHE = Path(__file__).resolve().parents[2] / "build" / "jumping-clock"


class Clock:
    """One process's wall clock, seconds away from the machine's."""

    def __init__(self, library: Path, path: Path) -> None:
        self._library, self._path = library, path
        path.write_bytes(struct.pack("=q", 0))

    @property
    def environment(self) -> dict[str, str]:
        """What the process needs to live by this clock."""
        return {"LD_PRELOAD": str(self._library), "FOOTLIGHTS_CLOCK": str(self._path)}

    def jump(self, seconds: int) -> None:
        """Be so far away from now on. The file stays the same one: it is mapped."""
        with self._path.open("r+b") as file:
            file.write(struct.pack("=q", seconds))


def build() -> Path:
    """Compile the library once for each source text."""
    library = _CACHE / hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:16] / "clock.so"
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        draft = library.with_suffix(".new")
        subprocess.run([*compiler(), "-shared", "-fPIC", "-O1", "-o", str(draft), str(_SOURCE), "-ldl"], check=True)
        draft.replace(library)
    return library
