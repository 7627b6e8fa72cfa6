"""A portal for NVCF through the whole stack, with a stand-in for Kit: what NVIDIA's open portal backend sends.

The backend itself was run against it as a black box; this client is our own, and keeps to the same waits.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.system.kit import APP, apply, lay_out, stack_with_gpu
from tests.system.stack import Stack, until

PORTAL_WAITS_S = 5.0
SOCKET_WAITS_S = 10.0


class Portal:
    """A portal: has a key, and one function that an administrator has published."""

    def __init__(self, stack: Stack, key: str, function: dict[str, Any]) -> None:
        self._at, self._key, self._function = stack.http, key, function

    def _headers(self, request_id: str = "") -> dict[str, str]:
        named = {"Function-ID": self._function["id"], "Function-Version-ID": self._function["versionId"]}
        cookie = {"Cookie": f"nvcf-request-id={request_id}"} if request_id else {}
        return {"Authorization": f"Bearer {self._key}", **named, **cookie}

    async def start(self) -> tuple[int, str]:
        """Start a session; return the status, and its id or why there is none."""
        more = {"X-NVCF-ABSORB": "true", "X-NVCF-RECONNECT-WINDOW-SECS": "300"}
        async with httpx2.AsyncClient(timeout=PORTAL_WAITS_S) as client:
            answer = await client.post(f"{self._at}/sign_in?app_id=kit", headers=self._headers() | more)
        if answer.status_code != 200:
            return answer.status_code, answer.text
        return 200, SimpleCookie(answer.headers["set-cookie"])["nvcf-request-id"].value

    def dial(self, request_id: str) -> connect:
        """Connect a viewer."""
        url = f"ws{self._at.removeprefix('http')}/sign_in?peer_id=peer-0123456789&version=2"
        return connect(url, additional_headers=self._headers(request_id), open_timeout=SOCKET_WAITS_S, proxy=None)

    async def stop(self, request_id: str) -> int:
        """End a session."""
        async with httpx2.AsyncClient(timeout=PORTAL_WAITS_S) as client:
            answer = await client.delete(f"{self._at}/sign_in?", headers=self._headers(request_id))
        return answer.status_code


@pytest.fixture
def ready(tmp_path: Path) -> Callable[[], None]:
    """Makes the stand-in for Kit ready."""
    return (tmp_path / "ready").touch


@pytest.fixture
async def portal(tmp_path: Path) -> Any:
    """A portal before a server with one GPU, and a Kit application."""
    (tmp_path / "stages").mkdir()
    root = lay_out(tmp_path / "kit-app", STANDIN_READY_FILE=str(tmp_path / "ready"))
    async with stack_with_gpu(tmp_path, "--nvcf", "--min-isolation", "none") as stack:
        await apply(stack, APP, KIT_ROOT=str(root), STAGE_ROOT=str(tmp_path / "stages"))
        key = (await stack.post("/tokens", {"role": "SERVICE", "subject": "portal"}))["secret"]
        listed = (await stack.get("/v2/nvcf/functions"))["functions"]
        [published] = [each for each in listed if each["name"] == "kit-108@process"]
        assert published["status"] == "ACTIVE"
        yield Portal(stack, key, published)


async def test_a_portal_runs_on_footlights(portal: Portal, ready: Callable[[], None]) -> None:
    """Start, an offer, the way back, the one GPU taken, and the end, each within the time that a portal waits.

    A viewer's socket opens although Kit is not ready, and has the offer as soon as it is.
    """
    status, request_id = await portal.start()
    assert status == 200, request_id

    async with portal.dial(request_id) as socket:
        ready()
        said = [await first_words(socket)]
    async with portal.dial(request_id) as socket:
        said.append(await first_words(socket))
        busy = await portal.start()
        ends = [await portal.stop(request_id), await portal.stop(request_id)]
        with contextlib.suppress(ConnectionClosed):
            async for _ in socket:
                pass

    for first, second, third in said:
        assert ("peer_info" in first, "peer_info" in second, "offer" in third["peer_msg"]["msg"]) == (True, True, True)
    assert (busy[0], "No device is free for kit-108@process" in busy[1]) == (503, True)
    assert ends == [200, 404]

    async def again() -> bool:
        return (await portal.start())[0] == 200

    await until(again, what="the GPU is free again")


async def first_words(socket: ClientConnection) -> list[dict[str, Any]]:
    """Return the first three messages that are more than signs of life."""
    found: list[dict[str, Any]] = []
    while len(found) < 3:
        message = json.loads(await socket.recv())
        if message.keys() != {"hb"}:
            found.append(message)
    return found
