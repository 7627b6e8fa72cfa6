"""A launch's secret: shows an application, or the agent in front of it, that a request comes from the front door.

The control plane makes one for each launch and keeps it sealed. The agent is sent it with the assignment and gives it
to the application in its session file; the front door presents it in a header. Whoever else reaches the port lacks it.
"""

from __future__ import annotations

import hmac
import secrets
from typing import Final

HEADER: Final = "Footlights-Launch-Secret"
"""The header of every request of the front door to an application, and of the agent's probes."""

MEMBER: Final = "FOOTLIGHTS_LAUNCH_SECRET"
"""The member of the session file; arguments are in lower case, so none has this name."""

_PREFIX: Final = "fls_"
_BYTES: Final = 32


def new_secret() -> str:
    """Return a new secret; its prefix lets logs redact it."""
    return _PREFIX + secrets.token_urlsafe(_BYTES)


def matches(secret: str, presented: str) -> bool:
    """Whether what was presented is the secret; compared in constant time. Nothing matches an empty secret."""
    return bool(secret) and hmac.compare_digest(secret.encode(), presented.encode("utf-8", "surrogateescape"))
