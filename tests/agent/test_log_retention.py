"""How long the output of forgotten launches is kept: by what was measured, not by what the wall clock says."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from footlights.agent.v1.agent_pb2 import LaunchReport

from footlights.agent.launches.log_retention import LogRetention
from tests.launch.plans import command, make_plan

DAY_S = 86_400.0


@dataclass
class Hand:
    """A clock that is moved by hand."""

    boot_id: str = "boot"
    at: float = 1000.0

    def now(self) -> float:
        return self.at


def forgotten(root: Path, clock: Hand, launch_id: str = "launch-1") -> Path:
    """A launch whose output is kept."""
    retired = LogRetention(root, clock)
    directory = retired.directory(launch_id)
    directory.mkdir(parents=True)
    retired.keep(make_plan(command("true"), root, launch_id=launch_id), LaunchReport(launch_id=launch_id))
    return directory


def set_wall(path: Path, ahead_s: float) -> None:
    """Have everything in a directory look as if the wall clock had been set forward since."""
    for each in (*path.iterdir(), path):
        os.utime(each, times=(time.time() - ahead_s,) * 2)


@pytest.mark.parametrize("restarted", [False, True])
def test_a_wall_clock_that_was_set_removes_nothing(tmp_path: Path, restarted: bool) -> None:
    """On the same boot the span is measured, by the next agent too."""
    clock = Hand()
    directory = forgotten(tmp_path, clock)
    retired = LogRetention(tmp_path, clock)
    set_wall(directory, 31 * DAY_S)
    if restarted:
        retired = LogRetention(tmp_path, clock)

    clock.at += DAY_S - 1
    kept = retired._older_than(DAY_S)
    clock.at += 2

    assert kept == []
    assert retired._older_than(DAY_S) == [directory]


def test_after_a_reboot_the_wall_clock_counts_once_it_has_had_time_to_be_set(tmp_path: Path) -> None:
    """A machine that begins with a wrong clock removes nothing before it is right."""
    directory = forgotten(tmp_path, Hand())
    set_wall(directory, 31 * DAY_S)
    clock = Hand("another boot", 5.0)
    retired = LogRetention(tmp_path, clock)

    at_once = retired._older_than(DAY_S)
    clock.at += 3600

    assert at_once == []
    assert retired._older_than(DAY_S) == [directory]


def test_a_directory_that_nobody_retired_goes_by_the_wall_clock(tmp_path: Path) -> None:
    """What an agent left behind that died is removed in the end, too."""
    clock = Hand()
    retired = LogRetention(tmp_path, clock)
    left = tmp_path / "left"
    left.mkdir()
    clock.at += 3600

    assert retired._older_than(DAY_S) == []
    set_wall(left, 2 * DAY_S)
    assert retired._older_than(DAY_S) == [left]


def test_the_newest_ends_are_kept_and_one_that_is_damaged_hides_none(tmp_path: Path) -> None:
    """By the launches' ids, which are in the order of time."""
    for launch_id in ("launch-1", "launch-2", "launch-3"):
        forgotten(tmp_path, Hand(), launch_id)
    (tmp_path / "launch-2" / "retired.end").write_bytes(b"\xff")

    found = LogRetention(tmp_path, Hand()).ends(2)

    assert [end.launch_id for end in found] == ["launch-3"]
