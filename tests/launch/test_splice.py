"""The agent's door in front of an application that checks no secret, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import InvalidStatus

from footlights.launch.connections import HEAD_BYTES
from footlights.launch.splice import MOST_UNKNOWN
from footlights.protocol.launch_secrets import HEADER, PROOF, prove
from tests.launch.knocking import ask, door, proof

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

SECRET = "fls_" + "s" * 43


class Inner:
    """The application: answers each connection's bytes with what it read, and counts connections."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            while piece := await reader.read(1 << 16):
                writer.write(piece)
                await writer.drain()
        except (OSError, EOFError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def application() -> AsyncIterator[tuple[Inner, int]]:
    inner = Inner()
    server = await asyncio.start_server(inner.serve, "127.0.0.1", 0)
    try:
        yield inner, server.sockets[0].getsockname()[1]
    finally:
        server.close()


@pytest.mark.parametrize(
    "headers",
    [
        "",
        f"{HEADER}: {SECRET}\r\n",
        f"{PROOF}: \r\n",
        f"{PROOF}: {SECRET}\r\n",
        f"{PROOF}: {prove(SECRET, '', 'POST', '/whep')}\r\n",
        f"{PROOF}: {prove(SECRET, 'another challenge', 'POST', '/whep')}\r\n",
    ],
)
async def test_whoever_lacks_the_secret_is_refused(headers: str) -> None:
    """401, and the application does not hear of it; what looks like the header is none."""
    async with application() as (inner, signal), door(signal, SECRET) as port:
        answer = await ask(port, f"POST /whep HTTP/1.1\r\nHost: node\r\n{headers}\r\n", ends=True)

        assert answer.startswith(b"HTTP/1.1 401 ")
        assert SECRET.encode() not in answer
        assert inner.heads == []


@pytest.mark.parametrize(
    "changed",
    [
        lambda line: line.replace("GET", "POST"),
        lambda line: line.replace("/whep", "/other"),
        lambda line: line.replace(f"{PROOF}: ", f"X-{PROOF}: "),
        lambda line: line.replace(f"\r\n{PROOF}: ", f"\r\n {PROOF}: "),
        lambda line: line.replace("\r\n\r\n", f"\r\n{PROOF}: wrong\r\n\r\n"),
        lambda line: line.replace("\r\n\r\n", "0\r\n\r\n"),
    ],
    ids=["another method", "another target", "another header", "a folded header", "two proofs", "another proof"],
)
async def test_a_proof_is_for_one_request(changed: Callable[[str], str]) -> None:
    """Whatever else is asked with it is refused; and so is the same once more, as by one who read along."""
    async with application() as (inner, signal), door(signal, SECRET) as port:
        head = f"GET /whep HTTP/1.1\r\nHost: node\r\n{await proof(port, SECRET, target='/whep')}\r\n"
        refused = await ask(port, changed(head), ends=True)
        answers = [await ask(port, head, ends=True) for _ in range(3)]

        assert refused.startswith(b"HTTP/1.1 401 ")
        assert [answer[:13] for answer in answers] == [b"HTTP/1.1 200 ", b"HTTP/1.1 401 ", b"HTTP/1.1 401 "]
        assert len(inner.heads) == 1


async def test_with_the_secret_everything_passes_both_ways() -> None:
    """The head as it was sent, with the secret for an application that asks for it unsaid; the body, and the end."""
    async with application() as (inner, signal), door(signal, SECRET) as port:
        shown = await proof(port, SECRET, "POST", "/whep")
        head = f"POST /whep HTTP/1.1\r\nHost: node\r\n{shown}\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = bytes(range(256)) * 4096
        writer.write(head.encode() + body)
        writer.write_eof()
        answer = await asyncio.wait_for(reader.read(-1), 10)
        writer.close()

        assert answer == b"HTTP/1.1 200 OK\r\n\r\n" + body
        first, _, rest = head.partition("\r\n")
        assert inner.heads == [f"{first}\r\nFootlights-Launch-Secret: {SECRET}\r\n{rest}".encode()]


async def test_a_websocket_passes() -> None:
    """As Kit's signalling is one; without the secret its handshake fails."""

    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async with serve(echo, "127.0.0.1", 0) as server, door(server.sockets[0].getsockname()[1], SECRET) as port:
        url = f"ws://127.0.0.1:{port}/sign_in"
        name, _, value = (await proof(port, SECRET, target="/sign_in")).strip().partition(": ")
        async with connect(url, additional_headers={name: value}, proxy=None) as viewer:
            await viewer.send("hello")
            assert await viewer.recv() == "hello"
        with pytest.raises(InvalidStatus, match="401"):
            await connect(url, proxy=None)


async def test_callers_that_say_nothing_are_dropped_and_shut_out_nobody() -> None:
    """A head has ten seconds and 64 KiB; until then they hold a number of places that a new caller may take."""
    async with application() as (_, signal), door(signal, SECRET, head_s=0.3) as port:
        long = await ask(port, "POST /whep HTTP/1.1\r\nX: " + "x" * (2 * HEAD_BYTES))
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2 * MOST_UNKNOWN)]
        answer = await ask(port, f"GET / HTTP/1.1\r\n{await proof(port, SECRET)}\r\n", ends=True)
        ends = [await asyncio.wait_for(ended(reader), 10) for reader, _ in silent]
        for _, writer in silent:
            writer.close()

        assert b"200 OK" not in long
        assert answer.startswith(b"HTTP/1.1 200")
        assert not any(b"200 OK" in end for end in ends)


async def test_the_silent_of_one_address_shut_out_no_other_address() -> None:
    """However many they are, who is slow elsewhere keeps its place."""
    async with application() as (_, signal), door(signal, SECRET) as port:
        slow, slow_writer = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0))
        slow_writer.write(b"GET / HTTP/1.1\r\n")
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3 * MOST_UNKNOWN)]
        await asyncio.wait_for(ended(silent[0][0]), 10)

        slow_writer.write(f"{await proof(port, SECRET)}\r\n".encode())
        assert await asyncio.wait_for(slow.readline(), 10) == b"HTTP/1.1 200 OK\r\n"
        for _, writer in [*silent, (slow, slow_writer)]:
            writer.close()


async def ended(reader: asyncio.StreamReader) -> bytes:
    """Return all that was said until the connection ended; a reset is an end too."""
    try:
        return await reader.read(-1)
    except ConnectionError:
        return b""


async def test_an_application_that_does_not_listen_is_a_bad_gateway() -> None:
    """As while it starts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        async with door(probe.getsockname()[1], SECRET) as port:
            answer = await ask(port, f"GET / HTTP/1.1\r\n{await proof(port, SECRET)}\r\n", ends=True)

    assert answer.startswith(b"HTTP/1.1 502 ")


async def test_closing_it_ends_its_connections() -> None:
    """Nothing of a launch is reached when it is over."""
    async with application() as (_, signal):
        async with door(signal, SECRET) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"GET / HTTP/1.1\r\n{await proof(port, SECRET)}\r\n".encode())
            assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        with contextlib.suppress(ConnectionError):  # a reset is an end too
            assert await asyncio.wait_for(reader.read(-1), 10) == b"\r\n"
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
