"""Control groups of version 2, on the machine's own; skipped where none may be made."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from footlights.linux import cgroups, procfs


@pytest.fixture
def group() -> Iterator[Path]:
    parent = cgroups.own_group()
    made = cgroups.make(parent, f"footlights-test-{os.getpid()}") if parent else None
    if made is None:
        pytest.skip("no control group may be made here")
    yield made
    cgroups.kill(made)
    until_empty(made)
    cgroups.remove(made)
    assert not made.exists()


def until_empty(group: Path) -> None:
    end = time.monotonic() + 10
    while cgroups.populated(group):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_group_is_killed_with_whatever_left_its_parent(group: Path) -> None:
    """A double fork, a session of its own and an empty environment change nothing: the group has it, and kills it."""
    script = f"echo 0 > {group}/cgroup.procs; (setsid env -i /bin/sleep 60 &); exit 0"
    subprocess.run(["/bin/sh", "-c", script], check=True)

    assert cgroups.populated(group)
    [escaped] = cgroups.members(group)
    cgroups.kill(group)

    until_empty(group)
    assert cgroups.members(group) == frozenset()
    assert procfs.Identity.of(escaped) is None


def test_an_unknown_group_is_empty(tmp_path: Path) -> None:
    """As one is that was removed: nothing of it is left."""
    gone = tmp_path / "gone"

    assert not cgroups.populated(gone)
    assert cgroups.members(gone) == frozenset()
    cgroups.kill(gone)
    cgroups.remove(gone)


def test_where_none_may_be_made_there_is_none(tmp_path: Path) -> None:
    """A directory that is no control group is not taken for one, and nothing is left of the attempt."""
    assert cgroups.make(tmp_path, "launch") is None
    assert list(tmp_path.iterdir()) == []
    assert cgroups.make(tmp_path / "missing", "launch") is None
