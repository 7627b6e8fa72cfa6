"""Fixtures of tests that run real processes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.system.stack import Stack


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything here."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.system)


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    """A server without an agent."""
    async with Stack(tmp_path / "stack") as running:
        yield running


@pytest.fixture
async def node(stack: Stack) -> Stack:
    """A server and one node with two software devices and the fake launcher."""
    await stack.start_agent()
    return stack
