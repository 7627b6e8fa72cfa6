"""Viewers at the front door: noted when they come and leave, and shown out when a call says so."""

from __future__ import annotations

import asyncio

import httpx2
import pytest
from aiohttp import web
from websockets.exceptions import ConnectionClosedError, InvalidStatus

from footlights.errors import Unavailable
from tests.frontdoor.application import Application, serving, until
from tests.frontdoor.conftest import Door
from tests.frontdoor.test_websocket_proxy import viewer
from tests.frontdoor.test_whep_proxy import bearer, offer, reason


def viewer_of(door: Door, grant: str) -> str:
    return door.grants.read(grant).viewer_id


async def test_a_whep_viewer_is_noted_from_its_offer_to_its_end(door: Door, client: httpx2.AsyncClient) -> None:
    """By the path that its resource has on the application; whoever ends it."""
    grant, other = door.grant(), door.grant()
    made = await offer(client, grant)

    assert door.register.connected == {viewer_of(door, grant): ["/whep/r-1"]}
    await client.delete(made.headers["location"], headers=bearer(other))
    assert door.register.connected == {viewer_of(door, grant): []}


async def test_a_refused_offer_is_no_viewer(door: Door, client: httpx2.AsyncClient, application: Application) -> None:
    """Nothing is connected, so nothing is noted."""
    door.targets["s1"] = door.target("PENDING")
    await offer(client, door.grant())

    assert door.register.connected == {}


@pytest.mark.parametrize("late", [False, True])
async def test_a_disconnected_viewers_grant_is_refused(
    door: Door, client: httpx2.AsyncClient, application: Application, late: bool
) -> None:
    """Also where it is disconnected while its offer is answered: what the application made is ended then."""
    grant = door.grant()
    door.register.gone, door.late = {viewer_of(door, grant)}, late

    refused, other = await offer(client, grant), await offer(client, door.grant())

    assert (refused.status_code, reason(refused)) == (403, "VIEWER_DISCONNECTED")
    assert other.status_code == 201
    assert [seen.method for seen in application.seen] == (["POST", "DELETE", "POST"] if late else ["POST"])


async def test_what_the_register_does_not_keep_is_ended(
    door: Door, client: httpx2.AsyncClient, application: Application
) -> None:
    """Otherwise a viewer with many connections would keep the oldest when it is disconnected."""
    door.register.too_many = ["/whep/r-0", "websocket:abc"]
    made = await offer(client, door.grant())
    async with viewer(door, token=door.grant()):
        pass

    assert made.status_code == 201
    assert [(seen.method, seen.path) for seen in application.seen if seen.method == "DELETE"] == [
        ("DELETE", "/whep/r-0"),
        ("DELETE", "/whep/r-0"),
    ]


async def test_a_disconnected_viewer_may_still_end_its_own_resource(door: Door, client: httpx2.AsyncClient) -> None:
    """A page that is closed ends what it has."""
    grant = door.grant()
    made = await offer(client, grant)
    door.register.gone = {viewer_of(door, grant)}

    patched = await client.patch(made.headers["location"], headers=bearer(grant))
    deleted = await client.delete(made.headers["location"], headers=bearer(grant))

    assert (patched.status_code, deleted.status_code) == (403, 200)


async def test_a_viewer_whose_grant_has_expired_learns_that_it_was_disconnected(
    door: Door, client: httpx2.AsyncClient
) -> None:
    """By a PATCH, as the console asks before it comes back by itself; one that was not has its PATCH passed on."""
    mine, other = door.grant(), door.grant()
    made = [(await offer(client, grant)).headers["location"] for grant in (mine, other)]
    door.targets["s1"] = door.target(is_known=True)
    door.register.gone = {viewer_of(door, mine)}
    door.pass_time(3600)

    told = await client.patch(made[0], headers=bearer(mine))
    passed_on = await client.patch(made[1], headers=bearer(other))
    of_another = await client.patch(made[0], headers=bearer(other))

    assert (told.status_code, reason(told)) == (403, "VIEWER_DISCONNECTED")
    assert passed_on.status_code == 204
    assert (of_another.status_code, reason(of_another)) == (401, "GRANT_EXPIRED")


async def test_a_viewer_that_cannot_be_noted_is_not_let_in(
    door: Door, client: httpx2.AsyncClient, application: Application
) -> None:
    """It could not be disconnected: what the application made is ended."""
    door.register.failing = Unavailable("The database is gone.")

    answer = await offer(client, door.grant())

    assert answer.status_code == 503
    assert [seen.method for seen in application.seen] == ["POST", "DELETE"]


async def test_a_disconnected_viewers_socket_is_closed(application: Application) -> None:
    """With a code that says so, within a pass; another viewer's stays open, and a new one is refused."""
    door = Door(application)
    door.targets["s1"] = door.target()
    app = door.app()
    async with serving(app) as door.host:
        grant = door.grant()
        async with viewer(door, token=grant) as ended, viewer(door, token=door.grant()) as other:
            await ended.send("hello")
            assert await ended.recv() == "hello"
            door.register.gone = {viewer_of(door, grant)}
            await app.end_removed()
            with pytest.raises(ConnectionClosedError) as caught:
                await asyncio.wait_for(ended.recv(), 5)
            with pytest.raises(InvalidStatus, match="403"):
                await viewer(door, token=grant)
            await other.send("still here")
            assert await other.recv() == "still here"
        await until(lambda: app.open_sockets == 0)

    assert caught.value.rcvd is not None
    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (1008, "VIEWER_DISCONNECTED")
    assert not any(door.register.connected.values())


async def test_offers_with_one_grant_are_passed_on_two_at_a_time(
    door: Door, client: httpx2.AsyncClient, application: Application
) -> None:
    """So what one grant has beyond its bound is ended before it has taken the places of others, who do not wait."""
    go, waiting, most = asyncio.Event(), 0, 0

    async def hold(request: web.Request) -> web.StreamResponse:
        nonlocal waiting, most
        waiting += 1
        most = max(most, waiting)
        await go.wait()
        waiting -= 1
        return web.Response(status=201, headers={"Location": f"/whep/r-{len(application.seen)}"})

    application.answer = hold
    grant, other = door.grant(), door.grant()
    offers = [asyncio.create_task(offer(client, grant)) for _ in range(8)]
    await until(lambda: waiting == 2)
    offers.append(asyncio.create_task(offer(client, other)))
    await until(lambda: waiting == 3)
    go.set()
    answers = await asyncio.gather(*offers)

    assert most == 3
    assert {answer.status_code for answer in answers} == {201}
