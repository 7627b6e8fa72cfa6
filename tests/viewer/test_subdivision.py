"""Subdivision surfaces (`scene.prims.subdivision`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pxr import Sdf, UsdGeom, UsdShade

from footlights.viewer.scene.prims import subdivision
from tests.viewer.pictures import GREEN, RED, WHITE, write
from tests.viewer.stages import StageMaker, only, winding

if TYPE_CHECKING:
    from pathlib import Path

CUBE = [(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]
SIDES = [0, 1, 3, 2, 4, 6, 7, 5, 0, 4, 5, 1, 2, 3, 7, 6, 0, 2, 6, 4, 1, 5, 7, 3]


@pytest.fixture
def maker(tmp_path: Path) -> StageMaker:
    return StageMaker(tmp_path / "stage.usda")


def cube(maker: StageMaker, scheme: str = "catmullClark") -> Any:
    mesh = maker.mesh("/Cube", CUBE, [4] * 6, SIDES)
    mesh.GetSubdivisionSchemeAttr().Set(scheme)
    return mesh


def test_a_cube_becomes_round(maker: StageMaker) -> None:
    """Its corners are drawn in to where Catmull and Clark have them, and its faces look outward."""
    cube(maker)
    batch = only(maker.load())
    radius = np.linalg.norm(batch.positions, axis=1)

    assert len(batch.triangles) == 6 * 16 * 2
    assert radius.max() / radius.min() < 1.12
    assert radius.max() < 1.0
    assert (np.einsum("ij,ij->i", winding(batch), batch.positions[batch.triangles[:, 0]]) > 0).all()
    assert (np.einsum("ij,ij->i", batch.normals, batch.positions) > 0.9 * radius).all()


def test_one_round_is_as_the_rules_say(maker: StageMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A corner of the cube of two metres comes to 5/9, the middle of an edge to 3/4, that of a face stays."""
    monkeypatch.setattr(subdivision, "MOST_FACES", 24)
    cube(maker)
    places = {tuple(round(abs(float(v)), 3) for v in sorted(map(abs, p))) for p in only(maker.load()).positions}

    assert places == {(0.556, 0.556, 0.556), (0.0, 0.75, 0.75), (0.0, 0.0, 1.0)}


@pytest.mark.parametrize("scheme", ["none", "bilinear", ""])
def test_polygons_stay_polygons(maker: StageMaker, scheme: str) -> None:
    """Where the scheme says so, and where no scheme is written: most such files mean polygons."""
    mesh = cube(maker, scheme or "none")
    if not scheme:
        mesh.GetSubdivisionSchemeAttr().Clear()

    assert maker.load().triangle_count == 12


def test_creases_and_corners_stay_sharp(maker: StageMaker) -> None:
    """All edges sharp leave a cube; a sharpness of one, for one round, something between; a corner its point."""
    mesh = cube(maker)
    edges = sorted({tuple(sorted((SIDES[f * 4 + k], SIDES[f * 4 + (k + 1) % 4]))) for f in range(6) for k in range(4)})
    mesh.GetCreaseIndicesAttr().Set([i for edge in edges for i in edge])
    mesh.GetCreaseLengthsAttr().Set([2] * len(edges))

    def farthest(sharpness: float) -> float:
        mesh.GetCreaseSharpnessesAttr().Set([sharpness] * len(edges))
        return float(np.linalg.norm(only(maker.load()).positions, axis=1).max())

    assert farthest(10) == pytest.approx(3**0.5)
    assert 1.0 < farthest(1) < 3**0.5 - 0.05
    assert farthest(0) < 1.0

    mesh.GetCornerIndicesAttr().Set([7])
    mesh.GetCornerSharpnessesAttr().Set([10.0])
    assert farthest(0) == pytest.approx(3**0.5)


def test_colours_and_subsets_follow_their_faces(maker: StageMaker) -> None:
    """Values of each kind are divided with the faces: uniform, vertex, faceVarying; materials of subsets too."""
    mesh = cube(maker)
    red, blue = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)
    for interpolation, count in (("uniform", 6), ("vertex", 8), ("faceVarying", 24)):
        colors = [red] * (count // 2) + [blue] * (count // 2)
        mesh.CreateDisplayColorPrimvar(interpolation).Set(colors)
        shown = only(maker.load()).colors
        assert {tuple(np.rint(c)) for c in shown[:, :3]} >= {red, blue}

    subset = UsdShade.MaterialBindingAPI.Apply(mesh.GetPrim()).CreateMaterialBindSubset("top", [0])
    maker.bind(subset, maker.material("M", diffuseColor=(0.0, 1.0, 0.0)))
    batch = only(maker.load())
    green = batch.colors[batch.triangles[:, 0]].tolist()
    middles = batch.positions[batch.triangles].mean(axis=1)
    assert [color == [0, 1, 0, 1] for color in green].count(True) == 32
    assert all(x < 0 for x, color in zip(middles[:, 0], green, strict=True) if color == [0, 1, 0, 1])


def test_texture_coordinates_are_divided(maker: StageMaker) -> None:
    """Corners keep theirs, what is between lies between."""
    write(maker.path.parent / "a.png", RED, GREEN, WHITE, WHITE)
    mesh = cube(maker)
    primvar = UsdGeom.PrimvarsAPI(mesh).CreatePrimvar("st", Sdf.ValueTypeNames.TexCoord2fArray, "faceVarying")
    primvar.Set([(0, 0), (1, 0), (1, 1), (0, 1)] * 6)
    material = maker.material("M")
    node = UsdShade.Shader.Define(maker.stage, "/Looks/M/T")
    node.CreateIdAttr("UsdUVTexture")
    node.CreateInput("file", Sdf.ValueTypeNames.Asset).Set("./a.png")
    shader = UsdShade.Shader(maker.stage.GetPrimAtPath("/Looks/M/Surface"))
    shader.CreateInput("diffuseColor", Sdf.ValueTypeNames.Color3f).ConnectToSource(node.ConnectableAPI(), "rgb")
    maker.bind(mesh, material)
    uvs = only(maker.load()).uvs

    assert uvs is not None
    assert sorted({round(float(v), 3) for v in uvs.reshape(-1)}) == [0, 0.25, 0.5, 0.75, 1]


def test_open_and_odd_cages_are_drawn(maker: StageMaker) -> None:
    """A single square keeps its corners; edges of three faces, points of none, and creases out of range do no harm."""
    maker.mesh("/Square").GetSubdivisionSchemeAttr().Set("catmullClark")
    scene = maker.load()
    assert (scene.bounds.low, scene.bounds.high) == ((0, 0, 0), (1, 1, 0))

    fan = maker.mesh("/Fan", [(0, 0, 0), (0, 0, 1), (1, 0, 0), (-1, 1, 0), (-1, -1, 0), (9, 9, 9)], [3] * 3,
                     [0, 1, 2, 0, 1, 3, 0, 1, 4])  # fmt: skip
    fan.GetSubdivisionSchemeAttr().Set("loop")
    fan.GetCreaseIndicesAttr().Set([0, 99])
    fan.GetCreaseLengthsAttr().Set([2])
    fan.GetCreaseSharpnessesAttr().Set([5.0])
    fan.GetCornerIndicesAttr().Set([77, -1])
    scene = maker.load()
    assert scene.triangle_count > 32
    assert not scene.left_out


def test_large_cages_are_divided_less(maker: StageMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, or not at all."""
    cube(maker)
    for most, triangles in ((96, 192), (95, 48), (23, 12)):
        monkeypatch.setattr(subdivision, "MOST_FACES", most)
        assert maker.load().triangle_count == triangles
