"""Loads the pictures of a scene's surfaces, each once, in sizes that the rasteriser can afford."""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from types import ModuleType

    from footlights.viewer.scene.scene import Texture

log = logging.getLogger("footlights.viewer.render.textures")

MAX_SIDE: Final = 1024
"""Larger pictures are scaled down, in pixels: the stream shows no more of a surface."""
MAX_FILE_BYTES: Final = 64 << 20
MAX_PIXELS: Final = 8192 * 8192
"""A picture of more is not decoded: small files can hold very large ones."""

_GREY: Final = (0.46, 0.46, 0.46)
"""A surface without its picture, for display: not black, so that its shape is seen."""


class Textures:
    """The textures of one scene."""

    def __init__(self, core: ModuleType) -> None:
        self._core = core
        self._loaded: dict[Texture, Any] = {}

    def load(self, texture: Texture) -> Any:
        """Return panda3d's texture; a grey one where the file cannot be read, with a warning."""
        if texture not in self._loaded:
            try:
                image = self._image(texture)
            except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
                log.warning("texture %s is shown grey: %s", texture.file, error)
                image = self._core.PNMImage(1, 1)
                image.fill(*_GREY)
            self._loaded[texture] = self._texture(texture, image)
        return self._loaded[texture]

    def _image(self, texture: Texture) -> Any:
        core = self._core
        stream = core.StringStream(read_asset(texture.file))
        name = core.Filename(texture.file.rstrip("]").rpartition("/")[2])
        header = core.PNMImageHeader()
        if not header.readHeader(stream, name.getBasename()):
            raise ValueError("its format is not known")
        width, height = header.getXSize(), header.getYSize()
        if not 0 < width * height <= MAX_PIXELS:
            raise ValueError(f"{width} x {height} pixels are too many")
        image = core.PNMImage()
        if not image.read(core.StringStream(stream.getData()), name.getBasename()):
            raise ValueError("it cannot be decoded")
        size = _fitting(width), _fitting(height)
        if size != (width, height):
            fitted = core.PNMImage(*size, image.getNumChannels())
            fitted.quickFilterFrom(image)
            image = fitted
        if not texture.alpha and image.hasAlpha():
            image.removeAlpha()
        return image

    def _texture(self, texture: Texture, image: Any) -> Any:
        core = self._core
        made = core.Texture(texture.file)
        made.load(image)
        for set_mode, wrap in zip((made.setWrapU, made.setWrapV), texture.wrap, strict=True):
            # Where the software rasteriser clamps it shows the opposite edge: mirrored is right near the edge at least.
            set_mode(core.SamplerState.WM_repeat if wrap == "repeat" else core.SamplerState.WM_mirror)
        made.setMinfilter(core.SamplerState.FT_linear_mipmap_linear)
        made.setMagfilter(core.SamplerState.FT_linear)
        return made


def read_asset(file: str) -> bytes:
    """Return the bytes of a file, or of one within a usdz package: `package.usdz[path]`.

    Raises OSError, KeyError or zipfile.BadZipFile where it is not there; ValueError where it is too large.
    """
    package, bracket, inner = file.partition("[")
    if bracket and inner.endswith("]"):
        with zipfile.ZipFile(package) as archive:
            if archive.getinfo(inner[:-1]).file_size > MAX_FILE_BYTES:
                raise ValueError(f"it has more than {MAX_FILE_BYTES >> 20} MiB")
            return archive.read(inner[:-1])
    path = Path(file)
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(f"it has more than {MAX_FILE_BYTES >> 20} MiB")
    return path.read_bytes()


def _fitting(side: int) -> int:
    """The power of two that a side is scaled to: the rasteriser knows no other."""
    return min(MAX_SIDE, 1 << max(0, round(side - 1).bit_length()))
