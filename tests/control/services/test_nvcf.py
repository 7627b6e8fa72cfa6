"""Portals for NVCF: `nvcf.function_ids`, `nvcf.functions`, `nvcf.asked`, `nvcf.sign_in` and `nvcf.sockets`.

What a portal sends, and what it does with the answers, was seen with NVIDIA's open portal backend.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Sequence
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import httpx2
import pytest
from footlights.v1 import application_pb2, node_pb2, profile_pb2, session_pb2, viewer_pb2
from google.protobuf.duration_pb2 import Duration
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from footlights.control.services.nvcf.sign_in import Patience
from tests.control.harness import Agent, Control, control, version
from tests.frontdoor.application import Application, running, serving
from tests.system.stack import until

PATIENT = Patience(start_s=20, open_s=20, poll_s=0.02)
HASTY = Patience(start_s=20, open_s=0.1, poll_s=0.02, beat_s=0.1)
GIVEN = "00000000-0000-4000-8000-00000000000a"
GIVEN_VERSION = "00000000-0000-4000-8000-00000000000b"
OLD_FUNCTIONS = f"{GIVEN}=fake,{GIVEN}/{GIVEN_VERSION}=fake@1.0.0:large"
SIGNALING = application_pb2.Signaling(websocket_path="/sign_in", forwarded_headers=["nvcf-reqid", "nucleus-token"])
State = session_pb2.Session.State


@contextlib.asynccontextmanager
async def serving_portals(directory: Path, template: Path, patience: Patience) -> AsyncIterator[Control]:
    """Run a control plane that serves portals, with one application."""
    options: dict[str, Any] = {"nvcf": True, "nvcf_functions": (OLD_FUNCTIONS,), "min_isolation": "none"}
    async with control(directory, template, patience=patience, **options) as plane:
        await plane.apply(version(signaling=SIGNALING))
        placing = asyncio.create_task(plane.plane.placing.run())
        try:
            yield plane
        finally:
            placing.cancel()
            await asyncio.gather(placing, return_exceptions=True)


@pytest.fixture
async def portal(tmp_path: Path, migrated: Path) -> AsyncIterator[Control]:
    """A control plane that waits for everything."""
    async with serving_portals(tmp_path, migrated, PATIENT) as plane:
        yield plane


@pytest.fixture
async def hasty(tmp_path: Path, migrated: Path) -> AsyncIterator[Control]:
    """One that opens sockets before their applications are there."""
    async with serving_portals(tmp_path, migrated, HASTY) as plane:
        yield plane


async def functions(plane: Control, token: str | None = None) -> dict[str, dict[str, Any]]:
    """Return all functions by their names."""
    answer = await plane.rest("GET", "/v2/nvcf/functions", token)
    assert answer.status_code == 200, answer.text
    return {f"{each['name']} {each['id'] == GIVEN}": each for each in answer.json()["functions"]}


async def asks(plane: Control, token: str | None = None, **more: str) -> dict[str, str]:
    """Return the headers that a portal sends for the only application."""
    key = await plane.token(subject="portal") if token is None else token
    found = (await functions(plane, plane.admin))["fake@1.0.0 False"]
    headers = {
        "Function-ID": found["id"],
        "Function-Version-ID": found["versionId"],
        "X-NVCF-ABSORB": "true",
        "X-NVCF-RECONNECT-WINDOW-SECS": "300",
    }
    return (
        ({"Authorization": f"Bearer {key}"} if key else {})
        | headers
        | {name.replace("_", "-"): value for name, value in more.items()}
    )


async def send(plane: Control, method: str, headers: dict[str, str], path: str = "/sign_in") -> httpx2.Response:
    """Send one request at ``/sign_in``."""
    plane.http.cookies.clear()
    raw = [(name.encode("ascii"), value.encode()) for name, value in headers.items()]
    return await plane.http.request(method, path, headers=raw)


def request_id(answer: httpx2.Response) -> str:
    """Return the id of a request as portals find it: in the cookie."""
    cookie = SimpleCookie(answer.headers["set-cookie"])["nvcf-request-id"]
    assert (cookie["path"], cookie["httponly"]) == ("/", True)
    assert answer.headers["nvcf-reqid"] == cookie.value
    return cookie.value


async def started(plane: Control) -> tuple[Agent, str]:
    """Start a session on a node of its own, as a portal does."""
    agent = await plane.agent(facts={"signal_address": "127.0.0.1"})
    answer = await send(plane, "POST", await asks(plane))
    assert answer.status_code == 200, answer.text
    return agent, request_id(answer)


async def everything(plane: Control) -> list[str]:
    """Return the states of all sessions."""
    found = await plane.call("StreamingService.ListSessions", session_pb2.ListSessionsRequest(include_ended=True))
    return [State.Name(each.state) for each in found.items]


async def ended(plane: Control) -> bool:
    """Return whether the only session is ending, or has ended."""
    return await everything(plane) in (["TERMINATING"], ["TERMINATED"])


async def closing(socket: ClientConnection) -> tuple[int | None, str]:
    """Read a socket until it is closed, and return with what."""
    with contextlib.suppress(ConnectionClosed):
        async for _ in socket:
            pass
    return socket.close_code, socket.close_reason or ""


@contextlib.asynccontextmanager
async def site(plane: Control) -> AsyncIterator[tuple[str, Application]]:
    """Serve a control plane with a socket, and an application beside it; gives the host of the one and the other."""
    async with running(Application()) as application, serving(plane.plane.app) as host:
        yield host, application


def dial(host: str, headers: dict[str, str], *protocols: str) -> connect:
    """Dial as a portal does."""
    url = f"ws://{host}/sign_in?peer_id=peer-0123456789&version=2"
    offered: Sequence[Subprotocol] | None = [Subprotocol(each) for each in protocols] or None
    return connect(url, additional_headers=headers, subprotocols=offered, proxy=None, open_timeout=10)


async def test_every_version_and_release_is_a_function(portal: Control) -> None:
    """Its ids are UUIDs that follow from names, so that a portal's register outlives the control plane."""
    found = await functions(portal)

    assert {"fake@1.0.0 False", "fake@default False", "fake@1.0.0 True", "fake@default True"} <= set(found)
    own = found["fake@default False"]
    assert own | {"status": ""} == {
        "id": "fd3abdad-a579-57b5-8dfc-d4f8faf2d08d",
        "versionId": own["versionId"],
        "name": "fake@default",
        "status": "",
        "functionType": "STREAMING",
        "description": "",
        "tags": [],
    }
    assert len({(each["id"], each["versionId"]) for each in found.values()}) == len(found)
    assert all(str(uuid.UUID(each["versionId"])) == each["versionId"] for each in found.values())


async def test_a_functions_status_is_what_its_nodes_are(portal: Control) -> None:
    """INACTIVE without a node that can; ACTIVE with one, busy or not; DEGRADED while none of them takes sessions."""
    without = (await functions(portal))["fake@default False"]["status"]
    await portal.agent()
    ready = (await functions(portal))["fake@default False"]["status"]
    await portal.call("NodeService.CordonNode", node_pb2.CordonNodeRequest(node="node-a"))
    cordoned = (await functions(portal))["fake@default False"]["status"]

    assert (without, ready, cordoned) == ("INACTIVE", "ACTIVE", "DEGRADED")


async def test_a_deployment_says_where_a_function_can_run(portal: Control) -> None:
    """By the names of devices, with the room that they have; one that is not there is not found."""
    await portal.agent()
    own = (await functions(portal))["fake@default False"]
    path = "/v2/nvcf/deployments/functions/{}/versions/{}"
    answer = await portal.rest("GET", path.format(own["id"], own["versionId"]), await portal.token())
    other = await portal.rest("GET", path.format(own["id"], GIVEN))

    assert answer.json()["deployment"] | {"functionVersionId": ""} == {
        "functionId": own["id"],
        "functionVersionId": "",
        "functionName": "fake@default",
        "functionStatus": "ACTIVE",
        "deploymentSpecifications": [
            {
                "gpu": "NVIDIA L40S",
                "instanceType": "NVIDIA L40S",
                "clusters": [],
                "minInstances": 0,
                "maxInstances": 1,
                "maxRequestConcurrency": 1,
            }
        ],
    }
    assert (other.status_code, "no version" in other.json()["message"]) == (404, True)


async def test_a_deployment_says_what_pools_keep_running(portal: Control) -> None:
    """Of the same version, whether that is said by its release or its number, and the same profile."""
    await portal.agent()
    own = (await functions(portal))["fake@1.0.0 False"]
    await portal.call(
        "ProfileService.SetProfile",
        profile_pb2.SetProfileRequest(
            profile=profile_pb2.Profile(profile="large", matches=[profile_pb2.Profile.Match(application="*")])
        ),
    )
    pools: dict[str, dict[str, Any]] = {
        "mine": {"size": 2},
        "least": {"application_version": "1.0.0", "wait_goal": "1s", "min_size": 1},
        "other": {"size": 9, "profile": "large"},
    }
    for name, more in pools.items():
        answer = await portal.rest("PUT", f"/v1/pools/{name}", json={"application": "fake", **more})
        assert answer.status_code == 200, answer.text
    answer = await portal.rest("GET", f"/v2/nvcf/deployments/functions/{own['id']}/versions/{own['versionId']}")

    [specification] = answer.json()["deployment"]["deploymentSpecifications"]
    assert specification["minInstances"] == 3


async def test_what_portals_cannot_start_is_inactive(portal: Control) -> None:
    """They give no arguments."""
    needed = application_pb2.Argument(name="scene", type=application_pb2.Argument.STRING, required=True)
    await portal.apply(version("2.0.0", arguments=[needed]))
    await portal.agent()
    found = await functions(portal)

    assert (found["fake@1.0.0 False"]["status"], found["fake@2.0.0 False"]["status"]) == ("ACTIVE", "INACTIVE")


async def test_one_function_is_asked_for(portal: Control) -> None:
    """As those do who look after a portal: all versions of a function, or one of them."""
    await portal.apply(version(), application="other")
    found = await functions(portal)
    own = found["fake@default False"]
    path = f"/v2/nvcf/functions/{own['id']}/versions"
    versions = (await portal.rest("GET", path)).json()["functions"]
    one = (await portal.rest("GET", f"{path}/{own['versionId']}")).json()
    missing = [await portal.rest("GET", each) for each in (f"{path}/{GIVEN}", path.replace(own["id"], GIVEN_VERSION))]

    assert [each["name"] for each in versions] == ["fake@default", "fake@1.0.0"]
    assert one == {"function": own}
    assert [answer.status_code for answer in missing] == [404, 404]


async def test_an_operator_keeps_the_ids_that_a_portal_knows(portal: Control) -> None:
    """Of a function, with the versions' own ids, and of one version with its profile, which its sessions have."""
    await portal.call(
        "ProfileService.SetProfile",
        profile_pb2.SetProfileRequest(
            profile=profile_pb2.Profile(profile="large", matches=[profile_pb2.Profile.Match(application="*")])
        ),
    )
    await portal.agent()
    found = await functions(portal)
    exact = await asks(portal, Function_ID=GIVEN.upper(), Function_Version_ID=GIVEN_VERSION)
    session = await portal.get(request_id(await send(portal, "POST", exact)))

    assert found["fake@1.0.0:large True"]["versionId"] == GIVEN_VERSION
    assert found["fake@1.0.0 True"]["versionId"] == found["fake@1.0.0 False"]["versionId"]
    assert (session.application, session.application_version, session.profile) == ("fake", "1.0.0", "large")


async def test_a_portal_starts_a_session_of_its_own(portal: Control) -> None:
    """It is answered once the session has a device, with its id; the user whose token it shows owns it."""
    _, started_id = await started(portal)
    session = await portal.get(started_id)

    assert (session.application_version, session.username) == ("1.0.0", "portal")
    assert session.state == State.STARTING
    assert session.limits.reconnect_timeout.seconds == session.limits.never_connected_timeout.seconds == 300


@pytest.mark.parametrize(("given", "window_s"), [("", 300), ("60", 60), ("1801", 1800), ("0", 1), ("999999999", 1800)])
async def test_a_session_waits_for_its_viewer_as_long_as_is_asked_for(
    portal: Control, given: str, window_s: int
) -> None:
    """At most half an hour; where it is not said as long as NVCF waits."""
    await portal.agent()
    answer = await send(portal, "POST", await asks(portal, X_NVCF_RECONNECT_WINDOW_SECS=given))

    assert (await portal.get(request_id(answer))).limits.reconnect_timeout.seconds == window_s


async def test_what_a_version_allows_is_not_exceeded(portal: Control) -> None:
    """A portal does not know it, so it is not refused."""
    limits = application_pb2.Limits(reconnect_timeout=Duration(seconds=30))
    await portal.apply(version("2.0.0", limits=limits))
    await portal.agent()
    answer = await send(portal, "POST", await asks(portal, Function_Version_ID=""))
    session = await portal.get(request_id(answer))

    assert (session.application_version, session.limits.reconnect_timeout.seconds) == ("2.0.0", 30)
    assert session.limits.never_connected_timeout.seconds == 300


@pytest.mark.parametrize(
    ("changes", "status", "says"),
    [
        ({"Authorization": ""}, 401, "No token was given"),
        ({"Authorization": "Bearer nvapi-x"}, 401, "not one of this control plane's"),
        ({"Function-ID": ""}, 422, "Function-ID: is required"),
        ({"Function-ID": GIVEN_VERSION}, 404, "no function"),
        ({"Function-ID": "f" * 4000}, 404, "no function"),
        ({"Function-ID": "\u00fc\u00f1"}, 404, "no function"),
        ({"Function-Version-ID": GIVEN}, 404, "no version"),
        ({"X-NVCF-RECONNECT-WINDOW-SECS": "soon"}, 422, "whole seconds"),
        ({"X-NVCF-RECONNECT-WINDOW-SECS": "-1"}, 422, "whole seconds"),
        ({"X-NVCF-RECONNECT-WINDOW-SECS": "9" * 400}, 422, "whole seconds"),
    ],
)
async def test_a_start_is_refused_in_words(portal: Control, changes: dict[str, str], status: int, says: str) -> None:
    """As text, which portals show to their users; never with 400. Nothing is started."""
    await portal.agent()
    headers = {name: value for name, value in (await asks(portal) | changes).items() if value}
    answer = await send(portal, "POST", headers)

    assert (answer.status_code, says in answer.text) == (status, True), answer.text
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert await everything(portal) == []


async def test_a_role_that_may_not_create_sessions_starts_none(portal: Control) -> None:
    """A token counts for as much as by our own API."""
    answer = await send(portal, "POST", await asks(portal, token=await portal.token("NODE", "node-b")))

    assert (answer.status_code, "sessions.create" in answer.text) == (403, True)
    assert await everything(portal) == []


async def test_where_no_device_is_free_nothing_is_left_waiting(tmp_path: Path, migrated: Path) -> None:
    """A portal would have forgotten it after five seconds: it is told before, and starts another one later."""
    async with serving_portals(tmp_path, migrated, Patience(start_s=0.1)) as portal:
        answer = await send(portal, "POST", await asks(portal))

        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert answer.text.startswith("No device is free for fake@1.0.0: nothing was started. Try again.")
        assert await everything(portal) == ["TERMINATED"]


async def test_a_session_whose_client_has_left_ends(portal: Control) -> None:
    """Nobody else has its id: long before it would be refused for want of a device."""
    headers = await asks(portal)
    async with site(portal) as (host, _), httpx2.AsyncClient(timeout=0.5) as client:
        with pytest.raises(httpx2.ReadTimeout):
            await client.post(f"http://{host}/sign_in", headers=headers)
        await until(lambda: ended(portal), timeout_s=PATIENT.start_s / 2)


async def test_a_session_is_looked_at_and_ended_by_its_id(portal: Control) -> None:
    """In a header or a cookie. What is gone, another's, or another function's is not found, and the cookie goes."""
    await portal.apply(version(), application="other")
    _, started_id = await started(portal)
    mine = await asks(portal)
    others = await asks(portal, token=await portal.token(subject="eve"))
    elsewhere = (await functions(portal))["other@default False"]["id"]
    by_cookie, by_header = {"Cookie": f"a=b; nvcf-request-id={started_id}"}, {"nvcf-reqid": started_id}
    looks = [
        await send(portal, "HEAD", mine | by_cookie),
        await send(portal, "HEAD", mine | by_header),
        # The header comes first.
        await send(portal, "HEAD", mine | by_cookie | {"nvcf-reqid": GIVEN}),
        await send(portal, "HEAD", others | by_cookie),
        await send(portal, "HEAD", mine | by_cookie | {"Function-ID": elsewhere}),
        await send(portal, "HEAD", mine),
        await send(portal, "HEAD", mine | {"nvcf-reqid": "x" * 5000}),
    ]
    stranger = await send(portal, "DELETE", others | by_cookie)
    before = (await portal.get(started_id)).state
    ends = [await send(portal, "DELETE", mine | by_cookie) for _ in range(2)]
    over_tls = await send(portal, "HEAD", mine | by_header, "https://test/sign_in")

    assert [answer.status_code for answer in looks] == [200, 200, 404, 404, 404, 404, 404]
    assert request_id(looks[0]) == started_id
    assert "Max-Age=0" in looks[3].headers["set-cookie"]
    assert (stranger.status_code, before) == (404, State.STARTING)
    assert [answer.status_code for answer in ends] == [200, 404]
    assert ends[0].content == b""
    # A browser forgets the cookie of a page of another origin only by one that is as strict.
    assert "; Max-Age=0; Secure; SameSite=None" in over_tls.headers["set-cookie"]
    assert (await portal.get(started_id)).state == State.TERMINATING


async def test_a_portals_socket_is_joined_to_the_application(portal: Control) -> None:
    """With the query and what the version takes; the token, the cookie and the ids of functions stay here."""
    agent, started_id = await started(portal)
    headers = await asks(portal, Cookie=f"nvcf-request-id={started_id}", Nucleus_Token="n1")
    async with site(portal) as (host, application):
        await agent.ready(started_id, signal_port=application.port)
        async with dial(host, headers) as socket:
            assert socket.subprotocol is None
            await socket.send("hello")
            assert await socket.recv() == "hello"
        seen = application.seen[-1]

    assert seen.query == "peer_id=peer-0123456789&version=2"
    names = {name.lower(): value for name, value in seen.headers.items()}
    assert (names["nvcf-reqid"], names["nucleus-token"]) == (started_id, "n1")
    assert not names.keys() & {"authorization", "cookie", "function-id", "function-version-id", "x-nvcf-absorb"}


async def test_who_comes_back_is_the_same_viewer(portal: Control) -> None:
    """So it takes the place of its own lost socket, and, once it was disconnected by a call, it is out."""
    agent, started_id = await started(portal)
    headers = await asks(portal, Cookie=f"nvcf-request-id={started_id}")
    asked = viewer_pb2.ListViewersRequest(session_id=started_id)
    async with site(portal) as (host, application):
        await agent.ready(started_id, signal_port=application.port)
        async with dial(host, headers) as lost, dial(host, headers) as socket:
            assert await closing(lost) != (None, "")
            await socket.send("hello")
            assert await socket.recv() == "hello"
            [viewer] = (await portal.call("ViewerService.ListViewers", asked)).items
            await portal.call(
                "ViewerService.DisconnectViewer",
                viewer_pb2.DisconnectViewerRequest(session_id=started_id, viewer_id=viewer.viewer_id),
            )
        with pytest.raises(InvalidStatus) as refused:
            await _opened(dial(host, headers))

    assert refused.value.response.status_code == 403
    assert b"disconnected" in (refused.value.response.body or b"")


async def test_who_found_the_application_taken_is_let_in_later(portal: Control) -> None:
    """However much later: the grant that was of no use then has expired, and another one takes its place."""
    signaling = application_pb2.Signaling(max_viewers=1)
    signaling.MergeFrom(SIGNALING)
    await portal.apply(version("2.0.0", signaling=signaling))
    agent = await portal.agent(facts={"signal_address": "127.0.0.1"})
    own = (await functions(portal, portal.admin))["fake@2.0.0 False"]
    exact = {"Function_ID": own["id"], "Function_Version_ID": own["versionId"]}
    started_id = request_id(await send(portal, "POST", await asks(portal, **exact)))
    headers = await asks(portal, **exact, Cookie=f"nvcf-request-id={started_id}")
    async with site(portal) as (host, application):
        assignment = await agent.ready(started_id, signal_port=application.port, viewers=1)
        async with dial(host, headers) as refused:
            told = await closing(refused)
        await agent.report(assignment, "READY", signal_port=application.port, viewers=0)
        portal.clock.pass_s(301)
        async with dial(host, headers) as socket:
            await socket.send("hello")
            said = await socket.recv()

    assert told[0] == 3005
    assert said == "hello"


async def test_a_browser_says_all_in_subprotocols(portal: Control) -> None:
    """They stay here as well, and one of them that is no token is answered, without which a browser fails."""
    agent, started_id = await started(portal)
    asked = await asks(portal)
    token = asked["Authorization"].removeprefix("Bearer ")
    said = [f"authorization.{token}", f"function-id.{asked['Function-ID']}", f"NVCF-ReqID.{started_id}"]
    async with site(portal) as (host, application):
        await agent.ready(started_id, signal_port=application.port)
        async with dial(host, {}, *said) as socket:
            chosen = socket.subprotocol
        async with dial(host, {}, *said, *(f"x{number}.y" for number in range(100)), "app.v1") as socket:
            of_the_application = socket.subprotocol

    assert chosen == said[1]
    assert of_the_application == "app.v1"
    assert token not in str(application.seen)
    assert "function-id" not in str(application.seen).lower()


async def test_a_socket_may_start_a_session(portal: Control) -> None:
    """As portals do that share a connection: it is told the id, and comes back with it."""
    agent = await portal.agent(facts={"signal_address": "127.0.0.1"})
    headers = await asks(portal)
    async with site(portal) as (host, application):
        dialling = asyncio.create_task(_opened(dial(host, headers)))
        await until(lambda: everything(portal))
        found = await everything(portal)
        [session] = (await portal.call("StreamingService.ListSessions", session_pb2.ListSessionsRequest())).items
        await agent.ready(session.session_id, signal_port=application.port)
        socket = await dialling
        assert socket.response is not None
        told = socket.response.headers
        await socket.close()

    assert found == ["STARTING"]
    assert told["nvcf-reqid"] == session.session_id
    assert SimpleCookie(told["set-cookie"])["nvcf-request-id"].value == session.session_id


async def test_a_socket_waits_for_its_application(hasty: Control) -> None:
    """It is opened before the portal gives up, with signs of life; what its client says early is not lost."""
    agent, started_id = await started(hasty)
    headers = await asks(hasty, Cookie=f"nvcf-request-id={started_id}")
    async with site(hasty) as (host, application), dial(host, headers, "x-nv-sessionid.1") as socket:
        assert socket.subprotocol == "x-nv-sessionid.1"
        assert [await socket.recv(), await socket.recv()] == ['{"hb":1}'] * 2
        assert application.seen == []
        for text in ('{"hb": 1}', "early"):
            await socket.send(text)
        await agent.ready(started_id, signal_port=application.port)
        while (said := await socket.recv()) == '{"hb":1}':
            pass
        await socket.send("late")
        assert (said, await socket.recv()) == ("early", "late")


@pytest.mark.parametrize("opened", [False, True])
async def test_a_client_learns_why_its_application_never_came(hasty: Control, opened: bool) -> None:
    """As a refusal, or, where its socket is open, as a close; either has room for 123 bytes."""
    portal = hasty
    agent, started_id = await started(portal)
    headers = await asks(portal, Cookie=f"nvcf-request-id={started_id}")
    assignment = await agent.assignment(started_id)
    why = "it had no license " + "\u00e9" * 300
    async with site(portal) as (host, _):
        if opened:
            async with dial(host, headers) as socket:
                await agent.report(assignment, "FAILED", reason="LAUNCH_FAILED", message=why)
                code, reason = await closing(socket)
        else:
            await agent.report(assignment, "FAILED", reason="LAUNCH_FAILED", message=why)
            with pytest.raises(InvalidStatus) as refused:
                await _opened(dial(host, headers))
            code, reason = refused.value.response.status_code, (refused.value.response.body or b"").decode()

    assert code == (3001 if opened else 404)
    assert len(reason.encode()) <= 123
    assert ("no license" in reason) == opened


async def test_a_socket_is_refused_in_words(portal: Control) -> None:
    """By a status, and a text that is short enough for the reason of a close, as portals pass it on."""
    _, started_id = await started(portal)
    mine = await asks(portal, Cookie=f"nvcf-request-id={started_id}")
    asked = [
        mine | {"Authorization": "Bearer nvapi-x"},
        mine | {"Authorization": f"Bearer {await portal.token(subject='eve')}"},
        mine | {"Cookie": "nvcf-request-id=none"},
        mine | {"Cookie": "", "Function-Version-ID": GIVEN},
        {name: value for name, value in mine.items() if name != "Authorization"},
    ]
    async with site(portal) as (host, _):
        statuses = []
        for headers in asked:
            with pytest.raises(InvalidStatus) as refused:
                await _opened(dial(host, headers))
            answer = refused.value.response
            statuses.append(answer.status_code)
            assert 0 < len(answer.body or b"") <= 123
        several = [("Authorization", "Bearer a"), *mine.items()]
        with pytest.raises(InvalidStatus) as refused:
            await _opened(connect(f"ws://{host}/sign_in", additional_headers=several, proxy=None))

    assert statuses == [401, 404, 404, 404, 401]
    assert refused.value.response.status_code == 401


async def test_who_leaves_before_the_application_is_there_leaves_nothing(portal: Control) -> None:
    """Of a session that its socket has started, and whose id was never told."""
    await portal.agent(facts={"signal_address": "127.0.0.1"})
    headers = await asks(portal)
    async with site(portal) as (host, _):
        reader, writer = await asyncio.open_connection(*host.split(":"))
        lines = ["GET /sign_in HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade"]
        lines += ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        await until(lambda: everything(portal))
        writer.close()
        await until(lambda: ended(portal))
        assert await reader.read() == b""


async def test_a_client_that_floods_its_waiting_socket_is_closed(hasty: Control) -> None:
    """What is kept for an application that is not there yet is little."""
    _, started_id = await started(hasty)
    headers = await asks(hasty, Cookie=f"nvcf-request-id={started_id}")
    async with site(hasty) as (host, _), dial(host, headers) as socket:
        await socket.send("x" * 70_000)
        code, reason = await closing(socket)

    assert (code, reason) == (1009, "more than 65536 bytes before the application is ready")


async def test_other_players_dial_the_same_path(portal: Control) -> None:
    """They name no function: the front door has them, as without a portal."""
    async with site(portal) as (host, _):
        for protocols in ((), ("x-nv-sessionid.1", "nvcf-reqid.2")):
            with pytest.raises(InvalidStatus) as refused:
                await _opened(dial(host, {}, *protocols))
            assert b"GRANT_MISSING" in (refused.value.response.body or b"")


async def test_it_is_off_by_default(tmp_path: Path, migrated: Path) -> None:
    """As every dialect of somebody else's."""
    async with control(tmp_path, migrated) as plane:
        listed = await plane.rest("GET", "/v2/nvcf/functions")
        start = await plane.rest("POST", "/sign_in", headers={"Function-ID": GIVEN})

    assert (listed.status_code, start.status_code) == (404, 405)


async def _opened(dialling: connect) -> ClientConnection:
    return await dialling
