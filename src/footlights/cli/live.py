"""What a command shows on stderr while it works: drawn in place on a terminal, lines elsewhere."""

from __future__ import annotations

import os
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live


class LiveDisplay:
    """A context manager; a subclass calls ``draw`` on a terminal and prints lines elsewhere."""

    def __init__(self) -> None:
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    @property
    def on_terminal(self) -> bool:
        """Whether ``draw`` shows anything."""
        return self._live is not None

    def draw(self, content: RenderableType) -> None:
        """Replace what is shown."""
        if self._live is not None:
            self._live.update(content, refresh=True)
