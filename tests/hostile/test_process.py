"""The attacks against the `process` launcher, which separates nothing: they succeed, so the judge sees a success.

As root, where an application is root too. What is bounded even there is in `WITHSTOOD`.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from footlights.launch.process.launcher import ProcessLauncher
from tests.hostile.judge import ATTACKS, Setting, judge
from tests.launch.plans import command

WITHSTOOD = {"fill-log"}
"""Output is kept in segments of a bounded size."""
NEEDS_ROOT = {"read-device", "gain-rights"}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_the_attacks_succeed_without_a_boundary(attack: str, tmp_path: Path) -> None:
    """Every attack achieves what it is for where nothing separates sessions: its failure elsewhere means something."""
    if attack in NEEDS_ROOT and os.geteuid() != 0:
        pytest.skip("an ordinary user has no such rights in the first place")
    root = tmp_path / "launches"
    root.mkdir(mode=0o700)
    launcher = ProcessLauncher(root)
    setting = Setting(launcher=launcher, root=root, version=lambda argv: command(*argv), allowed_bytes=64 << 20)

    verdict = await judge(setting, attack)

    assert verdict.succeeded is (attack not in WITHSTOOD), verdict.evidence
