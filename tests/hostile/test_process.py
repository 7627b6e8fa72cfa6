"""The attacks against the `process` launcher without its guard: they succeed, so the judge sees a success.

As root, where an application is root too. What is bounded even there is in `WITHSTOOD`; what the launcher's own guard
withstands, without separating sessions, in `GUARDED`.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from footlights.launch.process.launcher import ProcessLauncher
from footlights.linux import landlock
from tests.hostile.judge import ATTACKS, Setting, judge
from tests.launch.plans import command

WITHSTOOD = {"fill-log", "forge-exit"}
"""Output is kept in segments of a bounded size; no exit is believed before the shim, as it named itself, is gone."""
GUARDED = {"kill-others", "kill-supervisor", "escape", "forge-exit"}
"""An application cannot write to what the agent trusts, nor end what supervises it, nor leave its launch."""
TRIES = 3
"""Some attacks are races, which a loaded machine may decide for the launcher."""
NEEDS_ROOT = {"read-device", "gain-rights"}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_the_attacks_succeed_without_a_boundary(attack: str, tmp_path: Path) -> None:
    """Every attack achieves what it is for where nothing separates sessions: its failure elsewhere means something."""
    if attack in NEEDS_ROOT and os.geteuid() != 0:
        pytest.skip("an ordinary user has no such rights in the first place")
    for number in range(TRIES):
        verdict = await judge(_setting(tmp_path / str(number), guarded=False), attack)
        if verdict.succeeded:
            break

    assert verdict.succeeded is (attack not in WITHSTOOD), verdict.evidence


@pytest.mark.skipif(landlock.version() < landlock.SIGNALS_SINCE, reason="this kernel's Landlock is too old")
@pytest.mark.parametrize("attack", sorted(GUARDED))
async def test_what_the_agent_trusts_is_out_of_reach(attack: str, tmp_path: Path) -> None:
    """Even where sessions are not separated, an end is an end, and its status is the one that it ended with."""
    verdict = await judge(_setting(tmp_path, guarded=True), attack)

    assert not verdict.succeeded, verdict.evidence


def _setting(directory: Path, *, guarded: bool) -> Setting:
    root = directory / "launches"
    root.mkdir(mode=0o700, parents=True)
    launcher = ProcessLauncher(root, guarded=guarded)
    return Setting(launcher=launcher, root=root, version=lambda argv: command(*argv), allowed_bytes=64 << 20)
