"""Skinned, blended and keyed meshes (`scene.deform`)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pxr import Gf, Sdf, UsdGeom, UsdSkel

from footlights.viewer.render.camera import framed
from footlights.viewer.render.renderer import Overlay, Renderer
from footlights.viewer.scene.prims import deform
from tests.viewer.pictures import SIZE
from tests.viewer.stages import StageMaker, only

if TYPE_CHECKING:
    from pathlib import Path

    from footlights.viewer.scene.scene import Batch

WALL = [(x, 0, z) for z in (0, 1, 2, 3) for x in (-1, 1)]
"""A strip of three squares, one above the other."""


@pytest.fixture
def maker(tmp_path: Path) -> StageMaker:
    maker = StageMaker(tmp_path / "stage.usda")
    maker.stage.SetStartTimeCode(0)
    maker.stage.SetEndTimeCode(10)
    return maker


def strip(maker: StageMaker, path: str) -> Any:
    faces = [i for k in (0, 2, 4) for i in (k, k + 1, k + 3, k + 2)]
    return maker.mesh(path, WALL, (4, 4, 4), faces)


def arm(maker: StageMaker) -> Any:
    """A strip whose upper half bends by a right angle, to +Y, from time 0 to 10; the skeleton stands at x = 5."""
    root = UsdSkel.Root.Define(maker.stage, "/Arm")
    skeleton = UsdSkel.Skeleton.Define(maker.stage, "/Arm/Skeleton")
    skeleton.AddTranslateOp().Set((5, 0, 0))
    up = Gf.Matrix4d().SetTranslate((0, 0, 1.5))
    skeleton.CreateJointsAttr(["low", "low/high"])
    skeleton.CreateBindTransformsAttr([Gf.Matrix4d(1), up])
    skeleton.CreateRestTransformsAttr([Gf.Matrix4d(1), up])
    animation = UsdSkel.Animation.Define(maker.stage, "/Arm/Bend")
    animation.CreateJointsAttr(["low/high"])
    animation.CreateTranslationsAttr([(0, 0, 1.5)])
    animation.CreateScalesAttr([(1, 1, 1)])
    turns = animation.CreateRotationsAttr()
    turns.Set([Gf.Quatf(1)], 0)
    half = math.sqrt(0.5)
    turns.Set([Gf.Quatf(half, -half, 0, 0)], 10)
    UsdSkel.BindingAPI.Apply(skeleton.GetPrim()).CreateAnimationSourceRel().SetTargets([animation.GetPath()])
    mesh = strip(maker, "/Arm/Mesh")
    binding = UsdSkel.BindingAPI.Apply(mesh.GetPrim())
    binding.CreateSkeletonRel().SetTargets([skeleton.GetPath()])
    binding.CreateJointIndicesPrimvar(False, 1).Set([0, 0, 0, 0, 1, 1, 1, 1])
    binding.CreateJointWeightsPrimvar(False, 1).Set([1.0] * 8)
    assert root
    return mesh


def moving(batch: Batch, time: float) -> np.ndarray[Any, Any]:
    assert batch.motion is not None
    return batch.motion.at(time)[0]


def top(points: np.ndarray[Any, Any]) -> list[float]:
    """The middle of the strip's upper end."""
    return [round(float(v), 3) for v in points[-2:].mean(axis=0)]


def test_a_skinned_mesh_follows_its_skeleton(maker: StageMaker) -> None:
    """It stands where the skeleton stands, and what hangs on a joint turns with it; its normals turn too."""
    arm(maker)
    scene = maker.load()
    batch = only(scene)

    assert scene.animated
    assert top(moving(batch, 0)) == [5, 0, 3]
    assert top(moving(batch, 10)) == [5, 1.5, 1.5]
    assert batch.motion is not None
    _, normals = batch.motion.at(10)
    assert np.abs(normals[-1]) == pytest.approx([0, 0, 1], abs=0.02)
    assert scene.bounds.low[0] == pytest.approx(4)


def test_a_skinned_mesh_may_hang_below_what_moves(maker: StageMaker) -> None:
    """The mesh's own place does not matter, but that of the skeleton does, also while it moves."""
    mesh = arm(maker)
    mesh.AddTranslateOp().Set((0, 100, 0))
    op = UsdGeom.Xformable(maker.stage.GetPrimAtPath("/Arm")).AddTranslateOp()
    op.Set((0, 0, 0), 0)
    op.Set((0, 0, 50), 10)
    scene = maker.load()
    (joint,) = scene.joints[1:]
    batch = only(scene)
    matrix, _ = joint.sample(10)
    placed = moving(batch, 10) @ matrix[:3, :3] + matrix[3, :3]

    assert top(placed) == pytest.approx([5, 1.5, 51.5], abs=1e-3)


def test_blend_shapes_are_applied(maker: StageMaker) -> None:
    """With the weights of the animation, at any time between its keys."""
    root = UsdSkel.Root.Define(maker.stage, "/Face")
    skeleton = UsdSkel.Skeleton.Define(maker.stage, "/Face/Skeleton")
    animation = UsdSkel.Animation.Define(maker.stage, "/Face/Smile")
    animation.CreateBlendShapesAttr(["other", "up"])
    weights = animation.CreateBlendShapeWeightsAttr()
    weights.Set([1.0, 0.0], 0)
    weights.Set([1.0, 1.0], 10)
    UsdSkel.BindingAPI.Apply(skeleton.GetPrim()).CreateAnimationSourceRel().SetTargets([animation.GetPath()])
    mesh = strip(maker, "/Face/Mesh")
    shape = UsdSkel.BlendShape.Define(maker.stage, "/Face/Mesh/up")
    shape.CreateOffsetsAttr([(0, 0, 4), (0, 0, 4)])
    shape.CreatePointIndicesAttr([6, 7])
    binding = UsdSkel.BindingAPI.Apply(mesh.GetPrim())
    binding.CreateSkeletonRel().SetTargets([skeleton.GetPath()])
    binding.CreateBlendShapesAttr(["up"])
    binding.CreateBlendShapeTargetsRel().SetTargets([shape.GetPath()])
    scene = maker.load()  # which keeps the stage open
    batch = only(scene)

    assert root
    assert [top(moving(batch, t))[2] for t in (0, 5, 10)] == [3, 5, 7]


def test_keyed_points_move(maker: StageMaker) -> None:
    """Points with time samples are read at each time; a sample of another length, or not of numbers, is passed over."""
    points = strip(maker, "/Sheet").GetPointsAttr()
    points.Set(WALL, 0)
    points.Set([(x, y, z + 10) for x, y, z in WALL], 10)
    points.Set(WALL[:3], 20)
    points.Set([(math.nan, 0, 0)] * 8, 30)
    scene = maker.load()
    batch = only(scene)

    assert [top(moving(batch, t))[2] for t in (0, 5, 10, 20, 30, 0)] == [3, 8, 13, 13, 13, 3]


def test_what_moves_is_drawn_moving(maker: StageMaker) -> None:
    """The picture changes with time, and is the same again at the same time."""
    arm(maker).GetDoubleSidedAttr().Set(True)
    scene = maker.load()
    renderer = Renderer(scene, *SIZE, 1.0)
    orbit = framed(scene.bounds, SIZE[0] / SIZE[1])
    start, end, again = (renderer.render(t, orbit, Overlay()).astype(int) for t in (0, 10, 0))
    renderer.close()

    assert (np.abs(start - end).sum(axis=2) > 60).sum() > 200
    assert np.abs(start - again).max() == 0


def test_too_many_moving_points_stand_still(maker: StageMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first meshes move; the others are shown as they are at the start, and counted."""
    monkeypatch.setattr(deform, "MAX_MOVING_POINTS", 10)
    for name in ("/A", "/B"):
        points = strip(maker, name).GetPointsAttr()
        points.Set(WALL, 0)
        points.Set([(x, y, z + 10) for x, y, z in WALL], 10)
    scene = maker.load()

    assert [batch.motion is not None for batch in scene.batches].count(True) == 1
    assert len(scene.batches) == 2
    assert any("stand still" in line and "/B" in line for line in scene.left_out.lines())


def test_a_damaged_skeleton_leaves_the_mesh(maker: StageMaker) -> None:
    """Joint indices out of range, no bind pose, no targets: the mesh is drawn as it is written."""
    mesh = arm(maker)
    UsdSkel.BindingAPI(mesh.GetPrim()).CreateJointIndicesPrimvar(False, 1).Set([0, 0, 0, 0, 99, 99, 99, 99])
    assert maker.load().triangle_count == 6

    mesh.GetPrim().GetAttribute("primvars:skel:jointWeights").Set([1.0])
    assert maker.load().triangle_count == 6

    maker.stage.GetPrimAtPath("/Arm/Skeleton").GetAttribute("bindTransforms").Set([])
    assert maker.load().triangle_count == 6

    maker.stage.GetPrimAtPath("/Arm/Bend").GetAttribute("translations").Set([(math.inf, 0, 0)])
    assert maker.load().triangle_count == 6

    gone = UsdSkel.BindingAPI(mesh.GetPrim()).CreateBlendShapesAttr(["gone"])
    UsdSkel.BindingAPI(mesh.GetPrim()).CreateBlendShapeTargetsRel().SetTargets([Sdf.Path("/Nowhere")])
    assert gone
    assert maker.load().triangle_count == 6


def test_a_damaged_skeleton_is_warned_of_once(maker: StageMaker, capfd: pytest.CaptureFixture[str]) -> None:
    """And not with each picture, 30 times a second for as long as somebody watches."""
    binding = UsdSkel.BindingAPI(arm(maker))
    binding.GetJointIndicesPrimvar().Set([0, 0, 0, 0, 1, 1, 1, 99])
    (batch,) = [each for each in maker.load().batches if each.motion is not None]
    for time in range(1, 10):
        moving(batch, time)

    assert capfd.readouterr().err.count("Out of range joint index 99") == 1
