"""Figures of a whole Footlights: real processes on loopback, driven only over REST, gRPC and WHEP.

    python -m tests.bench                       every figure
    BENCH_ONLY=fps,ready_s python -m tests.bench    only these

How it is measured
    Each module here measures one thing and gives one or more figures, each a handful of samples, one a round. Rounds
    of things that are compared are interleaved in one run, so that a neighbour's load hits both. The table shows the
    median and the range; `build/bench.json` gets the medians, merged into what lies there, as one flat object.

    Absolute numbers belong to the machine that the table names. Ratios travel.
"""

from __future__ import annotations
