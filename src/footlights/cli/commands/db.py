"""``footlights db``: a server's database, without the server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from footlights.cli.calls import group
from footlights.cli.exits import Failed, exiting

app = group("Bring a server's database up to date, check it, copy it.")

DataDir = Annotated[
    Path, typer.Option("--data-dir", envvar="FOOTLIGHTS_DATA_DIR", help="The server's directory, with SQLite's file.")
]
Database = Annotated[
    str,
    typer.Option(
        "--database",
        envvar="FOOTLIGHTS_DATABASE",
        metavar="URL",
        help="postgresql://USER@HOST/NAME; without it SQLite in the directory.",
    ),
]
_DATA_DIR = Path(".footlights/server")


@app.command("upgrade")
def upgrade(data_dir: DataDir = _DATA_DIR, database: Database = "") -> None:
    """Bring the tables up to date. A server does it when it starts; on SQLite it must be stopped."""
    with exiting():
        from footlights.store import admin

        before, after = admin.migrate(data_dir, database)
        if before == after:
            typer.echo(f"The database is at migration {after} already.")
        else:
            typer.echo(f"Upgraded the database from {before or 'nothing'} to migration {after}.")


@app.command("check")
def check(data_dir: DataDir = _DATA_DIR, database: Database = "") -> None:
    """Say the version, and whether the database is sound: exit code 1 where it is not. The server may run."""
    with exiting():
        from footlights.store import admin

        health = admin.check(data_dir, database)
        behind = "" if health.migration == health.newest else f"; this version brings it to {health.newest}"
        typer.echo(f"{health.where} is at migration {health.migration or 'none'}{behind}.")
        for problem in health.problems:
            typer.echo(problem)
        if health.problems:
            raise Failed(f"The database has {len(health.problems)} problem{'s' * (len(health.problems) > 1)}.")
        typer.echo("It is sound.")


@app.command("backup")
def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to; a file that is not there yet.")],
    data_dir: DataDir = _DATA_DIR,
    database: Database = "",
) -> None:
    """Write a consistent copy; the server may run. Postgres: by pg_dump, for pg_restore."""
    with exiting():
        from footlights.store import admin

        admin.backup(data_dir, file, database)
        typer.echo(f"Copied the database to {file}, {file.stat().st_size:,} bytes.")
