"""``plane``: a whole control plane in process, with a registered application and no node."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from footlights.store import Store, open_store
from footlights.store.engines.sqlite import DATABASE_FILE
from tests.control.harness import Control, control
from tests.store.databases import clean, postgres


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file with its tables and nothing in them."""
    directory = tmp_path_factory.mktemp("migrated")
    open_store(directory).close_now()
    return directory / DATABASE_FILE


@pytest.fixture
async def plane(tmp_path: Path, migrated: Path) -> AsyncIterator[Control]:
    """A control plane with the application ``fake`` 1.0.0, release ``default``."""
    async with control(tmp_path, migrated) as running:
        await running.apply()
        yield running


@pytest.fixture(scope="session")
def _opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with postgres() as server:
        store = open_store(tmp_path_factory.mktemp("shared"), server.create())
        yield store
        store.close_now()


@pytest.fixture
def shared(_opened: Store) -> Store:
    """A Postgres without a row, as several replicas share it."""
    clean(_opened)
    return _opened
