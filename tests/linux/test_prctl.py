"""Processes that are tied together (``procfs`` is tested by tests/launch/test_process.py and test_ownership.py)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

ORPHAN = """
import os, sys
from footlights.linux import prctl
prctl.become_subreaper()
if os.fork() == 0:
    if os.fork() == 0:
        os._exit(7)
    os._exit(0)
codes = sorted(os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(2))
sys.exit(0 if codes == [0, 7] else 1)
"""
CHILD = """
import os, signal
from footlights.linux import prctl
said, say = os.pipe()
if os.fork() == 0:
    signal.signal(signal.SIGTERM, lambda *_: (print("told", flush=True), os._exit(0)))
    prctl.signal_on_parent_death(signal.SIGTERM)
    os.write(say, b"x")
    while True:
        signal.pause()
os.read(said, 1)
os._exit(0)
"""
IMPORTS = """
import sys
import footlights.launch.process.shim
print([name for name in sys.modules if name.startswith("footlights")])
heavy = {"google", "grpc", "asyncio", "structlog", "pydantic", "ssl", "socket"} & set(sys.modules)
sys.exit(f"imported: {heavy}" if heavy else 0)
"""


def run(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *options, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )


def test_a_subreaper_inherits_grandchildren() -> None:
    """A grandchild whose parent has ended is waited for by the subreaper."""
    assert run(ORPHAN).returncode == 0


def test_a_child_is_told_that_its_parent_died() -> None:
    """The signal comes however the parent ended."""
    assert run(CHILD).stdout.strip() == "told"


def test_the_shim_imports_the_standard_library_only() -> None:
    """Nothing that is slow to import or large to keep is behind the shim or what it uses."""
    ended = run(IMPORTS)
    assert ended.returncode == 0, ended.stderr
    assert "footlights.linux.files" in ended.stdout


CAPABILITIES = """
import subprocess
from footlights.linux import prctl
def effective(command):
    lines = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    return next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff"))
child = ["cat", "/proc/self/status"]
before = effective(child)
prctl.keep_capabilities()
with open("/proc/self/status") as own:
    mine = next(int(line.split()[1], 16) for line in own if line.startswith("CapEff"))
print(before, mine, effective(child))
"""
NET_BIND_SERVICE = 1 << 10


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root gives capabilities")
def test_what_an_agent_may_its_children_may_not() -> None:
    """A unit gives it a capability, which every program that it starts would have too."""
    given = ["--inh-caps=-all,+net_bind_service", "--ambient-caps=-all,+net_bind_service"]
    command = ["setpriv", "--securebits=+noroot", *given, sys.executable, "-c", CAPABILITIES]
    run = subprocess.run(command, capture_output=True, text=True, check=True)

    before, mine, after = map(int, run.stdout.split())
    assert (before, mine, after) == (NET_BIND_SERVICE, NET_BIND_SERVICE, 0)
