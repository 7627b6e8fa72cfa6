"""Viewers that dial a node: `launch.front_door` and `launch.connections`, at a session's door, over real sockets."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import InvalidStatus

from footlights.agent.config import AgentConfig
from footlights.launch.connections import Head
from footlights.launch.front_door import PASSED, FrontDoorWay
from footlights.protocol.launch_secrets import CHALLENGE, PROOF
from tests.launch.knocking import ask, door, status
from tests.viewer.viewer_process import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from websockets.http11 import Request, Response

SECRET = "fls_" + "s" * 43
PLAYER = "x-nv-sessionid.01890000-0000-7000-8000-000000000001"
UPGRADE = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
UPGRADE += "dGhlIHNhbXBsZSBub25jZQ==\r\n"


class FrontDoor:
    """Takes every player but one that is refused, says where it was dialled and what with, and repeats messages."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def decide(self, connection: ServerConnection, request: Request) -> Response | None:
        self.requests.append(request)
        return connection.respond(403, "not you\n") if "refuse" in request.path else None

    async def serve(self, connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/below"

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[FrontDoor]:
        async with serve(
            self.serve,
            "127.0.0.1",
            0,
            process_request=self.decide,
            select_subprotocol=lambda _, offered: offered[0] if offered else None,
        ) as server:
            self.port = server.sockets[0].getsockname()[1]
            yield self


class RawFrontDoor:
    """Answers each request with one text and keeps the connection open, as servers of HTTP/1.1 do."""

    def __init__(self, reply: bytes) -> None:
        self.reply, self.received = reply, b""
        self.heard = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.received += await reader.readuntil(b"\r\n\r\n")
            writer.write(self.reply)
            self.received += await reader.read(-1)
        except (OSError, EOFError):
            pass
        finally:
            self.heard.set()
            writer.close()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()


@pytest.fixture
def silent_application() -> Iterator[int]:
    """The application's port: all that come to it were let in."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        yield server.getsockname()[1]
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.parametrize("path", ["/sign_in", "/v1/sessions/0189-a/sign_in", "/stream/0189-a/sign_in"])
async def test_a_player_that_dials_the_node_comes_to_the_front_door(silent_application: int, path: str) -> None:
    """With what it said, and its answers both ways; the application hears of it by the front door alone."""
    async with FrontDoor().listening() as front, door(silent_application, SECRET, front_door=front.url) as port:
        async with connect(
            f"ws://127.0.0.1:{port}{path}?peer_id=peer-1&version=2",
            subprotocols=[PLAYER, "Authorization-Bearer.abc"],  # type: ignore[list-item]  # a NewType of str
            origin="https://viewer.example.org",  # type: ignore[arg-type]
            additional_headers={"X-Forwarded-For": "10.0.0.1", "Footlights-Launch-Secret": "x", "Nucleus-Token": "n"},
        ) as player:
            chosen = player.subprotocol
            await player.send("hello")
            said = await player.recv()
        [request] = front.requests

    assert (chosen, said) == (PLAYER, "hello")
    assert request.path == f"/below{path}?peer_id=peer-1&version=2"
    assert request.headers["Sec-WebSocket-Protocol"] == f"{PLAYER}, Authorization-Bearer.abc"
    assert request.headers["Origin"] == "https://viewer.example.org"
    assert request.headers["Host"] == f"127.0.0.1:{front.port}"
    assert request.headers["Nucleus-Token"] == "n"
    assert not {"X-Forwarded-For", "Footlights-Launch-Secret"} & set(request.headers)


async def test_who_the_front_door_refuses_is_told_so(silent_application: int) -> None:
    """Its status and its words are passed on, and nothing opens."""
    async with FrontDoor().listening() as front, door(silent_application, SECRET, front_door=front.url) as port:
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"ws://127.0.0.1:{port}/sign_in?refuse=1").__aenter__()

    assert refused.value.response.status_code == 403
    assert refused.value.response.body == b"not you\n"


@pytest.mark.parametrize(
    "head",
    [
        "GET /sign_in?version=2 HTTP/1.1\r\nHost: node\r\n\r\n",
        f"GET /whep HTTP/1.1\r\nHost: node\r\n{UPGRADE}\r\n",
        f"GET /metrics HTTP/1.1\r\nHost: node\r\n{UPGRADE}\r\n",
        f"GET /v1/sessions HTTP/1.1\r\nHost: node\r\n{UPGRADE}\r\n",
        f"GET /sign_in/../metrics HTTP/1.1\r\nHost: node\r\n{UPGRADE}\r\n",
        f"GET /v1/sessions/a/b/sign_in HTTP/1.1\r\nHost: node\r\n{UPGRADE}\r\n",
        f"GET http://server/sign_in HTTP/1.1\r\nHost: node\r\n{UPGRADE}\r\n",
        f"GET /sign_in?a\nX: y HTTP/1.1\r\nHost: node\r\n{UPGRADE}\r\n",
        f"GET /sign_in HTTP/1.1\r\nHost: node\r\n{UPGRADE}X: a\nContent-Length: 9\r\n\r\n",
        f"GET /sign_in HTTP/1.1\r\nHost: node\r\n{UPGRADE} Folded: 1\r\n\r\n",
        f"GET /sign_in HTTP/1.1\r\nHost: node\r\n{UPGRADE}A\nX-Forwarded-For: 1.2.3.4\r\n\r\n",
        f"GET /sign_in HTTP/1.1\r\nHost: node\r\n{UPGRADE}A\rContent-Length: 9\r\n\r\n",
        f"GET /sign_in HTTP/1.1\r\nHost: node\r\n{UPGRADE}X : 1\r\n\r\n",
        f"GET /sign_in HTTP/1.0\r\nHost: node\r\n{UPGRADE}\r\n",
        f"GET /sign_in HTTP/1.1\r\nHost: node\r\n{UPGRADE}Upgrade: h2c\r\n\r\n",
        f"GET /sign_in HTTP/1.1\r\nHost: node\r\n{PROOF}: a.b\r\n{UPGRADE}\r\n",
        "POST /sign_in HTTP/1.1\r\nHost: node\r\n\r\n",
        "CONNECT /sign_in HTTP/1.1\r\nHost: node\r\n\r\n",
    ],
)
async def test_nothing_but_a_player_is_passed_on(silent_application: int, head: str) -> None:
    """All else is refused with the challenge that a front door asks for, and the front door hears nothing."""
    async with FrontDoor().listening() as front, door(silent_application, SECRET, front_door=front.url) as port:
        answer = await ask(port, head)

    assert answer.startswith(b"HTTP/1.1 401 ")
    assert CHALLENGE.encode() in answer
    assert front.requests == []


@pytest.mark.parametrize("method", ["HEAD", "DELETE", "OPTIONS"])
async def test_what_follows_a_request_is_not_passed_on(silent_application: int, method: str) -> None:
    """One connection is one request: another one behind it, or in its body, would come to the server from the node."""
    hidden = "GET /metrics HTTP/1.1\r\nHost: server\r\n\r\n"
    front = RawFrontDoor(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\nX-Own: 1\r\n\r\n")
    async with front.listening() as url, door(silent_application, SECRET, front_door=url) as port:
        more = f"Content-Length: {len(hidden)}\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n"
        answer = await ask(port, f"{method} /sign_in HTTP/1.1\r\nHost: node\r\n{more}\r\n{hidden}")
        await asyncio.wait_for(front.heard.wait(), 10)

    assert answer.endswith(b"X-Own: 1\r\n\r\n")
    assert front.received.count(b"HTTP/1.1") == 1
    assert b"Connection: close\r\nContent-Length: 0\r\n\r\n" in front.received
    assert b"chunked" not in front.received


async def test_nothing_is_passed_on_before_the_front_door_has_let_the_player_in(silent_application: int) -> None:
    """What a caller sends behind its handshake, when that is refused, reaches nobody."""
    front = RawFrontDoor(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno")
    async with front.listening() as url, door(silent_application, SECRET, front_door=url) as port:
        hidden = "GET /metrics HTTP/1.1\r\nHost: server\r\n\r\n"
        answer = await ask(port, f"GET /sign_in HTTP/1.1\r\nHost: node\r\n{UPGRADE}\r\n{hidden}")
        await asyncio.wait_for(front.heard.wait(), 10)

    assert answer.endswith(b"\r\n\r\nno")
    assert b"metrics" not in front.received


async def test_an_address_that_leads_back_to_the_node_is_noticed(silent_application: int) -> None:
    """Otherwise one viewer would take all places of the door."""
    own = free_port()
    async with door(silent_application, SECRET, front_door=f"http://127.0.0.1:{own}", at=own) as port:
        answer = await ask(port, f"GET /sign_in HTTP/1.1\r\nHost: node\r\n{UPGRADE}\r\n")

    assert answer.startswith(b"HTTP/1.1 508 ")


@pytest.mark.parametrize("url", ["", "https://streams.example.com", "ftp://x", "http://", "nonsense"])
async def test_without_a_front_door_or_with_one_that_has_tls_nobody_is_passed_on(
    silent_application: int, url: str
) -> None:
    """A grant that was given out by TLS is not sent on without it."""
    async with door(silent_application, SECRET, front_door=url) as port:
        answer = await ask(port, f"GET /sign_in HTTP/1.1\r\nHost: node\r\n{UPGRADE}\r\n")

    assert answer.startswith(b"HTTP/1.1 401 ")


async def test_a_front_door_that_is_gone_is_said(silent_application: int) -> None:
    """502, and the door goes on: the server's own way to the application is another one."""
    with socket.socket() as gone:
        gone.bind(("127.0.0.1", 0))
        async with door(silent_application, SECRET, front_door=f"http://127.0.0.1:{gone.getsockname()[1]}") as port:
            answer = await ask(port, f"GET /sign_in HTTP/1.1\r\nHost: node\r\n{UPGRADE}\r\n")
            refused = await status(port)

    assert answer.startswith(b"HTTP/1.1 502 ")
    assert refused == 401


@pytest.mark.parametrize(
    ("server", "public_address", "takes"),
    [
        ("10.0.0.5:50051", "10.0.0.7", False),
        ("127.0.0.1:50051", "10.0.0.7", True),
        ("unix:/run/footlights.sock", "10.0.0.7", True),
        ("10.0.0.5:50051", "127.0.0.1", True),
    ],
)
def test_a_loopback_address_is_the_servers_own_machine(
    tmp_path: Path, server: str, public_address: str, takes: bool
) -> None:
    """A server that does not know its address says so; on another machine anything may listen there."""
    config = AgentConfig(tmp_path, server, public_address=public_address)
    way = FrontDoorWay(is_here=config.is_beside_server)
    head = Head.of(f"GET /sign_in HTTP/1.1\r\nHost: node\r\n{UPGRADE}\r\n".encode())
    way.learn("http://127.0.0.1:8080")
    taken = way.takes(head, tls=False)
    way.learn("http://streams.example.com")

    assert taken is takes
    assert way.takes(head, tls=False)


def test_a_head_is_read_as_every_reader_reads_it() -> None:
    """What could be read in two ways is not plain."""
    plain = Head.of(b"GET /a?b HTTP/1.1\r\nHost: x\r\nUpgrade:  websocket \r\nupgrade: b\r\n\r\n")

    assert (plain.method, plain.target, plain.version, plain.is_plain) == ("GET", "/a?b", "HTTP/1.1", True)
    assert plain.values("upgrade") == ("websocket", "b")
    assert PASSED.lower() not in dict(plain.headers)
    for text in (b"", b"GET / HTTP/1.1", b"GET  / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nno colon\r\n\r\n"):
        assert not Head.of(text).is_plain
