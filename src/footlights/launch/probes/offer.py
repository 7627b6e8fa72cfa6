"""Whether an application offers a picture: dials its signalling as NVIDIA's player does, and waits for the offer.

A Kit may listen, say that it is ready, take a player, and never offer anything: only an offer proves that a viewer will
see something. The server speaks first, in JSON; an offer is the member ``msg`` of ``peer_msg``, JSON in a text itself.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from typing import TYPE_CHECKING, Final

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from footlights.launch.launchers import traits_of
from footlights.launch.probes import loopback

if TYPE_CHECKING:
    from footlights.launch.launcher import LaunchPlan

_MOST_MESSAGES: Final = 32
_MOST_BYTES: Final = 1 << 20
_CLOSE_S: Final = 0.2
"""How long a goodbye is waited for: not every server says it."""


class NoOffer(str):
    """Why no offer came, from an application that is ready for the rest."""

    __slots__ = ()


async def why_no_offer(plan: LaunchPlan, timeout_s: float) -> str:
    """Return why no offer came, a ``NoOffer``; empty where one did. The player has left again."""
    port, path = plan.ports.signal, plan.version.signaling.websocket_path
    peer = "".join(secrets.choice("0123456789") for _ in range(10))
    url = f"ws://{loopback.HOST}:{port}{path}?peer_id=peer-{peer}&version=2"
    what = f"no offer came by {loopback.HOST}:{port}{path}"
    source = traits_of(plan.version).asked_from
    try:
        async with (
            asyncio.timeout(timeout_s),
            connect(
                url,
                subprotocols=[f"x-nv-sessionid.{plan.session_id}"],  # type: ignore[list-item]  # a NewType of str
                local_addr=(source, 0) if source else None,
                max_size=_MOST_BYTES,
                open_timeout=timeout_s,
                close_timeout=_CLOSE_S,
                proxy=None,
            ) as player,
        ):
            for _ in range(_MOST_MESSAGES):
                if _is_offer(await player.recv()):
                    return ""
    except TimeoutError:
        return NoOffer(f"{what} within {timeout_s:.3g} s")
    except (OSError, WebSocketException) as error:
        return NoOffer(f"{what}: {error or type(error).__name__}")
    return NoOffer(f"{what} in {_MOST_MESSAGES} messages")


def _is_offer(text: str | bytes) -> bool:
    try:
        return bool(json.loads(json.loads(text)["peer_msg"]["msg"])["type"] == "offer")
    except (ValueError, TypeError, KeyError, RecursionError):
        return False
