"""What the prims have in common: values spread over corners, colours, finishes, and pieces of surface."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from footlights.viewer.scene.materials.paint import UNBOUND, Paint

if TYPE_CHECKING:
    from collections.abc import Callable

    from footlights.viewer.scene.prims.geometry import Index
    from footlights.viewer.scene.scene import Finish, Floats, Ints


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


@dataclass(frozen=True, slots=True)
class CornerValues:
    """Where each triangle corner finds its value, by interpolation."""

    face: Index  # per corner
    point: Index
    corner: Index  # index into the flat face-vertex list
    points: int
    refined: Callable[[np.ndarray], np.ndarray] | None = None  # from values of the authored corners to the corners here
    authored: CornerValues | None = None  # with `refined`: where the authored corners find their values

    def spread(self, values: np.ndarray, interpolation: str) -> np.ndarray:
        """`values` (k, width) to one row a corner."""
        if self.refined is not None and self.authored is not None and interpolation not in ("constant", "uniform"):
            divided: np.ndarray = self.refined(self.authored.spread(values, interpolation))[self.corner]
            return divided
        match interpolation:
            case "constant":
                return np.broadcast_to(values[:1], (len(self.corner), values.shape[1]))
            case "uniform":
                return values[self.face]
            case "faceVarying":
                return values[self.corner]
            case _:
                return values[self.point]


def colors_of(prim: Any, time: Any, paint: Paint | None, layout: CornerValues, *, textured: bool = False) -> np.ndarray:
    """Display-referred RGB and opacity, one row a corner."""
    from pxr import UsdGeom

    primvars = UsdGeom.PrimvarsAPI(prim)
    look = paint or UNBOUND

    def read(name: str, width: int) -> np.ndarray | None:
        primvar = primvars.FindPrimvarWithInheritance(name)
        if not primvar or not primvar.HasValue():
            return None
        values = array_of(primvar.ComputeFlattened(time), np.float32).reshape(-1, width)
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


def finish_of(paint: Paint | None, colors: np.ndarray) -> Finish:
    """The finish of a paint with these colours: whether it is seen through depends on both."""
    finish = (paint or UNBOUND).finish()
    transparent = bool(colors.reshape(-1, 4)[:, 3].min() < 0.999)
    return replace(finish, transparent=True) if transparent and not finish.transparent else finish


def both_sides(piece: Piece) -> Piece:
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


def array_of(value: Any, dtype: type[np.generic], width: int | None = None) -> np.ndarray:
    """A value of USD as an array of rows of `width`; empty, where there is no value."""
    if value is None:
        return np.zeros((0, width) if width else 0, dtype)
    array = np.asarray(value, dtype=dtype)
    return array.reshape(-1, width) if width else array.reshape(-1)
