"""Is it ready, and who is there?

Also the tests of ``loopback``, ``notice`` and ``stage``.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from footlights.v1.application_pb2 import FakeBehavior, Readiness, Signaling, StageDelivery, Version
from footlights.v1.application_pb2 import Presence as PresenceRecipe
from google.protobuf.duration_pb2 import Duration
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_sockets

from footlights.launch.fake import FakeLauncher
from footlights.launch.launcher import LaunchPlan, LogPart, Ports
from footlights.launch.probes.readiness import UNKNOWN, presence, why_unready
from footlights.launch.probes.stage import StageRefused, send_stage
from footlights.protocol.launch_secrets import HEADER
from tests.launch.plans import make_plan

Serve = Callable[[bytes], Awaitable[int]]


async def no_log(cursor: str) -> LogPart:
    return LogPart((), truncated=False, cursor=cursor)


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Serve one fixed answer to every request; an empty one never answers."""
    servers = []
    hanging: list[asyncio.StreamWriter] = []

    async def make(answer: bytes) -> int:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith((b"GET /", b"POST /open "))
            if not answer:
                hanging.append(writer)
                return
            writer.write(answer)
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    yield make
    for writer in hanging:
        writer.close()
    for server in servers:
        server.close()
        await server.wait_closed()


def plan_for(root: Path, version: Version, *, signal: int = 9, http: int = 9) -> LaunchPlan:
    version.command[:] = ["/bin/true"]
    return replace(make_plan(version, root), ports=Ports(signal=signal, media=9, http=http))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", ""),
        (b"HTTP/1.0 200 OK\r\n\r\nReady for connection", ""),
        (b"HTTP/1.1 503 Nope\r\n\r\n", "503 Service Unavailable"),
        (b'HTTP/1.1 503 Nope\r\n\r\n{"statusMessage": "Not ready:\\n\\u001b[2J warming"}', "'Not ready: [2J warming'"),
        (b"HTTP/1.1 500 Oh\r\n\r\nNo GPU: " + b"x" * 1000, "500 Internal Server Error, 'No GPU: xxx"),
        (b"HTTP/1.1 500 Oh\r\n\r\n<html>long page</html>", "500 Internal Server Error"),
        (b"HTTP/1.1 404 Not Found\r\n\r\nlaunch-secret", "404 Not Found, '[redacted]'"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "204 No Content"),
        (b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", "302 Found"),
        (b"HTTP/1.1 799 Odd\r\n\r\n", "799"),
        (b"SSH-2.0-OpenSSH\r\n", "'SSH-2.0-OpenSSH' is not an HTTP answer"),
        (b"\xff\xff\xff\n", "is not an HTTP answer"),
        (b"HTTP/1.1 two hundred\r\n\r\n", "is not an HTTP answer"),
        (b"x" * 100_000, "Separator is not found"),
        (b"\0", "is not an HTTP answer"),
    ],
)
async def test_http(serve: Serve, root: Path, answer: bytes, said: str) -> None:
    """Ready is status 200 and nothing else; otherwise what was asked and answered is said, in brief plain text."""
    plan = plan_for(root, Version(), signal=(port := await serve(answer)), http=port)

    why = await why_unready(plan, no_log, secret="launch-secret")

    assert bool(why) is bool(said)
    assert said in why
    assert why.isprintable()
    assert len(why) < 400
    if said:
        assert why.startswith(f"GET http://127.0.0.1:{port}/v1/streaming/ready: ")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            b'{"statusMessage": "Streaming session ended (recycle instance)"}',
            "Streaming session ended (recycle instance)",
        ),
        (b'{"statusMessage": "a launch-secret\\n\\u001b[2J"}', "a [redacted] [2J"),
        (b'{"statusMessage": "' + b"x" * 1000 + b'"}', "x" * 200 + "…"),
        (b'{"statusMessage": 7, "message": "no"}', ""),
        (b"[" * 9000, ""),
        (b"ready", ""),
    ],
)
async def test_a_ready_application_says_how_it_is(serve: Serve, root: Path, body: bytes, said: str) -> None:
    """By the member `statusMessage` of what it answers, whatever the status: plain, short, and without its secret."""
    version = Version(presence=PresenceRecipe(source=PresenceRecipe.CONNECTIONS))
    plan = plan_for(root, version, http=await serve(b"HTTP/1.1 503 No\r\n\r\n" + body))

    assert (await presence(plan, secret="launch-secret")).said == said


OFFER = {"type": "offer", "sdp": "v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\n"}


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([{"hb": 1}, {"peer_msg": {"from": 1, "msg": json.dumps(OFFER)}}], ""),
        (["no JSON", b"\xff", [], {"peer_msg": 7}, {"peer_msg": {"msg": "{"}}], " within 0.4 s"),
        ([{"ackid": 9, "error": "NVST_R_BUSY"}], " within 0.4 s, and the application says 'NVST_R_BUSY'"),
        ([{"peer_msg": {"msg": json.dumps(OFFER | {"type": "answer"})}}], " within 0.4 s"),
        ([{"hb": 1}] * 40, " in 32 messages"),
        ([{"peer_msg": {"msg": json.dumps(OFFER | {"sdp": "m=video 0 RTP/SAVPF 96"})}}], "has no picture"),
    ],
)
async def test_an_offer_is_one_with_a_picture(serve: Serve, root: Path, messages: list[object], why: str) -> None:
    """Whatever else an application sends is none; one that asks for its launch's secret is shown it."""

    async def greet(player: ServerConnection) -> None:
        assert player.request is not None
        if player.request.headers.get(HEADER) != "launch-secret":
            await player.close(1008, "no secret")
        for message in messages:
            await player.send(message if isinstance(message, str | bytes) else json.dumps(message))
        await player.wait_closed()

    async with serve_sockets(greet, "127.0.0.1", 0) as server:
        [listener] = server.sockets
        signaling = Signaling(websocket_path="/sign_in", checks_secret=True)
        version = Version(readiness=Readiness(check=Readiness.OFFER), signaling=signaling)
        ready = await serve(b"HTTP/1.1 200 OK\r\n\r\n")
        plan = plan_for(root, version, http=ready, signal=listener.getsockname()[1])

        found = await why_unready(plan, no_log, secret="launch-secret", timeout_s=0.5)

    assert (found.endswith(why), bool(found)) == (True, bool(why)), found


async def test_http_hangs(serve: Serve, root: Path) -> None:
    """An application that accepts and never answers is not ready, by the deadline."""
    plan = plan_for(root, Version(), http=await serve(b""))

    assert "no answer within 0.1 s" in await why_unready(plan, no_log, timeout_s=0.1)


async def test_nobody_listens(root: Path) -> None:
    """A closed port is not ready."""
    assert "9/v1/streaming/ready: connection refused" in await why_unready(plan_for(root, Version()), no_log)
    tcp = Version(readiness=Readiness(check=Readiness.TCP))
    assert await why_unready(plan_for(root, tcp), no_log) == "connecting to 127.0.0.1:9: connection refused"


@pytest.mark.parametrize("check", [Readiness.HTTP, Readiness.LOG])
async def test_signalling_must_be_there(serve: Serve, root: Path, check: Readiness.Check.ValueType) -> None:
    """Whatever the check, an application on whose signalling port nothing listens cannot be connected to."""
    version = Version(readiness=Readiness(check=check, log_text="ready"))
    http = await serve(b"HTTP/1.1 200 OK\r\n\r\n")

    async def read(_: str) -> LogPart:
        return LogPart(("ready",), truncated=False, cursor="1")

    assert await why_unready(plan_for(root, version, http=http), read) == (
        "nothing listens on its signalling port, TCP 9"
    )
    assert not await why_unready(plan_for(root, version, http=http, signal=await serve(b"")), read)


async def test_signalling_must_be_where_the_agents_door_looks_for_it(root: Path) -> None:
    """With the agent's door in front: at 127.0.0.1, or at every address."""
    version = Version(readiness=Readiness(check=Readiness.LOG, log_text="ready"))

    async def read(_: str) -> LogPart:
        return LogPart(("ready",), truncated=False, cursor="1")

    for host, reached in (("127.0.0.2", False), ("127.0.0.1", True), ("0.0.0.0", True)):
        with socket.create_server((host, 0)) as listener:
            port = listener.getsockname()[1]
            plan = plan_for(root, version, signal=port)
            behind = replace(plan, ports=replace(plan.ports, splice=1))
            why = f"its signalling port, TCP {port}, is open at {host}, and not at 127.0.0.1"
            assert await why_unready(behind, read) == ("" if reached else why)
            assert await why_unready(plan, read) == ""


async def test_tcp(serve: Serve, root: Path) -> None:
    """The check TCP asks the signalling port only for a connection."""
    version = Version(readiness=Readiness(check=Readiness.TCP))

    assert not await why_unready(plan_for(root, version, signal=await serve(b"")), no_log)


async def test_tcp_in_a_network_of_its_own(serve: Serve, root: Path) -> None:
    """What an engine accepts on the node proves nothing: ready is what listens inside, or keeps a connection."""
    version = Version(readiness=Readiness(check=Readiness.TCP))
    silent, closing = await serve(b""), await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    plans = {
        port: replace(plan_for(root, version, signal=port), own_network=True)
        for port in (silent, closing.sockets[0].getsockname()[1], 9)
    }

    inside = [not await why_unready(plan, no_log, pids=frozenset({os.getpid()})) for plan in plans.values()]
    outside = [not await why_unready(plan, no_log) for plan in plans.values()]

    closing.close()
    assert (inside, outside) == ([True, True, False], [True, False, False])


async def test_connections_in_a_network_of_its_own(serve: Serve, root: Path) -> None:
    """Connections are counted inside, where a process of the launch is known; otherwise their number is not."""
    version = Version(presence=PresenceRecipe(source=PresenceRecipe.CONNECTIONS))
    plan = replace(plan_for(root, version, signal=(port := await serve(b""))), own_network=True)

    assert (await presence(plan)).viewers is None
    with socket.create_connection(("127.0.0.1", port)):
        assert (await presence(plan, pids=frozenset({os.getpid()}))).viewers == 1


async def test_log(serve: Serve, root: Path) -> None:
    """The check LOG looks through all the output, part by part."""
    version = Version(readiness=Readiness(check=Readiness.LOG, log_text="RTX ready"))
    parts = {"": ("starting", "1"), "1": ("[12.3s] RTX ready.", "2"), "2": ("more", "2")}

    async def read(cursor: str) -> LogPart:
        line, following = parts[cursor]
        return LogPart((line,), truncated=False, cursor=following)

    plan = plan_for(root, version, signal=await serve(b""))
    assert not await why_unready(plan, read)
    assert await why_unready(plan, no_log) == "a line of its output with 'RTX ready': not so yet"


@pytest.mark.parametrize(
    ("body", "viewers", "idle"),
    [
        (b'{"viewers": 2, "last_input_seconds_ago": 1.5}', 2, 1.5),
        (b'{"viewers": 0, "last_input_seconds_ago": null}', 0, None),
        (b'{"viewers": 1}', 1, None),
        (b'{"viewers": 1, "last_input_seconds_ago": -1}', 1, None),
        (b'{"viewers": 1, "last_input_seconds_ago": 1e999}', 1, None),
        (b'{"viewers": -1}', None, None),
        (b'{"viewers": true}', None, None),
        (b'{"viewers": "1"}', None, None),
        (b"[]", None, None),
        (b"nonsense", None, None),
        (b"[" * 60_000, None, None),
    ],
)
async def test_presence_by_http(serve: Serve, root: Path, body: bytes, viewers: int | None, idle: float | None) -> None:
    """The application's own word is taken where it makes sense; otherwise nothing is known."""
    version = Version(presence=PresenceRecipe(source=PresenceRecipe.HTTP))
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

    found = await presence(plan_for(root, version, http=await serve(answer)))

    assert (found.viewers, found.idle_s) == (viewers, idle)


async def test_presence_by_connections(serve: Serve, root: Path) -> None:
    """Without a word of the application's, connections to its signalling port are counted."""
    signal, http = await serve(b""), await serve(b"HTTP/1.1 404 Not Found\r\n\r\n")
    plan = plan_for(root, Version(), signal=signal, http=http)
    assert (await presence(plan)).viewers == 0

    _, writer = await asyncio.open_connection("127.0.0.1", signal)

    assert (await presence(plan)).viewers == 1
    whep = Version(signaling=Signaling(whep_path="/whep"))
    found = await presence(plan_for(root, whep, signal=signal, http=http))
    assert (found.viewers, found.by_visits) == (None, True), "a viewer by WHEP keeps no connection"
    both = Version(signaling=Signaling(whep_path="/whep", websocket_path="/sign_in"))
    assert (await presence(plan_for(root, both, signal=signal, http=http))).viewers == 1
    only_http = plan_for(root, Version(presence=PresenceRecipe(source=PresenceRecipe.HTTP)), signal=signal, http=http)
    assert await presence(only_http) == UNKNOWN
    none = plan_for(root, Version(presence=PresenceRecipe(source=PresenceRecipe.NONE)), signal=signal, http=http)
    assert await presence(none) == UNKNOWN
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("source", [PresenceRecipe.AUTO, PresenceRecipe.HTTP, PresenceRecipe.NONE])
async def test_an_application_that_hangs_is_noticed(
    serve: Serve, root: Path, source: PresenceRecipe.Source.ValueType
) -> None:
    """However its viewers are counted: what it was asked is said, and who is there is not known."""
    hangs = plan_for(root, Version(presence=PresenceRecipe(source=source)), http=await serve(b""))
    found = await presence(hangs, timeout_s=0.1)
    assert (found.viewers, found.unanswered.partition(": ")[2]) == (None, "no answer within 0.1 s")
    assert f"GET http://127.0.0.1:{hangs.ports.http}/v1/streaming/" in found.unanswered

    refuses = plan_for(root, Version(presence=PresenceRecipe(source=source)))
    assert "connection refused" in (await presence(refuses)).unanswered

    busy = plan_for(
        root, Version(presence=PresenceRecipe(source=source)), http=await serve(b"HTTP/1.1 503 Busy\r\n\r\n")
    )
    assert not (await presence(busy)).unanswered


async def test_an_application_without_http_must_listen(serve: Serve, root: Path) -> None:
    """One that is ready by its port or its output answers as long as it listens for signalling."""
    for check in (Readiness.TCP, Readiness.LOG):
        version = Version(readiness=Readiness(check=check))
        assert not (await presence(plan_for(root, version, signal=await serve(b"")))).unanswered
        gone = await presence(plan_for(root, version))
        assert (gone.viewers, gone.unanswered) == (None, "nothing listens on its signalling port, TCP 9")


async def test_fake(root: Path) -> None:
    """A fake is ready as its version says, and claims the viewers that it says."""
    launcher = FakeLauncher(root)
    for fake, expected in (
        (FakeBehavior(), True),
        (FakeBehavior(never_ready=True), False),
        (FakeBehavior(ready_after=Duration(seconds=60)), False),
        (FakeBehavior(exit_after=Duration(nanos=1)), False),
    ):
        plan = make_plan(Version(fake=fake), root)
        assert await why_unready(plan, no_log)
        await launcher.start(plan, b"")
        assert (not await why_unready(plan, no_log)) is expected
    assert await presence(make_plan(Version(fake=FakeBehavior(viewers=2)), root)) == replace(UNKNOWN, viewers=2)
    assert await presence(make_plan(Version(fake=FakeBehavior()), root)) == UNKNOWN


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", ""),
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 4\r\n\r\nbusy", "/open with the stage: 500, busy"),
        (b"HTTP/1.1 500 Oh\r\n\r\ncannot open https://s/a.usd?sig=1", "500, cannot open the stage"),
        (b"HTTP/1.1 500 Oh\r\n\r\nbad query sig=1", "/open with the stage: 500"),
        (b"SSH-2.0\r\n", "ValueError"),
        (b"", "no answer within 0.2 s"),
    ],
)
async def test_why_a_stage_was_not_taken(root: Path, serve: Serve, answer: bytes, said: str) -> None:
    """In words that have no signature, whatever the application answers."""
    by_http = StageDelivery(method=StageDelivery.HTTP, path="/open")
    plan = plan_for(root, Version(stage_delivery=by_http), http=await serve(answer))

    why = await send_stage(plan, "https://s/a.usd?sig=1", timeout_s=0.2)

    assert why.endswith(said)
    assert "sig=1" not in why
    assert bool(why) == bool(said)


async def test_a_refused_stage_is_not_sent_again(root: Path, serve: Serve) -> None:
    """A 4xx is an answer for good."""
    by_http = StageDelivery(method=StageDelivery.HTTP, path="/open")
    port = await serve(b"HTTP/1.1 404 Not Found\r\n\r\n")

    with pytest.raises(StageRefused, match="/open with the stage: 404"):
        await send_stage(plan_for(root, Version(stage_delivery=by_http), http=port), "/srv/a.usd")
