"""An orbit camera: pure arithmetic, in the scene's space (metres, Z up)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from footlights.viewer.scene.scene import Bounds, Scene, View

Vector = tuple[float, float, float]

DEFAULT_FOV = 38.0
STEEPEST = math.radians(88.0)
"""Straight up or down the azimuth would lose its meaning."""


@dataclass(frozen=True, slots=True)
class Orbit:
    """A camera that looks at `target` from `distance`, at `azimuth` (about Z) and `elevation`, in radians."""

    target: Vector
    distance: float
    azimuth: float
    elevation: float
    vertical_fov: float  # degrees
    size: float  # radius of what is looked at; bounds the distance
    center: Vector  # its middle

    @property
    def eye(self) -> Vector:
        """Where the camera stands."""
        flat = math.cos(self.elevation) * self.distance
        x, y, z = self.target
        return (
            x + flat * math.cos(self.azimuth),
            y + flat * math.sin(self.azimuth),
            z + self.distance * math.sin(self.elevation),
        )

    @property
    def near_far(self) -> tuple[float, float]:
        """Clipping distances: as tight as the scene allows, for the depth buffer's sake."""
        far = self.distance + 4 * self.size + math.dist(self.target, self.center)
        return max(far * 2e-3, self.distance * 0.03), far

    def orbited(self, dx: float, dy: float) -> Orbit:
        """Turned by a drag, in fractions of the picture's width and height; what is grabbed follows the hand."""
        elevation = self.elevation + dy * math.pi
        return replace(
            self,
            azimuth=(self.azimuth - dx * 2 * math.pi) % (2 * math.pi),
            elevation=max(-STEEPEST, min(STEEPEST, elevation)),
        )

    def panned(self, dx: float, dy: float, aspect: float) -> Orbit:
        """Moved sideways, so that what is grabbed stays under the hand."""
        height = 2 * self.distance * math.tan(math.radians(self.vertical_fov) / 2)
        right, up = dx * height * aspect, dy * height
        sin_a, cos_a = math.sin(self.azimuth), math.cos(self.azimuth)
        sin_e, cos_e = math.sin(self.elevation), math.cos(self.elevation)
        x, y, z = self.target
        moved = (
            x + right * sin_a - up * sin_e * cos_a,
            y - right * cos_a - up * sin_e * sin_a,
            z + up * cos_e,
        )
        return replace(self, target=_clamped(moved, self.target, 50 * self.size))

    def dollied(self, pixels: float) -> Orbit:
        """Nearer (negative) or farther, by the pixels of a wheel turn; one notch is about 100."""
        factor = math.exp(max(-600.0, min(600.0, pixels)) * 0.0012)
        return replace(self, distance=max(0.05 * self.size, min(30 * self.size, self.distance * factor)))


def initial_orbit(scene: Scene, aspect: float) -> Orbit:
    """The authored camera, or three-quarters from the front with everything in the picture."""
    return from_view(scene.view, scene.bounds) if scene.view else framed(scene.bounds, aspect)


def framed(bounds: Bounds, aspect: float) -> Orbit:
    """Everything in the picture, from the front, a little from the right and above."""
    vertical = math.radians(DEFAULT_FOV)
    narrowest = min(vertical, 2 * math.atan(math.tan(vertical / 2) * aspect))
    return Orbit(
        target=bounds.center,
        distance=0.86 * bounds.radius / math.sin(narrowest / 2),
        azimuth=math.radians(-58),
        elevation=math.radians(22),
        vertical_fov=DEFAULT_FOV,
        size=bounds.radius,
        center=bounds.center,
    )


def from_view(view: View, bounds: Bounds) -> Orbit:
    """What an authored camera sees."""
    dx, dy, dz = (e - t for e, t in zip(view.eye, view.target, strict=True))
    distance = max(math.sqrt(dx * dx + dy * dy + dz * dz), 1e-6)
    elevation = math.asin(max(-1.0, min(1.0, dz / distance)))
    return Orbit(
        target=view.target,
        distance=distance,
        azimuth=math.atan2(dy, dx),
        elevation=max(-STEEPEST, min(STEEPEST, elevation)),
        vertical_fov=view.vertical_fov,
        size=bounds.radius,
        center=bounds.center,
    )


def _clamped(moved: Vector, before: Vector, limit: float) -> Vector:
    """A target that left every sensible place stays where it was."""
    return moved if all(math.isfinite(v) and abs(v) < 1e9 + limit for v in moved) else before
