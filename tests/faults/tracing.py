"""Lets a process's system calls fail as a bad disk's do, by strace's injection."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator

DISK_CALLS = "fsync,fdatasync,pwrite64"
"""What SQLite makes its changes durable with."""
JOURNAL_CALLS = "fsync"
_ATTACH_S = 10.0


class CannotTrace(Exception):
    """strace is missing or may not attach here; the message says why."""


@contextlib.asynccontextmanager
async def failing(pid: int, calls: str, *, error: str = "EIO", when: str = "1+") -> AsyncIterator[None]:
    """Let system calls of a process and of all its threads fail while the context is open.

    Args:
        pid: The process.
        calls: Names of system calls, separated by commas.
        error: What they fail with.
        when: Which of each thread's calls fail, as ``strace --inject`` counts them.

    Raises:
        CannotTrace: strace is not installed, or may not attach.
    """
    if shutil.which("strace") is None:
        raise CannotTrace("strace is not installed")
    tracer = await asyncio.create_subprocess_exec(
        *("strace", "-f", "-o", os.devnull, "-p", str(pid)),
        *("-e", f"trace={calls}", "-e", f"inject={calls}:error={error}:when={when}"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert tracer.stderr is not None
    reading: asyncio.Task[bytes] | None = None
    try:
        line = (await asyncio.wait_for(tracer.stderr.readline(), _ATTACH_S)).decode().strip()
        if not line.endswith("attached") and " attached with " not in line:
            raise CannotTrace(f"strace cannot attach: {line}")
        reading = asyncio.create_task(tracer.stderr.read())
        yield
    finally:
        # It detaches by itself, and only once: a second signal to one that has ended would take its status from us.
        if tracer.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                tracer.terminate()
        await tracer.wait()
        if reading is not None:
            await reading
