"""What a node lacks for units to be a boundary. Every property of `unit` must hold, or none is relied on."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from footlights.linux import cgroups

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

MIN_VERSION: Final = 250
FEATURES: Final = {
    "+SECCOMP": "SystemCallFilter and RestrictNamespaces",
    "+BPF_FRAMEWORK": "SocketBindDeny",
}
"""What systemd must be built with, and for which of our properties."""
CONTROLLERS: Final = {"cpu": "CPUQuota", "memory": "MemoryMax", "pids": "TasksMax"}
V2: Final = "IPAddressDeny, SocketBindDeny"


def lacks(version: str, features: str, controllers: Collection[str] | None) -> str:
    """Say what is missing.

    Args:
        version: As ``systemctl --version`` shows it: ``257.9-1``.
        features: As there: ``+SECCOMP -APPARMOR …``.
        controllers: What `controllers` found.

    Returns:
        Empty where nothing is missing.
    """
    number = re.match(r"\d+", version)
    if number is None or int(number.group()) < MIN_VERSION:
        return f"systemd {version} is too old: {MIN_VERSION} or later is needed"
    built = set(features.split())
    for feature, properties in FEATURES.items():
        if feature not in built:
            return f"systemd {version} is built without {feature[1:]}: {properties} would not hold"
    if controllers is None:
        return f"there are no control groups v2: {V2} would not hold"
    for controller, name in CONTROLLERS.items():
        if controller not in controllers:
            return f"systemd has no controller {controller!r} for its control groups: {name} would not hold"
    return ""


def controllers(proc: Path, groups: Path) -> frozenset[str] | None:
    """Find the controllers that systemd has; None where it does not use control groups v2. Blocking.

    Args:
        proc: Where proc(5) is mounted.
        groups: Where control groups are mounted.
    """
    try:
        return frozenset((groups / "cgroup.controllers").read_text().split())
    except OSError:
        pass
    if not (groups / "unified" / "cgroup.controllers").exists():
        return None
    # Both versions: systemd has a controller of the first where its own process is in a group of its own there.
    found: set[str] = set()
    for line in (proc / "1" / "cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        found |= set(names.split(",")) if path != "/" else set()
    # It makes groups of this one only for units that ask.
    return frozenset(found | ({"cpu"} if (groups / "cpu").exists() else set()))


def populated(groups: Path, control_group: str) -> bool:
    """Whether there are processes in a control group or below it; a group that is gone has none. Blocking."""
    return any(cgroups.populated(root / control_group.lstrip("/")) for root in (groups, groups / "unified"))
