from __future__ import annotations

import dataclasses
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.deploy import DEPLOY
from tests.deploy.commands import accept, env_file

SYSTEMD = DEPLOY / "systemd"
UNITS = ("footlights-server", "footlights-server@", "footlights-agent")
_EXECUTABLE = "/opt/footlights/bin/footlights"
_DIRECTORIES = {"STATE_DIRECTORY": "/var/lib/footlights", "CREDENTIALS_DIRECTORY": "/run/credentials/unit"}

analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not on this machine")


@analyze
@pytest.mark.parametrize(
    ("unit", "dropins"),
    [
        *((unit, ()) for unit in UNITS),
        ("footlights-server", ("footlights-server-tls.conf",)),
        ("footlights-server@", ("footlights-server-tls.conf",)),
        ("footlights-agent", ("footlights-agent-process.conf",)),
        ("footlights-agent", ("footlights-agent-enrolled.conf",)),
        ("footlights-agent", ("footlights-agent-systemd.conf",)),
        ("footlights-agent", ("footlights-agent-signaling.conf",)),
    ],
)
def test_systemd_reads_the_unit(unit: str, dropins: Sequence[str], tmp_path: Path) -> None:
    """
    systemd-analyze finds nothing to say about a unit, alone and with each of its drop-ins.
    """
    installed = _install(unit, tmp_path, dropins)

    run = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", installed], capture_output=True, text=True, check=False
    )

    assert (run.returncode, run.stderr) == (0, "")


@analyze
@pytest.mark.parametrize(
    ("unit", "dropins", "most"),
    [
        ("footlights-server", (), 20),
        ("footlights-agent", (), 20),
        ("footlights-agent", ("footlights-agent-systemd.conf",), 25),
    ],
    ids=["server", "agent", "agent as root"],
)
def test_services_are_confined(unit: str, dropins: Sequence[str], most: int, tmp_path: Path) -> None:
    """
    The exposure of server and agent is at most 2 of 10 by systemd's own count; 2.5 where an agent must be root.
    """
    installed = _install(unit, tmp_path, dropins)

    run = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={most}", installed],
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 0, run.stdout[-400:] + run.stderr


def test_an_agent_is_hardened_as_a_server_is() -> None:
    """
    Each restriction of the server's unit is in the agent's with the same value, except those that hide the driver's
    device nodes or other processes, and the socket by which the agent lists the machine's addresses.
    """
    server, agent = (_settings(f"footlights-{name}.service") for name in ("server", "agent"))
    confining = [name for name in list(server)[list(server).index("NoNewPrivileges") :] if name != "WantedBy"]
    differing = {name for name in confining if agent.get(name) != server[name]}

    assert len(confining) > 20
    assert differing == {"PrivateDevices", "PrivateUsers", "ProtectProc", "ProcSubset", "RestrictAddressFamilies"}
    assert agent["RestrictAddressFamilies"] == [f"{server['RestrictAddressFamilies'][0]} AF_NETLINK"]
    assert agent["DevicePolicy"] == ["closed"]


def test_sessions_outlive_the_agent() -> None:
    """
    Where the agent starts applications itself, restarting its unit stops the agent alone, and takes away nothing that
    its sessions use; no restriction of the unit hides a device or breaks what applications do.
    """
    settings = _settings("footlights-agent.service") | _settings("footlights-agent-process.conf")

    assert settings["KillMode"] == ["process"]
    assert settings["Delegate"] == ["yes"]
    assert settings["OOMPolicy"] == ["continue"]
    assert settings["TasksMax"] == ["infinity"]
    for name in ("PrivateTmp", "RemoveIPC", "ProtectClock", "RestrictNamespaces", "ProtectControlGroups"):
        assert settings[name] == ["no"]
    for name in ("DeviceAllow", "SystemCallFilter", "RestrictAddressFamilies"):
        assert settings[name] == [""]
    assert not settings.keys() & {"RuntimeDirectory", "OOMScoreAdjust", "MemoryMax", "MemoryDenyWriteExecute"}


def test_an_agent_that_is_root_keeps_no_capability() -> None:
    """
    For the systemd launcher the agent is root to systemd, and to nothing else: the drop-in lifts no restriction.
    """
    settings = _settings("footlights-agent-systemd.conf")

    assert settings == {"User": ["root"], "Group": ["root"]}
    assert _settings("footlights-agent.service")["CapabilityBoundingSet"] == [""]


def test_a_replica_is_the_same_unit() -> None:
    """
    The template differs from the unit of a single server in its name, its directory and a second environment file.
    """
    single, template = (_settings(f"footlights-server{mark}.service") for mark in ("", "@"))

    assert {name for name in single if single[name] != template[name]} == {
        "Description",
        "EnvironmentFile",
        "StateDirectory",
    }
    assert single.keys() == template.keys()
    assert template["EnvironmentFile"] == [*single["EnvironmentFile"], "/etc/footlights/server-%i.env"]


def test_agent_keeps_its_gpus() -> None:
    """
    The agent's unit shows the driver's device nodes, and the processes that use them.
    """
    settings = _settings("footlights-agent.service")

    assert settings["DeviceAllow"] == ["char-nvidia* rw", "char-drm rw"]
    assert not settings.keys() & {"PrivateDevices", "ProtectProc", "ProcSubset", "PrivateUsers"}
    assert settings["SupplementaryGroups"] == ["video render"]


@pytest.mark.parametrize(
    ("file", "example"),
    [
        ("footlights-server.service", "server.env.example"),
        ("footlights-server@.service", "server.env.example"),
        ("footlights-server-tls.conf", "server.env.example"),
        ("footlights-agent-enrolled.conf", "agent.env.example"),
        ("footlights-agent.service", "agent.env.example"),
    ],
)
@pytest.mark.parametrize("commented", [False, True], ids=["as it is", "all of it"])
def test_commands_are_accepted(file: str, example: str, commented: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Our CLI takes the command line of each unit with the example environment, and with every line of it uncommented.
    """
    environment = env_file((SYSTEMD / example).read_text(), commented=commented)
    command = next(line for line in _settings(file)["ExecStart"] if line)
    for name, directory in _DIRECTORIES.items():
        command = command.replace(f"${{{name}}}", directory)

    accepted = accept(monkeypatch, shlex.split(command), environment)

    assert "$" not in command
    assert str(accepted.record.data_dir) == "/var/lib/footlights"


def test_example_values_mean_what_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Values with several parts arrive as such.
    """
    agent = accept(
        monkeypatch,
        ["footlights", "agent", "--token-file", "/x"],
        env_file((SYSTEMD / "agent.env.example").read_text(), commented=True),
    ).record
    server = accept(
        monkeypatch,
        ["footlights", "server"],
        env_file((SYSTEMD / "server.env.example").read_text(), commented=True),
    ).record

    assert dict(agent.labels) == {"zone": "a", "rack": "12"}
    assert agent.tls
    assert server.cors_origins == ("https://app.example.com", "https://admin.example.com")


@pytest.mark.parametrize("commented", [False, True], ids=["as it is", "all of it"])
def test_nothing_leaves_the_machine_without_tls(commented: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    As it comes only loopback is listened on; where an operator lets it leave, the server makes its certificate.
    """
    environment = env_file((SYSTEMD / "server.env.example").read_text(), commented=commented)
    server = accept(monkeypatch, ["footlights", "server"], environment).record
    opened = [dataclasses.replace(server, **{f"{name}_listen": "0.0.0.0:0"}) for name in ("http", "grpc", "admin")]
    beyond = {
        name for name in ("http", "grpc", "agents", "peers", "admin") if _leaves(getattr(server, f"{name}_listen"))
    }

    assert not server.insecure
    assert all(server.is_mutual(f"{name}_listen") for name in beyond)
    assert [each.needs_certificate for each in (server, *opened)] == [False, True, True, True]


def test_secrets_are_credentials() -> None:
    """
    Tokens and keys reach the services by LoadCredential, never by the environment or the command line.
    """
    agent, tls = _settings("footlights-agent.service"), _settings("footlights-server-tls.conf")
    enrolled = _settings("footlights-agent-enrolled.conf")

    assert agent["LoadCredential"] == ["token:/etc/footlights/agent.token"]
    assert enrolled["LoadCredential"] == ["", "code:/etc/footlights/agent.code"]
    assert enrolled["SetCredential"] == ["code:\\x0a"]  # the file may be removed when the code is traded
    assert [name.partition(":")[0] for name in tls["LoadCredential"]] == ["tls.crt", "tls.key"]
    assert "FOOTLIGHTS_TOKEN=" not in (SYSTEMD / "agent.env.example").read_text()


def _settings(file: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", (SYSTEMD / file).read_text(), re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


def _install(unit: str, directory: Path, names: Sequence[str]) -> Path:
    """Lay a unit and drop-ins of it out as README says, with this environment's executable; return what to look at."""
    ours = str(Path(sys.executable).parent / "footlights")
    dropins = directory / f"{unit}.service.d"
    dropins.mkdir()
    (directory / f"{unit}.service").write_text((SYSTEMD / f"{unit}.service").read_text().replace(_EXECUTABLE, ours))
    for name in names:
        (dropins / name).write_text((SYSTEMD / name).read_text().replace(_EXECUTABLE, ours))
    return directory / (f"{unit}a.service" if unit.endswith("@") else f"{unit}.service")


def _leaves(address: str) -> bool:
    return bool(address) and not address.startswith("127.0.0.1:")
