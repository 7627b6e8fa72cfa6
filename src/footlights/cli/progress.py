"""Shows a session's way while it is waited for, on stderr: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any

import typer

from footlights.cli.show import name_of, steps, waiting

if TYPE_CHECKING:
    from rich.spinner import Spinner

    from footlights.v1 import session_pb2


class Progress:
    """Give it every change of a session."""

    def __init__(self) -> None:
        self._live: Any = None
        self._said: set[str] = set()

    def __enter__(self) -> Progress:
        if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            from rich.console import Console
            from rich.live import Live

            self._live = Live(_spinning("Asking …"), console=Console(stderr=True), transient=True)
            self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, session: session_pb2.Session) -> None:
        """Show where ``session`` stands."""
        if self._live is not None:
            self._live.update(_spinning(f"{name_of(session, 'state')}  {_way(session)}"), refresh=True)
            return
        for line in [*steps(session), waiting(session)]:
            if line and line not in self._said:
                self._said.add(line)
                typer.echo(f"{session.session_id}  {line}", err=True)


def _spinning(text: str) -> Spinner:
    from rich.spinner import Spinner
    from rich.text import Text

    return Spinner("dots", Text(text))


def _way(session: session_pb2.Session) -> str:
    return " → ".join([*steps(session), *filter(None, [waiting(session)])])
