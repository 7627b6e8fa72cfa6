"""USD materials, reduced to what a rasteriser with per-vertex lighting can show.

UsdPreviewSurface is read by its specification (diffuseColor, emissiveColor, opacity, metallic, roughness,
occlusion; a value or a UsdPrimvarReader). A texture stands for its fallback colour. Materials that only have an
MDL surface (OmniPBR and its relatives, as Omniverse writes them) are read by the names of their constants.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from footlights.viewer.scene.scene import Finish

RGB = tuple[float, float, float]

MDL_NAMES = {
    "diffuseColor": "diffuse_color_constant",
    "roughness": "reflection_roughness_constant",
    "metallic": "metallic_constant",
    "emissiveColor": "emissive_color",
    "opacity": "opacity_constant",
}


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

    def finish(self) -> Finish:
        """The part of the look that is not per vertex."""
        metal = self.metallic
        r, g, b = (float(v) for v in displayed(self.color))
        return Finish(
            roughness=round(self.roughness, 2),
            metallic=round(metal, 2),
            emission=tuple(round(float(v), 3) for v in displayed(self.emission)),  # type: ignore[arg-type]
            tint=(_tint(r, metal), _tint(g, metal), _tint(b, metal)),
            transparent=self.opacity < 0.999,
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
    shader, _, _ = material.ComputeSurfaceSource()
    if shader and shader.GetIdAttr().Get() == "UsdPreviewSurface":
        return _paint(shader, {})
    shader, _, _ = material.ComputeSurfaceSource(["mdl"])
    return _paint(shader, MDL_NAMES) if shader else UNBOUND


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
    return Paint(
        color=_rgb(diffuse, UNBOUND.color),
        opacity=_unit(opacity, 1.0),
        color_primvar=color_primvar,
        opacity_primvar=opacity_primvar,
        occlusion_primvar=occlusion_primvar,
        roughness=_unit(roughness, 0.5),
        metallic=_unit(metallic, 0.0),
        emission=_rgb(emission, (0.0, 0.0, 0.0)),
    )


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
    if kind == "UsdUVTexture" and fallback is not None:
        return tuple(fallback)[:3], None
    return None, None


def _rgb(value: Any, default: RGB) -> RGB:
    try:
        r, g, b = (float(v) for v in value)
    except (TypeError, ValueError):
        return default
    return (r, g, b)


def _unit(value: Any, default: float) -> float:
    return default if not isinstance(value, int | float) else max(0.0, min(1.0, float(value)))


def _tint(channel: float, metallic: float) -> float:
    """A metal's highlight has its colour, a dielectric's is white."""
    return round((1 - metallic) + metallic * channel, 2)
