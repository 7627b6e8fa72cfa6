"""What a stage pulls in lies below the roots: references, payloads, clips, textures, packages, redirects.

Covers `confine` and what `fetch` does with redirects.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pxr import Sdf, UsdGeom, UsdUtils

from footlights.viewer.failure import ViewerFailure
from footlights.viewer.scene.assets import read_asset
from footlights.viewer.scene.fetch import local_stage
from footlights.viewer.scene.roots import StageRoots
from footlights.viewer.scene.stage import load_scene
from tests.viewer.stages import StageMaker
from tests.viewer.viewer_process import ready_viewer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from footlights.viewer.scene.scene import Scene

SECRET = '#usda 1.0\n(defaultPrim = "S")\ndef Sphere "S" {\n double radius = 7\n}\n'
CUBE = '#usda 1.0\n(defaultPrim = "C")\ndef Cube "C" {}\n'

WAYS = {
    "a reference": 'def "A" (references = @{out}@) {{}}',
    "a payload": 'def "A" (payload = @{out}@) {{}}',
    "one by a relative path": 'def "A" (references = @../out/secret.usda@) {{}}',
    "one by a path that leads out and in": 'def "A" (references = @./in/../../out/secret.usda@) {{}}',
    "one in a variant": (
        'def "A" (\n variants = {{ string v = "a" }}\n prepend variantSets = "v"\n)\n'
        '{{\n variantSet "v" = {{\n "a" (references = @{out}@) {{\n}}\n}}\n}}'
    ),
    "one behind a layer that is allowed": 'def "A" (references = @./middle.usda@) {{}}',
    "one behind a symbolic link": 'def "A" (references = @./link.usda@) {{}}',
    "one in an inherited class": 'class "_k" (references = @{out}@) {{}}\ndef "A" (inherits = </_k>) {{}}',
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root, beside it a stage that is none of the session's, and in it ways that lead there."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "secret.usda").write_text(SECRET)
    root = tmp_path / "root"
    (root / "in").mkdir(parents=True)
    (root / "cube.usda").write_text(CUBE)
    (root / "middle.usda").write_text('#usda 1.0\n(defaultPrim = "M")\ndef "M" (references = @../out/secret.usda@) {}')
    (root / "link.usda").symlink_to(tmp_path / "out" / "secret.usda")
    return root


def opened(root: Path, text: str) -> Scene:
    stage = root / "main.usda"
    stage.write_text(text)
    return load_scene(stage, roots=StageRoots.of([str(root)]))


def width(scene: Scene) -> float:
    return scene.bounds.high[0] - scene.bounds.low[0]


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_nothing_outside_is_pulled_in(root: Path, way: str) -> None:
    """It is left out with a warning, and what is allowed is shown; without roots it is pulled in, so the way is one."""
    out = root.parent / "out" / "secret.usda"
    text = '#usda 1.0\n(metersPerUnit = 1)\ndef "B" (references = @./cube.usda@) {}\n' + way.format(out=out)

    (root / "before.usda").write_text(text)
    before = width(load_scene(root / "before.usda"))

    scene = opened(root, text)

    assert before > 10
    assert width(scene) == pytest.approx(2)
    assert any("outside of the roots" in warning for warning in scene.left_out.lines())


def test_a_stage_that_is_a_link_to_outside_is_not_opened(root: Path) -> None:
    """Its name is below a root; only the viewer sees where it leads. A root may itself be such a link."""
    link, secret = root / "link.usda", root.parent / "out" / "secret.usda"

    for uri in (str(link), f"file://{link}"):
        with pytest.raises(ViewerFailure, match="not below a root"), local_stage(uri, StageRoots.of([str(root)])):
            pass
    with local_stage(str(link), StageRoots.of([str(root), str(link)])) as source:
        assert source.path.samefile(secret)


def test_sublayers_and_clips_outside_are_left_out(root: Path) -> None:
    """Also those whose names are made of a template."""
    out = root.parent / "out"
    scene = opened(
        root,
        f"""#usda 1.0
( metersPerUnit = 1
  subLayers = [@../out/secret.usda@, @./cube.usda@] )
def "K" (clips = {{
    dictionary default = {{
        asset manifestAssetPath = @{out}/secret.usda@
        string templateAssetPath = "{out}/secret.#.usda"
    }}
}}) {{}}
""",
    )

    assert width(scene) == pytest.approx(2)
    assert [each["count"] for each in scene.left_out.report() if "outside of the roots" in each["what"]] == [3]


@pytest.mark.parametrize(("directory", "seen"), [("./", 2), ("../out/secret", 0)])
def test_a_path_that_is_an_expression_is_what_it_means_in_its_layer(root: Path, directory: str, seen: int) -> None:
    """It is held to the roots as any other, and means nothing else afterwards."""
    name = "cube" if seen else ""
    text = f"""#usda 1.0
( metersPerUnit = 1
  expressionVariables = {{ string D = "{directory}" }} )
def "B" (references = @`"${{D}}{name}.usda"`@) {{}}
def Cylinder "Own" {{}}
"""
    scene = opened(root, text)

    assert width(scene) == pytest.approx(2)
    assert bool(scene.left_out) is not bool(seen)


def test_an_expression_of_another_layers_variables_leads_nowhere(root: Path) -> None:
    """What it would mean is known only when the stage is composed, too late to be checked."""
    (root / "lib.usda").write_text('#usda 1.0\n(defaultPrim = "L")\ndef "L" (references = @`"${D}.usda"`@) {}\n')
    text = """#usda 1.0
( metersPerUnit = 1
  expressionVariables = { string D = "../out/secret" } )
def "B" (references = @./lib.usda@) {}
def Cube "Own" {}
"""
    (root / "before.usda").write_text(text)
    before = width(load_scene(root / "before.usda"))

    assert before > 10
    assert width(opened(root, text)) == pytest.approx(2)


def test_what_is_allowed_is_there(root: Path) -> None:
    """References, payloads and layers of layers below the root, and another root."""
    other = root.parent / "library"
    other.mkdir()
    (other / "ball.usda").write_text(SECRET)
    (root / "in" / "deep.usda").write_text(
        f'#usda 1.0\n(defaultPrim = "D")\ndef "D" (payload = @{other}/ball.usda@) {{}}'
    )
    (root / "main.usda").write_text('#usda 1.0\n(metersPerUnit = 1)\ndef "A" (references = @./in/deep.usda@) {}')

    scene = load_scene(root / "main.usda", roots=StageRoots.of([str(root), str(other)]))

    assert width(scene) == pytest.approx(14, rel=0.05)
    assert not scene.left_out


def test_a_package_has_its_own_files(root: Path) -> None:
    """They lie in it, wherever it is."""
    whole = root / "in" / "good.usda"
    whole.write_text('#usda 1.0\n(metersPerUnit = 1\n defaultPrim = "A")\ndef "A" (references = @../cube.usda@) {}')
    assert UsdUtils.CreateNewUsdzPackage(Sdf.AssetPath(str(whole)), str(root / "good.usdz"))

    scene = load_scene(root / "good.usdz", roots=StageRoots.of([str(root / "nowhere")]))

    assert width(scene) == pytest.approx(2)


def test_a_texture_outside_is_not_read(root: Path) -> None:
    """Whatever its name says: it is what was opened that counts."""
    (root.parent / "out" / "picture.png").write_bytes(b"picture")
    (root / "picture.png").write_bytes(b"picture")
    (root / "linked.png").symlink_to(root.parent / "out" / "picture.png")
    roots = StageRoots.of([str(root)])

    assert read_asset(str(root / "picture.png"), roots) == b"picture"
    for name in (root.parent / "out" / "picture.png", root / "linked.png", root / ".." / "out" / "picture.png"):
        with pytest.raises(ValueError, match="not below a root"):
            read_asset(str(name), roots)


def test_a_textures_path_outside_is_taken_out(root: Path) -> None:
    """A value is a path as a reference is."""
    maker = StageMaker(root / "main.usda")
    cube = UsdGeom.Cube.Define(maker.stage, "/Cube")
    cube.GetPrim().CreateAttribute("file", Sdf.ValueTypeNames.Asset).Set("../out/secret.usda")
    maker.stage.GetRootLayer().Save()
    del maker, cube

    scene = load_scene(root / "main.usda", roots=StageRoots.of([str(root)]))

    assert any("secret.usda" in warning for warning in scene.left_out.lines())


class Server(BaseHTTPRequestHandler):
    """Sends a cube, or elsewhere."""

    def do_GET(self) -> None:
        if self.path.startswith("/stages/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/stages/to"))
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(CUBE.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_redirect_outside_is_not_followed(web: str) -> None:
    """Not to another path, nor to what only the node reaches; one that stays inside is."""
    roots = StageRoots.of([f"{web}/stages/"])
    with local_stage(f"{web}/stages/to/stages/cube.usda", roots) as found:
        assert width(load_scene(found.path, roots=found.roots)) > 0
    for target in ("/internal/cube.usda", "/stages/../internal/cube.usda", "//127.0.0.1:1/stages/cube.usda"):
        with pytest.raises(ViewerFailure, match="redirected to"), local_stage(f"{web}/stages/to{target}", roots):
            pass


def test_a_stage_of_the_web_pulls_in_nothing_of_the_node(web: str, root: Path, tmp_path: Path) -> None:
    """It lies in a directory of its own."""
    roots = StageRoots.of([f"{web}/stages/"])
    with local_stage(f"{web}/stages/cube.usda", roots) as found:
        assert found.roots.admits_file(found.path)
        assert not found.roots.admits_file(root / "cube.usda")
        assert not found.roots.admits_file("/etc/passwd")


def test_a_secret_stage_is_opened_and_named_nowhere(web: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line has its address without the signature; neither the log nor the status has it whole."""
    address = f"{web}/stages/cube.usda"
    content = {"usd_stage_uri": f"{address}?X-Amz-Signature=0123abc", "FOOTLIGHTS_STAGE_ROOTS": [f"{web}/stages/"]}
    (tmp_path / "session.json").write_text(json.dumps(content))
    monkeypatch.setenv("FOOTLIGHTS_SESSION_FILE", str(tmp_path / "session.json"))

    with ready_viewer(f"{address}?[redacted]", tmp_path / "log") as viewer:
        startup = viewer.get("/v1/streaming/startup")
        command = b" ".join(Path(f"/proc/{viewer.process.pid}/cmdline").read_bytes().split(b"\0")).decode()

    assert startup[1]["triangles"] == 12
    assert "0123abc" not in f"{startup} {command} {viewer.log.read_text()}"
