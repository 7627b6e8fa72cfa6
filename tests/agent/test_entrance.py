"""One port of a node for the signalling of all its viewers, `entrance`: with TLS, over real sockets."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from footlights.agent.v1.node_pb2 import NodeFacts
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import InvalidStatus

from footlights.agent.config import AgentConfig
from footlights.agent.entrance import MOST_STRANGERS, ViewerEntrance
from footlights.auth.authority import Authority
from footlights.errors import InvalidArgument
from footlights.launch.front_door import FrontDoorWay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """One that signs for 127.0.0.1, and its files: ``ca.pem``, ``cert.pem``, ``key.pem``."""
    made = Authority.create("cluster", datetime.now(UTC))
    pair = made.server_certificate("cluster", ["127.0.0.1"], now=datetime.now(UTC), ttl_s=3600)
    for name, content in {"ca": made.certificates, "cert": pair.chain, "key": pair.key}.items():
        (tmp_path / f"{name}.pem").write_bytes(content)
    return made


def trusting(tmp_path: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))


async def repeat(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


@asynccontextmanager
async def entrance(
    tmp_path: Path, url: str, trust: Callable[[], ssl.SSLContext] | None = None, /, **settings: Any
) -> AsyncIterator[ViewerEntrance]:
    config = AgentConfig(tmp_path / "agent", "127.0.0.1:1", signaling_listen="127.0.0.1:0", **settings)
    way = FrontDoorWay(trust or partial(trusting, tmp_path))
    way.learn(url)
    opened = ViewerEntrance(config, way)
    await opened.open()
    try:
        yield opened
    finally:
        await opened.close()


async def test_players_are_passed_on_by_tls(tmp_path: Path, authority: Authority) -> None:
    """From one port with TLS to a front door with TLS, whose certificate is checked."""
    server_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_tls.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    certificate = {"signaling_cert": tmp_path / "cert.pem", "signaling_key": tmp_path / "key.pem"}
    async with serve(repeat, "127.0.0.1", 0, ssl=server_tls) as front:
        url = f"https://127.0.0.1:{front.sockets[0].getsockname()[1]}"
        async with entrance(tmp_path, url, **certificate) as opened:
            facts = opened.facts
            dialled = f"wss://127.0.0.1:{facts.port}/sign_in?version=2"
            async with connect(dialled, ssl=trusting(tmp_path)) as player:
                await player.send("hello")
                said = await player.recv()
            with pytest.raises(InvalidStatus) as other:
                await connect(f"wss://127.0.0.1:{facts.port}/v1/nodes", ssl=trusting(tmp_path)).__aenter__()

    assert said == "hello"
    assert facts == NodeFacts.Entrance(session_ports=True, port=facts.port, tls=True)
    assert other.value.response.status_code == 404


async def test_a_front_door_that_cannot_prove_itself_is_not_talked_to(tmp_path: Path, authority: Authority) -> None:
    """Somebody in between would read grants."""
    stranger = Authority.create("another", datetime.now(UTC))
    pair = stranger.server_certificate("another", ["127.0.0.1"], now=datetime.now(UTC), ttl_s=3600)
    for name, content in {"cert": pair.chain, "key": pair.key}.items():
        (tmp_path / f"other-{name}.pem").write_bytes(content)
    false_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    false_tls.load_cert_chain(tmp_path / "other-cert.pem", tmp_path / "other-key.pem")
    certificate = {"signaling_cert": tmp_path / "cert.pem", "signaling_key": tmp_path / "key.pem"}
    async with serve(repeat, "127.0.0.1", 0, ssl=false_tls) as front:
        url = f"https://127.0.0.1:{front.sockets[0].getsockname()[1]}"
        async with entrance(tmp_path, url, **certificate) as opened:
            dialled = f"wss://127.0.0.1:{opened.facts.port}/sign_in"
            with pytest.raises(InvalidStatus) as refused:
                await connect(dialled, ssl=trusting(tmp_path)).__aenter__()

    assert refused.value.response.status_code == 502


async def test_callers_that_never_begin_tls_take_no_place(tmp_path: Path, authority: Authority) -> None:
    """They are counted from their first moment: each would hold memory and a file of the agent's for seconds."""
    certificate = {"signaling_cert": tmp_path / "cert.pem", "signaling_key": tmp_path / "key.pem"}
    async with serve(repeat, "127.0.0.1", 0) as front, AsyncExitStack() as stack:
        url = f"http://127.0.0.1:{front.sockets[0].getsockname()[1]}"
        opened = await stack.enter_async_context(entrance(tmp_path, url, **certificate))
        port = opened.facts.port
        silent = []
        for _ in range(MOST_STRANGERS + 1):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            stack.callback(writer.close)
            silent.append(reader)
        async with asyncio.timeout(8), connect(f"wss://127.0.0.1:{port}/sign_in", ssl=trusting(tmp_path)) as player:
            await player.send("hello")
            said = await player.recv()
            ended = await asyncio.gather(silent[0].read(), return_exceptions=True)

    assert said == "hello"
    assert isinstance(ended[0], ConnectionResetError) or ended[0] == b""


async def test_authorities_are_read_once_for_many_callers(tmp_path: Path, authority: Authority) -> None:
    """Beside the event loop: anybody may have the node dial, and to read them takes long."""
    threads = []

    def trust() -> ssl.SSLContext:
        threads.append(threading.current_thread())
        return trusting(tmp_path)

    server_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_tls.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    certificate = {"signaling_cert": tmp_path / "cert.pem", "signaling_key": tmp_path / "key.pem"}
    async with serve(repeat, "127.0.0.1", 0, ssl=server_tls) as front:
        url = f"https://127.0.0.1:{front.sockets[0].getsockname()[1]}"
        async with entrance(tmp_path, url, trust, **certificate) as opened:
            dialled = f"wss://127.0.0.1:{opened.facts.port}/sign_in"
            async with connect(dialled, ssl=trusting(tmp_path)), connect(dialled, ssl=trusting(tmp_path)):
                pass

    [thread] = threads
    assert thread is not threading.main_thread()


async def test_a_port_that_is_taken_is_noted_and_tried_again(tmp_path: Path) -> None:
    """The node's sessions go on meanwhile; nobody is told of a port that does not listen."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        config = AgentConfig(tmp_path, "127.0.0.1:1", signaling_listen=f"127.0.0.1:{port}")
        opened = ViewerEntrance(config, FrontDoorWay())
        await opened.open()
        [note] = opened.notes
        without = opened.facts
    try:
        await opened.open()
        assert (opened.facts.port, opened.notes) == (port, [])
    finally:
        await opened.close()

    assert f"127.0.0.1:{port}" in note
    assert (without.port, without.tls) == (0, False)
    assert await closed(port)


async def closed(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"signaling_listen": "443"}, "signaling_listen"),
        ({"signaling_listen": ":0x1"}, "signaling_listen"),
        ({"signaling_listen": "host:99999"}, "signaling_listen"),
        ({"signaling_cert": "cert.pem"}, "signaling_cert"),
        ({"signaling_key": "key.pem", "signaling_listen": ":443"}, "signaling_key"),
        ({"signaling_cert": "cert.pem", "signaling_key": "key.pem"}, "signaling_cert"),
    ],
)
def test_what_does_not_fit_together_is_refused(tmp_path: Path, settings: dict[str, Any], field: str) -> None:
    """By name, and with what to give."""
    with pytest.raises(InvalidArgument) as error:
        AgentConfig(tmp_path, "127.0.0.1:1", **settings)

    assert error.value.field == field
