"""Who may use the two TCP ports: requests that carry the launch's secret (the launch contract).

The secret is the member ``FOOTLIGHTS_LAUNCH_SECRET`` of the session file, which the environment variable
``FOOTLIGHTS_SESSION_FILE`` names; the front door and the agent present it in the header ``Footlights-Launch-Secret``.
Without a session file, as when a person runs the viewer, every request is served.
"""

from __future__ import annotations

import hmac
import json
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp.typedefs import Middleware

log = logging.getLogger("footlights.viewer.access")

SESSION_FILE = "FOOTLIGHTS_SESSION_FILE"
MEMBER = "FOOTLIGHTS_LAUNCH_SECRET"
HEADER = "Footlights-Launch-Secret"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def read_secret(environment: Mapping[str, str] = os.environ) -> str:
    """Return the launch's secret; empty where there is no session file, or none in it.

    Raises OSError or ValueError where the file that is named cannot be read: it is not known then who may look.
    """
    name = environment.get(SESSION_FILE, "")
    if not name:
        return ""
    content = json.loads(Path(name).read_bytes())
    secret = content.get(MEMBER, "") if isinstance(content, dict) else None
    if not isinstance(secret, str):
        raise ValueError(f"{name} is no session file: it must be a JSON object, with a text as {MEMBER}")
    return secret


def require(secret: str) -> Middleware:
    """Return the middleware that refuses requests without the secret; an empty one refuses none."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        presented = request.headers.get(HEADER, "").encode("utf-8", "surrogateescape")
        # A browser's preflight carries no headers of its own, and is told nothing.
        if not secret or request.method == "OPTIONS" or hmac.compare_digest(presented, secret.encode()):
            return await handler(request)
        log.warning("refused %s %s from %s: no launch secret", request.method, request.path, request.remote)
        detail = f"the header {HEADER} lacks this launch's secret: connect through the front door"
        return web.json_response(
            {"title": "Unauthorized", "status": 401, "detail": detail},
            status=401,
            headers={"WWW-Authenticate": "Footlights-Launch-Secret"},
            content_type="application/problem+json",
        )

    return check
