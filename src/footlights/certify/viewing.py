"""Viewers of a trial, connected as the front door connects them: with the launch's secret, by WHEP or a WebSocket."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from footlights.frontdoor.answers import FrontDoorError
from footlights.frontdoor.interfaces import Limits, Target
from footlights.frontdoor.node_client import NodeReply, exchange, proof_of
from footlights.launch.probes import loopback

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from footlights.certify.trial import Trial

_LIMITS: Final = Limits()
_STAYS_S: Final = 1.0
"""How long a WebSocket must stay open to be a viewer that was let in."""
_CREATED: Final = 201
_SDP: Final = (("Content-Type", "application/sdp"),)

OFFER: Final = "\r\n".join(
    (
        "v=0",
        "o=- 1 1 IN IP4 127.0.0.1",
        "s=-",
        "t=0 0",
        "a=group:BUNDLE 0",
        "m=video 9 UDP/TLS/RTP/SAVPF 96 102",
        "c=IN IP4 0.0.0.0",
        "a=mid:0",
        "a=recvonly",
        "a=rtcp-mux",
        "a=ice-ufrag:cert",
        "a=ice-pwd:certifycertifycertifycertify",
        "a=fingerprint:sha-256 " + ":".join(["AB"] * 32),
        "a=setup:actpass",
        "a=rtpmap:96 VP8/90000",
        "a=rtpmap:102 H264/90000",
        "a=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f",
        "",
    )
)
"""An offer to receive video by VP8 or H264, from somebody who then sends nothing."""


async def try_viewers(trial: Trial, count: int) -> list[str]:
    """Connect viewers one after the other, and keep them; return for each why it was not let in, empty where it was."""
    async with contextlib.AsyncExitStack() as stack:
        return [await stack.enter_async_context(_viewer(trial)) for _ in range(count)]


async def try_stranger(trial: Trial) -> str:
    """Connect without the launch's secret; return how that was answered, empty where it was refused."""
    try:
        async with asyncio.timeout(_LIMITS.answer_timeout_s):
            status, _ = await loopback.ask(trial.ports.entrance, trial.viewer_path, method="POST", body=OFFER.encode())
    except (OSError, EOFError, ValueError, TimeoutError):
        return ""
    return "" if status in (401, 403) else f"it answered {status}"


@contextlib.asynccontextmanager
async def _viewer(trial: Trial) -> AsyncIterator[str]:
    path = trial.viewer_path
    if trial.record.assignment.version.signaling.whep_path:
        try:
            reply = await _whep(trial, "POST", path, OFFER.encode())
            why = "" if reply.status == _CREATED else f"{reply.status}, {bytes(reply.body[:200])!r}"
        except FrontDoorError as error:
            reply, why = NodeReply(), str(error)
        yield why
        if location := reply.header("location"):
            with contextlib.suppress(FrontDoorError):
                await _whep(trial, "DELETE", location)
        return
    url = f"ws://{loopback.HOST}:{trial.ports.entrance}{path}"
    try:
        headers = await proof_of(_target(trial, path), "GET", path, _LIMITS)
        async with connect(
            url, additional_headers=headers, open_timeout=_LIMITS.answer_timeout_s, proxy=None
        ) as socket:
            closed = asyncio.ensure_future(socket.wait_closed())
            await asyncio.wait({closed}, timeout=_STAYS_S)
            closed.cancel()
            yield f"it was closed, {socket.close_code}" if socket.close_code else ""
    except (OSError, WebSocketException, TimeoutError, FrontDoorError) as error:
        yield str(error) or type(error).__name__


async def _whep(trial: Trial, method: str, path: str, body: bytes = b"") -> NodeReply:
    return await exchange(_target(trial, path), method, path, _SDP, body, _LIMITS)


def _target(trial: Trial, path: str) -> Target:
    entrance = trial.ports.entrance
    return Target(loopback.HOST, entrance, path, "", "READY", dialled=(loopback.HOST,), secret=trial.secret)
