"""The commands of ``footlights authorities``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from footlights.cli import show
from footlights.cli.calls import Cli, DryRun, Yes, command, confirm, group
from footlights.cli.durations import duration
from footlights.cli.output import Output, emit, table

if TYPE_CHECKING:
    from footlights.v1 import enrollment_pb2

app = group("Replace the authority of nodes' and servers' certificates without downtime.")


@command(app, "list")
async def list_(cli: Cli) -> None:
    """List the authorities that are trusted; the first one signs."""
    async with cli.client() as client:
        _emit(cli, await client.enrollment.authorities())


@command(app, "rotate")
async def rotate(
    cli: Cli,
    *,
    ttl: Annotated[
        float | None,
        typer.Option(
            "--ttl", parser=duration, metavar="DURATION", show_default="10 years", help="How long the new one can sign."
        ),
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Make another authority, which signs from now on; those before are trusted until they are retired.

    Nodes renew their certificates by themselves. Clients that trust a copy of ca.pem need the new one.
    """
    async with cli.client() as client:
        answer = await client.enrollment.rotate_authority(ttl, validate_only=dry_run)
    if cli.output is Output.TABLE and not dry_run:
        typer.echo(
            "Nodes renew their certificates once they are linked. Give clients the new ca.pem of the server's data "
            "directory; then: footlights authorities retire",
            err=True,
        )
    _emit(cli, answer, dry_run=dry_run)


@command(app, "retire")
async def retire(
    cli: Cli,
    force: Annotated[
        bool, typer.Option("--force", help="Although nodes have certificates of theirs: they must be invited again.")
    ] = False,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Trust the newest authority alone. Refused while a node has a certificate of another one."""
    confirm("Trust the newest authority alone?", yes=yes or dry_run)
    async with cli.client() as client:
        answer = await client.enrollment.retire_authorities(force=force, validate_only=dry_run)
    _emit(cli, answer, dry_run=dry_run)


def _emit(cli: Cli, answer: enrollment_pb2.Authorities, *, dry_run: bool = False) -> None:
    rows = [
        [
            each.authority_id,
            "trusted" if number else "signs",
            show.moment(each.create_time),
            show.moment(each.expire_time),
            str(each.node_count),
        ]
        for number, each in enumerate(answer.items)
    ]
    lines = table(["AUTHORITY", "USE", "CREATED", "EXPIRES", "NODES"], rows)
    emit(cli.output, answer, [each.authority_id for each in answer.items], lines, dry_run=dry_run)
