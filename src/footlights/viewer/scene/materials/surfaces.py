"""Surface shaders, and the names that each gives to the same few things."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from footlights.viewer.scene.materials.network import ImageMap, Value, asset_of, has_input, pair, value_of
from footlights.viewer.scene.materials.paint import Layout, Paint
from footlights.viewer.scene.scene import Image, Texture

if TYPE_CHECKING:
    from footlights.viewer.scene.left_out import LeftOut

RGB = tuple[float, float, float]
Names = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Surface:
    """The inputs of a surface shader. Of several names the first that has a value counts."""

    color: Names
    default_color: RGB = (0.18, 0.18, 0.18)
    weight: Names = ()  # multiplies the colour
    color_picture: Names = ()  # replaces the colour
    tint: Names = ()  # multiplies the picture
    opacity: Names = ()
    opacity_picture: Names = ()
    opacity_switch: str = ""  # an input that must be true
    transmission: Names = ()  # 1: seen through
    cutoff: Names = ()
    roughness: Names = ()
    default_roughness: float = 0.5
    roughness_picture: Names = ()
    metallic: Names = ()
    default_metallic: float = 0.0
    metallic_picture: Names = ()
    emission: Names = ()
    emission_weight: Names = ()
    default_emission_weight: float = 1.0
    emission_picture: Names = ()
    emission_switch: str = ""
    occlusion: Names = ()
    normal: Names = ()
    packed: str = ""  # a picture of occlusion, roughness and metalness
    packed_switch: str = ""
    see_through: float = 1.0  # opacity where nothing else is said
    laid_out: bool = False  # its pictures have texture_scale, texture_rotate, texture_translate and project_uvw


PREVIEW: Final = Surface(
    color=("diffuseColor",), opacity=("opacity",), cutoff=("opacityThreshold",), roughness=("roughness",),
    metallic=("metallic",), emission=("emissiveColor",), occlusion=("occlusion",), normal=("normal",),
)  # fmt: skip
STANDARD: Final = Surface(
    color=("base_color",), default_color=(0.8, 0.8, 0.8), weight=("base",), opacity=("opacity",),
    transmission=("transmission",), roughness=("specular_roughness",), default_roughness=0.2, metallic=("metalness",),
    emission=("emission_color",), emission_weight=("emission",), default_emission_weight=0.0, normal=("normal",),
)  # fmt: skip
OPEN_PBR: Final = Surface(
    color=("base_color",), default_color=(0.8, 0.8, 0.8), weight=("base_weight",), opacity=("geometry_opacity",),
    transmission=("transmission_weight",), roughness=("specular_roughness",), default_roughness=0.3,
    metallic=("base_metalness",), emission=("emission_color",), emission_weight=("emission_luminance",),
    default_emission_weight=0.0, normal=("geometry_normal",),
)  # fmt: skip
GLTF: Final = Surface(
    color=("base_color",), default_color=(1.0, 1.0, 1.0), opacity=("alpha",), cutoff=("alpha_cutoff",),
    transmission=("transmission",), roughness=("roughness",), default_roughness=1.0, metallic=("metallic",),
    default_metallic=1.0, emission=("emissive",), emission_weight=("emissive_strength",), occlusion=("occlusion",),
    normal=("normal",),
)  # fmt: skip
UNLIT: Final = Surface(
    color=("color",), emission=("emission_color",), emission_weight=("emission",), opacity=("opacity",)
)
OMNI_PBR: Final = Surface(
    color=("diffuse_color_constant",), default_color=(0.2, 0.2, 0.2), weight=("albedo_brightness",),
    color_picture=("diffuse_texture",), tint=("diffuse_tint",), opacity=("opacity_constant",),
    opacity_picture=("opacity_texture",), opacity_switch="enable_opacity", cutoff=("opacity_threshold",),
    roughness=("reflection_roughness_constant",), roughness_picture=("reflectionroughness_texture",),
    metallic=("metallic_constant",), metallic_picture=("metallic_texture",),
    emission=("emissive_color",), emission_picture=("emissive_color_texture", "emissive_mask_texture"),
    emission_switch="enable_emission", occlusion=("ao_texture",), normal=("normalmap_texture",),
    packed="ORM_texture", packed_switch="enable_ORM_texture", laid_out=True,
)  # fmt: skip
OMNI_GLASS: Final = Surface(
    color=("glass_color",), default_color=(1.0, 1.0, 1.0), color_picture=("glass_color_texture",),
    roughness=("frosting_roughness",), default_roughness=0.05, normal=("normal_map_texture",), see_through=0.3,
    laid_out=True,
)  # fmt: skip
OMNI_SURFACE: Final = Surface(
    color=("diffuse_reflection_color",), default_color=(1.0, 1.0, 1.0), weight=("diffuse_reflection_weight",),
    color_picture=("diffuse_reflection_color_image",), opacity=("geometry_opacity",),
    opacity_picture=("geometry_opacity_image",), opacity_switch="enable_opacity",
    cutoff=("geometry_opacity_threshold",), transmission=("specular_transmission_weight",),
    roughness=("specular_reflection_roughness",), default_roughness=0.2,
    roughness_picture=("specular_reflection_roughness_image",), metallic=("metalness",),
    metallic_picture=("metalness_image",), emission=("emission_color",), emission_weight=("emission_weight",),
    default_emission_weight=0.0, emission_picture=("emission_color_image",), normal=("geometry_normal_image",),
    laid_out=True,
)  # fmt: skip
OTHER: Final = Surface(
    color=(
        "base_color", "baseColor", "base_color_factor", "diffuse_color", "diffuseColor", "diffuse_color_constant",
        "Base_Color", "BaseColor", "albedo", "Albedo", "basecolor", "diffuse", "color", "Color", "tint",
    ),
    default_color=(0.5, 0.5, 0.5),
    color_picture=(
        "base_color_texture", "baseColorTexture", "diffuse_texture", "BaseColor_Tex", "Base_Color_Tex",
        "albedo_texture", "basecolor_texture", "diffuse_color_texture", "color_texture", "BaseColorTexture",
        "albedo_map", "diffuse_map",
    ),
    opacity=("base_alpha", "opacity", "Opacity", "alpha", "presence"),
    roughness=("roughness", "Roughness", "roughness_factor", "specular_roughness", "specularRoughness"),
    metallic=("metallic", "Metallic", "metallic_factor", "metalness"),
    emission=("emissive_color", "emissive_factor", "emissiveColor", "emission_color"),
    emission_weight=("emissive_strength",),
    normal=("normal_texture", "normalmap_texture", "Normal_Tex"),
)  # fmt: skip
"""By the names that people commonly give, for a shader that is not known."""

_BY_ID: Final = (
    ("UsdPreviewSurface", PREVIEW), ("ND_UsdPreviewSurface", PREVIEW), ("ND_standard_surface", STANDARD),
    ("standard_surface", STANDARD), ("arnold:standard_surface", STANDARD), ("ND_open_pbr_surface", OPEN_PBR),
    ("open_pbr_surface", OPEN_PBR), ("ND_gltf_pbr", GLTF), ("ND_surface_unlit", UNLIT),
)  # fmt: skip
_BY_MDL: Final = (
    ("OmniPBR", OMNI_PBR), ("OmniGlass", OMNI_GLASS), ("OmniSurface", OMNI_SURFACE), ("OmniEmissive", OMNI_PBR),
)  # fmt: skip
_CONTEXTS: Final = ("", "mtlx", "mdl", "ri", "arnold", "kitchen")
_SEE_THROUGH: Final = 0.25
"""Opacity of what lets all light through: its shape is still to be seen."""


def read_material(material: Any, left_out: LeftOut) -> Paint | None:
    """Read a UsdShadeMaterial; None where it has no surface that is understood: the prim's own colour is shown."""
    unknown = None
    for context in _CONTEXTS:
        shader = _surface(material, context)
        if not shader:
            continue
        kind = _kind(shader)
        if kind is not None:
            return _paint(shader, kind, left_out)
        unknown = unknown or shader
    path = str(material.GetPath())
    if unknown is None:
        if material.GetPrim().GetAllChildren() or any(o.HasConnectedSource() for o in material.GetSurfaceOutputs()):
            left_out.add("materials whose surface is not read: their prims have their own colour", path)
        return None
    left_out.add("materials of shaders that are not known are read by the common names of inputs", path)
    return _paint(unknown, OTHER, left_out)


def _surface(material: Any, context: str) -> Any:
    try:
        return material.ComputeSurfaceSource([context] if context else [])[0]
    except TypeError:  # releases of USD differ: one context, or a list of them
        return material.ComputeSurfaceSource(context)[0]


def _kind(shader: Any) -> Surface | None:
    """The table of a shader, by its identifier or by the MDL module that it is of."""
    identifier = str(shader.GetIdAttr().Get() or "")
    for start, kind in _BY_ID:
        if identifier.startswith(start):
            return kind
    source = shader.GetSourceAsset("mdl")
    name = str(shader.GetSourceAssetSubIdentifier("mdl") or "")
    module = str(source.path if source else "").rpartition("/")[2]
    for start, kind in _BY_MDL:
        if name.startswith(start) or module.startswith(start):
            return kind
    # Modules derived from OmniPBR keep its inputs.
    return OMNI_PBR if has_input(shader, "diffuse_color_constant") or has_input(shader, "diffuse_texture") else None


def _paint(shader: Any, kind: Surface, left_out: LeftOut) -> Paint:
    path = str(shader.GetPath())
    color = _with_picture(shader, kind.color, kind.color_picture, kind.tint)
    color = color.scaled(value_of(shader, *kind.weight).number)
    opacity = _opacity(shader, kind)
    emission = _emission(shader, kind)
    roughness = _with_picture(shader, kind.roughness, kind.roughness_picture)
    metallic = _with_picture(shader, kind.metallic, kind.metallic_picture)
    occlusion, normal = value_of(shader, *kind.occlusion), value_of(shader, *kind.normal)
    if kind.packed and _switch(shader, kind.packed_switch) and (packed := asset_of(shader, kind.packed)):
        occlusion, roughness, metallic = (Value(map=ImageMap(Image(packed, channel=c, raw=True))) for c in "rgb")
    if any(value.computed for value in (color, opacity, emission)):
        left_out.add("shading graphs are followed, not evaluated", path)

    texture, layout = _texture(shader, kind, (color, opacity, emission, occlusion, normal), left_out)
    cutoff = value_of(shader, *kind.cutoff).number
    if texture is not None and texture.alpha is not None and cutoff:
        texture = replace(texture, cutout=cutoff)
    shown = color.color or (kind.default_color if color.map is None else _GREY)
    glow = (emission.color if emission.map is None else None) or (0.0, 0.0, 0.0)
    specular = value_of(shader, "specularColor").color if value_of(shader, "useSpecularWorkflow").number else None
    if specular is not None and max(specular) > 0.25:  # a metal, said in the other way
        shown, metallic = specular, Value(constant=1.0)
    if texture is not None:
        texture = replace(texture, base=shown if color.primvar is None else (1.0, 1.0, 1.0), light=glow)
    transmission = value_of(shader, *kind.transmission).number
    clear = _unit(opacity.number if opacity.map is None else None, kind.see_through)
    if transmission:
        clear *= 1 - (1 - _SEE_THROUGH) * min(1.0, max(0.0, transmission))
    return Paint(
        color=shown,
        opacity=clear,
        color_primvar=color.primvar,
        opacity_primvar=opacity.primvar,
        occlusion_primvar=occlusion.primvar,
        roughness=_unit(roughness.number, kind.default_roughness),
        metallic=_unit(metallic.number, kind.default_metallic),
        emission=glow,
        texture=texture,
        layout=layout,
        roughness_image=roughness.map.image if roughness.map else None,
        metallic_image=metallic.map.image if metallic.map else None,
    )


_GREY: Final = (0.18, 0.18, 0.18)


def _with_picture(shader: Any, names: Names, pictures: Names, tint: Names = ()) -> Value:
    """A value, or the picture that replaces it where there is one."""
    found, picture = value_of(shader, *names), value_of(shader, *pictures)
    if picture.map is None:
        return found
    return replace(picture.scaled(value_of(shader, *tint).color), constant=found.constant, primvar=None)


def _opacity(shader: Any, kind: Surface) -> Value:
    if kind.opacity_switch and not _switch(shader, kind.opacity_switch):
        return Value()
    if kind is GLTF and value_of(shader, "alpha_mode").number == 0:
        return Value()
    return _with_picture(shader, kind.opacity, kind.opacity_picture)


def _emission(shader: Any, kind: Surface) -> Value:
    if kind.emission_switch and not _switch(shader, kind.emission_switch):
        return Value()
    found = _with_picture(shader, kind.emission, kind.emission_picture)
    if not kind.emission_weight:
        return found
    weight = value_of(shader, *kind.emission_weight).number
    weight = kind.default_emission_weight if weight is None else weight
    if weight <= 0:
        return Value()
    return replace(found, constant=found.constant if found else (1.0, 1.0, 1.0)).scaled(min(1.0, weight))


def _texture(
    shader: Any, kind: Surface, values: tuple[Value, Value, Value, Value, Value], left_out: LeftOut
) -> tuple[Texture | None, Layout]:
    """The pictures of a surface as one texture, all laid out as the first of them."""
    maps = [value.map for value in values]
    first = next((each for each in maps if each is not None), None)
    if first is None:
        return None, Layout()
    layout = first.layout
    if kind.laid_out:
        layout = Layout(
            scale=pair(value_of(shader, "texture_scale").constant, (1.0, 1.0)),
            degrees=value_of(shader, "texture_rotate").number or 0.0,
            translation=pair(value_of(shader, "texture_translate").constant, (0.0, 0.0)),
            projected=_switch(shader, "project_uvw"),
        )
    kept: list[Image | None] = []
    for each in maps:
        alike = each is not None and (kind.laid_out or each.layout == first.layout)
        if each is not None and not alike:
            left_out.add("pictures laid out otherwise than the others of their material", each.image.file)
        kept.append(each.image if each is not None and alike else None)
    color, alpha, glow, occlusion, relief = kept
    if alpha is not None and alpha.channel == "rgb":
        alpha = replace(alpha, channel="a" if kind is PREVIEW else "r")
    if occlusion is not None and occlusion.channel == "rgb":
        occlusion = replace(occlusion, channel="r")
    return Texture(color, alpha, glow, occlusion, relief, wrap=first.wrap), layout


def _switch(shader: Any, name: str) -> bool:
    return bool(value_of(shader, name).constant)


def _unit(value: float | None, default: float) -> float:
    return default if value is None else max(0.0, min(1.0, value))
