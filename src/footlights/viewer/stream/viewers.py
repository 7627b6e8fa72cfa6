"""All viewers of the session: admits and dismisses them, and connects them with the render and encoder threads.

All viewers share one picture, one encoder a codec and one UDP port. There are MAX_VIEWERS places. One whose viewer is
silent, or did not connect, goes to the next one that asks; from a viewer that watches none is taken away.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from footlights.viewer.failure import FailureReason, ViewerFailure
from footlights.viewer.notice import StreamNotice
from footlights.viewer.stream.broadcast import Broadcaster
from footlights.viewer.stream.encoder import CodecName, EncoderThread, Packet
from footlights.viewer.stream.peer import PeerCallbacks, ViewerPeer

if TYPE_CHECKING:
    from collections.abc import Callable

    from footlights.viewer.options import ViewerOptions
    from footlights.viewer.render.render_loop import RenderLoop
    from footlights.viewer.stream.media_port import MediaPort

MAX_VIEWERS = 8
STATS_INTERVAL = 1.0  # seconds
QUIET_S = 6.0
"""A viewer that watches is heard every second, or every five from some players; one that is let in connects sooner."""


class NoPlace(Exception):
    """All places are taken by viewers that watch. The message says so."""


class Viewers:
    """The peers of this session."""

    def __init__(self, options: ViewerOptions, port: MediaPort, render: RenderLoop) -> None:
        self._options = options
        self._port = port
        self._render = render
        loop = asyncio.get_running_loop()
        self._encoder = EncoderThread(
            options.width,
            options.height,
            options.fps,
            lambda packet: _post(loop, self._deliver, packet),
        )
        self._broadcaster = Broadcaster(self._encoder, render.watch)
        self._peers: dict[str, ViewerPeer] = {}  # oldest first
        self._ending: set[asyncio.Task[None]] = set()
        self._last_input: float | None = None
        self._notice = StreamNotice()
        self.bad_input = 0
        self.packets = self.key_frames = 0
        self._callbacks = PeerCallbacks(self._forget, self._input, self._bad_input, self._hello)
        render.deliver_to(lambda frame, seconds: self._encoder.submit(frame, round(seconds * 90_000)))

    def start(self) -> None:
        """Start encoding and monitoring the viewers."""
        self._encoder.start()
        self._monitor_task = asyncio.create_task(self._monitor())

    def watch_over(self, end: Callable[[ViewerFailure | None], None]) -> None:
        """Call `end` if the encoder or the monitoring of viewers fails: better ended than frozen."""

        def monitor_ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                end(ViewerFailure(FailureReason.INTERNAL, f"the stream failed: {type(error).__name__}: {error}"))

        self._monitor_task.add_done_callback(monitor_ended)

    async def admit(self, offer: str) -> tuple[str, str]:
        """Return a new viewer's resource and SDP answer. Raises OfferRefused or NoPlace."""
        while len(self._peers) >= MAX_VIEWERS:
            quiet = max(self._peers.values(), key=lambda each: each.quiet_s)
            if quiet.quiet_s < QUIET_S:
                raise NoPlace(f"{MAX_VIEWERS} viewers are connected, as many as there are places: try again")
            self._end(quiet)
        peer = ViewerPeer(self._broadcaster, self._port, self._callbacks)
        self._peers[peer.resource] = peer
        try:
            answer = await peer.answer(offer, self._codecs())
        except BaseException:
            self._end(peer)
            raise
        return peer.resource, answer

    async def dismiss(self, resource: str) -> None:
        """End a viewer; one that has already ended is not an error."""
        peer = self._peers.get(resource)
        if peer is not None:
            await peer.close()

    def restarts(self, resource: str, fragment: str) -> bool | None:
        """Whether an SDP fragment asks for an ICE restart of a viewer; None where there is none such."""
        peer = self._peers.get(resource)
        return None if peer is None else peer.restarts(fragment)

    def status(self) -> dict[str, Any]:
        """For `/v1/streaming/status`."""
        progress = self._render.progress
        since_input = None if self._last_input is None else round(time.monotonic() - self._last_input, 3)
        return {
            "viewers": self.count,
            "last_input_seconds_ago": since_input,
            "fps": round(progress.fps, 1),
            "frames": progress.frames,
            "triangles": progress.triangles,
            "left_out": progress.left_out,
            "render_ms": round(progress.render_ms, 2),
            "encode_ms": round(self._encoder.milliseconds, 2),
            "supersampling": progress.supersampling,
            "drawn_triangles": progress.drawn_triangles,
            "bitrate_kbps": round(self._broadcaster.sending / 1000) if self.count else 0,
            "packets": self.packets,
            "key_frames": self.key_frames,
            "bad_input": self.bad_input,
            "codecs": sorted({peer.codec for peer in self._peers.values() if peer.connected}),
        }

    def notify(self, notice: StreamNotice) -> None:
        """Send a notice to all viewers, and to those that connect later."""
        self._notice = notice
        for peer in self._peers.values():
            peer.send(notice.message_at(time.monotonic()))

    @property
    def count(self) -> int:
        """The number of connected viewers."""
        return sum(peer.connected for peer in self._peers.values())

    async def close(self, timeout: float) -> None:
        """Disconnect all viewers and end the encoder."""
        self._monitor_task.cancel()
        tasks = [peer.close() for peer in list(self._peers.values())]
        if tasks:
            await asyncio.wait(tasks, timeout=timeout)
        self._encoder.stop()

    def _codecs(self) -> list[CodecName]:
        return ["h264", "vp8"] if self._options.codec == "auto" else [self._options.codec]

    def _deliver(self, packet: Packet) -> None:
        self.packets += 1
        self.key_frames += packet.key_frame
        self._broadcaster.deliver(packet)

    def _input(self, message: dict[str, Any]) -> None:
        self._last_input = time.monotonic()
        self._render.post(message)

    def _bad_input(self) -> None:
        self.bad_input += 1

    def _hello(self) -> list[dict[str, Any]]:
        progress, options = self._render.progress, self._options
        hello = {
            "type": "hello",
            "title": options.title or progress.stage,
            "stage": progress.stage,
            "width": options.width,
            "height": options.height,
            "fps": options.fps,
            "triangles": progress.triangles,
            "left_out": progress.left_out,
        }
        return [hello, self._notice.message_at(time.monotonic())] if self._notice.reason else [hello]

    def _forget(self, peer: ViewerPeer) -> None:
        self._peers.pop(peer.resource, None)

    def _end(self, peer: ViewerPeer) -> None:
        task = peer.close()
        self._forget(peer)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _monitor(self) -> None:
        while True:
            await asyncio.sleep(STATS_INTERVAL)
            if self._encoder.failed is not None:
                raise self._encoder.failed
            for peer in list(self._peers.values()):
                if peer.overdue():
                    self._end(peer)
            self._broadcaster.adapt()
            progress = self._render.progress
            stats = {
                "type": "stats",
                **{name: value for name, value in self.status().items() if name != "left_out"},  # `hello` has it
                "paused": progress.paused,
                "caption": progress.caption,
            }
            for peer in self._peers.values():
                peer.send(stats)


def _post(loop: asyncio.AbstractEventLoop, deliver: Any, packet: Packet) -> None:
    """From the encoder's thread; a loop that is closing needs no more packets."""
    try:
        loop.call_soon_threadsafe(deliver, packet)
    except RuntimeError:
        return
