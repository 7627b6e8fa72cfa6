"""``plane``: a whole control plane in process, with a registered application and no node."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from footlights.store import Store, open_store
from footlights.store.engines.sqlite import DATABASE_FILE
from tests.control.harness import Control, control
from tests.store.databases import Postgres, clean, postgres


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
def a_postgres() -> Iterator[Postgres]:
    """One Postgres for the whole session."""
    with postgres() as server:
        yield server


@pytest.fixture(scope="session")
def _opened(a_postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = open_store(tmp_path_factory.mktemp("shared"), a_postgres.create())
    yield store
    store.close_now()


@pytest.fixture
async def replicas(a_postgres: Postgres, tmp_path: Path) -> AsyncIterator[tuple[Control, Control]]:
    """Two control planes on one Postgres, with the application ``fake`` 1.0.0, release ``default``."""
    url, first = a_postgres.create(), tmp_path / "first"
    async with (
        control(first, url=url) as one,
        control(tmp_path / "second", first / "admin.token", url=url) as other,
    ):
        await one.apply()
        yield one, other


@pytest.fixture
def shared(_opened: Store) -> Store:
    """A Postgres without a row, as several replicas share it."""
    clean(_opened)
    return _opened
