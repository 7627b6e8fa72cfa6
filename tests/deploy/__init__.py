"""What deploy/ says is held against the code and against the tools that will read it, as far as they are here.

Needs no Docker engine and no booted systemd. Docker Compose, promtool and systemd-analyze are used where a machine has
them; everything else is always checked.
"""

from __future__ import annotations

from pathlib import Path

DEPLOY = Path(__file__).parents[2] / "deploy"
