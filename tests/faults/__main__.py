"""``python -m tests.faults``: one run for each of FAULTS_SEED (``1`` or ``1,2,3``); exit status 1 on any violation."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from tests.faults.report import Tally, render
from tests.faults.running import Options, run
from tests.faults.schedule import SHARES

BUILD = Path("build")


def main() -> int:
    """Run, print a report for each seed, write ``build/faults.json`` for all of them together."""
    seeds = [int(seed) for seed in os.environ.get("FAULTS_SEED", "1").replace(",", " ").split()]
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
    total: Tally | None = None
    for seed in seeds:
        tally = _one(seed, float(os.environ.get("FAULTS_SECONDS", "120")))
        total = tally if total is None else total + tally
        _write(BUILD / "faults.json", total)
    assert total is not None, "FAULTS_SEED names no seed"
    if len(seeds) > 1:
        print("\n".join([f"All of {len(seeds)} seeds", *total.lines()]))
    return 1 if total.violations else 0


def _one(seed: int, seconds: float) -> Tally:
    options = Options(
        seed=seed,
        seconds=seconds,
        directory=BUILD / "faults" / str(seed),
        every_s=float(os.environ.get("FAULTS_EVERY", "1.1")),
        viewers=int(os.environ.get("FAULTS_VIEWERS", "1")),
        kinds=tuple(os.environ.get("FAULTS_KINDS", " ".join(SHARES)).split()),
    )
    outcome = asyncio.run(run(options))
    report = render(seed, seconds, outcome.recorder, outcome.evidence, outcome.violations)
    print(report, flush=True)
    (options.directory / "report.txt").write_text(report + "\n")
    tally = Tally.of(outcome.evidence, outcome.violations)
    _write(options.directory / "faults.json", tally)
    return tally


def _write(path: Path, tally: Tally) -> None:
    path.write_text(json.dumps(tally.figures(), indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
