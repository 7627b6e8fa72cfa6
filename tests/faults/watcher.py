"""A real viewer in a process of its own: ``python -m tests.faults.watcher WHEP_URL``, the grant on standard input.

Writes a line for every second in which frames came: ``FRAMES n``; ends when none comes for ``--patience`` seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time

from tests.viewer.whep_client import WhepClient


async def watch(url: str, token: str, patience_s: float) -> int:
    async with WhepClient(url, token, codec="VP8", keep_resource=True) as viewer:
        frames, second = 0, int(time.monotonic())
        while True:
            try:
                await viewer.next_frame(timeout=patience_s)
            except TimeoutError:
                return 1
            frames += 1
            if int(time.monotonic()) != second:
                print(f"FRAMES {frames}", flush=True)
                frames, second = 0, int(time.monotonic())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--patience", type=float, default=20.0)
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(asyncio.run(watch(options.url, sys.stdin.readline().strip(), options.patience)))
