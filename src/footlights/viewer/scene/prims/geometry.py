"""Polygons to triangles with normals: what a rasteriser with per-vertex lighting needs.

Everything here is vectorised except ear clipping, which only concave polygons of five or more sides reach.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from footlights.viewer.scene.scene import Floats, Ints

Index = npt.NDArray[np.int64]

MOST_EARS: Final = 300
"""Sides of a concave polygon that keeps its shape; the time that takes grows with the third power."""


MOST_NEIGHBOURS: Final = 256
"""Faces around a point that its normals are made of; of a point with thousands they are alike anyway."""


@dataclass(frozen=True, slots=True)
class Triangulation:
    """Triangles of a polygon mesh. `corners` index the flat list of face vertices, `faces` the polygons."""

    corners: Index  # (m, 3)
    faces: Index  # (m,)


def triangulate(points: Floats, counts: Ints, indices: Ints) -> Triangulation:
    """Split polygons into triangles, keeping their winding. Polygons of fewer than three sides are dropped.

    `points` is (n, 3), `counts` the sides of each polygon, `indices` the points of all polygons, flat.
    """
    counts64 = counts.astype(np.int64)
    starts = np.concatenate(([0], np.cumsum(counts64)[:-1])) if len(counts64) else counts64
    corners: list[Index] = []
    faces: list[Index] = []

    (three,) = np.nonzero(counts64 == 3)
    if len(three):
        corners.append(starts[three, None] + np.arange(3))
        faces.append(three)

    (four,) = np.nonzero(counts64 == 4)
    if len(four):
        corners.append(_split_quads(points, indices, starts[four]))
        faces.append(np.repeat(four, 2))

    for sides in np.unique(counts64[counts64 > 4]):
        (many,) = np.nonzero(counts64 == sides)
        corners.append(_split_polygons(points, indices, starts[many], int(sides)))
        faces.append(np.repeat(many, int(sides) - 2))

    if not corners:
        return Triangulation(np.zeros((0, 3), np.int64), np.zeros(0, np.int64))
    return Triangulation(np.concatenate(corners), np.concatenate(faces))


def corner_normals(points: Floats, triangles: Index, crease_degrees: float) -> Floats:
    """Normals of every triangle corner, (m, 3, 3), smoothed over neighbours that meet at less than the crease.

    `triangles` index `points`. Neighbours are weighted by area.
    """
    area = _cross(points, triangles)
    length = np.linalg.norm(area, axis=1, keepdims=True)
    unit = area / np.maximum(length, 1e-20)
    flat = triangles.reshape(-1)
    order = np.argsort(flat, kind="stable")
    ordered = flat[order]
    face = order // 3
    group_start = np.searchsorted(ordered, ordered, side="left")
    group_size = np.searchsorted(ordered, ordered, side="right") - group_start
    place = np.arange(len(flat)) - group_start
    limit = np.cos(np.radians(crease_degrees))

    total = area[face].astype(np.float64)
    active = np.nonzero(group_size > 1)[0]
    shift = 1
    while len(active) and shift <= MOST_NEIGHBOURS:
        partner = group_start[active] + (place[active] + shift) % group_size[active]
        mine, theirs = face[active], face[partner]
        near = np.einsum("ij,ij->i", unit[mine], unit[theirs]) >= limit
        total[active[near]] += area[theirs[near]]
        shift += 1
        active = active[group_size[active] > shift]

    norm = np.linalg.norm(total, axis=1, keepdims=True)
    total = np.where(norm > 1e-20, total / np.maximum(norm, 1e-20), unit[face])
    result = np.empty((len(flat), 3), np.float32)
    result[order] = total
    return result.reshape(-1, 3, 3)


@dataclass(frozen=True, slots=True)
class Welded:
    """Vertices without duplicates, and the triangles over them."""

    positions: Floats
    normals: Floats
    colors: Floats
    triangles: Ints
    uvs: Floats | None
    points: Index  # of each vertex, its point


def weld(points: Floats, triangles: Index, normals: Floats, colors: Floats, uvs: Floats | None = None) -> Welded:
    """Merge corners that agree in point, normal, colour and place in the texture.

    `triangles` (m, 3) index `points`; `normals` (m, 3, 3), `colors` (m, 3, 4) and `uvs` (3m, 2) are per corner.
    """
    flat = triangles.reshape(-1).astype(np.uint64)
    coarse = np.clip(np.rint(normals.reshape(-1, 3) * 500 + 512), 0, 1023).astype(np.uint64)
    paint = np.clip(np.rint(colors.reshape(-1, 4) * 255), 0, 255).astype(np.uint64)
    looks = (coarse[:, 0] << np.uint64(20)) | (coarse[:, 1] << np.uint64(10)) | coarse[:, 2]
    shade = (paint[:, 0] << np.uint64(24)) | (paint[:, 1] << np.uint64(16)) | (paint[:, 2] << np.uint64(8))
    shade |= paint[:, 3]
    _, shade_ids = np.unique(shade, return_inverse=True)
    _, look_ids = np.unique((looks << np.uint64(32)) | shade_ids.astype(np.uint64), return_inverse=True)
    if uvs is not None:
        _, uv_ids = np.unique(np.ascontiguousarray(uvs, np.float32).view(np.uint64).reshape(-1), return_inverse=True)
        both = (look_ids.astype(np.uint64) << np.uint64(32)) | uv_ids.astype(np.uint64)
        _, look_ids = np.unique(both, return_inverse=True)
    _, first, inverse = np.unique(
        (flat << np.uint64(32)) | look_ids.astype(np.uint64), return_index=True, return_inverse=True
    )
    sources = triangles.reshape(-1)[first]
    return Welded(
        positions=points[sources].astype(np.float32),
        normals=normals.reshape(-1, 3)[first].astype(np.float32),
        colors=colors.reshape(-1, 4)[first].astype(np.float32),
        triangles=inverse.reshape(-1, 3).astype(np.int32),
        uvs=None if uvs is None else uvs[first].astype(np.float32),
        points=sources,
    )


def is_closed(triangles: Index) -> bool:
    """Whether every edge is shared, so that no inside can be seen."""
    edges = np.sort(triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    _, uses = np.unique(edges, axis=0, return_counts=True)
    return bool((uses % 2 == 0).all())


def _cross(points: Floats, triangles: Index) -> npt.NDArray[np.float64]:
    a, b, c = (points[triangles[:, k]].astype(np.float64) for k in range(3))
    return np.cross(b - a, c - a)


def _split_quads(points: Floats, indices: Ints, starts: Index) -> Index:
    """Along the diagonal whose halves face the same way (a concave quad has one), else along the shorter one."""
    ring = starts[:, None] + np.arange(4)
    p = points[indices[ring]].astype(np.float64)

    def halves(first: list[int], second: list[int]) -> npt.NDArray[np.float64]:
        n = [np.cross(p[:, t[1]] - p[:, t[0]], p[:, t[2]] - p[:, t[0]]) for t in (first, second)]
        agreement: npt.NDArray[np.float64] = np.einsum("ij,ij->i", n[0], n[1])
        return agreement

    along_02 = halves([0, 1, 2], [0, 2, 3])
    along_13 = halves([0, 1, 3], [1, 2, 3])
    longer = np.linalg.norm(p[:, 0] - p[:, 2], axis=1) > 1.0001 * np.linalg.norm(p[:, 1] - p[:, 3], axis=1)
    use_13 = np.where((along_02 > 0) == (along_13 > 0), longer, along_13 > 0)
    split = np.where(use_13[:, None], np.array([0, 1, 3, 1, 2, 3]), np.array([0, 1, 2, 0, 2, 3]))
    return (starts[:, None] + split).reshape(-1, 3)


def _split_polygons(points: Floats, indices: Ints, starts: Index, sides: int) -> Index:
    """A fan where the polygon is convex, ears where it is not."""
    ring = starts[:, None] + np.arange(sides)
    p = points[indices[ring]].astype(np.float64)
    q = np.roll(p, -1, axis=1)
    newell = np.cross(p, q).sum(axis=1)
    turn = np.cross(q - p, np.roll(q, -1, axis=1) - q)
    convex = (np.einsum("ijk,ik->ij", turn, newell) >= 0).all(axis=1)
    fan = np.stack([np.zeros(sides - 2, np.int64), np.arange(1, sides - 1), np.arange(2, sides)], axis=1)
    result = np.tile(fan, (len(starts), 1, 1))
    for polygon in np.nonzero(~convex)[0] if sides <= MOST_EARS else ():
        result[polygon] = _clip_ears(_flatten(p[polygon], newell[polygon]))
    return (starts[:, None, None] + result).reshape(-1, 3)


def _flatten(polygon: npt.NDArray[np.float64], normal: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Project to the plane where the polygon is largest, keeping it counter-clockwise."""
    axis = int(np.abs(normal).argmax())
    kept = polygon[:, [(axis + 1) % 3, (axis + 2) % 3]]
    return kept if normal[axis] >= 0 else kept[:, ::-1]


def _clip_ears(polygon: npt.NDArray[np.float64]) -> Index:
    """Triangulate one counter-clockwise polygon in the plane; always (sides - 2) triangles."""
    left = list(range(len(polygon)))
    ears: list[tuple[int, int, int]] = []
    while len(left) > 3:
        for k in range(len(left)):
            a, b, c = left[k - 1], left[k], left[(k + 1) % len(left)]
            if _turn(polygon, a, b, c) <= 0:
                continue
            others = (v for v in left if v not in (a, b, c))
            if not any(_inside(polygon, v, a, b, c) for v in others):
                break
        else:
            k = 1  # self-crossing: any ear is as wrong as another
            a, b, c = left[0], left[1], left[2]
        ears.append((a, b, c))
        del left[k]
    ears.append((left[0], left[1], left[2]))
    return np.array(ears, np.int64)


def _turn(polygon: npt.NDArray[np.float64], a: int, b: int, c: int) -> float:
    (ax, ay), (bx, by), (cx, cy) = polygon[a], polygon[b], polygon[c]
    return float((bx - ax) * (cy - ay) - (by - ay) * (cx - ax))


def _inside(polygon: npt.NDArray[np.float64], v: int, a: int, b: int, c: int) -> bool:
    return _turn(polygon, a, b, v) >= 0 and _turn(polygon, b, c, v) >= 0 and _turn(polygon, c, a, v) >= 0
