"""USD materials, reduced to what a rasteriser with per-vertex lighting can show.

UsdPreviewSurface is read by its specification (diffuseColor, emissiveColor, opacity, metallic, roughness,
occlusion; a value or a UsdPrimvarReader; diffuseColor and opacity also from a UsdUVTexture, with its wrap modes, scale
and UsdTransform2d). Materials that only have an MDL surface (OmniPBR and its relatives, as Omniverse writes them) are
read by the names of their constants and of their diffuse texture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from footlights.viewer.scene.scene import Finish, Texture

RGB = tuple[float, float, float]

MDL_NAMES = {
    "diffuseColor": "diffuse_color_constant",
    "roughness": "reflection_roughness_constant",
    "metallic": "metallic_constant",
    "emissiveColor": "emissive_color",
    "opacity": "opacity_constant",
}


UV_NAMES = ("st", "st0", "st_0", "UVMap", "map1", "uv")
"""Primvars that hold texture coordinates by custom, where a material does not say which."""


@dataclass(frozen=True, slots=True)
class TextureMap:
    """A texture, and how a surface is laid out in it."""

    texture: Texture
    primvar: str = ""  # the texture coordinates; empty: one of UV_NAMES
    scale: tuple[float, float] = (1.0, 1.0)
    degrees: float = 0.0
    translation: tuple[float, float] = (0.0, 0.0)
    factor: RGB = (1.0, 1.0, 1.0)  # linear

    def place(self, st: np.ndarray) -> np.ndarray:
        """Texture coordinates, (n, 2), of a surface's own: scaled, turned, then moved (UsdTransform2d)."""
        u, v = st[:, 0] * self.scale[0], st[:, 1] * self.scale[1]
        cosine, sine = np.cos(np.radians(self.degrees)), np.sin(np.radians(self.degrees))
        turned = np.stack([u * cosine - v * sine, u * sine + v * cosine], axis=1)
        placed: np.ndarray = (turned + np.array(self.translation)).astype(np.float32)
        return placed


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
    picture: TextureMap | None = None  # replaces `color`

    def finish(self) -> Finish:
        """The part of the look that is not per vertex."""
        metal = self.metallic
        r, g, b = (float(v) for v in displayed(self.color))
        return Finish(
            roughness=round(self.roughness, 2),
            metallic=round(metal, 2),
            emission=tuple(round(float(v), 3) for v in displayed(self.emission)),  # type: ignore[arg-type]
            tint=(_tint(r, metal), _tint(g, metal), _tint(b, metal)),
            transparent=self.opacity < 0.999 or (self.picture is not None and self.picture.texture.alpha),
        )


UNBOUND = Paint()
"""The look of a prim without a material: its displayColor, on a plain finish."""


def displayed(linear: RGB) -> RGB:
    """Linear light to display values, by the sRGB curve's usual approximation."""
    r, g, b = (max(0.0, min(1.0, v)) ** (1 / 2.2) for v in linear)
    return (r, g, b)


class Palette:
    """Reads each material of a stage once."""

    def __init__(self) -> None:
        self._read: dict[str, Paint] = {}

    def of(self, prim: Any) -> Paint | None:
        """The paint bound to a prim or a subset, or None."""
        from pxr import UsdShade

        material, _ = UsdShade.MaterialBindingAPI(prim).ComputeBoundMaterial(UsdShade.Tokens.preview)
        if not material:
            return None
        path = str(material.GetPath())
        if path not in self._read:
            self._read[path] = read_material(material)
        return self._read[path]


def read_material(material: Any) -> Paint:
    """Read a UsdShadeMaterial. One that cannot be understood is the default grey."""
    shader = _surface(material, "")
    if shader and shader.GetIdAttr().Get() == "UsdPreviewSurface":
        return _paint(shader, {})
    shader = _surface(material, "mdl")
    return _paint(shader, MDL_NAMES) if shader else UNBOUND


def _surface(material: Any, context: str) -> Any:
    try:
        return material.ComputeSurfaceSource(context)[0]
    except TypeError:  # releases of USD differ: one context, or a list of them
        return material.ComputeSurfaceSource([context])[0]


def _paint(shader: Any, names: dict[str, str]) -> Paint:
    def read(name: str) -> tuple[Any, str | None]:
        return _input(shader, names.get(name, name))

    diffuse, color_primvar = read("diffuseColor")
    opacity, opacity_primvar = read("opacity")
    roughness, _ = read("roughness")
    metallic, _ = read("metallic")
    emission, _ = read("emissiveColor")
    _, occlusion_primvar = read("occlusion")
    if names and not _input(shader, "enable_emission")[0]:
        emission = None
    picture = _mdl_picture(shader) if names else _preview_picture(shader)
    return Paint(
        color=_rgb(diffuse, UNBOUND.color),
        opacity=_unit(opacity, 1.0),
        color_primvar=color_primvar,
        opacity_primvar=opacity_primvar,
        occlusion_primvar=occlusion_primvar,
        roughness=_unit(roughness, 0.5),
        metallic=_unit(metallic, 0.0),
        emission=_rgb(emission, (0.0, 0.0, 0.0)),
        picture=picture,
    )


def _preview_picture(shader: Any) -> TextureMap | None:
    """The UsdUVTexture that gives a UsdPreviewSurface its diffuse colour."""
    node = _source(shader, "diffuseColor", "UsdUVTexture")
    file = _asset(node, "file") if node else ""
    if not file:
        return None
    alpha = _source(shader, "opacity", "UsdUVTexture")
    wrap = tuple(str(_input(node, name)[0] or "repeat").removeprefix("useMetadata") for name in ("wrapS", "wrapT"))
    factor = _input(node, "scale")[0]
    layout = _source(node, "st", "UsdTransform2d")
    reader = _source(layout or node, "in" if layout else "st", "UsdPrimvarReader")
    varname = _input(reader, "varname")[0] if reader else ""
    turn, scale, translation = (_input(layout, n)[0] if layout else None for n in ("rotation", "scale", "translation"))
    return TextureMap(
        Texture(
            file, (wrap[0] or "repeat", wrap[1] or "repeat"), alpha=bool(alpha) and alpha.GetPath() == node.GetPath()
        ),
        primvar=str(varname or ""),
        scale=_pair(scale, (1.0, 1.0)),
        degrees=float(turn or 0.0),
        translation=_pair(translation, (0.0, 0.0)),
        factor=_rgb(tuple(factor)[:3] if factor is not None else None, (1.0, 1.0, 1.0)),
    )


def _mdl_picture(shader: Any) -> TextureMap | None:
    """The diffuse texture of OmniPBR and its relatives."""
    file = _asset(shader, "diffuse_texture")
    if not file:
        return None
    return TextureMap(
        Texture(file),
        scale=_pair(_input(shader, "texture_scale")[0], (1.0, 1.0)),
        degrees=float(_input(shader, "texture_rotate")[0] or 0.0),
        translation=_pair(_input(shader, "texture_translate")[0], (0.0, 0.0)),
        factor=_rgb(_input(shader, "diffuse_tint")[0], (1.0, 1.0, 1.0)),
    )


def _source(shader: Any, name: str, kind: str) -> Any:
    """The node of a kind that an input gets its value from, or None."""
    from pxr import UsdShade

    port = shader.GetInput(name)
    for attribute in UsdShade.Utils.GetValueProducingAttributes(port) if port else ():
        node = UsdShade.Shader(attribute.GetPrim())
        if node and str(node.GetIdAttr().Get() or "").startswith(kind):
            return node
    return None


def _asset(shader: Any, name: str) -> str:
    """The file that an input names; empty where it names none."""
    from pxr import Sdf, UsdShade

    port = shader.GetInput(name)
    for attribute in UsdShade.Utils.GetValueProducingAttributes(port) if port else ():
        value = attribute.Get()
        if not isinstance(value, Sdf.AssetPath) or not value.path:
            continue
        # A file that is missing, and a name with <UDIM>, which is of many files, resolve to nothing.
        specs = attribute.GetPropertyStack()
        return str(value.resolvedPath or Sdf.ComputeAssetPathRelativeToLayer(specs[0].layer, value.path))
    return ""


def _input(shader: Any, name: str) -> tuple[Any, str | None]:
    """(value, primvar name) of a shader input, through interfaces and connections."""
    from pxr import UsdShade

    port = shader.GetInput(name)
    if not port:
        return None, None
    sources = UsdShade.Utils.GetValueProducingAttributes(port)
    if not sources:
        return None, None
    attribute = sources[0]
    if UsdShade.Utils.GetType(attribute.GetName()) != UsdShade.AttributeType.Output:
        return attribute.Get(), None
    node = UsdShade.Shader(attribute.GetPrim())
    kind = str(node.GetIdAttr().Get() or "")
    fallback = node.GetInput("fallback").Get() if node.GetInput("fallback") else None
    if kind.startswith("UsdPrimvarReader"):
        varname = _input(node, "varname")[0]
        return fallback, str(varname) if varname else None
    if kind == "UsdUVTexture" and fallback is not None and any(tuple(fallback)[:3]):
        # Black is what the specification has where nothing is said, and of a texture that is there it says nothing.
        return tuple(fallback)[:3], None
    return None, None


def _rgb(value: Any, default: RGB) -> RGB:
    try:
        r, g, b = (float(v) for v in value)
    except (TypeError, ValueError):
        return default
    return (r, g, b)


def _pair(value: Any, default: tuple[float, float]) -> tuple[float, float]:
    try:
        u, v = (float(x) for x in value)
    except (TypeError, ValueError):
        return default
    return (u, v)


def _unit(value: Any, default: float) -> float:
    return default if not isinstance(value, int | float) else max(0.0, min(1.0, float(value)))


def _tint(channel: float, metallic: float) -> float:
    """A metal's highlight has its colour, a dielectric's is white."""
    return round((1 - metallic) + metallic * channel, 2)
