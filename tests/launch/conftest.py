"""Nothing that these tests start outlives them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from footlights.launch.process.launcher import CLUSTER_MARK, LAUNCH_MARK, ProcessLauncher, group_name
from footlights.linux import cgroups, procfs
from tests.launch.plans import CLUSTER


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The directory that launches lie in."""
    path = tmp_path / "launches"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    """End what a failed test left running, and fail a test that leaves anything."""
    yield
    group = cgroups.own_group()
    left = _wait_for_none(deadline_s=3.0)
    launcher = ProcessLauncher(Path("/nowhere"))
    for launch_id in left:
        asyncio.run(launcher.end_orphan(CLUSTER, launch_id))
    for directory in group.glob(f"{group_name(CLUSTER, '')}*") if group else ():
        cgroups.end(directory)
        cgroups.remove(directory)
    assert not left, f"these processes were left running: {left}"


def _wait_for_none(deadline_s: float) -> dict[str, frozenset[int]]:
    end = time.monotonic() + deadline_s
    while left := procfs.marked_by(LAUNCH_MARK, {CLUSTER_MARK: CLUSTER}):
        if time.monotonic() > end:
            return left
        time.sleep(0.02)
    return {}
