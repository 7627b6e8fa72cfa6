"""From one encoder to many viewers: every packet is encoded once and goes to all viewers that use its codec.

Everything here runs on the event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import av
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError

from footlights.viewer.stream.encoder import CLOCK, MAX_BITRATE, MIN_BITRATE, START_BITRATE

if TYPE_CHECKING:
    from collections.abc import Callable

    from footlights.viewer.stream.encoder import CodecName, EncoderThread, Packet

MAX_QUEUED = 45
"""Packets. A viewer that is further behind starts again with a key frame."""

KEY_FRAME_INTERVAL = 0.25
"""Seconds. Lost pictures make some receivers ask many times a second."""


class RateControl:
    """One viewer's share of the bandwidth: additive up, multiplicative down.

    Loss comes from receiver reports. A receiver's own estimate (REMB) is limited by what it receives, so it means
    nothing for an idle picture; it counts only when it is below what is being sent, that is when a queue grows.
    """

    def __init__(self) -> None:
        self.target = START_BITRATE

    def on_loss(self, fraction: float) -> None:
        """A report of loss, 0..1, since the last one (about one a second)."""
        if fraction > 0.10:
            self._move(self.target * (1 - fraction / 2))
        elif fraction < 0.02 and self.target < START_BITRATE:
            self._move(min(START_BITRATE, self.target * 1.06 + 20_000))

    def on_estimate(self, bitrate: int, sending: float) -> None:
        """A receiver's estimate, and what is being sent, in bits a second."""
        if bitrate < 0.95 * sending:
            self._move(min(self.target, bitrate))

    def _move(self, bitrate: float) -> None:
        self.target = int(max(MIN_BITRATE, min(MAX_BITRATE, bitrate)))


class PacketTrack(MediaStreamTrack):
    """A viewer's video track: encoded packets, starting with a key frame."""

    kind = "video"

    def __init__(self, broadcaster: Broadcaster) -> None:
        super().__init__()
        self._broadcaster = broadcaster
        self._queue: deque[Packet] = deque()
        self._arrived = asyncio.Event()
        self._needs_key_frame = True
        self.codec: CodecName = "h264"
        self.rate = RateControl()

    async def recv(self) -> av.Packet[Any]:
        """The next packet, as aiortc asks for it."""
        while not self._queue:
            if self.readyState != "live":
                raise MediaStreamError
            self._arrived.clear()
            await self._arrived.wait()
        packet = self._queue.popleft()
        result: av.Packet[Any] = av.Packet(packet.data)
        result.pts = packet.timestamp
        result.time_base = CLOCK
        return result

    def push(self, packet: Packet) -> None:
        """Queue a packet, unless a key frame has to come first."""
        if self._needs_key_frame and not packet.key_frame:
            return
        self._needs_key_frame = False
        if len(self._queue) >= MAX_QUEUED:
            self._queue.clear()
            self._needs_key_frame = True
            self._broadcaster.request_key_frame(self.codec)
            return
        self._queue.append(packet)
        self._arrived.set()

    def stop(self) -> None:
        """End the track and wake `recv`."""
        super().stop()
        self._arrived.set()


class Broadcaster:
    """The tracks of all viewers, and what they need from the encoder."""

    def __init__(self, encoder: EncoderThread, set_watched: Callable[[bool], None]) -> None:
        self._encoder = encoder
        self._set_watched = set_watched  # called with whether there are viewers
        self._tracks: list[PacketTrack] = []
        self._asked: dict[CodecName, float] = {}
        self._later: dict[CodecName, asyncio.TimerHandle] = {}
        self._bits = 0
        self._since = time.monotonic()
        self.sending = 0.0  # bits a second, encoded

    def join(self, track: PacketTrack) -> None:
        """Start feeding a track; its first packet is a key frame made for it."""
        self._tracks.append(track)
        self._update()
        self._force_key_frame(track.codec)

    def leave(self, track: PacketTrack) -> None:
        """Stop feeding a track."""
        if track in self._tracks:
            self._tracks.remove(track)
            self._update()

    def deliver(self, packet: Packet) -> None:
        """Give a packet from the encoder to all viewers that use its codec."""
        self._measure(len(packet.data) * 8)
        for track in self._tracks:
            if track.codec == packet.codec:
                track.push(packet)

    def request_key_frame(self, codec: CodecName) -> None:
        """Ask for a key frame, at most once an interval; a request in between is answered at its end."""
        wait = self._asked.get(codec, 0.0) + KEY_FRAME_INTERVAL - time.monotonic()
        if wait <= 0:
            self._force_key_frame(codec)
        elif codec not in self._later:
            self._later[codec] = asyncio.get_running_loop().call_later(wait, self._force_key_frame, codec)

    def adapt(self) -> None:
        """Give the encoder the bit rate that the slowest viewer of each codec can take."""
        for codec in {track.codec for track in self._tracks}:
            target = min(track.rate.target for track in self._tracks if track.codec == codec)
            self._encoder.set_bitrate(codec, target)

    def _force_key_frame(self, codec: CodecName) -> None:
        if (timer := self._later.pop(codec, None)) is not None:
            timer.cancel()
        self._asked[codec] = time.monotonic()
        self._encoder.request_key_frame(codec)

    def _update(self) -> None:
        self._encoder.use({track.codec for track in self._tracks})
        self._set_watched(bool(self._tracks))

    def _measure(self, bits: int) -> None:
        self._bits += bits
        elapsed = time.monotonic() - self._since
        if elapsed >= 1.0:
            self.sending = self._bits / elapsed
            self._bits, self._since = 0, time.monotonic()
