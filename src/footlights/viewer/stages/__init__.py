"""The sample stages that the viewer ships, as USD files.

`examples/stages` at the top of the repository holds the scripts that write them; `make stages` runs them.
"""

from __future__ import annotations

from pathlib import Path

DEFAULT = "orrery"

SAMPLES: dict[str, str] = {
    "orrery": "A brass orrery: six planets with their moons on a train of gears",
    "robot_cell": "A robot cell: an arm that packs parts from a conveyor",
    "theatre": "A small theatre: curtains, moving spotlights and a mobile on stage",
}
"""Name -> what it shows."""


def sample_path(name: str) -> Path:
    """Return the file of a sample stage.

    Raises:
        KeyError: `name` is not in SAMPLES.
    """
    if name not in SAMPLES:
        raise KeyError(f"unknown sample stage {name!r}; choose from {', '.join(SAMPLES)}")
    return Path(__file__).parent / f"{name}.usdc"
