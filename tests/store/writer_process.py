"""A process that writes when it is told to: ``python -m tests.store.writer_process DIRECTORY``.

Each line on standard input is a name to store; the answer is ``ok``, or ``refused`` with the reason. An empty line asks
for all names that are there.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

import structlog
from sqlalchemy import insert, select

from footlights import errors
from footlights.store import Store, Transaction, open_store
from footlights.store.schema import COUNTER


async def answer(store: Store, name: str) -> str:
    def write(tx: Transaction) -> None:
        tx.execute(insert(COUNTER).values(name=name, value=1, text="x" * 3000))

    def read(tx: Transaction) -> list[str]:
        return [str(row) for row in tx.execute(select(COUNTER.c.name)).scalars() if str(row).startswith("n-")]

    try:
        if not name:
            return " ".join(sorted(await store.read(read)))
        await store.write(write)
    except errors.Error as error:
        return f"refused {error.reason} {error.message}"
    return "ok"


async def main() -> None:
    # Standard output is for answers alone.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    store = open_store(Path(sys.argv[1]))
    print("open", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(await answer(store, line.strip()), flush=True)
    await store.close()


if __name__ == "__main__":
    asyncio.run(main())
