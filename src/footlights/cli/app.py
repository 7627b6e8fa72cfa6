"""The root of the command line."""

from __future__ import annotations

import os
from typing import Annotated

import typer

import footlights
from footlights.cli.commands import (
    apps,
    authorities,
    caches,
    certify,
    db,
    firewall,
    keys,
    nodes,
    pools,
    serve,
    sessions,
    simulate,
    tokens,
)
from footlights.cli.exits import HELP, exiting
from footlights.cli.local import up
from footlights.cli.secret_files import read_secret_files

app = typer.Typer(
    name="footlights",
    help="The open control plane for streaming GPU applications.\n\n"
    "To start: 'footlights up' runs everything on this machine.",
    epilog=HELP,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line."""
    app()


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"footlights {footlights.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    with exiting():
        read_secret_files(os.environ)


@app.command("version")
def _version_command() -> None:
    """Show the version."""
    _show_version(True)


up.register(app)
serve.register(app)
certify.register(apps.app)
firewall.register(app)
app.add_typer(apps.app, name="apps")
app.add_typer(sessions.app, name="sessions")
app.add_typer(nodes.app, name="nodes")
app.add_typer(authorities.app, name="authorities")
app.add_typer(apps.profiles_app, name="profiles")
app.add_typer(pools.app, name="pools")
app.add_typer(tokens.app, name="tokens")
simulate.register(app)
app.add_typer(db.app, name="db")
app.add_typer(keys.app, name="keys")
app.add_typer(caches.app, name="caches")
