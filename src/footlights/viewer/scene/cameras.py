"""Where a stage may be looked at from: what Kit stored of its own view, and the stage's cameras."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from footlights.viewer.scene.scene import View, triple

if TYPE_CHECKING:
    from collections.abc import Callable

    from footlights.viewer.scene.left_out import LeftOut
    from footlights.viewer.scene.scene import Bounds, Matrix

MOST: Final = 100
_NARROW: Final = 5.0
"""Degrees: the field of view that stands for an orthographic camera's."""


def views_of(stage: Any, to_world: Matrix, bounds: Bounds, left_out: LeftOut) -> list[View]:
    """The views of a stage, the one to begin with first."""
    from pxr import UsdGeom

    found = stage.GetRootLayer().customLayerData.get("cameraSettings")
    settings = found if isinstance(found, dict) else {}
    bound = str(settings.get("boundCamera", ""))
    cameras = [prim for prim in stage.Traverse() if prim.IsA(UsdGeom.Camera)][:MOST]
    cameras.sort(key=lambda prim: str(prim.GetPath()) != bound)
    views = []
    if not cameras or bound == "/OmniverseKit_Persp":
        views += _stored(settings, to_world)
    for prim in cameras:
        try:
            views.append(_view(prim, to_world, bounds, stage.GetStartTimeCode()))
        except Exception as error:  # USD's bindings raise errors of their own kinds, by what a file has
            left_out.add("cameras that cannot be read", f"{prim.GetPath()}: {error}")
    return views


def _stored(settings: dict[str, Any], to_world: Matrix) -> list[View]:
    """The view that Kit stores with a stage."""
    try:
        own = settings["Perspective"]
        eye, target = (np.array(own[name], float) for name in ("position", "target"))
        eye, target = (point @ to_world[:3, :3] + to_world[3, :3] for point in (eye, target))
        if not np.isfinite(eye + target).all() or np.allclose(eye, target):
            return []
        return [View(triple(eye), triple(target), 34.0)]
    except (KeyError, TypeError, ValueError):
        return []


def _view(prim: Any, to_world: Matrix, bounds: Bounds, start: float) -> View:
    from pxr import UsdGeom

    first = _at(prim, to_world, bounds, start)
    moves, above = False, prim
    while above and not moves:
        place = UsdGeom.Xformable(above)
        moves = bool(place) and place.TransformMightBeTimeVarying()
        above = above.GetParent()
    moves = moves or prim.GetAttribute("focalLength").ValueMightBeTimeVarying()
    follow: Callable[[float], View] | None = (lambda time: _at(prim, to_world, bounds, time)) if moves else None
    return View(first.eye, first.target, first.vertical_fov, follow)


def _at(prim: Any, to_world: Matrix, bounds: Bounds, time: float) -> View:
    """Stand where the camera stands and orbit about the point on its axis nearest to the middle of the scene."""
    from pxr import Gf, Usd, UsdGeom

    camera = UsdGeom.Camera(prim).GetCamera(Usd.TimeCode(time))
    pose = np.array(camera.transform, float) @ to_world
    length = float(np.linalg.norm(pose[2, :3]))
    if not np.isfinite(pose).all() or length < 1e-12:
        raise ValueError("its transform is not finite, or flat")
    eye, forward = pose[3, :3], -pose[2, :3] / length
    along = float(np.dot(np.array(bounds.center) - eye, forward))
    scale = float(np.linalg.norm(to_world[0, :3]))
    focus = camera.focusDistance * scale
    distance = focus if 0 < focus < 1e9 else max(along, 0.1 * bounds.radius)
    aperture, focal = camera.verticalAperture, camera.focalLength
    if camera.projection == Gf.Camera.Orthographic:
        target = eye + forward * distance
        height = max(aperture * Gf.Camera.APERTURE_UNIT * scale, 1e-6)
        distance = height / (2 * math.tan(math.radians(_NARROW) / 2))
        return View(triple(target - forward * distance), triple(target), _NARROW)
    vertical = math.degrees(2 * math.atan2(aperture, 2 * focal)) if aperture > 0 and focal > 0 else 38.0
    return View(triple(eye), triple(eye + forward * distance), min(100.0, max(5.0, vertical)))
