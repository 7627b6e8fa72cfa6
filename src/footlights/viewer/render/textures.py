"""Loads the pictures of a scene's surfaces, each once, in sizes that the rasteriser can afford."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from footlights.viewer.scene.assets import read_asset

if TYPE_CHECKING:
    from types import ModuleType

    from footlights.viewer.scene.left_out import LeftOut
    from footlights.viewer.scene.roots import StageRoots
    from footlights.viewer.scene.scene import Floats, Image, Texture

MAX_SIDE: Final = 1024
"""Larger pictures are scaled down, in pixels: the stream shows no more of a surface."""
MEAN_SIDE: Final = 128
"""The same of pictures of which only the mean is taken."""
MAX_PIXELS: Final = 8192 * 8192
"""A picture of more is not decoded: small files can hold very large ones."""

GREY: Final = (0.46, 0.46, 0.46)
"""A surface without its picture, for display: not black, so that its shape is seen."""
BLACK: Final = (0.0, 0.0, 0.0)

_LIGHT: Final = np.array([-0.35, 0.45, 0.82], np.float32)
"""Where light comes from in a surface's own space, for its relief."""


class Textures:
    """The textures of one scene."""

    def __init__(self, core: ModuleType, roots: StageRoots, left_out: LeftOut) -> None:
        self._core, self._roots, self._left_out = core, roots, left_out
        self._made: dict[Texture, Any] = {}
        self._means: dict[Image, float | None] = {}

    def load(self, texture: Texture) -> Any:
        """Return panda3d's texture; grey where its colours cannot be read, which is counted."""
        if texture not in self._made:
            self._made[texture] = self._texture(texture, self._composed(texture))
        return self._made[texture]

    def mean(self, image: Image) -> float | None:
        """Return the mean of a picture; None where it cannot be read."""
        if image not in self._means:
            what = "that cannot be read: their surfaces have one roughness or metalness"
            values = self._values(image, what, MEAN_SIDE)
            self._means[image] = None if values is None else float(values[..., :3].mean())
        return self._means[image]

    def _composed(self, texture: Texture) -> Floats:
        """The pictures of a texture as one: red, green, blue, opacity; display-referred, the lowest row first."""
        color = self._colors(texture.color, GREY, "that are shown grey") if texture.color else None
        glow = self._colors(texture.glow, BLACK, "of light that are left out") if texture.glow else None
        alpha = self._values(texture.alpha, "of opacity that are left out", MAX_SIDE) if texture.alpha else None
        occlusion = (
            self._values(texture.occlusion, "of occlusion that are left out", MAX_SIDE // 2)
            if texture.occlusion
            else None
        )
        relief = self._values(texture.relief, "of normals that are left out", MAX_SIDE // 2) if texture.relief else None
        layers = [each for each in (color, glow, alpha, occlusion, relief) if each is not None]
        shape = (max((each.shape[0] for each in layers), default=1), max((each.shape[1] for each in layers), default=1))
        result = np.ones((*shape, 4), np.float32)
        result[..., :3] = _display(np.array(texture.base, np.float32)) if color is None else _stretched(color, shape)
        if occlusion is not None:
            result[..., :3] *= _stretched(occlusion, shape)[..., :1]
        if relief is not None and texture.relief is not None:
            result[..., :3] *= _shaded(_stretched(relief, shape), texture.relief)[..., None]
        if glow is not None:
            result[..., :3] = np.maximum(result[..., :3], _stretched(glow, shape))
        if max(texture.light) > 0:
            result[..., :3] += _display(np.array(texture.light, np.float32))
        if alpha is not None:
            result[..., 3] = _stretched(alpha, shape)[..., 0]
            if texture.cutout > 0:
                result[..., 3] = result[..., 3] >= texture.cutout
        clipped: Floats = np.clip(result, 0, 1)
        return clipped

    def _colors(self, image: Image, otherwise: tuple[float, float, float], what: str) -> Floats:
        """The colours of a picture for display."""
        pixels = self._pixels(image, what, MAX_SIDE)
        if pixels is None:
            return np.full((1, 1, 3), otherwise, np.float32)
        colors = pixels[..., :3] if image.channel == "rgb" else np.repeat(_channel(pixels, image.channel), 3, axis=2)
        scale, bias = np.array(image.scale[:3], np.float32), np.array(image.bias[:3], np.float32)
        if (scale == 1).all() and (bias == 0).all():
            return _display(colors) if image.raw else colors
        linear = colors if image.raw else colors**2.2
        return _display(linear * scale + bias)

    def _values(self, image: Image, what: str, side: int) -> Floats | None:
        """The values of a picture that are no colours; one of them, or three."""
        pixels = self._pixels(image, what, side)
        if pixels is None:
            return None
        if image.channel == "rgb":
            return pixels[..., :3] * np.array(image.scale[:3], np.float32) + np.array(image.bias[:3], np.float32)
        k = "rgba".index(image.channel)
        return _channel(pixels, image.channel) * np.float32(image.scale[k]) + np.float32(image.bias[k])

    def _pixels(self, image: Image, what: str, side: int) -> Floats | None:
        try:
            return self._decoded(image.file, side)
        except Exception as error:
            # Whatever a decoder makes of a file that anybody may have written: one picture does not end the stream.
            self._left_out.add(f"pictures {what}", f"{image.file}: {error or type(error).__name__}")
            return None

    def _decoded(self, file: str, side: int) -> Floats:
        """The pixels of a file, (height, width, 4), the lowest row first; neither side is longer than `side`."""
        core = self._core
        stream = core.StringStream(read_asset(file, self._roots))
        name = core.Filename(file.rstrip("]").rpartition("/")[2])
        header = core.PNMImageHeader()
        if not header.readHeader(stream, name.getBasename()):
            raise ValueError("its format is not known")
        width, height = header.getXSize(), header.getYSize()
        if not 0 < width * height <= MAX_PIXELS:
            raise ValueError(f"{width} x {height} pixels are too many")
        picture = core.PNMImage()
        size = _fitting(width, side), _fitting(height, side)
        picture.setReadSize(*size)  # a JPEG is decoded smaller, which is faster
        if not picture.read(core.StringStream(stream.getData()), name.getBasename()):
            raise ValueError("it cannot be decoded")
        if size != (picture.getXSize(), picture.getYSize()):
            fitted = core.PNMImage(*size, picture.getNumChannels())
            fitted.quickFilterFrom(picture)
            picture = fitted
        if picture.isGrayscale():
            picture.makeRgb()
        if not picture.hasAlpha():
            picture.addAlpha()
            picture.alphaFill(1)
        picture.setMaxval(255)
        plain = core.Texture()
        plain.load(picture)
        raw = np.frombuffer(memoryview(plain.getRamImage()), np.uint8).reshape(size[1], size[0], 4)
        return raw[..., [2, 1, 0, 3]].astype(np.float32) / np.float32(255)

    def _texture(self, texture: Texture, pixels: Floats) -> Any:
        core = self._core
        height, width, _ = pixels.shape
        made = core.Texture("surface")
        made.setup2dTexture(
            width, height, core.Texture.TUnsignedByte, core.Texture.FRgba if texture.alpha else core.Texture.FRgb
        )
        order = [2, 1, 0, 3] if texture.alpha else [2, 1, 0]
        made.setRamImage(np.ascontiguousarray(np.rint(pixels[..., order] * 255).astype(np.uint8)).tobytes())
        for set_mode, wrap in zip((made.setWrapU, made.setWrapV), texture.wrap, strict=True):
            # Where the software rasteriser clamps it shows the opposite edge: mirrored is right near the edge at least.
            set_mode(core.SamplerState.WM_repeat if wrap == "repeat" else core.SamplerState.WM_mirror)
        made.setMinfilter(core.SamplerState.FT_linear_mipmap_linear)
        made.setMagfilter(core.SamplerState.FT_linear)
        return made


def _display(linear: Floats) -> Floats:
    shown: Floats = np.clip(linear, 0, 1) ** np.float32(1 / 2.2)
    return shown


def _channel(pixels: Floats, channel: str) -> Floats:
    k = "rgba".index(channel)
    return pixels[..., k : k + 1]


def _stretched(pixels: Floats, shape: tuple[int, int]) -> Floats:
    """The same at a larger size; sizes are powers of two."""
    across = np.repeat(pixels, shape[1] // pixels.shape[1], axis=1)
    return np.repeat(across, shape[0] // pixels.shape[0], axis=0)


def _shaded(normals: Floats, image: Image) -> Floats:
    """How much lighter or darker a surface is where its normals lean, relative to where they do not."""
    leaning = normals if normals.min() < -0.01 or image.scale[0] != 1 else normals * 2 - 1
    towards = leaning @ (_LIGHT / _LIGHT[2])
    length = np.sqrt(np.maximum((leaning**2).sum(axis=2), 1e-6))
    shade: Floats = np.clip(towards / length, 0.35, 1.4)
    return shade


def _fitting(length: int, side: int) -> int:
    """The power of two that a length is scaled to: the rasteriser knows no other."""
    return min(side, 1 << max(0, round(length - 1).bit_length()))
