"""Directories of a node that its applications write to, as an operator names them.

``DIRECTORY`` is one; ``DIRECTORY/*`` makes each of its own subdirectories one, and the applications cannot change which
there are. Such a directory is shown as a whole or not at all: what lies in it may be replaced at any moment, also by a
link that leads out, between the look at it and the start of what it is shown to.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

EACH: Final = "/*"


def place_of(path: str, roots: Sequence[str]) -> str:
    """Return the directory that applications write to which a real path is, or lies in; empty where there is none."""
    for root in roots:
        base = Path(os.path.realpath(root.removesuffix(EACH)))
        if not Path(path).is_relative_to(base):
            continue
        if not root.endswith(EACH):
            return str(base)
        if below := Path(path).relative_to(base).parts:
            return str(base / below[0])
    return ""


def nested(roots: Sequence[str]) -> tuple[str, str] | None:
    """Return two of them of which one lies in the other; None where there are none."""
    for number, root in enumerate(roots):
        for other in roots[number + 1 :]:
            one, two = (Path(each.removesuffix(EACH)) for each in (root, other))
            if one.is_relative_to(two) or two.is_relative_to(one):
                return root, other
    return None
