"""What the agent says of its machine."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING

import footlights
from footlights.v1.node_pb2 import NodeFacts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from footlights.agent.config import AgentConfig


def node_facts(
    config: AgentConfig,
    *,
    driver_version: str,
    launchers: Sequence[str],
    notes: Sequence[str],
    port_blocks: int,
) -> NodeFacts:
    """Put together what is configured and what the machine is."""
    return NodeFacts(
        hostname=platform.node(),
        os=_os(),
        agent_version=footlights.__version__,
        driver_version=driver_version,
        public_address=config.public_address,
        signal_address=config.signal_address or config.public_address,
        launchers=launchers,
        labels=dict(config.labels),
        notes=notes,
        port_blocks=port_blocks,
        boot_id=_boot_id(),
    )


def _boot_id() -> str:
    """What the kernel calls this boot (proc_sys_kernel(5)); empty where it does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _os() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return f"{platform.system()} {platform.release()}"
