"""What stands before the replicas in compose/, run as it is but for its ports, with stand-ins behind it."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest

from tests.deploy import DEPLOY
from tests.system.stack import until

pytestmark = pytest.mark.skipif(
    shutil.which("haproxy") is None, reason="haproxy is not on this machine (Debian: haproxy)"
)


@dataclass
class Replica:
    """A stand-in: HTTP that says its name and whether it is ready, and a socket that says its name."""

    name: str
    ready: bool = True
    http: int = 0
    grpc: int = 0
    seen: list[str] = field(default_factory=list)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        path = head.split()[1]
        if path == "/readyz":
            writer.write(f"HTTP/1.1 {200 if self.ready else 503} X\r\nContent-Length: 0\r\n\r\n".encode())
        elif path == "/watch":
            self.seen.append(head)
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nfirst\n\r\n")
            await writer.drain()
            # It says nothing more: what came first must have been passed on.
            await reader.read()
        else:
            self.seen.append(head)
            writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(self.name)}\r\n\r\n{self.name}".encode())
        writer.close()

    async def say(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self.name.encode())
        writer.close()


@dataclass
class Front:
    http: str
    grpc: tuple[int, int]
    """That of clients, and that of agents."""
    replicas: tuple[Replica, Replica]

    async def call(self) -> str:
        """Which replica answers over HTTP, or the status where none does."""
        async with httpx2.AsyncClient() as client:
            answer = await client.get(f"{self.http}/stream")
        return answer.text if answer.status_code == 200 else str(answer.status_code)

    async def connect(self, port: int) -> str:
        """Which replica answers on a port of gRPC; empty where none does."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            return (await reader.read()).decode()
        except ConnectionResetError:
            return ""
        finally:
            writer.close()


@asynccontextmanager
async def front(directory: Path) -> AsyncIterator[Front]:
    """HAProxy before two replicas."""
    replicas = (Replica("a"), Replica("b"))
    async with AsyncExitStack() as stack:
        for replica in replicas:
            for kind, body in (("http", replica.answer), ("grpc", replica.say)):
                server = await stack.enter_async_context(await asyncio.start_server(body, "127.0.0.1", 0))
                setattr(replica, kind, server.sockets[0].getsockname()[1])
        a, b = replicas
        ports = {8081: a.http, 8082: b.http, 50061: a.grpc, 50062: b.grpc, 50071: a.grpc, 50072: b.grpc}
        ports |= {own: _free() for own in (8080, 50051, 50052)}
        text = (DEPLOY / "compose/haproxy.cfg").read_text()
        text = re.sub(r"(?<=:)\d{4,5}|(?<=port )\d{4,5}", lambda found: str(ports[int(found[0])]), text)
        (directory / "haproxy.cfg").write_text(text)
        haproxy = await asyncio.create_subprocess_exec(
            "haproxy", "-db", "-f", str(directory / "haproxy.cfg"), stdout=asyncio.subprocess.DEVNULL
        )
        try:
            yield Front(f"http://127.0.0.1:{ports[8080]}", (ports[50051], ports[50052]), replicas)
        finally:
            with contextlib.suppress(ProcessLookupError):
                haproxy.kill()
            await haproxy.wait()


def _free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_who_is_not_ready_is_left_out(tmp_path: Path) -> None:
    """
    Both replicas are asked; one that is not ready is asked nothing, over HTTP and gRPC, until it is ready again.
    """
    async with front(tmp_path) as before:

        async def answering() -> set[str]:
            try:
                calls = [await before.call() for _ in range(4)]
                return {*calls, *[await before.connect(port) for port in before.grpc for _ in range(4)]}
            except (httpx2.ConnectError, ConnectionRefusedError):
                return set()

        async def answer_is(wanted: set[str]) -> bool:
            return await answering() == wanted

        await until(lambda: answer_is({"a", "b"}), what="both answer")
        before.replicas[0].ready = False
        await until(lambda: answer_is({"b"}), what="b alone answers")
        before.replicas[0].ready = True
        await until(lambda: answer_is({"a", "b"}), what="both answer again")


async def test_watches_are_passed_on_as_they_come(tmp_path: Path) -> None:
    """
    The first line of an answer that does not end is there at once, and the replica learns who called.
    """
    async with front(tmp_path) as before, httpx2.AsyncClient() as client:

        async def first() -> str:
            try:
                async with client.stream("GET", f"{before.http}/watch") as answer:
                    return await anext(answer.aiter_lines()) if answer.status_code == 200 else ""
            except httpx2.ConnectError:
                return ""

        assert await until(first, what="HAProxy listens and a replica answers") == "first"
    (head,) = [head for replica in before.replicas for head in replica.seen]

    assert "x-forwarded-for: 127.0.0.1" in head.lower()
