"""Draws a scene with panda3d: by default with its software rasteriser, without a GPU, GL or X server.

`software` is TinyOffscreenGraphicsPipe (p3tinydisplay): per-vertex lighting, no antialiasing of its own, so the
picture is drawn larger (`ssaa`) and scaled down while it is converted for the encoder. Metals are shaded by a
spherical environment picture made here. `egl` is p3headlessgl: it ran on Mesa's EGL; it has NOT been tested on
an NVIDIA GPU.

Everything here belongs to one thread, except that rendering itself releases the interpreter's lock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from footlights.viewer.failure import FailureReason, ViewerFailure
from footlights.viewer.render.detail import coarser
from footlights.viewer.render.egl import device_index
from footlights.viewer.render.studio import (
    build_backdrop,
    build_lights,
    build_studio_lights,
    contact_shadow,
    environment,
)
from footlights.viewer.render.textures import Textures

if TYPE_CHECKING:
    from footlights.viewer.render.camera import Orbit
    from footlights.viewer.scene.scene import Batch, Finish, Image, Scene

Picture = npt.NDArray[np.uint8]
"""(height, width, 4): blue, green, red, unused; the top row first."""

Backend = Literal["auto", "software", "egl"]

PIPES = {
    "software": ("p3tinydisplay", "TinyOffscreenGraphicsPipe"),
    "egl": ("p3headlessgl", "eglGraphicsPipe"),
}

SETTINGS = """
load-display {module}
audio-library-name null
notify-level error
notify-level-x11display fatal
notify-level-display fatal
td-perspective-textures true
textures-power-2 none
support-threads true
garbage-collect-states true
"""


@dataclass(frozen=True, slots=True)
class Overlay:
    """Text over the picture."""

    caption: str = ""
    left: str = ""
    right: str = ""


class Renderer:
    """A scene on an off-screen buffer. Raises ViewerFailure if no such buffer can be had."""

    def __init__(
        self, scene: Scene, width: int, height: int, ssaa: float, backend: Backend = "auto", *, device: str = ""
    ) -> None:
        core = _load_panda("software" if backend == "auto" else backend)
        if backend == "egl" and (index := device_index(device)) is not None:
            core.loadPrcFileData("footlights", f"egl-device-index {index}")
        self._core = core
        self._scene = scene
        self._size = (_even(width * ssaa), _even(height * ssaa))
        self._aspect = width / height
        self._engine, self._buffer, self._texture = _open_buffer(core, self._size, backend)
        self._root = core.NodePath("scene")
        self._posed: float | None = None
        self._moving: list[tuple[Batch, Any, Any]] = []  # with its node and its rows
        self._joints = self._build_joints()
        self._textures = Textures(core, scene.roots, scene.left_out)
        self._states: dict[Finish, Any] = {}
        self._levels = [[self._add(batch) for batch in scene.batches]]  # the nodes of each level of detail
        self._coarser = coarser(scene)
        self.detail = 0
        self._ground = contact_shadow(core, scene, self._root)
        self._camera, self._lens = self._build_camera()
        if scene.lighting is None:
            build_studio_lights(core, self._root, self._camera)
        else:
            build_lights(core, scene.lighting, self._joints, self._root)
            key = 0.0 if scene.lighting.lamps else 0.75
            build_studio_lights(core, self._root, self._camera, key, fill=0.75)
        self._text = _Text(core, self._buffer, self._aspect)

    @property
    def triangles(self) -> list[int]:
        """How many triangles each level of detail has, the finest first."""
        return [sum(len(b.triangles) for b in batches) for batches in (self._scene.batches, *self._coarser)]

    def set_detail(self, level: int) -> None:
        """Draw another level of detail from now on; 0 is the scene as it is."""
        if level == self.detail:
            return
        for path in self._levels[self.detail]:
            path.hide()
        # What moves point by point is in the finest level alone, and shown there.
        fine = dict(zip(map(id, self._scene.batches), self._levels[0], strict=True))
        for batches in self._coarser[len(self._levels) - 1 : level]:
            self._levels.append([fine[id(b)] if id(b) in fine else self._add(b) for b in batches])
            for path in self._levels[-1]:
                path.hide()
        for path in self._levels[level]:
            path.show()
        self.detail = level

    def resize(self, width: int, height: int, ssaa: float) -> None:
        """Go on with another size of the buffer."""
        size = (_even(width * ssaa), _even(height * ssaa))
        if size == self._size:
            return
        self._size = size
        self._buffer.setSize(*self._size)

    def render(self, time: float, orbit: Orbit, overlay: Overlay) -> Picture:
        """The picture at a time code. Its size is the stream's times `ssaa`."""
        self._pose(time)
        self._aim(orbit)
        self._text.show(overlay)
        self._engine.renderFrame()
        width, height = self._size
        image = np.frombuffer(memoryview(self._texture.getRamImage()), np.uint8).reshape(height, width, 4)
        return image[::-1]

    def mean(self, image: Image) -> float | None:
        """The mean of a picture; None where it cannot be read."""
        return self._textures.mean(image)

    def close(self) -> None:
        """Give the buffer back."""
        self._engine.removeAllWindows()

    def _add(self, batch: Batch) -> Any:
        rows = _vertex_rows(batch)
        node = _geom_node(self._core, batch, rows)
        path = self._joints[batch.joint].attachNewNode(node)
        if batch.finish not in self._states:
            self._states[batch.finish] = self._finish_state(batch.finish)
        path.setState(self._states[batch.finish])
        if batch.motion is not None:
            self._moving.append((batch, node, rows))
        return path

    def _build_joints(self) -> list[Any]:
        nodes: list[Any] = []
        for joint in self._scene.joints:
            parent = self._root if joint.parent < 0 else nodes[joint.parent]
            nodes.append(parent.attachNewNode(joint.path))
        self._nodes = nodes
        self._pose(self._scene.timeline.start)
        return nodes

    def _pose(self, time: float) -> None:
        """Move what moves; nothing where the time is that of the last picture."""
        if time == self._posed:
            return
        for joint, node in zip(self._scene.joints, self._nodes, strict=True):
            if joint.parent < 0 and self._posed is not None:
                continue
            matrix, visible = joint.sample(time)
            node.setMat(self._core.LMatrix4(*matrix.ravel().tolist()))
            if visible:
                node.show()
            else:
                node.hide()
        for batch, node, rows in self._moving:
            if batch.motion is not None:
                rows["p"], rows["n"] = batch.motion.at(time)
                node.modifyGeom(0).modifyVertexData().modifyArrayHandle(0).copyDataFrom(rows.tobytes())
        self._posed = time

    def _build_camera(self) -> tuple[Any, Any]:
        core = self._core
        backdrop = self._buffer.makeDisplayRegion()
        backdrop.setSort(0)
        backdrop.setCamera(build_backdrop(core))
        lens = core.PerspectiveLens()
        camera = self._root.attachNewNode(core.Camera("camera", lens))
        region = self._buffer.makeDisplayRegion()
        region.setSort(10)
        region.setClearDepthActive(True)
        region.setCamera(camera)
        return camera, lens

    def _aim(self, orbit: Orbit) -> None:
        self._lens.setFilmSize(self._aspect, 1.0)
        self._lens.setMinFov(orbit.vertical_fov) if self._aspect >= 1 else self._lens.setFov(orbit.vertical_fov)
        self._lens.setNearFar(*orbit.near_far)
        self._camera.setPos(*orbit.eye)
        self._camera.lookAt(self._core.Point3(*orbit.target), self._core.Vec3(0, 0, 1))
        if self._ground is not None:
            above = orbit.eye[2] > self._scene.bounds.low[2]
            self._ground.show() if above else self._ground.hide()

    def _finish_state(self, finish: Finish) -> Any:
        """Colours are per vertex; the material only carries highlight and glow."""
        core = self._core
        holder = core.NodePath("state")
        roughness, metallic = (
            own if image is None or (mean := self._textures.mean(image)) is None else max(0.0, min(1.0, mean))
            for own, image in ((finish.roughness, finish.roughness_image), (finish.metallic, finish.metallic_image))
        )
        if finish.texture is not None:
            holder.setTexture(self._textures.load(finish.texture), 1)
        if finish.unlit:
            holder.setLightOff()
        elif metallic >= 0.5:
            stage = core.TextureStage("environment")
            stage.setMode(core.TextureStage.MModulate)
            holder.setTexGen(stage, core.TexGenAttrib.MEyeSphereMap)
            holder.setTexture(stage, environment(core, roughness))
            holder.setLightOff()
        else:
            material = core.Material()
            strength = 0.75 * (1 - roughness) ** 1.6 + 0.03
            material.setSpecular(core.LColor(*(strength * t for t in finish.tint), 1))
            material.setShininess(4 + 90 * (1 - roughness) ** 2)
            material.setEmission(core.LColor(*finish.emission, 1))
            holder.setMaterial(material)
        if finish.texture is not None and finish.texture.cutout > 0:
            holder.setTransparency(core.TransparencyAttrib.MBinary)
        elif finish.transparent:
            holder.setTransparency(core.TransparencyAttrib.MAlpha)
            holder.setDepthWrite(False)
        return holder.getState()


class _Text:
    """The HUD and the caption, in a display region of their own."""

    def __init__(self, core: Any, buffer: Any, aspect: float) -> None:
        self._core = core
        self._aspect = aspect
        root = core.NodePath("overlay")
        root.setDepthTest(False)
        root.setDepthWrite(False)
        lens = core.OrthographicLens()
        lens.setFilmSize(2 * aspect, 2)
        lens.setNearFar(-10, 10)
        region = buffer.makeDisplayRegion()
        region.setSort(20)
        region.setCamera(root.attachNewNode(core.Camera("overlay", lens)))
        self._left = self._line(root, -aspect + 0.05, -0.945, 0.042, core.TextNode.ALeft, 0.78)
        self._right = self._line(root, aspect - 0.05, -0.945, 0.042, core.TextNode.ARight, 0.78)
        self._plate = self._card(root)
        self._caption = self._line(root, 0, -0.78, 0.082, core.TextNode.ACenter, 1.0)
        self._caption.node().setWordwrap(2 * aspect * 0.82 / 0.082)
        self._shown = Overlay(caption="\0")

    def show(self, overlay: Overlay) -> None:
        """Change only what differs: laying out text is not free."""
        if overlay.left != self._shown.left:
            self._left.node().setText(overlay.left)
        if overlay.right != self._shown.right:
            self._right.node().setText(overlay.right)
        if overlay.caption != self._shown.caption:
            self._caption.node().setText(overlay.caption)
            self._place_plate()
        self._shown = overlay

    def _place_plate(self) -> None:
        """A dark plate behind the caption, so that it can be read over anything."""
        node = self._caption.node()
        if not node.hasText() or not node.getText():
            self._plate.hide()
            return
        size, x, z = self._caption.getScale()[0], self._caption.getX(), self._caption.getZ()
        left, right = node.getLeft() * size - 0.04, node.getRight() * size + 0.04
        bottom, top = node.getBottom() * size - 0.02, node.getTop() * size + 0.02
        self._plate.setPos(x + left, 0, z + bottom)
        self._plate.setScale(right - left, 1, top - bottom)
        self._plate.show()

    def _card(self, root: Any) -> Any:
        maker = self._core.CardMaker("plate")
        maker.setFrame(0, 1, 0, 1)
        maker.setColor(0.02, 0.03, 0.05, 0.66)
        card = root.attachNewNode(maker.generate())
        card.setTransparency(self._core.TransparencyAttrib.MAlpha)
        card.setBin("fixed", 0)
        card.hide()
        return card

    def _line(self, root: Any, x: float, y: float, size: float, align: Any, brightness: float) -> Any:
        node = self._core.TextNode("line")
        node.setAlign(align)
        node.setTextColor(brightness, brightness, brightness, 1)
        path = root.attachNewNode(node)
        path.setPos(x, 0, y)
        path.setScale(size)
        path.setTransparency(self._core.TransparencyAttrib.MAlpha)
        path.setBin("fixed", 1)
        return path


def _load_panda(backend: str) -> Any:
    try:
        from panda3d import core
    except ImportError as error:  # pragma: no cover - the extra is not installed
        raise ViewerFailure(
            FailureReason.MISSING_LIBRARY,
            f"cannot import panda3d: {error}. Install it with: pip install 'footlights[viewer]'",
        ) from error
    core.loadPrcFileData("footlights", SETTINGS.format(module=PIPES[backend][0]))
    return core


def _open_buffer(core: Any, size: tuple[int, int], backend: Backend) -> tuple[Any, Any, Any]:
    _, pipe_name = PIPES["software" if backend == "auto" else backend]
    pipe = core.GraphicsPipeSelection.getGlobalPtr().makePipe(pipe_name)
    if pipe is None:
        raise _no_pipe(backend)
    engine = core.GraphicsEngine(pipe)
    wanted = core.FrameBufferProperties()
    wanted.setRgbaBits(8, 8, 8, 8)
    wanted.setDepthBits(24)
    flags = core.GraphicsPipe.BFRefuseWindow | core.GraphicsPipe.BFResizeable
    buffer = engine.makeOutput(pipe, "stream", 0, wanted, core.WindowProperties.size(*size), flags)
    if buffer is None:
        raise ViewerFailure(
            FailureReason.RENDERER_UNAVAILABLE, f"{pipe_name} gave no off-screen buffer of {size[0]}x{size[1]}"
        )
    texture = core.Texture("stream")
    buffer.addRenderTexture(texture, core.GraphicsOutput.RTMCopyRam)
    buffer.setClearColorActive(False)
    return engine, buffer, texture


def _no_pipe(backend: Backend) -> ViewerFailure:
    import ctypes

    if backend == "egl":
        return ViewerFailure(
            FailureReason.RENDERER_UNAVAILABLE,
            "no EGL renderer: install libegl1 and a driver, or use --renderer software",
        )
    try:
        ctypes.CDLL("libX11.so.6")
    except OSError:
        return ViewerFailure(
            FailureReason.MISSING_LIBRARY,
            "the software renderer needs libX11.so.6 (it opens no display). Install it with: apt-get install libx11-6",
        )
    return ViewerFailure(
        FailureReason.RENDERER_UNAVAILABLE, "panda3d's software renderer (p3tinydisplay) could not be loaded"
    )


def _vertex_rows(batch: Batch) -> Any:
    fields: list[Any] = [("p", np.float32, 3), ("n", np.float32, 3), ("c", np.uint8, 4)]
    if batch.uvs is not None:
        fields.append(("t", np.float32, 2))
    rows = np.zeros(len(batch.positions), dtype=fields)
    rows["p"], rows["n"] = batch.positions, batch.normals
    rows["c"] = np.clip(np.rint(batch.colors * 255), 0, 255)
    if batch.uvs is not None:
        rows["t"] = batch.uvs
    return rows


def _geom_node(core: Any, batch: Batch, rows: Any) -> Any:
    layout = core.GeomVertexFormat.getV3n3c4() if batch.uvs is None else core.GeomVertexFormat.getV3n3c4t2()
    data = core.GeomVertexData("batch", layout, core.Geom.UHDynamic if batch.motion else core.Geom.UHStatic)
    data.uncleanSetNumRows(len(rows))
    data.modifyArrayHandle(0).copyDataFrom(rows.tobytes())
    triangles = core.GeomTriangles(core.Geom.UHStatic)
    triangles.setIndexType(core.GeomEnums.NTUint32)
    indices = triangles.modifyVertices()
    indices.uncleanSetNumRows(batch.triangles.size)
    indices.modifyHandle().copyDataFrom(batch.triangles.astype(np.uint32).tobytes())
    geom = core.Geom(data)
    geom.addPrimitive(triangles)
    node = core.GeomNode("batch")
    node.addGeom(geom)
    return node


def _even(value: float) -> int:
    return max(2, 2 * round(value / 2))
