"""A stand-in application's end of WHEP: a moving picture out, input messages in. Or a real viewer's, passed through."""

from __future__ import annotations

import asyncio
import fractions
import json
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import numpy as np
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import VideoStreamTrack
from av import VideoFrame

WIDTH, HEIGHT, RATE = 640, 360, 15


class Beam(VideoStreamTrack):
    """A light that wanders over a stage; `turned` by what the viewer does."""

    def __init__(self) -> None:
        super().__init__()
        self.turned = 0.0
        self._count = 0
        self._y, self._x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)

    async def recv(self) -> Any:
        self._count += 1
        await asyncio.sleep(1 / RATE)
        angle = self._count / RATE + self.turned
        x, y = WIDTH / 2 + 200 * np.cos(angle), HEIGHT / 2 + 80 * np.sin(angle * 1.3)
        light = np.exp(-((self._x - x) ** 2 + (self._y - y) ** 2) / 9000)
        floor = 0.25 * self._y / HEIGHT
        picture = np.stack([light * 255 + floor * 60, light * 180 + floor * 50, light * 80 + floor * 40], axis=-1)
        frame = VideoFrame.from_ndarray(np.clip(picture, 0, 255).astype(np.uint8), format="rgb24")
        frame.pts = self._count * (90_000 // RATE)
        frame.time_base = fractions.Fraction(1, 90_000)
        return frame


@dataclass
class Picture:
    """Answers offers. ``received`` holds every input message of every viewer, in order."""

    upstream: str = ""
    received: list[dict[str, Any]] = field(default_factory=list)
    offers: list[str] = field(default_factory=list)
    refuse: bool = False
    _peers: dict[str, list[Any]] = field(default_factory=dict)
    _resources: dict[str, str] = field(default_factory=dict)

    async def answer(self, session_id: str, offer: str) -> tuple[str, str]:
        """The answer's SDP and the id of the resource that was made."""
        if self.upstream:
            async with aiohttp.ClientSession() as client:
                headers = {"Content-Type": "application/sdp"}
                async with client.post(self.upstream, data=offer, headers=headers) as response:
                    self._resources[session_id] = response.headers.get("Location", "")
                    return await response.text(), "upstream"
        self.offers.append(offer)
        peer = RTCPeerConnection()
        self._peers.setdefault(session_id, []).append(peer)
        beam = Beam()
        peer.on("datachannel", lambda channel: self._greet(channel, beam))
        await peer.setRemoteDescription(RTCSessionDescription(sdp=offer, type="offer"))
        peer.addTrack(beam)
        await peer.setLocalDescription(await peer.createAnswer())
        return str(peer.localDescription.sdp), f"r{len(self._peers[session_id])}"

    async def close(self, session_id: str) -> None:
        """Close a session's peers, as an application does that ends or lets a newer viewer in."""
        for peer in self._peers.pop(session_id, []):
            await peer.close()

    async def close_all(self) -> None:
        for session_id in list(self._peers):
            await self.close(session_id)

    def _greet(self, channel: Any, beam: Beam) -> None:
        def received(data: str) -> None:
            message = json.loads(data)
            if message["type"] == "ping":
                channel.send(json.dumps({"type": "pong", "t": message["t"]}))
                return
            self.received.append(message)
            if message["type"] == "wheel":
                beam.turned += message["dy"] / 100

        channel.on("message", received)
        hello = {"type": "hello", "title": "Theatre", "width": WIDTH, "height": HEIGHT, "triangles": 2, "stage": ""}
        hello["left_out"] = [None, 7, {"what": {}}, {"what": "Volume prims", "count": 3, "first": "/World/Smoke"}]
        channel.send(json.dumps(hello))
