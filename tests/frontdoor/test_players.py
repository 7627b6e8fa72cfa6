"""Players that NVIDIA's users have: they dial a host, name a session by a subprotocol, and come back the same way."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Sequence

import httpx2
import pytest
from aiohttp import web
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.typing import Subprotocol

from footlights.errors import PermissionDenied, Unauthenticated
from footlights.frontdoor import Limits, OpenSessions
from tests.frontdoor.application import Application, serving, until
from tests.frontdoor.conftest import Door

SESSION = "01890000-0000-7000-8000-000000000001"
OTHER = "01890000-0000-7000-8000-000000000002"
UNKNOWN = "01890000-0000-7000-8000-00000000000f"
OWNER = "kas"


@pytest.fixture
def ended() -> list[str]:
    """The sessions that were ended by the front door."""
    return []


@pytest.fixture
async def door(application: Application, ended: list[str]) -> AsyncIterator[Door]:
    """A front door at which the sessions of one user are opened by their id."""

    door = Door(application, limits=Limits(room_timeout_s=0.2))
    door.targets[SESSION] = door.target(owner=OWNER)
    door.targets[OTHER] = door.target(owner="ann")

    async def end(session_id: str, owner: str) -> None:
        assert owner == door.targets[session_id].owner
        ended.append(session_id)

    async with serving(door.app(open_sessions=OpenSessions(OWNER, end, holder))) as door.host:
        yield door


async def holder(token: str, permission: str) -> str:
    """Ann has a token that may all, and another one that may not end sessions."""
    if token == "fl_ann" or (token == "fl_looks" and permission == "sessions.connect"):
        return "ann"
    raise PermissionDenied("no") if token == "fl_looks" else Unauthenticated("no")


def player(
    door: Door,
    *protocols: str,
    path: str = "/sign_in",
    query: str = "peer_id=peer-0123456789&version=2",
    headers: Sequence[tuple[str, str]] = (),
) -> connect:
    """Dial as a browser does: with subprotocols, of which one must be chosen."""
    offered = [Subprotocol(name) for name in protocols] or None
    url = f"ws://{door.host}{path}?{query}"
    return connect(url, subprotocols=offered, additional_headers=headers, proxy=None)


def application_never_asked(door: Door) -> bool:
    """Say whether nothing has reached the application."""
    return not door.application.seen


async def refused(dialling: connect) -> int:
    """Return the status of a handshake that is refused."""
    with pytest.raises(InvalidStatus) as caught:
        async with dialling:
            pass
    return caught.value.response.status_code


@pytest.mark.parametrize("named", [f"x-nv-sessionid.{SESSION}", SESSION])
async def test_the_root_finds_the_session_by_its_subprotocol(door: Door, application: Application, named: str) -> None:
    """Vector 10: what was offered is offered on, and one of it is always chosen: a browser fails without."""
    async with player(door, named) as socket:
        assert socket.subprotocol == named
        await socket.send("hello")
        assert await socket.recv() == "hello"

    assert application.seen[-1].headers["Sec-WebSocket-Protocol"] == named
    assert application.seen[-1].query == "peer_id=peer-0123456789&version=2"


async def test_a_token_beside_it_never_reaches_the_application(door: Door, application: Application) -> None:
    """Vector 11: it is the grant, which is for one session whatever else is named."""
    grant = door.grants.mint(OTHER, "ann", 60, door.now)
    async with player(door, f"x-nv-sessionid.{OTHER}", f"Authorization-Bearer.{grant}") as socket:
        assert socket.subprotocol

    assert grant not in str(application.seen)


async def test_the_token_of_its_owner_opens_a_session(door: Door, application: Application, ended: list[str]) -> None:
    """As it is sent with a stream's requests; it reaches no application, and is never taken from an address."""
    own, other = f"x-nv-sessionid.{OTHER}", f"x-nv-sessionid.{SESSION}"
    async with player(door, own, "Authorization-Bearer.fl_ann") as first:
        query = "peer_id=peer-0123456789&version=2&reconnect=1"
        async with player(door, own, "Authorization-Bearer.fl_ann", query=query):
            with pytest.raises(ConnectionClosedError):
                await asyncio.wait_for(first.recv(), 5)
    statuses = [
        await refused(player(door, other, "Authorization-Bearer.fl_ann")),
        await refused(player(door, own, "Authorization-Bearer.fl_bob")),
        await refused(player(door, "Authorization-Bearer.fl_ann")),
        await refused(player(door, own, query="access_token=fl_ann")),
    ]
    async with httpx2.AsyncClient(base_url=f"http://{door.host}") as client:
        told = [
            (await client.request(method, f"/stream/{OTHER}/sign_in", headers={"authorization": f"Bearer {token}"}))
            for token in ("fl_looks", "fl_ann")
            for method in ("HEAD", "DELETE")
        ]

    assert statuses == [401, 401, 401, 401]
    assert [answer.status_code for answer in told] == [200, 403, 200, 204]
    assert ended == [OTHER]
    assert "fl_ann" not in str(application.seen)


async def test_only_the_sessions_of_that_user_are_open(door: Door) -> None:
    """The id of anybody else's says nothing, not even whether there is one; nor does a name that is no id."""
    statuses = [
        await refused(player(door, f"x-nv-sessionid.{OTHER}")),
        await refused(player(door, path=f"/stream/{OTHER}/sign_in")),
        await refused(player(door, f"x-nv-sessionid.{UNKNOWN}")),
        await refused(player(door, path=f"/stream/{UNKNOWN}/sign_in")),
        await refused(player(door, "x-nv-sessionid.x")),
        await refused(player(door)),
    ]
    async with httpx2.AsyncClient(base_url=f"http://{door.host}") as client:
        told = [
            (answer.status_code, answer.text.replace(session_id, "ID"))
            for session_id in (OTHER, UNKNOWN)
            for answer in [await client.delete(f"/stream/{session_id}/sign_in")]
        ]

    assert statuses == [401] * 6
    assert told[0] == told[1]
    assert application_never_asked(door)


async def test_without_the_policy_ids_open_nothing(application: Application) -> None:
    """As it is by default."""
    door = Door(application)
    door.targets[SESSION] = door.target(owner=OWNER)
    async with serving(door.app()) as door.host:
        assert await refused(player(door, SESSION)) == 401


async def test_a_player_may_look_and_leave(door: Door, ended: list[str]) -> None:
    """Vector 12: HEAD says whether it may connect; DELETE ends an open session, with a grant only what is its own."""
    grant = door.grants.mint(OTHER, "ann", 60, door.now)
    bearer = {"authorization": f"Bearer {grant}"}
    async with httpx2.AsyncClient(base_url=f"http://{door.host}") as client:
        looks = [
            await client.head(f"/stream/{SESSION}/sign_in"),
            await client.head(f"/stream/{OTHER}/sign_in"),
            await client.head("/sign_in", headers=bearer),
            await client.head(f"/stream/{OTHER}/sign_in", headers=bearer),
        ]
        async with player(door, f"Authorization-Bearer.{grant}") as socket:
            own = await client.delete(f"/stream/{OTHER}/sign_in", headers=bearer)
            with pytest.raises(ConnectionClosedError):
                async with asyncio.timeout(5):
                    await socket.recv()
        opened = await client.delete(f"/stream/{SESSION}/sign_in")
        stranger = await client.delete(f"/stream/{OTHER}/sign_in")
        door.targets[SESSION] = door.target("STARTING", owner=OWNER)
        early = await client.head(f"/stream/{SESSION}/sign_in")

    assert [answer.status_code for answer in looks] == [200, 401, 200, 200]
    assert (own.status_code, opened.status_code, stranger.status_code) == (204, 204, 401)
    assert ended == [SESSION]
    assert early.status_code == 409


async def test_a_grant_that_opened_a_session_opens_it_again(door: Door, application: Application) -> None:
    """For as long as the session lives: a player comes back by the same URL. One that was never used has an end."""
    used, unused = (door.grants.mint(OTHER, "ann", 60, door.now) for _ in range(2))
    viewer_id = door.grants.read(used).viewer_id
    door.pass_time(3600)
    door.targets[OTHER] = door.target(owner="ann", is_known=True)
    async with player(door, f"Authorization-Bearer.{used}"):
        pass
    door.register.gone.add(viewer_id)
    removed = await refused(player(door, f"Authorization-Bearer.{used}"))
    door.targets[OTHER] = door.target(owner="ann")

    assert removed == 403
    assert await refused(player(door, f"Authorization-Bearer.{unused}")) == 401


async def test_one_viewer_too_many_is_told_so_in_words(door: Door, application: Application) -> None:
    """By a close that its page can read; Kit itself would say nothing."""
    door.targets[SESSION] = door.target(owner=OWNER, is_full=True, max_viewers=1)
    assert await told(player(door, SESSION)) == (3005, ALONE)
    assert application.seen == []


ALONE = "The application takes one viewer at a time, and another one is connected: wait until somebody leaves."


async def told(dialling: connect) -> tuple[int, str]:
    """Return how a socket is closed that was accepted."""
    async with dialling as socket:
        with pytest.raises(ConnectionClosedError) as caught:
            async with asyncio.timeout(5):
                await socket.recv()
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code, caught.value.rcvd.reason


async def test_one_that_the_application_refuses_is_told_so_too(door: Door, application: Application) -> None:
    """The second of two that come at once is not counted yet, and Kit refuses it with a status that no page sees."""

    async def busy(_: web.Request) -> web.StreamResponse:
        return web.Response(status=503)

    application.answer = busy
    assert await refused(player(door, SESSION)) == 502
    door.targets[SESSION] = door.target(owner=OWNER, max_viewers=1)
    assert await told(player(door, SESSION)) == (3005, ALONE)


async def test_a_page_that_is_loaded_again_waits_for_the_one_before(application: Application) -> None:
    """Who has left is counted for seconds: that is nobody else."""
    door = Door(application)
    door.targets[OTHER] = door.target(is_full=True, max_viewers=1)
    grant = door.grants.mint(OTHER, "ann", 60, door.now)

    async def leave() -> None:
        await until(lambda: door.resolved > 1)
        door.targets[OTHER] = door.target(max_viewers=1)

    async with serving(door.app()) as door.host:
        leaving = asyncio.create_task(leave())
        async with player(door, f"Authorization-Bearer.{grant}") as socket:
            await socket.send("hello")
            assert await socket.recv() == "hello"
        await leaving
        bearer = {"authorization": f"Bearer {grant}", "content-type": "application/sdp"}
        door.targets[OTHER], door.resolved = door.target(is_full=True, max_viewers=1), 0
        leaving = asyncio.create_task(leave())
        async with httpx2.AsyncClient(base_url=f"http://{door.host}", timeout=10) as client:
            answer = await client.post(f"/stream/{OTHER}/whep", content="v=0", headers=bearer)
        await leaving
        assert answer.status_code == 201


async def test_a_player_that_comes_back_is_the_viewer_that_it_was(door: Door, application: Application) -> None:
    """It takes the place of its own lost connection, which may live on for minutes; no other player's."""
    grant = door.grants.mint(OTHER, "ann", 60, door.now)
    for protocol in (SESSION, f"Authorization-Bearer.{grant}"):
        async with (
            player(door, protocol) as first,
            player(door, protocol, query="peer_id=peer-2") as other,
            player(door, protocol, query="peer_id=peer-0123456789&version=2&reconnect=1") as again,
        ):
            with pytest.raises(ConnectionClosedError):
                async with asyncio.timeout(5):
                    await first.recv()
            for socket in (again, other):
                await socket.send("hello")
                assert await socket.recv() == "hello"
    assert application.seen[2].query == "peer_id=peer-0123456789&version=2&reconnect=1"
    assert len(door.register.connected) == 3  # two of the open session, and the grant's one


async def test_a_page_that_may_not_call_needs_a_grant(application: Application, ended: list[str]) -> None:
    """Where origins are named: its user's browser is in the network that ids are good for."""
    door = Door(application)
    door.targets[SESSION] = door.target(owner=OWNER)

    async def end(session_id: str, owner: str) -> None:
        ended.append(session_id)

    options = {"open_sessions": OpenSessions(OWNER, end), "allow_origin": ["https://portal.example"]}
    evil, known = ("origin", "https://evil.example"), ("origin", "https://portal.example")
    grant = door.grants.mint(SESSION, "ann", 60, door.now)
    async with serving(door.app(**options)) as door.host:
        assert await refused(player(door, SESSION, headers=[evil])) == 401
        async with httpx2.AsyncClient(base_url=f"http://{door.host}") as client:
            path = f"/v1/sessions/{SESSION}/sign_in"
            assert (await client.delete(path, headers=dict([evil]))).status_code == 401
        own = "origin", f"http://{door.host}"
        for headers, protocol in (([known], SESSION), ([own], SESSION), ([evil], f"Authorization-Bearer.{grant}")):
            async with player(door, protocol, query="", headers=headers):
                pass

    assert ended == []


async def test_a_request_names_one_session(door: Door, ended: list[str]) -> None:
    """Two are refused, however they are written; the same one twice is one."""
    two = f"x-nv-sessionid.{SESSION}, {OTHER}"
    assert await refused(player(door, *two.split(", "))) == 422
    async with player(door, f"x-nv-sessionid.{SESSION}", SESSION):
        pass
    async with httpx2.AsyncClient(base_url=f"http://{door.host}") as client:
        statuses = [
            (await client.request(method, "/sign_in", headers={"sec-websocket-protocol": named})).status_code
            for named in (two, f"x-nv-sessionid.{OTHER}", f"x-nv-sessionid.{UNKNOWN}", "x", SESSION)
            for method in ("HEAD", "DELETE")
        ]

    assert statuses == [422, 422, *[401] * 6, 200, 204]
    assert ended == [SESSION]


@pytest.mark.parametrize(
    ("protocols", "query", "status"),
    [
        ([*(f"p{number}" for number in range(100)), SESSION], "peer_id=a", 101),
        (["", "", SESSION, ""], "peer_id=a", 101),
        ([SESSION], "a=#b&peer_id=a&peer_id=b", 101),
        ([SESSION], "a=%ff%00&a[]={}|^`%22&peer_id=" + "9" * 1000, 101),
        ([SESSION.replace("0", "\u0660")], "", 400),
        ([f"x-nv-sessionid.{SESSION.upper()}x"], "", 401),
        ([SESSION, "Authorization-Bearer.undefined"], "", 401),
        ([f"x-nv-sessionid.{SESSION}\x00"], "", 400),
    ],
)
async def test_odd_requests_are_served_or_refused(door: Door, protocols: list[str], query: str, status: int) -> None:
    """And none is an error of ours."""
    key = base64.b64encode(bytes(16)).decode()
    head = [f"GET /sign_in?{query} HTTP/1.1", "Host: a", "Upgrade: websocket", "Connection: Upgrade"]
    head += ["Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}"]
    head += [f"Sec-WebSocket-Protocol: {', '.join(protocols)}"]
    host, _, port = door.host.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write("\r\n".join([*head, "", ""]).encode())
    async with asyncio.timeout(10):
        line = await reader.readline()
    writer.close()
    await writer.wait_closed()
    assert int(line.split()[1]) == status


async def test_headers_that_a_version_names_are_passed_on(door: Door, application: Application) -> None:
    """From the handshake, or from a subprotocol, as browsers must send them; then that is not offered on."""
    door.targets[SESSION] = door.target(owner=OWNER, forwarded_headers=("nucleus-token", "nvcf-reqid"))
    async with player(door, SESSION, "nucleus-token.abc", headers=[("NVCF-REQID", "r1"), ("X-Other", "no")]) as socket:
        assert socket.subprotocol == SESSION

    headers = {name.lower(): value for name, value in application.seen[-1].headers.items()}
    assert (headers["nucleus-token"], headers["nvcf-reqid"]) == ("abc", "r1")
    assert headers["sec-websocket-protocol"] == SESSION
    assert "x-other" not in headers
