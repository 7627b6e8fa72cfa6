"""One prim's geometry as painted triangles, in the prim's own space."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from footlights.viewer.scene.materials.paint import UV_NAMES, Layout, Paint
from footlights.viewer.scene.prims import shapes
from footlights.viewer.scene.prims.geometry import Index, corner_normals, is_closed, triangulate, weld
from footlights.viewer.scene.prims.primvars import CornerValues, Piece, array_of, both_sides, colors_of, finish_of
from footlights.viewer.scene.prims.strands import curve_pieces, point_pieces
from footlights.viewer.scene.prims.subdivision import Subdivision, subdivided

if TYPE_CHECKING:
    from collections.abc import Iterator

    from footlights.viewer.scene.materials.palette import Palette
    from footlights.viewer.scene.scene import Floats, Texture

SMOOTH_CREASE = 60.0
"""Degrees. A subdivision surface is smooth; its cage is shown, with only its hard corners kept."""

POLYGON_CREASE = 35.0

MOST_TILES = 200
"""Of one texture on one mesh."""

_FARTHEST_UV = 1e6


def pieces_of(prim: Any, time: Any, palette: Palette, *, divide: bool = True) -> list[Piece]:
    """The triangles of a Gprim, one piece a material; with `divide`, subdivision surfaces are made smooth.

    Raises NotImplementedError for a type that is not drawn, ValueError or IndexError for a malformed one.
    """
    from pxr import UsdGeom

    if prim.IsA(UsdGeom.Mesh):
        return _mesh_pieces(UsdGeom.Mesh(prim), time, palette, divide=divide)
    if prim.IsA(UsdGeom.Curves):
        return curve_pieces(UsdGeom.Curves(prim), time, palette)
    if prim.IsA(UsdGeom.Points):
        return point_pieces(UsdGeom.Points(prim), time, palette)
    shape = _shape_of(prim, time)
    paint = palette.of(prim)
    count = len(shape.positions)
    first = np.zeros(1, np.int64)
    colors = colors_of(prim, time, paint, CornerValues(first, first, first, points=1))[0]
    piece = Piece(
        shape.positions, shape.normals, np.tile(colors, (count, 1)), shape.triangles, finish_of(paint, colors)
    )
    return (
        [both_sides(piece)] if prim.IsA(UsdGeom.Plane) and UsdGeom.Gprim(prim).GetDoubleSidedAttr().Get() else [piece]
    )


def _shape_of(prim: Any, time: Any) -> shapes.TriangleMesh:
    def get(name: str) -> Any:
        value = prim.GetAttribute(name).Get(time)
        if isinstance(value, float) and not 0 <= value < 1e12:
            raise ValueError(f"{name} is {value}")
        return value

    match prim.GetTypeName():
        case "Cube":
            return shapes.cube(get("size"))
        case "Sphere":
            return shapes.sphere(get("radius"))
        case "Cylinder":
            return shapes.cylinder(get("height"), get("radius"), get("axis"))
        case "Cylinder_1" | "Capsule_1":
            height, low, high, axis = get("height"), get("radiusBottom"), get("radiusTop"), get("axis")
            if prim.GetTypeName() == "Capsule_1":
                return shapes.capsule(height, max(low, high), axis)
            return shapes.frustum(height, low, high, axis)
        case "Cone":
            return shapes.cone(get("height"), get("radius"), get("axis"))
        case "Capsule":
            return shapes.capsule(get("height"), get("radius"), get("axis"))
        case "Plane":
            return shapes.plane(get("width"), get("length"), get("axis"))
        case other:
            raise NotImplementedError(other)


@dataclass(frozen=True, slots=True)
class _Surface:
    """The triangles of a mesh, and where their corners find their values."""

    points: np.ndarray
    faces: Index  # of each triangle, its authored face
    triangles: Index
    corners: Index  # (m, 3)
    values: CornerValues  # of the authored corners
    finer: Subdivision | None

    def of(self, chosen: np.ndarray) -> CornerValues:
        """Where the corners of some triangles find their values."""
        places = np.repeat(self.faces[chosen], 3), self.triangles[chosen].reshape(-1), self.corners[chosen].reshape(-1)
        if self.finer is None:
            return CornerValues(*places, points=len(self.points))
        return CornerValues(*places, points=len(self.points), refined=self.finer.corners, authored=self.values)


def _surface(mesh: Any, time: Any, *, divide: bool) -> _Surface | None:
    """Read a mesh; None where there is nothing of it. Raises ValueError where its counts and indices disagree."""
    from pxr import UsdGeom

    points = array_of(mesh.GetPointsAttr().Get(time), np.float32, 3)
    counts = array_of(mesh.GetFaceVertexCountsAttr().Get(time), np.int32)
    indices = array_of(mesh.GetFaceVertexIndicesAttr().Get(time), np.int32)
    if not len(points) or not len(counts):
        return None
    if counts.min() < 0 or int(counts.sum()) != len(indices):
        raise ValueError(f"faceVertexCounts add up to {int(counts.sum())}, faceVertexIndices has {len(indices)}")
    if len(indices) and not (indices.min() >= 0 and indices.max() < len(points)):
        raise ValueError(f"faceVertexIndices reaches {int(indices.max())}, there are {len(points)} points")

    known = np.isfinite(points).all(axis=1)
    points = np.where(known[:, None], points, np.float32(0))
    every = np.arange(len(indices))
    values = CornerValues(np.repeat(np.arange(len(counts)), counts), indices.astype(np.int64), every, len(points))
    finer = subdivided(mesh, time, points, counts, indices) if divide else None
    if finer is not None:
        points, counts, indices = finer.cage.points.astype(np.float32), finer.cage.counts, finer.cage.indices
    split = triangulate(points, counts, indices)
    corners, faces = split.corners, split.faces if finer is None else finer.faces[split.faces]
    triangles: Index = indices[corners].astype(np.int64)
    holes = array_of(mesh.GetHoleIndicesAttr().Get(time), np.int32)
    kept = ~np.isin(faces, holes)
    if not known.all():
        (unknown,) = np.nonzero(~known)
        kept &= ~np.isin(faces, values.face[np.isin(values.point, unknown)])
    corners, faces, triangles = corners[kept], faces[kept], triangles[kept]
    if not len(corners):
        return None
    if mesh.GetOrientationAttr().Get(time) == UsdGeom.Tokens.leftHanded:
        corners, triangles = corners[:, ::-1], triangles[:, ::-1]
    return _Surface(points, faces, triangles, corners, values, finer)


def _mesh_pieces(mesh: Any, time: Any, palette: Palette, *, divide: bool) -> list[Piece]:
    from pxr import UsdGeom, UsdShade

    surface = _surface(mesh, time, divide=divide)
    if surface is None:
        return []
    prim = mesh.GetPrim()
    points, faces, triangles = surface.points, surface.faces, surface.triangles
    # Those of a subdivision surface are no part of it, by the schema.
    divided = surface.finer is not None
    normals = None if divided else _authored_normals(mesh, time, surface.of(np.ones(len(faces), bool)))
    if normals is None:
        smooth = mesh.GetSubdivisionSchemeAttr().Get() != UsdGeom.Tokens.none
        normals = corner_normals(points, triangles, SMOOTH_CREASE if smooth else POLYGON_CREASE)
    two_sided = bool(mesh.GetDoubleSidedAttr().Get()) and not is_closed(triangles)

    whole = palette.of(prim)
    paints: list[tuple[Paint | None, np.ndarray]] = []
    remaining = np.ones(len(faces), bool)
    for subset in UsdShade.MaterialBindingAPI(prim).GetMaterialBindSubsets():
        chosen = np.isin(faces, array_of(subset.GetIndicesAttr().Get(time), np.int32)) & remaining
        remaining &= ~chosen
        paints.append((palette.of(subset.GetPrim()) or whole, chosen))
    paints.append((whole, remaining))

    pieces: list[Piece] = []
    for paint, chosen in paints:
        if not chosen.any():
            continue
        part = surface.of(chosen)
        texture = paint.texture if paint is not None else None
        uvs = _uvs(prim, time, paint.layout, part) if paint is not None and texture is not None else None
        colors = colors_of(prim, time, paint, part, textured=uvs is not None)
        finish = finish_of(paint, colors)
        for tiled, tile, own in _tiles(texture, uvs, len(part.face) // 3):
            joined = weld(
                points,
                triangles[chosen][own],
                normals[chosen][own],
                colors.reshape(-1, 3, 4)[own],
                None if uvs is None else uvs.reshape(-1, 3, 2)[own].reshape(-1, 2) - tile,
            )
            piece = Piece(
                joined.positions,
                joined.normals,
                joined.colors,
                joined.triangles,
                replace(finish, texture=tiled),
                joined.uvs,
                joined.points,
            )
            pieces.append(both_sides(piece) if two_sided else piece)
    return pieces


def _uvs(prim: Any, time: Any, placed: Layout, layout: CornerValues) -> Floats | None:
    """Texture coordinates, one row a corner; None where the prim has none."""
    from pxr import UsdGeom

    primvars = UsdGeom.PrimvarsAPI(prim)
    # Many files name another primvar than their meshes have: any is better than none.
    for name in (placed.primvar, *UV_NAMES) if placed.primvar else UV_NAMES:
        primvar = primvars.FindPrimvarWithInheritance(name)
        if not primvar or not primvar.HasValue():
            continue
        values = array_of(primvar.ComputeFlattened(time), np.float32)
        if not len(values) or len(values) % 2:
            continue
        try:
            uvs = placed.place(layout.spread(values.reshape(-1, 2), primvar.GetInterpolation()))
        except IndexError:
            continue
        bounded: Floats = np.clip(np.nan_to_num(uvs), -_FARTHEST_UV, _FARTHEST_UV)
        return bounded
    return None


def _tiles(
    texture: Texture | None, uvs: Floats | None, triangles: int
) -> Iterator[tuple[Texture | None, np.ndarray, np.ndarray]]:
    """The texture of each part of the triangles, with its offset; several for a texture of many tiles (UDIM)."""
    every, origin = np.ones(triangles, bool), np.zeros(2, np.float32)
    if texture is None or uvs is None:
        yield None, origin, every
        return
    if not texture.tiled:
        yield texture, origin, every
        return
    places = np.floor(uvs.reshape(-1, 3, 2).mean(axis=1)).astype(np.int64)
    for place in np.unique(places, axis=0)[:MOST_TILES]:
        yield (
            texture.tile(1001 + int(place[0]) + 10 * int(place[1])),
            place.astype(np.float32),
            (places == place).all(axis=1),
        )


def _authored_normals(mesh: Any, time: Any, layout: CornerValues) -> Floats | None:
    from pxr import UsdGeom

    primvar = UsdGeom.PrimvarsAPI(mesh).GetPrimvar("normals")
    if primvar and primvar.HasAuthoredValue():
        values, interpolation = primvar.ComputeFlattened(time), primvar.GetInterpolation()
    else:
        values, interpolation = mesh.GetNormalsAttr().Get(time), mesh.GetNormalsInterpolation()
    normals = array_of(values, np.float32, 3)
    if not len(normals):
        return None
    try:
        spread = layout.spread(normals, interpolation)
    except IndexError:
        return None  # too few of them: computed ones are better than none of the mesh
    length = np.linalg.norm(spread, axis=1, keepdims=True)
    if not (length > 1e-12).all():
        return None
    unit: Floats = (spread / length).astype(np.float32).reshape(-1, 3, 3)
    return unit
