"""Find devices by uuid

One GPU may be reported by several nodes.
"""

from __future__ import annotations

from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    """Apply the change."""
    op.create_index("ix_device_uuid", "device", ["uuid"])
