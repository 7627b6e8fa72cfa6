"""``footlights tokens``."""

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
from footlights.cli.calls import Cli, command, confirm, group
from footlights.cli.durations import duration
from footlights.cli.exits import exiting
from footlights.cli.output import Output, details, emit

app = group("Create, list and revoke tokens.")


class RoleName(StrEnum):
    """The roles, as they are written on a command line."""

    DEVELOPER = "developer"
    SERVICE = "service"
    OPERATOR = "operator"
    NODE = "node"


@command(app, "create")
async def create(
    cli: Cli,
    role: Annotated[RoleName, typer.Option("--role", help="What its holder may do.")],
    subject: Annotated[str, typer.Option("--subject", help="Whose it is: a user, a service, or the node's name.")],
    description: Annotated[str, typer.Option("--description", help="What it is for.")] = "",
    ttl: Annotated[
        float | None,
        typer.Option("--ttl", parser=duration, metavar="DURATION", help="How long it is good; for ever without."),
    ] = None,
) -> None:
    """Create a token. Its secret is printed once and kept nowhere."""
    from footlights.v1 import token_pb2

    request = token_pb2.CreateTokenRequest(
        role=token_pb2.Token.Role.Value(role.name), subject=subject, description=description
    )
    if ttl is not None:
        request.ttl.FromMilliseconds(round(ttl * 1000))
    async with cli.client() as client:
        answer = await client.tokens.create(request)
    if cli.output is Output.TABLE:
        token = answer.token
        good = f"until {show.moment(token.expire_time)}" if token.HasField("expire_time") else "until revoked"
        typer.echo(f"Token {token.token_id} for {token.subject}, role {role}, good {good}. Keep it:", err=True)
    # The secret alone on stdout: TOKEN=$(footlights tokens create …).
    emit(cli.output, answer, [answer.token.token_id], [answer.secret])


@command(app, "list")
async def list_(cli: Cli) -> None:
    """List tokens, without their secrets."""
    async with cli.client() as client:
        answer = await client.tokens.list()
    emit(cli.output, answer, [token.token_id for token in answer.items], show.token_table(answer.items, time.time()))


@command(app, "revoke")
async def revoke(
    cli: Cli,
    token_id: Annotated[
        str, typer.Argument(metavar="TOKEN_ID", help="The token's id: the part between the underscores.")
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Refuse a token from now on."""
    confirm(f"Revoke token {token_id}?", yes=yes)
    async with cli.client() as client:
        answer = await client.tokens.revoke(token_id)
    emit(cli.output, answer, [answer.token_id], [f"{answer.token_id} is revoked"])


@command(app, "whoami")
async def whoami(cli: Cli) -> None:
    """Say whose token this is, and what it may do."""
    async with cli.client() as client:
        answer = await client.tokens.caller()
    lines = details(
        [
            ("Subject", answer.subject),
            ("Role", show.name_of(answer, "role")),
            ("May", ", ".join(sorted(answer.permissions))),
            ("Server", f"{cli.server}, version {answer.server_version}"),
        ]
    )
    emit(cli.output, answer, [answer.subject], lines)


@app.command("recover")
def recover(
    subject: Annotated[str, typer.Option("--subject", help="Whose it is.")] = "admin",
    data_dir: Annotated[
        Path,
        typer.Option("--data-dir", metavar="DIR", envvar="FOOTLIGHTS_DATA_DIR", help="The server's own directory."),
    ] = Path(".footlights/server"),
    database: Annotated[
        str, typer.Option("--database", envvar="FOOTLIGHTS_DATABASE", help="The server's database; empty for SQLite.")
    ] = "",
) -> None:
    """Make an operator's token where the server's database and cluster key are, when there is none left.

    Asks no server. With SQLite the server must be stopped meanwhile; with Postgres it goes on.
    """
    with exiting():
        from footlights.control.services.bootstrap import recover as make

        typer.echo(asyncio.run(make(data_dir, database, subject, os.environ, now=datetime.now(UTC))))
