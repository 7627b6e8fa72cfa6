from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
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
@pytest.mark.parametrize("unit", UNITS)
def test_systemd_reads_the_unit(unit: str, tmp_path: Path) -> None:
    """
    systemd-analyze finds nothing to say about a unit, the drop-in for TLS included.
    """
    _install(unit, tmp_path)
    installed = f"{unit}a.service" if unit.endswith("@") else f"{unit}.service"

    run = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / installed],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (run.returncode, run.stderr) == (0, "")


@analyze
def test_server_is_confined(tmp_path: Path) -> None:
    """
    The control plane's exposure is at most 2 of 10 by systemd's own count.
    """
    _install("footlights-server", tmp_path)

    run = subprocess.run(
        [
            "systemd-analyze",
            "security",
            "--offline=true",
            "--no-pager",
            "--threshold=20",
            tmp_path / f"{UNITS[0]}.service",
        ],
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 0, run.stdout[-400:] + run.stderr


def test_sessions_outlive_the_agent() -> None:
    """
    Restarting the agent's unit stops the agent alone, and takes away nothing that its sessions use.
    """
    settings = _settings("footlights-agent.service")

    assert settings["KillMode"] == ["process"]
    assert settings["Delegate"] == ["yes"]
    assert settings["OOMPolicy"] == ["continue"]
    assert settings["TasksMax"] == ["infinity"]
    assert not settings.keys() & {"PrivateTmp", "RuntimeDirectory", "OOMScoreAdjust", "MemoryMax"}


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
    Nothing in the agent's unit hides devices, other processes, or the mappings that drivers and JITs write to.
    """
    settings = _settings("footlights-agent.service")

    hiding = {"PrivateDevices", "DevicePolicy", "DeviceAllow", "ProtectClock", "ProtectProc", "ProcSubset"}
    assert not settings.keys() & hiding
    assert not settings.keys() & {"MemoryDenyWriteExecute", "PrivateUsers", "RestrictNamespaces", "SystemCallFilter"}


@pytest.mark.parametrize(
    ("file", "example"),
    [
        ("footlights-server.service", "server.env.example"),
        ("footlights-server@.service", "server.env.example"),
        ("footlights-server-tls.conf", "server.env.example"),
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


def test_secrets_are_credentials() -> None:
    """
    Tokens and keys reach the services by LoadCredential, never by the environment or the command line.
    """
    agent, tls = _settings("footlights-agent.service"), _settings("footlights-server-tls.conf")

    assert agent["LoadCredential"] == ["token:/etc/footlights/agent.token"]
    assert [name.partition(":")[0] for name in tls["LoadCredential"]] == ["tls.crt", "tls.key"]
    assert "FOOTLIGHTS_TOKEN=" not in (SYSTEMD / "agent.env.example").read_text()


def _settings(file: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", (SYSTEMD / file).read_text(), re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


def _install(unit: str, directory: Path) -> None:
    """Lay a unit out as README says, with this environment's executable."""
    ours = str(Path(sys.executable).parent / "footlights")
    (directory / f"{unit}.service").write_text((SYSTEMD / f"{unit}.service").read_text().replace(_EXECUTABLE, ours))
    for path in SYSTEMD.glob(f"{unit.removesuffix('@')}-*.conf"):
        dropins = directory / f"{unit}.service.d"
        dropins.mkdir(exist_ok=True)
        (dropins / path.name).write_text(path.read_text().replace(_EXECUTABLE, ours))
