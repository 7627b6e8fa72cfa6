"""Sample stages of our own making, written by `build` (run `python -m footlights.viewer.stages.build`)."""

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
    """The file of a sample stage. Raises KeyError for a name that is not in SAMPLES."""
    if name not in SAMPLES:
        raise KeyError(f"there is no sample stage {name!r}; there are {', '.join(SAMPLES)}")
    return Path(__file__).parent / f"{name}.usdc"
