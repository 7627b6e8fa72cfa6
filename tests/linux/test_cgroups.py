"""Control groups of version 2, on the machine's own; skipped where none may be made."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from footlights.linux import cgroups, procfs

FILES = ("cgroup.events", "cgroup.procs", "cgroup.kill")


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


def test_a_group_that_goes_while_it_is_read_is_empty(group: Path, tmp_path: Path) -> None:
    """The kernel says ENODEV then: of a file that is there, but not its group."""
    inner = group / "inner"
    inner.mkdir()
    opened = [os.open(inner / name, os.O_RDONLY if name != "cgroup.kill" else os.O_WRONLY) for name in FILES]
    inner.rmdir()
    for name, descriptor in zip(FILES, opened, strict=True):
        (tmp_path / name).symlink_to(f"/proc/self/fd/{descriptor}")
    try:
        with pytest.raises(OSError, match="No such device"):
            (tmp_path / "cgroup.events").read_text()
        assert not cgroups.populated(tmp_path)
        assert cgroups.members(tmp_path) == frozenset()
        cgroups.kill(tmp_path)
        assert cgroups.end(tmp_path)
    finally:
        for descriptor in opened:
            os.close(descriptor)


def test_where_none_may_be_made_there_is_none(tmp_path: Path) -> None:
    """A directory that is no control group is not taken for one, and nothing is left of the attempt."""
    assert cgroups.make(tmp_path, "launch") is None
    assert list(tmp_path.iterdir()) == []
    assert cgroups.make(tmp_path / "missing", "launch") is None
