"""WebSockets through the front door, over real sockets; also covers ``credentials`` and ``node_client``."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence

import httpx2
import pytest
from aiohttp import web
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.typing import Subprotocol

from footlights.frontdoor import Limits, PlaceLimits
from footlights.protocol.launch_secrets import Proofs
from tests.frontdoor.application import Application, serving, until
from tests.frontdoor.conftest import Door


def viewer(door: Door, query: str = "", protocols: Sequence[str] = (), token: str | None = None) -> connect:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    offered = [Subprotocol(name) for name in protocols] or None
    url = f"ws://{door.host}/stream/s1/sign_in{query}"
    return connect(url, subprotocols=offered, additional_headers=headers, proxy=None, max_size=None)


async def closed(socket: ClientConnection) -> tuple[int | None, str | None]:
    async with asyncio.timeout(5):
        with contextlib.suppress(ConnectionClosedError):
            async for _ in socket:
                pass
        await socket.wait_closed()
    return socket.close_code, socket.close_reason


async def test_text_and_bytes_pass_both_ways(door: Door) -> None:
    """Messages keep their kind, content and order."""
    async with viewer(door, token=door.grant()) as socket:
        for message in ("hello", b"\x00\xff", "", "é", "x" * 100_000):
            await socket.send(message)
            assert await socket.recv() == message


async def test_the_launchs_secret_is_proved_in_the_handshake(door: Door, application: Application) -> None:
    """As with every request of WHEP."""
    door.targets["s1"] = door.target(secret="fls_s1")

    async with viewer(door, "?reconnect=1&peer_id=a%20b", token=door.grant()):
        pass

    checks = Proofs("fls_s1")
    checks.challenge = application.challenge
    assert [checks.accept(*each) for each in application.proofs] == [True]
    assert "fls_s1" not in str(application.seen)


async def test_the_query_passes_without_the_grant(
    door: Door, application: Application, caplog: pytest.LogCaptureFixture
) -> None:
    """peer_id and reconnect reach the application as sent; access_token does not, nor does it reach a log."""
    caplog.set_level(logging.INFO)
    async with viewer(door, f"?peer_id=p%201&access_token={door.grant()}&reconnect=1"):
        pass

    assert (application.seen[0].path, application.seen[0].query) == ("/sign_in", "peer_id=p%201&reconnect=1")
    assert any("/stream/s1/sign_in" in record.getMessage() for record in caplog.records), "the server's log is read too"
    assert not [record for record in caplog.records if "flg_" in record.getMessage()]


async def test_a_grant_may_travel_as_subprotocol_and_is_echoed(door: Door, application: Application) -> None:
    """Browsers cannot set headers: the grant's own subprotocol is chosen, and the application never sees it."""
    protocol = f"Authorization-Bearer.{door.grant()}"

    async with viewer(door, protocols=[protocol]) as socket:
        assert socket.subprotocol == protocol

    assert "Sec-WebSocket-Protocol" not in application.seen[0].headers
    assert "flg_" not in str(application.seen)


async def test_the_applications_choice_of_subprotocol_is_the_viewers(door: Door, application: Application) -> None:
    """The other subprotocols are offered on, and what the application chooses is chosen here."""
    async with viewer(door, protocols=["other", "app.v1", f"Authorization-Bearer.{door.grant()}"]) as socket:
        assert socket.subprotocol == "app.v1"

    offered = application.seen[0].headers["Sec-WebSocket-Protocol"]
    assert [name.strip() for name in offered.split(",")] == ["other", "app.v1"]


@pytest.mark.parametrize("code", [1000, 1011, 4001])
async def test_the_applications_close_code_reaches_the_viewer(door: Door, code: int) -> None:
    """Code and reason pass from the application to the viewer."""
    async with viewer(door, token=door.grant()) as socket:
        await socket.send(f"close {code}")

        assert await closed(socket) == (code, "as asked")


@pytest.mark.parametrize("code", [1000, 4002])
async def test_the_viewers_close_code_reaches_the_application(door: Door, application: Application, code: int) -> None:
    """The code passes from the viewer to the application."""
    async with viewer(door, token=door.grant()) as socket:
        await socket.close(code)

    async with asyncio.timeout(5):
        assert await application.close_code == code


async def test_a_viewer_that_is_lost_is_lost_to_the_application_too(door: Door, application: Application) -> None:
    """A cut connection is not turned into a farewell: the application keeps its resume window open."""
    async with viewer(door, token=door.grant()) as socket:
        socket.transport.abort()

    async with asyncio.timeout(5):
        assert await application.close_code in (None, 1006)


async def test_an_application_that_is_lost_is_a_bad_gateway(door: Door) -> None:
    """A cut connection to the application closes the viewer's with 1014."""
    async with viewer(door, token=door.grant()) as socket:
        await socket.send("abort")

        assert (await closed(socket))[0] == 1014


async def test_messages_are_bounded_both_ways(application: Application) -> None:
    """A message above the limit closes with 1009, from either side."""
    door = Door(application, Limits(message_bytes=1000))
    door.targets["s1"] = door.target()
    async with serving(door.app()) as door.host:
        async with viewer(door, token=door.grant()) as socket:
            await socket.send("x" * 1001)
            up = await closed(socket)
        async with viewer(door, token=door.grant()) as socket:
            await socket.send("send 1001")
            down = await closed(socket)

    assert [up[0], down[0]] == [1009, 1009]


async def test_a_slow_viewer_slows_the_application_down(door: Door, application: Application) -> None:
    """What the application can send to a viewer that does not read is bounded by buffers, not by memory."""
    sent = 0
    stalled = asyncio.Event()

    async def flood(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        try:
            while True:
                async with asyncio.timeout(1):
                    await ws.send_bytes(b"x" * 1_000_000)
                sent += 1
        except TimeoutError:
            stalled.set()
        return ws

    application.answer = flood
    url = f"ws://{door.host}/stream/s1/sign_in?access_token={door.grant()}"
    async with connect(url, proxy=None, max_size=None, max_queue=1, compression=None, close_timeout=0.1) as socket:
        async with asyncio.timeout(30):
            await stalled.wait()
        socket.transport.abort()

    assert sent < 60


async def test_refusals_come_before_the_handshake(door: Door, application: Application) -> None:
    """Bad grants, other states and silent nodes are HTTP answers with a status, not sockets that close at once."""
    door.targets["s1"] = door.target()
    answers = []
    for token, target in (
        (None, door.target()),
        ("flg_no", door.target()),
        (door.grant("s2"), door.target()),
        (door.grant(), door.target("STARTING")),
        (door.grant(), door.target("FAILED")),
        (door.grant(), door.target(websocket_path="")),
        (door.grant(), door.target(signal_port=1)),
        (door.grant(), door.target(websocket_path="/whep")),
    ):
        door.targets["s1"] = target
        with pytest.raises(InvalidStatus) as caught:
            await viewer(door, token=token)
        answers.append(caught.value.response)

    assert [answer.status_code for answer in answers] == [401, 401, 403, 409, 409, 404, 502, 502]
    assert answers[0].headers["www-authenticate"].startswith("Bearer")
    assert b"google.rpc.ErrorInfo" in (answers[0].body or b"")
    assert b'"status": "UNAUTHENTICATED"' in (answers[0].body or b"")
    assert answers[3].headers["retry-after"] == "2"


async def test_sockets_at_once_are_bounded(application: Application) -> None:
    """One more than may be is 503; when one is closed there is room again, and nothing is counted twice."""
    door = Door(application, Limits(sockets=PlaceLimits(1, per_session=2, per_grant=2)))
    door.targets["s1"] = door.target()
    app = door.app()
    async with serving(app) as door.host:
        async with viewer(door, token=door.grant()):
            with pytest.raises(InvalidStatus) as caught:
                await viewer(door, token=door.grant())
        await until(lambda: app.open_sockets == 0)
        async with viewer(door, token=door.grant()):
            pass

    assert caught.value.response.status_code == 503


async def test_one_grant_does_not_take_the_sockets_of_others(application: Application) -> None:
    """Its own are refused with 429; another viewer of the session comes in."""
    door = Door(application, Limits(sockets=PlaceLimits(4, per_session=4, per_grant=1)))
    door.targets["s1"] = door.target()
    async with serving(door.app()) as door.host:
        grant = door.grant()
        async with viewer(door, token=grant), viewer(door, token=door.grant()):
            with pytest.raises(InvalidStatus) as caught:
                await viewer(door, token=grant)

    assert caught.value.response.status_code == 429


async def test_plain_http_on_the_sockets_route_says_what_it_is(door: Door) -> None:
    """A GET without an upgrade is 426."""
    async with httpx2.AsyncClient() as client:
        response = await client.get(f"http://{door.host}/stream/s1/sign_in")

    assert (response.status_code, response.headers["upgrade"]) == (426, "websocket")


async def test_owns_tells_its_routes_from_the_rest(door: Door) -> None:
    """Exactly the two routes are the front door's, below sessions and below streams."""
    app = door.app()
    paths = {
        "/stream/s1/whep": True,
        "/stream/s1/whep/r": True,
        "/stream/s1/sign_in": True,
        "/v1/sessions/s1/whep": True,
        "/v1/sessions/s1/whep/r": True,
        "/v1/sessions/s1/sign_in": True,
        "/v1/sessions/s1": False,
        "/v1/sessions/s1:watch": False,
        "/sessions/s1/whep": False,
        "/stream": False,
        "/stream/s1": False,
        "/stream/s1/log": False,
        "/stream/s1/whep/r/x": False,
        "/x/stream/s1/whep": False,
    }

    assert {path: app.owns({"type": "http", "path": path}) for path in paths} == paths
    assert app.owns({"type": "http", "path": "/x/stream/s1/whep", "root_path": "/x"})
