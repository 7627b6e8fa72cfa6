"""Curves, points and stand-ins (`scene.prims`: `strands`, `cards`, `primvars`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pxr import Gf, Sdf, Usd, UsdGeom

from footlights.viewer.render.camera import framed
from footlights.viewer.render.renderer import Overlay, Renderer
from footlights.viewer.scene.prims import strands
from tests.viewer.pictures import BLUE, GREEN, RED, SIZE, WHITE, from_the_front, write
from tests.viewer.stages import StageMaker, only, winding

if TYPE_CHECKING:
    from pathlib import Path

    from footlights.viewer.scene.scene import Scene


@pytest.fixture
def maker(tmp_path: Path) -> StageMaker:
    return StageMaker(tmp_path / "stage.usda")


def curves(maker: StageMaker, path: str, points: Any, counts: Any, *, width: float = 0.1, **tokens: str) -> Any:
    made = UsdGeom.BasisCurves.Define(maker.stage, path)
    made.GetPointsAttr().Set(points)
    made.GetCurveVertexCountsAttr().Set(counts)
    made.GetWidthsAttr().Set([width])
    made.SetWidthsInterpolation("constant")
    for name, value in tokens.items():
        made.GetPrim().GetAttribute(name).Set(value)
    return made


def extent(scene: Scene) -> tuple[list[float], list[float]]:
    return ([round(v, 2) for v in scene.bounds.low], [round(v, 2) for v in scene.bounds.high])


class TestCurves:
    def test_lines_are_tubes(self, maker: StageMaker) -> None:
        """A line is as thick as its width, and its outside is outside."""
        curves(maker, "/Line", [(0, 0, 0), (0, 0, 2)], [2], width=0.5, type="linear")
        batch = only(maker.load())

        assert np.hypot(*batch.positions[:, :2].T) == pytest.approx(0.25)
        assert (np.einsum("ij,ij->i", winding(batch), batch.normals[batch.triangles[:, 0]]) > 0.5).all()

    @pytest.mark.parametrize(
        ("basis", "wrap", "low", "high"),
        [
            ("bezier", "nonperiodic", 0.0, 0.75),  # from the first point to the last
            ("bspline", "nonperiodic", 0.83, 0.96),  # near the inner ones
            ("bspline", "pinned", 0.0, 0.96),
            ("catmullRom", "nonperiodic", 1.0, 1.12),  # between the inner ones
            ("catmullRom", "pinned", 0.0, 1.12),
        ],
    )
    def test_cubic_curves_go_where_their_basis_leads(
        self, maker: StageMaker, basis: str, wrap: str, low: float, high: float
    ) -> None:
        """Of (0, 0), (0, 1), (1, 1), (1, 0) in x and z: how low and how high each comes."""
        points = [(0, 0, 0), (0, 0, 1), (1, 0, 1), (1, 0, 0)]
        curves(maker, "/Bow", points, [4], width=1e-4, type="cubic", basis=basis, wrap=wrap)
        (_, _, lowest), (_, _, highest) = extent(maker.load())

        assert lowest == pytest.approx(low, abs=0.02)
        assert highest == pytest.approx(high, abs=0.03)

    def test_periodic_curves_close(self, maker: StageMaker) -> None:
        """The first point comes after the last: linear, and round for a b-spline."""
        square = [(-1, -1, 0), (1, -1, 0), (1, 1, 0), (-1, 1, 0)]
        curves(maker, "/Square", square, [4], width=1e-4, type="linear", wrap="periodic")
        batch = only(maker.load())
        around = {tuple(p) for p in np.rint(batch.positions[:, :2]).tolist()}
        assert around == {(-1, -1), (1, -1), (1, 1), (-1, 1)}

        maker.stage.GetPrimAtPath("/Square").GetAttribute("type").Set("cubic")
        maker.stage.GetPrimAtPath("/Square").GetAttribute("basis").Set("bspline")
        radius = np.hypot(*only(maker.load()).positions[:, :2].T)
        assert radius.max() - radius.min() < 0.1

    def test_widths_and_colours_are_theirs(self, maker: StageMaker) -> None:
        """One value a curve, or one a point; curves of several lengths in one prim."""
        made = curves(maker, "/Many", [(0, 0, 0), (0, 0, 1), (5, 0, 0), (5, 0, 1), (5, 0, 2)], [2, 3], type="linear")
        made.GetWidthsAttr().Set([0.2, 0.2, 1.0, 1.0, 1.0])
        made.SetWidthsInterpolation("vertex")
        made.CreateDisplayColorPrimvar("uniform").Set([(1, 0, 0), (0, 1, 0)])
        batch = only(maker.load())
        red = batch.colors[:, 0] == 1

        assert np.ptp(batch.positions[red][:, 0]) == pytest.approx(0.2, abs=0.05)
        assert np.ptp(batch.positions[~red][:, 0]) == pytest.approx(1.0, abs=0.2)

    def test_many_become_simpler_then_fewer(self, maker: StageMaker, monkeypatch: pytest.MonkeyPatch) -> None:
        """Triangles are bounded, and the whole is still covered."""
        monkeypatch.setattr(strands, "BUDGET", 2_000)
        points = [(x * 0.1, y, y) for x in range(1000) for y in range(3)]
        curves(maker, "/Fur", points, [3] * 1000, width=0.01, type="linear")
        scene = maker.load()

        assert 0 < scene.triangle_count <= 2_000
        assert scene.bounds.high[0] == pytest.approx(99.9, rel=0.05)

    def test_nurbs_and_points_that_are_not_there(self, maker: StageMaker) -> None:
        """NurbsCurves are drawn; counts that exceed the points, and NaN, take only their own prim or curve away."""
        nurbs = UsdGeom.NurbsCurves.Define(maker.stage, "/Nurbs")
        nurbs.GetPointsAttr().Set([(0, 0, 0), (0, 0, 1), (1, 0, 1), (1, 0, 0)])
        nurbs.GetCurveVertexCountsAttr().Set([4])
        nurbs.GetOrderAttr().Set([4])
        curves(maker, "/Short", [(0, 0, 0)], [4], type="linear")
        curves(maker, "/Nan", [(float("nan"), 0, 0), (1, 0, 0), (0, 0, 0), (1, 0, 0)], [2, 2], type="linear")
        scene = maker.load()

        assert scene.triangle_count > 20
        assert scene.bounds.high[2] > 0.7
        assert [each["first"].split(":")[0] for each in scene.left_out.report()] == ["/Short"]


def test_points_are_balls(maker: StageMaker) -> None:
    """Each of its own width and colour; many are simpler, then fewer."""
    points = UsdGeom.Points.Define(maker.stage, "/Points")
    points.GetPointsAttr().Set([(0, 0, 0), (5, 0, 0)])
    points.GetWidthsAttr().Set([1.0, 2.0])
    points.CreateDisplayColorPrimvar("vertex").Set([(1, 0, 0), (0, 1, 0)])
    batch = only(maker.load())
    red = batch.colors[:, 0] == 1
    assert np.ptp(batch.positions[red], axis=0) == pytest.approx([1, 1, 1])
    assert np.ptp(batch.positions[~red], axis=0) == pytest.approx([2, 2, 2])
    assert (np.einsum("ij,ij->i", winding(batch), batch.normals[batch.triangles[:, 0]]) > 0.5).all()

    points.GetPointsAttr().Set(np.random.default_rng(1).random((40_000, 3)).astype(np.float32))
    points.GetWidthsAttr().Clear()
    scene = maker.load()
    assert 0 < scene.triangle_count <= strands.BUDGET
    assert extent(scene) == ([-0.01, -0.01, -0.01], [1.01, 1.01, 1.01])


class TestStandIns:
    @pytest.fixture
    def model(self, maker: StageMaker) -> Any:
        """A component, one metre wide and two metres high, around a ball of 9,000 triangles."""
        prim = UsdGeom.Xform.Define(maker.stage, "/Model").GetPrim()
        Usd.ModelAPI(prim).SetKind("component")
        ball = UsdGeom.Sphere.Define(maker.stage, "/Model/Ball")
        ball.AddScaleOp().Set((0.5, 0.5, 1))
        return UsdGeom.ModelAPI.Apply(prim)

    def test_a_box_of_lines_or_three_axes(self, maker: StageMaker, model: Any) -> None:
        """`bounds` and `origin` in place of what is below; `default` draws that."""
        model.CreateModelDrawModeAttr("bounds")
        model.CreateModelDrawModeColorAttr(Gf.Vec3f(0, 1, 0))
        scene = maker.load()
        assert scene.triangle_count == 12 * 12
        assert extent(scene) == ([-0.51, -0.51, -1.01], [0.51, 0.51, 1.01])
        assert only(scene).colors[0].tolist() == [0, 1, 0, 1]

        model.GetModelDrawModeAttr().Set("origin")
        assert maker.load().triangle_count == 3 * 12

        model.GetModelDrawModeAttr().Set("default")
        assert maker.load().triangle_count > 500

    def test_cards_show_their_pictures(self, maker: StageMaker, model: Any) -> None:
        """On the sides of the box that have one, upright; the side across shows it mirrored."""
        write(maker.path.parent / "card.png", RED, GREEN, BLUE, WHITE)
        model.CreateModelDrawModeAttr("cards")
        model.CreateModelCardGeometryAttr("box")
        model.GetPrim().CreateAttribute("model:cardTextureYNeg", Sdf.ValueTypeNames.Asset).Set("./card.png")
        scene = maker.load()
        assert scene.triangle_count == 4

        renderer = Renderer(scene, *SIZE, 1.0)
        orbit = framed(scene.bounds, SIZE[0] / SIZE[1])
        for turn, expected in ((0.0, ["red", "green"]), (np.pi, ["green", "red"])):
            picture = renderer.render(0, from_the_front(orbit, turn), Overlay()).astype(int)
            row = picture[SIZE[1] // 2 - 30, [SIZE[0] // 2 - 15, SIZE[0] // 2 + 15], :3]
            assert ["red" if r > g else "green" for _, g, r in row] == expected
        renderer.close()

    def test_crossed_cards_without_pictures_have_the_models_colour(self, maker: StageMaker, model: Any) -> None:
        """Six rectangles through its middle, of all three directions."""
        model.CreateModelDrawModeAttr("cards")
        model.CreateModelDrawModeColorAttr(Gf.Vec3f(0, 0, 1))
        batch = only(maker.load())

        assert len(batch.triangles) == 12
        assert batch.colors[0].tolist() == [0, 0, 1, 1]
        assert (np.abs(batch.positions).min(axis=1) < 1e-6).all()
