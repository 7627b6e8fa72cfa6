"""Pictures in files, a card that shows one, and the colours that are seen of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from panda3d import core
from pxr import Gf, Sdf, UsdGeom, UsdShade

from footlights.viewer.render.camera import initial_orbit
from footlights.viewer.render.renderer import Overlay, Renderer

if TYPE_CHECKING:
    from pathlib import Path

    from footlights.viewer.render.camera import Orbit
    from footlights.viewer.scene.scene import Scene
    from tests.viewer.stages import StageMaker

SIZE = (320, 180)
RED, GREEN, BLUE, WHITE = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 1.0, 1.0)


def write(path: Path, *quarters: tuple[float, ...], size: int = 64) -> None:
    """A picture of four colours: upper left, upper right, lower left, lower right."""
    image = core.PNMImage(size, size, len(quarters[0]))
    for y in range(size):
        for x in range(size):
            color = quarters[(y * 2 // size) * 2 + x * 2 // size]
            image.setXel(x, y, *color[:3])
            if len(color) == 4:
                image.setAlpha(x, y, color[3])
    assert image.write(core.Filename(str(path)))


def card(maker: StageMaker, file: str, **texture: Any) -> Any:
    """A square that faces -Y, two metres wide, with a texture; returns the texture's node."""
    mesh = maker.mesh("/Card", [(-1, 0, 0), (1, 0, 0), (1, 0, 2), (-1, 0, 2)])
    primvar = UsdGeom.PrimvarsAPI(mesh).CreatePrimvar("st", Sdf.ValueTypeNames.TexCoord2fArray, "vertex")
    primvar.Set(texture.pop("st", [(0, 0), (1, 0), (1, 1), (0, 1)]))
    material = maker.material("Textured")
    surface = UsdShade.Shader(maker.stage.GetPrimAtPath("/Looks/Textured/Surface"))
    node = UsdShade.Shader.Define(maker.stage, "/Looks/Textured/Texture")
    node.CreateIdAttr("UsdUVTexture")
    node.CreateInput("file", Sdf.ValueTypeNames.Asset).Set(file)
    node.CreateInput("fallback", Sdf.ValueTypeNames.Float4).Set(Gf.Vec4f(0, 0, 0, 1))
    for name, value in texture.items():
        kind = Sdf.ValueTypeNames.Token if isinstance(value, str) else Sdf.ValueTypeNames.Float4
        node.CreateInput(name, kind).Set(value)
    surface.CreateInput("diffuseColor", Sdf.ValueTypeNames.Color3f).ConnectToSource(node.ConnectableAPI(), "rgb")
    maker.bind(mesh, material)
    return node


def from_the_front(orbit: Orbit, turn: float = 0.0) -> Orbit:
    """The same from the front: X to the right, Z up; or from `turn` radians around from there."""
    return orbit.orbited((orbit.azimuth + np.pi / 2 + turn) / (2 * np.pi), -orbit.elevation / np.pi)


def seen(scene: Scene) -> dict[str, str]:
    """The colour of each quarter of the card, seen from the front: `ul`, `ur`, `ll`, `lr`."""
    renderer = Renderer(scene, *SIZE, 1.0)
    picture = renderer.render(0, from_the_front(initial_orbit(scene, SIZE[0] / SIZE[1])), Overlay()).astype(int)
    renderer.close()
    middle_x, middle_y = SIZE[0] // 2, SIZE[1] // 2
    around = {"ul": (-25, -25), "ur": (25, -25), "ll": (-25, 25), "lr": (25, 25)}
    return {name: _name(picture[middle_y + y, middle_x + x, 2::-1]) for name, (x, y) in around.items()}


def _name(rgb: np.ndarray[Any, Any]) -> str:
    high = [bool(v > 0.5 * max(int(rgb.max()), 60)) for v in rgb]
    names = {(True, False, False): "red", (False, True, False): "green", (False, False, True): "blue"}
    return names.get((high[0], high[1], high[2]), "grey" if rgb.max() > 30 else "black")
