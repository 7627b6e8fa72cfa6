"""Opens a USD stage and turns it into a `Scene`.

Honoured: metersPerUnit, upAxis, orientation, purpose (default and render), visibility, displayColor and
displayOpacity, materials (`materials`), material subsets, instances, point instancers, the geometric
primitives, curves, points, draw modes, skinning, blend shapes, keyed points, animated transforms and visibility, the
cameras and the lights. Not: volumes, shadows.

What cannot be understood of a prim is left out and counted; it never ends the picture.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from footlights.viewer.failure import FailureReason, ViewerFailure
from footlights.viewer.scene.cameras import views_of
from footlights.viewer.scene.confine import open_confined
from footlights.viewer.scene.left_out import LeftOut
from footlights.viewer.scene.lights import Lights
from footlights.viewer.scene.materials.palette import Palette
from footlights.viewer.scene.prims.cards import draw_mode, stand_in
from footlights.viewer.scene.prims.deform import Deformer, Deformers, Motion
from footlights.viewer.scene.prims.meshes import pieces_of
from footlights.viewer.scene.roots import StageRoots
from footlights.viewer.scene.scene import (
    ROOT,
    Batch,
    Bounds,
    Finish,
    Matrix,
    Scene,
    SceneJoint,
    Timeline,
    places_of,
    triple,
)

if TYPE_CHECKING:
    from pathlib import Path

    from footlights.viewer.scene.prims.primvars import Piece

MAX_TRIANGLES = 2_000_000
"""Beyond this a software renderer shows slides; the rest of the stage is left out, with a warning."""

FARTHEST = 1e8
"""Metres from the origin. What is beyond was placed there by mistake, and would spoil the numbers of all others."""

MOST_UNITS = 1e12
"""Metres in a stage's unit, or units in a metre; what says more means none."""

OUTLIER = 20.0
"""A prim that makes the whole so many times as large as it is without it is no part of what is looked at."""

UNREADABLE = "prims that cannot be read"

IDENTITY: Matrix = np.identity(4)


def load_scene(path: Path, name: str | None = None, roots: StageRoots | None = None) -> Scene:
    """Open the stage at `path`, without what it refers to outside of `roots`.

    Raises ViewerFailure: STAGE_UNREADABLE if USD cannot open it, STAGE_EMPTY if there is nothing to draw.
    """
    from pxr import Tf

    roots = (roots or StageRoots()).including(path)
    try:
        stage, confined = open_confined(path, roots)
    except Tf.ErrorException as error:
        raise ViewerFailure(
            FailureReason.STAGE_UNREADABLE, f"cannot open the stage {path}: {_reason(error)}"
        ) from error
    left_out = LeftOut()
    for outside in confined:
        left_out.add("files outside of the roots that are allowed", outside)
    for problem in stage.GetCompositionErrors():
        left_out.add("files and prims that are referred to and cannot be found or read", _reason(problem))
    reader = _Reader(stage, left_out)
    reader.walk(stage.GetPseudoRoot(), ROOT, IDENTITY)
    batches = reader.batches()
    if not batches:
        raise ViewerFailure(
            FailureReason.STAGE_EMPTY,
            f"the stage {path} has nothing to draw: no visible mesh or primitive of purpose default or render"
            + "".join(f"; left out: {line}" for line in left_out.lines()[:3]),
        )
    start, end = _times(stage)
    places = places_of(reader.joints, start)
    bounds = _bounds(places, batches, reader.boxes)
    return Scene(
        name=name or path.stem,
        joints=reader.joints,
        batches=batches,
        bounds=bounds,
        timeline=Timeline(start, end, _rate(stage)),
        views=views_of(stage, reader.to_world, bounds, left_out),
        lighting=reader.lights.lighting(bounds, places),
        left_out=left_out,
        roots=roots,
        keepalive=stage,
    )


class _Reader:
    """One walk over a stage."""

    def __init__(self, stage: Any, left_out: LeftOut) -> None:
        from pxr import Usd, UsdGeom

        self.start = Usd.TimeCode(_times(stage)[0])
        self.to_world = _to_metres_z_up(UsdGeom.GetStageMetersPerUnit(stage), UsdGeom.GetStageUpAxis(stage))
        root = self.to_world
        self._unit = 1 / float(np.linalg.norm(root[0, :3]))  # a metre, in the stage's units
        self.boxes: list[tuple[int, np.ndarray]] = []  # low and high corner of each piece, with its joint
        self._full = False  # whether there are as many triangles as can be drawn
        self._scattering: set[str] = set()  # instancers that are being visited
        self.joints: list[SceneJoint] = [SceneJoint("/", -1, lambda _time: (root, True))]
        self._left_out = left_out
        self._palette = Palette(left_out)
        self.lights = Lights(left_out)
        self._deformers = Deformers(stage, left_out)
        self._moving: list[Batch] = []
        self._pieces: dict[str, list[Piece]] = {}
        self._gathered: dict[tuple[int, Finish], list[tuple[Piece, Matrix]]] = {}
        self._triangles = 0
        self._children = Usd.TraverseInstanceProxies(Usd.PrimDefaultPredicate)

    def walk(self, prim: Any, joint: int, matrix: Matrix, *, placed: bool = False, still: bool = False) -> None:
        """Visit a prim and what is below it. `matrix` leads from its parent's space to the joint's.

        `placed`: the prim's own transform is already in `matrix` (a point instancer's prototype).
        `still`: nothing below becomes a joint.
        """
        from pxr import UsdGeom, UsdLux

        imageable = UsdGeom.Imageable(prim)
        visibility = imageable.GetVisibilityAttr() if imageable else None
        blinks = visibility is not None and visibility.ValueMightBeTimeVarying()
        if visibility is not None and not blinks and visibility.Get(self.start) == UsdGeom.Tokens.invisible:
            return
        xformable = UsdGeom.Xformable(prim)
        if xformable and xformable.GetResetXformStack() and not placed:
            joint, matrix = ROOT, IDENTITY
        if not still and (blinks or (xformable and xformable.TransformMightBeTimeVarying())):
            joint, matrix = self._add_joint(prim, joint, matrix, visibility if blinks else None), IDENTITY
        elif xformable and not placed:
            matrix = _matrix(xformable.GetLocalTransformation(self.start)) @ matrix
        if not np.abs(matrix).max() < FARTHEST * self._unit:
            raise ValueError("its transform is not finite, or leads too far away")

        if (mode := draw_mode(prim)) and imageable.ComputePurpose() in ("default", "render"):
            for piece in stand_in(prim, mode, self.start, self._left_out):
                self._gather(piece, prim, joint, matrix)
            return
        if prim.HasAPI(UsdLux.LightAPI) and not still:
            self.lights.add(prim, self.start, joint, matrix)
        if prim.IsA(UsdGeom.PointInstancer):
            self._scatter(UsdGeom.PointInstancer(prim), joint, matrix)
            return
        if prim.IsA(UsdGeom.Gprim) and imageable.ComputePurpose() in ("default", "render"):
            self._draw(prim, joint, matrix, still=still)
        for child in prim.GetFilteredChildren(self._children):
            try:
                self.walk(child, joint, matrix, still=still)
            except Exception as error:  # as in `_draw`: what is below is left out, and what is beside it is not
                self._left_out.add(UNREADABLE, f"{child.GetPath()}: {_reason(error)}")

    def batches(self) -> list[Batch]:
        """Everything that was drawn, merged by joint and finish."""
        merged = [_merge(joint, finish, placed, self.boxes) for (joint, finish), placed in self._gathered.items()]
        self.boxes += [(b.joint, np.stack([b.positions.min(axis=0), b.positions.max(axis=0)])) for b in self._moving]
        return sorted([*merged, *self._moving], key=lambda batch: batch.finish.transparent)

    def _add_joint(self, prim: Any, parent: int, matrix: Matrix, visibility: Any) -> int:
        from pxr import Usd, UsdGeom

        xformable = UsdGeom.Xformable(prim)
        unit = self._unit

        def sample(time: float) -> tuple[Matrix, bool]:
            code = Usd.TimeCode(time)
            try:
                local = _matrix(xformable.GetLocalTransformation(code)) @ matrix if xformable else matrix
                if not np.abs(local).max() < FARTHEST * unit:
                    return matrix, False
                return local, visibility is None or visibility.Get(code) != UsdGeom.Tokens.invisible
            except Exception:  # a sample that cannot be read hides what it moves, for as long as it is the one
                return matrix, False

        self.joints.append(SceneJoint(str(prim.GetPath()), parent, sample))
        return len(self.joints) - 1

    def _scatter(self, instancer: Any, joint: int, matrix: Matrix) -> None:
        from pxr import Usd, UsdGeom

        path = str(instancer.GetPath())
        indices = instancer.GetProtoIndicesAttr().Get(self.start)
        targets = instancer.GetPrototypesRel().GetForwardedTargets()
        if indices is None or not targets or path in self._scattering:
            return
        transforms = instancer.ComputeInstanceTransformsAtTime(
            self.start, self.start, UsdGeom.PointInstancer.IncludeProtoXform, UsdGeom.PointInstancer.IgnoreMask
        )
        mask = instancer.ComputeMaskAtTime(self.start)
        stage = instancer.GetPrim().GetStage()
        self._scattering.add(path)
        for k, transform in enumerate(transforms):
            if self._full:
                self._left_out.add("instances after the last triangle that is drawn", path, len(transforms) - k)
                break
            prototype = stage.GetPrimAtPath(targets[indices[k]]) if 0 <= indices[k] < len(targets) else Usd.Prim()
            if not prototype or (mask and not mask[k]):
                continue
            try:
                self.walk(prototype, joint, _matrix(transform) @ matrix, placed=True, still=True)
            except Exception as error:  # one instance does not take the others away
                self._left_out.add(UNREADABLE, f"{path}, instance {k}: {_reason(error)}")
        self._scattering.discard(path)

    def _draw(self, prim: Any, joint: int, matrix: Matrix, *, still: bool) -> None:
        from pxr import UsdGeom

        mesh = UsdGeom.Mesh(prim)
        deformer = self._deformers.of(mesh, self.start) if mesh else None
        if deformer is not None:
            self._draw_deformed(prim, deformer, (joint, matrix), still=still)
            return
        key = str((prim.GetPrimInPrototype() if prim.IsInstanceProxy() else prim).GetPath())
        if key not in self._pieces:
            self._pieces[key] = self._pieces_of(prim)
        for piece in self._pieces[key]:
            self._gather(piece, prim, joint, matrix)

    def _gather(self, piece: Piece, prim: Any, joint: int, matrix: Matrix) -> None:
        corners = np.stack([piece.positions.min(axis=0), piece.positions.max(axis=0)])
        if not np.abs(corners).max() * np.abs(matrix[:3, :3]).max() < FARTHEST * self._unit:
            self._left_out.add(UNREADABLE, f"{prim.GetPath()}: it is too large, or too far away")
        elif self._fits(piece, prim):
            self._gathered.setdefault((joint, piece.finish), []).append((piece, matrix))

    def _draw_deformed(self, prim: Any, deformer: Deformer, place: tuple[int, Matrix], *, still: bool) -> None:
        joint, matrix = place
        mirrored = np.linalg.det(matrix[:3, :3]) < 0
        for piece in self._pieces_of(prim, divide=False):
            if piece.points is None or not self._fits(piece, prim):
                continue
            triangles = np.ascontiguousarray(piece.triangles[:, ::-1]) if mirrored else piece.triangles
            motion = Motion(deformer, piece.points, piece.normals, triangles, matrix)
            positions, normals = motion.at(self.start.GetValue())
            if not np.abs(positions).max() < FARTHEST * self._unit:
                self._left_out.add(UNREADABLE, f"{prim.GetPath()}: it is too large, or too far away")
                continue
            if deformer.moves and not still:
                self._moving.append(
                    Batch(joint, piece.finish, positions, normals, piece.colors, triangles, piece.uvs, motion)
                )
            else:
                posed = replace(piece, positions=positions, normals=normals, triangles=triangles)
                self._gathered.setdefault((joint, piece.finish), []).append((posed, IDENTITY))

    def _pieces_of(self, prim: Any, *, divide: bool = True) -> list[Piece]:
        try:
            return pieces_of(prim, self.start, self._palette, divide=divide)
        except NotImplementedError:
            self._left_out.add(f"{prim.GetTypeName()} prims", str(prim.GetPath()))
        except Exception as error:  # USD's bindings raise errors of their own kinds, by what a file has
            self._left_out.add(UNREADABLE, f"{prim.GetPath()}: {_reason(error)}")
        return []

    def _fits(self, piece: Piece, prim: Any) -> bool:
        """Count a piece; whether it may still be drawn."""
        if self._triangles + len(piece.triangles) > MAX_TRIANGLES:
            self._left_out.add(f"prims after the first {MAX_TRIANGLES:,} triangles", str(prim.GetPath()))
            self._full = True
            return False
        self._triangles += len(piece.triangles)
        return True


def _merge(
    joint: int, finish: Finish, placed: list[tuple[Piece, Matrix]], boxes: list[tuple[int, np.ndarray]]
) -> Batch:
    """One batch of pieces; the box of each is added to `boxes`."""
    positions, normals, colors, triangles, uvs = [], [], [], [], []
    offset = 0
    for piece, matrix in placed:
        linear = matrix[:3, :3]
        positions.append(piece.positions @ linear + matrix[3, :3])
        boxes.append((joint, np.stack([positions[-1].min(axis=0), positions[-1].max(axis=0)])))
        determinant = float(np.linalg.det(linear))
        # Cofactors carry normals through any scaling, also one that flattens; the sign undoes mirroring.
        turned = piece.normals @ _cofactors(linear) * (1.0 if determinant >= 0 else -1.0)
        normals.append(turned / np.maximum(np.linalg.norm(turned, axis=1, keepdims=True), 1e-20))
        colors.append(piece.colors)
        if finish.texture is not None:
            uvs.append(np.zeros((len(piece.positions), 2)) if piece.uvs is None else piece.uvs)
        # A mirroring transform turns triangles inside out.
        winding = piece.triangles if determinant >= 0 else piece.triangles[:, ::-1]
        triangles.append(winding + np.int32(offset))
        offset += len(piece.positions)
    return Batch(
        joint=joint,
        finish=finish,
        positions=np.concatenate(positions).astype(np.float32),
        normals=np.concatenate(normals).astype(np.float32),
        colors=np.concatenate(colors).astype(np.float32),
        triangles=np.concatenate(triangles).astype(np.int32),
        uvs=np.concatenate(uvs).astype(np.float32) if uvs else None,
    )


def _cofactors(linear: Matrix) -> Matrix:
    a, b, c = linear
    return np.stack([np.cross(b, c), np.cross(c, a), np.cross(a, b)])


def _bounds(places: list[Matrix], batches: list[Batch], boxes: list[tuple[int, np.ndarray]]) -> Bounds:
    """The box around what is looked at: everything, except for what lies far outside of all other prims."""
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for batch in batches:
        placed = batch.positions @ places[batch.joint][:3, :3] + places[batch.joint][3, :3]
        low, high = np.minimum(low, placed.min(axis=0)), np.maximum(high, placed.max(axis=0))
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)])
    lows, highs = [], []
    for joint, box in boxes:
        spread = box[corners, np.arange(3)] @ places[joint][:3, :3] + places[joint][3, :3]
        lows.append(spread.min(axis=0))
        highs.append(spread.max(axis=0))
    kept = _without_outliers(np.array(lows), np.array(highs))
    if not kept.all():
        low, high = np.array(lows)[kept].min(axis=0), np.array(highs)[kept].max(axis=0)
    return Bounds(low=triple(low), high=triple(high))


def _without_outliers(lows: np.ndarray, highs: np.ndarray) -> np.ndarray:
    """Which boxes remain without a few that are far away from the others, or far larger: a sky, a slip of a digit."""

    def size(which: np.ndarray) -> float:
        return float(np.linalg.norm(highs[which].max(axis=0) - lows[which].min(axis=0)))

    kept = np.ones(len(lows), bool)
    for _ in range(min(8, len(lows) // 2)):
        (places,) = np.nonzero(kept)
        outermost = {int(places[k]) for k in (*lows[kept].argmin(axis=0), *highs[kept].argmax(axis=0))}
        whole = size(kept)
        rest, odd = whole, -1
        for k in outermost:
            kept[k] = False
            if (without := size(kept)) < rest:
                rest, odd = without, k
            kept[k] = True
        own = float(np.linalg.norm(highs[odd] - lows[odd]))
        if odd < 0 or whole < OUTLIER * rest or (own < OUTLIER * rest and kept.sum() < 5):
            break
        kept[odd] = False
    return kept


def _times(stage: Any) -> tuple[float, float]:
    """Start and end of a stage's animation."""
    start, end = stage.GetStartTimeCode(), stage.GetEndTimeCode()
    if not (math.isfinite(start) and math.isfinite(end)):
        return 0.0, 0.0
    return start, max(start, end)


def _rate(stage: Any) -> float:
    rate = stage.GetTimeCodesPerSecond()
    return rate if math.isfinite(rate) and rate > 0 else 24.0


def _to_metres_z_up(metres_per_unit: float, up_axis: str) -> Matrix:
    scale = metres_per_unit if 1 / MOST_UNITS < metres_per_unit < MOST_UNITS else 0.01
    result = np.identity(4)
    if up_axis == "Y":
        result[:3, :3] = [[1, 0, 0], [0, 0, 1], [0, -1, 0]]
    result[:3, :3] *= scale
    return result


def _matrix(gf_matrix: Any) -> Matrix:
    return np.array(gf_matrix, dtype=np.float64)


def _reason(error: object) -> str:
    """The first thing that USD says, without the place in its own source."""
    found = re.search(r"Error in '[^']*' at line \d+ in file \S+ : '(.+)", str(error))
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = found[1].strip().removesuffix("'") if found else lines[0] if lines else "unknown error"
    return text.split(" -- ")[-1]
