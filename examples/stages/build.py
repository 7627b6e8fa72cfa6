"""Write the viewer's sample stages: `python -m examples.stages.build [NAME ...]`."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

from footlights.viewer.stages import SAMPLES, sample_path

if TYPE_CHECKING:
    from pathlib import Path


def main(names: list[str]) -> None:
    """Build the named stages, or all, where the viewer finds them."""
    for name in names or list(SAMPLES):
        path = sample_path(name)
        build(name, path)
        print(f"{path.name}: {path.stat().st_size:,} bytes")


def build(name: str, path: Path) -> None:
    """Build the stage `name` and write it to `path`."""
    import_module(f"examples.stages.{name}").build(path)


if __name__ == "__main__":
    main(sys.argv[1:])
