"""Commands that call the API: their common options, and how they run."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from footlights.cli.exits import exiting
from footlights.cli.output import Output
from footlights.errors import InvalidArgument
from footlights.ids import is_loopback

if TYPE_CHECKING:
    from footlights.client import Client

Body = Callable[..., Coroutine[Any, Any, None]]
"""What a command does."""

_PANEL: Final = "Connection and output"

_COMMON: Final[dict[str, tuple[Any, Any]]] = {
    "server": (
        Annotated[
            str,
            typer.Option(
                "--server",
                envvar="FOOTLIGHTS_SERVER",
                metavar="HOST:PORT",
                help="The control plane's gRPC address.",
                rich_help_panel=_PANEL,
            ),
        ],
        "127.0.0.1:50051",
    ),
    "token": (
        Annotated[
            str,
            typer.Option(
                "--token",
                envvar="FOOTLIGHTS_TOKEN",
                metavar="TOKEN",
                show_envvar=True,
                help="The API token. Other users of this machine may see it: a file is better.",
                rich_help_panel=_PANEL,
            ),
        ],
        "",
    ),
    "token_file": (
        Annotated[
            Path | None,
            typer.Option(
                "--token-file",
                envvar="FOOTLIGHTS_TOKEN_FILE",
                metavar="FILE",
                help="A file that holds the API token, where --token is not given.",
                rich_help_panel=_PANEL,
            ),
        ],
        None,
    ),
    "tls": (
        Annotated[bool, typer.Option("--tls", envvar="FOOTLIGHTS_TLS", help="Use TLS.", rich_help_panel=_PANEL)],
        False,
    ),
    "ca_file": (
        Annotated[
            Path | None,
            typer.Option(
                "--ca-file",
                envvar="FOOTLIGHTS_CA_FILE",
                metavar="FILE",
                help="PEM certificates that the server's must lead to; implies --tls.",
                rich_help_panel=_PANEL,
            ),
        ],
        None,
    ),
    "insecure": (
        Annotated[
            bool,
            typer.Option(
                "--insecure",
                envvar="FOOTLIGHTS_INSECURE",
                help="Send the token unencrypted beyond this machine, where something else encrypts.",
                rich_help_panel=_PANEL,
            ),
        ],
        False,
    ),
    "output": (
        Annotated[
            Output,
            typer.Option("--output", "-o", help="The form of what is printed on stdout.", rich_help_panel=_PANEL),
        ],
        Output.TABLE,
    ),
}


@dataclass(frozen=True, slots=True)
class Cli:
    """What a command was told beside its own arguments."""

    server: str
    token: str = field(repr=False)
    token_file: Path | None
    tls: bool
    ca_file: Path | None
    insecure: bool
    output: Output

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """A client of the control plane."""
        # gRPC writes warnings of its own to stderr otherwise, which are nobody's business here.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        from footlights.client import Client, Tls

        tls = None
        host = self.server.rpartition(":")[0]
        if not (self.tls or self.ca_file or self.insecure or self.server.startswith("unix:") or is_loopback(host)):
            raise InvalidArgument(
                "server",
                f"{self.server} is not this machine and TLS is off: the token would travel unencrypted. "
                "Give --tls, or say --insecure.",
            )
        if self.tls or self.ca_file:
            tls = Tls(ca=_read("ca-file", self.ca_file) if self.ca_file else None)
        async with Client.connect(self.server, self._token(), tls=tls) as client:
            yield client

    def _token(self) -> str:
        if self.token or self.token_file is None:
            return self.token.strip()
        return _read("token-file", self.token_file).decode("utf-8", "replace").strip()


def command(app: typer.Typer, name: str) -> Callable[[Body], Body]:
    """Register a coroutine function as a command that calls the API.

    Its first parameter is the ``Cli``; its others are typer's. The common options are added, and it runs under
    ``exiting``.
    """

    def register(body: Body) -> Body:
        own = list(inspect.signature(body, eval_str=True).parameters.values())[1:]
        common = [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
            for key, (annotation, default) in _COMMON.items()
        ]

        def run(**given: Any) -> None:
            with exiting():
                cli = Cli(**{key: given.pop(key) for key in _COMMON})
                asyncio.run(body(cli, **given))

        parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own] + common
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what inspect looks for
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        run.__doc__ = body.__doc__
        app.command(name)(run)
        return body

    return register


def group(help_text: str) -> typer.Typer:
    """A group of commands; without one it shows its help."""
    return typer.Typer(help=help_text, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)


def pairs(option: str, texts: list[str]) -> dict[str, str]:
    """``K=V`` texts as a mapping. Raises ``InvalidArgument`` that names the option."""
    found: dict[str, str] = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise InvalidArgument(f"--{option}", f"{text!r} is not KEY=VALUE.")
        found[key] = value
    return found


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something that cannot be undone, where there is somebody to ask."""
    import sys

    if not yes and sys.stdin.isatty():
        typer.confirm(question, abort=True, err=True)


def _read(option: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        raise InvalidArgument(f"--{option}", f"{path} cannot be read: {problem.strerror}.") from None
