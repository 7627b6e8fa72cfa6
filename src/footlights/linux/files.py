"""Files that a crash leaves whole: atomic, private and durable writes, and locks between processes."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PRIVATE = 0o600


def replace_file(path: Path, content: bytes, *, mode: int = PRIVATE, durable: bool = True) -> None:
    """Write a file so that a reader sees all of it, or all of the one before. Raises OSError.

    ``mode`` is its permissions from its first byte; ``durable``: whether it survives a power cut from the return on.
    """
    draft = _write_draft(path, content, mode=mode, durable=durable)
    try:
        os.replace(draft, path)
    except OSError:
        _remove(draft)
        raise
    if durable:
        sync_directory(path.parent)


def replace_json(path: Path, value: object) -> None:
    """Write JSON as ``replace_file`` does."""
    replace_file(path, json.dumps(value).encode())


def create_file(path: Path, content: bytes, *, mode: int = PRIVATE) -> bool:
    """Write a file unless there is one of that name; return whether this call, of several at once, created it."""
    draft = _write_draft(path, content, mode=mode, durable=True)
    try:
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        _remove(draft)
    sync_directory(path.parent)
    return True


def lock_file(path: Path) -> int:
    """Lock a file for as long as the returned descriptor is open. Raises BlockingIOError: another process has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def sync_directory(directory: Path) -> None:
    """Put a directory's entries on disk: a name that was created, replaced or removed stays so after a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_draft(path: Path) -> bool:
    """Whether a file is the rest of a write that was cut off before it was given its name."""
    return path.name.startswith(".")


def _write_draft(path: Path, content: bytes, *, mode: int, durable: bool) -> Path:
    draft = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
    except OSError:
        _remove(draft)
        raise
    return draft


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def open_within(root: str, relative: str) -> int:
    """Return a descriptor (O_PATH) of what lies below a directory, with no link on the way. Raises OSError."""
    found = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for name in relative.split("/"):
        if name in ("", "."):
            continue
        try:
            inner = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=found)
        finally:
            os.close(found)
        found = inner
        if stat.S_ISLNK(os.fstat(found).st_mode):
            os.close(found)
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)
    return found
