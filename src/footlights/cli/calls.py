"""Commands that call the API: their common options, and how they run."""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from footlights.cli.exits import exiting
from footlights.cli.output import Output
from footlights.errors import InvalidArgument
from footlights.ids import is_loopback

if TYPE_CHECKING:
    from footlights.client import Client
    from footlights.client.pages import Items

_AnswerT = TypeVar("_AnswerT", bound=Any)
Body = Callable[..., Coroutine[Any, Any, None]]
"""The body of a command."""

DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything and change nothing.")]
"""The option of commands that write."""
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
"""The option of commands that ``confirm``."""

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
                help="The API token. Prefer a file: other users of this machine may see arguments.",
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
                help="A file with the API token; used if --token is not given.",
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
                help="PEM file of the authorities that sign the server's certificate; implies --tls.",
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
                help="Allow an unencrypted connection to another machine, if something else encrypts it.",
                rich_help_panel=_PANEL,
            ),
        ],
        False,
    ),
    "output": (
        Annotated[
            Output,
            typer.Option("--output", "-o", help="The format on stdout.", rich_help_panel=_PANEL),
        ],
        Output.TABLE,
    ),
}


@dataclass(frozen=True, slots=True)
class Cli:
    """The common options of a command."""

    server: str
    token: str = field(repr=False)
    token_file: Path | None
    tls: bool
    ca_file: Path | None
    insecure: bool
    output: Output

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """Connect to the control plane."""
        # gRPC would write its own warnings to stderr.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        from footlights.client import Client, Tls

        tls = None
        host = self.server.rpartition(":")[0]
        plain = self.insecure or self.server.startswith("unix:") or is_loopback(host)
        if self.tls or self.ca_file or not plain:
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
    """Make a group of commands; it shows its help when called without one."""
    return typer.Typer(help=help_text, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)


def pairs(option: str, texts: list[str]) -> dict[str, str]:
    """Return ``K=V`` texts as a mapping. Raises ``InvalidArgument``, naming the option."""
    found: dict[str, str] = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise InvalidArgument(f"--{option}", f"must be KEY=VALUE (got {text!r}).")
        found[key] = value
    return found


def secret_texts(texts: list[str]) -> dict[str, str]:
    """Return the contents of files given as ``K=FILE``, ``-`` being stdin, without the line end that editors add.

    Raises ``InvalidArgument`` where one cannot be read.
    """
    found: dict[str, str] = {}
    for key, source in pairs("secret-file", texts).items():
        try:
            text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as problem:
            why = problem.strerror if isinstance(problem, OSError) else "it is not UTF-8 text"
            raise InvalidArgument("--secret-file", f"{source} cannot be read: {why}.") from None
        found[key] = text.removesuffix("\n").removesuffix("\r")
    return found


async def whole(items: Items[_AnswerT, Any], most: int | None = None) -> _AnswerT:
    """Return a list as one answer: the first page, with the items of all pages, until there are ``most``."""
    pages = [page async for page in items.pages(most)]
    answer: Any = pages[0]
    for page in pages[1:]:
        answer.items.extend(page.items)
    answer.next_page_token = pages[-1].next_page_token
    found: _AnswerT = answer
    return found


def confirm(question: str, *, yes: bool) -> None:
    """Ask before an action that cannot be undone, if there is a terminal."""
    if not yes and sys.stdin.isatty():
        typer.confirm(question, abort=True, err=True)


def _read(option: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        raise InvalidArgument(f"--{option}", f"cannot read {path}: {problem.strerror}.") from None
