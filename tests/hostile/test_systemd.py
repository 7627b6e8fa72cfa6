"""The attacks against the `systemd` launcher, on a booted systemd: none succeeds."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest
from footlights.v1.application_pb2 import Systemd, Version

from footlights.launch.launcher import Launcher
from tests.hostile.judge import ATTACKS, MIB, Setting, judge
from tests.launch.plans import command
from tests.machine.launcher import make
from tests.machine.machine import Machine
from tests.machine.remote import Remote

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]


def unit(argv: list[str]) -> Version:
    version = command(*argv)
    # Its files are in memory: each of the three places has a sixth of what it may use.
    version.systemd.CopyFrom(Systemd(memory_bytes=192 * MIB, disk_bytes=16 * MIB, tasks=128, processors=1.0))
    return version


@pytest.fixture
async def setting(machine: Machine) -> AsyncIterator[Setting]:
    root = machine.directory / f"hostile-{secrets.token_hex(4)}" / "launches"
    root.mkdir(mode=0o700, parents=True)
    remote = Remote(machine.enter, make, root)
    yield Setting(
        launcher=cast("Launcher", remote),
        root=root,
        version=unit,
        on_node=machine.enter,
        kept_in=(Path(f"/proc/{machine.leader}/root/run/log/journal"), Path(f"/proc/{machine.leader}/root/var")),
        loses_output=True,
        sockets=("/run/dbus/system_bus_socket", "/run/systemd/private", "/run/systemd/journal/stdout"),
    )
    await remote.disconnect()


@pytest.mark.parametrize("attack", ATTACKS)
async def test_no_attack_succeeds(attack: str, setting: Setting) -> None:
    """A unit reads, stops, fills and reaches nothing that is not its own."""
    verdict = await judge(setting, attack)

    assert not verdict.succeeded, verdict.evidence
