"""The units on a booted systemd, installed as deploy/README.md says: what they confine still works."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deploy import DEPLOY
from tests.machine.machine import Machine

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

SYSTEMD = DEPLOY / "systemd"
FOOTLIGHTS = "/opt/footlights/bin/footlights"
UNITS = ("footlights-server", "footlights-agent")
APPLICATION = """
application: {application: pages}
versions:
  - version: 1.0.0
    command:
      - /bin/sh
      - -c
      - python3 -m http.server $1 & exec python3 -m http.server $2
      - sh
      - "{signal_port}"
      - "{http_port}"
    systemd: {}
    readiness: {check: HTTP, path: /}
releases: {default: 1.0.0}
"""


@pytest.fixture(scope="module")
def installed(machine: Machine) -> Iterator[Machine]:
    """Server and agent, installed by the steps of the page, on SQLite, with the drop-in for the systemd launcher."""
    root = Path(f"/proc/{machine.leader}/root")
    files = {
        "etc/sysusers.d/footlights.conf": (SYSTEMD / "footlights.sysusers.conf").read_text(),
        "etc/footlights/server.env": (SYSTEMD / "server.env.example").read_text() + "\nFOOTLIGHTS_AUTO_ACCEPT=true\n",
        "etc/footlights/agent.env": "FOOTLIGHTS_SERVER=127.0.0.1:50051\nFOOTLIGHTS_PUBLIC_ADDRESS=127.0.0.1\n"
        "FOOTLIGHTS_NODE=gpu-1\nFOOTLIGHTS_LAUNCHERS=systemd\nFOOTLIGHTS_DEVICES=software\n",
        "etc/systemd/system/footlights-agent.service.d/systemd.conf": (
            SYSTEMD / "footlights-agent-systemd.conf"
        ).read_text(),
        "root/pages.yaml": APPLICATION,
    }
    for unit in UNITS:
        files[f"etc/systemd/system/{unit}.service"] = (SYSTEMD / f"{unit}.service").read_text()
        # Where tests run, Python or the checkout may be in a home or temporary directory; the units show none.
        dropin = f"[Service]\nBindReadOnlyPaths={sys.base_prefix} {DEPLOY.parent}\n"
        if (home := Path(sys.base_prefix).parts[1]) in ("root", "home"):
            dropin += f"ProtectHome=no\nTemporaryFileSystem=/{home}:mode=0755\n"
        files[f"etc/systemd/system/{unit}.service.d/python.conf"] = dropin
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    (root / "opt/footlights/bin").mkdir(parents=True)
    (root / FOOTLIGHTS.lstrip("/")).symlink_to(Path(sys.executable).parent / "footlights")
    machine.run("systemd-sysusers")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "footlights-server")
    eventually(lambda: (root / "var/lib/footlights/admin.token").exists())
    secret = operator(machine, "tokens", "create", "--role", "node", "--subject", "gpu-1")
    (root / "etc/footlights/agent.token").write_text(secret)
    (root / "etc/footlights/agent.token").chmod(0o600)
    machine.run("systemctl", "start", "footlights-agent")
    yield machine
    machine.run("systemctl", "stop", *UNITS)


def test_a_confined_agent_starts_sessions_that_outlive_it(installed: Machine) -> None:
    """
    Both services run without a capability, under seccomp; a session becomes ready in a unit of its own, and goes on in
    it while the agent is restarted.
    """
    eventually(lambda: "gpu-1" in operator(installed, "nodes", "list", "-o", "name"))
    operator(installed, "apps", "apply", "-f", "/root/pages.yaml")
    session = operator(installed, "sessions", "create", "pages", "--wait", "-o", "name").strip()
    before = application(installed)
    first = properties(installed, "footlights-agent")

    installed.run("systemctl", "restart", "footlights-agent")
    eventually(lambda: shown(installed, session)["condition"] == "OK" and bool(application(installed)))

    for unit in UNITS:
        status = installed.run("cat", f"/proc/{properties(installed, unit)['MainPID']}/status")
        assert dict(re.findall(r"^(Cap(?:Prm|Eff|Bnd|Amb)|NoNewPrivs|Seccomp):\s+(\S+)", status, re.MULTILINE)) == {
            **dict.fromkeys(("CapPrm", "CapEff", "CapBnd", "CapAmb"), "0" * 16),
            "NoNewPrivs": "1",
            "Seccomp": "2",
        }
    assert properties(installed, "footlights-agent")["MainPID"] != first["MainPID"]
    assert application(installed) == before
    assert shown(installed, session)["state"] == "READY"
    assert "Operation not permitted" not in installed.run("journalctl", "--no-pager", "--unit=footlights-*")

    operator(installed, "sessions", "terminate", session)
    eventually(lambda: not application(installed))


def operator(machine: Machine, *words: str) -> str:
    """Run a command as the first operator."""
    return machine.run(FOOTLIGHTS, *words, "--token-file", "/var/lib/footlights/admin.token")


def shown(machine: Machine, session: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(operator(machine, "sessions", "show", session, "-o", "json"))
    return found


def properties(machine: Machine, unit: str) -> dict[str, str]:
    return dict(line.partition("=")[::2] for line in machine.run("systemctl", "show", unit).splitlines())


def application(machine: Machine) -> str:
    """The pid of the application of the only session, in the unit that the launcher made for it; empty without one."""
    named = machine.run("systemctl", "list-units", "--plain", "--no-legend", "--type=service", "footlights-*")
    units = [line.split()[0] for line in named.splitlines() if line.split()[0].removesuffix(".service") not in UNITS]
    return properties(machine, units[0])["MainPID"] if units else ""


def eventually(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.2)
