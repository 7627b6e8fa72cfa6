"""How many agents may link is not decided by a shell's default."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from tests.system.stack import Process, until

pytestmark = pytest.mark.system


async def test_a_server_takes_all_the_open_files_that_it_may_have(tmp_path: Path) -> None:
    """
    A server that is started with the usual soft limit of 1024 open files has its hard limit.
    """
    argv = [sys.executable, "-m", "footlights", "server", "--data-dir", str(tmp_path / "server")]
    argv += ["--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]
    server = await Process.start("server", ["sh", "-c", 'ulimit -Sn 512; exec "$@"', "sh", *argv], tmp_path / "log")

    async def listens() -> bool:
        return (tmp_path / "server" / "endpoints.json").exists()

    try:
        await until(listens, what="the server listens")
        limits = await asyncio.to_thread(Path(f"/proc/{server.pid}/limits").read_text)
        soft, hard = next(line for line in limits.splitlines() if line.startswith("Max open files")).split()[3:5]
        assert json.loads(await asyncio.to_thread((tmp_path / "server" / "endpoints.json").read_text))
    finally:
        await server.stop()

    assert soft == hard != "512"
