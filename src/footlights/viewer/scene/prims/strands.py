"""Curves as tubes, and points as small balls: as round as their number allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from footlights.viewer.scene.prims.primvars import CornerValues, Piece, array_of, colors_of, finish_of

if TYPE_CHECKING:
    from footlights.viewer.scene.materials.palette import Palette

BUDGET: Final = 120_000
"""Triangles of one prim. Within it strands become simpler first, then fewer and thicker."""

_DETAIL: Final = ((8, 6), (6, 4), (4, 3), (3, 2), (3, 1))
"""Sides of a tube, and steps of a curved span; the simplest last."""

_BASES: Final = {
    "bezier": np.array([[-1, 3, -3, 1], [3, -6, 3, 0], [-3, 3, 0, 0], [1, 0, 0, 0]], float),
    "bspline": np.array([[-1, 3, -3, 1], [3, -6, 3, 0], [-3, 0, 3, 0], [1, 4, 1, 0]], float) / 6,
    "catmullRom": np.array([[-1, 3, -3, 1], [2, -5, 4, -1], [-1, 0, 1, 0], [0, 2, 0, 0]], float) / 2,
}
"""By which powers of the parameter, the highest first, and which of four points."""


@dataclass(frozen=True, slots=True)
class _Basis:
    """How the points of a curve become a line."""

    basis: str  # linear, bezier, bspline, catmullRom
    periodic: bool = False
    pinned: bool = False


def curve_pieces(curves: Any, time: Any, palette: Palette) -> list[Piece]:
    """The tubes of BasisCurves, NurbsCurves or HermiteCurves. Raises ValueError where counts and points disagree."""
    prim = curves.GetPrim()
    points = array_of(curves.GetPointsAttr().Get(time), np.float32, 3).astype(np.float64)
    counts = array_of(curves.GetCurveVertexCountsAttr().Get(time), np.int64)
    if not len(points) or not len(counts):
        return []
    if counts.min() < 0 or int(counts.sum()) > len(points):
        raise ValueError(f"curveVertexCounts add up to {int(counts.sum())}, there are {len(points)} points")
    used = int(counts.sum())
    points = points[:used]
    owner = np.repeat(np.arange(len(counts)), counts)
    paint = palette.of(prim)
    place = np.arange(used)
    colors = colors_of(prim, time, paint, CornerValues(owner, place, place, points=used))
    widths = _spread(array_of(curves.GetWidthsAttr().Get(time), np.float64), owner, used)
    if widths is None:
        widths = np.full(used, 0.008 * _extent(points))
    rows = np.concatenate([points, widths[:, None], colors], axis=1)
    rows[~np.isfinite(rows[:, :3]).all(axis=1)] = np.nan
    return _tubes(rows, counts, _kind(prim, time), lambda made: finish_of(paint, made))


def point_pieces(points: Any, time: Any, palette: Palette) -> list[Piece]:
    """The balls of a Points prim."""
    prim = points.GetPrim()
    centers = array_of(points.GetPointsAttr().Get(time), np.float32, 3).astype(np.float64)
    if not len(centers):
        return []
    paint = palette.of(prim)
    place = np.arange(len(centers))
    colors = colors_of(prim, time, paint, CornerValues(place, place, place, points=len(centers)))
    widths = _spread(array_of(points.GetWidthsAttr().Get(time), np.float64), place, len(centers))
    if widths is None:
        widths = np.full(len(centers), min(0.01, 0.3 / len(centers) ** (1 / 3)) * _extent(centers))
    known = np.isfinite(centers).all(axis=1) & np.isfinite(widths)
    centers, colors, widths = centers[known], colors[known], widths[known]
    ball, faces = _ball(3 if 256 * len(centers) <= BUDGET else 2 if 32 * len(centers) <= BUDGET else 1)
    every = -(-len(centers) * len(faces) // BUDGET)
    if every > 1:
        centers, colors, widths = centers[::every], colors[::every], widths[::every] * every ** (1 / 3)
    count, around = len(centers), len(ball)
    if not count:
        return []
    positions = centers[:, None] + ball[None] * (widths / 2)[:, None, None]
    triangles = faces[None] + (np.arange(count) * around)[:, None, None]
    return [
        Piece(
            positions.reshape(-1, 3).astype(np.float32),
            np.tile(ball, (count, 1)).astype(np.float32),
            np.repeat(colors, around, axis=0).astype(np.float32),
            triangles.reshape(-1, 3).astype(np.int32),
            finish_of(paint, colors),
        )
    ]


def _kind(prim: Any, time: Any) -> _Basis:
    def token(name: str) -> str:
        attribute = prim.GetAttribute(name)
        return str(attribute.Get(time)) if attribute else ""

    if prim.GetTypeName() == "NurbsCurves":
        orders = array_of(prim.GetAttribute("order").Get(time), np.int32)
        return _Basis("bspline" if len(orders) and orders.min() >= 3 else "linear", pinned=True)
    if token("type") != "cubic" or token("basis") not in _BASES:
        return _Basis("linear", periodic=token("wrap") == "periodic")
    return _Basis(token("basis"), periodic=token("wrap") == "periodic", pinned=token("wrap") == "pinned")


def _tubes(rows: np.ndarray, counts: np.ndarray, kind: _Basis, finish: Any) -> list[Piece]:
    """Tubes of curves: `rows` of their points have place, width and colour."""
    sides, steps = next((d for d in _DETAIL if _size(counts, kind, *d) <= BUDGET), _DETAIL[-1])
    every = -(-_size(counts, kind, sides, steps) // BUDGET)
    starts = np.cumsum(counts) - counts
    starts, counts = starts[::every], counts[::every]
    made: list[tuple[np.ndarray, ...]] = []
    offset = 0
    for count in np.unique(counts[counts >= 2]):
        chosen = rows[starts[counts == count][:, None] + np.arange(count)]
        line = _line(chosen, kind, steps)
        if line is None:
            continue
        line = line[np.isfinite(line[..., :3]).all(axis=(1, 2))]
        if not len(line):
            continue
        line[..., 3] *= every**0.5
        tube = _tube(line, sides, closed=kind.periodic)
        made.append((*tube[:3], tube[3] + offset))
        offset += len(tube[0])
    if not made:
        return []
    positions, normals, colors, triangles = (np.concatenate(part) for part in zip(*made, strict=True))
    return [
        Piece(
            positions.astype(np.float32),
            normals.astype(np.float32),
            np.clip(colors, 0, 1).astype(np.float32),
            triangles.astype(np.int32),
            finish(colors),
        )
    ]


def _size(counts: np.ndarray, kind: _Basis, sides: int, steps: int) -> int:
    per = counts if kind.basis == "linear" else counts * steps // (3 if kind.basis == "bezier" else 1)
    return int(per.sum()) * sides * 2


def _line(rows: np.ndarray, kind: _Basis, steps: int) -> np.ndarray | None:
    """Points along curves of equally many points, (curves, along, width); None where they are too few."""
    count = rows.shape[1]
    if kind.basis == "linear":
        return np.concatenate([rows, rows[:, :1]], axis=1) if kind.periodic else rows.copy()
    stride = 3 if kind.basis == "bezier" else 1
    if kind.periodic:
        rows = np.concatenate([rows, rows[:, : 4 - stride]], axis=1)
        spans = count // stride
    else:
        if kind.pinned and stride == 1:
            first, last = 2 * rows[:, :1] - rows[:, 1:2], 2 * rows[:, -1:] - rows[:, -2:-1]
            rows = np.concatenate([first, rows, last], axis=1)
        spans = (rows.shape[1] - 4) // stride + 1
    if spans < 1:
        return rows[:, :count].copy()
    t = np.linspace(0, 1, steps + 1)
    weights = np.stack([t**3, t**2, t, np.ones_like(t)], axis=1) @ _BASES[kind.basis]
    spots = (np.arange(spans) * stride)[:, None] + np.arange(4)
    along = np.einsum("sp,kcpw->kcsw", weights, rows[:, spots])
    body = along[:, :, :-1].reshape(len(rows), spans * steps, -1)
    return np.concatenate([body, along[:, -1:, -1]], axis=1)


def _tube(line: np.ndarray, sides: int, *, closed: bool) -> tuple[np.ndarray, ...]:
    """Positions, normals, colours and triangles around lines, (curves, along, width)."""
    curves, along, _ = line.shape
    centers = line[..., :3]
    tangent = np.gradient(centers, axis=1)
    if closed and along > 2:
        tangent[:, 0] = tangent[:, -1] = centers[:, 1] - centers[:, -2]
    tangent /= np.maximum(np.linalg.norm(tangent, axis=2, keepdims=True), 1e-20)
    # One direction a curve that is far from all of its tangents on the whole.
    least = np.abs(tangent).mean(axis=1).argmin(axis=1)
    across = np.cross(tangent, np.eye(3)[least][:, None])
    across /= np.maximum(np.linalg.norm(across, axis=2, keepdims=True), 1e-20)
    up = np.cross(tangent, across)
    turn = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    ring = across[:, :, None] * np.cos(turn)[:, None] + up[:, :, None] * np.sin(turn)[:, None]
    positions = centers[:, :, None] + ring * (np.abs(line[..., 3]) / 2)[:, :, None, None]
    colors = np.repeat(line[..., 4:8], sides, axis=1)
    k, j = np.meshgrid(np.arange(along - 1), np.arange(sides), indexing="ij")
    a, b = k * sides + j, k * sides + (j + 1) % sides
    quads = np.stack([a, b, b + sides, a, b + sides, a + sides], axis=-1).reshape(-1, 3)
    triangles = quads[None] + (np.arange(curves) * along * sides)[:, None, None]
    return positions.reshape(-1, 3), ring.reshape(-1, 3), colors.reshape(-1, 4), triangles.reshape(-1, 3)


def _ball(rounds: int) -> tuple[np.ndarray, np.ndarray]:
    """An octahedron, split so often; on the unit sphere."""
    points = np.array([(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)], float)
    faces = np.array([(x, y, z)[:: 1 if (x + y + z) % 2 == 0 else -1] for x in (0, 1) for y in (2, 3) for z in (4, 5)])
    for _ in range(rounds - 1):
        a, b, c = faces.T
        middles = [points[p] + points[q] for p, q in ((a, b), (b, c), (c, a))]
        n, m = len(points), len(faces)
        ab, bc, ca = (np.arange(m) + n + k * m for k in range(3))
        points = np.concatenate([points, *(x / np.linalg.norm(x, axis=1, keepdims=True) for x in middles)])
        faces = np.concatenate([np.stack(t, axis=1) for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))])
    return points, faces


def _spread(values: np.ndarray, owner: np.ndarray, count: int) -> np.ndarray | None:
    """One value a point, of one for all, for each owner or for each point; None of anything else."""
    if len(values) == count:
        return values
    if len(values) == 1:
        return np.repeat(values, count)
    if len(values) and len(values) == owner.max() + 1:
        spread: np.ndarray = values[owner]
        return spread
    return np.full(count, float(np.nanmean(values))) if len(values) else None


def _extent(points: np.ndarray) -> float:
    known = points[np.isfinite(points).all(axis=1)]
    return float(np.linalg.norm(known.max(axis=0) - known.min(axis=0))) or 1.0 if len(known) else 1.0
