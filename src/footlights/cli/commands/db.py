"""The commands of ``footlights db``: a server's database, without the server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from footlights.cli.calls import Yes, confirm, group
from footlights.cli.exits import Failed, exiting

app = group("Upgrade, check, back up and restore a server's database.")

DataDir = Annotated[
    Path,
    typer.Option("--data-dir", envvar="FOOTLIGHTS_DATA_DIR", help="The server's data directory, with the SQLite file."),
]
Database = Annotated[
    str,
    typer.Option(
        "--database",
        envvar="FOOTLIGHTS_DATABASE",
        metavar="URL",
        help="postgresql://USER@HOST/NAME; by default SQLite in the data directory.",
    ),
]
_DATA_DIR = Path(".footlights/server")


@app.command("upgrade")
def upgrade(data_dir: DataDir = _DATA_DIR, database: Database = "") -> None:
    """Upgrade the tables. A server does this when it starts; with SQLite it must be stopped first."""
    with exiting():
        from footlights.store import admin

        before, after = admin.migrate(data_dir, database)
        if before == after:
            typer.echo(f"The database is already at migration {after}.")
        else:
            typer.echo(f"Upgraded the database from {before or 'an empty one'} to migration {after}.")


@app.command("check")
def check(data_dir: DataDir = _DATA_DIR, database: Database = "") -> None:
    """Show the migration and check the integrity; exit code 1 if there are problems. The server may run."""
    with exiting():
        from footlights.store import admin

        health = admin.check(data_dir, database)
        behind = "" if health.migration == health.newest else f"; this version upgrades it to {health.newest}"
        typer.echo(f"{health.where} is at migration {health.migration or 'none'}{behind}.")
        for problem in health.problems:
            typer.echo(problem)
        if health.problems:
            raise Failed(f"The database has {len(health.problems)} problem{'s' * (len(health.problems) > 1)}.")
        typer.echo("No problems were found.")


@app.command("backup")
def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The target; it must not exist yet.")],
    data_dir: DataDir = _DATA_DIR,
    database: Database = "",
) -> None:
    """Write a consistent copy; the server may run. Postgres: with pg_dump, for pg_restore."""
    with exiting():
        from footlights.store import admin

        admin.backup(data_dir, file, database)
        typer.echo(f"Copied the database to {file}, {file.stat().st_size:,} bytes.")


@app.command("restore")
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What footlights db backup wrote.")],
    data_dir: DataDir = _DATA_DIR,
    database: Database = "",
    yes: Yes = False,
) -> None:
    """Replace the database by a backup; every server must be stopped. Postgres: with pg_restore.

    Sessions that waited then are ended, since what became of them is not known; those that ran end as their nodes
    report. SQLite's former files stay as footlights.db.replaced-TIME.
    """
    with exiting():
        from footlights.store import admin

        confirm(f"Replace the database by {file}? What happened since the backup is lost.", yes=yes)
        ended = admin.restore(data_dir, file, database)
        typer.echo(f"Restored the database from {file}; {ended} sessions that waited then were ended.")
        typer.echo("What was revoked since the backup is valid again: footlights tokens list, footlights nodes list.")
