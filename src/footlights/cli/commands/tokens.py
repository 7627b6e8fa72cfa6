"""The commands of ``footlights tokens``."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from footlights.cli import show
from footlights.cli.calls import Cli, DryRun, Yes, command, confirm, group, whole
from footlights.cli.commands.db import Database
from footlights.cli.durations import duration
from footlights.cli.exits import exiting
from footlights.cli.output import Output, details, emit
from footlights.protocol.enums import field_name

app = group("Create, list and revoke tokens.")


class RoleName(StrEnum):
    """The roles, as written on the command line."""

    DEVELOPER = "developer"
    SERVICE = "service"
    OPERATOR = "operator"
    NODE = "node"


@command(app, "create")
async def create(
    cli: Cli,
    role: Annotated[RoleName, typer.Option("--role", help="The permissions of its holder.")],
    subject: Annotated[str, typer.Option("--subject", help="The holder: a user, a service, or the node's name.")],
    description: Annotated[str, typer.Option("--description", help="What it is for.")] = "",
    ttl: Annotated[
        float | None,
        typer.Option(
            "--ttl", parser=duration, metavar="DURATION", help="Time until it expires; it never expires by default."
        ),
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Create a token. Its secret is printed once and stored nowhere."""
    from footlights.protocol import enums, times
    from footlights.v1 import token_pb2

    request = token_pb2.CreateTokenRequest(
        role=enums.number_of(token_pb2.Token.Role, role.name), subject=subject, description=description
    )
    if ttl is not None:
        request.ttl.CopyFrom(times.duration(ttl))
    async with cli.client() as client:
        answer = await client.tokens.create(request, validate_only=dry_run)
    if cli.output is Output.TABLE and not dry_run:
        token = answer.token
        validity = f"until {show.moment(token.expire_time)}" if token.HasField("expire_time") else "until revoked"
        typer.echo(
            f"Token {token.token_id} for {token.subject}, role {role}, valid {validity}. Store it now:", err=True
        )
    # The secret alone on stdout: TOKEN=$(footlights tokens create …).
    line = f"a token for {request.subject} is created" if dry_run else answer.secret
    emit(cli.output, answer, [answer.token.token_id], [line], dry_run=dry_run)


@command(app, "list")
async def list_(cli: Cli) -> None:
    """List tokens, without their secrets."""
    async with cli.client() as client:
        answer = await whole(client.tokens.iterate())
    emit(cli.output, answer, [token.token_id for token in answer.items], show.token_table(answer.items, time.time()))


@command(app, "revoke")
async def revoke(
    cli: Cli,
    token_id: Annotated[
        str, typer.Argument(metavar="TOKEN_ID", help="The token's id: the part between the underscores.")
    ],
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Revoke a token: it is refused from now on."""
    confirm(f"Revoke token {token_id}?", yes=yes or dry_run)
    async with cli.client() as client:
        answer = await client.tokens.revoke(token_id, validate_only=dry_run)
    emit(cli.output, answer, [answer.token_id], [f"{answer.token_id} is revoked"], dry_run=dry_run)


@command(app, "whoami")
async def whoami(cli: Cli) -> None:
    """Show the holder and the permissions of this token."""
    async with cli.client() as client:
        answer = await client.tokens.caller()
    lines = details(
        [
            ("Subject", answer.subject),
            ("Role", field_name(answer, "role")),
            ("Permissions", ", ".join(sorted(answer.permissions))),
            ("Server", f"{cli.server}, version {answer.server_version}"),
        ]
    )
    emit(cli.output, answer, [answer.subject], lines)


@app.command("recover")
def recover(
    subject: Annotated[str, typer.Option("--subject", help="The holder.")] = "admin",
    data_dir: Annotated[
        Path,
        typer.Option("--data-dir", metavar="DIR", envvar="FOOTLIGHTS_DATA_DIR", help="The server's data directory."),
    ] = Path(".footlights/server"),
    database: Database = "",
) -> None:
    """Create an operator's token directly in the server's database, for when none is left.

    Run it where the database and the cluster key are; it does not contact a server. With SQLite the server must be
    stopped first; with Postgres it may keep running.
    """
    with exiting():
        from footlights.control.services.bootstrap import recover as make

        typer.echo(asyncio.run(make(data_dir, database, subject, os.environ, now=datetime.now(UTC))))
