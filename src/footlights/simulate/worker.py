"""A process that holds some of the nodes; ``python -m footlights.simulate.worker``, which gets its ``Task`` on stdin.

It reports a line a second; an empty line, or the end of stdin, ends it, and its last line has ``"last": true``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import resource
import signal
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from footlights.agent.clock import BootClock
from footlights.agent.config import AgentConfig
from footlights.errors import FailedPrecondition, LocalReason
from footlights.simulate import profile
from footlights.simulate.model import Model
from footlights.simulate.node import SimulatedNode
from footlights.simulate.tally import Tally

TELL_S: Final = 1.0
LIMIT: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class NodeTask:
    """One node to be."""

    number: int
    name: str
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker is to do; plain values except ``nodes``."""

    profile: dict[str, Any]
    seed: int
    servers: list[str]
    nodes: list[NodeTask]
    gpus: int
    slots_per_gpu: int
    ramp_s: float
    mishap_rate: float
    label: tuple[str, str]
    tls: bool = False
    ca_file: str = ""
    insecure: bool = False

    def to_json(self) -> str:
        """One line; it holds secrets."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Task:
        """Take the line back."""
        values = json.loads(line)
        nodes = [NodeTask(**each) for each in values.pop("nodes")]
        return cls(**{**values, "label": tuple(values["label"]), "nodes": nodes})


def main() -> None:
    """Be a worker until asked to end."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the parent's to handle
    import structlog
    import uvloop

    # A thousand nodes that lose their links are figures here, not lines.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    uvloop.run(_main())


async def _main() -> None:
    reader = asyncio.StreamReader(limit=LIMIT)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    task = Task.from_json((await reader.readline()).decode())
    _ensure_descriptors(2 * len(task.nodes) + 200)
    tally = Tally()
    model = Model(profile.read(task.profile), task.seed)
    clock = BootClock()
    nodes = [_node(task, each, model, clock, tally) for each in task.nodes]
    dice = random.Random(task.seed)  # noqa: S311  # only to spread the dials
    running = [asyncio.create_task(_begin(node, dice.uniform(0.0, task.ramp_s))) for node in nodes]
    stop = asyncio.create_task(reader.readline())
    try:
        while not stop.done():
            await asyncio.wait({stop}, timeout=TELL_S)
            _tell(nodes, tally)
    finally:
        for each in running:
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    _tell(nodes, tally, last=True)


def _ensure_descriptors(count: int) -> None:
    """Raise this process's soft limit to at least ``count`` open files. Raises FailedPrecondition."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= count or soft == resource.RLIM_INFINITY:
        return
    if hard != resource.RLIM_INFINITY and hard < count:
        text = f"{count} open files are needed, and this user may have {hard}. Raise it (ulimit -Hn), or ask for less."
        raise FailedPrecondition(text, reason=LocalReason.OPEN_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


async def _begin(node: SimulatedNode, after_s: float) -> None:
    await asyncio.sleep(after_s)
    await node.run()


def _node(task: Task, each: NodeTask, model: Model, clock: BootClock, tally: Tally) -> SimulatedNode:
    config = AgentConfig(
        data_dir=Path("/nonexistent"),
        server=",".join(task.servers),
        token=each.token,
        node=each.name,
        slots_per_device=task.slots_per_gpu,
        launchers=("fake",),
        labels=dict([task.label]),
        tls=task.tls,
        ca_file=Path(task.ca_file) if task.ca_file else None,
        insecure=task.insecure,
    )
    return SimulatedNode(each.number, config, model, clock, tally, gpus=task.gpus, rate=task.mishap_rate)


def _tell(nodes: list[SimulatedNode], tally: Tally, *, last: bool = False) -> None:
    alive = sum(not launch.over for node in nodes for launch in node.launches)
    linked, met = sum(node.linked for node in nodes), sum(node.met for node in nodes)
    figures = {"linked": linked, "met": met, "alive": alive, "last": last, "tally": tally.to_json()}
    sys.stdout.write(json.dumps(figures) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
