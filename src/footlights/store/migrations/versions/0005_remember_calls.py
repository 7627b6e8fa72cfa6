"""Remember calls, and what was wanted of nodes and releases"""

from __future__ import annotations

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Apply the change."""
