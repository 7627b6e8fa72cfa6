"""Kit App Streaming as its clients use it: `kas.streams`, `kas.apps`, `kas.wording` and `kas.paths`.

With `gateway`'s errors that are a detail and nothing else.
The vectors 1 to 9 of the dialect; those of signalling are the front door's.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from footlights.v1 import application_pb2, profile_pb2
from google.protobuf.duration_pb2 import Duration

from footlights.control.settings import ServerSettings
from footlights.errors import InvalidArgument
from tests.control.harness import Control, control, version

VIEWER = "kas-viewer"
ELSEWHERE = {"origin": "https://viewer.example.org"}
CREATE = {"id": "fake", "version": "1.0.0", "profile": "default"}


@pytest.fixture
async def kas(tmp_path: Path, migrated: Path) -> AsyncIterator[Control]:
    """A control plane that serves Kit App Streaming to who shows nothing."""
    async with control(
        tmp_path, migrated, kas=True, kas_user=VIEWER, kas_prefix="/ovas", direct_routes=True, min_isolation="none"
    ) as running:
        await running.apply()
        yield running


async def anonymous(plane: Control, method: str, path: str, **options: Any) -> httpx2.Response:
    """Send a request as the web viewer does: from another origin, without credentials."""
    headers = ELSEWHERE | options.pop("headers", {})
    return await plane.rest(method, path, "", headers=headers, **options)


def detail(answer: httpx2.Response) -> str:
    """Return what an error says; it has nothing else."""
    found = answer.json()
    assert set(found) == {"detail"}
    text: str = found["detail"]
    return text


async def test_a_stream_is_created_without_credentials_from_another_origin(kas: Control) -> None:
    """Vectors 1 and 2: 202 with an id and no routes, whether the version is named, `latest` or absent."""
    asked: list[dict[str, Any]] = [
        CREATE,
        {"id": "fake", "profile": "default", "arguments": {"usd_stage_uri": ""}},
        CREATE | {"version": "latest"},
    ]
    for body in asked:
        answer = await anonymous(kas, "POST", "/streaming/stream", json=body)
        found = answer.json()
        assert answer.status_code == 202, answer.text
        assert answer.headers["access-control-allow-origin"] in ("*", ELSEWHERE["origin"])
        assert found["routes"] == {}
        assert found["status"] == {"condition": "pending", "message": found["status"]["message"], "status": False}
    session = (await kas.rest("GET", f"/v1/sessions/{found['id']}")).json()
    assert (session["username"], session["application_version"]) == (VIEWER, "1.0.0")


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b'{"id": "fake"}', 422, "profile: is required"),
        (b'{"profile": "default"}', 422, "id: is required"),
        (b'{"id": "none", "profile": "default"}', 404, "id: there is no application 'none'"),
        (b'{"id": "fake", "profile": "default", "version": "9"}', 404, "version: fake has no version or release '9'"),
        (b'{"id": "fake", "profile": "none"}', 404, "profile: there is no profile 'none'"),
        (b'{"id": "fake", "profile": "default", "arguments": {"x": 1}}', 422, "arguments.x: "),
        (b'{"id": "fake", "profile": "default", "arguments": {"usd_stage_uri": 5}}', 422, "arguments.usd_stage_uri: 5"),
        (b'{"id": "fake", "profile": "default", "arguments": []}', 422, "arguments must be an object"),
        (b'{"id": "fake", "profile": "default", "id": "kit"}', 422, "given twice"),
        (b'{"id": "\xc3\xa4", "profile": "default"}', 404, "id: there is no application"),
        (b'{"id": "\xff", "profile": "default"}', 422, "not UTF-8"),
        (b'{"id": "a\\u0000", "profile": "default"}', 422, "id: "),
        (b'{"id": "\\ud800", "profile": "default"}', 422, "surrogate"),
        (b'{"id": "' + b"x" * 100_000 + b'", "profile": "default"}', 422, "id: has 100000 characters"),
        (b"[" * 100_000, 422, "levels"),
        (b"null", 422, "must be an object"),
        (b"", 422, "id: is required"),
        (b"{", 422, ""),
        (b"[]", 422, ""),
        (b'{"id": 7}', 422, ""),
    ],
)
async def test_no_error_is_a_400(kas: Control, body: bytes, status: int, says: str) -> None:
    """Vector 3: clients take a 400 for a success. Each is JSON, since they parse it in any case."""
    answer = await anonymous(
        kas, "POST", "/streaming/stream", content=body, headers={"content-type": "application/json"}
    )
    assert (answer.status_code, says in detail(answer)) == (status, True), answer.text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/streaming/stream?limit=1&limit=2", 422),
        ("GET", "/streaming/stream?limit=x", 422),
        ("GET", "/streaming/stream?offset=-1", 422),
        ("GET", "/streaming/stream?limit=%ff", 422),
        ("GET", "/streaming/stream/%00", 422),
        ("GET", f"/streaming/stream/{'x' * 5000}", 422),
        ("GET", "/streaming/stream/%F0%9F%98%80", 404),
        ("GET", "/streaming/stream/a%2Fb", 404),
        ("DELETE", "/streaming/stream/..%5c", 404),
        ("DELETE", "/streaming/stream", 422),
        ("PUT", "/streaming/stream", 405),
        ("GET", "/cfg/apps/%F0%9F%98%80/versions", 404),
        ("GET", f"/cfg/apps/{'x' * 100}", 422),
        ("GET", "/applications/cfg/apps/", 404),
    ],
)
async def test_odd_requests_have_a_detail(kas: Control, method: str, path: str, status: int) -> None:
    """Whatever is asked, the answer is JSON that clients read, never a 400 and no failure of ours."""
    answer = await anonymous(kas, method, path)
    assert (answer.status_code, bool(detail(answer))) == (status, True), answer.text


async def test_a_stream_is_ready_once_it_has_one_host_with_both_ways(kas: Control) -> None:
    """Vector 4: 202 while it starts; then 200, with the only key that clients look at."""
    agent = await kas.agent()
    made = (await anonymous(kas, "POST", "/streaming/stream", json=CREATE)).json()
    starting = await anonymous(kas, "GET", f"/streaming/stream/{made['id']}")
    await kas.place()
    await agent.ready(made["id"])

    # The viewer sends this type with a GET, too (vector 8).
    ready = await anonymous(kas, "GET", f"/streaming/stream/{made['id']}", headers={"content-type": "application/json"})

    assert (starting.status_code, ready.status_code) == (202, 200)
    found = ready.json()
    [(_, ways)] = found["routes"].items()
    assert [(way["description"], way["protocol"]) for way in ways["routes"]] == [("signaling", "TCP"), ("media", "UDP")]
    assert all(way["source_port"] and way["destination_port"] for way in ways["routes"])
    assert (found["status"]["condition"], found["status"]["status"]) == ("ready", True)
    listed = (await anonymous(kas, "GET", "/streaming/stream", headers={"content-type": "application/json"})).json()
    assert listed == {"items": [found], "count": 1, "limit": 50, "offset": 0}


async def test_two_hosts_are_said_not_shown(tmp_path: Path, migrated: Path) -> None:
    """A client would take the first for everything, and see nothing."""
    async with control(tmp_path, migrated, kas=True, kas_user=VIEWER, min_isolation="none") as plane:
        await plane.apply()
        agent = await plane.agent()
        made = (await anonymous(plane, "POST", "/streaming/stream", json=CREATE)).json()
        await plane.place()
        await agent.ready(made["id"])

        answer = await anonymous(plane, "GET", f"/streaming/stream/{made['id']}")

    assert (answer.status_code, answer.json()["routes"]) == (202, {})
    assert answer.json()["status"]["condition"] == "unreachable"
    assert "192.0.2.7" in (why := answer.json()["status"]["message"])
    assert "Install this one" in why


async def test_what_is_not_there_or_has_ended_is_not_found(kas: Control) -> None:
    """Vectors 5 and 6: an end has no body at all, by body and by path; afterwards the stream is gone, and says why."""
    unknown = await anonymous(kas, "GET", "/streaming/stream/01890000-0000-7000-8000-000000000000")
    made = [(await anonymous(kas, "POST", "/streaming/stream", json=CREATE)).json()["id"] for _ in range(2)]
    ends = [
        await anonymous(kas, "DELETE", "/streaming/stream", json={"id": made[0]}),
        await anonymous(kas, "DELETE", f"/streaming/stream/{made[1]}"),
        await anonymous(kas, "DELETE", f"/streaming/stream/{made[1]}"),
    ]
    gone = await anonymous(kas, "GET", f"/streaming/stream/{made[0]}")

    assert unknown.status_code == gone.status_code == 404
    assert detail(unknown).startswith("id: there is no session")
    assert "GET /streaming/stream" in detail(unknown)
    assert "USER_TERMINATED" in detail(gone)
    assert [(answer.status_code, answer.content) for answer in ends] == [(204, b"")] * 3
    assert (await anonymous(kas, "GET", "/streaming/stream")).json()["items"] == []


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/streaming/stream", "POST"),
        ("/streaming/stream", "DELETE"),
        ("/streaming/stream", "GET"),
        ("/streaming/stream/x", "GET"),
        ("/streaming/stream/x", "DELETE"),
        ("/ovas/streaming/stream", "POST"),
        ("/cfg/apps", "GET"),
        ("/cfg/apps/fake", "GET"),
        ("/applications/cfg/apps/fake/versions", "GET"),
        ("/cfg/apps/fake/versions/1.0.0/profiles", "GET"),
        ("/sign_in", "HEAD"),
        ("/stream/01890000-0000-7000-8000-000000000000/sign_in", "DELETE"),
    ],
)
async def test_a_preflight_needs_no_credentials(kas: Control, path: str, method: str) -> None:
    """Vector 7: browsers send none."""
    answer = await anonymous(
        kas,
        "OPTIONS",
        path,
        headers={
            "access-control-request-method": method,
            "access-control-request-headers": "content-type, authorization",
        },
    )

    assert answer.status_code in (200, 204)
    allowed = answer.headers["access-control-allow-headers"].lower()
    assert "content-type" in allowed
    assert "authorization" in allowed


@pytest.mark.parametrize("root", ["", "/applications", "/ovas", "/ovas/"])
async def test_applications_versions_and_profiles_are_shown(kas: Control, root: str) -> None:
    """Vector 9: an application without a profile has one. Below each root that operators give, also with a slash."""
    image = application_pb2.Container(image="registry.example.com:5000/team/kit:1.2")
    await kas.apply(version("2.0.0"), version("10.0.0", container=image, fake=None), application="kit")
    apps = (await anonymous(kas, "GET", f"{root}/cfg/apps")).json()
    versions = (await anonymous(kas, "GET", f"{root}/cfg/apps/kit/versions")).json()
    profiles = (await anonymous(kas, "GET", f"{root}/cfg/apps/kit/versions/2.0.0/profiles")).json()

    assert [app["id"] for app in apps["items"]] == ["fake", "kit"]
    assert apps["items"][1]["name"] == "kit"
    assert versions["items"] == [
        {"version": "10.0.0", "container": "registry.example.com:5000/team/kit", "container_version": "1.2"},
        {"version": "2.0.0", "container": "", "container_version": ""},
    ]
    assert [profile["id"] for profile in profiles["items"]] == ["default"]
    assert (await anonymous(kas, "GET", f"{root}/cfg/apps/kit")).json()["id"] == "kit"
    assert (await anonymous(kas, "GET", f"{root}/cfg/apps/none/versions")).status_code == 404


async def test_profiles_are_those_of_the_version(kas: Control) -> None:
    """As they match by wildcards; `default` is implied beside them, and the one of that name is itself."""
    match = profile_pb2.Profile.Match(application="fake", versions=["1.*"])
    for name, matches in (("large", [match]), ("other", [profile_pb2.Profile.Match(application="kit")])):
        profile = profile_pb2.Profile(profile=name, matches=matches)
        await kas.call("ProfileService.SetProfile", profile_pb2.SetProfileRequest(profile=profile))

    async def names(path: str) -> list[str]:
        return [each["id"] for each in (await anonymous(kas, "GET", f"/cfg/apps/{path}/profiles")).json()["items"]]

    assert await names("fake/versions/1.0.0") == ["default", "large"]
    assert await names("fake/versions/latest") == await names("fake/versions/default") == ["default", "large"]
    assert await names("*/versions/*") == ["default", "large", "other"]
    assert (await anonymous(kas, "GET", "/cfg/apps/fake/versions/none/profiles")).status_code == 404
    named = await anonymous(kas, "POST", "/streaming/stream", json=CREATE | {"profile": "large"})
    assert named.status_code == 202


async def test_a_stream_that_nobody_connects_to_ends(kas: Control) -> None:
    """A viewer that is closed while its stream starts ends none; who registered the version may say otherwise."""
    limits = application_pb2.Limits(never_connected_timeout=Duration(seconds=7))
    never = application_pb2.Limits(unlimited=["never_connected_timeout"])
    await kas.apply(
        version("1.0.0"), version("2.0.0", limits=limits), version("3.0.0", limits=never), application="kit"
    )
    found = []
    for name in ("1.0.0", "2.0.0", "3.0.0"):
        body = {"id": "kit", "version": name, "profile": "default"}
        made = (await anonymous(kas, "POST", "/streaming/stream", json=body)).json()
        session = (await kas.rest("GET", f"/v1/sessions/{made['id']}")).json()
        found.append(session["limits"].get("never_connected_timeout"))

    assert found == ["600s", "7s", None]


async def test_a_token_counts_where_one_is_sent(kas: Control) -> None:
    """Its holder has sessions of its own; one that is no token of ours is refused, and never taken for none."""
    ann = await kas.token()
    made = (await kas.rest("POST", "/streaming/stream", ann, json=CREATE)).json()

    hidden = await anonymous(kas, "GET", f"/streaming/stream/{made['id']}")
    wrong = await kas.rest("GET", "/streaming/stream", "invalid-token")

    assert hidden.status_code == 404
    assert wrong.status_code == 401
    assert detail(wrong)


async def test_pages_of_other_origins_need_a_token_where_origins_are_named(tmp_path: Path, migrated: Path) -> None:
    """A browser sends what they ask for, and keeps the answer from them alone; a token, or no page, is as before."""
    body = json.dumps(CREATE).encode()
    asked = [
        {"origin": "https://evil.example", "content-type": "text/plain"},
        {"origin": "null"},
        {"origin": "https://portal.example"},
        {"origin": "http://test", "host": "test"},
        {},
    ]
    options: dict[str, Any] = {"kas": True, "kas_user": VIEWER, "min_isolation": "none"}
    async with control(tmp_path, migrated, cors_origins=("https://portal.example",), **options) as plane:
        await plane.apply(version())
        statuses = [
            (await plane.http.request("POST", "/streaming/stream", headers=each, content=body)).status_code
            for each in asked
        ]
        known = {"origin": "https://evil.example", "authorization": f"Bearer {plane.admin}"}
        statuses.append((await plane.http.request("GET", "/streaming/stream", headers=known)).status_code)
        refused = await plane.http.request("GET", "/streaming/stream", headers=asked[0])

    assert statuses == [403, 403, 202, 202, 202, 200]
    assert "--cors-origins" in detail(refused)


async def test_without_a_user_for_them_clients_need_a_token(tmp_path: Path, migrated: Path) -> None:
    """And our own API is open to nobody by it."""
    async with control(tmp_path, migrated, kas=True) as plane:
        refused = await anonymous(plane, "GET", "/streaming/stream")
    async with control(tmp_path / "b", migrated, kas=True, kas_user=VIEWER) as plane:
        ours = [await anonymous(plane, "GET", path) for path in ("/stream", "/v1/sessions", "/v1/applications")]
        edit = await anonymous(plane, "POST", "/cfg/apps", json={"id": "kit"})

    assert refused.status_code == 401
    assert [answer.status_code for answer in ours] == [401, 401, 401]
    assert edit.status_code == 405


async def test_it_is_off_by_default(plane: Control) -> None:
    """Nothing is there."""
    for path in ("/streaming/stream", "/cfg/apps"):
        assert (await plane.rest("GET", path)).status_code == 404


async def test_edit_routes_are_for_operators_where_they_are_on(tmp_path: Path, migrated: Path) -> None:
    """A version is the newest one with another image: the rest of a recipe this dialect cannot say."""
    async with control(tmp_path, migrated, kas=True, kas_user=VIEWER, kas_edit=True) as plane:
        app = {"id": "kit", "name": "Kit", "description": "An application.", "tags": ["a"]}
        nobody = await anonymous(plane, "POST", "/cfg/apps", json=app)
        made = await plane.rest("POST", "/cfg/apps", json=app)
        again = await plane.rest("POST", "/cfg/apps", json=app)
        changed = await plane.rest("PUT", "/cfg/apps/kit", json={"name": "Kit 2"})
        first = {"version": "1.1.0", "container": "example.com/kit", "container_version": "2"}
        too_early = await plane.rest("POST", "/cfg/apps/kit/versions", json=first)
        image = application_pb2.Container(image="example.com/kit:1")
        recipe = version("1.0.0", container=image, fake=None, command=["/kit"])
        await plane.call(
            "ApplicationService.CreateVersion", application_pb2.CreateVersionRequest(application="kit", version=recipe)
        )
        added = await plane.rest("POST", "/cfg/apps/kit/versions", json=first)
        shown = (await plane.rest("GET", "/v1/applications/kit/versions/1.1.0")).json()
        gone = await plane.rest("DELETE", "/cfg/apps/kit/versions", json={"version": "1.1.0"})
        removed = await plane.rest("DELETE", "/cfg/apps/kit")

    assert nobody.status_code == 401
    assert (made.status_code, made.json()) == (200, {"id": "kit"})
    assert again.status_code == 409
    assert (changed.status_code, changed.json()["name"]) == (200, "Kit 2")
    assert (too_early.status_code, "no version with an image" in detail(too_early)) == (422, True)
    assert (added.status_code, added.json()) == (200, {"version": "1.1.0"})
    assert (shown["container"]["image"], shown["command"]) == ("example.com/kit:2", ["/kit"])
    assert (gone.status_code, removed.status_code) == (204, 204)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"kas_user": "a"}, "kas_user"),
        ({"kas_edit": True}, "kas_edit"),
        ({"kas": True, "kas_prefix": "ovas"}, "kas_prefix"),
        ({"kas": True, "kas_prefix": "/a b"}, "kas_prefix"),
    ],
)
def test_settings_that_mean_nothing_are_refused(tmp_path: Path, settings: dict[str, Any], field: str) -> None:
    """By name, at the start."""
    with pytest.raises(InvalidArgument) as caught:
        ServerSettings(tmp_path, **settings)
    assert caught.value.field == field


async def test_a_stream_says_that_its_stage_is_not_opened(kas: Control) -> None:
    """Beside its condition, while it starts and when it is ready; a client that can send it is told to."""
    by_message = application_pb2.StageDelivery(method=application_pb2.StageDelivery.MESSAGE)
    taken = version("2.0.0", allowed_stage_roots=["/srv"], stage_delivery=by_message)
    await kas.apply(taken)
    agent = await kas.agent()
    body = CREATE | {"version": "2.0.0", "arguments": {"usd_stage_uri": "/srv/a.usd"}}

    made = (await anonymous(kas, "POST", "/streaming/stream", json=body)).json()
    await kas.place()
    await agent.ready(made["id"])
    ready = (await anonymous(kas, "GET", f"/streaming/stream/{made['id']}")).json()

    assert "send openStageRequest" in made["status"]["message"]
    assert ready["status"]["message"].startswith("Session is active /srv/a.usd is opened once")
