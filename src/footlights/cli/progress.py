"""The progress of a session that a command waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from footlights.cli.live import LiveDisplay
from footlights.cli.show import steps, waiting
from footlights.protocol.enums import field_name
from footlights.protocol.output import visible

if TYPE_CHECKING:
    from footlights.v1 import session_pb2


class SessionProgress(LiveDisplay):
    """Shows a session's steps on stderr. Call it with every change of the session."""

    def __init__(self) -> None:
        super().__init__()
        self._printed: set[str] = set()

    def __call__(self, session: session_pb2.Session) -> None:
        """Show the current state of ``session``."""
        lines = [line for line in (*steps(session), waiting(session)) if line]
        if self.on_terminal:
            from rich.spinner import Spinner
            from rich.text import Text

            self.draw(Spinner("dots", Text(visible(f"{field_name(session, 'state')}  {' → '.join(lines)}"))))
            return
        for line in lines:
            if line not in self._printed:
                self._printed.add(line)
                typer.echo(visible(f"{session.session_id}  {line}"), err=True)
