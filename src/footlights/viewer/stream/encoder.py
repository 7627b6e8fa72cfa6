"""Pictures to packets, in a thread of its own, once per codec in use.

H.264 is constrained baseline, level 3.1 (what every WebRTC receiver must take; at 1280x720 it ends at 30 fps).
Both codecs run without lookahead and without B-frames: one picture in, one packet out.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

import av
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import Interpolation

if TYPE_CHECKING:
    from collections.abc import Callable


log = logging.getLogger("footlights.viewer.stream.encoder")

CodecName = Literal["h264", "vp8"]

CLOCK = Fraction(1, 90_000)
"""RTP's clock for video."""

START_BITRATE = 4_000_000
MIN_BITRATE, MAX_BITRATE = 400_000, 8_000_000  # bits a second

BITRATE_STEP = 0.25
"""A new bit rate restarts the codec with a key frame, so small changes are not followed."""

MAX_KEY_FRAME_INTERVAL = 300
"""Frames. Lost pictures are asked for (PLI); this only bounds the damage if the request is lost too."""


@dataclass(frozen=True, slots=True)
class Packet:
    """One encoded picture."""

    codec: CodecName
    data: bytes
    timestamp: int  # in `CLOCK`
    key_frame: bool


class Encoding:
    """One codec, restarted as bit rate demands. Not thread-safe."""

    def __init__(self, codec: CodecName, width: int, height: int, fps: int) -> None:
        self.codec = codec
        self._size = (width, height)
        self._fps = fps
        self._bitrate = START_BITRATE
        self._context: Any = None
        self._count = 0

    def encode(self, picture: VideoFrame, timestamp: int, *, key_frame: bool, bitrate: int) -> list[Packet]:
        """Encode one yuv420p picture of the stream's size."""
        wanted = max(MIN_BITRATE, min(MAX_BITRATE, bitrate))
        if self._context is None or abs(wanted - self._bitrate) > BITRATE_STEP * self._bitrate:
            self._bitrate = wanted
            self._context = _open(self.codec, self._size, self._fps, wanted)
            self._count = 0
        picture.pts = self._count
        picture.time_base = Fraction(1, self._fps)
        picture.pict_type = PictureType.I if key_frame else PictureType.NONE
        self._count += 1
        return [
            Packet(self.codec, bytes(packet), timestamp, bool(packet.is_keyframe))
            for packet in self._context.encode(picture)
        ]


@dataclass(slots=True)
class _Demand:
    """What the viewers of one codec want."""

    key_frame: bool = True
    bitrate: int = START_BITRATE


class EncoderThread:
    """Takes the newest picture, encodes it for every codec in use and hands the packets on.

    `deliver` is called in this thread. A picture that comes while one is being encoded replaces the waiting one.
    """

    def __init__(self, width: int, height: int, fps: int, deliver: Callable[[Packet], None]) -> None:
        self._size = (width, height)
        self._fps = fps
        self._deliver = deliver
        self._wake = threading.Condition()
        self._waiting: tuple[VideoFrame, int] | None = None
        self._demands: dict[CodecName, _Demand] = {}
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="encoder", daemon=True)
        self.failed: BaseException | None = None
        self.milliseconds = 0.0  # a picture, on average

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, within one picture's time."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join(timeout=0.5)

    def submit(self, picture: VideoFrame, timestamp: int) -> None:
        """Offer a picture. It must not change afterwards."""
        with self._wake:
            self._waiting = (picture, timestamp)
            self._wake.notify()

    def use(self, codecs: set[CodecName]) -> None:
        """Encode for exactly these codecs from now on."""
        with self._wake:
            self._demands = {codec: self._demands.get(codec) or _Demand() for codec in codecs}

    def request_key_frame(self, codec: CodecName) -> None:
        """Make the next picture of a codec a key frame."""
        with self._wake:
            if codec in self._demands:
                self._demands[codec].key_frame = True

    def set_bitrate(self, codec: CodecName, bitrate: int) -> None:
        """Aim at a bit rate, in bits a second."""
        with self._wake:
            if codec in self._demands:
                self._demands[codec].bitrate = bitrate

    def _run(self) -> None:
        encodings: dict[CodecName, Encoding] = {}
        try:
            while True:
                with self._wake:
                    while self._waiting is None and not self._stopping:
                        self._wake.wait(timeout=1.0)
                    if self._stopping:
                        return
                    assert self._waiting is not None
                    picture, timestamp = self._waiting
                    self._waiting = None
                    wanted = {c: (d.key_frame, d.bitrate) for c, d in self._demands.items()}
                    for demand in self._demands.values():
                        demand.key_frame = False
                if not wanted:
                    continue
                encodings = {c: e for c, e in encodings.items() if c in wanted}
                began = time.monotonic()
                converted = to_yuv(picture, *self._size)
                for codec, (key_frame, bitrate) in wanted.items():
                    if codec not in encodings:
                        encodings[codec] = Encoding(codec, *self._size, self._fps)
                    for packet in encodings[codec].encode(converted, timestamp, key_frame=key_frame, bitrate=bitrate):
                        self._deliver(packet)
                self.milliseconds += 0.1 * ((time.monotonic() - began) * 1000 - self.milliseconds)
        except Exception as error:  # the process must end rather than show a frozen picture
            log.exception("the encoder failed")
            self.failed = error


def to_yuv(picture: VideoFrame, width: int, height: int) -> VideoFrame:
    """Convert to yuv420p, scaled to the stream's size: down with area filtering, up smoothly."""
    return picture.reformat(width, height, "yuv420p", interpolation=Interpolation.AREA)


def _open(codec: CodecName, size: tuple[int, int], fps: int, bitrate: int) -> Any:
    context: Any = av.CodecContext.create("libx264" if codec == "h264" else "libvpx", "w")
    context.width, context.height = size
    context.pix_fmt = "yuv420p"
    context.framerate = Fraction(fps, 1)
    context.time_base = Fraction(1, fps)
    context.bit_rate = bitrate
    context.gop_size = MAX_KEY_FRAME_INTERVAL
    context.thread_count = 1
    if codec == "h264":
        context.profile = "Baseline"
        context.options = {
            "preset": "superfast",
            "tune": "zerolatency",
            "level": "31",
            "maxrate": str(bitrate),
            "bufsize": str(bitrate // 2),  # bounds a key frame to half a second's bits
            "forced-idr": "1",
        }
    else:
        context.options = {
            "deadline": "realtime",
            "cpu-used": "-8",
            "lag-in-frames": "0",
            "minrate": str(bitrate),
            "maxrate": str(bitrate),
            "bufsize": str(bitrate),
            "static-thresh": "1",
            "undershoot-pct": "100",
            "overshoot-pct": "15",
            "error-resilient": "0",
        }
    context.open()
    return context
