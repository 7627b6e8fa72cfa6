"""A stage's lights (UsdLux), brought to what a screen can show.

Intensities of stages differ by many orders of magnitude. What is kept of them is where light comes from, its colours,
and which lights are the stronger ones; together they light the middle of the scene as the studio's own lights would.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from footlights.viewer.scene.scene import Lamp, Lighting, triple

if TYPE_CHECKING:
    from footlights.viewer.scene.left_out import LeftOut
    from footlights.viewer.scene.scene import Bounds, Matrix

MOST_LAMPS: Final = 5
"""Each costs time at each vertex; the strongest are drawn."""

_DIRECT: Final = 1.15
_AMBIENT: Final = 0.34
_PLAIN: Final = np.array([0.9, 0.95, 1.05])


class Lights:
    """Gathers the lights of one stage."""

    def __init__(self, left_out: LeftOut) -> None:
        self._left_out = left_out
        self._lamps: list[tuple[np.ndarray, Lamp]] = []  # with the power of each
        self._domes: list[np.ndarray] = []

    def add(self, prim: Any, time: Any, joint: int, matrix: Matrix) -> None:
        """Read a light. `matrix` leads from its space to the joint's."""
        from pxr import UsdLux

        light = UsdLux.LightAPI(prim)
        radiance = _radiance(light, time)
        if not np.isfinite(radiance).all() or radiance.max() <= 0:
            return
        kind = str(prim.GetTypeName())
        if kind.startswith("DomeLight"):
            if (texture := prim.GetAttribute("inputs:texture:file").Get(time)) and texture.path:
                self._left_out.add("pictures of dome lights: their colour is that of the light", str(prim.GetPath()))
            self._domes.append(radiance * math.pi)
            return
        towards = -matrix[2, :3] / max(float(np.linalg.norm(matrix[2, :3])), 1e-12)
        if kind == "DistantLight":
            sine = math.sin(math.radians(_number(prim, "angle", time, 0.53)) / 2)
            spread = math.pi * sine * sine
            power = radiance * (1.0 if _normalized(light, time) or spread == 0 else spread)
            self._lamps.append((power, Lamp(joint, triple(towards), distant=True)))
            return
        area = 1.0 if _normalized(light, time) else _area(prim, kind, time, matrix)
        if area is None:
            self._left_out.add(f"{kind} prims", str(prim.GetPath()))
            return
        if not 0 < area < math.inf:  # of no size: it gives no light
            return
        self._lamps.append((radiance * area, Lamp(joint, triple(matrix[3, :3]), distant=False)))

    def lighting(self, bounds: Bounds, places: list[Matrix]) -> Lighting | None:
        """What lights the scene; None where no light is in the stage. `places` lead from the joints to the scene."""
        if not self._lamps and not self._domes:
            return None
        center = np.array(bounds.center)
        arriving: list[tuple[np.ndarray, Lamp, float]] = []
        for power, lamp in self._lamps:
            away = 0.0
            if not lamp.distant:
                place = places[lamp.joint]
                there = np.array(lamp.vector) @ place[:3, :3] + place[3, :3]
                away = max(float(np.linalg.norm(there - center)), 0.3 * bounds.radius)
            arriving.append((power / (away * away) if away else power, lamp, away))
        arriving.sort(key=lambda each: -float(each[0].max()))
        if len(arriving) > MOST_LAMPS:
            self._left_out.add("lights that are not among the strongest", count=len(arriving) - MOST_LAMPS)
        strongest = arriving[:MOST_LAMPS]
        total = sum((power for power, _, _ in strongest), np.zeros(3)).max()
        if not total > 0:  # so far away that nothing arrives
            strongest = []
        lamps = [replace(lamp, color=triple(power / total * _DIRECT), away=away) for power, lamp, away in strongest]
        dome = sum(self._domes, np.zeros(3))
        tint = dome / dome.max() if dome.max() > 0 else _PLAIN
        return Lighting(lamps, triple(tint * (_AMBIENT if self._domes else 0.75 * _AMBIENT)))


def _radiance(light: Any, time: Any) -> np.ndarray:
    from pxr import UsdLux

    color = light.GetColorAttr().Get(time)
    result = np.array(color if color is not None else (1, 1, 1), float)
    intensity, exposure = light.GetIntensityAttr().Get(time), light.GetExposureAttr().Get(time)
    if light.GetEnableColorTemperatureAttr().Get(time):
        kelvin = float(light.GetColorTemperatureAttr().Get(time) or 6500)
        result *= np.array(UsdLux.BlackbodyTemperatureAsRgb(min(10_000.0, max(1000.0, kelvin))), float)
    stops: float = 2.0 ** min(64.0, max(-64.0, float(exposure or 0)))
    radiance: np.ndarray = np.maximum(result, 0) * float(1 if intensity is None else intensity) * stops
    return radiance


def _normalized(light: Any, time: Any) -> bool:
    return bool(light.GetNormalizeAttr().Get(time))


def _area(prim: Any, kind: str, time: Any, matrix: Matrix) -> float | None:
    """How large a light looks, about, in square metres; None for a kind that is not known."""
    scale = float(np.abs(np.linalg.det(matrix[:3, :3])) ** (2 / 3))
    radius = _number(prim, "radius", time, 0.5)
    match kind:
        case "SphereLight" | "DiskLight":
            return math.pi * radius * radius * scale
        case "RectLight":
            return _number(prim, "width", time, 1) * _number(prim, "height", time, 1) * scale
        case "CylinderLight":
            return 2 * radius * _number(prim, "length", time, 1) * scale
    return None


def _number(prim: Any, name: str, time: Any, default: float) -> float:
    attribute = prim.GetAttribute(f"inputs:{name}")
    value = attribute.Get(time) if attribute else None
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else default
