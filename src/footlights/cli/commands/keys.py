"""The commands of ``footlights keys``: the ring of cluster keys, in its file."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from footlights.cli.calls import group
from footlights.cli.commands.db import Database
from footlights.cli.durations import duration, show_duration
from footlights.cli.exits import exiting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from footlights.auth.secrets import RingKey

app = group("Replace the cluster key without downtime.")

File = Annotated[
    Path,
    typer.Option(
        "--file",
        metavar="FILE",
        help="The cluster key: cluster.key of the server's data directory, or the source of FOOTLIGHTS_CLUSTER_KEY.",
    ),
]
_FILE = Path(".footlights/server/cluster.key")


@app.command("list")
def list_(file: File = _FILE) -> None:
    """List the keys of the ring by their fingerprints, and when each becomes the current one."""
    with exiting():
        from footlights.auth.secrets import read_ring

        _show(read_ring(file))


@app.command("rotate")
def rotate(
    file: File = _FILE,
    after: Annotated[
        float,
        typer.Option(
            "--after",
            parser=duration,
            metavar="DURATION",
            show_default="1m",
            help="Time until the new key is used: all replicas must have the file by then.",
        ),
    ] = 60.0,
) -> None:
    """Add a new key to the ring. It is used after a while; the old ones stay valid until they are retired.

    A server reads its file again every few seconds. Several replicas: give all of them the new file, or restart them
    one by one with the new FOOTLIGHTS_CLUSTER_KEY, before the time is over.
    """
    with exiting():
        from footlights.auth import secrets

        ring = secrets.rotate(file, now=datetime.now(UTC), after_s=after)
        _show(ring)
        typer.echo(
            f"The new key {ring[-1].fingerprint} is used in {show_duration(after)}. Give the file to all replicas "
            "before; a day after that: footlights keys retire",
            err=True,
        )


@app.command("retire")
def retire(
    file: File = _FILE,
    older_than: Annotated[
        float,
        typer.Option(
            "--older-than",
            parser=duration,
            metavar="DURATION",
            show_default="1d",
            help="Remove keys that were replaced so long ago. Grants and remembered answers live for up to a day.",
        ),
    ] = 86_400.0,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data-dir",
            envvar="FOOTLIGHTS_DATA_DIR",
            metavar="DIR",
            show_default="that of the file",
            help="The server's data directory, with the SQLite file.",
        ),
    ] = None,
    database: Database = "",
    unchecked: Annotated[
        bool,
        typer.Option(
            "--unchecked", help="Do not look whether the database needs them: what does cannot be read again."
        ),
    ] = False,
) -> None:
    """Remove the keys that were replaced long enough ago: what was signed with them is refused from now on.

    Refused while the database is sealed with one of them, or a server on it knows no newer one. The servers may run.
    """
    with exiting():
        from footlights.auth import secrets
        from footlights.control.credentials.cluster_keys import check_unused

        def check(keys: Sequence[RingKey]) -> None:
            if not unchecked:
                check_unused(data_dir or file.resolve().parent, database, keys)

        kept, gone = secrets.retire(file, now=datetime.now(UTC), older_than_s=older_than, check=check)
        _show(kept)
        typer.echo(f"Removed {len(gone)} of {len(kept) + len(gone)} keys.", err=True)


def _show(ring: Sequence[RingKey]) -> None:
    for key in ring:
        since = "the beginning" if key.since is None else f"{key.since:%Y-%m-%d %H:%M:%SZ}"
        typer.echo(f"{key.fingerprint}  from {since}")
