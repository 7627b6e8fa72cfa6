"""Textured surfaces as they are drawn (`textures`), from files of the kinds that people have."""

from __future__ import annotations

import os
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
from panda3d import core
from pxr import Gf, Sdf, UsdGeom, UsdShade, UsdUtils

from footlights.viewer.render import textures
from footlights.viewer.scene import assets
from footlights.viewer.scene.left_out import LeftOut
from footlights.viewer.scene.roots import StageRoots
from footlights.viewer.scene.scene import Image, Texture
from footlights.viewer.scene.stage import load_scene
from tests.viewer.pictures import BLUE, GREEN, RED, WHITE, card, seen, write
from tests.viewer.stages import StageMaker

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def maker(tmp_path: Path) -> StageMaker:
    return StageMaker(tmp_path / "stage.usda")


@pytest.mark.parametrize("suffix", ["png", "jpg", "tga"])
def test_a_picture_is_drawn_the_right_way_up(maker: StageMaker, suffix: str) -> None:
    """(0, 0) is the lower left corner, also of a picture whose sides are no power of two."""
    write(maker.path.parent / f"a.{suffix}", RED, GREEN, BLUE, WHITE, size=100)
    card(maker, f"./a.{suffix}")

    assert seen(maker.load()) == {"ul": "red", "ur": "green", "ll": "blue", "lr": "grey"}


def test_layouts_are_followed(maker: StageMaker) -> None:
    """A picture that repeats twice, one that is mirrored, and one that UsdTransform2d turns and moves."""
    write(maker.path.parent / "a.png", RED, GREEN, BLUE, WHITE)
    node = card(maker, "a.png", wrapS="mirror", wrapT="mirror", st=[(0, 0), (2, 0), (2, 2), (0, 2)])
    # Mirrored at the middle, the upper right corner of the picture meets itself there.
    assert set(seen(maker.load()).values()) == {"green"}

    turn = UsdShade.Shader.Define(maker.stage, "/Looks/Textured/Turn")
    turn.CreateIdAttr("UsdTransform2d")
    turn.CreateInput("rotation", Sdf.ValueTypeNames.Float).Set(90.0)
    turn.CreateInput("scale", Sdf.ValueTypeNames.Float2).Set(Gf.Vec2f(0.5, 0.5))
    turn.CreateInput("translation", Sdf.ValueTypeNames.Float2).Set(Gf.Vec2f(1, 0))
    node.CreateInput("st", Sdf.ValueTypeNames.Float2).ConnectToSource(turn.ConnectableAPI(), "result")
    assert seen(maker.load()) == {"ul": "blue", "ur": "red", "ll": "grey", "lr": "green"}


def test_alpha_cuts_out(maker: StageMaker) -> None:
    """Where opacity is the texture's alpha, what is behind shows through; otherwise alpha is not looked at."""
    write(maker.path.parent / "leaf.png", (*RED, 1), (*GREEN, 0), (*BLUE, 1), (*RED, 1))
    node = card(maker, "leaf.png")
    assert seen(maker.load())["ur"] == "green"

    surface = UsdShade.Shader(maker.stage.GetPrimAtPath("/Looks/Textured/Surface"))
    surface.CreateInput("opacity", Sdf.ValueTypeNames.Float).ConnectToSource(node.ConnectableAPI(), "a")
    shown = seen(maker.load())
    assert (shown["ul"], shown["ll"], shown["lr"]) == ("red", "blue", "red")
    assert shown["ur"] != "green"


def test_tiles_are_found(maker: StageMaker) -> None:
    """UDIM: each part of the surface has the picture of its own tile."""
    for number, color in ((1001, BLUE), (1002, RED), (1011, RED), (1012, GREEN)):
        write(maker.path.parent / f"t.{number}.png", color, color, color, color)
    card(maker, "./t.<UDIM>.png")
    mesh = UsdGeom.Mesh(maker.stage.GetPrimAtPath("/Card"))
    points = [(x, 0, z) for z in (0, 1, 2) for x in (-1, 0, 1)]
    mesh.GetPointsAttr().Set(points)
    mesh.GetFaceVertexCountsAttr().Set([4] * 4)
    mesh.GetFaceVertexIndicesAttr().Set([i for k in (0, 1, 3, 4) for i in (k, k + 1, k + 4, k + 3)])
    UsdGeom.PrimvarsAPI(mesh).GetPrimvar("st").Set([(x + 1, z) for x, _, z in points])

    assert seen(maker.load()) == {"ul": "red", "ur": "green", "ll": "blue", "lr": "red"}


def test_a_package_holds_its_pictures(maker: StageMaker, tmp_path: Path) -> None:
    """A usdz file is shown with the pictures that are in it."""
    write(maker.path.parent / "a.png", RED, GREEN, BLUE, WHITE)
    card(maker, "./a.png")
    maker.stage.GetRootLayer().Save()
    package = tmp_path / "elsewhere" / "stage.usdz"
    package.parent.mkdir()
    assert UsdUtils.CreateNewUsdzPackage(Sdf.AssetPath(str(maker.path)), str(package))
    (maker.path.parent / "a.png").unlink()

    assert seen(load_scene(package)) == {"ul": "red", "ur": "green", "ll": "blue", "lr": "grey"}


def nothing(path: Path) -> None:
    path.unlink(missing_ok=True)


def garbage(path: Path) -> None:
    path.write_bytes(b"not a picture")


def half(path: Path) -> None:
    write(path, RED, RED, RED, RED)
    path.write_bytes(path.read_bytes()[:40])


def directory(path: Path) -> None:
    path.mkdir()


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def pipe(path: Path) -> None:
    os.mkfifo(path)


def large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(assets.MAX_FILE_BYTES + 1)


@pytest.mark.parametrize("damage", [nothing, garbage, half, directory, endless, pipe, large])
def test_a_picture_that_cannot_be_read_is_grey_and_said(maker: StageMaker, damage: Any) -> None:
    """Missing, of no known format, cut off, no file or an endless one: its surface is grey, and it is said which."""
    damage(maker.path.parent / "a.png")
    card(maker, "./a.png")
    scene = maker.load()

    assert set(seen(scene).values()) == {"grey"}
    (line,) = scene.left_out.lines()
    assert "shown grey" in line
    assert "a.png" in line


def encrypted(package: bytearray, local: int, central: int) -> None:
    package[local + 6] |= 1
    package[central + 8] |= 1


def of_unknown_method(package: bytearray, local: int, central: int) -> None:
    package[local + 8 : local + 10] = package[central + 10 : central + 12] = b"\x63\0"


def corrupt(package: bytearray, local: int, central: int) -> None:
    package[local + 60 : local + 90] = b"\xff" * 30


def with_bomb(package: bytearray, local: int, central: int) -> None:
    """The directory says that it is small."""
    package[central + 24 : central + 28] = (100).to_bytes(4, "little")


def cut_off(package: bytearray, local: int, central: int) -> None:
    """The directory says that it is longer than the package."""
    package[central + 20 : central + 24] = (1 << 30).to_bytes(4, "little")


@pytest.mark.parametrize("damage", [encrypted, of_unknown_method, corrupt, with_bomb, cut_off])
def test_a_damaged_package_is_grey_and_said(tmp_path: Path, damage: Any) -> None:
    """Whatever its decompressor makes of it: zlib's errors, RuntimeError, NotImplementedError, EOFError."""
    package = tmp_path / "a.usdz"
    with zipfile.ZipFile(package, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", os.urandom(5000))
    content = bytearray(package.read_bytes())
    damage(content, content.index(b"PK\3\4"), content.index(b"PK\1\2"))
    package.write_bytes(content)

    left_out = LeftOut()
    loaded = textures.Textures(core, StageRoots(), left_out).load(Texture(Image(f"{package}[a.png]")))

    assert (loaded.getXSize(), loaded.getYSize()) == (1, 1)
    assert "a.usdz[a.png]" in left_out.lines()[0]


def test_a_picture_of_too_many_pixels_is_not_decoded(maker: StageMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small file may hold a very large picture."""
    write(maker.path.parent / "a.png", RED, RED, RED, RED)
    monkeypatch.setattr(textures, "MAX_PIXELS", 1000)
    card(maker, "./a.png")
    scene = maker.load()

    assert set(seen(scene).values()) == {"grey"}
    assert "64 x 64 pixels are too many" in scene.left_out.lines()[0]


def test_mdl_materials_have_colours_and_pictures(maker: StageMaker) -> None:
    """A material with an MDL surface alone, as Omniverse writes them: its constant, or its diffuse texture."""
    write(maker.path.parent / "a.png", RED, GREEN, BLUE, WHITE)
    card(maker, "unused.png")
    material = UsdShade.Material.Define(maker.stage, "/Looks/Mdl")
    shader = UsdShade.Shader.Define(maker.stage, "/Looks/Mdl/Shader")
    shader.SetSourceAsset("OmniPBR.mdl", "mdl")
    shader.SetSourceAssetSubIdentifier("OmniPBR", "mdl")
    shader.CreateInput("diffuse_color_constant", Sdf.ValueTypeNames.Color3f).Set(Gf.Vec3f(0, 0, 1))
    material.CreateSurfaceOutput("mdl").ConnectToSource(shader.ConnectableAPI(), "out")
    maker.bind(maker.stage.GetPrimAtPath("/Card"), material)
    assert set(seen(maker.load()).values()) == {"blue"}

    shader.CreateInput("diffuse_texture", Sdf.ValueTypeNames.Asset).Set("./a.png")
    assert seen(maker.load()) == {"ul": "red", "ur": "green", "ll": "blue", "lr": "grey"}
