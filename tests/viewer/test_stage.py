"""What is read from a stage, and what is said of one that cannot be shown.

The modules of `viewer.scene`: `stage`, `scene`, `meshes`, `geometry`, `shapes`, `materials`; and the sample `stages`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pxr import Sdf, Usd, UsdGeom, UsdShade, Vt

from examples.stages.build import build
from footlights.viewer.failure import FailureReason, ViewerFailure
from footlights.viewer.render.camera import initial_orbit
from footlights.viewer.render.renderer import Overlay, Renderer
from footlights.viewer.scene import stage as stage_module
from footlights.viewer.scene.stage import load_scene
from footlights.viewer.stages import SAMPLES, sample_path
from tests.viewer.stages import StageMaker, only, winding

if TYPE_CHECKING:
    from pathlib import Path

    from footlights.viewer.scene.scene import Scene


def extent(scene: Scene) -> tuple[list[float], list[float]]:
    return ([round(v, 4) for v in scene.bounds.low], [round(v, 4) for v in scene.bounds.high])


@pytest.fixture
def maker(tmp_path: Path) -> StageMaker:
    return StageMaker(tmp_path / "stage.usda")


class TestSpace:
    def test_units_become_metres(self, tmp_path: Path) -> None:
        """A cube of 100 centimetres is one metre wide."""
        maker = StageMaker(tmp_path / "s.usda", metres_per_unit=0.01)
        UsdGeom.Cube.Define(maker.stage, "/Cube").GetSizeAttr().Set(100)

        assert extent(maker.load()) == ([-0.5] * 3, [0.5] * 3)

    def test_y_up_becomes_z_up(self, tmp_path: Path) -> None:
        """What is three up in a Y-up stage is three up on Z, and what comes forward on Z goes to -Y."""
        maker = StageMaker(tmp_path / "s.usda", up="Y")
        UsdGeom.Cube.Define(maker.stage, "/Cube").AddTranslateOp().Set((0, 3, 5))

        assert extent(maker.load()) == ([-1, -6, 2], [1, -4, 4])

    def test_transforms_accumulate_and_can_be_reset(self, maker: StageMaker) -> None:
        """A child moves with its parents, unless it resets the transform stack."""
        UsdGeom.Xform.Define(maker.stage, "/A").AddTranslateOp().Set((10, 0, 0))
        UsdGeom.Cube.Define(maker.stage, "/A/In").AddTranslateOp().Set((0, 2, 0))
        out = UsdGeom.Cube.Define(maker.stage, "/A/Out")
        out.SetResetXformStack(True)

        assert extent(maker.load()) == ([-1, -1, -1], [11, 3, 1])

    def test_the_camera_is_taken(self, tmp_path: Path) -> None:
        """The first camera's place, direction and lens are the first view, in metres and Z up."""
        maker = StageMaker(tmp_path / "s.usda", up="Y", metres_per_unit=0.01)
        UsdGeom.Cube.Define(maker.stage, "/Cube")
        camera = UsdGeom.Camera.Define(maker.stage, "/Camera")
        camera.AddTranslateOp().Set((0, 0, 500))
        camera.GetFocusDistanceAttr().Set(300)
        view = maker.load().view

        assert view is not None
        assert view.eye == pytest.approx((0, -5, 0))
        assert view.target == pytest.approx((0, -2, 0))


class TestSurface:
    def test_triangles_face_outward(self, maker: StageMaker) -> None:
        """Winding and normals of every primitive agree and point away from the middle."""
        for name in ("Cube", "Sphere", "Cylinder", "Cone", "Capsule"):
            getattr(UsdGeom, name).Define(maker.stage, f"/{name}").AddTranslateOp().Set((0, 0, 0))
        batch = only(maker.load())
        middle = batch.positions[batch.triangles].mean(axis=1)
        faces = winding(batch)

        assert (np.einsum("ij,ij->i", faces, middle) > 0).all()
        assert (np.einsum("ij,ij->i", faces, batch.normals[batch.triangles[:, 0]]) > 0.5).all()

    @pytest.mark.parametrize("axis", ["X", "Y", "Z"])
    def test_a_plane_faces_its_axis(self, maker: StageMaker, axis: str) -> None:
        """A Plane's winding follows its axis attribute."""
        UsdGeom.Plane.Define(maker.stage, "/Plane").GetAxisAttr().Set(axis)

        assert winding(only(maker.load()))[0].tolist() == [float(axis == a) for a in "XYZ"]

    def test_left_handed_meshes_are_turned_over(self, maker: StageMaker) -> None:
        """A left-handed square that is listed counter-clockwise faces down."""
        maker.mesh("/Square").GetOrientationAttr().Set(UsdGeom.Tokens.leftHanded)
        batch = only(maker.load())

        assert winding(batch)[:, 2].tolist() == [-1, -1]
        assert batch.normals[:, 2].tolist() == [-1] * 4

    def test_mirroring_keeps_the_outside_out(self, maker: StageMaker) -> None:
        """A negative scale does not turn a sphere inside out."""
        UsdGeom.Sphere.Define(maker.stage, "/Ball").AddScaleOp().Set((-1, 2, 1))
        batch = only(maker.load())
        middle = batch.positions[batch.triangles].mean(axis=1)

        assert (np.einsum("ij,ij->i", winding(batch), middle) > 0).all()
        assert (np.einsum("ij,ij->i", batch.normals, batch.positions) > 0).all()

    def test_an_open_double_sided_mesh_has_two_sides(self, maker: StageMaker) -> None:
        """A double-sided square is drawn from both sides, each with its own normals."""
        maker.mesh("/Square").GetDoubleSidedAttr().Set(True)
        batch = only(maker.load())

        assert sorted(winding(batch)[:, 2].tolist()) == [-1, -1, 1, 1]

    def test_authored_normals_win(self, maker: StageMaker) -> None:
        """Normals that the file gives are used as they are, made unit length."""
        mesh = maker.mesh("/Square")
        mesh.GetNormalsAttr().Set([(0, 3, 4)] * 4)
        mesh.SetNormalsInterpolation(UsdGeom.Tokens.faceVarying)

        assert only(maker.load()).normals == pytest.approx(np.tile([0, 0.6, 0.8], (4, 1)))

    def test_sharp_edges_stay_sharp(self, maker: StageMaker) -> None:
        """A polygonal cube without normals gets one normal a side."""
        points = [(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]
        sides = [0, 1, 3, 2, 4, 6, 7, 5, 0, 4, 5, 1, 2, 3, 7, 6, 0, 2, 6, 4, 1, 5, 7, 3]
        maker.mesh("/Cube", points, [4] * 6, sides)
        batch = only(maker.load())

        assert len(batch.positions) == 24
        assert sorted(np.abs(batch.normals).max(axis=1).tolist()) == pytest.approx([1.0] * 24)

    def test_concave_polygons_keep_their_shape(self, maker: StageMaker) -> None:
        """An L of six sides and an arrow of four are covered exactly, without overlap."""
        ell = [(0, 0, 0), (2, 0, 0), (2, 1, 0), (1, 1, 0), (1, 2, 0), (0, 2, 0)]
        arrow = [(5, 0, 0), (6, 1, 0), (5, 2, 0), (5.4, 1, 0)]
        maker.mesh("/Shape", ell + arrow, [6, 4], range(10))
        batch = only(maker.load())
        a, b, c = (batch.positions[batch.triangles[:, k]] for k in range(3))
        area = 0.5 * np.cross(b - a, c - a)[:, 2]

        assert (area > 0).all()
        assert area.sum() == pytest.approx(3.0 + 0.6)


class TestColour:
    def test_display_colors_by_interpolation(self, maker: StageMaker) -> None:
        """displayColor is read as constant, per face, per vertex and per corner."""
        two = ([(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0), (2, 0, 0), (2, 1, 0)], (4, 4), (0, 1, 2, 3, 1, 4, 5, 2))
        red, green = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)
        expected = {"constant": {red}, "uniform": {red, green}, "vertex": {red, green}, "faceVarying": {red, green}}
        values = {
            "constant": [red],
            "uniform": [red, green],
            "vertex": [red] * 5 + [green],
            "faceVarying": [red] * 7 + [green],
        }
        for interpolation, colors in values.items():
            maker.mesh(f"/{interpolation}", *two).CreateDisplayColorPrimvar(interpolation).Set(colors)
            batch = only(maker.load())
            assert {tuple(c) for c in batch.colors[:, :3].tolist()} == expected[interpolation]
            maker.stage.RemovePrim(f"/{interpolation}")

    def test_display_color_is_inherited(self, maker: StageMaker) -> None:
        """A constant displayColor on a parent paints its children."""
        parent = UsdGeom.Xform.Define(maker.stage, "/A")
        primvar = UsdGeom.PrimvarsAPI(parent).CreatePrimvar("displayColor", Sdf.ValueTypeNames.Color3fArray)
        primvar.Set([(0, 0, 1)])
        UsdGeom.Cube.Define(maker.stage, "/A/Cube")

        assert {tuple(c) for c in only(maker.load()).colors.tolist()} == {(0.0, 0.0, 1.0, 1.0)}

    def test_a_preview_surface_is_read(self, maker: StageMaker) -> None:
        """Colour, opacity, metallic, roughness and emission of UsdPreviewSurface, in display values."""
        cube = UsdGeom.Cube.Define(maker.stage, "/Cube")
        look = maker.material(
            "M", diffuseColor=(0.5, 0, 0), opacity=0.5, metallic=1.0, roughness=0.25, emissiveColor=(0, 1, 0)
        )
        maker.bind(cube, look)
        batch = only(maker.load())

        assert batch.colors[0].tolist() == pytest.approx([0.5 ** (1 / 2.2), 0, 0, 0.5])
        assert (batch.finish.metallic, batch.finish.roughness, batch.finish.transparent) == (1.0, 0.25, True)
        assert batch.finish.emission == (0, 1, 0)

    def test_a_primvar_reader_paints(self, maker: StageMaker) -> None:
        """A diffuseColor that reads a primvar takes its values."""
        mesh = maker.mesh("/Square")
        mesh.CreateDisplayColorPrimvar("vertex").Set([(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)])
        material = maker.material("M")
        reader = UsdShade.Shader.Define(maker.stage, "/Looks/M/Reader")
        reader.CreateIdAttr("UsdPrimvarReader_float3")
        reader.CreateInput("varname", Sdf.ValueTypeNames.String).Set("displayColor")
        surface = UsdShade.Shader.Get(maker.stage, "/Looks/M/Surface")
        port = surface.CreateInput("diffuseColor", Sdf.ValueTypeNames.Color3f)
        port.ConnectToSource(reader.CreateOutput("result", Sdf.ValueTypeNames.Float3))
        maker.bind(mesh, material)

        assert len({tuple(c) for c in only(maker.load()).colors.tolist()}) == 4

    def test_subsets_have_their_own_materials(self, maker: StageMaker) -> None:
        """Faces of a material subset take its material, the others the mesh's."""
        two = ([(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0), (2, 0, 0), (2, 1, 0)], (4, 4), (0, 1, 2, 3, 1, 4, 5, 2))
        mesh = maker.mesh("/Two", *two)
        maker.bind(mesh, maker.material("Whole", diffuseColor=(1, 0, 0), roughness=0.9))
        subset = UsdShade.MaterialBindingAPI.Apply(mesh.GetPrim()).CreateMaterialBindSubset("part", [1])
        maker.bind(subset, maker.material("Part", diffuseColor=(0, 1, 0), roughness=0.1))
        found = {b.finish.roughness: (tuple(b.colors[0, :3].tolist()), len(b.triangles)) for b in maker.load().batches}

        assert found == {0.9: ((1.0, 0.0, 0.0), 2), 0.1: ((0.0, 1.0, 0.0), 2)}


class TestComposition:
    def test_instances_are_drawn(self, maker: StageMaker) -> None:
        """Two instances of a prim are drawn in their places, with their materials."""
        maker.stage.CreateClassPrim("/Proto")
        cube = UsdGeom.Cube.Define(maker.stage, "/Proto/Cube")
        maker.bind(cube, maker.material("M", diffuseColor=(0, 1, 0)))
        for k in range(2):
            prim = UsdGeom.Xform.Define(maker.stage, f"/I{k}")
            prim.AddTranslateOp().Set((10 * k, 0, 0))
            prim.GetPrim().GetReferences().AddInternalReference("/Proto")
            prim.GetPrim().SetInstanceable(True)
        scene = maker.load()

        assert extent(scene) == ([-1, -1, -1], [11, 1, 1])
        assert scene.triangle_count == 24

    def test_point_instancers_are_drawn(self, maker: StageMaker) -> None:
        """Every point of an instancer gets its prototype; invisible ones are left out."""
        instancer = UsdGeom.PointInstancer.Define(maker.stage, "/Many")
        cube = UsdGeom.Cube.Define(maker.stage, "/Many/Cube")
        cube.AddScaleOp().Set((0.5, 0.5, 0.5))
        instancer.GetPrototypesRel().SetTargets([cube.GetPath()])
        instancer.GetProtoIndicesAttr().Set([0, 0, 0])
        instancer.GetPositionsAttr().Set([(0, 0, 0), (4, 0, 0), (100, 0, 0)])
        instancer.GetInvisibleIdsAttr().Set([2])
        scene = maker.load()

        assert scene.triangle_count == 24
        assert extent(scene) == ([-0.5] * 3, [4.5, 0.5, 0.5])

    def test_what_is_hidden_or_not_for_rendering_is_left_out(self, maker: StageMaker) -> None:
        """Invisible prims and those of purpose guide or proxy are not drawn; purpose render is."""
        for name in ("Shown", "Hidden", "Guide", "Proxy", "Render"):
            UsdGeom.Cube.Define(maker.stage, f"/{name}")
        UsdGeom.Imageable.Get(maker.stage, "/Hidden").MakeInvisible()
        for name in ("Guide", "Proxy", "Render"):
            UsdGeom.Imageable.Get(maker.stage, f"/{name}").GetPurposeAttr().Set(name.lower())

        assert maker.load().triangle_count == 24

    def test_a_missing_reference_does_not_hide_the_rest(self, maker: StageMaker) -> None:
        """The rest of a stage is drawn when one reference cannot be found."""
        UsdGeom.Cube.Define(maker.stage, "/Cube")
        maker.stage.DefinePrim("/Gone").GetReferences().AddReference("./gone.usda")

        assert maker.load().triangle_count == 12

    def test_a_malformed_mesh_does_not_hide_the_rest(self, maker: StageMaker) -> None:
        """A mesh whose indices leave its points is named in a warning, the others are drawn."""
        UsdGeom.Cube.Define(maker.stage, "/Cube")
        maker.mesh("/Broken", indices=(0, 1, 2, 9))
        scene = maker.load()

        assert scene.triangle_count == 12
        assert [w for w in scene.left_out.lines() if "/Broken" in w and "9" in w]


class TestAnimation:
    def test_moving_prims_become_joints(self, maker: StageMaker) -> None:
        """A keyed transform is sampled over time, below its parents and above its children."""
        outer = UsdGeom.Xform.Define(maker.stage, "/A")
        outer.AddTranslateOp().Set((0, 0, 5))
        op = UsdGeom.Xform.Define(maker.stage, "/A/B").AddTranslateOp()
        op.Set((0, 0, 0), 0)
        op.Set((10, 0, 0), 10)
        UsdGeom.Cube.Define(maker.stage, "/A/B/Cube").AddTranslateOp().Set((0, 7, 0))
        maker.stage.SetStartTimeCode(0)
        maker.stage.SetEndTimeCode(10)
        scene = maker.load()
        (joint,) = scene.joints[1:]

        assert scene.animated
        assert [joint.sample(t)[0][3, :3].tolist() for t in (0, 5, 10)] == [[0, 0, 5], [5, 0, 5], [10, 0, 5]]
        assert only(scene).positions.mean(axis=0) == pytest.approx([0, 7, 0])

    def test_visibility_can_be_keyed(self, maker: StageMaker) -> None:
        """A prim that is hidden at the start is drawn later."""
        cube = UsdGeom.Cube.Define(maker.stage, "/Cube")
        cube.GetVisibilityAttr().Set("invisible", 0)
        cube.GetVisibilityAttr().Set("inherited", 5)
        scene = maker.load()  # which keeps the stage open
        (joint,) = scene.joints[1:]

        assert [joint.sample(t)[1] for t in (0.0, 4.0, 6.0)] == [False, False, True]

    def test_time_codes_per_second_set_the_speed(self, maker: StageMaker) -> None:
        """After one second a stage of 48 time codes a second is 48 codes on, and it loops."""
        UsdGeom.Cube.Define(maker.stage, "/Cube")
        maker.stage.SetTimeCodesPerSecond(48)
        maker.stage.SetStartTimeCode(10)
        maker.stage.SetEndTimeCode(106)
        timeline = maker.load().timeline

        assert [timeline.at(s) for s in (0, 1, 2.5)] == [10, 58, 34]


class TestOddPrims:
    """One odd prim never ends the picture: the cube beside it is drawn, and what is odd is counted."""

    @pytest.fixture(autouse=True)
    def cube(self, maker: StageMaker) -> None:
        UsdGeom.Cube.Define(maker.stage, "/Good")

    def drawn(self, maker: StageMaker) -> Scene:
        """The scene, which has the cube, and can be drawn."""
        scene = maker.load()
        assert scene.triangle_count >= 12
        assert np.isfinite([*scene.bounds.low, *scene.bounds.high]).all()
        renderer = Renderer(scene, 160, 90, 1.0)
        for time in (0.0, 5.0):
            renderer.render(time, initial_orbit(scene, 16 / 9), Overlay())
        renderer.close()
        return scene

    @pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 0.0, 1e30])
    @pytest.mark.parametrize("kind", ["Sphere", "Cylinder", "Cone", "Capsule", "Plane", "Cylinder_1"])
    def test_shapes_without_a_size(self, maker: StageMaker, kind: str, value: float) -> None:
        """Radii and lengths that are no numbers, negative, zero, or beyond all measure."""
        prim = maker.stage.DefinePrim("/Odd", kind)
        for name in ("radius", "height", "width", "length", "radiusTop", "radiusBottom"):
            if prim.HasAttribute(name):
                prim.GetAttribute(name).Set(value)

        assert max(map(abs, self.drawn(maker).bounds.high)) < 10

    @pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
    @pytest.mark.parametrize("keyed", [False, True])
    def test_places_that_are_none(self, maker: StageMaker, value: float, keyed: bool) -> None:
        """Also at a later time than the first: what stands there is hidden for as long."""
        op = UsdGeom.Sphere.Define(maker.stage, "/Odd").AddTranslateOp()
        if keyed:
            op.Set((0, 0, 0), 0)
            op.Set((value, 0, 0), 5)
        else:
            op.Set((value, 0, 0))
        scene = self.drawn(maker)

        assert bool(scene.left_out) is not keyed

    def test_points_that_are_none(self, maker: StageMaker) -> None:
        """Faces at such points are left out, the others of the mesh are drawn."""
        points = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0), (math.nan, 0, 0), (math.inf, 1, 0)]
        maker.mesh("/Odd", points, (4, 4), (0, 1, 2, 3, 1, 4, 5, 2))

        assert self.drawn(maker).triangle_count == 14

    def test_a_prim_far_away_does_not_hide_the_others(self, maker: StageMaker) -> None:
        """The view is framed around the others: a sky of ten kilometres, a slip of the pen."""
        for k in range(6):
            UsdGeom.Cube.Define(maker.stage, f"/Cube{k}").AddTranslateOp().Set((3.0 * k, 0, 0))
        UsdGeom.Sphere.Define(maker.stage, "/Sky").GetRadiusAttr().Set(10_000.0)
        UsdGeom.Cube.Define(maker.stage, "/Slip").AddTranslateOp().Set((0, 1e6, 0))
        scene = self.drawn(maker)

        assert extent(scene) == ([-1, -1, -1], [16, 1, 1])
        assert scene.triangle_count > 12 * 8

    def test_instancers_that_instance_themselves(self, maker: StageMaker) -> None:
        """Directly, or by way of another one."""
        for name, other in (("A", "B"), ("B", "A")):
            instancer = UsdGeom.PointInstancer.Define(maker.stage, f"/{name}")
            instancer.GetPrototypesRel().SetTargets([f"/{other}", f"/{name}"])
            instancer.GetProtoIndicesAttr().Set([0, 1, 0, 1, 7, -1])
            instancer.GetPositionsAttr().Set([(float(k), 0, 0) for k in range(6)])

        assert self.drawn(maker).triangle_count == 12

    def test_a_million_instances_end(self, maker: StageMaker, monkeypatch: pytest.MonkeyPatch) -> None:
        """Once nothing more can be drawn the rest is counted, not visited."""
        monkeypatch.setattr(stage_module, "MAX_TRIANGLES", 1_000)
        instancer = UsdGeom.PointInstancer.Define(maker.stage, "/Many")
        cube = UsdGeom.Cube.Define(maker.stage, "/Many/Cube")
        instancer.GetPrototypesRel().SetTargets([cube.GetPath()])
        instancer.GetProtoIndicesAttr().Set(np.zeros(200_000, np.int32))
        instancer.GetPositionsAttr().Set(np.zeros((200_000, 3), np.float32))
        scene = self.drawn(maker)

        assert scene.triangle_count <= 1_000
        assert [e["count"] > 199_000 for e in scene.left_out.report() if "instances" in e["what"]] == [True]

    def test_a_very_deep_hierarchy(self, maker: StageMaker) -> None:
        """What is deeper than can be visited is left out."""
        UsdGeom.Sphere.Define(maker.stage, "/D" + "/D" * 1500)

        assert self.drawn(maker).left_out

    def test_a_polygon_of_very_many_sides(self, maker: StageMaker) -> None:
        """A concave one of 20,000 sides is covered in a moment."""
        turn = np.linspace(0, 2 * np.pi, 20_000, endpoint=False)
        radius = 1 + 0.5 * (np.arange(20_000) % 2)
        points = np.stack([radius * np.cos(turn), radius * np.sin(turn), 0 * turn], axis=1)
        maker.mesh("/Star", points.astype(np.float32), [20_000], list(range(20_000)))

        assert self.drawn(maker).triangle_count == 12 + 19_998

    def test_times_that_are_none(self, maker: StageMaker) -> None:
        """A start, an end or a rate that is no number: the stage stands still, or moves at the usual rate."""
        maker.stage.GetRootLayer().startTimeCode = math.nan
        maker.stage.GetRootLayer().endTimeCode = math.inf
        maker.stage.SetTimeCodesPerSecond(0.0)
        timeline = self.drawn(maker).timeline

        assert (timeline.start, timeline.end, timeline.codes_per_second) == (0, 0, 24)

    @pytest.mark.parametrize("units", [1e-300, 1e300, math.nan, math.inf, -1.0])
    def test_units_that_are_none(self, maker: StageMaker, units: float) -> None:
        """The stage is in centimetres then, as one that says nothing."""
        UsdGeom.SetStageMetersPerUnit(maker.stage, units)

        assert self.drawn(maker).bounds.high == pytest.approx((0.01, 0.01, 0.01))

    @pytest.mark.parametrize("settings", ["text", 4, ["a", "b"]])
    def test_camera_settings_that_are_none(self, maker: StageMaker, settings: Any) -> None:
        """What another program has stored where Kit stores its views."""
        maker.stage.GetRootLayer().customLayerData = {
            "cameraSettings": Vt.StringArray(settings) if isinstance(settings, list) else settings
        }

        assert self.drawn(maker).views == []

    def test_models_shown_as_cards_and_as_boxes(self, maker: StageMaker) -> None:
        """Cards without pictures, and edges: of one colour and one finish, but only cards have places in a picture."""
        for mode in ("cards", "bounds"):
            model = UsdGeom.Xform.Define(maker.stage, f"/{mode}").GetPrim()
            Usd.ModelAPI(model).SetKind("component")
            api = UsdGeom.ModelAPI.Apply(model)
            api.CreateModelDrawModeAttr(mode)
            api.CreateModelApplyDrawModeAttr(True)
            UsdGeom.Cube.Define(maker.stage, f"/{mode}/Inner")

        assert self.drawn(maker).triangle_count == 12 + 12 + 12 * 12


class TestFailure:
    def test_a_stage_with_nothing_to_draw(self, maker: StageMaker) -> None:
        """An empty stage fails as STAGE_EMPTY."""
        maker.stage.DefinePrim("/Nothing", "Xform")
        with pytest.raises(ViewerFailure) as caught:
            maker.load()

        assert caught.value.reason is FailureReason.STAGE_EMPTY

    def test_a_file_that_is_not_usd(self, tmp_path: Path) -> None:
        """Garbage fails as STAGE_UNREADABLE, and the message names the file."""
        path = tmp_path / "garbage.usda"
        path.write_text("this is not a stage")
        with pytest.raises(ViewerFailure, match=r"garbage\.usda") as caught:
            load_scene(path)

        assert caught.value.reason is FailureReason.STAGE_UNREADABLE


@pytest.mark.parametrize("name", SAMPLES)
def test_sample_stages_are_worth_looking_at(name: str) -> None:
    """Each sample has tens of thousands of triangles, several materials, a camera, motion, and no warnings."""
    scene = load_scene(sample_path(name))
    stage: Any = Usd.Stage.Open(str(sample_path(name)))
    materials = [p for p in stage.Traverse() if p.IsA(UsdShade.Material)]

    assert 20_000 < scene.triangle_count < 120_000
    assert len(materials) >= 6
    assert scene.view is not None
    assert scene.animated
    assert not scene.left_out
    assert sample_path(name).stat().st_size < 2_000_000


def test_the_scripts_in_examples_build_the_samples_that_ship(tmp_path: Path) -> None:
    """Building a sample again gives the shipped stage: the same prims, and as many points in each."""
    build("robot_cell", tmp_path / "robot_cell.usdc")

    assert outline(tmp_path / "robot_cell.usdc") == outline(sample_path("robot_cell"))


def outline(path: Path) -> dict[str, tuple[str, int]]:
    """Each prim's type and number of points, by its path."""
    stage: Any = Usd.Stage.Open(str(path))
    return {
        str(prim.GetPath()): (str(prim.GetTypeName()), len(prim.GetAttribute("points").Get() or ()))
        if prim.HasAttribute("points")
        else (str(prim.GetTypeName()), 0)
        for prim in stage.Traverse()
    }
