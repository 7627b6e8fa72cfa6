"""A disk that fails under a real process, by strace: reported, nothing acknowledged lost, and well again (`sqlite`)."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults.tracing import CannotTrace, failing


class Writer:
    """A process with the store."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def start(cls, directory: Path) -> Writer:
        pipe = asyncio.subprocess.PIPE
        argv = (sys.executable, "-m", "tests.store.writer_process", str(directory))
        writer = cls(await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe))
        assert await writer.hears() == "open"
        return writer

    async def hears(self) -> str:
        assert self.process.stdout is not None
        return (await asyncio.wait_for(self.process.stdout.readline(), 30)).decode().strip()

    async def write(self, name: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{name}\n".encode())
        return await self.hears()

    async def names(self) -> set[str]:
        return set((await self.write("")).split())

    async def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()


@pytest.fixture
async def writer(tmp_path: Path) -> AsyncIterator[Writer]:
    running = await Writer.start(tmp_path)
    yield running
    await running.kill()


@pytest.mark.parametrize("calls", ["fdatasync,fsync", "pwrite64", "fdatasync,fsync,pwrite64"])
async def test_what_cannot_be_synced_is_refused_and_what_was_acknowledged_is_there(
    tmp_path: Path, writer: Writer, calls: str
) -> None:
    """EIO is said, and what is not known; then the same process writes on, and a crash loses nothing."""
    kept = {f"n-{number}" for number in range(3)}
    assert [await writer.write(name) for name in sorted(kept)] == ["ok"] * 3
    assert await writer.names() == kept

    try:
        async with failing(writer.process.pid, calls):
            refused = [await writer.write(f"n-bad-{number}") for number in range(3)]
            during = await writer.names()
    except CannotTrace as why:
        pytest.skip(str(why))
    after = await writer.write("n-after")
    seen = await writer.names()
    await writer.kill()
    again = await Writer.start(tmp_path)
    recovered = await again.names()
    await again.kill()

    assert {tuple(answer.split()[:2]) for answer in refused} == {("refused", "STORE_UNAVAILABLE")}
    assert all("disk I/O error" in answer for answer in refused)
    assert "is not known" in refused[0]
    assert kept <= during
    assert after == "ok"
    assert kept | {"n-after"} <= seen
    assert seen == recovered, "what was seen to be there is there after a crash, and nothing else comes to light"


async def test_a_disk_that_fails_now_and_then_loses_nothing(tmp_path: Path, writer: Writer) -> None:
    """Every third sync fails, for a hundred writes: what was acknowledged is there after a crash."""
    answers = {}
    try:
        async with failing(writer.process.pid, "fdatasync,fsync", when="2+3"):
            for number in range(100):
                answers[f"n-{number}"] = await writer.write(f"n-{number}")
    except CannotTrace as why:
        pytest.skip(str(why))
    await writer.kill()
    again = await Writer.start(tmp_path)
    recovered = await again.names()
    more = await again.write("n-more")
    await again.kill()

    acknowledged = {name for name, answer in answers.items() if answer == "ok"}
    assert 0 < len(acknowledged) < 100
    assert acknowledged <= recovered
    assert more == "ok"
