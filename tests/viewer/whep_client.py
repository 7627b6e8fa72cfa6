"""A small WHEP player without a browser, for tests: decodes frames and sends input.

async with WhepClient("http://127.0.0.1:8011/whep") as client:
    frame = await client.next_frame(timeout=5)      # an av.VideoFrame
    client.send({"type": "pointer", "action": "down", "x": 0.5, "y": 0.5, "button": 0})
"""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urljoin

import aiohttp
import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpReceiver, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["WhepClient", "WhepRefused", "luma"]


class WhepRefused(Exception):
    """The server did not answer 201."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"{status}: {body}")
        self.status = status
        self.body = body


class WhepClient:
    """One viewer. Entering it posts the offer and waits for the answer; leaving it sends DELETE and closes.

    `token` is sent as a bearer token. `codec` ("H264" or "VP8") limits the offer to that codec. `audio` adds an
    audio m-line. With `keep_resource` leaving does not send DELETE, as a player that crashed. `through` is the UDP
    port of 127.0.0.1 to send media to, instead of the one that the answer names. `changed` gives the offer to send.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        codec: str | None = None,
        audio: bool = False,
        keep_resource: bool = False,
        through: int = 0,
        changed: Callable[[str], str] = str,
    ) -> None:
        self.url = url
        self.answer = ""
        self.location = ""
        self.messages: list[dict[str, Any]] = []
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._codec = codec
        self._audio = audio
        self._keep_resource = keep_resource
        self._through = through
        self._changed = changed
        self._frames: asyncio.Queue[Any] = asyncio.Queue(maxsize=3)
        self._news = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None
        self.frames_decoded = 0

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(headers=self._headers)
        self._peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        try:
            await self._start()
        except BaseException:
            await self._peer.close()
            await self._http.close()
            raise
        return self

    async def __aexit__(self, *_error: object) -> None:
        if not self._keep_resource:
            with suppress(aiohttp.ClientError):
                await self.delete()
        if self._pump is not None:
            self._pump.cancel()
        await self._peer.close()
        await self._http.close()

    @property
    def resource_url(self) -> str:
        """Where this viewer's resource is."""
        return urljoin(self.url, self.location)

    @property
    def connection_state(self) -> str:
        """The peer connection's state."""
        return str(self._peer.connectionState)

    async def delete(self) -> int:
        """DELETE the resource; the status code."""
        async with self._http.delete(self.resource_url) as response:
            return response.status

    async def next_frame(self, timeout: float = 10.0) -> Any:
        """The next decoded `av.VideoFrame`. Raises TimeoutError."""
        return await asyncio.wait_for(self._frames.get(), timeout)

    async def fresh_frame(self, timeout: float = 10.0) -> Any:
        """A frame that arrives after this call."""
        while not self._frames.empty():
            self._frames.get_nowait()
        return await self.next_frame(timeout)

    async def frame_where(self, matches: Callable[[Any], bool], timeout: float = 10.0) -> Any:
        """The first frame that matches. Raises TimeoutError."""
        async with asyncio.timeout(timeout):
            while True:
                frame = await self._frames.get()
                if matches(frame):
                    return frame

    async def message(self, kind: str, timeout: float = 10.0) -> dict[str, Any]:
        """The first message of a type that the application sent on the data channel. Raises TimeoutError."""
        async with asyncio.timeout(timeout):
            while True:
                for message in self.messages:
                    if message.get("type") == kind:
                        return message
                self._news.clear()
                await self._news.wait()

    def send(self, message: dict[str, Any] | str) -> None:
        """Send input on the data channel. It must be open: wait for `message("hello")` or a frame first."""
        self._channel.send(message if isinstance(message, str) else json.dumps(message))

    async def open(self, timeout: float = 10.0) -> None:
        """Wait until the data channel is open."""
        await asyncio.wait_for(self._opened.wait(), timeout)

    async def request_key_frame(self) -> None:
        """Send a picture loss indication, as a decoder does that has lost pictures."""
        (receiver,) = [r for r in self._peer.getReceivers() if r.track.kind == "video"]
        await receiver._send_rtcp_pli(receiver.getSynchronizationSources()[0].source)

    async def _start(self) -> None:
        self._opened = asyncio.Event()
        video = self._peer.addTransceiver("video", direction="recvonly")
        if self._codec:
            known: list[Any] = RTCRtpReceiver.getCapabilities("video").codecs  # type: ignore[union-attr]
            video.setCodecPreferences([c for c in known if c.mimeType == f"video/{self._codec}"])
        if self._audio:
            self._peer.addTransceiver("audio", direction="recvonly")
        self._channel = self._peer.createDataChannel("footlights-input")
        self._channel.on("open", self._opened.set)
        self._channel.on("message", self._received)
        self._peer.on("track", self._play)
        await self._peer.setLocalDescription(await self._peer.createOffer())
        self.offer = self._changed(self._peer.localDescription.sdp)
        async with self._http.post(self.url, data=self.offer, headers={"Content-Type": "application/sdp"}) as response:
            body = await response.text()
            if response.status != 201:
                raise WhepRefused(response.status, body)
            self.location = response.headers["Location"]
        self.answer = body
        if self._through:
            body = re.sub(r"(a=candidate:.* udp \d+ \S+) \d+ ", rf"\1 {self._through} ", body)
        await self._peer.setRemoteDescription(RTCSessionDescription(body, "answer"))

    def _received(self, raw: str) -> None:
        self.messages.append(json.loads(raw))
        del self.messages[:-200]
        self._news.set()

    def _play(self, track: Any) -> None:
        if track.kind == "video":
            self._pump = asyncio.create_task(self._decode(track))

    async def _decode(self, track: Any) -> None:
        with suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                self.frames_decoded += 1
                if self._frames.full():
                    self._frames.get_nowait()
                self._frames.put_nowait(frame)


def luma(frame: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The brightness of a frame, (height, width)."""
    return np.asarray(frame.to_ndarray(format="gray"))
