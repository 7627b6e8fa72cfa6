"""What the software renderer draws (`renderer`, `studio`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pxr import UsdGeom

from footlights.viewer.render.camera import Orbit, initial_orbit
from footlights.viewer.render.renderer import Overlay, Renderer
from tests.viewer.pictures import SIZE, from_the_front
from tests.viewer.stages import StageMaker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from footlights.viewer.scene.scene import Scene


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """A red cube on the left, a green one on the right, a blue one above; the green one vanishes at time 5."""
    maker = StageMaker(tmp_path / "s.usda")
    for name, place, color in (
        ("Red", (-3, 0, 0), (1, 0, 0)),
        ("Green", (3, 0, 0), (0, 1, 0)),
        ("Blue", (0, 0, 3), (0, 0, 1)),
    ):
        cube = UsdGeom.Cube.Define(maker.stage, f"/{name}")
        cube.AddTranslateOp().Set(place)
        cube.CreateDisplayColorAttr([color])
    green = UsdGeom.Imageable.Get(maker.stage, "/Green").GetVisibilityAttr()
    green.Set("inherited", 0)
    green.Set("invisible", 5)
    return maker.load()


@pytest.fixture
def renderer(scene: Scene) -> Iterator[Renderer]:
    made = Renderer(scene, *SIZE, 1.0)
    yield made
    made.close()


def front(scene: Scene) -> Orbit:
    """From the front: X to the right, Z up."""
    return from_the_front(initial_orbit(scene, SIZE[0] / SIZE[1]))


def middle_of(picture: np.ndarray[Any, Any], channel: int) -> tuple[float, float] | None:
    """Where a colour (0 blue, 1 green, 2 red) dominates: (x, y) in fractions of the picture."""
    others = [c for c in range(3) if c != channel]
    mask = picture[:, :, channel].astype(int) > picture[:, :, others].max(axis=2).astype(int) + 60
    if mask.sum() < 50:
        return None
    y, x = np.nonzero(mask)
    return float(x.mean() / picture.shape[1]), float(y.mean() / picture.shape[0])


def test_things_are_where_they_belong(scene: Scene, renderer: Renderer) -> None:
    """Left is left, up is up, and the colour channels are in the promised order."""
    picture = renderer.render(0, front(scene), Overlay())
    blue, green, red = (middle_of(picture, channel) for channel in range(3))

    assert blue is not None
    assert green is not None
    assert red is not None
    assert red[0] < blue[0] < green[0]
    assert blue[1] < red[1]


def test_time_moves_the_picture(scene: Scene, renderer: Renderer) -> None:
    """A prim that becomes invisible disappears, and comes back when time returns."""
    assert [middle_of(renderer.render(t, front(scene), Overlay()), 1) is None for t in (0, 6, 0)] == [
        False,
        True,
        False,
    ]


def test_the_size_can_change(scene: Scene, renderer: Renderer) -> None:
    """Supersampling changes while drawing goes on; the picture shows the same."""
    small = renderer.render(0, front(scene), Overlay())
    assert small.shape == (180, 320, 4)
    renderer.resize(*SIZE, 1.5)
    large = renderer.render(0, front(scene), Overlay())
    assert large.shape == (270, 480, 4)
    renderer.resize(*SIZE, 1.0)

    assert middle_of(large, 2) == pytest.approx(middle_of(small, 2), abs=0.02)
    assert renderer.render(0, front(scene), Overlay()).shape == (180, 320, 4)


def test_the_caption_is_drawn(scene: Scene, renderer: Renderer) -> None:
    """Text changes the lower middle of the picture and nothing else."""
    plain = renderer.render(0, front(scene), Overlay()).astype(int)
    written = renderer.render(0, front(scene), Overlay(caption="HELLO")).astype(int)
    rows = np.nonzero(np.abs(written - plain).sum(axis=(1, 2)))[0]

    assert rows.min() > 0.8 * SIZE[1]
    assert np.abs(written - plain).max() > 100
