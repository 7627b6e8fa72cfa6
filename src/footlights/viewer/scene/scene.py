"""What is drawn: plain arrays, independent of USD above and of panda3d below.

A scene is a tree of joints (the prims that move or come and go) and a few batches of triangles, each rigidly
attached to one joint. Everything that does not move is already transformed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from footlights.viewer.scene.left_out import LeftOut
from footlights.viewer.scene.roots import StageRoots

if TYPE_CHECKING:
    from collections.abc import Callable

    from footlights.viewer.scene.prims.deform import Motion

Floats: TypeAlias = npt.NDArray[np.float32]
Ints: TypeAlias = npt.NDArray[np.int32]
Matrix: TypeAlias = npt.NDArray[np.float64]
"""4x4, row vectors: a point is transformed as `point @ matrix`, as in USD and in panda3d."""

Wrap: TypeAlias = Literal["repeat", "mirror", "clamp", "black"]

ROOT = 0
"""Index of the joint that never moves."""


@dataclass(frozen=True, slots=True)
class Image:
    """What is taken of a picture file."""

    file: str  # a path, or `package.usdz[path]`
    channel: str = "rgb"  # rgb, r, g, b or a
    scale: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)  # linear; of red, green, blue and alpha
    bias: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)  # added afterwards
    raw: bool = False  # its colours are linear; otherwise display-referred


@dataclass(frozen=True, slots=True)
class Texture:
    """The pictures on a surface, drawn as one. Hashable: it is made once."""

    color: Image | None = None
    alpha: Image | None = None  # the surface's opacity
    glow: Image | None = None  # light that it gives
    occlusion: Image | None = None  # how much light reaches it
    relief: Image | None = None  # its normals, in tangent space
    wrap: tuple[Wrap, Wrap] = ("repeat", "repeat")  # along u and v
    base: tuple[float, float, float] = (1.0, 1.0, 1.0)  # linear: the colour where there is no picture of it
    light: tuple[float, float, float] = (0.0, 0.0, 0.0)  # linear: light that it gives everywhere
    cutout: float = 0.0  # opacity below which nothing is drawn and above which all is; 0: it is blended

    @property
    def images(self) -> tuple[Image, ...]:
        """The pictures that there are."""
        every = (self.color, self.alpha, self.glow, self.occlusion, self.relief)
        return tuple(image for image in every if image is not None)

    @property
    def glows(self) -> bool:
        """Whether all that is seen of it is light that it gives."""
        if self.glow is None:
            return False
        return self.glow == self.color or (self.color is None and max(self.base) < 0.1)

    @property
    def tiled(self) -> bool:
        """Whether it is of many tiles (UDIM)."""
        return any("<UDIM>" in image.file for image in self.images)

    def tile(self, number: int) -> Texture:
        """One of its tiles."""

        def of(image: Image | None) -> Image | None:
            return image and replace(image, file=image.file.replace("<UDIM>", str(number)))

        return replace(
            self,
            color=of(self.color),
            alpha=of(self.alpha),
            glow=of(self.glow),
            occlusion=of(self.occlusion),
            relief=of(self.relief),
        )


@dataclass(frozen=True, slots=True)
class Finish:
    """How a surface answers light, besides its colour (which is per vertex). Hashable: equal ones are batched."""

    roughness: float = 0.5  # 0 mirror-like .. 1 chalk
    metallic: float = 0.0  # 0 dielectric .. 1 metal
    emission: tuple[float, float, float] = (0.0, 0.0, 0.0)  # display-referred RGB, 0..1
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)  # colour of the highlight
    transparent: bool = False
    unlit: bool = False  # its texture is light that it gives
    texture: Texture | None = None  # multiplies the colours of the vertices
    roughness_image: Image | None = None  # whose mean replaces the roughness
    metallic_image: Image | None = None


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
    motion: Motion | None = None  # where its vertices are at other times


@dataclass(frozen=True, slots=True)
class SceneJoint:
    """A prim whose place or visibility changes. `sample(time)` is (matrix to the parent joint, visible)."""

    path: str
    parent: int
    sample: Callable[[float], tuple[Matrix, bool]]


def triple(vector: Any) -> tuple[float, float, float]:
    """Three numbers of USD's or of numpy's in plain ones."""
    x, y, z = (float(v) for v in vector)
    return (x, y, z)


def places_of(joints: list[SceneJoint], time: float) -> list[Matrix]:
    """What leads from each joint's space to the scene's, at a time."""
    places: list[Matrix] = []
    for joint in joints:
        local, _ = joint.sample(time)
        places.append(local if joint.parent < 0 else local @ places[joint.parent])
    return places


@dataclass(frozen=True, slots=True)
class View:
    """Where to look from, in the scene's space (metres, Z up)."""

    eye: tuple[float, float, float]
    target: tuple[float, float, float]
    vertical_fov: float  # degrees
    follow: Callable[[float], View] | None = None  # where a camera that moves is at a time


@dataclass(frozen=True, slots=True)
class Lamp:
    """A light that comes from somewhere."""

    joint: int
    vector: tuple[float, float, float]  # of a distant one its direction, else its place; in the joint's space
    distant: bool
    color: tuple[float, float, float] = (0.0, 0.0, 0.0)  # as it arrives at the middle of the scene
    away: float = 0.0  # from the middle of the scene, in metres


@dataclass(frozen=True, slots=True)
class Lighting:
    """The lights of a stage."""

    lamps: list[Lamp]  # the strongest first
    ambient: tuple[float, float, float]


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
    views: list[View] = field(default_factory=list)  # the authored cameras, the one to begin with first
    lighting: Lighting | None = None  # None: the viewer's own
    left_out: LeftOut = field(default_factory=LeftOut)
    roots: StageRoots = field(default_factory=StageRoots)  # where its textures may lie
    keepalive: Any = None  # the open stage, which the joints' samplers read

    @property
    def view(self) -> View | None:
        """The authored camera to begin with, if there is one."""
        return self.views[0] if self.views else None

    @property
    def triangle_count(self) -> int:
        """How many triangles are drawn a frame."""
        return sum(len(batch.triangles) for batch in self.batches)

    @property
    def animated(self) -> bool:
        """Whether anything moves."""
        moving = len(self.joints) > 1 or any(batch.motion is not None for batch in self.batches)
        return moving and self.timeline.end > self.timeline.start
