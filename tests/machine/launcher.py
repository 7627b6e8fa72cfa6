"""The launcher that runs in the machine."""

from __future__ import annotations

from pathlib import Path

from footlights.launch.caches import CacheStore
from footlights.launch.systemd.launcher import SystemdLauncher
from footlights.launch.systemd.manager import SystemBus
from footlights.launch.systemd.unit_journal import UnitJournal


def make(root: Path, *allowed_roots: str) -> SystemdLauncher:
    """Make one as the agent does."""
    caches = CacheStore(root.parent / "caches")
    return SystemdLauncher(root, SystemBus(), UnitJournal(), allowed_roots=allowed_roots, caches=caches)
