"""Whether an application offers a picture: dials its signalling as NVIDIA's player does, and waits for the offer.

A Kit may listen, say that it is ready, take a player, and never offer anything, or sound alone: only an offer with a
picture proves that a viewer will see something. The server speaks first, in JSON, and expects each message with an
``ackid`` to be acknowledged; an offer is the member ``msg`` of ``peer_msg``, JSON in a text itself.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from typing import TYPE_CHECKING, Any, Final

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from footlights.launch.launchers import traits_of
from footlights.launch.probes import loopback
from footlights.protocol.launch_secrets import HEADER

if TYPE_CHECKING:
    from footlights.launch.launcher import LaunchPlan

_MOST_MESSAGES: Final = 32
_MOST_BYTES: Final = 1 << 20
_PICTURE: Final = re.compile(r"^m=video [1-9]", re.MULTILINE)
"""A medium that is not refused: one that is has port 0 (RFC 3264, section 6)."""
_CLOSE_S: Final = 0.2
"""How long a goodbye is waited for: not every server says it."""


class NoOffer(str):
    """Why no offer came, from an application that is ready for the rest."""

    __slots__ = ()


async def why_no_offer(plan: LaunchPlan, timeout_s: float, secret: str = "") -> str:
    """Return why no offer came, a ``NoOffer``; empty where one did. The player has left again.

    ``secret`` is the launch's: it is shown to an application that itself asks for it.
    """
    port, path = plan.ports.signal, plan.version.signaling.websocket_path
    peer = "".join(secrets.choice("0123456789") for _ in range(10))
    url = f"ws://{loopback.HOST}:{port}{path}?peer_id=peer-{peer}&version=2"
    where = f"{loopback.HOST}:{port}{path}"
    what, said = f"no offer came by {where}", ""
    source = traits_of(plan.version).asked_from
    try:
        async with (
            asyncio.timeout(timeout_s),
            connect(
                url,
                subprotocols=[f"x-nv-sessionid.{plan.session_id}"],  # type: ignore[list-item]  # a NewType of str
                additional_headers={HEADER: secret} if plan.version.signaling.checks_secret else None,
                local_addr=(source, 0) if source else None,
                max_size=_MOST_BYTES,
                open_timeout=timeout_s,
                close_timeout=_CLOSE_S,
                proxy=None,
            ) as player,
        ):
            for _ in range(_MOST_MESSAGES):
                message = _read(await player.recv())
                if "ackid" in message:
                    await player.send(json.dumps({"ack": message["ackid"]}))
                if isinstance(error := message.get("error"), str):
                    said = f", and the application says {error!r}"
                sdp = _offered(message)
                if sdp is not None:
                    return "" if _PICTURE.search(sdp) else NoOffer(f"the offer that came by {where} has no picture")
    except TimeoutError:
        return NoOffer(f"{what} within {timeout_s:.3g} s{said}")
    except (OSError, WebSocketException) as error:
        return NoOffer(f"{what}: {error or type(error).__name__}{said}")
    return NoOffer(f"{what} in {_MOST_MESSAGES} messages{said}")


def _read(text: str | bytes) -> dict[str, Any]:
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}


def _offered(message: dict[str, Any]) -> str | None:
    """Return the session description of an offer; None for any other message."""
    try:
        inner = json.loads(message["peer_msg"]["msg"])
        return str(inner["sdp"]) if inner["type"] == "offer" else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
