"""A whole Footlights as real processes on loopback, for tests and benches."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx2

JSON = dict[str, Any]
AUTO_ACCEPT = "FOOTLIGHTS_AUTO_ACCEPT"
"""Whether a server accepts nodes by itself: here it does, where a test does not set it."""


async def until(condition: Callable[[], Awaitable[Any]], *, timeout_s: float = 60.0, what: str = "") -> Any:
    """Return the first true answer of ``condition``; fail loudly after ``timeout_s`` seconds."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = await condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what or condition}; last answer {answer!r}")
        await asyncio.sleep(0.05)


class Process:
    """One child process whose output goes to a file."""

    def __init__(self, name: str, log: Path, process: asyncio.subprocess.Process) -> None:
        self.name, self.log, self.process = name, log, process

    @classmethod
    async def start(
        cls, name: str, argv: list[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> Process:
        with log.open("ab") as file:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env={AUTO_ACCEPT: "true", **os.environ, **(environment or {})},
                start_new_session=True,
            )
        return cls(name, log, process)

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        if self.process.returncode is None:
            self.process.send_signal(number)

    async def stop(self, timeout_s: float = 20.0) -> int:
        """End it politely; fail where it does not heed."""
        self.kill(signal.SIGTERM)
        try:
            return await asyncio.wait_for(self.process.wait(), timeout_s)
        except TimeoutError:
            self.kill()
            await self.process.wait()
            raise AssertionError(f"{self.name} did not stop:\n{self.tail()}") from None

    def tail(self, count: int = 40) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])


class Stack:
    """A server and any number of agents. Leaving it ends them all and everything they started."""

    def __init__(
        self, directory: Path, *, server_options: tuple[str, ...] = (), environment: Mapping[str, str] | None = None
    ) -> None:
        """``environment`` is added to the server's; `released.take` makes one for the release before."""
        self.directory, self.environment = directory, environment
        self.server_options = server_options
        self.server: Process | None = None
        self.agents: dict[str, Process] = {}
        self.http = ""
        self.grpc = ""
        self.token = ""
        self._client: httpx2.AsyncClient | None = None

    async def __aenter__(self) -> Stack:
        self.directory.mkdir(parents=True, exist_ok=True)
        try:
            await self.start_server()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            for process in [self.server, *self.agents.values()]:
                if process is not None:
                    print(f"--- the end of {process.name}'s log ---\n{process.tail()}", file=sys.stderr)
        await self._close()

    async def start_server(self) -> None:
        """Start the server, on the ports it had before where it had any."""
        data = self.directory / "server"
        grpc_listen = self.grpc or "127.0.0.1:0"
        http_listen = self.http.removeprefix("http://") or "127.0.0.1:0"
        (data / "endpoints.json").unlink(missing_ok=True)
        argv = [sys.executable, "-m", "footlights", "server", "--data-dir", str(data)]
        argv += ["--grpc-listen", grpc_listen, "--http-listen", http_listen, *self.server_options]
        self.server = await Process.start("server", argv, self.directory / "server.log", self.environment)
        server = self.server

        async def listening() -> bool:
            assert server.process.returncode is None, f"the server ended:\n{server.tail()}"
            return (data / "endpoints.json").exists()

        await until(listening, what="the server listens")
        endpoints = json.loads((data / "endpoints.json").read_text())
        self.grpc, self.http = endpoints["grpc"], endpoints["http"]
        self.token = (data / "admin.token").read_text().strip()
        if self._client is None:
            self._client = self.client(self.token)

    def client(self, token: str) -> httpx2.AsyncClient:
        """Return an HTTP client that presents ``token``."""
        return httpx2.AsyncClient(
            base_url=self.http, headers={"Authorization": f"Bearer {token}"} if token else {}, timeout=20
        )

    async def start_agent(
        self,
        node: str = "node-a",
        *options: str,
        environment: Mapping[str, str] | None = None,
        wait: bool = True,
    ) -> Process:
        """Start an agent; by default with the fake and process launchers and two software devices."""
        token = self.directory / f"{node}.token"
        if not token.exists():
            created = await self.post("/tokens", {"role": "NODE", "subject": node})
            token.write_text(created["secret"])
        argv = [sys.executable, "-m", "footlights", "agent", "--node", node, "--server", self.grpc]
        argv += ["--token-file", str(token), "--data-dir", str(self.directory / node)]
        argv += list(options) or ["--launchers", "fake", "--launchers", "process", "--software-devices", "2"]
        agent = await Process.start(node, argv, self.directory / f"{node}.log", environment)
        self.agents[node] = agent

        async def linked() -> bool:
            assert agent.process.returncode is None, f"the agent ended:\n{agent.tail()}"
            answer = await self.call("GET", f"/nodes/{node}")
            return answer.status_code == 200 and answer.json()["state"] == "READY"

        if wait:
            await until(linked, what=f"{node} is READY")
        return agent

    async def call(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """Send one request as the first operator."""
        assert self._client is not None
        return await self._client.request(method, path, **options)

    async def get(self, path: str, **params: Any) -> JSON:
        return _well(await self.call("GET", path, params=params))

    async def post(self, path: str, body: JSON) -> JSON:
        return _well(await self.call("POST", path, json=body))

    async def put(self, path: str, body: JSON) -> JSON:
        return _well(await self.call("PUT", path, json=body))

    async def delete(self, path: str) -> JSON:
        return _well(await self.call("DELETE", path))

    async def register_fake(self, application: str = "fake", **behavior: Any) -> None:
        """Register an application of the fake launcher with one version."""
        version = {"version": "1.0.0", "fake": behavior}
        await self.put(
            f"/applications/{application}", {"application": {}, "versions": [version], "releases": {"default": "1.0.0"}}
        )

    async def session_in(self, session_id: str, *states: str, timeout_s: float = 20.0) -> JSON:
        """Wait until a session is in one of ``states``; fail at once where it has ended in another."""

        async def there() -> JSON | None:
            session = await self.get(f"/stream/{session_id}")
            if session["state"] in states:
                return session
            ended = session["state"] in ("TERMINATED", "FAILED")
            assert not ended, f"the session ended as {session['state']}: {session['status_message']}\n{session}"
            return None

        return dict(await until(there, timeout_s=timeout_s, what=f"{session_id} in {states}"))

    @contextlib.asynccontextmanager
    async def watching(self, path: str) -> AsyncIterator[AsyncIterator[JSON]]:
        """Follow an NDJSON stream; yields its messages."""
        assert self._client is not None
        async with self._client.stream("GET", path, timeout=30) as response:
            assert response.status_code == 200, await response.aread()

            async def messages() -> AsyncIterator[JSON]:
                async for line in response.aiter_lines():
                    if line.strip():
                        yield json.loads(line)["result"]

            yield messages()

    async def _close(self) -> None:
        if self._client is not None:
            await self._client.aclose()
        for process in self.agents.values():
            process.kill()
            await process.process.wait()
        if self.server is not None:
            self.server.kill()
            await self.server.process.wait()
        _kill_marked(str(self.directory))


def _well(response: httpx2.Response) -> JSON:
    assert response.status_code in (200, 202), f"{response.status_code}: {response.text}"
    return dict(response.json())


def _kill_marked(directory: str) -> None:
    """End what an agent of this stack has left running: it runs in a launch directory below ours."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes().decode(errors="replace")
            environment = (entry / "environ").read_bytes().decode(errors="replace")
            if directory in command or f"FOOTLIGHTS_SESSION_FILE={directory}" in environment:
                os.kill(int(entry.name), signal.SIGKILL)
