"""A short run with a fixed seed, and runs with a planted bug that must be caught."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.report import Tally, render
from tests.faults.running import Options, Outcome, run

pytestmark = pytest.mark.faults

KILLS = ("kill_server", "kill_agent", "kill_shim", "kill_application", "cut_link", "vanish_clients", "rival_writer")


def report(options: Options, outcome: Outcome) -> str:
    return render(options.seed, options.seconds, outcome.recorder, outcome.evidence, outcome.violations)


@pytest.mark.timeout(240)
async def test_nothing_is_lost_doubled_or_leaked(tmp_path: Path) -> None:
    """25 seconds of killed servers, agents, shims and applications, cut links and vanished clients prove clean."""
    options = Options(seed=4, seconds=25.0, directory=tmp_path / "run", viewers=0, kinds=KILLS)

    outcome = await run(options)

    assert not outcome.violations, report(options, outcome)
    found = Tally.of(outcome.evidence, outcome.violations)
    assert found.counts["faults_injected"] >= 10
    assert found.created >= 10
    assert found.figures()["sessions_survived_agent_kill"] == 1.0


@pytest.mark.timeout(240)
async def test_a_store_without_its_index_is_caught(tmp_path: Path) -> None:
    """With the unique index dropped a second writer leases a slot twice, and the checker says so."""
    kinds = ("rival_writer",)
    options = Options(
        seed=1, seconds=8.0, directory=tmp_path / "run", every_s=0.5, viewers=0, kinds=kinds, drop_index=True
    )

    outcome = await run(options)

    assert "accepted" in {fault.detail for fault in outcome.evidence.faults}
    assert "doubled" in {violation.kind for violation in outcome.violations}, report(options, outcome)


@pytest.mark.timeout(300)
@pytest.mark.skipif(os.geteuid() != 0, reason="giving a process a pid of our choice needs root")
@pytest.mark.parametrize("planted", [False, True])
async def test_adopting_by_pid_alone_is_caught(tmp_path: Path, planted: bool) -> None:
    """Whoever takes a stranger with a reused pid for the application ends it, or shows a session that is none."""
    program = ("-m", "tests.faults.planted" if planted else "footlights")
    options = Options(
        seed=2, seconds=12.0, directory=tmp_path / "run", viewers=0, kinds=("reuse_pid",), every_s=2.0, program=program
    )

    outcome = await run(options)

    kinds = {violation.kind for violation in outcome.violations}
    assert outcome.evidence.faults, report(options, outcome)
    assert ("strangers_killed" in kinds or "without_reason" in kinds) == planted, report(options, outcome)
