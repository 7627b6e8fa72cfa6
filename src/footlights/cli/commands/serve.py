"""``footlights server``, ``footlights agent`` and ``footlights gateway``: the long-running processes."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any, Final

import typer

from footlights.agent.config import AgentConfig
from footlights.cli import options
from footlights.cli.exits import exiting
from footlights.cli.local.bond import die_with_parent
from footlights.control.settings import ServerSettings

_PASSED_ON: Final = {"allow_extra_args": True, "ignore_unknown_options": True}
_LOGGING: Final = ("log_format", "log_level")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    server = options.parameters(ServerSettings, {"data_dir": Path(".footlights/server")})
    agent = options.parameters(AgentConfig, {"data_dir": Path(".footlights/agent"), "server": "127.0.0.1:50051"})
    logging = [parameter for parameter in server if parameter.name in _LOGGING]
    options.register(app, "server", _server, server)
    options.register(app, "agent", _agent, [*agent, *logging])
    app.command("gateway", context_settings=_PASSED_ON, add_help_option=False)(_gateway)


def _server(**given: Any) -> None:
    """Run a control plane: gRPC, REST, the front door and the console.

    Stops on SIGINT or SIGTERM; the sessions on the nodes continue.
    """
    die_with_parent(os.environ)
    with exiting():
        settings = options.fill(ServerSettings, given)
        from footlights.control.server import run

        run(settings)


def _agent(log_format: str, log_level: str, **given: Any) -> None:
    """Run a node's agent: it offers the machine's GPUs and starts applications on them.

    Stops on SIGINT or SIGTERM; the applications continue and are adopted at the next start, unless --drain-on-stop is
    given.
    """
    die_with_parent(os.environ)
    with exiting():
        config = options.fill(AgentConfig, given)
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        from footlights.logging import set_up_logging

        set_up_logging(log_format, log_level)
        with options.naming_options():
            asyncio.run(_until_signalled(config))


def _gateway(context: typer.Context) -> None:
    """Run only the gateway: REST in front of any gRPC server. See 'footlights gateway --help'."""
    from footlights.gateway.command import main

    raise typer.Exit(main(context.args))


async def _until_signalled(config: AgentConfig) -> None:
    from footlights.agent.main import run

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await run(config, stop)
