"""The fleet cache of a process that places: it knows the fleet after a bounded time, whatever it was not told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from footlights.v1 import node_pb2

from footlights.control.scheduling.cache import FleetCache
from footlights.control.signals import Signals
from footlights.scheduler import SlotChoice, Wish
from footlights.store import Store, open_store
from footlights.store.nodes.inventory import ReportedDevice
from footlights.store.nodes.links import LinkOpening
from footlights.supervision import Supervisor
from tests.control.harness import gpu
from tests.store.rows import link

NOW = datetime(2026, 3, 1, tzinfo=UTC)


class Span:
    """A monotonic clock that goes on by so much each time that it is looked at."""

    def __init__(self) -> None:
        self.now, self.step = 1000.0, 0.0

    def __call__(self) -> float:
        self.now += self.step
        return self.now


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = open_store(tmp_path)
    yield opened
    await opened.close()


async def join(store: Store, name: str) -> None:
    """Link a node with one GPU, and signal nothing."""
    facts = node_pb2.NodeFacts(launchers=["fake"]).SerializeToString()
    arrival = LinkOpening(
        name, f"of {name}", facts, [ReportedDevice(f"GPU of {name}", 1, gpu().SerializeToString())], NOW
    )
    await store.write(lambda tx: link(tx, arrival))


def choice(board: FleetCache) -> SlotChoice | None:
    return board.place(Wish("somebody's", "fake"))


async def test_a_node_that_was_not_signalled_is_found_although_a_reading_took_very_long(store: Store) -> None:
    """As where the machine slept in the middle of it: what a reading costs bounds how often, but not for hours."""
    span = Span()
    board = FleetCache(store, Signals(), lambda: NOW, supervisor=Supervisor(), monotonic=span)
    span.step = 3600.0
    await board.read()
    span.step = 0.0
    await join(store, "node-a")
    before = choice(board)
    span.now += FleetCache.LONGEST_SWEEP_S
    await board.read()

    assert before is None
    assert choice(board) == SlotChoice("somebody's", "node-a", "GPU of node-a", (0,))
