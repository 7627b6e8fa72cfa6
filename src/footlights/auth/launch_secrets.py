"""The secrets of launches at rest: made when a launch begins, sealed, and opened for its agent and the front door."""

from __future__ import annotations

from typing import TYPE_CHECKING

from footlights.protocol.launch_secrets import new_secret

if TYPE_CHECKING:
    from footlights.auth.secrets import Box


def seal_new(box: Box, launch_id: str) -> bytes:
    """Make the secret of a launch that begins; return it sealed."""
    return box.seal(new_secret().encode(), launch_id.encode())


def open_sealed(box: Box, launch_id: str, sealed: bytes | None) -> str:
    """Return a launch's secret; empty where it has none, as those of the release before.

    Raises Internal where it was sealed with another key.
    """
    return box.open(sealed, launch_id.encode()).decode() if sealed else ""
