"""What a process gives up: tried in a child, for it cannot be taken back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from footlights.linux import landlock

pytestmark = pytest.mark.skipif(landlock.version() < 1, reason="this kernel has no Landlock")

_TRY = """
import json, os, sys
from footlights.linux import landlock
protected, writable, paths, pid = json.loads(sys.argv[1])
landlock.confine(protected, writable)
def allowed(act):
    try:
        act()
    except PermissionError:
        return False
    return True
found = {path: allowed(lambda: open(path, "a").close()) for path in paths}
if os.path.exists(paths[0]):
    found["rename"] = allowed(lambda: os.rename(paths[0], paths[0] + ".moved"))
found["signal"] = allowed(lambda: os.kill(pid, 0))
found["child"] = allowed(lambda: os.waitpid(os.posix_spawn("/bin/sh", ["sh", "-c", "kill -0 $$"], os.environ), 0))
print(json.dumps(found))
"""


def tried(protected: list[Path], writable: list[Path], *paths: Path, pid: int = 0) -> dict[str, Any]:
    """Confine a process, and say what it can still do."""
    given = [[*map(str, protected)], [*map(str, writable)], [*map(str, paths)], pid or os.getpid()]
    command = [sys.executable, "-c", _TRY, json.dumps(given)]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(said.stdout)
    return found


def test_what_is_protected_is_written_to_by_nobody(tmp_path: Path) -> None:
    """Not made, changed or moved; what lies beside it, and the one directory in it, stay as they were."""
    trusted, own, beside = tmp_path / "agent", tmp_path / "agent/launch/state", tmp_path / "beside"
    own.mkdir(parents=True)
    beside.mkdir()
    journal = trusted / "journal.json"
    journal.write_text("true")

    found = tried(
        [trusted], [own], journal, trusted / "new", own / "file", beside / "file", Path("/dev/shm/footlights-t")
    )

    assert found[str(journal)] is found[str(trusted / "new")] is found["rename"] is False
    assert found[str(own / "file")] is found[str(beside / "file")] is found["/dev/shm/footlights-t"] is True
    assert journal.read_text() == "true"
    Path("/dev/shm/footlights-t").unlink()


@pytest.mark.skipif(landlock.version() < landlock.SIGNALS_SINCE, reason="this kernel's Landlock guards no signals")
def test_others_lives_are_out_of_reach(tmp_path: Path) -> None:
    """No signal reaches a process outside; its own children it may end."""
    bystander = subprocess.Popen(["sleep", "60"])

    try:
        found = tried([tmp_path], [], tmp_path / "x", pid=bystander.pid)
    finally:
        bystander.kill()
        bystander.wait()

    assert (found["signal"], found["child"]) == (False, True)


def test_links_open_no_way(tmp_path: Path) -> None:
    """A link to what is protected, and a link beside it, lead nowhere new."""
    trusted = tmp_path / "agent"
    trusted.mkdir()
    (tmp_path / "way").symlink_to(trusted)

    found = tried([trusted], [], tmp_path / "way" / "new")

    assert found[str(tmp_path / "way" / "new")] is False
