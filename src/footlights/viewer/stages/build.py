"""Writes the sample stages next to this file: `python -m footlights.viewer.stages.build [NAME ...]`."""

from __future__ import annotations

import sys
from importlib import import_module

from footlights.viewer.stages import SAMPLES, sample_path


def main(names: list[str]) -> None:
    """Build the named stages, or all."""
    for name in names or list(SAMPLES):
        path = sample_path(name)
        import_module(f"footlights.viewer.stages.{name}").build(path)
        print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
