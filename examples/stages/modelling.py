"""A small modelling kit for the sample stages: solids as arrays, rigid groups with motion, baked occlusion, USD out.

Metres, Z up. Everything is deterministic, so that building twice writes the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

RGB = tuple[float, float, float]
Points = np.ndarray
Key = tuple[float, Any]

KEY_LIGHT = np.array([-0.45, -0.55, 0.9]) / np.linalg.norm([-0.45, -0.55, 0.9])
"""Towards the viewer's key light: shadows are baked for it."""


@dataclass(frozen=True, slots=True)
class Solid:
    """Points and polygons over them, counter-clockwise seen from outside."""

    points: Points  # (n, 3)
    polygons: Sequence[tuple[int, ...]]

    def at(self, x: float = 0, y: float = 0, z: float = 0) -> Solid:
        """Moved."""
        return Solid(self.points + np.array([x, y, z]), self.polygons)

    def scaled(self, x: float, y: float, z: float) -> Solid:
        """Scaled about the origin, by positive factors."""
        return Solid(self.points * np.array([x, y, z]), self.polygons)

    def turned(self, axis: str, degrees: float) -> Solid:
        """Turned about an axis through the origin."""
        a = np.radians(degrees)
        i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
        points = self.points.copy()
        points[:, i] = np.cos(a) * self.points[:, i] - np.sin(a) * self.points[:, j]
        points[:, j] = np.sin(a) * self.points[:, i] + np.cos(a) * self.points[:, j]
        return Solid(points, self.polygons)

    def flipped(self) -> Solid:
        """Inside out."""
        return Solid(self.points, [polygon[::-1] for polygon in self.polygons])


def joined(solids: Sequence[Solid]) -> Solid:
    """One solid of many."""
    points, polygons, offset = [], [], 0
    for solid in solids:
        points.append(solid.points)
        polygons += [tuple(k + offset for k in polygon) for polygon in solid.polygons]
        offset += len(solid.points)
    return Solid(np.concatenate(points), polygons)


def lathe(profile: Sequence[tuple[float, float]], segments: int = 64) -> Solid:
    """A profile of (radius, z), from bottom to top, turned about Z. Radius 0 closes it."""
    angles = np.linspace(0, 2 * np.pi, segments, endpoint=False)
    points: list[Points] = []
    rings: list[list[int]] = []
    count = 0
    for radius, z in profile:
        if radius <= 1e-9:
            points.append(np.array([[0.0, 0.0, z]]))
            rings.append([count] * segments)
            count += 1
        else:
            ring = [radius * np.cos(angles), radius * np.sin(angles), np.full(segments, z)]
            points.append(np.stack(ring, axis=1))
            rings.append(list(range(count, count + segments)))
            count += segments
    polygons: list[tuple[int, ...]] = []
    for low, high in pairwise(rings):
        for j in range(segments):
            k = (j + 1) % segments
            corners = dict.fromkeys((low[j], low[k], high[k], high[j]))
            if len(corners) >= 3:
                polygons.append(tuple(corners))
    return Solid(np.concatenate(points), polygons)


def ball(radius: float, segments: int = 48) -> Solid:
    """A sphere."""
    angles = np.linspace(-np.pi / 2, np.pi / 2, segments // 2 + 1)
    return lathe([(radius * float(np.cos(a)), radius * float(np.sin(a))) for a in angles], segments)


def rod(radius: float, low: float, high: float, segments: int = 32, bevel: float = 0.0) -> Solid:
    """A closed cylinder along Z, its edges bevelled."""
    b = min(bevel, radius * 0.9, (high - low) / 2 * 0.9)
    wall = (
        [(radius - b, low), (radius, low + b), (radius, high - b), (radius - b, high)]
        if b
        else [(radius, low), (radius, high)]
    )
    return lathe([(0, low), *wall, (0, high)], segments)


def ring(radius: float, thickness: float, segments: int = 96, sides: int = 16, flatten: float = 1.0) -> Solid:
    """A torus around Z."""
    angles = np.linspace(0, 2 * np.pi, sides + 1)
    return lathe(
        [(radius + thickness * float(np.cos(a)), flatten * thickness * float(np.sin(a))) for a in angles], segments
    )


def annulus(inner: float, outer: float, low: float, high: float, segments: int = 96) -> Solid:
    """A flat washer."""
    return lathe([(inner, high), (inner, low), (outer, low), (outer, high), (inner, high)], segments)


def box(x: float, y: float, z: float, cells: int = 1, bevel: float = 0.0) -> Solid:
    """A box of these sizes on the ground, centred in x and y, each side a grid of cells, its edges bevelled."""

    def line(length: float) -> Points:
        inner = np.linspace(-length / 2 + bevel, length / 2 - bevel, cells + 1)
        return inner if not bevel else np.concatenate([[-length / 2], inner, [length / 2]])

    sizes = (x, y, z)
    solids = []
    for axis in range(3):
        u, v = (axis + 1) % 3, (axis + 2) % 3
        for sign in (-1.0, 1.0):
            inset = slice(1, -1) if bevel else slice(None)
            a, b = np.meshgrid(line(sizes[u])[inset], line(sizes[v])[inset], indexing="ij")
            grid = np.zeros((*a.shape, 3))
            grid[..., axis], grid[..., u], grid[..., v] = sign * sizes[axis] / 2, a, b
            solids.append(_grid(grid, flip=sign < 0))
    if bevel:
        solids += _bevels(sizes, bevel)
    return joined(solids).at(z=z / 2)


def sheet(
    x: float, y: float, cells_x: int, cells_y: int, height: Callable[[Points, Points], Points] | None = None
) -> Solid:
    """A grid in the plane z = 0, facing up, its points lifted by `height(x, y)`."""
    a, b = np.meshgrid(np.linspace(-x / 2, x / 2, cells_x + 1), np.linspace(-y / 2, y / 2, cells_y + 1), indexing="ij")
    z = height(a, b) if height else np.zeros_like(a)
    return _grid(np.stack([a, b, z], axis=-1), flip=False)


def extruded(outline: Points, low: float, high: float, hole: float = 0.0) -> Solid:
    """A counter-clockwise outline around the origin, made solid; with a round hole its caps are rings."""
    n = len(outline)
    angles = np.arctan2(outline[:, 1], outline[:, 0])
    inner = np.stack([hole * np.cos(angles), hole * np.sin(angles)], axis=1)
    layers = [
        np.column_stack([o, np.full(n, z)]) for o, z in ((inner, low), (outline, low), (outline, high), (inner, high))
    ]
    polygons: list[tuple[int, ...]] = []
    order = (0, 1, 2, 3, 0) if hole > 0 else (0, 1, 2, 3)
    for a, b in pairwise(order):
        for j in range(n):
            k = (j + 1) % n
            polygons.append((a * n + j, a * n + k, b * n + k, b * n + j))
    return Solid(np.concatenate(layers), polygons)


def gear(teeth: int, module: float, low: float, high: float, hole: float) -> Solid:
    """A spur gear; its pitch radius is `teeth * module / 2`."""
    pitch = teeth * module / 2
    flank = (pitch - 1.2 * module, pitch - 0.9 * module, pitch + 0.85 * module)
    steps = (
        (-0.42, flank[0]),
        (-0.26, flank[1]),
        (-0.12, flank[2]),
        (0.12, flank[2]),
        (0.26, flank[1]),
        (0.42, flank[0]),
    )
    outline = []
    for tooth in range(teeth):
        for part, radius in steps:
            a = 2 * np.pi * (tooth + part) / teeth
            outline.append((radius * np.cos(a), radius * np.sin(a)))
    return extruded(np.array(outline), low, high, hole)


def tube(path: Points, radius: float | Points, sides: int = 16) -> Solid:
    """A closed round tube along a polyline."""
    path = np.asarray(path, float)
    tangent = np.gradient(path, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    up = np.array([0.0, 0.0, 1.0]) if abs(tangent[0, 2]) < 0.9 else np.array([1.0, 0.0, 0.0])
    turn = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    radii = np.broadcast_to(radius, len(path))
    rows = []
    for point, direction, r in zip(path, tangent, radii, strict=True):
        side = np.cross(direction, up)
        side /= np.linalg.norm(side)
        over = np.cross(side, direction)
        up = over
        rows.append(point + r * (np.cos(turn)[:, None] * side + np.sin(turn)[:, None] * over))
    points = np.concatenate([*rows, path[[0, -1]]])
    polygons: list[tuple[int, ...]] = []
    first, last = len(points) - 2, len(points) - 1
    for j in range(sides):
        k = (j + 1) % sides
        polygons += [
            (row * sides + j, (row + 1) * sides + j, (row + 1) * sides + k, row * sides + k)
            for row in range(len(path) - 1)
        ]
        polygons.append((first, j, k))
        polygons.append((last, (len(path) - 1) * sides + k, (len(path) - 1) * sides + j))
    return Solid(points, [polygon[::-1] for polygon in polygons])


@dataclass(frozen=True, slots=True)
class Material:
    """A UsdPreviewSurface, in linear light."""

    name: str
    color: RGB
    roughness: float = 0.5
    metallic: float = 0.0
    emission: RGB = (0.0, 0.0, 0.0)
    opacity: float = 1.0
    painted: bool = False  # colour comes from the mesh
    faded: bool = False  # opacity comes from the mesh


@dataclass(slots=True)
class Part:
    """A mesh to be."""

    name: str
    solid: Solid
    material: Material
    colors: Points | None = None  # (n, 3), for `painted`
    opacities: Points | None = None  # (n,), for `faded`
    two_sided: bool = False
    occluding: bool = True


@dataclass(slots=True)
class Group:
    """A rigid group of parts. `motion` are (op name, keys) in USD's order: the first is outermost."""

    name: str
    parts: list[Part] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    motion: list[tuple[str, list[Key] | Any]] = field(default_factory=list)
    visible: Sequence[tuple[float, bool]] | None = None

    def add(self, name: str, solid: Solid, material: Material, **more: Any) -> None:
        """A part."""
        self.parts.append(Part(name, solid, material, **more))

    def group(self, name: str, *motion: tuple[str, Any], visible: Sequence[tuple[float, bool]] | None = None) -> Group:
        """A group inside this one."""
        child = Group(name, motion=list(motion), visible=visible)
        self.groups.append(child)
        return child


@dataclass(frozen=True, slots=True)
class Shot:
    """The camera and the length of the loop."""

    eye: RGB
    target: RGB
    focal_length: float = 35.0  # mm, on a 36 mm wide frame
    frames: int = 900
    frames_per_second: float = 30.0


def write(path: Path, root: Group, shot: Shot, about: str) -> None:
    """Bake occlusion and write the stage."""
    from examples.stages.writing import write_stage

    write_stage(path, root, shot, about)


def _grid(grid: Points, *, flip: bool) -> Solid:
    rows, columns = grid.shape[:2]
    polygons: list[tuple[int, ...]] = []
    for i in range(rows - 1):
        for j in range(columns - 1):
            a = i * columns + j
            quad = (a, a + columns, a + columns + 1, a + 1)
            polygons.append(quad[::-1] if flip else quad)
    return Solid(grid.reshape(-1, 3), polygons)


def _bevels(sizes: tuple[float, float, float], bevel: float) -> list[Solid]:
    """The twelve edges and eight corners of a bevelled box."""
    solids = []
    half = np.array(sizes) / 2
    for axis in range(3):
        u, v = (axis + 1) % 3, (axis + 2) % 3
        for su in (-1.0, 1.0):
            for sv in (-1.0, 1.0):
                edge = np.zeros((2, 2, 3))
                for k, end in enumerate((-1.0, 1.0)):
                    edge[k, :, axis] = end * (half[axis] - bevel)
                    edge[k, 0, u], edge[k, 0, v] = su * half[u], sv * (half[v] - bevel)
                    edge[k, 1, u], edge[k, 1, v] = su * (half[u] - bevel), sv * half[v]
                solids.append(_grid(edge, flip=su * sv < 0))
    for sx in (-1.0, 1.0):
        for sy in (-1.0, 1.0):
            for sz in (-1.0, 1.0):
                sign = np.array([sx, sy, sz])
                corner = np.array([[half[k] if k == a else half[k] - bevel for k in range(3)] for a in range(3)]) * sign
                order = (0, 1, 2) if sx * sy * sz > 0 else (0, 2, 1)
                solids.append(Solid(corner, [order]))
    return solids
