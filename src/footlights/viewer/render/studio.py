"""The room around a scene: backdrop, lights, the shadow it stands on and what its metals mirror."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from footlights.viewer.scene.scene import places_of

if TYPE_CHECKING:
    from footlights.viewer.scene.scene import Lighting, Scene

TOP, HORIZON, BOTTOM = (0.10, 0.12, 0.17), (0.40, 0.43, 0.49), (0.20, 0.215, 0.25)
"""The backdrop, display-referred."""


def build_backdrop(core: Any) -> Any:
    """A camera that sees nothing but a vertical gradient over the whole picture."""
    root = core.NodePath("backdrop")
    root.setDepthTest(False)
    root.setDepthWrite(False)
    data = core.GeomVertexData("backdrop", core.GeomVertexFormat.getV3c4(), core.Geom.UHStatic)
    vertex, color = core.GeomVertexWriter(data, "vertex"), core.GeomVertexWriter(data, "color")
    for height, shade in ((-1.0, BOTTOM), (-0.1, HORIZON), (1.0, TOP)):
        for side in (-1.0, 1.0):
            vertex.addData3(side, 0, height)
            color.addData4(*shade, 1)
    strip = core.GeomTriangles(core.Geom.UHStatic)
    for k in (0, 2):
        strip.addVertices(k, k + 1, k + 3)
        strip.addVertices(k, k + 3, k + 2)
    geom = core.Geom(data)
    geom.addPrimitive(strip)
    node = core.GeomNode("backdrop")
    node.addGeom(geom)
    root.attachNewNode(node).setTwoSided(True)
    lens = core.OrthographicLens()
    lens.setFilmSize(2, 2)
    lens.setNearFar(-10, 10)
    return root.attachNewNode(core.Camera("backdrop", lens))


def build_lights(core: Any, lighting: Lighting, joints: list[Any], root: Any) -> None:
    """The stage's own lights, on the joints that carry them."""
    ambient = core.AmbientLight("ambient")
    ambient.setColor((*lighting.ambient, 1))
    root.setLight(root.attachNewNode(ambient))
    for k, lamp in enumerate(lighting.lamps):
        if lamp.distant:
            light = core.DirectionalLight(f"lamp {k}")
            light.setDirection(core.Vec3(*lamp.vector))
        else:
            light = core.PointLight(f"lamp {k}")
            light.setPoint(core.Point3(*lamp.vector))
            # As it arrives in the middle of the scene; a part does not fade, so that what is far is not black.
            light.setAttenuation(core.Vec3(0.25, 0, 0.75 / lamp.away**2))
        light.setColor((*lamp.color, 1))
        light.setSpecularColor((1, 1, 1, 1) if k == 0 else (0.25, 0.25, 0.28, 1))
        root.setLight(joints[lamp.joint].attachNewNode(light))


def build_studio_lights(core: Any, root: Any, camera: Any, key: float = 1.0, fill: float = 1.0) -> None:
    """A warm key that stands still, and a cool fill and a rim that go with the viewer.

    Beside a stage's own lights there is less of them, and no ambient light: enough to show the shapes.
    """
    if key == 1:
        ambient = core.AmbientLight("ambient")
        ambient.setColor((0.30, 0.32, 0.37, 1))
        root.setLight(root.attachNewNode(ambient))
    for name, parent, color, direction, share in (
        ("key", root, (0.74, 0.70, 0.62), (0.45, 0.55, -0.9), key),
        ("fill", camera, (0.24, 0.27, 0.33), (-0.5, 1.0, -0.15), fill),
        ("rim", camera, (0.26, 0.27, 0.30), (0.6, -1.0, -0.7), key),
    ):
        if share <= 0:
            continue
        light = core.DirectionalLight(name)
        light.setColor((*(share * c for c in color), 1))
        light.setDirection(core.Vec3(*direction))
        light.setSpecularColor((1, 1, 1, 1) if name == "key" else (0.25, 0.25, 0.28, 1))
        root.setLight(parent.attachNewNode(light))


def contact_shadow(core: Any, scene: Scene, root: Any) -> Any | None:
    """A soft dark patch under the scene, after the outline of what stands near the ground. None for a flat scene."""
    low, high = np.array(scene.bounds.low), np.array(scene.bounds.high)
    height = float(high[2] - low[2])
    if height <= 1e-6 * scene.bounds.radius:
        return None
    center, half = (low + high)[:2] / 2, float(max(high[0] - low[0], high[1] - low[1])) * 0.8
    cells = 36
    density = np.zeros((cells + 1, cells + 1))
    for points, weight in _ground_samples(scene, float(low[2]), height):
        cell = np.rint(((points - center) / (2 * half) + 0.5) * cells)
        keep = ((cell >= 0) & (cell <= cells)).all(axis=1)
        x, y = cell[keep].astype(int).T
        np.maximum.at(density, (y, x), weight[keep])
    density = np.clip(_blurred(_blurred(density, 1) * 1.4, 2) * 1.5, 0, 1)
    path = root.attachNewNode(_patch(core, density, center, half))
    path.setLightOff()
    path.setZ(float(low[2]) - 0.002 * scene.bounds.radius)
    path.setTransparency(core.TransparencyAttrib.MAlpha)
    path.setDepthWrite(False)
    path.setBin("background", 0)
    return path


def _patch(core: Any, density: np.ndarray, center: np.ndarray, half: float) -> Any:
    """A grid of black whose opacity is the density; empty cells are left out."""
    data = core.GeomVertexData("shadow", core.GeomVertexFormat.getV3c4(), core.Geom.UHStatic)
    vertex, color = core.GeomVertexWriter(data, "vertex"), core.GeomVertexWriter(data, "color")
    count = len(density)
    places = np.linspace(-half, half, count)
    for j in range(count):
        for i in range(count):
            vertex.addData3(float(center[0] + places[i]), float(center[1] + places[j]), 0)
            color.addData4(0, 0, 0, 0.6 * float(density[j, i]))
    triangles = core.GeomTriangles(core.Geom.UHStatic)
    for j in range(count - 1):
        for i in range(count - 1):
            if density[j : j + 2, i : i + 2].max() > 0.01:
                a = j * count + i
                triangles.addVertices(a, a + 1, a + count + 1)
                triangles.addVertices(a, a + count + 1, a + count)
    geom = core.Geom(data)
    geom.addPrimitive(triangles)
    node = core.GeomNode("shadow")
    node.addGeom(geom)
    return node


def environment(core: Any, roughness: float) -> Any:
    """What a metal mirrors: a dark studio with two soft boxes and a bright floor line, blurred by roughness."""
    size = 128
    v, u = np.mgrid[0:size, 0:size] / (size - 1) * 2 - 1
    z = np.sqrt(np.clip(1 - u**2 - v**2, 0, 1))

    def box(x: float, y: float, width: float, height: float) -> np.ndarray:
        soft = 14 - 10 * roughness
        across = 1 / (1 + np.exp(soft * (np.abs(u - x) - width)))
        along = 1 / (1 + np.exp(soft * (np.abs(v - y) - height)))
        product: np.ndarray = across * along
        return product

    light = 0.50 + 0.22 * v + 0.16 * z
    light += (0.75 - 0.30 * roughness) * box(-0.42, 0.52, 0.22, 0.24)
    light += (0.45 - 0.15 * roughness) * box(0.62, 0.18, 0.10, 0.40)
    light += 0.22 * np.exp(-(((v + 0.30) / 0.16) ** 2))
    light *= 0.55 + 0.45 * np.clip(z * 2.2, 0, 1)
    shade = np.clip(light, 0, 1)
    cool, warm = np.array([1.0, 1.0, 1.0]), np.array([0.96, 0.98, 1.0])
    mix = np.clip(0.5 + 0.5 * v, 0, 1)[..., None]
    pixels = np.rint(255 * shade[..., None] * (mix * cool + (1 - mix) * warm)).astype(np.uint8)
    texture = core.Texture("environment")
    texture.setup2dTexture(size, size, core.Texture.TUnsignedByte, core.Texture.FRgb)
    texture.setRamImage(np.ascontiguousarray(pixels[:, :, ::-1]).tobytes())
    texture.setMinfilter(core.SamplerState.FTLinear)
    texture.setMagfilter(core.SamplerState.FTLinear)
    return texture


def _ground_samples(scene: Scene, floor: float, height: float) -> list[tuple[np.ndarray, np.ndarray]]:
    places = places_of(scene.joints, scene.timeline.start)
    samples = []
    for batch in scene.batches:
        if batch.finish.transparent:
            continue
        matrix = places[batch.joint]
        corners = batch.positions[batch.triangles].mean(axis=1)
        points = np.concatenate([batch.positions, corners]) @ matrix[:3, :3] + matrix[3, :3]
        near = np.clip(1 - (points[:, 2] - floor) / (0.6 * height), 0, 1)
        samples.append((points[:, :2], 0.25 + 0.75 * near))
    return samples


def _blurred(grid: np.ndarray, radius: int) -> np.ndarray:
    kernel = np.exp(-0.5 * (np.arange(-2 * radius, 2 * radius + 1) / radius) ** 2)
    kernel /= kernel.sum()
    rows = np.apply_along_axis(np.convolve, 1, grid, kernel, "same")
    return np.apply_along_axis(np.convolve, 0, rows, kernel, "same")
