"""The store's contract suite runs on both engines: whatever takes ``store`` runs on each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from footlights.store import Store, open_store
from tests.store.databases import Postgres, clean, postgres


@pytest.fixture(scope="session")
def a_postgres() -> Iterator[Postgres]:
    """One Postgres for the whole session."""
    with postgres() as server:
        yield server


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str:
    """A database URL on each engine: empty for SQLite."""
    if request.param == "sqlite":
        return ""
    server: Postgres = request.getfixturevalue("a_postgres")
    return server.create()


@pytest.fixture(scope="session")
def _opened(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = open_store(tmp_path_factory.mktemp("store"), database)
    yield store
    store.close_now()


@pytest.fixture
def store(_opened: Store) -> Iterator[Store]:
    """An open store without a row."""
    clean(_opened)
    yield _opened
    for engine in {_opened.engine.writer, _opened.engine.reader}:
        assert engine.pool.checkedout() == 0, "a connection was not given back"  # type: ignore[attr-defined]


@pytest.fixture
def fresh(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Path, str]:
    """A data directory and the URL of a database that was not opened yet, on each engine."""
    if not database:
        return tmp_path / "data", ""
    server: Postgres = request.getfixturevalue("a_postgres")
    return tmp_path / "data", server.create()
