"""The commands of ``footlights caches``: what a node keeps for the sessions of a version to read. Run on the node."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from footlights.cli.calls import group
from footlights.cli.exits import exiting
from footlights.cli.output import table

app = group("Keep what applications can make again, such as compiled shaders, on this node.")

DataDir = Annotated[
    Path,
    typer.Option("--data-dir", envvar="FOOTLIGHTS_DATA_DIR", metavar="DIR", help="The data directory of the agent."),
]
_DATA_DIR = Path(".footlights/agent")
_GIB = 1 << 30


@app.command("list")
def list_(data_dir: DataDir = _DATA_DIR) -> None:
    """List what is kept, by application and version."""
    with exiting():
        from footlights.launch.caches import CacheStore

        rows = [
            (kept.name, str(kept.generation), f"{kept.size / _GIB:.2f} GiB")
            for kept in CacheStore(_store(data_dir)).kept()
        ]
        for line in table(("VERSION", "GENERATION", "SIZE"), rows, empty="No caches are kept."):
            typer.echo(line)


@app.command("take")
def take(
    session: Annotated[str, typer.Argument(help="The id of a session that runs on this node, or of its launch.")],
    data_dir: DataDir = _DATA_DIR,
    most_gib: Annotated[int, typer.Option("--most-gib", help="How much is taken at most, in GiB.", min=1)] = 16,
) -> None:
    """Keep what a session has in its version's cache_paths, for later sessions of that version to read.

    Take it from a session of your own that has done what others will do: they read what it wrote. As root, for sessions
    in containers and units.
    """
    with exiting():
        from footlights.agent.launches.warm_caches import take_from_session

        kept = take_from_session(data_dir, session, most_bytes=most_gib * _GIB)
        typer.echo(f"Kept {kept.size / _GIB:.2f} GiB for {kept.name} (generation {kept.generation}).")


@app.command("remove")
def remove(
    application: Annotated[str, typer.Argument()],
    version: Annotated[str, typer.Argument()],
    data_dir: DataDir = _DATA_DIR,
) -> None:
    """Remove what is kept for a version. Sessions that run lose what they read there."""
    with exiting():
        from footlights.launch.caches import CacheStore

        if not CacheStore(_store(data_dir)).remove(application, version):
            typer.echo(f"No caches are kept for {application} {version}.", err=True)


def _store(data_dir: Path) -> Path:
    return data_dir.absolute() / "caches"
