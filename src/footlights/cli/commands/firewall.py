"""``footlights firewall``: the packet filter of a node."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import typer

from footlights.cli import options
from footlights.cli.exits import exiting
from footlights.launch.firewall import FirewallSettings

_LOAD = Annotated[
    bool, typer.Option("--load", help="Load the rules with nft, in place of those loaded before. As root.")
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    load = inspect.Parameter("load", inspect.Parameter.KEYWORD_ONLY, annotation=_LOAD, default=False)
    options.register(app, "firewall", _firewall, [*options.parameters(FirewallSettings, {}), load])


def _firewall(load: bool, **given: Any) -> None:
    """Print the packet filter of a node, for nft, by the settings of its agent.

    It keeps containers from the node, from each other and from link-local addresses, and everyone but the agent from
    the inner ports of applications.
    """
    with exiting():
        from footlights.launch import firewall

        settings = options.fill(FirewallSettings, given)
        if load:
            firewall.load(settings)
        else:
            typer.echo(firewall.rules(settings), nl=False)
