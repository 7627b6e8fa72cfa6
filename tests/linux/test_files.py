"""Files are seen whole or not at all, are private from their first byte, and are locked by one process."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from footlights.linux import files


@pytest.mark.parametrize("durable", [True, False])
def test_replaced_whole(tmp_path: Path, durable: bool) -> None:
    """The new content takes the place of the old, private by default, and no draft is left."""
    path = tmp_path / "state.json"
    files.replace_file(path, b"old", durable=durable)
    files.replace_file(path, b"new", durable=durable)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]


def test_a_write_that_fails_leaves_the_file_before(tmp_path: Path) -> None:
    """Where the name cannot be taken, the error is raised and no draft is left."""
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="directory"):
        files.replace_file(tmp_path / "taken", b"x")
    assert [entry.name for entry in tmp_path.iterdir()] == ["taken"]


def test_drafts_are_known_by_their_names(tmp_path: Path) -> None:
    """What a crash leaves of a write is told from a file."""
    assert files.is_draft(tmp_path / ".state.json.0a1b2c")
    assert not files.is_draft(tmp_path / "state.json")


def test_one_of_many_writers_creates(tmp_path: Path) -> None:
    """Of several that create a file at once exactly one does, and its content stays."""
    path = tmp_path / "key"
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda n: files.create_file(path, str(n).encode()), range(32)))
    assert won.count(True) == 1
    assert path.read_bytes() == str(won.index(True)).encode()


def test_a_lock_has_one_holder(tmp_path: Path) -> None:
    """Another process is refused while the descriptor is open, and not after."""
    path = tmp_path / "lock"
    code = f"from footlights.linux import files; from pathlib import Path; files.lock_file(Path({str(path)!r}))"

    def other() -> int:
        return subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL, check=False).returncode

    descriptor = files.lock_file(path)
    assert other() != 0
    os.close(descriptor)
    assert other() == 0
