"""Sends a running application the stage of its session, where its version is given it by HTTP.

``POST http://127.0.0.1:{http_port}{path}`` with ``{"usd_stage_uri": "…"}``; it answers 2xx once it has taken it.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Final

from footlights.launch.launchers import traits_of
from footlights.launch.probes import loopback

if TYPE_CHECKING:
    from footlights.launch.launcher import LaunchPlan

TIMEOUT_S: Final = 30.0
_MOST_WORDS: Final = 200


class StageRefused(Exception):
    """The application does not take this stage: it says so by a 4xx, and asking again would not help."""


async def send_stage(plan: LaunchPlan, uri: str, *, secret: str = "", timeout_s: float = TIMEOUT_S) -> str:
    """Send a stage once; return why it was not taken, empty where it was. No message has its query.

    Args:
        plan: The launch.
        uri: The stage, whole.
        secret: The launch's.
        timeout_s: How long it may take.

    Raises:
        StageRefused: the application answers by a 4xx.
    """
    path, source = plan.version.stage_delivery.path, traits_of(plan.version).asked_from
    asked = f"POST 127.0.0.1:{plan.ports.http}{path} with the stage"
    try:
        async with asyncio.timeout(timeout_s):
            status, answer = await loopback.ask(
                plan.ports.http,
                path,
                method="POST",
                body=json.dumps({"usd_stage_uri": uri}).encode(),
                secret=secret,
                source=source,
            )
    except TimeoutError:
        return f"{asked}: no answer within {timeout_s:.3g} s"
    except (OSError, ValueError, EOFError) as error:
        return f"{asked}: {type(error).__name__}"
    if 200 <= status < 300:
        return ""
    said = answer[:_MOST_WORDS].decode("utf-8", "replace").replace(uri, "the stage").strip()
    if "?" in uri and uri.partition("?")[2] in said:
        said = ""  # a signature is in no message
    problem = f"{asked}: {status}" + (f", {said}" if said else "")
    if 400 <= status < 500:
        raise StageRefused(problem)
    return problem
