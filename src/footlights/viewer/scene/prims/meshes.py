"""One prim's geometry as painted triangles, in the prim's own space."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from footlights.viewer.scene.materials.paint import UNBOUND, UV_NAMES, Layout, Paint
from footlights.viewer.scene.prims import shapes
from footlights.viewer.scene.prims.geometry import Index, corner_normals, is_closed, triangulate, weld

if TYPE_CHECKING:
    from collections.abc import Iterator

    from footlights.viewer.scene.materials.palette import Palette
    from footlights.viewer.scene.scene import Finish, Floats, Ints, Texture

SMOOTH_CREASE = 60.0
"""Degrees. A subdivision surface is smooth; its cage is shown, with only its hard corners kept."""

POLYGON_CREASE = 35.0

MOST_TILES = 200
"""Of one texture on one mesh."""

_FARTHEST_UV = 1e6


@dataclass(frozen=True, slots=True)
class Piece:
    """Triangles of one finish."""

    positions: Floats
    normals: Floats
    colors: Floats  # (n, 4), display-referred
    triangles: Ints
    finish: Finish
    uvs: Floats | None = None
    points: Index | None = None  # of each vertex of a mesh, its point


def pieces_of(prim: Any, time: Any, palette: Palette) -> list[Piece]:
    """The triangles of a Gprim, one piece a material.

    Raises NotImplementedError for a type that is not drawn, ValueError or IndexError for a malformed one.
    """
    from pxr import UsdGeom

    if prim.IsA(UsdGeom.Mesh):
        return _mesh_pieces(UsdGeom.Mesh(prim), time, palette)
    shape = _shape_of(prim, time)
    paint = palette.of(prim)
    count = len(shape.positions)
    first = np.zeros(1, np.int64)
    colors = _colors(prim, time, paint, _Layout(first, first, first, points=1))[0]
    piece = Piece(shape.positions, shape.normals, np.tile(colors, (count, 1)), shape.triangles, _finish(paint, colors))
    return (
        [_both_sides(piece)] if prim.IsA(UsdGeom.Plane) and UsdGeom.Gprim(prim).GetDoubleSidedAttr().Get() else [piece]
    )


def _shape_of(prim: Any, time: Any) -> shapes.TriangleMesh:
    def get(name: str) -> Any:
        return prim.GetAttribute(name).Get(time)

    match prim.GetTypeName():
        case "Cube":
            return shapes.cube(get("size"))
        case "Sphere":
            return shapes.sphere(get("radius"))
        case "Cylinder":
            return shapes.cylinder(get("height"), get("radius"), get("axis"))
        case "Cone":
            return shapes.cone(get("height"), get("radius"), get("axis"))
        case "Capsule":
            return shapes.capsule(get("height"), get("radius"), get("axis"))
        case "Plane":
            return shapes.plane(get("width"), get("length"), get("axis"))
        case other:
            raise NotImplementedError(other)


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where each triangle corner finds its value, by interpolation."""

    face: Index  # per corner
    point: Index
    corner: Index  # index into the flat face-vertex list
    points: int

    def spread(self, values: np.ndarray, interpolation: str) -> np.ndarray:
        """`values` (k, width) to one row a corner."""
        match interpolation:
            case "constant":
                return np.broadcast_to(values[:1], (len(self.corner), values.shape[1]))
            case "uniform":
                return values[self.face]
            case "faceVarying":
                return values[self.corner]
            case _:
                return values[self.point]


def _mesh_pieces(mesh: Any, time: Any, palette: Palette) -> list[Piece]:
    from pxr import UsdGeom, UsdShade

    prim = mesh.GetPrim()
    points = _array(mesh.GetPointsAttr().Get(time), np.float32, 3)
    counts = _array(mesh.GetFaceVertexCountsAttr().Get(time), np.int32)
    indices = _array(mesh.GetFaceVertexIndicesAttr().Get(time), np.int32)
    if not len(points) or not len(counts):
        return []
    if int(counts.sum()) != len(indices):
        raise ValueError(f"faceVertexCounts add up to {int(counts.sum())}, faceVertexIndices has {len(indices)}")
    if len(indices) and not (indices.min() >= 0 and indices.max() < len(points)):
        raise ValueError(f"faceVertexIndices reaches {int(indices.max())}, there are {len(points)} points")

    split = triangulate(points, counts, indices)
    corners, faces = split.corners, split.faces
    holes = _array(mesh.GetHoleIndicesAttr().Get(time), np.int32)
    if len(holes):
        kept = ~np.isin(faces, holes)
        corners, faces = corners[kept], faces[kept]
    if mesh.GetOrientationAttr().Get(time) == UsdGeom.Tokens.leftHanded:
        corners = corners[:, ::-1]
    if not len(corners):
        return []
    triangles: Index = indices[corners].astype(np.int64)
    known = np.isfinite(points).all(axis=1)
    if not known.all():
        whole_faces = known[triangles].all(axis=1)
        corners, faces, triangles = corners[whole_faces], faces[whole_faces], triangles[whole_faces]
        if not len(corners):
            return []
    layout = _Layout(np.repeat(faces, 3), triangles.reshape(-1), corners.reshape(-1), len(points))
    normals = _authored_normals(mesh, time, layout)
    if normals is None:
        smooth = mesh.GetSubdivisionSchemeAttr().Get() != UsdGeom.Tokens.none
        normals = corner_normals(points, triangles, SMOOTH_CREASE if smooth else POLYGON_CREASE)
    two_sided = bool(mesh.GetDoubleSidedAttr().Get()) and not is_closed(triangles)

    whole = palette.of(prim)
    paints: list[tuple[Paint | None, np.ndarray]] = []
    remaining = np.ones(len(faces), bool)
    for subset in UsdShade.MaterialBindingAPI(prim).GetMaterialBindSubsets():
        chosen = np.isin(faces, _array(subset.GetIndicesAttr().Get(time), np.int32)) & remaining
        remaining &= ~chosen
        paints.append((palette.of(subset.GetPrim()) or whole, chosen))
    paints.append((whole, remaining))

    pieces: list[Piece] = []
    for paint, chosen in paints:
        if not chosen.any():
            continue
        part = _Layout(
            np.repeat(faces[chosen], 3), triangles[chosen].reshape(-1), corners[chosen].reshape(-1), len(points)
        )
        texture = paint.texture if paint is not None else None
        uvs = _uvs(prim, time, paint.layout, part) if paint is not None and texture is not None else None
        colors = _colors(prim, time, paint, part, textured=uvs is not None)
        finish = _finish(paint, colors)
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
            pieces.append(_both_sides(piece) if two_sided else piece)
    return pieces


def _uvs(prim: Any, time: Any, placed: Layout, layout: _Layout) -> Floats | None:
    """Texture coordinates, one row a corner; None where the prim has none."""
    from pxr import UsdGeom

    primvars = UsdGeom.PrimvarsAPI(prim)
    # Many files name another primvar than their meshes have: any is better than none.
    for name in (placed.primvar, *UV_NAMES) if placed.primvar else UV_NAMES:
        primvar = primvars.FindPrimvarWithInheritance(name)
        if not primvar or not primvar.HasValue():
            continue
        values = _array(primvar.ComputeFlattened(time), np.float32)
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


def _authored_normals(mesh: Any, time: Any, layout: _Layout) -> Floats | None:
    from pxr import UsdGeom

    primvar = UsdGeom.PrimvarsAPI(mesh).GetPrimvar("normals")
    if primvar and primvar.HasAuthoredValue():
        values, interpolation = primvar.ComputeFlattened(time), primvar.GetInterpolation()
    else:
        values, interpolation = mesh.GetNormalsAttr().Get(time), mesh.GetNormalsInterpolation()
    normals = _array(values, np.float32, 3)
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


def _colors(prim: Any, time: Any, paint: Paint | None, layout: _Layout, *, textured: bool = False) -> np.ndarray:
    """Display-referred RGB and opacity, one row a corner."""
    from pxr import UsdGeom

    primvars = UsdGeom.PrimvarsAPI(prim)
    look = paint or UNBOUND

    def read(name: str, width: int) -> np.ndarray | None:
        primvar = primvars.FindPrimvarWithInheritance(name)
        if not primvar or not primvar.HasValue():
            return None
        values = _array(primvar.ComputeFlattened(time), np.float32).reshape(-1, width)
        try:
            return layout.spread(values, primvar.GetInterpolation()) if len(values) else None
        except IndexError:
            return None

    result = np.empty((len(layout.corner), 4), np.float32)
    result[:, :3] = (1.0, 1.0, 1.0) if textured else look.color
    result[:, 3] = look.opacity
    name = look.color_primvar or (None if paint else "displayColor")
    if name and (color := read(name, 3)) is not None:
        result[:, :3] = color
    alpha = look.opacity_primvar or (None if paint else "displayOpacity")
    if alpha and (opacity := read(alpha, 1)) is not None:
        result[:, 3] = opacity[:, 0]
    result[:, :3] = np.clip(result[:, :3], 0, 1) ** (1 / 2.2)
    if look.occlusion_primvar and (occlusion := read(look.occlusion_primvar, 1)) is not None:
        result[:, :3] *= np.clip(occlusion, 0, 1)
    return result


def _finish(paint: Paint | None, colors: np.ndarray) -> Finish:
    finish = (paint or UNBOUND).finish()
    transparent = bool(colors.reshape(-1, 4)[:, 3].min() < 0.999)
    return replace(finish, transparent=True) if transparent and not finish.transparent else finish


def _both_sides(piece: Piece) -> Piece:
    """Every triangle once more, facing the other way: the rasteriser lights only the side that a normal is on."""
    return Piece(
        positions=np.concatenate([piece.positions, piece.positions]),
        normals=np.concatenate([piece.normals, -piece.normals]),
        colors=np.concatenate([piece.colors, piece.colors]),
        triangles=np.concatenate([piece.triangles, piece.triangles[:, ::-1] + np.int32(len(piece.positions))]),
        finish=piece.finish,
        uvs=None if piece.uvs is None else np.concatenate([piece.uvs, piece.uvs]),
        points=None if piece.points is None else np.concatenate([piece.points, piece.points]),
    )


def _array(value: Any, dtype: type[np.generic], width: int | None = None) -> np.ndarray:
    if value is None:
        return np.zeros((0, width) if width else 0, dtype)
    array = np.asarray(value, dtype=dtype)
    return array.reshape(-1, width) if width else array.reshape(-1)
