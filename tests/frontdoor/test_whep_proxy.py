"""WHEP through the front door, over real sockets.

Covers ``app``, ``answers``, ``checks``, ``credentials``, ``interfaces``, ``whep_proxy``, ``whep_resources`` and
``node_client``.
"""

from __future__ import annotations

import asyncio
import logging

import httpx2
import pytest
import structlog
from aiohttp import web

from footlights.frontdoor import Limits, PlaceLimits
from footlights.protocol.launch_secrets import CHALLENGE, PROOF, Proofs
from tests.frontdoor.application import Application, listening, serving, until
from tests.frontdoor.conftest import Door

SDP = {"Content-Type": "application/sdp"}


def bearer(grant: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {grant}", **SDP}


async def offer(client: httpx2.AsyncClient, grant: str, *, session: str = "/stream/s1") -> httpx2.Response:
    return await client.post(f"{session}/whep", content="v=0 offer", headers=bearer(grant))


def reason(response: httpx2.Response) -> str:
    """The reason of the one ErrorInfo of an error body."""
    (info,) = [detail for detail in response.json()["details"] if detail["@type"].endswith("google.rpc.ErrorInfo")]
    assert info["domain"] == "footlights.dev"
    return str(info["reason"])


@pytest.mark.parametrize("session", ["/stream/s1", "/v1/sessions/s1"])
async def test_an_offer_is_answered_and_its_location_leads_back_here(
    door: Door, client: httpx2.AsyncClient, application: Application, session: str
) -> None:
    """The SDP, the ETag and the ICE links pass; the Location is below the path asked for; nothing of the node shows."""
    response = await offer(client, door.grant(), session=session)

    assert (response.status_code, response.text) == (201, "v=0 answer")
    assert response.headers["location"].startswith(f"{session}/whep/r-1.")
    deleted = await client.delete(response.headers["location"], headers=bearer(door.grant()))
    assert deleted.status_code == 200
    assert response.headers["etag"] == '"e1"'
    assert response.headers["link"] == '<stun:stun.example:3478>; rel="ice-server"'
    assert "x-node" not in response.headers
    assert application.seen[0].body == b"v=0 offer"
    assert application.seen[0].headers["Content-Type"] == "application/sdp"


async def test_the_launchs_secret_is_proved_with_every_request(
    door: Door, client: httpx2.AsyncClient, application: Application
) -> None:
    """It is the launch's and never the viewer's; it is not sent, and no proof is good for a second request."""
    door.targets["s1"] = door.target(secret="fls_s1")
    assert "fls_s1" not in repr(door.targets["s1"])
    headers = {**bearer(door.grant()), PROOF: "chosen-by-the-viewer"}
    made = await client.post("/stream/s1/whep", content="v=0 offer", headers=headers)
    location = made.headers["location"]

    await client.patch(location, content="a=candidate", headers=headers)
    await client.delete(location, headers=headers)

    assert [seen.method for seen in application.seen] == ["POST", "PATCH", "DELETE"]
    checks = Proofs("fls_s1")
    checks.challenge = application.challenge
    assert [checks.accept(*each) for each in application.proofs] == [True] * 3
    assert [checks.accept(*each) for each in application.proofs] == [False] * 3
    assert "fls_s1" not in str(application.seen)
    assert "fls_" not in f"{made.headers}{made.text}"


async def test_a_challenge_that_is_replaced_in_between_is_answered(
    door: Door, client: httpx2.AsyncClient, application: Application
) -> None:
    """By others' requests, or a restart of the agent: the viewer does not notice."""
    checks = Proofs("fls_s1")

    async def check(request: web.Request) -> web.StreamResponse:
        if checks.accept(request.headers[PROOF], request.method, request.raw_path):
            return web.Response(status=201, headers={"Location": "/whep/r-1"})
        return web.Response(status=401, headers={CHALLENGE: checks.challenge})

    application.answer = check
    door.targets["s1"] = door.target(secret="fls_s1")

    assert (await offer(client, door.grant())).status_code == 201
    assert len(application.proofs) == 2


async def test_a_refused_secret_is_not_the_viewers_fault(
    door: Door, client: httpx2.AsyncClient, application: Application
) -> None:
    """A player that is answered 401 would fetch another grant, again and again."""

    async def refuse(_: web.Request) -> web.StreamResponse:
        return web.Response(status=401)

    application.answer = refuse
    door.targets["s1"] = door.target(secret="fls_s1")

    answer = await offer(client, door.grant())

    assert (answer.status_code, reason(answer)) == (502, "APPLICATION_ANSWER_INVALID")


@pytest.mark.parametrize("given", ["", "r-7", "has a blank"])
async def test_a_request_has_an_id_in_the_log_and_in_the_answer(
    door: Door, client: httpx2.AsyncClient, given: str
) -> None:
    """The caller's own where it will do, else a new one; a refusal is logged with it and with the session's."""
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        refused = await client.post("/stream/s1/whep", headers={**SDP, "X-Request-Id": given} if given else SDP)
    accepted = await client.post("/stream/s1/whep", headers=bearer(door.grant()), content="v=0 offer")

    request_id = refused.headers["x-request-id"]
    assert (request_id == given) is (given == "r-7")
    assert accepted.headers["x-request-id"] not in ("", request_id)
    assert [(line["event"], line["request_id"], line["session_id"]) for line in lines] == [
        ("viewer_refused", request_id, "s1")
    ]


async def test_patch_and_delete_reach_the_applications_own_resource(
    door: Door, client: httpx2.AsyncClient, application: Application
) -> None:
    """A trickle fragment and the end go to the path that the application named, with If-Match."""
    grant = door.grant()
    location = (await offer(client, grant)).headers["location"]

    patched = await client.patch(location, content="a=ice", headers={**bearer(grant), "If-Match": '"e1"'})
    deleted = await client.delete(location, headers=bearer(grant))

    assert [patched.status_code, deleted.status_code] == [204, 200]
    assert [(seen.method, seen.path) for seen in application.seen[1:]] == [
        ("PATCH", "/whep/r-1"),
        ("DELETE", "/whep/r-1"),
    ]
    assert application.seen[1].headers["If-Match"] == '"e1"'


@pytest.mark.parametrize(
    ("location", "path", "query"),
    [
        ("http://10.9.8.7:49100/whep/r.2", "/whep/r.2", ""),
        ("r3", "/r3", ""),
        ("/other/endpoint?id=4&x=%20", "/other/endpoint", "id=4&x=%20"),
        ("/whep/a/b", "/whep/a/b", ""),
    ],
)
async def test_a_location_of_any_form_leads_to_where_it_points(
    door: Door, client: httpx2.AsyncClient, application: Application, location: str, path: str, query: str
) -> None:
    """Absolute, relative and far-off locations come back here and are followed on the session's own node only."""
    application.location = location
    grant = door.grant()

    ours = (await offer(client, grant)).headers["location"]
    deleted = await client.delete(ours, headers=bearer(grant))

    assert ours.startswith("/stream/s1/whep/")
    assert "10.9.8.7" not in ours
    assert (deleted.status_code, application.seen[1].path, application.seen[1].query) == (200, path, query)


async def test_the_grant_goes_no_further(
    door: Door, client: httpx2.AsyncClient, application: Application, caplog: pytest.LogCaptureFixture
) -> None:
    """The application sees no credential, whichever way it came, the other parameters pass, and no log line has it."""
    grant = door.grant()
    with caplog.at_level(logging.INFO):
        by_header = await offer(client, grant)
        by_query = await client.post(
            f"/stream/s1/whep?a=1&access_token={grant}&b=%2F", content="x", headers={**SDP, "Cookie": "c=1"}
        )

    assert [by_header.status_code, by_query.status_code] == [201, 201]
    assert application.seen[1].query == "a=1&b=%2F"
    assert not [seen for seen in application.seen if "flg_" in str(seen) or "Cookie" in seen.headers]
    assert any("/stream/s1/whep" in record.getMessage() for record in caplog.records), "the access log is read too"
    ours = [record for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))]
    assert not [record for record in ours if "flg_" in record.getMessage()]


async def test_without_a_good_grant_nothing_passes(
    door: Door, client: httpx2.AsyncClient, application: Application
) -> None:
    """Missing, foreign, expired and API tokens are 401 with a challenge; another session's grant is 403; never 400."""
    expired = door.grant(ttl_s=1)
    other = door.grant("s2", ttl_s=3600)
    door.pass_time(2)
    api_token = "fl_" + "a" * 13 + "_" + "b" * 39

    missing = await client.post("/stream/s1/whep", content="x", headers=SDP)
    answers = [await offer(client, grant) for grant in ("flg_nonsense", expired, api_token, other)]

    assert (missing.status_code, reason(missing)) == (401, "GRANT_MISSING")
    assert missing.headers["www-authenticate"] == 'Bearer realm="footlights"'
    assert [(answer.status_code, reason(answer)) for answer in answers] == [
        (401, "GRANT_INVALID"),
        (401, "GRANT_EXPIRED"),
        (401, "GRANT_INVALID"),
        (403, "GRANT_FOR_ANOTHER_SESSION"),
    ]
    assert 'error="invalid_token"' in answers[0].headers["www-authenticate"]
    assert application.seen == []


@pytest.mark.parametrize(
    ("state", "status", "why"),
    [
        ("PENDING", 409, "SESSION_NOT_READY"),
        ("STARTING", 409, "SESSION_NOT_READY"),
        ("TERMINATING", 409, "SESSION_ENDED"),
        ("FAILED", 409, "SESSION_ENDED"),
    ],
)
async def test_a_session_that_is_not_open_says_so(
    door: Door, client: httpx2.AsyncClient, state: str, status: int, why: str
) -> None:
    """409 both before and after; before, with Retry-After, as WHEP has it. The application is not asked."""
    door.targets["s1"] = door.target(state)

    response = await offer(client, door.grant())

    assert (response.status_code, reason(response)) == (status, why)
    assert ("retry-after" in response.headers) == (why == "SESSION_NOT_READY")
    assert door.application.seen == []


async def test_unknown_sessions_and_unspoken_signalling_are_404(door: Door, client: httpx2.AsyncClient) -> None:
    """A session that is not there, and an application without WHEP, are not found."""
    door.targets["s2"] = door.target(whep_path="")

    unknown = await client.post("/stream/s9/whep", headers=bearer(door.grant("s9")))
    silent = await client.post("/stream/s2/whep", headers=bearer(door.grant("s2")))

    assert [(answer.status_code, reason(answer)) for answer in (unknown, silent)] == [
        (404, "SESSION_NOT_FOUND"),
        (404, "SIGNALING_NOT_OFFERED"),
    ]


async def test_an_expired_grant_may_still_end_its_own_resource(door: Door, client: httpx2.AsyncClient) -> None:
    """It may not begin another, nor patch its own, nor end what another grant began; a fresh grant may end any."""
    mine, theirs = door.grant(), door.grant()
    my_resource = (await offer(client, mine)).headers["location"]
    their_resource = (await offer(client, theirs)).headers["location"]
    door.pass_time(3600)

    refused = [
        await offer(client, mine),
        await client.patch(my_resource, headers=bearer(mine)),
        await client.delete(their_resource, headers=bearer(mine)),
    ]
    ended = await client.delete(my_resource, headers=bearer(mine))
    by_another = await client.delete(their_resource, headers=bearer(door.grant()))

    assert [(answer.status_code, reason(answer)) for answer in refused] == [(401, "GRANT_EXPIRED")] * 3
    assert [ended.status_code, by_another.status_code] == [200, 200]


async def test_a_resource_outlives_the_front_door_that_named_it(door: Door, client: httpx2.AsyncClient) -> None:
    """Another replica with the same key serves it: nothing is kept in memory."""
    grant = door.grant()
    location = (await offer(client, grant)).headers["location"]

    async with serving(door.app()) as other, httpx2.AsyncClient(base_url=f"http://{other}") as elsewhere:
        deleted = await elsewhere.delete(location, headers=bearer(grant))

    assert deleted.status_code == 200


async def test_a_made_up_resource_leads_nowhere(
    door: Door, client: httpx2.AsyncClient, application: Application
) -> None:
    """Ids that were not given, or were given for another session, are 404 and reach no node."""
    door.targets["s2"] = door.target()
    given = (await offer(client, door.grant())).headers["location"].rpartition("/")[2]

    made_up = [
        await client.delete(f"/stream/s1/whep/{name}", headers=bearer(door.grant()))
        for name in ("r-1", "..", "~L2FkbWlu.x.y", given[:-1], "é.é.é")
    ]
    moved = await client.delete(f"/stream/s2/whep/{given}", headers=bearer(door.grant("s2")))

    assert {answer.status_code for answer in (*made_up, moved)} == {404}
    assert len(application.seen) == 1


async def test_ending_a_resource_of_an_ended_session_is_done_already(
    door: Door, client: httpx2.AsyncClient, application: Application
) -> None:
    """DELETE answers 200 without asking a node that may be gone."""
    grant = door.grant()
    location = (await offer(client, grant)).headers["location"]
    door.targets["s1"] = door.target("TERMINATED", address="", signal_port=0)

    assert (await client.delete(location, headers=bearer(grant))).status_code == 200
    assert len(application.seen) == 1


async def test_a_node_that_cannot_be_reached_is_502(door: Door, client: httpx2.AsyncClient) -> None:
    """A closed port is 502 SIGNALING_UNREACHABLE, with Retry-After, and does not show the node's address."""
    listener = listening()
    port = listener.getsockname()[1]
    listener.close()
    door.targets["s1"] = door.target(signal_port=port)

    response = await offer(client, door.grant())

    assert (response.status_code, reason(response)) == (502, "SIGNALING_UNREACHABLE")
    assert "retry-after" in response.headers
    assert "127.0.0.1" not in response.text


async def test_a_node_that_does_not_answer_is_504(application: Application) -> None:
    """An application that takes the request and says nothing is 504 after the answer timeout."""
    never = asyncio.Event()

    async def hang(_: web.Request) -> web.StreamResponse:
        await never.wait()
        return web.Response()

    application.answer = hang
    door = Door(application, Limits(answer_timeout_s=0.1))
    door.targets["s1"] = door.target()
    async with serving(door.app()) as host, httpx2.AsyncClient(base_url=f"http://{host}") as client:
        response = await offer(client, door.grant())
        never.set()

    assert (response.status_code, reason(response)) == (504, "SIGNALING_UNREACHABLE")


@pytest.mark.parametrize(
    "raw",
    [b"SSH-2.0-OpenSSH_9\r\n", b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"],
    ids=["not-http", "nothing", "cut-off"],
)
async def test_an_answer_that_is_no_answer_is_502(door: Door, client: httpx2.AsyncClient, raw: bytes) -> None:
    """Another protocol, silence and half an answer are 502 APPLICATION_ANSWER_INVALID."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(len(b"v=0 offer"))
        writer.write(raw)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        door.targets["s1"] = door.target(signal_port=server.sockets[0].getsockname()[1])
        response = await offer(client, door.grant())

    assert (response.status_code, reason(response)) == (502, "APPLICATION_ANSWER_INVALID")


async def test_bodies_are_bounded_both_ways(application: Application) -> None:
    """An offer above the limit is 413 and is not passed on; an answer above it is 502."""
    door = Door(application, Limits(body_bytes=1000))
    door.targets["s1"] = door.target()

    async def flood(_: web.Request) -> web.StreamResponse:
        return web.Response(text="x" * 2000)

    async with serving(door.app()) as host, httpx2.AsyncClient(base_url=f"http://{host}") as client:
        big = await client.post("/stream/s1/whep", content="x" * 1001, headers=bearer(door.grant()))
        seen = len(application.seen)
        application.answer = flood
        flooded = await offer(client, door.grant())

    assert (big.status_code, reason(big), seen) == (413, "BODY_TOO_LARGE", 0)
    assert (flooded.status_code, reason(flooded)) == (502, "APPLICATION_ANSWER_INVALID")


async def test_a_slow_body_is_408(application: Application) -> None:
    """A client that sends its offer too slowly does not hold a place."""
    door = Door(application, Limits(body_timeout_s=0.1))
    door.targets["s1"] = door.target()
    async with serving(door.app()) as host:
        name, _, port = host.partition(":")
        reader, writer = await asyncio.open_connection(name, int(port))
        writer.write(
            f"POST /stream/s1/whep HTTP/1.1\r\nHost: {host}\r\nContent-Length: 9\r\n"
            f"Authorization: Bearer {door.grant()}\r\n\r\nv=0".encode()
        )
        async with asyncio.timeout(5):
            status = await reader.readline()
        writer.close()

    assert status.split()[1] == b"408"


async def test_requests_at_once_are_bounded(application: Application) -> None:
    """One more than may be is 503 FRONT_DOOR_FULL at once; when one is done there is room again."""
    go = asyncio.Event()

    async def wait(_: web.Request) -> web.StreamResponse:
        await go.wait()
        return web.Response(status=201)

    application.answer = wait
    door = Door(application, Limits(requests=PlaceLimits(1, per_session=2, per_grant=2)))
    door.targets["s1"] = door.target()
    async with serving(door.app()) as host, httpx2.AsyncClient(base_url=f"http://{host}") as client:
        first = asyncio.create_task(offer(client, door.grant()))
        await until(lambda: bool(application.seen))
        second = await offer(client, door.grant())
        go.set()
        third = [await first, await offer(client, door.grant())]

    assert (second.status_code, reason(second)) == (503, "FRONT_DOOR_FULL")
    assert [answer.status_code for answer in third] == [201, 201]


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/stream/s1/whep", "OPTIONS, POST"),
        ("PUT", "/stream/s1/whep", "OPTIONS, POST"),
        ("DELETE", "/stream/s1/whep", "OPTIONS, POST"),
        ("GET", "/stream/s1/whep/r", "OPTIONS, PATCH, DELETE"),
        ("POST", "/stream/s1/whep/r", "OPTIONS, PATCH, DELETE"),
        ("POST", "/stream/s1/sign_in", "OPTIONS, GET, HEAD, DELETE"),
    ],
)
async def test_a_wrong_method_is_405_with_what_is_allowed(
    client: httpx2.AsyncClient, method: str, path: str, allow: str
) -> None:
    """The refusal names what would do."""
    response = await client.request(method, path)

    assert (response.status_code, response.headers["allow"], reason(response)) == (405, allow, "METHOD_NOT_ALLOWED")


async def test_any_page_may_read_answers_and_errors(door: Door, client: httpx2.AsyncClient) -> None:
    """CORS is open, on refusals too, what a player reads is exposed, and a preflight needs no grant."""
    origin = {"Origin": "https://app.example"}
    ok = await client.post("/stream/s1/whep", content="x", headers={**bearer(door.grant()), **origin})
    refused = await client.post("/stream/s1/whep", headers=origin)
    preflight = await client.options(
        "/stream/s1/whep",
        headers={
            **origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type,x-extra",
        },
    )

    for answer in (ok, refused, preflight):
        assert answer.headers["access-control-allow-origin"] == "*"
    for header in ("Location", "Link", "ETag", "Retry-After"):
        assert header in ok.headers["access-control-expose-headers"]
        assert header in refused.headers["access-control-expose-headers"]
    assert preflight.status_code == 204
    assert "x-extra" in preflight.headers["access-control-allow-headers"]
    assert "DELETE" in preflight.headers["access-control-allow-methods"]


async def test_origins_can_be_named(application: Application) -> None:
    """With a list, its origins are echoed and others are not allowed; caches are told."""
    door = Door(application)
    async with (
        serving(door.app(allow_origin=["https://a.example"])) as host,
        httpx2.AsyncClient(base_url=f"http://{host}") as client,
    ):
        good = await client.options("/stream/s1/whep", headers={"Origin": "https://a.example"})
        bad = await client.options("/stream/s1/whep", headers={"Origin": "https://b.example"})

    assert good.headers["access-control-allow-origin"] == "https://a.example"
    assert "access-control-allow-origin" not in bad.headers
    assert "origin" in good.headers["vary"].lower()
