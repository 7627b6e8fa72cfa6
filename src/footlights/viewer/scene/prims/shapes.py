"""USD's geometric primitives as triangles: Cube, Sphere, Cylinder, Cone, Capsule, Plane.

Sizes are in the prim's own units, origins and axes as the UsdGeom schema defines them. Normals are exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from footlights.viewer.scene.scene import Floats, Ints

Axis = Literal["X", "Y", "Z"]

AROUND = 32
"""Segments around a round shape."""


@dataclass(frozen=True, slots=True)
class TriangleMesh:
    """Vertices with normals, and counter-clockwise triangles over them."""

    positions: Floats  # (n, 3)
    normals: Floats  # (n, 3)
    triangles: Ints  # (m, 3)


def cube(size: float = 2.0) -> TriangleMesh:
    """An axis-aligned cube around the origin."""
    sides: list[TriangleMesh] = []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            normal = np.zeros(3)
            normal[axis] = sign
            u = np.roll(normal, 1)
            v = np.cross(normal, u)
            corners = np.array([normal + a * u + b * v for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))])
            sides.append(_shape(corners * (size / 2), np.tile(normal, (4, 1)), [(0, 1, 2), (0, 2, 3)]))
    return _join(sides)


def sphere(radius: float = 1.0) -> TriangleMesh:
    """A sphere around the origin."""
    angles = np.linspace(-np.pi / 2, np.pi / 2, AROUND // 2 + 1)
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return _lathe(ring * radius, ring)


def cylinder(height: float = 2.0, radius: float = 1.0, axis: Axis = "Z") -> TriangleMesh:
    """A closed cylinder around the origin, along `axis`."""
    half = height / 2
    wall = _lathe(np.array([[radius, -half], [radius, half]]), np.array([[1.0, 0], [1, 0]]))
    return _along(_join([wall, _disc(radius, -half, -1), _disc(radius, half, 1)]), axis)


def frustum(height: float, bottom: float, top: float, axis: Axis = "Z") -> TriangleMesh:
    """A closed cylinder whose two ends differ in radius."""
    half = height / 2
    slope = np.array([height, bottom - top]) / max(np.hypot(height, bottom - top), 1e-12)
    wall = _lathe(np.array([[bottom, -half], [top, half]]), np.array([slope, slope]))
    return _along(_join([wall, _disc(bottom, -half, -1), _disc(top, half, 1)]), axis)


def cone(height: float = 2.0, radius: float = 1.0, axis: Axis = "Z") -> TriangleMesh:
    """A closed cone around the middle of its height, its tip towards `axis`."""
    half = height / 2
    slope = np.array([height, radius]) / np.hypot(height, radius)
    wall = _lathe(np.array([[radius, -half], [0, half]]), np.array([slope, slope]))
    return _along(_join([wall, _disc(radius, -half, -1)]), axis)


def capsule(height: float = 1.0, radius: float = 0.5, axis: Axis = "Z") -> TriangleMesh:
    """A cylinder of `height` with a half sphere on either end."""
    quarter = np.linspace(0, np.pi / 2, AROUND // 4 + 1)
    cap = np.stack([np.cos(quarter), np.sin(quarter)], axis=1)
    ring = np.concatenate([cap[::-1] * [1, -1], cap])
    lift = np.repeat([[0, -height / 2], [0, height / 2]], len(cap), axis=0)
    return _along(_lathe(ring * radius + lift, ring), axis)


def plane(width: float = 2.0, length: float = 2.0, axis: Axis = "Z") -> TriangleMesh:
    """A rectangle through the origin that faces `axis`: width along X (or Z), length along Y (or Z)."""
    w, h = width / 2, length / 2
    corners = {
        "Z": [(-w, -h, 0), (w, -h, 0), (w, h, 0), (-w, h, 0)],
        "X": [(0, -h, w), (0, -h, -w), (0, h, -w), (0, h, w)],
        "Y": [(-w, 0, h), (w, 0, h), (w, 0, -h), (-w, 0, -h)],
    }[axis]
    normal = np.roll([0.0, 0.0, 1.0], "XYZ".index(axis) + 1)
    return _shape(np.array(corners), np.tile(normal, (4, 1)), [(0, 1, 2), (0, 2, 3)])


def _lathe(profile: np.ndarray, normals: np.ndarray) -> TriangleMesh:
    """Turn (radius, z) pairs, given from bottom to top, around Z. A point on the axis gives no empty triangles."""
    turn = np.linspace(0, 2 * np.pi, AROUND + 1)
    spoke = np.stack([np.cos(turn), np.sin(turn)], axis=1)

    def swept(pairs: np.ndarray) -> np.ndarray:
        flat = pairs[:, None, :1] * spoke[None]
        return np.concatenate([flat, np.broadcast_to(pairs[:, None, 1:], (*flat.shape[:2], 1))], axis=2)

    row = AROUND + 1
    triangles: list[tuple[int, int, int]] = []
    for k in range(len(profile) - 1):
        for j in range(AROUND):
            a, b, c, d = k * row + j, k * row + j + 1, (k + 1) * row + j + 1, (k + 1) * row + j
            if abs(profile[k, 0]) > 1e-9:
                triangles.append((a, b, c))
            if abs(profile[k + 1, 0]) > 1e-9:
                triangles.append((a, c, d))
    return _shape(swept(profile).reshape(-1, 3), swept(normals).reshape(-1, 3), triangles)


def _disc(radius: float, z: float, facing: int) -> TriangleMesh:
    turn = np.linspace(0, 2 * np.pi, AROUND, endpoint=False)
    rim = np.stack([np.cos(turn) * radius, np.sin(turn) * radius, np.full(AROUND, z)], axis=1)
    points = np.concatenate([[[0, 0, z]], rim])
    spans = [(0, 1 + j, 1 + (j + 1) % AROUND)[:: facing or 1] for j in range(AROUND)]
    return _shape(points, np.tile([0.0, 0.0, facing], (len(points), 1)), spans)


def _along(shape: TriangleMesh, axis: Axis) -> TriangleMesh:
    """Turn a shape made along Z; a cyclic permutation keeps the winding."""
    shift = "ZXY".index(axis)
    return TriangleMesh(np.roll(shape.positions, shift, 1), np.roll(shape.normals, shift, 1), shape.triangles)


def _shape(positions: np.ndarray, normals: np.ndarray, triangles: Sequence[tuple[int, ...]]) -> TriangleMesh:
    return TriangleMesh(
        positions.astype(np.float32), normals.astype(np.float32), np.array(triangles, np.int32).reshape(-1, 3)
    )


def _join(shapes: list[TriangleMesh]) -> TriangleMesh:
    offsets = np.cumsum([0] + [len(s.positions) for s in shapes[:-1]])
    return TriangleMesh(
        np.concatenate([s.positions for s in shapes]),
        np.concatenate([s.normals for s in shapes]),
        np.concatenate([s.triangles + np.int32(o) for s, o in zip(shapes, offsets, strict=True)]),
    )
