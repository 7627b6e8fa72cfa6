"""Serve the page with the stand-in, furnished with sessions of all kinds: ``python -m tests.console.look``."""

from __future__ import annotations

import argparse
import asyncio

import uvicorn

from tests.console.picture import Picture
from tests.console.stand_in import OPERATOR, StandIn
from tests.console.state import Json, stamp


def furnish(stand_in: StandIn) -> None:
    """Put sessions of all kinds there, for looking at."""
    kinds: list[tuple[str, str, str, Json]] = [
        ("usd-viewer", "ada", "ACTIVE", {"viewers": 1, "node": "stage-a", "device_name": "NVIDIA L40S"}),
        ("usd-viewer", "grace", "READY", {"viewers": 0, "node": "stage-a", "device_name": "NVIDIA L40S"}),
        ("kit-explorer", "linus", "ACTIVE", {"viewers": 2, "node": "stage-b", "device_name": "NVIDIA RTX 6000 Ada"}),
        ("kit-explorer", "margaret", "TERMINATING", {"node": "stage-b", "status_message": "waiting for the process"}),
    ]
    for application, username, state, members in kinds:
        uri: Json = {"usd_stage_uri": "/srv/stages/theatre.usda", "nucleus_connection_config": []}
        steps = ["QUEUED", "PLACED", "PROCESS_UP", "APPLICATION_READY", "FIRST_VIEWER"]
        timeline = [{"stage": stage, "time": stamp(minutes=-20 + at * 0.02)} for at, stage in enumerate(steps)]
        times: Json = {"created_time": stamp(minutes=-20), "application_arguments": uri, "timeline": timeline}
        stand_in.add(application, username=username, state=state, **(times | members))
    starting = [{"stage": stage, "time": stamp(minutes=-0.1)} for stage in ("QUEUED", "PLACED", "PROCESS_UP")]
    place: Json = {"node": "stage-c", "device_name": "NVIDIA L40S", "launch_count": 1}
    stand_in.add("kit-explorer", username="edsger", state="STARTING", timeline=starting, **place)
    queue = {
        "position": 1,
        "estimated_wait_duration": "95s",
        "wait_reasons": [{"reason": "NO_SLOT", "device_count": 9}],
    }
    stand_in.add("huge", username="barbara", queue=queue)
    ends = [("CRASHED", "FAILED"), ("USER_TERMINATED", "TERMINATED"), ("IDLE_TIMEOUT", "TERMINATED")]
    messages = {"CRASHED": "the application exited with status 139", "IDLE_TIMEOUT": "no input for 15 min"}
    for number in range(61):
        reason, state = ends[number % 3]
        times = {"created_time": stamp(minutes=-90 - number * 7), "ended_time": stamp(minutes=-60 - number * 7)}
        message = messages.get(reason, "")
        stand_in.add("usd-viewer", state=state, end_reason=reason, status_message=message, node="stage-a", **times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8099)
    parser.add_argument("--pace", type=float, default=0.6)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--viewer", default="", help="a real viewer's WHEP address to send offers to")
    parser.add_argument("--empty", action="store_true", help="no sessions to begin with")
    options = parser.parse_args()

    async def serve() -> None:
        stand_in = StandIn(pace=options.pace, nodes_count=options.nodes, whep=Picture(upstream=options.viewer))
        if not options.empty:
            furnish(stand_in)
        server = uvicorn.Server(uvicorn.Config(stand_in.application(), port=options.port, log_level="warning"))
        print(f"http://127.0.0.1:{options.port}/console/#token={OPERATOR}", flush=True)
        await server.serve()

    asyncio.run(serve())


if __name__ == "__main__":
    main()
