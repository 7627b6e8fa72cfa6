"""What mouse and keyboard do to the view (`controls`, `camera`)."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from footlights.viewer.controls import MAX_CAPTION, MAX_MESSAGE, Controls, parse
from footlights.viewer.render.camera import framed, initial_orbit
from footlights.viewer.scene.scene import Bounds, Scene, Timeline, View

ASPECT = 16 / 9


def scene(view: View | None = None) -> Scene:
    return Scene("s", [], [], Bounds((-1, -1, 0), (1, 1, 2)), Timeline(0, 0, 24), [view] if view else [])


@pytest.fixture
def controls() -> Controls:
    return Controls(scene(), ASPECT)


def drag(controls: Controls, dx: float, dy: float, *, button: int = 0, **more: Any) -> None:
    mask = {0: 1, 1: 4, 2: 2}[button]
    controls.apply({"type": "pointer", "action": "down", "x": 0.5, "y": 0.5, "button": button, "buttons": mask, **more})
    controls.apply({"type": "pointer", "action": "move", "x": 0.5 + dx, "y": 0.5 + dy, "button": -1, "buttons": mask})
    controls.apply({"type": "pointer", "action": "up", "x": 0.5 + dx, "y": 0.5 + dy, "button": button, "buttons": 0})


def press(controls: Controls, *keys: str, modifiers: list[str] | None = None) -> None:
    for key in keys:
        for action in ("down", "up"):
            controls.apply({"type": "key", "action": action, "key": key, "code": "", "modifiers": modifiers or []})


class TestPointer:
    def test_left_drag_orbits(self, controls: Controls) -> None:
        """Half a picture to the right is half a turn, at the same distance from the same target."""
        before = controls.orbit
        drag(controls, 0.5, 0.0)
        after = controls.orbit

        assert math.cos(after.azimuth - before.azimuth) == pytest.approx(-1)
        assert (after.target, after.distance) == (before.target, before.distance)

    def test_elevation_stops_before_the_pole(self, controls: Controls) -> None:
        """However far one drags, the camera never turns over."""
        for _ in range(5):
            drag(controls, 0.0, 0.9)

        assert math.radians(80) < controls.orbit.elevation < math.pi / 2

    @pytest.mark.parametrize(("button", "more"), [(1, {}), (2, {}), (0, {"modifiers": ["Shift"]})])
    def test_the_other_drags_pan(self, controls: Controls, button: int, more: dict[str, Any]) -> None:
        """Right, middle and Shift-left drags move the target and keep the direction."""
        before = controls.orbit
        drag(controls, 0.2, 0.1, button=button, **more)
        after = controls.orbit

        assert after.target != before.target
        assert (after.azimuth, after.elevation, after.distance) == (before.azimuth, before.elevation, before.distance)

    def test_moving_without_a_button_does_nothing(self, controls: Controls) -> None:
        """Neither before a press, nor after a release that the page did not see, nor after a cancel."""
        before = controls.orbit
        controls.apply({"type": "pointer", "action": "move", "x": 0.9, "y": 0.9, "buttons": 1})
        controls.apply({"type": "pointer", "action": "down", "x": 0.5, "y": 0.5, "button": 0, "buttons": 1})
        controls.apply({"type": "pointer", "action": "move", "x": 0.9, "y": 0.9, "buttons": 0})
        controls.apply({"type": "pointer", "action": "down", "x": 0.5, "y": 0.5, "button": 0, "buttons": 1})
        controls.apply({"type": "pointer", "action": "cancel"})
        controls.apply({"type": "pointer", "action": "move", "x": 0.1, "y": 0.1, "buttons": 1})

        assert controls.orbit == before

    def test_the_wheel_dollies_within_bounds(self, controls: Controls) -> None:
        """A turn towards the viewer goes away; neither end is passed."""
        before = controls.orbit.distance
        controls.apply({"type": "wheel", "dx": 0, "dy": 100})
        assert controls.orbit.distance > before
        for _ in range(100):
            controls.apply({"type": "wheel", "dx": 0, "dy": -5000})

        assert 0 < controls.orbit.distance < before


class TestKeys:
    def test_typing_shows_and_can_be_erased(self, controls: Controls) -> None:
        """Printable keys and text make the caption; Backspace and Escape erase it."""
        press(controls, "H", "i")
        controls.apply({"type": "text", "text": " you\n"})
        assert controls.caption == "Hi you "
        press(controls, "Backspace")
        assert controls.caption == "Hi you"
        press(controls, "Escape")
        assert controls.caption == ""

    def test_enter_closes_a_caption(self, controls: Controls) -> None:
        """It stays, and the next character starts a new one."""
        press(controls, "a", "Enter")
        assert controls.caption == "a"
        press(controls, "b")
        assert controls.caption == "b"

    def test_captions_are_bounded(self, controls: Controls) -> None:
        """The end of what was typed is kept."""
        controls.apply({"type": "text", "text": "x" * 500 + "!"})

        assert len(controls.caption) == MAX_CAPTION
        assert controls.caption.endswith("!")

    def test_space_pauses_only_without_a_caption(self, controls: Controls) -> None:
        """While somebody types, a space is a space."""
        press(controls, " ")
        assert controls.paused
        press(controls, " ", "a", " ")
        assert (controls.paused, controls.caption) == (False, "a ")

    def test_shortcuts_of_the_browser_are_not_typed(self, controls: Controls) -> None:
        """Control-C is not a c; Shift is part of a character."""
        press(controls, "c", modifiers=["Control"])
        press(controls, "C", modifiers=["Shift"])
        press(controls, "Shift", "F5", "Tab")

        assert controls.caption == "C"

    def test_home_returns(self, controls: Controls) -> None:
        """Home is the first view again; arrows turn."""
        before = controls.orbit
        press(controls, "ArrowLeft", "ArrowUp")
        assert controls.orbit != before
        press(controls, "Home")
        assert controls.orbit == before


class TestView:
    def test_everything_is_in_the_picture(self) -> None:
        """Without a camera, the scene's sphere fits into the narrower angle, nearly."""
        orbit = framed(Bounds((-1, -1, -1), (1, 1, 1)), ASPECT)

        assert orbit.target == (0, 0, 0)
        assert math.dist(orbit.eye, (0, 0, 0)) == pytest.approx(orbit.distance)
        assert 0.8 < orbit.distance * math.sin(math.radians(orbit.vertical_fov / 2)) / math.sqrt(3) < 1.2

    def test_the_authored_camera_is_the_first_view(self) -> None:
        """Eye and target are those of the camera."""
        orbit = initial_orbit(scene(View((3, -4, 5), (0, 0, 1), 30)), ASPECT)

        assert orbit.eye == pytest.approx((3, -4, 5))
        assert (orbit.target, orbit.vertical_fov) == ((0, 0, 1), 30)


@pytest.mark.parametrize(
    "raw",
    [
        "", "{", "[]", "null", "7", '"text"', '{"type": "dance"}', '{"type": 3}', '{"type": ["pointer"]}', "[" * 3000,
        '{"type": "wheel", "dy": "1"}', '{"type": "wheel", "dy": NaN}', '{"type": "wheel", "dy": 1e400}',
        '{"type": "wheel", "dy": true}', '{"type": "pointer", "action": 1}', '{"type": "text", "text": null}',
        json.dumps({"type": "text", "text": "x" * MAX_MESSAGE}), b"\xff\xfe", '{"type": "key", "key": {}}',
    ],
)  # fmt: skip
def test_what_is_not_input_is_refused(raw: str | bytes) -> None:
    """Anything that is not a message of the protocol is None and raises nothing."""
    assert parse(raw) is None


@pytest.mark.parametrize(
    "message",
    [
        {"type": "pointer"}, {"type": "pointer", "action": "down", "button": 99}, {"type": "key"},
        {"type": "key", "key": "a", "modifiers": "Shift"}, {"type": "key", "key": "a", "modifiers": [{}, 1]},
        {"type": "key", "key": "a", "modifiers": 7}, {"type": "pointer", "action": "down", "modifiers": 5},
        {"type": "text"}, {"type": "wheel"}, {"type": "ping"}, {"type": "pointer", "action": "move", "x": -9e9},
    ],
)  # fmt: skip
def test_incomplete_messages_are_harmless(controls: Controls, message: dict[str, Any]) -> None:
    """A message that leaves members out, or fills optional ones with nonsense, never raises."""
    parsed = parse(json.dumps(message))
    if parsed is not None:
        controls.apply(parsed)

    assert all(math.isfinite(v) for v in (*controls.orbit.eye, controls.orbit.distance))
