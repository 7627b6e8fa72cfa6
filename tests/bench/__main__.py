"""Takes the figures that are asked for; ``python -m tests.bench``."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

from tests.bench import (
    cpu_per_stream,
    creating,
    failover,
    first_frame,
    gateway,
    hub,
    listing,
    rest_vs_grpc,
    scheduling,
    sessions_fake,
    simulated,
    storing,
    waits,
)
from tests.bench.figures import Bench, Figure, machine, merge, table

BENCHES: tuple[Bench, ...] = (
    first_frame.BENCH,
    cpu_per_stream.BENCH,
    rest_vs_grpc.BENCH,
    sessions_fake.BENCH,
    scheduling.BENCH,
    waits.BENCH,
    gateway.BENCH,
    gateway.CODEC,
    storing.BENCH,
    listing.BENCH,
    hub.BENCH,
    hub.APART,
    creating.BENCH,
    creating.POSTGRES,
    simulated.BENCH,
    failover.BENCH,
)
RESULTS = Path(__file__).parents[2] / "build" / "bench.json"
DEADLINE_S = 180.0
"""For one measurement; the usual is a quarter of it."""


def main() -> int:
    """Measure, print, write. Returns the exit status: 0, 1 where a measurement failed, 2 for an unknown name."""
    known = [name for bench in BENCHES for name in bench.figures]
    wanted = {name.strip() for name in os.environ.get("BENCH_ONLY", "").split(",") if name.strip()}
    if unknown := wanted - set(known):
        print(
            f"BENCH_ONLY: {', '.join(sorted(unknown))}: no such figure. There are {', '.join(known)}.", file=sys.stderr
        )
        return 2
    print(machine(), flush=True)
    figures: list[Figure] = []
    failed: list[str] = []
    for bench in BENCHES:
        if wanted and not wanted & set(bench.figures):
            continue
        names = ", ".join(bench.figures)
        began = time.monotonic()
        try:
            figures += asyncio.run(_take(bench))
        except Exception as error:
            failed.append(names)
            print(f"{names}: FAILED: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        else:
            print(f"{names}: measured in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    if figures:
        print(table(figures))
        merge(RESULTS, figures)
    return 1 if failed else 0


async def _take(bench: Bench) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="footlights-bench-") as directory:
        async with asyncio.timeout(DEADLINE_S):
            return await bench.measure(Path(directory))


if __name__ == "__main__":
    raise SystemExit(main())
