"""Clients of Kit App Streaming as their users have them, written from what was seen of each: a page, and its player.

`WebViewer` is NVIDIA's sample, `Operations` Microsoft's, `Hook` a public hook for React; each makes the requests of the
original in its order, and misunderstands what that misunderstands. They poll faster.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

POLL_S: Final = 0.1
JSON_TYPE: Final = {"content-type": "application/json"}
_SIMPLE: Final = ("GET", "HEAD", "POST")


class FetchFailed(Exception):
    """What a page sees of a request that the browser does not let it read."""


class Shown(Exception):
    """What its user sees of a failure."""


@dataclass
class Page:
    """A page of another origin, whose browser asks first where it must."""

    origin: str = "https://viewer.example.org"
    asked: list[tuple[str, str]] = field(default_factory=list)

    async def fetch(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, body: str | None = None
    ) -> httpx2.Response:
        headers = dict(headers or {})
        async with httpx2.AsyncClient(headers={"origin": self.origin}, timeout=20) as client:
            if method not in _SIMPLE or headers:
                await self._preflight(client, method, url, headers)
            self.asked.append((method, urlsplit(url).path))
            content = None if body is None else body.encode()
            answer = await client.request(method, url, headers=headers, content=content)
        self._check_origin(answer)
        return answer

    async def _preflight(self, client: httpx2.AsyncClient, method: str, url: str, headers: Mapping[str, str]) -> None:
        wanted = sorted(headers)
        asked = {"access-control-request-method": method, "access-control-request-headers": ",".join(wanted)}
        answer = await client.options(url, headers=asked)
        self._check_origin(answer)
        methods = [each.strip() for each in answer.headers.get("access-control-allow-methods", "").split(",")]
        allowed = answer.headers.get("access-control-allow-headers", "").lower()
        if not answer.is_success or (method not in _SIMPLE and method not in methods):
            raise FetchFailed(f"the preflight of {method} {url} was refused: {answer.status_code}")
        if missing := [name for name in wanted if name not in [each.strip() for each in allowed.split(",")]]:
            raise FetchFailed(f"{missing} are not allowed at {url}")

    def _check_origin(self, answer: httpx2.Response) -> None:
        if answer.headers.get("access-control-allow-origin") not in ("*", self.origin):
            raise FetchFailed(f"{answer.url} is not for {self.origin}")


@dataclass(frozen=True)
class Way:
    """Where a player is told to dial."""

    session_id: str
    host: str
    signaling_port: int
    media_port: int


@dataclass
class WebViewer:
    """NVIDIA's web viewer: sends no token, takes 400 for a success and the first host for everything."""

    server: str
    page: Page = field(default_factory=Page)

    async def check_servers(self) -> None:
        """Validate what was typed in, as its form does: with a content type, also on a GET."""
        apps = await self.page.fetch("GET", f"{self.server}/cfg/apps", headers=JSON_TYPE)
        streams = await self.page.fetch("GET", f"{self.server}/streaming/stream", headers=JSON_TYPE)
        if not (apps.is_success and streams.is_success and apps.json()["items"]):
            raise Shown("invalid server")

    async def choices(self, app: str) -> tuple[list[str], list[str]]:
        """Return the versions of an application, and the profiles of the first."""
        versions = await self._items(f"/cfg/apps/{app}/versions")
        profiles = await self._items(f"/cfg/apps/{app}/versions/{versions[0]['version']}/profiles")
        return [each["version"] for each in versions], [each["id"] for each in profiles]

    async def _items(self, path: str) -> list[dict[str, Any]]:
        items = (await self.page.fetch("GET", f"{self.server}{path}", headers=JSON_TYPE)).json()["items"]
        if not items:
            raise Shown(f"nothing at {path}")
        return list(items)

    async def start(self, app: str, version: str, profile: str) -> Way:
        """Create a stream, and poll until its player can be told where to dial."""
        body = json.dumps({"id": app, "version": version, "profile": profile})
        answer = await self.page.fetch("POST", f"{self.server}/streaming/stream", headers=JSON_TYPE, body=body)
        if answer.status_code > 400:
            raise Shown(str(answer.status_code))
        stream = answer.json()
        while answer.status_code == 202:
            await asyncio.sleep(POLL_S)
            answer = await self.page.fetch("GET", f"{self.server}/streaming/stream/{stream['id']}")
            answer.json()  # a body that is none ends its polling, and leaves the spinner
            if answer.status_code != 200:
                answer.status_code = 202  # whatever it is, it is polled without an end
        found = answer.json()
        return way(found["id"], found["routes"], first=True)

    async def end(self, session_id: str) -> None:
        """End a stream, which it does only where that is ready; any text in the answer is shown."""
        url = f"{self.server}/streaming/stream"
        if (await self.page.fetch("GET", f"{url}/{session_id}")).status_code != 200:
            return
        answer = await self.page.fetch("DELETE", url, headers=JSON_TYPE, body=json.dumps({"id": session_id}))
        if answer.is_success and answer.text:
            raise Shown(answer.text)


@dataclass
class Operations:
    """Microsoft's sample: sends a stage in any case, and a token where it has one; it lists and deletes all."""

    server: str
    token: str = ""
    page: Page = field(default_factory=Page)

    @property
    def _bearer(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"} if self.token else {}

    async def start(self, app: str, version: str, profile: str, stage: str = "") -> Way:
        body = {"id": app, "version": version, "profile": profile, "arguments": {"usd_stage_uri": stage}}
        headers = JSON_TYPE | self._bearer
        answer = await self.page.fetch(
            "POST", f"{self.server}/streaming/stream", headers=headers, body=json.dumps(body)
        )
        if answer.status_code > 400:
            raise Shown(str(answer.status_code))
        session_id = answer.json()["id"]
        while True:
            answer = await self.page.fetch("GET", f"{self.server}/streaming/stream/{session_id}", headers=self._bearer)
            found = answer.json()
            if answer.status_code == 200:
                return way(found["id"], found["routes"], first=True)
            await asyncio.sleep(POLL_S)

    async def listed(self) -> list[str]:
        answer = await self.page.fetch("GET", f"{self.server}/streaming/stream", headers=JSON_TYPE | self._bearer)
        return [each["id"] for each in answer.json()["items"]]

    async def delete_all(self) -> None:
        for session_id in await self.listed():
            body = json.dumps({"id": session_id})
            headers = JSON_TYPE | self._bearer
            answer = await self.page.fetch("DELETE", f"{self.server}/streaming/stream", headers=headers, body=body)
            if answer.text:
                raise Shown(answer.text)


@dataclass
class Hook:
    """A hook for React: takes routes that are not empty for ready, the last host, and `detail` for an error."""

    server: str
    page: Page = field(default_factory=Page)

    async def start(self, app: str, version: str, profile: str) -> Way:
        body = json.dumps({"id": app, "version": version, "profile": profile})
        answer = await self.page.fetch("POST", f"{self.server}/streaming/stream", headers=JSON_TYPE, body=body)
        found = self._read(answer)
        for _ in range(50):
            if found.get("routes"):
                return way(found["id"], found["routes"], first=False)
            await asyncio.sleep(POLL_S)
            found = self._read(await self.page.fetch("GET", f"{self.server}/streaming/stream/{found['id']}"))
        raise Shown("timeout")

    @staticmethod
    def _read(answer: httpx2.Response) -> dict[str, Any]:
        found: dict[str, Any] = answer.json()
        if answer.status_code not in (200, 201, 202) or "detail" in found:
            raise Shown(str(found.get("detail")))
        return found


def way(session_id: str, routes: Mapping[str, Any], *, first: bool) -> Way:
    """Read where to dial, as these clients do: below one host, which is the first or the last one."""
    host = list(routes)[0 if first else -1]
    by_name = {each["description"]: each["source_port"] for each in routes[host]["routes"]}
    if not by_name.get("signaling") or not by_name.get("media"):
        raise Shown("Signaling or media data is missing")
    return Way(session_id, host, by_name["signaling"], by_name["media"])


class Player:
    """NVIDIA's player in a browser: dials the root of a host, and names its session by a subprotocol."""

    def __init__(self, way: Way, *more: str, origin: str = "https://viewer.example.org") -> None:
        self._origin = origin
        self.offered = [f"x-nv-sessionid.{way.session_id}", *more]
        self.peer = "peer-" + "".join(secrets.choice("123456789") for _ in range(10))
        self.url = f"ws://{way.host}:{way.signaling_port}/sign_in?peer_id={self.peer}&version=2"

    @asynccontextmanager
    async def dialled(self, *, again: bool = False) -> AsyncIterator[ClientConnection]:
        """Connect; a browser fails where it offered subprotocols and none of them is chosen."""
        url = f"{self.url}&reconnect=1" if again else self.url
        offered = [Subprotocol(each) for each in self.offered]
        async with connect(url, subprotocols=offered, origin=Origin(self._origin), proxy=None) as socket:
            if socket.subprotocol not in self.offered:
                raise FetchFailed(f"{socket.subprotocol!r} was not offered")
            yield socket

    async def negotiate(self, socket: ClientConnection) -> str:
        """Read up to the offer, acknowledge and answer; return the offer's session description."""
        while True:
            message = json.loads(await socket.recv())
            if "ackid" in message:
                await socket.send(json.dumps({"ack": message["ackid"]}))
            if "peer_info" in message and message["peer_info"]["name"] != self.peer:
                assert message["peer_info"]["name"].startswith("OneSdkServer-")
            if "peer_msg" in message:
                offer = json.loads(message["peer_msg"]["msg"])
                answer = json.dumps({"type": "answer", "sdp": "v=0\r\n", "nvstSdp": "v=0\r\n"})
                await socket.send(json.dumps({"peer_msg": {"from": 3, "to": 1, "msg": answer}, "ackid": 1}))
                await socket.send(json.dumps({"hb": 1}))
                return str(offer["sdp"])
