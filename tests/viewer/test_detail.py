"""Heavy scenes are drawn coarser, before pictures are dropped (`render.detail`, and the ladder of `render_loop`)."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from footlights.viewer.options import ViewerOptions
from footlights.viewer.render import detail
from footlights.viewer.render.camera import framed
from footlights.viewer.render.render_loop import RenderLoop, ladder
from footlights.viewer.render.renderer import Overlay, Renderer
from footlights.viewer.scene.roots import StageRoots
from footlights.viewer.scene.stage import load_scene
from footlights.viewer.stages import sample_path
from tests.viewer.pictures import SIZE
from tests.viewer.stages import StageMaker

if TYPE_CHECKING:
    from pathlib import Path

    from footlights.viewer.scene.scene import Scene


@pytest.fixture
def heavy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wavy sheet of 80,000 triangles, where 20,000 and 5,000 are coarse."""
    monkeypatch.setattr(detail, "LEVELS", (20_000, 5_000))
    maker = StageMaker(tmp_path / "sheet.usda")
    side = 201
    x, y = np.meshgrid(np.linspace(-1, 1, side), np.linspace(-1, 1, side))
    points = np.stack([x, y, 0.2 * np.sin(5 * x) * np.cos(4 * y)], axis=2).reshape(-1, 3)
    first = (np.arange(side - 1)[:, None] * side + np.arange(side - 1)).reshape(-1)
    faces = np.stack([first, first + 1, first + side + 1, first + side], axis=1)
    sheet = maker.mesh("/Sheet", points.astype(np.float32), [4] * len(faces), faces.reshape(-1).tolist())
    sheet.CreateDisplayColorAttr([(1, 0.5, 0.1)])
    maker.stage.GetRootLayer().Save()
    return maker.path


@pytest.fixture
def scene(heavy: Path) -> Scene:
    return load_scene(heavy)


def test_a_coarser_copy_looks_the_same(scene: Scene) -> None:
    """It has about as many triangles as it should, and hardly a pixel shows something else."""
    renderer = Renderer(scene, *SIZE, 1.0)
    orbit = framed(scene.bounds, SIZE[0] / SIZE[1])
    fine = renderer.render(0, orbit, Overlay()).astype(int)
    pictures = []
    for level in (2, 1):
        renderer.set_detail(level)
        pictures.append(renderer.render(0, orbit, Overlay()).astype(int))
    renderer.set_detail(0)
    again = renderer.render(0, orbit, Overlay()).astype(int)
    triangles = renderer.triangles
    renderer.close()

    assert triangles[0] == 80_000
    assert 10_000 < triangles[1] < 30_000
    assert 2_500 < triangles[2] < 9_000
    for picture in pictures:
        assert (np.abs(fine - picture).max(axis=2) > 60).mean() < 0.02
    assert np.abs(fine - again).max() == 0


def test_what_is_light_has_no_copies() -> None:
    """The samples are drawn as they are."""
    assert detail.coarser(load_scene(sample_path("theatre"))) == []


def test_resolution_goes_first_then_detail_then_softness() -> None:
    """Each step costs less; a supersampling that was asked for stays."""
    steps = ladder(0, [1_400_000, 140_000, 60_000])
    assert [(q.supersampling, q.detail) for q in steps] == [
        (1.5, 0), (1.25, 0), (1.0, 0), (1.0, 1), (1.0, 2), (0.75, 2), (0.5, 2),
    ]  # fmt: skip
    assert [q.cost for q in steps] == sorted((q.cost for q in steps), reverse=True)
    assert {q.supersampling for q in ladder(1.25, [1_400_000, 140_000])} == {1.25}


def test_pictures_keep_coming_and_one_at_rest_is_the_best(heavy: Path) -> None:
    """While the camera moves a slow renderer is coarser; at rest it shows every triangle, at the full size."""
    ready = threading.Event()
    failed: list[Any] = []
    options = ViewerOptions(1, 2, 3, usd_stage_uri=str(heavy), width=320, height=180, fps=60)
    loop = RenderLoop(options, StageRoots(), ready.set, failed.append)
    widths: list[int] = []
    loop.start()
    try:
        assert ready.wait(60), failed
        loop.deliver_to(lambda frame, _seconds: widths.append(frame.width))
        loop.watch(True)
        deadline = time.monotonic() + 30
        while not widths or widths[-1] != 480:  # 1.5 times the stream's
            assert time.monotonic() < deadline, widths[-5:]
            threading.Event().wait(0.02)
        best = len(widths)
        while len(widths) < best + 5:
            assert time.monotonic() < deadline
            threading.Event().wait(0.02)
        assert widths[-1] == 480
    finally:
        loop.stop(5)
