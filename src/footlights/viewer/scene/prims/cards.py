"""Models that are drawn as stand-ins: draw modes `bounds`, `origin` and `cards` of UsdGeomModelAPI."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from footlights.viewer.scene.materials.network import asset_of_attribute
from footlights.viewer.scene.materials.paint import displayed
from footlights.viewer.scene.prims.primvars import Piece
from footlights.viewer.scene.prims.shapes import TriangleMesh, cube
from footlights.viewer.scene.scene import Finish, Image, Texture

if TYPE_CHECKING:
    from footlights.viewer.scene.left_out import LeftOut

_SIDES: Final = ("XPos", "XNeg", "YPos", "YNeg", "ZPos", "ZNeg")
_TUBE: Final = 0.006
"""Width of a line, of the size of its box."""


def draw_mode(prim: Any) -> str:
    """The stand-in that a prim is drawn as; empty where it is drawn itself."""
    from pxr import Kind, Usd, UsdGeom

    if not prim.IsModel() or not prim.HasAPI(UsdGeom.ModelAPI):
        return ""
    api = UsdGeom.ModelAPI(prim)
    applied = api.GetModelApplyDrawModeAttr().Get()
    component = Kind.Registry.IsA(Usd.ModelAPI(prim).GetKind(), Kind.Tokens.component)
    if not applied and not component:
        return ""
    mode = str(api.ComputeModelDrawMode())
    return mode if mode in ("bounds", "origin", "cards") else ""


def stand_in(prim: Any, mode: str, time: Any, left_out: LeftOut) -> list[Piece]:
    """The pieces of a stand-in, in the prim's space; none for a model without an extent."""
    from pxr import UsdGeom

    api = UsdGeom.ModelAPI(prim)
    color = displayed(tuple(api.GetModelDrawModeColorAttr().Get() or (0.18, 0.18, 0.18)))
    if mode == "origin":
        axes = [_box(np.zeros(3) - _TUBE, np.where(np.arange(3) == k, 1, _TUBE)) for k in range(3)]
        return [_piece(box, tuple(float(j == k) for j in range(3))) for k, box in enumerate(axes)]
    low, high = _extent(prim, time)
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low <= high).all()):
        return []
    if mode == "bounds":
        return [_piece(box, color) for box in _edges(low, high)]
    if str(api.GetModelCardGeometryAttr().Get()) == "fromTexture":
        left_out.add("cards placed by their pictures are placed by their model's box", str(prim.GetPath()))
    return _cards(api, low, high, color)


def _extent(prim: Any, time: Any) -> tuple[np.ndarray, np.ndarray]:
    from pxr import UsdGeom

    purposes = [UsdGeom.Tokens.default_, UsdGeom.Tokens.render]
    cache = UsdGeom.BBoxCache(time, purposes, True)
    found = cache.ComputeUntransformedBound(prim).ComputeAlignedRange()
    return np.array(found.GetMin(), float), np.array(found.GetMax(), float)


def _cards(api: Any, low: np.ndarray, high: np.ndarray, color: tuple[float, ...]) -> list[Piece]:
    """Pictures on the sides of a box, or, for `cross`, on the planes through its middle."""
    files = {side: asset_of_attribute(api.GetPrim().GetAttribute(f"model:cardTexture{side}")) for side in _SIDES}
    crossed = str(api.GetModelCardGeometryAttr().Get()) != "box"
    pieces: list[Piece] = []
    for k, side in enumerate(_SIDES):
        axis, positive = k // 2, k % 2 == 0
        opposite = _SIDES[k + 1 if positive else k - 1]
        if any(files.values()) and not files[side] and not files[opposite]:
            continue  # only where there is a picture
        piece = _card(axis, positive, low, high, crossed=crossed)
        own = files[side] or files[opposite]
        if not files[side] and own and piece.uvs is not None:  # the picture of the other side, mirrored
            piece = replace(piece, uvs=np.stack([1 - piece.uvs[:, 0], piece.uvs[:, 1]], axis=1))
        painted = np.tile(np.array([*((1, 1, 1) if own else color), 1], np.float32), (4, 1))
        texture = (
            Texture(Image(own), alpha=Image(own, channel="a"), wrap=("clamp", "clamp"), cutout=0.1) if own else None
        )
        pieces.append(replace(piece, colors=painted, finish=Finish(texture=texture, roughness=1.0)))
    return pieces


def _card(axis: int, positive: bool, low: np.ndarray, high: np.ndarray, *, crossed: bool) -> Piece:
    """A rectangle that faces along an axis; its picture stands upright as USD has it: up is Z, on top Y."""
    sign = 1.0 if positive else -1.0
    normal = np.eye(3)[axis] * sign
    # To the right and up, seen from outside.
    upward = np.eye(3)[1] * sign if axis == 2 else np.eye(3)[2]
    across = np.cross(upward, normal)
    middle, half = (low + high) / 2, (high - low) / 2
    center = middle.copy()
    center[axis] = middle[axis] if crossed else (high[axis] if positive else low[axis])
    corners = [center + (u * across + v * upward) * half for u, v in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    return Piece(
        np.array(corners, np.float32),
        np.tile(normal, (4, 1)).astype(np.float32),
        np.ones((4, 4), np.float32),
        np.array([(0, 1, 2), (0, 2, 3)], np.int32),
        Finish(),
        np.array([(0, 0), (1, 0), (1, 1), (0, 1)], np.float32),
    )


def _edges(low: np.ndarray, high: np.ndarray) -> list[TriangleMesh]:
    width = _TUBE * max(float(np.linalg.norm(high - low)), 1e-9)
    boxes = []
    for axis in range(3):
        one, other = [k for k in range(3) if k != axis]
        for u in (low[one], high[one]):
            for v in (low[other], high[other]):
                start, end = low.copy(), high.copy()
                start[one], end[one] = u - width / 2, u + width / 2
                start[other], end[other] = v - width / 2, v + width / 2
                boxes.append(_box(start, end))
    return boxes


def _box(low: np.ndarray, high: np.ndarray) -> TriangleMesh:
    unit = cube(1.0)
    return replace(unit, positions=((unit.positions + 0.5) * (high - low) + low).astype(np.float32))


def _piece(box: TriangleMesh, color: tuple[float, ...]) -> Piece:
    colors = np.tile(np.array([*color, 1], np.float32), (len(box.positions), 1))
    return Piece(box.positions, box.normals, colors, box.triangles, Finish(roughness=1.0))
