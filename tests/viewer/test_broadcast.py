"""How the encoder follows what viewers can take, without a network (`encoder`, `broadcast`)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np
from av.video.frame import VideoFrame

from footlights.viewer.stream.broadcast import MAX_QUEUED, Broadcaster, PacketTrack, RateControl
from footlights.viewer.stream.encoder import MIN_BITRATE, START_BITRATE, CodecName, EncoderThread, Encoding, Packet

if TYPE_CHECKING:
    import pytest


def picture(seed: int) -> VideoFrame:
    noise = np.random.default_rng(seed).integers(0, 255, (180, 320, 3), np.uint8)
    return VideoFrame.from_ndarray(noise, format="rgb24").reformat(format="yuv420p")


def packet(codec: CodecName = "h264", *, key: bool = False, timestamp: int = 0) -> Packet:
    return Packet(codec, b"x" * 100, timestamp, key)


class TestRateControl:
    def test_loss_lowers_and_its_end_raises(self) -> None:
        """Heavy loss cuts the bit rate, a clean line brings it back, and neither bound is passed."""
        rate = RateControl()
        for _ in range(50):
            rate.on_loss(0.5)
        assert rate.target == MIN_BITRATE
        for _ in range(200):
            rate.on_loss(0.0)
        assert rate.target == START_BITRATE

    def test_an_estimate_counts_only_below_what_is_sent(self) -> None:
        """A receiver that gets little estimates little; only a queue that grows is a reason to send less."""
        rate = RateControl()
        rate.on_estimate(600_000, sending=300_000)
        assert rate.target == START_BITRATE
        rate.on_estimate(1_500_000, sending=3_000_000)
        assert rate.target == 1_500_000


class TestEncoding:
    def test_one_picture_in_one_packet_out(self) -> None:
        """Both codecs answer every picture at once, with a key frame first and on request only."""
        for codec in ("h264", "vp8"):
            encoding = Encoding(codec, 320, 180, 30)
            keys = []
            for k in range(8):
                (made,) = encoding.encode(picture(k), k * 3000, key_frame=k == 5, bitrate=START_BITRATE)
                assert made.timestamp == k * 3000
                keys.append(made.key_frame)
            assert keys == [True, False, False, False, False, True, False, False]

    def test_h264_is_constrained_baseline(self) -> None:
        """The stream's own parameter set says what the SDP promised: profile 66, level 3.1 at most."""
        (made,) = Encoding("h264", 320, 180, 30).encode(picture(0), 0, key_frame=True, bitrate=START_BITRATE)
        at = made.data.index(b"\x00\x00\x01\x67") + 4

        assert made.data[at] == 66
        assert made.data[at + 1] & 0x40  # constraint_set1: constrained baseline
        assert made.data[at + 2] <= 31

    def test_a_new_bit_rate_starts_with_a_key_frame(self) -> None:
        """Small changes are ignored, large ones restart the codec."""
        encoding = Encoding("h264", 320, 180, 30)
        rates = [START_BITRATE, int(START_BITRATE * 0.9), START_BITRATE // 4]
        keys = [encoding.encode(picture(k), k, key_frame=False, bitrate=r)[0].key_frame for k, r in enumerate(rates)]

        assert keys == [True, False, True]


class Watch:
    """Records what the broadcaster asks of the render thread."""

    def __init__(self) -> None:
        self.seen: list[bool] = []

    def __call__(self, watched: bool) -> None:
        self.seen.append(watched)


class Asked(EncoderThread):
    """An encoder thread that is not started and records what is asked of it."""

    def __init__(self) -> None:
        super().__init__(320, 180, 30, lambda _: None)
        self.keys: list[str] = []
        self.asked_twice = asyncio.Event()
        self.rates: dict[str, int] = {}

    def request_key_frame(self, codec: CodecName) -> None:
        self.keys.append(codec)
        if len(self.keys) == 2:
            self.asked_twice.set()

    def set_bitrate(self, codec: CodecName, bitrate: int) -> None:
        self.rates[codec] = bitrate


class TestHub:
    async def test_a_viewer_starts_with_a_key_frame(self) -> None:
        """Whatever comes before it is held back; joining asks for one."""
        encoder = Asked()
        broadcaster = Broadcaster(encoder, Watch())
        track = PacketTrack(broadcaster)
        broadcaster.join(track)
        broadcaster.deliver(packet(timestamp=1))
        broadcaster.deliver(packet(timestamp=2, key=True))
        broadcaster.deliver(packet(timestamp=3))

        assert encoder.keys == ["h264"]
        assert [(await track.recv()).pts for _ in range(2)] == [2, 3]

    async def test_each_viewer_gets_its_codec(self) -> None:
        """Packets go to those who agreed on their codec."""
        broadcaster = Broadcaster(Asked(), Watch())
        tracks: dict[CodecName, PacketTrack] = {"h264": PacketTrack(broadcaster), "vp8": PacketTrack(broadcaster)}
        for codec, track in tracks.items():
            track.codec = codec
            broadcaster.join(track)
        broadcaster.deliver(packet("vp8", key=True, timestamp=8))
        broadcaster.deliver(packet("h264", key=True, timestamp=4))

        assert (await tracks["vp8"].recv()).pts == 8
        assert (await tracks["h264"].recv()).pts == 4

    async def test_a_viewer_that_is_behind_starts_again(self) -> None:
        """A full queue is emptied, and a key frame asked for, instead of growing."""
        encoder = Asked()
        broadcaster = Broadcaster(encoder, Watch())
        track = PacketTrack(broadcaster)
        broadcaster.join(track)
        broadcaster.deliver(packet(key=True))
        for k in range(MAX_QUEUED):
            broadcaster.deliver(packet(timestamp=k))
        broadcaster.deliver(packet(timestamp=998))
        broadcaster.deliver(packet(timestamp=999, key=True))

        assert (await track.recv()).pts == 999
        await asyncio.wait_for(encoder.asked_twice.wait(), 2)

    async def test_drawing_follows_who_watches(self) -> None:
        """The first viewer starts it, the last one ends it; leaving twice is once."""
        watch = Watch()
        broadcaster = Broadcaster(Asked(), watch)
        one, two = PacketTrack(broadcaster), PacketTrack(broadcaster)
        broadcaster.join(one)
        broadcaster.join(two)
        for track in (one, one, two):
            broadcaster.leave(track)

        assert watch.seen == [True, True, True, False]

    async def test_the_slowest_viewer_sets_the_bit_rate(self) -> None:
        """One encoder serves all, so the least that anybody can take is what is sent."""
        encoder = Asked()
        broadcaster = Broadcaster(encoder, Watch())
        one, two = PacketTrack(broadcaster), PacketTrack(broadcaster)
        broadcaster.join(one)
        broadcaster.join(two)
        two.rate.on_loss(0.5)
        broadcaster.adapt()

        assert encoder.rates == {"h264": two.rate.target}

    async def test_key_frame_requests_are_bundled(self) -> None:
        """Many requests at once make one key frame now and one after the interval."""
        encoder = Asked()
        broadcaster = Broadcaster(encoder, Watch())
        for _ in range(20):
            broadcaster.request_key_frame("h264")
        assert len(encoder.keys) == 1
        await asyncio.wait_for(encoder.asked_twice.wait(), 2)


def test_an_encoder_that_fails_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """An exception in the encoder's thread is kept for the process to end with."""
    thread = EncoderThread(320, 180, 30, lambda _: None)
    thread.use({"h264"})
    thread.start()
    thread.submit("not a picture", 0)  # type: ignore[arg-type]
    thread._thread.join(5)

    assert isinstance(thread.failed, AttributeError)
    assert "the encoder failed" in caplog.text
