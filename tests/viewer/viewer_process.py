"""Starts the real viewer as a process, for tests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import aiohttp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

READY_DEADLINE = 30.0


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port that is free at this moment."""
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@dataclass
class ViewerProcess:
    """`python -m footlights.viewer` on free ports. Leaving the block kills it if it still runs."""

    stage: str
    log: Path
    extra: tuple[str, ...] = ()
    signal_port: int = field(default_factory=free_port)
    http_port: int = field(default_factory=free_port)
    media_port: int = field(default_factory=lambda: free_port(socket.SOCK_DGRAM))

    def __enter__(self) -> Self:
        self.stdout = self.log.open("wb")
        self.process = subprocess.Popen(
            [
                sys.executable, "-m", "footlights.viewer",
                "--signal-port", str(self.signal_port), "--media-port", str(self.media_port),
                "--http-port", str(self.http_port), "--usd-stage-uri", self.stage, *self.extra,
            ],
            stdin=subprocess.DEVNULL, stdout=self.stdout, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        return self

    def __exit__(self, *_error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        self.stdout.close()

    async def listening(self, client: aiohttp.ClientSession, *urls: str) -> None:
        """Wait until each address takes connections."""
        async with asyncio.timeout(READY_DEADLINE):
            for url in urls:
                while True:
                    try:
                        async with client.options(url):
                            break
                    except aiohttp.ClientConnectionError:
                        await asyncio.sleep(0.05)

    @property
    def whep(self) -> str:
        """Where offers go."""
        return f"http://127.0.0.1:{self.signal_port}/whep"

    def get(self, path: str) -> tuple[int, Any]:
        """Status and JSON of a GET on the HTTP port."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=5) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def post(self, path: str, body: bytes) -> int:
        """Status of a POST on the HTTP port."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}{path}", data=body, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    async def status(self) -> dict[str, Any]:
        """`/v1/streaming/status`, without blocking the event loop."""
        _, body = await asyncio.to_thread(self.get, "/v1/streaming/status")
        return dict(body)

    async def status_where(self, matches: Callable[[dict[str, Any]], bool], timeout: float = 10.0) -> dict[str, Any]:
        """The first status that matches. Raises TimeoutError."""
        async with asyncio.timeout(timeout):
            while not matches(status := await self.status()):  # noqa: ASYNC110 - another process can only be asked
                await asyncio.sleep(0.05)
        return status

    def wait_ready(self) -> None:
        """Block until `/v1/streaming/ready` is 200. Raises AssertionError with the log."""
        deadline = time.monotonic() + READY_DEADLINE
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError):
                if self.get("/v1/streaming/ready")[0] == 200:
                    return
            time.sleep(0.05)
        raise AssertionError(f"not ready, exit code {self.process.poll()}:\n{self.log.read_text()}")

    def wait_end(self, timeout: float = 20.0) -> tuple[int, list[str]]:
        """Exit code and the lines of stderr."""
        _, stderr = self.process.communicate(timeout=timeout)
        return self.process.returncode, stderr.splitlines()

    def terminate(self) -> float:
        """SIGTERM; how many seconds it took to end."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=10)
        return time.monotonic() - began


@contextlib.contextmanager
def ready_viewer(stage: str, log: Path, *extra: str) -> Iterator[ViewerProcess]:
    """A viewer that is ready."""
    with ViewerProcess(stage, log, extra) as viewer:
        viewer.wait_ready()
        yield viewer
