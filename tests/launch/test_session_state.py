"""A session's state is its launch's own, and gone with it whatever the application did to keep it."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from footlights.launch import session_state


def test_it_is_private_and_empty(tmp_path: Path) -> None:
    """Every variable names a directory that only this user may enter."""
    session_state.make(tmp_path)

    for path in map(Path, session_state.variables(tmp_path).values()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert not [path for path in (tmp_path / "state").rglob("*") if not path.is_dir()]


def test_nested_deeper_than_a_path_is_long(tmp_path: Path) -> None:
    """No recursion, and no path, ends the removal."""
    state = tmp_path / "state"
    state.mkdir()
    code = "import os\nfor _ in range(3000):\n    os.mkdir('d' * 20); os.chdir('d' * 20); open('f', 'w').close()"
    subprocess.run(["/usr/bin/env", "python3", "-c", code], cwd=state, check=True)

    session_state.remove(state)

    assert not state.exists()


def test_nothing_outside_is_touched(tmp_path: Path) -> None:
    """Links are removed, not followed; directories without permissions are entered."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").touch()
    state = tmp_path / "state"
    (state / "locked" / "in").mkdir(parents=True)
    (state / "locked" / "in" / "file").touch()
    (state / "link").symlink_to(outside)
    (state / "locked" / "link").symlink_to(outside)
    os.mkfifo(state / "pipe")
    os.chmod(state / "locked" / "in", 0)
    os.chmod(state / "locked", 0)

    session_state.remove(state)

    assert not state.exists()
    assert (outside / "file").exists()


def test_removed_twice(tmp_path: Path) -> None:
    """What is gone is gone; a file or a link in its place goes as well."""
    session_state.remove(tmp_path / "state")
    (tmp_path / "state").symlink_to(tmp_path)
    session_state.remove(tmp_path / "state")

    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_removed_is_said(tmp_path: Path) -> None:
    """Nothing is taken for gone that is there."""
    state = tmp_path / "state"
    (state / "mounted").mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(state / "mounted")], capture_output=True).returncode:
        pytest.skip("mounting needs root")
    try:
        with pytest.raises(OSError, match="busy"):
            session_state.remove(state)
    finally:
        subprocess.run(["umount", str(state / "mounted")], check=True)

    session_state.remove(state)
    assert not state.exists()
