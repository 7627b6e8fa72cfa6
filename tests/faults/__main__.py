"""``python -m tests.faults``: one run, as FAULTS_SEED and FAULTS_SECONDS say; exit status 1 on any violation."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from tests.faults.report import figures, render
from tests.faults.running import Options, run
from tests.faults.schedule import SHARES

BUILD = Path("build")


def main() -> int:
    """Run, print the report, write ``build/faults.json``."""
    seed, seconds = int(os.environ.get("FAULTS_SEED", "1")), float(os.environ.get("FAULTS_SECONDS", "120"))
    options = Options(
        seed=seed,
        seconds=seconds,
        directory=BUILD / "faults" / str(seed),
        every_s=float(os.environ.get("FAULTS_EVERY", "1.1")),
        viewers=int(os.environ.get("FAULTS_VIEWERS", "1")),
        kinds=tuple(os.environ.get("FAULTS_KINDS", " ".join(SHARES)).split()),
    )
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
    outcome = asyncio.run(run(options))
    report = render(seed, seconds, outcome.recorder, outcome.evidence, outcome.violations)
    print(report)
    (options.directory / "report.txt").write_text(report + "\n")
    (BUILD / "faults.json").write_text(json.dumps(figures(outcome.evidence, outcome.violations), indent=1) + "\n")
    return 1 if outcome.violations else 0


if __name__ == "__main__":
    sys.exit(main())
