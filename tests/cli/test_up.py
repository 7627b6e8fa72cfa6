"""``footlights up`` as a user runs it: real processes, a real control plane, a real agent (`up`, `waits`)."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

NO_PROXY_THERE = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY"), "http://127.0.0.1:9")
MISLEADING = {
    "FOOTLIGHTS_PUBLIC_URL": "https://elsewhere.example",
    "FOOTLIGHTS_SERVER": "10.0.0.1:1",
    **NO_PROXY_THERE,
}
"""Settings of a shell that was used for another control plane, or behind a proxy: they must not get in."""

KIT_LIBRARY = Path(__file__).parents[1] / "browser" / "kit_library"
FOOTLIGHTS = (sys.executable, "-m", "footlights.cli")

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]


@dataclass
class Up:
    """A running ``footlights up``."""

    process: subprocess.Popen[bytes]
    directory: Path

    @property
    def out(self) -> str:
        return (self.directory / "out").read_text()

    @property
    def err(self) -> str:
        return (self.directory / "err").read_text()

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def wait_printed(self) -> None:
        until(lambda: "/console/" in self.out or self.process.poll() is not None, 90)
        assert self.process.poll() is None, self.err

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        found = re.search(r"export FOOTLIGHTS_SERVER=(\S+) FOOTLIGHTS_TOKEN_FILE=(\S+)", self.err)
        assert found is not None
        environ = {**os.environ, "FOOTLIGHTS_SERVER": found[1], "FOOTLIGHTS_TOKEN_FILE": found[2]}
        environ |= NO_PROXY_THERE
        environ.pop("FOOTLIGHTS_TOKEN", None)
        return subprocess.run(
            [*FOOTLIGHTS, *arguments], capture_output=True, text=True, timeout=90, check=False, env=environ
        )


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        process = subprocess.Popen(
            [
                *(*FOOTLIGHTS, "up", "--data-dir", str(tmp_path / "data"), "--devices", "software"),
                *("--kit-library", str(KIT_LIBRARY), "--nvcf"),
            ],
            stdout=out,
            stderr=err,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **MISLEADING},
        )
    running = Up(process, tmp_path)
    try:
        yield running
    finally:
        for left in running.descendants() if process.poll() is None else []:
            with contextlib.suppress(psutil.NoSuchProcess):
                left.kill()
        process.kill()
        process.wait(10)


def until(condition: Callable[[], bool], deadline_s: float) -> None:
    """Wait for what another process does."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.05)


def gone(processes: list[psutil.Process]) -> bool:
    return not [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


FAKE = """
application: {application: fake}
versions: [{version: 1.0.0, fake: {ready_after: 0.1s}}]
releases: {default: 1.0.0}
"""


def test_it_streams_and_ends_without_a_trace(up: Up) -> None:
    """Two lines on stdout that work, one public port, a session by the CLI, and nothing left after SIGINT.

    With ``--nvcf`` it prints what a portal is to be given, which works as well.
    """
    up.wait_printed()
    curl, console = up.out.splitlines()

    found = re.fullmatch(
        r"curl -H 'Authorization: Bearer (fl_\w+)' (http://127\.0\.0\.1:\d+)/v1/sessions "
        r"-H 'Content-Type: application/json' -d '\{\"application\":\"usd-viewer\"\}'",
        curl,
    )
    assert found is not None, curl
    token, origin = found.groups()
    assert console == f"{origin}/console/#token={token}"
    assert set(re.findall(r"http://127\.0\.0\.1:\d+", up.out + up.err)) == {origin}
    assert "\x1b" not in up.out + up.err
    assert token not in up.err
    assert "software" in up.err

    request = urllib.request.Request(f"{origin}/v1/sessions", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert json.load(answer)["items"] == []
    with urllib.request.urlopen(f"{origin}/console/", timeout=10) as page:
        assert b'<meta name="kit-library" content="kit/' in page.read()
    assert f'nvcf_control_endpoint and ngc_endpoint are "{origin}", nvcf_signaling_endpoint is "ws://' in up.err
    listed = urllib.request.Request(f"{origin}/v2/nvcf/functions", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(listed, timeout=10) as answer:
        assert {"ACTIVE"} <= {each["status"] for each in json.load(answer)["functions"]}
    assert up.cli("sessions", "show", "nobody").returncode == 3

    manifest = up.directory / "fake.yaml"
    manifest.write_text(FAKE)
    assert up.cli("apps", "apply", "-f", str(manifest)).returncode == 0
    created = up.cli("sessions", "create", "fake", "--wait", "--timeout", "60s", "-o", "json")
    assert created.returncode == 0, created.stderr
    assert json.loads(created.stdout)["state"] == "READY"
    assert "APPLICATION_READY" in created.stderr
    assert "elsewhere.example" not in created.stdout
    assert "127.0.0.1" in json.loads(created.stdout)["routes"]

    family = up.descendants()
    assert len(family) >= 2
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(60) == 0
    assert gone(family)


def test_a_child_that_dies_ends_it_and_is_shown(up: Up) -> None:
    """It says which, shows the last lines of its log, ends the other and exits with 1."""
    up.wait_printed()
    family = up.descendants()
    (agent,) = [one for one in family if "agent" in one.cmdline()]

    agent.kill()

    assert up.process.wait(60) == 1
    assert "error: the node agent was killed by SIGKILL" in up.err
    assert "agent.log" in up.err
    assert "Traceback" not in up.err
    assert gone(family)


def test_children_die_with_it_when_it_is_killed(up: Up) -> None:
    """Nothing is left even where it had no chance to clean up."""
    up.wait_printed()
    family = up.descendants()

    up.process.kill()

    until(lambda: gone(family), 60)


def test_busy_ports_are_replaced(tmp_path: Path) -> None:
    """With the preferred ports taken it comes up on others."""
    with socket.socket() as http, socket.socket() as grpc:
        ports = []
        for listener in (http, grpc):
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            ports.append(str(listener.getsockname()[1]))
        command = [*FOOTLIGHTS, "up", "--data-dir", str(tmp_path / "data")]
        command += ["--http-port", ports[0], "--grpc-port", ports[1], "--devices", "software"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            process.terminate()
            assert process.wait(60) == 0

    assert "/v1/sessions" in line
    assert f":{ports[0]}/" not in line
