"""The places of requests and sockets: one viewer does not take those of others."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx2
import pytest

from footlights.frontdoor.answers import FrontDoorError
from footlights.frontdoor.interfaces import Limits, PlaceLimits
from footlights.frontdoor.places import Places
from tests.frontdoor.application import serving
from tests.frontdoor.conftest import Door

if TYPE_CHECKING:
    from tests.frontdoor.application import Application


@dataclass(frozen=True)
class Given:
    """A grant."""

    session_id: str = "s1"
    subject: str = "ann"
    nonce: str = "n1"
    viewer_id: str = "v1"


@pytest.mark.parametrize(
    ("refused", "admitted", "of"),
    [
        (Given(), Given(nonce="n2"), "grant"),
        (Given(nonce="n3"), Given("s2", nonce="n3"), "session"),
        (Given("s3", nonce="n4"), Given("s3", "bob", "n4"), "user"),
    ],
)
def test_each_has_places_of_its_own(refused: Given, admitted: Given, of: str) -> None:
    """Who has as many as it may have is told so; whoever else comes in, and what was given back is free again."""
    places = Places("requests", PlaceLimits(6, per_session=2, per_grant=1))
    with contextlib.ExitStack() as taken:
        taken.enter_context(places.hold(Given()))
        if of != "grant":
            taken.enter_context(places.hold(Given(nonce="n2")))
        if of == "user":
            taken.enter_context(places.hold(Given("s2", nonce="n3")))

        with pytest.raises(FrontDoorError) as caught, places.hold(refused):
            pass
        with places.hold(admitted):
            pass
    with places.hold(refused):
        assert places.taken == 1

    assert (caught.value.http_status, caught.value.error.reason) == (429, "VIEWER_LIMIT")
    assert caught.value.error.metadata["of"] == of


@pytest.mark.parametrize("greedy", [1, 2, 3, 4])
def test_however_many_users_want_all_another_one_gets_in(greedy: int) -> None:
    """Each takes what it can, with sessions and grants without end; one alone gets half."""
    limits = Limits().requests
    places = Places("requests", limits)
    with contextlib.ExitStack() as taken:
        had = []
        for user in range(greedy):
            before = places.taken
            with pytest.raises(FrontDoorError, match="of this user"):
                _take_all(taken, places, user)
            had.append(places.taken - before)
        for _ in range(8):
            taken.enter_context(places.hold(Given("other", "late", "other")))

    assert had == [limits.total // 2 ** (1 + user) for user in range(greedy)]


def _take_all(taken: contextlib.ExitStack, places: Places, user: int) -> None:
    for number in itertools.count():
        taken.enter_context(places.hold(Given(f"s{user}.{number}", f"u{user}", f"n{user}.{number}")))


async def test_slow_bodies_with_one_grant_shut_out_nobody(application: Application) -> None:
    """300 of them: another viewer of another session is served at once."""
    door = Door(application)
    door.targets |= {"s1": door.target(), "s2": door.target()}
    async with serving(door.app()) as host, httpx2.AsyncClient(base_url=f"http://{host}") as client:
        grant, writers, answers = door.grant(), [], []
        for _ in range(300):
            reader, writer = await asyncio.open_connection(*host.split(":"))
            head = f"POST /stream/s1/whep HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {grant}\r\n"
            writer.write(f"{head}Content-Type: application/sdp\r\nContent-Length: 10\r\n\r\nv=0".encode())
            writers.append(writer)
            answers.append(asyncio.create_task(reader.read(12)))
        refused, _ = await asyncio.wait(answers, timeout=2, return_when=asyncio.FIRST_COMPLETED)

        headers = {"Authorization": f"Bearer {door.grant('s2')}", "Content-Type": "application/sdp"}
        answer = await client.post("/stream/s2/whep", content="v=0 offer", headers=headers)

        for writer in writers:
            writer.close()
        for task in answers:
            task.cancel()
        await asyncio.gather(*answers, return_exceptions=True)

    assert refused
    assert answer.status_code == 201
