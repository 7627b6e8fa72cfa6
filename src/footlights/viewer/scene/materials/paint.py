"""A material in plain values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from footlights.viewer.scene.scene import Finish, Image, Texture

RGB = tuple[float, float, float]

UV_NAMES = ("st", "st0", "st_0", "UVMap", "map1", "uv", "UV0", "st1", "st_1", "UVMap_0", "Texture_uv")
"""Primvars that hold texture coordinates by custom, where a material does not say which."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a surface lies in its pictures."""

    primvar: str = ""  # the texture coordinates; empty: one of UV_NAMES
    scale: tuple[float, float] = (1.0, 1.0)
    degrees: float = 0.0
    translation: tuple[float, float] = (0.0, 0.0)
    projected: bool = False  # from the shape itself, along its nearest axis, in place of a primvar

    def place(self, st: np.ndarray) -> np.ndarray:
        """Texture coordinates, (n, 2), of a surface's own: scaled, turned, then moved (UsdTransform2d)."""
        u, v = st[:, 0] * self.scale[0], st[:, 1] * self.scale[1]
        cosine, sine = np.cos(np.radians(self.degrees)), np.sin(np.radians(self.degrees))
        turned = np.stack([u * cosine - v * sine, u * sine + v * cosine], axis=1)
        placed: np.ndarray = (turned + np.array(self.translation)).astype(np.float32)
        return placed


AS_IT_IS = Layout()


@dataclass(frozen=True, slots=True)
class Paint:
    """A material's colour and finish. Colours are linear, as authored; `displayed` makes them fit for a screen."""

    color: RGB = (0.18, 0.18, 0.18)
    opacity: float = 1.0
    color_primvar: str | None = None  # per-vertex colour that replaces `color`
    opacity_primvar: str | None = None  # per-vertex opacity that replaces `opacity`
    occlusion_primvar: str | None = None  # per-vertex factor, 0..1
    roughness: float = 0.5
    metallic: float = 0.0
    emission: RGB = (0.0, 0.0, 0.0)
    texture: Texture | None = None
    layout: Layout = AS_IT_IS
    roughness_image: Image | None = None  # whose mean replaces `roughness`
    metallic_image: Image | None = None

    def finish(self) -> Finish:
        """The part of the look that is not per vertex."""
        metal = self.metallic
        r, g, b = (float(v) for v in displayed(self.color))
        texture = self.texture
        cutout = texture is not None and texture.cutout > 0
        return Finish(
            roughness=round(self.roughness, 2),
            metallic=round(metal, 2),
            emission=tuple(round(float(v), 3) for v in displayed(self.emission)),  # type: ignore[arg-type]
            tint=(_tint(r, metal), _tint(g, metal), _tint(b, metal)),
            transparent=not cutout and (self.opacity < 0.999 or (texture is not None and texture.alpha is not None)),
            unlit=texture is not None and texture.glows,
            roughness_image=self.roughness_image,
            metallic_image=self.metallic_image,
        )


UNBOUND = Paint()
"""The look of a prim without a material: its displayColor, on a plain finish."""


def displayed(linear: RGB) -> RGB:
    """Linear light to display values, by the sRGB curve's usual approximation."""
    r, g, b = (max(0.0, min(1.0, v)) ** (1 / 2.2) for v in linear)
    return (r, g, b)


def _tint(channel: float, metallic: float) -> float:
    """A metal's highlight has its colour, a dielectric's is white."""
    return round((1 - metallic) + metallic * channel, 2)
