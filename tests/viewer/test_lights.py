"""A stage's lights and cameras (`scene.lights`, `scene.cameras`, and `studio`, which builds the lights)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pxr import Gf, Sdf, UsdGeom, UsdLux

from footlights.viewer.controls import Controls
from footlights.viewer.render.camera import framed
from footlights.viewer.render.renderer import Overlay, Renderer
from footlights.viewer.scene.lights import MOST_LAMPS
from tests.viewer.pictures import SIZE, from_the_front
from tests.viewer.stages import StageMaker

if TYPE_CHECKING:
    from pathlib import Path

    from footlights.viewer.scene.scene import Scene

ASPECT = SIZE[0] / SIZE[1]


@pytest.fixture
def maker(tmp_path: Path) -> StageMaker:
    """A white ball of one metre in the middle."""
    maker = StageMaker(tmp_path / "stage.usda")
    UsdGeom.Sphere.Define(maker.stage, "/Ball").CreateDisplayColorAttr([(0.8, 0.8, 0.8)])
    return maker


def sides(scene: Scene) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Red, green and blue of the ball's left and right, seen from the front."""
    renderer = Renderer(scene, *SIZE, 1.0)
    picture = renderer.render(0, from_the_front(framed(scene.bounds, ASPECT)), Overlay()).astype(int)[:, :, 2::-1]
    renderer.close()
    row = picture[SIZE[1] // 2]
    return row[SIZE[0] // 2 - 30], row[SIZE[0] // 2 + 30]


def red_from_the_right(maker: StageMaker, kind: str, **inputs: float) -> None:
    light = getattr(UsdLux, kind).Define(maker.stage, "/Light")
    light.CreateColorAttr((1, 0, 0))
    for name, value in inputs.items():
        light.GetPrim().GetAttribute(f"inputs:{name}").Set(value)
    light.AddTranslateOp().Set((6, 0, 0))
    light.AddRotateYOp().Set(90.0)  # towards -X, as lights shine along their -Z


@pytest.mark.parametrize(
    ("kind", "inputs"),
    [
        ("DistantLight", {"intensity": 5_000}),
        ("DistantLight", {"angle": 0, "exposure": -20}),
        ("SphereLight", {"intensity": 1e9}),
        ("SphereLight", {"radius": 0.001}),
        ("RectLight", {"width": 2, "normalize": 1}),
        ("DiskLight", {"enableColorTemperature": 1, "colorTemperature": 2000}),
        ("CylinderLight", {}),
    ],
)
def test_light_comes_from_where_it_stands(maker: StageMaker, kind: str, inputs: dict[str, float]) -> None:
    """In its colour, and visible however large or small its intensity is; the other side is not black."""
    red_from_the_right(maker, kind, **inputs)
    scene = maker.load()
    left, right = sides(scene)

    assert right[0] > left[0] + 60
    assert right[0] > right[1] + 60
    assert left.max() > 25
    assert not scene.left_out


def test_domes_colour_the_shadows(maker: StageMaker) -> None:
    """A stage with a dome alone keeps its shapes, tinted."""
    UsdLux.DomeLight.Define(maker.stage, "/Dome").CreateColorAttr((0, 1, 0))
    left, right = sides(maker.load())

    assert left[1] > left[0] + 20
    assert abs(int(left.sum()) - int(right.sum())) > 20


def test_many_lights_are_bounded_and_broken_ones_ignored(maker: StageMaker) -> None:
    """The strongest are drawn, the others counted; no intensity, NaN, no size and hidden ones light nothing."""
    for k in range(12):
        light = UsdLux.SphereLight.Define(maker.stage, f"/L{k}")
        light.CreateIntensityAttr(float(k))
        light.AddTranslateOp().Set((5, k, 5))
    broken = UsdLux.SphereLight.Define(maker.stage, "/Broken")
    broken.CreateIntensityAttr(float("nan"))
    UsdLux.RectLight.Define(maker.stage, "/Inverted").CreateWidthAttr(-1.0)
    hidden = UsdLux.SphereLight.Define(maker.stage, "/Hidden")
    hidden.CreateIntensityAttr(1e9)
    hidden.MakeInvisible()
    scene = maker.load()

    assert scene.lighting is not None
    assert len(scene.lighting.lamps) == MOST_LAMPS
    assert [each["count"] for each in scene.left_out.report()] == [11 - MOST_LAMPS]


def test_a_light_of_no_size_lights_nothing(maker: StageMaker) -> None:
    """Alone it leaves the scene to the viewer's own lights (its colour was no number, and the scene dark)."""
    UsdLux.SphereLight.Define(maker.stage, "/Light").CreateRadiusAttr(0.0)

    assert maker.load().lighting is None


def test_a_light_goes_with_what_carries_it(maker: StageMaker) -> None:
    """A lamp below a prim that moves is on its joint."""
    op = UsdGeom.Xform.Define(maker.stage, "/Arm").AddTranslateOp()
    op.Set((-6, 0, 0), 0)
    op.Set((6, 0, 0), 10)
    UsdLux.SphereLight.Define(maker.stage, "/Arm/Light")
    lighting = maker.load().lighting

    assert lighting is not None
    assert lighting.lamps[0].joint == 1


def camera(maker: StageMaker, path: str, x: float) -> Any:
    made = UsdGeom.Camera.Define(maker.stage, path)
    made.AddTranslateOp().Set((x, -5, 0))
    made.AddRotateXOp().Set(90.0)  # towards +Y
    return made


class TestCameras:
    def test_the_camera_that_kit_stored_comes_first(self, maker: StageMaker) -> None:
        """The bound camera; or its own perspective, which is no prim."""
        camera(maker, "/A", 1)
        camera(maker, "/B", 2)
        maker.stage.GetRootLayer().customLayerData = {"cameraSettings": {"boundCamera": "/B"}}
        assert [view.eye[0] for view in maker.load().views] == [2, 1]

        own = {"position": Gf.Vec3d(3, -4, 5), "target": Gf.Vec3d(0, 0, 0)}
        settings = {"boundCamera": "/OmniverseKit_Persp", "Perspective": own}
        maker.stage.GetRootLayer().customLayerData = {"cameraSettings": settings}
        assert [view.eye[0] for view in maker.load().views] == [3, 1, 2]

        every: list[dict[str, Any]] = [{"Perspective": {"position": 1}}, {"Perspective": {}}, {"boundCamera": 7}]
        for damaged in every:
            maker.stage.GetRootLayer().customLayerData = {"cameraSettings": damaged}
            assert len(maker.load().views) == 2

    def test_keys_go_from_camera_to_camera(self, maker: StageMaker) -> None:
        """Page Down and Page Up go around; Home is the first again."""
        for k in range(3):
            camera(maker, f"/C{k}", float(k))
        controls = Controls(maker.load(), ASPECT)

        def look(key: str) -> float:
            controls.apply({"type": "key", "action": "down", "key": key})
            return round(controls.orbit.eye[0], 3)

        assert [look(k) for k in ("PageDown", "PageDown", "PageDown", "PageUp", "Home")] == [1, 2, 0, 2, 0]

    def test_a_camera_that_moves_is_followed_until_it_is_left(self, maker: StageMaker) -> None:
        """A drag ends that, and Home begins it again."""
        made = UsdGeom.Camera.Define(maker.stage, "/Camera")
        op = made.AddTranslateOp()
        made.AddRotateXOp().Set(90.0)
        op.Set((0, -5, 0), 0)
        op.Set((10, -5, 0), 10)
        scene = maker.load()
        controls = Controls(scene, ASPECT)
        places = []
        for time in (0, 5):
            controls.follow(time)
            places.append(round(controls.orbit.eye[0], 3))
        assert places == [0, 5]

        controls.apply({"type": "wheel", "dy": 100})
        left = controls.orbit
        controls.follow(10)
        assert controls.orbit == left

        controls.apply({"type": "key", "action": "down", "key": "Home"})
        controls.follow(10)
        assert round(controls.orbit.eye[0], 3) == 10

    def test_an_orthographic_camera_shows_what_it_covers(self, maker: StageMaker) -> None:
        """By a narrow view from far away: its height at the middle of the scene is the aperture's."""
        made = camera(maker, "/Camera", 0)
        made.CreateProjectionAttr("orthographic")
        made.CreateVerticalApertureAttr(40.0)  # tenths of a unit
        view = maker.load().view
        assert view is not None
        away = float(np.linalg.norm(np.array(view.eye) - np.array(view.target)))
        assert 2 * away * np.tan(np.radians(view.vertical_fov) / 2) == pytest.approx(4, rel=0.01)

    def test_broken_cameras_are_passed_over(self, maker: StageMaker) -> None:
        """Without a lens, flat, or nowhere: the next one is taken, or the whole scene is framed."""
        camera(maker, "/NoLens", 1).CreateFocalLengthAttr(0.0)
        UsdGeom.Xformable(camera(maker, "/Flat", 2)).AddScaleOp().Set((0, 0, 0))
        camera(maker, "/Nan", 3).GetPrim().CreateAttribute("xformOp:translate", Sdf.ValueTypeNames.Double3).Set(
            (float("nan"), 0, 0)
        )
        scene = maker.load()

        assert [view.eye[0] for view in scene.views] == [1]
        assert sum(each["count"] for each in scene.left_out.report() if "cameras" in each["what"]) == 2
