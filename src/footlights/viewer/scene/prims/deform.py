"""Meshes whose points move: skinned by a skeleton (UsdSkel), changed by blend shapes, or keyed point by point."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from footlights.viewer.scene.left_out import LeftOut
    from footlights.viewer.scene.prims.geometry import Index
    from footlights.viewer.scene.scene import Floats, Ints, Matrix

MAX_MOVING_POINTS: Final = 250_000
"""Of a stage. Each costs time in every picture; what is beyond is shown as it is at the start."""


@dataclass(slots=True)
class Deformer:
    """The points of a prim over time, in the prim's own space."""

    sample: Callable[[float], Floats]
    moves: bool  # whether they differ from one time to another
    _time: float | None = None
    _points: Floats = field(default_factory=lambda: np.zeros((0, 3), np.float32))

    def at(self, time: float) -> Floats:
        """The points at a time code; those of the last time, where they cannot be read."""
        if time != self._time:
            try:
                points = self.sample(time) if self._time is None else _quietly(self.sample, time)
            except Exception:  # USD's bindings raise errors of their own kinds; one sample does not end the picture
                points = self._points
            if self._time is None or (len(points) == len(self._points) and np.isfinite(points).all()):
                self._points = points
            self._time = time
        return self._points


def _quietly(sample: Callable[[float], Floats], time: float) -> Floats:
    """Sample without USD's warnings, which were the same the first time, and would fill the log picture by picture."""
    from pxr import UsdUtils

    unsaid = UsdUtils.CoalescingDiagnosticDelegate()
    try:
        return sample(time)
    finally:
        del unsaid


class Motion:
    """Vertices that follow the points of a deformer.

    `points` has the point of each vertex, `normals` its normal at rest, which says whose normals it shares; `matrix`
    leads to the joint's space.
    """

    def __init__(self, deformer: Deformer, points: Index, normals: Floats, triangles: Ints, matrix: Matrix) -> None:
        self._deformer, self._points, self._triangles, self._matrix = deformer, points, triangles, matrix
        self._groups = smoothing_groups(points, normals)
        # The faces around each group, one group after the other.
        corners = self._groups[triangles].reshape(-1)
        order = np.argsort(corners, kind="stable")
        self._faces = order // 3
        self._filled, self._starts = np.unique(corners[order], return_index=True)
        self._count = int(self._groups.max()) + 1

    def at(self, time: float) -> tuple[Floats, Floats]:
        """Positions and normals at a time code."""
        placed = self._deformer.at(time) @ self._matrix[:3, :3].astype(np.float32)
        positions = (placed + self._matrix[3, :3].astype(np.float32))[self._points]
        a, b, c = (positions[self._triangles[:, k]] for k in range(3))
        u, v = b - a, c - a
        faces = np.empty_like(u)
        for k, (i, j) in enumerate(((1, 2), (2, 0), (0, 1))):
            faces[:, k] = u[:, i] * v[:, j] - u[:, j] * v[:, i]
        sums = np.zeros((self._count, 3), np.float32)
        sums[self._filled] = np.add.reduceat(faces[self._faces], self._starts, axis=0)
        normals = (sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-20))[self._groups]
        return positions, normals


def smoothing_groups(points: Index, normals: Floats) -> Index:
    """Number the vertices so that those of one point and one normal have one number."""
    coarse = np.clip(np.rint(normals * 100 + 128), 0, 255).astype(np.uint64)
    look = (coarse[:, 0] << np.uint64(16)) | (coarse[:, 1] << np.uint64(8)) | coarse[:, 2]
    _, groups = np.unique((points.astype(np.uint64) << np.uint64(24)) | look, return_inverse=True)
    return groups.reshape(-1)


class Deformers:
    """Finds what moves the points of a stage's meshes."""

    def __init__(self, stage: Any, left_out: LeftOut) -> None:
        from pxr import Usd, UsdSkel

        self._left_out = left_out
        self._moving = 0
        self._cache = UsdSkel.Cache()
        every = Usd.TraverseInstanceProxies(Usd.PrimDefaultPredicate)
        for prim in stage.Traverse(every):
            if prim.IsA(UsdSkel.Root):
                try:
                    self._cache.Populate(UsdSkel.Root(prim), every)
                except Exception as error:
                    left_out.add("skeletons that cannot be read", f"{prim.GetPath()}: {error}")

    def of(self, mesh: Any, time: Any) -> Deformer | None:
        """What moves the points of a UsdGeomMesh, or gives them another place than is written; None for nothing."""
        prim = mesh.GetPrim()
        try:
            deformer = self._skinned(mesh) or self._keyed(mesh)
            if deformer is None:
                return None
            points = deformer.at(time.GetValue())
            count = len(points)
            if not np.isfinite(points).all():
                raise ValueError("its points are no numbers")
        except Exception as error:
            self._left_out.add(
                "skinned meshes that cannot be read: shown without their skeleton", f"{prim.GetPath()}: {error}"
            )
            return None
        if deformer.moves:
            self._moving += count
            if self._moving > MAX_MOVING_POINTS:
                self._left_out.add(
                    f"moving meshes after the first {MAX_MOVING_POINTS:,} points stand still", str(prim.GetPath())
                )
                deformer.moves = False
        return deformer

    def _keyed(self, mesh: Any) -> Deformer | None:
        attribute = mesh.GetPointsAttr()
        if not attribute.ValueMightBeTimeVarying():
            return None
        if mesh.GetFaceVertexIndicesAttr().ValueMightBeTimeVarying():
            self._left_out.add("meshes whose faces change stand still", str(mesh.GetPath()))
            return None
        return Deformer(lambda time: np.asarray(attribute.Get(time), np.float32).reshape(-1, 3), moves=True)

    def _skinned(self, mesh: Any) -> Deformer | None:
        from pxr import Gf, Usd, UsdGeom, UsdSkel, Vt

        prim = mesh.GetPrim()
        skinning = self._cache.GetSkinningQuery(prim)
        if not skinning or not (skinning.HasJointInfluences() or skinning.HasBlendShapes()):
            return None
        bound = UsdSkel.BindingAPI(prim).GetInheritedSkeleton()
        skeleton = self._cache.GetSkelQuery(bound) if bound else None
        if not skeleton:
            return None
        animation = skeleton.GetAnimQuery()
        shapes = _BlendShapes(prim, animation) if skinning.HasBlendShapes() and animation else None
        points = mesh.GetPointsAttr()
        skins = skinning.HasJointInfluences()

        def sample(time: float) -> Floats:
            code = Usd.TimeCode(time)
            moved = Vt.Vec3fArray(points.Get(code))
            if shapes is not None:
                shapes.apply(moved, code)
            if not skins:
                return np.array(moved, np.float32)
            skinning.ComputeSkinnedPoints(skeleton.ComputeSkinningTransforms(code), moved, code)
            xforms = UsdGeom.XformCache(code)
            to_prim = (
                xforms.GetLocalToWorldTransform(bound.GetPrim()) * xforms.GetLocalToWorldTransform(prim).GetInverse()
            )
            skinned = np.array(moved, np.float32)
            if to_prim == Gf.Matrix4d(1):
                return skinned
            matrix = np.array(to_prim, np.float64)
            placed: Floats = (skinned @ matrix[:3, :3] + matrix[3, :3]).astype(np.float32)
            return placed

        moves = bool(animation) and (
            animation.JointTransformsMightBeTimeVarying() or animation.BlendShapeWeightsMightBeTimeVarying()
        )
        return Deformer(sample, moves=moves)


class _BlendShapes:
    """The blend shapes of one prim."""

    def __init__(self, prim: Any, animation: Any) -> None:
        from pxr import UsdSkel

        self._query = UsdSkel.BlendShapeQuery(UsdSkel.BindingAPI(prim))
        self._points = self._query.ComputeBlendShapePointIndices()
        self._offsets = self._query.ComputeSubShapePointOffsets()
        self._animation = animation
        order = {str(name): k for k, name in enumerate(animation.GetBlendShapeOrder())}
        # Of each shape of the prim, its place among the animation's.
        names = UsdSkel.BindingAPI(prim).GetBlendShapesAttr().Get()
        self._places = [order.get(str(name)) for name in names or ()]

    def apply(self, points: Any, time: Any) -> None:
        """Move `points` by the shapes' weights."""
        from pxr import Vt

        animated = self._animation.ComputeBlendShapeWeights(time)
        weights = [float(animated[k]) if k is not None and k < len(animated) else 0.0 for k in self._places]
        found = self._query.ComputeSubShapeWeights(Vt.FloatArray(weights))
        sub_weights, shape_indices, sub_indices = found[-3:]
        self._query.ComputeDeformedPoints(sub_weights, shape_indices, sub_indices, self._points, self._offsets, points)
