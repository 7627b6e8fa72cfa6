"""One agent as a process of its own, to be killed: ``python -m tests.agent.node_process CONFIG.json``."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

from footlights.agent.config import AgentConfig
from footlights.agent.main import run


def configured(path: Path) -> AgentConfig:
    given = json.loads(path.read_text())
    given["data_dir"] = Path(given["data_dir"])
    given["launchers"] = tuple(given["launchers"])
    return AgentConfig(**given)


async def main(config: AgentConfig) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await run(config, stop)


if __name__ == "__main__":
    asyncio.run(main(configured(Path(sys.argv[1]))))
