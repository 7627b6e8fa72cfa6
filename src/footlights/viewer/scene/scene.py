"""What is drawn: plain arrays, independent of USD above and of panda3d below.

A scene is a tree of joints (the prims that move or come and go) and a few batches of triangles, each rigidly
attached to one joint. Everything that does not move is already transformed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from footlights.viewer.scene.roots import StageRoots

if TYPE_CHECKING:
    from collections.abc import Callable

Floats: TypeAlias = npt.NDArray[np.float32]
Ints: TypeAlias = npt.NDArray[np.int32]
Matrix: TypeAlias = npt.NDArray[np.float64]
"""4x4, row vectors: a point is transformed as `point @ matrix`, as in USD and in panda3d."""

ROOT = 0
"""Index of the joint that never moves."""


@dataclass(frozen=True, slots=True)
class Texture:
    """A picture on a surface. Hashable: it is loaded once."""

    file: str  # a path, or `package.usdz[path]`
    wrap: tuple[str, str] = ("repeat", "repeat")  # along u and v: repeat, mirror, clamp or black
    alpha: bool = False  # whether its alpha is the surface's opacity


@dataclass(frozen=True, slots=True)
class Finish:
    """How a surface answers light, besides its colour (which is per vertex). Hashable: equal ones are batched."""

    roughness: float = 0.5  # 0 mirror-like .. 1 chalk
    metallic: float = 0.0  # 0 dielectric .. 1 metal
    emission: tuple[float, float, float] = (0.0, 0.0, 0.0)  # display-referred RGB, 0..1
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)  # colour of the highlight
    transparent: bool = False
    texture: Texture | None = None  # multiplies the colours of the vertices


@dataclass(frozen=True, slots=True)
class Batch:
    """Triangles that share a joint and a finish."""

    joint: int
    finish: Finish
    positions: Floats  # (n, 3), in the joint's space
    normals: Floats  # (n, 3), unit length
    colors: Floats  # (n, 4), display-referred RGB and opacity, 0..1
    triangles: Ints  # (m, 3), counter-clockwise seen from outside
    uvs: Floats | None = None  # (n, 2), where in the finish's texture; (0, 0) is its lower left corner


@dataclass(frozen=True, slots=True)
class SceneJoint:
    """A prim whose place or visibility changes. `sample(time)` is (matrix to the parent joint, visible)."""

    path: str
    parent: int
    sample: Callable[[float], tuple[Matrix, bool]]


@dataclass(frozen=True, slots=True)
class View:
    """Where to look from, in the scene's space (metres, Z up)."""

    eye: tuple[float, float, float]
    target: tuple[float, float, float]
    vertical_fov: float  # degrees


@dataclass(frozen=True, slots=True)
class Bounds:
    """An axis-aligned box in the scene's space at the start time."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]

    @property
    def center(self) -> tuple[float, float, float]:
        """The middle of the box."""
        x, y, z = ((a + b) / 2 for a, b in zip(self.low, self.high, strict=True))
        return (x, y, z)

    @property
    def radius(self) -> float:
        """Half the diagonal; never zero."""
        return max(0.5 * math.dist(self.low, self.high), 1e-6)


@dataclass(frozen=True, slots=True)
class Timeline:
    """The stage's animation, in time codes. A still stage has `start == end`."""

    start: float
    end: float
    codes_per_second: float

    def at(self, seconds: float) -> float:
        """The time code after `seconds` of playing, in a loop."""
        length = self.end - self.start
        if length <= 0:
            return self.start
        return self.start + (seconds * self.codes_per_second) % length


@dataclass(frozen=True, slots=True)
class Scene:
    """A whole stage, ready to draw: metres, Z up, right-handed."""

    name: str
    joints: list[SceneJoint]  # parents before children; joints[0] is the root
    batches: list[Batch]
    bounds: Bounds
    timeline: Timeline
    view: View | None  # the authored camera, if there is one
    warnings: list[str] = field(default_factory=list)
    roots: StageRoots = field(default_factory=StageRoots)  # where its textures may lie
    keepalive: Any = None  # the open stage, which the joints' samplers read

    @property
    def triangle_count(self) -> int:
        """How many triangles are drawn a frame."""
        return sum(len(batch.triangles) for batch in self.batches)

    @property
    def animated(self) -> bool:
        """Whether anything moves."""
        return len(self.joints) > 1 and self.timeline.end > self.timeline.start
