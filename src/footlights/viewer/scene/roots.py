"""What a session may read: the stage that it opens, and what lies below the roots that its version allows.

The roots are the member ``FOOTLIGHTS_STAGE_ROOTS`` of the session file (the launch contract). Without it, as when a
person runs the viewer, everything may be read.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from footlights.launch.recipe.stages import StageError, parse_root, parse_stage

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class StageRoots:
    """Where stages, what they pull in, textures and redirects must lie."""

    allowed: tuple[str, ...] | None = None
    """Directories and URL prefixes; None: everything is allowed."""
    own: tuple[str, ...] = ()
    """The stage that was asked for, or the directory that it was downloaded to."""

    @classmethod
    def of(cls, allowed: Sequence[str] | None) -> StageRoots:
        """Return the roots that a session file names."""
        return cls(None if allowed is None else tuple(allowed))

    def including(self, path: Path) -> StageRoots:
        """Return the same with a file or a directory that may be read, wherever it is."""
        return replace(self, own=(*self.own, os.path.realpath(path)))

    @property
    def unlimited(self) -> bool:
        """Whether everything may be read."""
        return self.allowed is None

    def admits_file(self, path: str | Path) -> bool:
        """Whether a file may be read; symbolic links count as what they lead to."""
        if self.allowed is None:
            return True
        real = os.path.realpath(path)
        directories = [os.path.realpath(root) for root in self.allowed if root.startswith("/")]
        return any(real == root or real.startswith(f"{root.rstrip('/')}/") for root in (*self.own, *directories))

    def admits_url(self, url: str) -> bool:
        """Whether an address of the web may be read."""
        if self.allowed is None:
            return True
        try:
            stage = parse_stage(url)
            return bool(stage.scheme) and any(stage.below(parse_root(root)) for root in self.allowed)
        except StageError:
            return False
