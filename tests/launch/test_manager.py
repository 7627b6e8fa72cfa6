"""systemd's manager over D-Bus, on a real message bus with a stand-in for systemd."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from dbus_fast import BusType
from dbus_fast.aio import MessageBus
from dbus_fast.message import Message

from footlights.launch.launchers import LAUNCHERS, LauncherSettings
from footlights.launch.systemd.manager import SystemBus, SystemdError
from footlights.launch.systemd.unit import UnitSettings
from tests.launch.plans import make_plan, script

SERVICE, MANAGER = "org.freedesktop.systemd1", "org.freedesktop.systemd1.Manager"
CONFIGURATION = """<busconfig><type>session</type><listen>unix:path={socket}</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/>
</policy></busconfig>"""


class Manager:
    """As much of systemd as a start takes. As there, signals are sent to those only that have subscribed."""

    def __init__(self, bus: MessageBus) -> None:
        self._bus = bus
        self.subscribed = 0
        self.properties: dict[str, Any] = {}

    def answer(self, message: Message) -> Message | None:
        if message.member == "Subscribe":
            self.subscribed += 1
            return Message.new_method_return(message)
        if message.member != "StartTransientUnit":
            return None
        self.properties = {name: value.value for name, value in message.body[2]}
        if self.subscribed:
            ended = [1, "/job/1", "a.service", "done"]
            signal = Message.new_signal("/org/freedesktop/systemd1", MANAGER, "JobRemoved", "uoss", ended)
            self._bus.send(signal)
        return Message.new_method_return(message, "o", ["/job/1"])


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    if shutil.which("dbus-daemon") is None:
        pytest.skip("dbus-daemon is not installed")
    (tmp_path / "bus.conf").write_text(CONFIGURATION.format(socket=tmp_path / "bus"))
    command = ["dbus-daemon", f"--config-file={tmp_path / 'bus.conf'}", "--nofork", "--print-address"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout is not None
        yield daemon.stdout.readline().strip()
        daemon.terminate()


@pytest.fixture
async def systemd(address: str) -> AsyncIterator[MessageBus]:
    bus = await MessageBus(address, bus_type=BusType.SYSTEM).connect()
    yield bus
    bus.disconnect()


async def test_a_connection_that_could_not_subscribe_is_not_used(address: str, systemd: MessageBus) -> None:
    """systemd was away when the bus was reached, as while it starts again: later, ends of jobs are heard."""
    manager, ours = Manager(systemd), SystemBus(address)
    with pytest.raises(SystemdError, match=SERVICE):
        await ours.start([UnitSettings("a.service", ())])

    systemd.add_message_handler(manager.answer)
    await systemd.request_name(SERVICE)
    assert await ours.start([UnitSettings("a.service", ())]) == "done"
    assert manager.subscribed == 1
    await ours.close()


async def test_a_unit_does_not_reach_containers(
    address: str, systemd: MessageBus, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the node's network their own addresses lead past published ports, whatever else the operator denies."""
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
    manager = Manager(systemd)
    systemd.add_message_handler(manager.answer)
    await systemd.request_name(SERVICE)
    settings = LauncherSettings(root=root, container_subnets="10.99.0.0/16", denied_networks=("192.0.2.0/24",))
    launcher = LAUNCHERS["systemd"].open(settings)
    version = script("true")
    version.systemd.SetInParent()

    with pytest.raises(SystemdError, match="GetUnit"):  # it is asked after the start, and not answered here
        await launcher.start(make_plan(version, root), b"{}")

    denied = {(bytes(network), bits) for _, network, bits in manager.properties["IPAddressDeny"]}
    assert {(bytes([10, 99, 0, 0]), 16), (bytes([192, 0, 2, 0]), 24)} < denied
    await launcher.close()
