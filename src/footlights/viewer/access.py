"""Who may use the two TCP ports: requests of who has the launch's secret (the launch contract).

The secret is the member ``FOOTLIGHTS_LAUNCH_SECRET`` of the session file, which the environment variable
``FOOTLIGHTS_SESSION_FILE`` names. The agent, on this machine, presents it in the header ``Footlights-Launch-Secret``.
The front door, over a network, proves that it has it: a request without a proof is refused with a challenge in the
header ``Footlights-Launch-Challenge``, and the header ``Footlights-Launch-Proof`` of the next one is ``NONCE.MAC``,
the MAC being HMAC-SHA256 in hexadecimal, by the secret, of ``footlights.launch.v1``, the challenge, the nonce, the
method and the request's target, joined by NUL. Each nonce is good once. Without a session file, as when a person runs
the viewer, every request is served.
"""

from __future__ import annotations

import hmac
import json
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from footlights.protocol.launch_secrets import CHALLENGE, HEADER, MEMBER, PROOF, Proofs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp.typedefs import Middleware

log = logging.getLogger("footlights.viewer.access")

SESSION_FILE = "FOOTLIGHTS_SESSION_FILE"
ROOTS_MEMBER = "FOOTLIGHTS_STAGE_ROOTS"
STAGE_MEMBER = "usd_stage_uri"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class SessionFile:
    """What the viewer takes from it."""

    secret: str = field(default="", repr=False)
    """Empty: every request is served."""
    stage_roots: tuple[str, ...] | None = None
    """What the stage may pull in must lie below them; None: everything."""
    usd_stage_uri: str = field(default="", repr=False)
    """The stage where its address is secret; empty: the command line has it."""


def read_session_file(environment: Mapping[str, str] = os.environ) -> SessionFile:
    """Return what the session file says; the defaults where none is named.

    Raises OSError or ValueError where the file that is named cannot be read: it is not known then who may look.
    """
    name = environment.get(SESSION_FILE, "")
    if not name:
        return SessionFile()
    content = json.loads(Path(name).read_bytes())
    secret = content.get(MEMBER, "") if isinstance(content, dict) else None
    if not isinstance(secret, str):
        raise ValueError(f"{name} is no session file: it must be a JSON object, with a text as {MEMBER}")
    roots = content.get(ROOTS_MEMBER)
    if roots is not None and not (isinstance(roots, list) and all(isinstance(root, str) for root in roots)):
        raise ValueError(f"{name} is no session file: {ROOTS_MEMBER} must be a list of texts")
    stage = content.get(STAGE_MEMBER, "")
    if not isinstance(stage, str):
        raise ValueError(f"{name} is no session file: {STAGE_MEMBER} must be a text")
    return SessionFile(secret, None if roots is None else tuple(roots), stage)


def require(secret: str) -> Middleware:
    """Return the middleware that refuses requests without the secret; an empty one refuses none."""
    proofs = Proofs(secret)

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        proof = request.headers.get(PROOF, "")
        # A browser's preflight carries no headers of its own, and is told nothing.
        if (
            not secret
            or request.method == "OPTIONS"
            or _same(secret, request.headers.get(HEADER, ""))
            or proofs.accept(proof, request.method, request.raw_path)
        ):
            return await handler(request)
        if proof or HEADER in request.headers:  # without, a front door asks for the challenge
            log.warning("refused %s %s from %s: no launch secret", request.method, request.path, request.remote)
        detail = f"the header {PROOF} lacks a proof of this launch's secret: connect through the front door"
        return web.json_response(
            {"title": "Unauthorized", "status": 401, "detail": detail},
            status=401,
            headers={"WWW-Authenticate": PROOF, CHALLENGE: proofs.challenge},
            content_type="application/problem+json",
        )

    return check


def _same(wanted: str, presented: str) -> bool:
    return hmac.compare_digest(wanted.encode(), presented.encode("utf-8", "surrogateescape"))
