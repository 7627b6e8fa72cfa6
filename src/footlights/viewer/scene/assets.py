"""The bytes of the files that a stage names."""

from __future__ import annotations

import contextlib
import os
import stat
import zipfile
from typing import IO, TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from footlights.viewer.scene.roots import StageRoots

MAX_FILE_BYTES: Final = 64 << 20


def read_asset(file: str, roots: StageRoots) -> bytes:
    """Return the bytes of a file, or of one within a usdz package: `package.usdz[path]`.

    Raises OSError or KeyError where it is not there; ValueError where it is no regular file, too large, or
    outside the roots. A damaged
    package raises whatever its decompressor does.
    """
    package, bracket, inner = file.partition("[")
    if not (bracket and inner.endswith("]")):
        with _regular(file, roots) as plain:
            return _bounded(plain)
    with _regular(package, roots) as whole, zipfile.ZipFile(whole) as archive, archive.open(inner[:-1]) as member:
        return _bounded(member)


@contextlib.contextmanager
def _regular(file: str, roots: StageRoots) -> Iterator[IO[bytes]]:
    """Open a regular file: a stage may name a device, which never ends, or a pipe, which nobody may write to."""
    with os.fdopen(os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as opened:
        if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            raise ValueError("it is not a regular file")
        # Of what was opened, not of its name: a link may lead elsewhere by now.
        if not roots.admits_file(os.readlink(f"/proc/self/fd/{opened.fileno()}")):
            raise ValueError("it is not below a root that is allowed")
        yield opened


def _bounded(opened: IO[bytes]) -> bytes:
    """Read to the end. What is said of a size beforehand is not believed."""
    content = opened.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"it has more than {MAX_FILE_BYTES >> 20} MiB")
    return content
