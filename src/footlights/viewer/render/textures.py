"""Loads the pictures of a scene's surfaces, each once, in sizes that the rasteriser can afford."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import zipfile
from typing import IO, TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from footlights.viewer.scene.roots import StageRoots
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

    def __init__(self, core: ModuleType, roots: StageRoots) -> None:
        self._core, self._roots = core, roots
        self._loaded: dict[Texture, Any] = {}

    def load(self, texture: Texture) -> Any:
        """Return panda3d's texture; a grey one where the file cannot be read, with a warning."""
        if texture not in self._loaded:
            try:
                image = self._image(texture)
            except Exception as error:
                # Whatever a decoder makes of a file that anybody may have written: one picture does not end the stream.
                log.warning("texture %s is shown grey: %s", texture.file, error or type(error).__name__)
                image = self._core.PNMImage(1, 1)
                image.fill(*_GREY)
            self._loaded[texture] = self._texture(texture, image)
        return self._loaded[texture]

    def _image(self, texture: Texture) -> Any:
        core = self._core
        stream = core.StringStream(read_asset(texture.file, self._roots))
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


def read_asset(file: str, roots: StageRoots) -> bytes:
    """Return the bytes of a file, or of one within a usdz package: `package.usdz[path]`.

    Raises OSError or KeyError where it is not there; ValueError where it is no regular file, too large, or
    outside the roots. A damaged
    package raises whatever its decompressor does.
    """
    package, bracket, inner = file.partition("[")
    if not (bracket and inner.endswith("]")):
        with _regular(file, roots) as plain:
            return _bounded(plain)
    with _regular(package, roots) as whole, zipfile.ZipFile(whole) as archive, archive.open(inner[:-1]) as member:
        return _bounded(member)


@contextlib.contextmanager
def _regular(file: str, roots: StageRoots) -> Iterator[IO[bytes]]:
    """Open a regular file: a stage may name a device, which never ends, or a pipe, which nobody may write to."""
    with os.fdopen(os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as opened:
        if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            raise ValueError("it is not a regular file")
        # Of what was opened, not of its name: a link may lead elsewhere by now.
        if not roots.admits_file(os.readlink(f"/proc/self/fd/{opened.fileno()}")):
            raise ValueError("it is not below a root that is allowed")
        yield opened


def _bounded(opened: IO[bytes]) -> bytes:
    """Read to the end. What is said of a size beforehand is not believed."""
    content = opened.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"it has more than {MAX_FILE_BYTES >> 20} MiB")
    return content


def _fitting(side: int) -> int:
    """The power of two that a side is scaled to: the rasteriser knows no other."""
    return min(MAX_SIDE, 1 << max(0, round(side - 1).bit_length()))
