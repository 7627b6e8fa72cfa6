"""The command line."""

from __future__ import annotations

import argparse
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

EPILOG = """\
Exit codes: 0 ended by SIGTERM or SIGINT; 2 bad arguments or a port that is taken; 3 the stage or the renderer
failed, then the last line of stderr is FOOTLIGHTS_FAILURE: {"reason": ..., "message": ...}.

GET http://127.0.0.1:HTTP_PORT/v1/streaming/ready answers 200 once the first frame is drawn.
POST http://.../whep on the signal port takes an SDP offer (WHEP).
"""


@dataclass(frozen=True, slots=True)
class ViewerOptions:
    """One session: its ports, its stage, its picture."""

    signal_port: int
    media_port: int
    http_port: int
    public_address: str = "127.0.0.1"
    usd_stage_uri: str = ""
    width: int = 1280
    height: int = 720
    fps: int = 30
    bind: str = "127.0.0.1"
    device_uuid: str = ""
    codec: Literal["auto", "h264", "vp8"] = "auto"
    renderer: Literal["auto", "software", "egl"] = "auto"
    ssaa: float = 0.0  # 0: as much as the machine keeps up with
    title: str = ""


def parse_options(arguments: Sequence[str] | None = None) -> ViewerOptions:
    """Read the command line; ends the process with code 2 if it is wrong, as argparse does."""
    parser = argparse.ArgumentParser(
        prog="footlights-viewer",
        description="Renders a USD stage and streams it over WebRTC.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--signal-port", type=_port, required=True, metavar="N", help="TCP port for WHEP")
    add("--media-port", type=_port, required=True, metavar="N", help="UDP port for media, shared by all viewers")
    add("--http-port", type=_port, required=True, metavar="N", help="TCP port for readiness and status")
    add("--public-address", default="127.0.0.1", metavar="IP", help="where viewers reach the media port")
    add("--usd-stage-uri", default="", metavar="URI", help="path, file:// or http(s)://; empty: a sample stage")
    add("--width", type=_IntegerBetween(64, 3840), default=1280, metavar="PIXELS")
    add("--height", type=_IntegerBetween(64, 2160), default=720, metavar="PIXELS")
    add("--fps", type=_IntegerBetween(1, 60), default=30, metavar="N")
    add("--bind", default="127.0.0.1", metavar="IP", help="address of the two TCP ports (default 127.0.0.1)")
    add("--device-uuid", default="", metavar="UUID", help="the device of this session, for the log")
    add("--codec", choices=("auto", "h264", "vp8"), default="auto", help="auto: H.264 where offered, else VP8")
    add("--renderer", choices=("auto", "software", "egl"), default="auto", help="auto is software")
    add("--ssaa", type=_ssaa, default=0.0, metavar="FACTOR", help="draw larger by 1..2 (default: by speed)")
    add("--title", default="", metavar="TEXT", help="shown in the picture instead of the stage's name")
    options = ViewerOptions(**vars(parser.parse_args(arguments)))
    if len({options.signal_port, options.http_port}) == 1:
        parser.error(f"--signal-port and --http-port are both {options.http_port}: they need two TCP ports")
    if options.width % 2 or options.height % 2:
        parser.error(f"--width {options.width} and --height {options.height} must be even")
    try:
        ipaddress.ip_address(options.bind)
    except ValueError:
        parser.error(f"--bind {options.bind!r} is not an IP address: use 127.0.0.1 or 0.0.0.0")
    return options


def _port(text: str) -> int:
    return _IntegerBetween(1, 65535)(text)


class _IntegerBetween:
    """An integer between two bounds."""

    def __init__(self, low: int, high: int) -> None:
        self._low, self._high = low, high

    def __call__(self, text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = self._low - 1
        if not self._low <= number <= self._high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {self._low} to {self._high}")
        return number


def _ssaa(text: str) -> float:
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not 1.0 <= factor <= 2.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 2")
    return factor
