"""One viewer: an aiortc peer connection that sends the picture and receives input."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpSender, RTCSessionDescription
from aiortc.rtcpeerconnection import is_codec_compatible
from aiortc.rtp import RTCP_PSFB_APP, RtcpPsfbPacket, RtcpRrPacket, RtcpSrPacket, unpack_remb_fci
from aiortc.sdp import SessionDescription

from footlights.viewer.controls import parse
from footlights.viewer.stream.broadcast import Broadcaster, PacketTrack

if TYPE_CHECKING:
    from collections.abc import Callable

    from footlights.viewer.stream.encoder import CodecName
    from footlights.viewer.stream.media_port import Lane, MediaPort

log = logging.getLogger("footlights.viewer.stream.peer")

INPUT_CHANNEL = "footlights-input"
CONNECT_DEADLINE = 20.0  # seconds from the answer to a connection
SILENCE_DEADLINE = 10.0  # seconds; a live viewer sends receiver reports every second
CLOSE_DEADLINE = 2.0  # seconds

MIME_TYPES: dict[CodecName, str] = {"h264": "video/H264", "vp8": "video/VP8"}
CONSTRAINED_BASELINE = "42e0"
_H264_DEFAULTS = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"
_UFRAG = re.compile(r"^a=ice-ufrag:(\S+)", re.MULTILINE)
_H264 = re.compile(r"a=rtpmap:(\d+) H264/90000\s*", re.IGNORECASE)
_FMTP = re.compile(r"a=fmtp:(\d+) ")


class OfferRefused(Exception):
    """An offer that cannot be answered. The message gives the reason and what to offer instead."""


@dataclass(frozen=True, slots=True)
class PeerCallbacks:
    """What a viewer's connection calls, on the event loop."""

    on_end: Callable[[ViewerPeer], None]
    """Called once, however the connection ended."""
    on_input: Callable[[dict[str, Any]], None]
    """Called with each valid input message."""
    on_bad_input: Callable[[], None]
    """Called for each message that is not valid input."""
    greeting: Callable[[], list[dict[str, Any]]]
    """Returns the messages for a data channel that has just opened."""


class ViewerPeer:
    """One viewer, from its offer to its end."""

    def __init__(self, broadcaster: Broadcaster, port: MediaPort, callbacks: PeerCallbacks) -> None:
        self.resource = secrets.token_urlsafe(12)
        self._broadcaster = broadcaster
        self._port = port
        self._callbacks = callbacks
        self._track = PacketTrack(broadcaster)
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._lane: Lane | None = None
        self._channels: list[Any] = []
        self._joined = False
        self._remote_ufrags: frozenset[str] = frozenset()
        self._closing: asyncio.Task[None] | None = None
        self._began = time.monotonic()

    @property
    def connected(self) -> bool:
        """Whether media flows."""
        return self._joined

    @property
    def codec(self) -> CodecName:
        """The negotiated codec."""
        return self._track.codec

    async def answer(self, offer: str, codecs: list[CodecName]) -> str:
        """Answer an offer with the first of `codecs` that it has. Raises OfferRefused."""
        connection = self._connection
        offer = _with_h264_parameters(offer)
        self._remote_ufrags = frozenset(_UFRAG.findall(offer))
        transceiver = connection.addTransceiver(self._track, direction="sendonly")
        transceiver.setCodecPreferences(_preferences(offer, codecs))  # later ones would be ignored
        connection.on("datachannel", self._accept_channel)
        connection.on("connectionstatechange", self._connection_changed)
        try:
            await connection.setRemoteDescription(RTCSessionDescription(_without_candidates(offer), "offer"))
        except Exception as error:  # aiortc raises whatever its parser trips over
            raise OfferRefused(f"the SDP offer cannot be used: {error or type(error).__name__}") from error
        if transceiver.mid is None:
            raise OfferRefused("the SDP offer has no video that this application could send: offer recvonly video")
        for other in connection.getTransceivers():
            if other is not transceiver:
                other.direction = "inactive"
        transports = {t.sender.transport.transport for t in connection.getTransceivers()}
        if connection.sctp is not None:
            transports.add(connection.sctp.transport.transport)
        if len(transports) != 1:
            raise OfferRefused(
                "the SDP offer spreads its media over several transports: offer them in one BUNDLE group"
            )
        (transport,) = transports
        self._lane = self._port.adopt(transport.iceGatherer._connection)  # noqa: SLF001 - see mediaport
        self._listen_to_rtcp(transceiver.sender)
        try:
            await connection.setLocalDescription(await connection.createAnswer())
        except Exception as error:
            raise OfferRefused(f"the SDP offer cannot be answered: {error or type(error).__name__}") from error
        answer = str(connection.localDescription.sdp)
        self._track.codec = _agreed_codec(answer, transceiver.mid)
        return answer

    def restarts(self, fragment: str) -> bool:
        """Whether an SDP fragment asks for an ICE restart: it has another user name than the offer."""
        return not self._remote_ufrags.issuperset(_UFRAG.findall(fragment))

    def send(self, message: dict[str, Any]) -> None:
        """Send a message to the page, on each data channel that is open and read."""
        text = json.dumps(message)
        for channel in self._channels:
            if channel.readyState == "open" and channel.bufferedAmount < 65536:
                channel.send(text)

    @property
    def quiet_s(self) -> float:
        """For how many seconds nothing has come from the viewer; before it is connected, since its offer."""
        heard = self._lane.last_received if self._joined and self._lane is not None else self._began
        return time.monotonic() - heard

    def overdue(self) -> bool:
        """Whether the viewer did not connect in time, or has been silent for too long."""
        return self.quiet_s > (SILENCE_DEADLINE if self._joined else CONNECT_DEADLINE)

    def close(self) -> asyncio.Task[None]:
        """Close the connection; idempotent. The task ends within CLOSE_DEADLINE."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        return self._closing

    async def _close(self) -> None:
        self._joined = False
        self._broadcaster.leave(self._track)
        self._callbacks.on_end(self)
        self._track.stop()
        try:
            await asyncio.wait_for(self._connection.close(), CLOSE_DEADLINE)
        except Exception as error:  # its peer may be gone in any state
            log.info("viewer %s did not close cleanly: %r", self.resource, error)
        if self._lane is not None:
            self._lane.close()

    def _connection_changed(self) -> None:
        state = self._connection.connectionState
        log.info("viewer %s: %s", self.resource, state)
        if state == "connected" and not self._joined and self._closing is None:
            self._joined = True
            self._broadcaster.join(self._track)
        elif state in ("failed", "closed"):
            self.close()

    def _accept_channel(self, channel: Any) -> None:
        if channel.label != INPUT_CHANNEL:
            return
        self._channels.append(channel)
        channel.on("message", lambda raw: self._message(channel, raw))
        for message in self._callbacks.greeting():
            self.send(message)

    def _message(self, channel: Any, raw: str | bytes) -> None:
        message = parse(raw)
        if message is None:
            self._callbacks.on_bad_input()
        elif message["type"] == "ping":
            channel.send(json.dumps({"type": "pong", "t": message.get("t", 0)}))
        else:
            self._callbacks.on_input(message)

    def _listen_to_rtcp(self, sender: Any) -> None:
        """Aiortc answers key-frame requests and bit rates only for frames that it encodes itself; these are packets."""
        handle = sender._handle_rtcp_packet  # noqa: SLF001 - there is no public hook

        async def listen(packet: Any) -> None:
            rate = self._track.rate
            if isinstance(packet, RtcpRrPacket | RtcpSrPacket):
                for report in packet.reports:
                    rate.on_loss(report.fraction_lost / 256)
            elif isinstance(packet, RtcpPsfbPacket) and packet.fmt == RTCP_PSFB_APP:
                try:
                    bitrate, _ = unpack_remb_fci(packet.fci)
                except ValueError:
                    return
                rate.on_estimate(bitrate, self._broadcaster.sending)
            await handle(packet)

        sender._handle_rtcp_packet = listen  # noqa: SLF001
        sender._send_keyframe = lambda: self._broadcaster.request_key_frame(self._track.codec)  # noqa: SLF001


def _preferences(offer: str, codecs: list[CodecName]) -> list[Any]:
    """Aiortc's capabilities for the first of `codecs` that is offered; constrained baseline before baseline."""
    available: list[Any] = RTCRtpSender.getCapabilities("video").codecs
    try:
        medias = SessionDescription.parse(offer).media
    except Exception as error:  # aiortc raises whatever its parser trips over
        raise OfferRefused(f"the SDP offer cannot be read: {error or type(error).__name__}") from error
    offered = [codec for media in medias if media.kind == "video" for codec in media.rtp.codecs]
    for name in codecs:
        same = [c for c in available if c.mimeType == MIME_TYPES[name]]
        if any(_compatible(c, other) for c in same for other in offered):
            same.sort(key=lambda c: not str(c.parameters.get("profile-level-id", "")).startswith(CONSTRAINED_BASELINE))
            return [*same, *(c for c in available if c.mimeType == "video/rtx")]
    if not offered:
        raise OfferRefused("the SDP offer has no video that this application could send: offer recvonly video")
    raise OfferRefused(
        f"the SDP offer has none of {', '.join(MIME_TYPES[c] for c in codecs)} "
        "(H.264: packetization-mode 1, baseline): offer one of them"
    )


def _compatible(ours: Any, theirs: Any) -> bool:
    return bool(is_codec_compatible(ours, theirs))


def _with_h264_parameters(offer: str) -> str:
    """Add what players leave out of H.264: without it they mean packetization mode 0, and all of them take mode 1."""
    lines = offer.replace("\r\n", "\n").split("\n")
    parameters: dict[str, int] = {}
    for at, line in enumerate(lines):
        if found := _FMTP.match(line):
            parameters.setdefault(found[1], at)
    for at, line in enumerate(lines):
        if found := _H264.fullmatch(line):
            given = parameters.get(found[1])
            if given is None:
                lines[at] = f"{line}\r\na=fmtp:{found[1]} {_H264_DEFAULTS}"
            elif "packetization-mode" not in lines[given]:
                lines[given] = f"{lines[given].rstrip('; ')};packetization-mode=1"
    return "\r\n".join(lines)


def _without_candidates(offer: str) -> str:
    """Viewers call us, never the other way (see `mediaport`); this also saves waiting for their mDNS names."""
    lines = offer.replace("\r\n", "\n").split("\n")
    kept = [line for line in lines if not line.startswith(("a=candidate:", "a=end-of-candidates"))]
    return "\r\n".join(kept)


def _agreed_codec(answer: str, mid: str) -> CodecName:
    for media in SessionDescription.parse(answer).media:
        if media.rtp.muxId == mid and media.rtp.codecs:
            mime = media.rtp.codecs[0].mimeType.lower()
            for name, known in MIME_TYPES.items():
                if mime == known.lower():
                    return name
    raise OfferRefused("the SDP offer's video is not sendable: offer recvonly video")
