"""Clients of Kit App Streaming against `footlights up --kas` and the stand-in for Kit, from their first request on.

Each of the twelve vectors of the dialect is shown by a client that it matters to; one by one they are in
`tests/control/services/test_kas.py` and `tests/frontdoor/test_players.py`.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.system.kit import APP, kit_without_gpu
from tests.system.stack import until
from tests.system.stock_clients import JSON_TYPE, Hook, Operations, Page, Player, Shown, WebViewer

LIVE = ("PENDING", "STARTING", "READY", "ACTIVE", "TERMINATING")


@dataclass
class Up:
    """`footlights up --kas` with the stand-in as an application."""

    http: str
    operator: httpx2.AsyncClient
    journal: Path
    ready: Path
    """Kit is ready once it exists."""

    def noted(self, what: str) -> list[Any]:
        """Return what Kit was asked, of one kind."""
        lines = self.journal.read_text().splitlines() if self.journal.exists() else []
        return [each[what] for each in map(json.loads, lines) if what in each]

    async def session(self, session_id: str) -> dict[str, Any]:
        return dict((await self.operator.get(f"/v1/sessions/{session_id}")).json())

    async def until_state(self, session_id: str, *states: str) -> dict[str, Any]:
        async def there() -> dict[str, Any] | None:
            found = await self.session(session_id)
            return found if found["state"] in states else None

        return dict(await until(there, timeout_s=60, what=f"{session_id} in {states}"))


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, Path]]:
    """Started as a user starts it, with ports of its own: its address, an operator's token, and a folder."""
    folder = tmp_path_factory.mktemp("stock-clients")
    argv = [sys.executable, "-m", "footlights", "up", "--kas", "--data-dir", str(folder / "up")]
    argv += ["--http-port", "0", "--grpc-port", "0", "--devices", "software", "--software-devices", "2"]
    with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
        process = subprocess.Popen(argv, stdout=out, stderr=err, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + 90
        while "/console/#token=" not in (folder / "out").read_text():
            assert process.poll() is None, (folder / "err").read_text()
            assert time.monotonic() < deadline, (folder / "err").read_text()
            time.sleep(0.1)
        http, _, token = (folder / "out").read_text().splitlines()[-1].partition("/console/#token=")
        assert f"appServer and streamServer are both {http}" in (folder / "err").read_text()
        yield http, token, folder
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
async def up(started: tuple[str, str, Path]) -> AsyncIterator[Up]:
    """With the stand-in for Kit registered, not ready, and no session."""
    http, token, folder = started
    async with httpx2.AsyncClient(base_url=http, headers={"authorization": f"Bearer {token}"}, timeout=20) as operator:
        running = Up(http, operator, folder / "notes" / "journal", folder / "notes" / "ready")
        running.ready.parent.mkdir(exist_ok=True)
        running.ready.unlink(missing_ok=True)
        if not (folder / "kit-app").exists():
            (folder / "kit-app").mkdir()
            knobs = {
                "STANDIN_JOURNAL": str(running.journal),
                "STANDIN_READY_FILE": str(running.ready),
                "STANDIN_STATUS": "Loading",
            }
            applied = await operator.put(f"/v1/applications/{APP}", json=kit_without_gpu(folder / "kit-app", knobs))
            assert applied.status_code == 200, applied.text
        yield running
        for session in (await operator.get("/v1/sessions", params={"state": list(LIVE)})).json()["items"]:
            await operator.delete(f"/v1/sessions/{session['session_id']}")
            await running.until_state(session["session_id"], "TERMINATED", "FAILED")


async def test_the_web_viewer_plays(up: Up) -> None:
    """From its form to its picture: it plays, is cut off and comes back, and ends its stream; and nothing is shown."""
    viewer = WebViewer(up.http)
    await viewer.check_servers()
    [version], [profile] = await viewer.choices(APP)
    assert profile == "default"

    starting = asyncio.create_task(viewer.start(APP, version, profile))
    await until(lambda: said(up, "Loading"), timeout_s=60, what="Kit's own words in the stream's status")
    up.ready.touch()
    way = await starting
    player = Player(way)
    async with player.dialled() as socket:
        assert "m=video" in await player.negotiate(socket)
        await up.until_state(way.session_id, "ACTIVE")
        await until(
            lambda: said(up, "Streaming session active (keep alive)"),
            timeout_s=60,
            what="its own words, once it is ready",
        )
        socket.transport.abort()
    async with player.dialled(again=True) as socket:
        assert "m=video" in await player.negotiate(socket)
        queries = [each["query"] for each in up.noted("handshake") if player.peer in each["query"]]
        assert queries == [f"peer_id={player.peer}&version=2", f"peer_id={player.peer}&version=2&reconnect=1"]
        await viewer.end(way.session_id)
        await asyncio.wait_for(closed(socket), 60)

    await up.until_state(way.session_id, "TERMINATED")
    assert ("DELETE", "/streaming/stream") in viewer.page.asked


async def closed(socket: ClientConnection) -> ConnectionClosed:
    """Read until the other side has closed, and return how."""
    try:
        while True:
            await socket.recv()
    except ConnectionClosed as end:
        return end


async def said(up: Up, words: str) -> bool:
    """Say whether the only stream's status has these words."""
    streams = (await Page().fetch("GET", f"{up.http}/streaming/stream")).json()["items"]
    return any(words in each["status"]["message"] for each in streams)


async def test_other_clients_play_list_and_delete(up: Up) -> None:
    """Microsoft's sample with an empty stage, without a token and with one; a hook that wants no routes until then."""
    up.ready.touch()
    profile = "default"
    ours = (await up.operator.post("/v1/tokens", json={"role": "DEVELOPER", "subject": "ann"})).json()["secret"]
    operations, of_ann, hook = Operations(up.http), Operations(up.http, ours), Hook(up.http)
    version = (await WebViewer(up.http).choices(APP))[0][0]

    first = await operations.start(APP, version, profile)
    second = await hook.start(APP, "latest", profile)
    assert await operations.listed() == [first.session_id, second.session_id]
    assert await of_ann.listed() == []
    for way in (first, second):
        player = Player(way)
        async with player.dialled() as socket:
            assert "m=video" in await player.negotiate(socket)
    await operations.delete_all()
    for way in (first, second):
        await up.until_state(way.session_id, "TERMINATED")

    third = await of_ann.start(APP, "latest", profile)
    session = await up.session(third.session_id)
    assert (session["username"], session["application_version"]) == ("ann", version)
    assert (await operations.listed(), await of_ann.listed()) == ([], [third.session_id])
    player = Player(third, f"Authorization-Bearer.{ours}")
    async with player.dialled() as socket:
        await player.negotiate(socket)
    assert ours not in up.journal.read_text()
    await of_ann.delete_all()


async def test_a_session_has_one_viewer_and_its_own(up: Up) -> None:
    """By its id it is seen by one at a time; one that is somebody's own by the grant alone, which Kit never sees."""
    up.ready.touch()
    way = await Hook(up.http).start(APP, "latest", "default")
    watching = Player(way)
    async with watching.dialled() as first:
        await watching.negotiate(first)
        await up.until_state(way.session_id, "ACTIVE")
        async with Player(way).dialled() as second:
            end = await asyncio.wait_for(closed(second), 60)
        assert end.rcvd is not None
        assert (end.rcvd.code, "another one is connected" in end.rcvd.reason) == (3005, True)
    url = f"{up.http}/stream/{way.session_id}/sign_in"
    assert (await Page().fetch("HEAD", url)).is_success
    assert (await Page().fetch("DELETE", url)).content == b""
    await up.until_state(way.session_id, "TERMINATED")
    assert (await Page().fetch("HEAD", url)).status_code == 409

    made = await up.operator.post("/v1/sessions", json={"application": APP})
    session_id = made.json()["session_id"]
    await up.until_state(session_id, "READY")
    grant = (await up.operator.post(f"/v1/sessions/{session_id}:connect", json={})).json()["token"]
    own = replace(way, session_id=session_id)
    with pytest.raises(InvalidStatus) as refused:
        async with Player(own).dialled():
            pass
    assert refused.value.response.status_code == 401
    player = Player(own, f"Authorization-Bearer.{grant}")
    async with player.dialled() as socket:
        await player.negotiate(socket)
    logs = (await up.operator.get(f"/v1/sessions/{session_id}/log")).text
    assert (player.peer in logs, grant in logs, grant in up.journal.read_text()) == (True, False, False)


async def test_a_request_that_clients_take_for_a_success_is_none(up: Up) -> None:
    """No status of any answer is 400 or a redirect, each is JSON, and pages of other origins may read it."""
    page, url = Page(), f"{up.http}/streaming/stream"
    answers = [
        await page.fetch(method, path, headers=JSON_TYPE, body=body)
        for method, path, body in (
            ("POST", url, "{"),
            ("POST", url, '{"id": 7, "profile": []}'),
            ("POST", url, '{"id": "none", "profile": "default"}'),
            ("POST", url, json.dumps({"id": "ä\U0001f600" * 20, "profile": "default"})),
            ("GET", f"{url}/{'x' * 4000}", None),
            ("GET", f"{url}?limit=1&limit=2", None),
            ("DELETE", url, "[]"),
            ("GET", f"{up.http}//cfg/apps/none/versions", None),
        )
    ]
    assert [answer.status_code for answer in answers] == [422, 422, 404, 404, 422, 422, 422, 404]
    assert all(set(answer.json()) == {"detail"} for answer in answers)
    with pytest.raises(Shown, match="404"):
        await WebViewer(up.http, page).start("none", "1", "default")
