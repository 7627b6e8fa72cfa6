"""A hundred creates a second on a simulated fleet of a thousand nodes with eight devices each.

`footlights simulate` in two processes, with the profile `steady`: real links, real reports, sessions that start, are
watched and end. The demand is an open loop: what is answered late delays nothing that comes after. The server has one
core, the fleet and the demand the other.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from footlights.client import Client
from footlights.simulate.main import simulate
from footlights.simulate.profile import load
from footlights.simulate.settings import Simulation
from tests.bench.figures import Bench, Figure
from tests.bench.plane import generating, plane

NODES = 1000
GPUS = 8
PER_S = 100.0
SECONDS = 20.0


async def measure(directory: Path) -> list[Figure]:
    """Take ``create_p99_ms`` and what else the report has."""
    with generating():
        async with plane(directory / "plane", "--heartbeat-interval", "5s") as made:
            served = await made.start()
            simulation = Simulation(
                load("steady"),
                (served.grpc,),
                nodes=NODES,
                gpus=GPUS,
                sessions_per_s=PER_S,
                duration_s=SECONDS,
                keep=True,
            )
            async with contextlib.AsyncExitStack() as stack:
                client = await stack.enter_async_context(Client.connect(served.grpc, made.token))
                report = await simulate(simulation, [client], asyncio.Event(), lambda _doing, _report: None)
    plain = report.plain()
    if not report.sound or plain["errors"] or plain["acknowledged"] < 0.99 * plain["asked"]:
        create = ", ".join(f"{name} {value}" for name, value in plain["times"]["create_s"].items())
        raise RuntimeError(
            f"{plain['acknowledged']} of {plain['asked']} creates were answered ({create}); errors: "
            f"{plain['errors'] or 'none'}. {report.verdict}"
        )
    create, ready = plain["times"]["create_s"], plain["times"]["ready_s"]
    what = f"{PER_S:g} creates a second on {NODES} simulated nodes, open loop"
    return [
        Figure("create_p99_ms", [create["p99_s"] * 1000], "ms", what, "< 250"),
        Figure("create_p50_ms", [create["p50_s"] * 1000], "ms", "their median"),
        Figure("simulated_ready_p99_s", [ready["p99_s"]], "s", "from created to ready; the profile's start p99 is 1 s"),
        Figure("simulated_creates_per_s", [plain["creates_per_s"]], "/s", "that were answered"),
    ]


BENCH = Bench(("create_p99_ms", "create_p50_ms", "simulated_ready_p99_s", "simulated_creates_per_s"), measure)
