"""The parts of an agent as its configuration names them, and the lock on its data directory."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING

from footlights.devices.detect import detect
from footlights.errors import FailedPrecondition, InvalidArgument, LocalReason
from footlights.ids import is_loopback
from footlights.launch.launchers import LAUNCHERS, LauncherSettings
from footlights.linux.files import lock_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from footlights.agent.config import AgentConfig
    from footlights.devices.reading import Devices
    from footlights.launch.launcher import Launcher


async def make_devices(config: AgentConfig) -> Devices:
    """Make the devices that the operator chose; no driver is asked. Raises InvalidArgument."""
    try:
        return await asyncio.to_thread(
            detect,
            config.devices,
            identity=config.node,
            software_count=config.software_devices,
            patience_s=config.device_timeout_s / 2,
        )
    except (ValueError, OSError, ImportError) as error:
        raise InvalidArgument("devices", str(error)) from error


def make_launchers(config: AgentConfig) -> dict[str, Launcher]:
    """Make the launchers that the operator enabled; others are not even imported."""
    return {name: make_launcher(config, name) for name in config.launchers}


def make_launcher(config: AgentConfig, name: str) -> Launcher:
    """Make one, enabled or not."""
    settings = LauncherSettings(
        root=config.data_dir.absolute() / "launches",
        protected=config.data_dir.absolute(),
        caches=config.data_dir.absolute() / "caches",
        container_engine=config.container_engine,
        container_socket=config.container_socket,
        signal_host=config.entrance_host,
        media_host="127.0.0.1" if is_loopback(config.public_address) else "",
        allowed_roots=config.allowed_roots,
        writable_roots=config.writable_roots,
        shared_volumes=config.shared_volumes,
        image_registries=config.image_registries,
        image_digests=config.image_digests,
        denied_networks=config.denied_networks,
        container_subnets=config.container_subnets,
    )
    return LAUNCHERS[name].open(settings)


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the data directory: two agents with one journal would start everything twice. Raises FailedPrecondition."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        descriptor = lock_file(directory / "agent.lock")
    except BlockingIOError as error:
        text = f"data_dir: another agent uses {directory}. Stop it, or give this one a directory of its own."
        raise FailedPrecondition(text, reason=LocalReason.DATA_DIR_LOCKED) from error
    try:
        yield
    finally:
        os.close(descriptor)
