"""What is made of materials (`network`, `surfaces`, `paint`, `palette`, `materialx`; and `left_out`, `assets`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pxr import Gf, Sdf, UsdGeom, UsdShade

from footlights.viewer.render.renderer import Renderer
from footlights.viewer.scene.left_out import MOST_KINDS, LeftOut
from tests.viewer.pictures import BLUE, GREEN, RED, SIZE, WHITE, card, seen, write
from tests.viewer.stages import StageMaker, only

if TYPE_CHECKING:
    from pathlib import Path

    from footlights.viewer.scene.scene import Finish

TYPES = Sdf.ValueTypeNames


@pytest.fixture
def maker(tmp_path: Path) -> StageMaker:
    return StageMaker(tmp_path / "stage.usda")


def node(maker: StageMaker, name: str, kind: str, **inputs: Any) -> Any:
    """A node of the material `M`. A tuple of two or three is a vector or a colour, a `Sdf.AssetPath` a file."""
    shader = UsdShade.Shader.Define(maker.stage, f"/Looks/M/{name}")
    shader.CreateIdAttr(kind)
    for key, value in inputs.items():
        if isinstance(value, UsdShade.Shader):
            shader.CreateInput(key, TYPES.Color3f).ConnectToSource(value.ConnectableAPI(), "out")
            continue
        of = {str: TYPES.String, float: TYPES.Float, int: TYPES.Int, bool: TYPES.Bool, Sdf.AssetPath: TYPES.Asset}
        width = {2: TYPES.Float2, 3: TYPES.Color3f}
        shader.CreateInput(key, width[len(value)] if isinstance(value, tuple) else of[type(value)]).Set(value)
    return shader


def surface(maker: StageMaker, shader: Any, context: str) -> Any:
    material = UsdShade.Material.Define(maker.stage, "/Looks/M")
    output = material.CreateSurfaceOutput(context) if context else material.CreateSurfaceOutput()
    output.ConnectToSource(shader.ConnectableAPI(), "out")
    return material


def mdl(maker: StageMaker, module: str, **inputs: Any) -> Any:
    shader = node(maker, "Mdl", "", **inputs)
    shader.GetPrim().RemoveProperty("info:id")
    shader.SetSourceAsset(f"{module}.mdl", "mdl")
    shader.SetSourceAssetSubIdentifier(module, "mdl")
    return surface(maker, shader, "mdl")


def finish_of(maker: StageMaker, material: Any) -> Finish:
    cube = UsdGeom.Cube.Define(maker.stage, "/Cube")
    maker.bind(cube, material)
    return only(maker.load()).finish


def color_of(maker: StageMaker, material: Any) -> list[float]:
    cube = UsdGeom.Cube.Define(maker.stage, "/Cube")
    maker.bind(cube, material)
    return [round(float(v) ** 2.2, 2) for v in only(maker.load()).colors[0][:3]]


@pytest.mark.parametrize(
    ("kind", "inputs", "color", "roughness", "metallic"),
    [
        ("ND_standard_surface_surfaceshader",
         {"base": 0.5, "base_color": (0.4, 0.8, 0.2), "specular_roughness": 0.3, "metalness": 1.0},
         [0.2, 0.4, 0.1], 0.3, 1.0),
        ("ND_open_pbr_surface_surfaceshader", {"base_color": (0.4, 0.8, 0.2), "base_metalness": 1.0},
         [0.4, 0.8, 0.2], 0.3, 1.0),
        ("ND_gltf_pbr_surfaceshader", {"base_color": (0.4, 0.8, 0.2), "metallic": 0.0, "roughness": 0.7},
         [0.4, 0.8, 0.2], 0.7, 0.0),
        ("ND_UsdPreviewSurface_surfaceshader", {"diffuseColor": (0.4, 0.8, 0.2), "roughness": 0.1},
         [0.4, 0.8, 0.2], 0.1, 0.0),
    ],
)  # fmt: skip
def test_materialx_surfaces_are_read(
    maker: StageMaker, kind: str, inputs: dict[str, Any], color: list[float], roughness: float, metallic: float
) -> None:
    """Standard Surface, OpenPBR, glTF's and UsdPreviewSurface: colour with its weight, roughness, metalness."""
    material = surface(maker, node(maker, "Surface", kind, **inputs), "mtlx")
    finish = finish_of(maker, material)

    assert color_of(maker, material) == color
    assert (finish.roughness, finish.metallic) == (roughness, metallic)


@pytest.mark.parametrize(
    ("module", "inputs", "color", "see_through"),
    [
        ("OmniPBR", {"diffuse_color_constant": (0.4, 0.8, 0.2)}, [0.4, 0.8, 0.2], False),
        ("OmniPBR", {"albedo_brightness": 0.5, "diffuse_color_constant": (0.4, 0.8, 0.2)}, [0.2, 0.4, 0.1], False),
        ("OmniPBR", {"opacity_constant": 0.2}, [0.2, 0.2, 0.2], False),
        ("OmniPBR", {"opacity_constant": 0.2, "enable_opacity": True}, [0.2, 0.2, 0.2], True),
        ("OmniGlass", {"glass_color": (0.4, 0.8, 0.2)}, [0.4, 0.8, 0.2], True),
        ("OmniSurface", {"diffuse_reflection_color": (0.4, 0.8, 0.2), "diffuse_reflection_weight": 0.5},
         [0.2, 0.4, 0.1], False),
        ("Carpet", {"diffuse_color_constant": (0.4, 0.8, 0.2)}, [0.4, 0.8, 0.2], False),
        ("gltf_material", {"base_color_factor": (0.4, 0.8, 0.2), "base_alpha": 0.5}, [0.4, 0.8, 0.2], True),
    ],
)  # fmt: skip
def test_mdl_materials_are_read(
    maker: StageMaker, module: str, inputs: dict[str, Any], color: list[float], see_through: bool
) -> None:
    """OmniPBR, OmniGlass, OmniSurface, modules made of them, and others by the common names of their inputs."""
    material = mdl(maker, module, **inputs)

    assert color_of(maker, material) == color
    assert finish_of(maker, material).transparent is see_through


def test_a_material_without_a_surface_leaves_the_prims_own_colour(maker: StageMaker) -> None:
    """As of RenderMan alone, or of MDL that is not there: never black."""
    cube = UsdGeom.Cube.Define(maker.stage, "/Cube")
    cube.CreateDisplayColorAttr([(0.4, 0.8, 0.2)])
    material = UsdShade.Material.Define(maker.stage, "/Looks/M")
    assert color_of(maker, material) == [0.4, 0.8, 0.2]

    odd = UsdShade.Material.Define(maker.stage, "/Looks/Odd")
    shader = UsdShade.Shader.Define(maker.stage, "/Looks/Odd/S")
    shader.CreateIdAttr("SomebodysShader")
    odd.CreateSurfaceOutput().ConnectToSource(shader.ConnectableAPI(), "out")
    assert color_of(maker, odd) == [0.5, 0.5, 0.5]
    assert any("not known" in line and "/Looks/Odd" in line for line in maker.load().left_out.lines())


def test_materialx_pictures_are_followed_through_their_graph(maker: StageMaker) -> None:
    """An image that is tiled, multiplied by a colour and converted is drawn, tiled and coloured."""
    write(maker.path.parent / "a.png", WHITE, WHITE, WHITE, WHITE)
    card(maker, "unused.png")
    picture = node(maker, "Image", "ND_tiledimage_color3", file=Sdf.AssetPath("./a.png"), uvtiling=(2.0, 2.0))
    tinted = node(maker, "Tint", "ND_multiply_color3", in1=picture, in2=(0.0, 0.0, 1.0))
    through = node(maker, "Saturate", "ND_saturate_color3", **{"in": tinted})
    shader = node(maker, "Surface", "ND_standard_surface_surfaceshader", base_color=through)
    maker.bind(maker.stage.GetPrimAtPath("/Card"), surface(maker, shader, "mtlx"))
    scene = maker.load()

    assert only(scene).uvs is not None
    assert float(only(scene).uvs.max()) == 2  # type: ignore[union-attr]
    assert set(seen(scene).values()) == {"blue"}


def test_a_loop_in_a_graph_ends(maker: StageMaker) -> None:
    """Nodes that feed each other give nothing, and the rest of the material is shown."""
    one = node(maker, "One", "ND_convert_color3")
    other = node(maker, "Other", "ND_convert_color3", **{"in": one})
    one.CreateInput("in", TYPES.Color3f).ConnectToSource(other.ConnectableAPI(), "out")
    shader = node(maker, "Surface", "ND_standard_surface_surfaceshader", base_color=one, metalness=1.0)

    assert finish_of(maker, surface(maker, shader, "mtlx")).metallic == 1.0


def test_scale_and_bias_change_a_picture(maker: StageMaker) -> None:
    """UsdUVTexture: what is black becomes the bias; what is white, the scale and the bias."""
    write(maker.path.parent / "a.png", WHITE, WHITE, (0, 0, 0), (0, 0, 0))
    card(maker, "./a.png", scale=Gf.Vec4f(0, 1, 0, 1), bias=Gf.Vec4f(1, 0, 0, 0))
    shown = seen(maker.load())
    assert (shown["ll"], shown["lr"]) == ("red", "red")

    card(maker, "./a.png", scale=Gf.Vec4f(-1, -1, 0, 1), bias=Gf.Vec4f(1, 1, 1, 0))
    assert (seen(maker.load())["ul"]) == "blue"


def test_light_comes_from_pictures_too(maker: StageMaker) -> None:
    """A black surface whose emissiveColor is a picture shows the picture, as a screen does."""
    write(maker.path.parent / "a.png", RED, GREEN, BLUE, WHITE)
    texture = card(maker, "./a.png")
    shader = UsdShade.Shader(maker.stage.GetPrimAtPath("/Looks/Textured/Surface"))
    shader.GetInput("diffuseColor").GetAttr().SetConnections([])
    shader.GetInput("diffuseColor").Set(Gf.Vec3f(0, 0, 0))
    shader.CreateInput("emissiveColor", TYPES.Color3f).ConnectToSource(texture.ConnectableAPI(), "rgb")

    assert seen(maker.load()) == {"ul": "red", "ur": "green", "ll": "blue", "lr": "grey"}


def test_opacity_of_its_own_picture_cuts_out(maker: StageMaker) -> None:
    """With a threshold nothing is blended: what is below is not there."""
    write(maker.path.parent / "a.png", RED, RED, RED, RED)
    write(maker.path.parent / "holes.png", WHITE, (0, 0, 0), WHITE, WHITE)
    color = card(maker, "./a.png")
    holes = UsdShade.Shader.Define(maker.stage, "/Looks/Textured/Holes")
    holes.CreateIdAttr("UsdUVTexture")
    holes.CreateInput("file", TYPES.Asset).Set("./holes.png")
    shader = UsdShade.Shader(maker.stage.GetPrimAtPath("/Looks/Textured/Surface"))
    shader.CreateInput("opacity", TYPES.Float).ConnectToSource(holes.ConnectableAPI(), "r")
    shader.CreateInput("opacityThreshold", TYPES.Float).Set(0.5)
    scene = maker.load()

    assert color
    assert not only(scene).finish.transparent
    assert {k: v for k, v in seen(scene).items() if k != "ur"} == {"ul": "red", "ll": "red", "lr": "red"}
    assert seen(scene)["ur"] != "red"


def test_roughness_and_metalness_are_the_mean_of_their_pictures(maker: StageMaker) -> None:
    """OmniPBR's packed picture, and normals: read without a word; one that is missing is counted."""
    write(maker.path.parent / "orm.png", (1, 0.2, 1), (1, 0.2, 1), (1, 0.4, 1), (1, 0.4, 1))
    cube = UsdGeom.Cube.Define(maker.stage, "/Cube")
    inputs = {"ORM_texture": Sdf.AssetPath("./orm.png"), "enable_ORM_texture": True}
    maker.bind(cube, mdl(maker, "OmniPBR", normalmap_texture=Sdf.AssetPath("./gone.png"), **inputs))
    scene = maker.load()
    finish = only(scene).finish
    renderer = Renderer(scene, *SIZE, 1.0)
    assert finish.roughness_image is not None
    assert finish.metallic_image is not None
    assert renderer.mean(finish.roughness_image) == pytest.approx(0.3, abs=0.02)
    assert renderer.mean(finish.metallic_image) == pytest.approx(1, abs=0.02)
    renderer.close()


def test_what_is_left_out_is_counted_by_kind() -> None:
    """One line a kind, with how often and where first; the number of kinds is bounded."""
    left_out = LeftOut()
    assert not left_out
    for k in range(3):
        left_out.add("Volume prims", f"/Smoke{k}")
    assert left_out.lines() == ["Volume prims: 3 (first: /Smoke0)"]

    for k in range(10 * MOST_KINDS):
        left_out.add(f"kind {k}")
    assert len(left_out.report()) <= MOST_KINDS + 1


DOCUMENT = """<?xml version="1.0"?>
<materialx version="1.38" colorspace="lin_rec709">
  <nodegraph name="NG">
    <image name="picture" type="color3">
      <input name="file" type="filename" value="tex/a.png" colorspace="srgb_texture" />
    </image>
    <output name="color" type="color3" nodename="picture" />
  </nodegraph>
  <standard_surface name="SR" type="surfaceshader">
    <input name="base_color" type="color3" nodegraph="NG" output="color" />
    <input name="metalness" type="float" value="0.0" />
    <input name="specular_roughness" type="float" value="0.7" />
  </standard_surface>
  <surfacematerial name="Red" type="material">
    <input name="surfaceshader" type="surfaceshader" nodename="SR" />
  </surfacematerial>
</materialx>
"""


def referring(maker: StageMaker) -> None:
    """A card with the material `Red` of `look.mtlx`."""
    card(maker, "unused.png")
    looks = maker.stage.DefinePrim("/Mtlx", "Scope")
    looks.GetReferences().AddReference("./look.mtlx", "/MaterialX/Materials")
    UsdShade.Material.Define(maker.stage, "/Mtlx/Red")
    maker.bind(maker.stage.GetPrimAtPath("/Card"), UsdShade.Material(maker.stage.GetPrimAtPath("/Mtlx/Red")))


def test_materialx_documents_are_read(maker: StageMaker) -> None:
    """A reference to a `.mtlx` file gives its materials, with the pictures beside it."""
    (maker.path.parent / "tex").mkdir()
    write(maker.path.parent / "tex" / "a.png", RED, GREEN, BLUE, WHITE)
    (maker.path.parent / "look.mtlx").write_text(DOCUMENT)
    referring(maker)
    scene = maker.load()

    assert only(scene).finish.roughness == 0.7
    assert seen(scene) == {"ul": "red", "ur": "green", "ll": "blue", "lr": "grey"}
    assert not scene.left_out


@pytest.mark.parametrize(
    "text",
    [
        "no xml",
        '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><materialx>&b;</materialx>',
        "<materialx>" + "<a/>" * 30_000 + "</materialx>",
        DOCUMENT.replace('value="0.7"', 'value="x"'),
        DOCUMENT.replace('nodename="picture"', 'nodename="gone"'),
        DOCUMENT.replace('name="SR"', 'name="1 2"').replace('nodename="SR"', 'nodename="1 2"'),
        "<materialx>" * 5_000 + "</materialx>" * 5_000,
    ],
)
def test_a_damaged_materialx_document_leaves_the_rest(maker: StageMaker, text: str) -> None:
    """What can be read of it is; the card is drawn whatever it holds."""
    (maker.path.parent / "look.mtlx").write_text(text)
    referring(maker)

    assert maker.load().triangle_count == 2
