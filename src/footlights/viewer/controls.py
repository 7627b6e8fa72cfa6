"""What a viewer's mouse and keyboard do: the input protocol of the data channel `footlights-input`.

Messages are JSON objects:
    {"type": "pointer", "action": "down|move|up|cancel", "x": 0..1, "y": 0..1, "button": 0|1|2, "buttons": mask}
    {"type": "wheel", "dx": pixels, "dy": pixels, "x": 0..1, "y": 0..1}
    {"type": "key", "action": "down|up", "key": "a", "code": "KeyA", "modifiers": ["Shift"]}
    {"type": "text", "text": "hello"}
    {"type": "ping", "t": number}            answered by the channel itself with {"type": "pong", "t": number}
Button numbers, button masks and key names are the DOM's.

    left drag           orbit
    right/middle drag   pan; Shift with the left button does the same
    wheel               nearer, farther
    arrows              orbit in steps
    Home                back to the first view, and to following its camera if that moves
    Page Down, Page Up  the next, the previous of the stage's cameras
    a printable key     types into the caption; `text` is for what has no key (paste, input methods): send one
                        of them for a character, not both
    Space               pauses and resumes while there is no caption, otherwise it is a space
    Backspace, Escape   erase one character, erase all
    Enter               closes the caption: it stays, and the next character starts a new one
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from footlights.viewer.render.camera import Orbit, from_view, initial_orbit

if TYPE_CHECKING:
    from collections.abc import Callable

    from footlights.viewer.scene.scene import Scene, View

MAX_MESSAGE = 4096
"""Bytes. A longer message is not input."""

MAX_CAPTION = 120

LEFT, RIGHT, MIDDLE = 1, 2, 4  # bits of `buttons`

_LOOKS = ("Home", "PageDown", "PageUp")

TYPES = frozenset({"pointer", "wheel", "key", "text", "ping"})

Message = dict[str, Any]


def parse(raw: str | bytes) -> Message | None:
    """A message, or None if it is not one. Numbers are finite afterwards, and strings are strings."""
    if len(raw) > MAX_MESSAGE:
        return None
    try:
        message = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict) or not isinstance(message.get("type"), str) or message["type"] not in TYPES:
        return None
    if not isinstance(message.get("modifiers", []), list):
        return None
    numbers = ("x", "y", "dx", "dy", "t", "button", "buttons")
    if not all(_is_number(message[name]) for name in numbers if name in message):
        return None
    strings = ("action", "key", "code", "text")
    return message if all(isinstance(message[name], str) for name in strings if name in message) else None


@dataclass(slots=True)
class Controls:
    """The state that input changes. Owned by the render thread."""

    scene: Scene
    aspect: float
    orbit: Orbit = field(init=False)
    caption: str = ""
    paused: bool = False
    _closed: bool = False  # the caption is finished
    _last: tuple[float, float] | None = None
    _buttons: int = 0
    _index: int = 0  # of the camera last chosen
    _followed: Callable[[float], View] | None = None

    def __post_init__(self) -> None:
        self._look(0)

    def follow(self, time: float) -> None:
        """Go where the camera is at a time, if it moves and has not been left."""
        if self._followed is not None:
            try:
                self.orbit = from_view(self._followed(time), self.scene.bounds)
            except Exception:  # a sample that cannot be read: the camera stays
                return

    def _look(self, index: int) -> None:
        """Look from one of the stage's cameras; from the front, where it has none."""
        views = self.scene.views
        if not views:
            self.orbit = initial_orbit(self.scene, self.aspect)
            return
        self._index = index % len(views)
        self._followed = views[self._index].follow
        self.orbit = from_view(views[self._index], self.scene.bounds)

    def apply(self, message: Message) -> None:
        """Act on a message of `parse`. What makes no sense here changes nothing."""
        before = self.orbit
        self._apply(message)
        if self.orbit != before and message.get("key") not in _LOOKS:
            self._followed = None

    def _apply(self, message: Message) -> None:
        match message["type"]:
            case "pointer":
                self._pointer(message)
            case "wheel":
                self.orbit = self.orbit.dollied(float(message.get("dy", 0)))
            case "key" if message.get("action", "down") == "down":
                self._key(message.get("key", ""), message.get("modifiers", []))
            case "text":
                self._type(message.get("text", ""))

    def _pointer(self, message: Message) -> None:
        here = (_within(message.get("x", 0.5)), _within(message.get("y", 0.5)))
        match message.get("action"):
            case "down":
                button = int(message.get("button", 0))
                self._buttons = int(message.get("buttons", 0)) or {0: LEFT, 1: MIDDLE, 2: RIGHT}.get(button, 0)
                if "Shift" in (message.get("modifiers", [])) and self._buttons == LEFT:
                    self._buttons = MIDDLE
                self._last = here
            case "move" if self._last is not None:
                if message.get("buttons") == 0:  # the release was outside of the page
                    self._last = None
                    return
                self._drag(here[0] - self._last[0], here[1] - self._last[1])
                self._last = here
            case "up" | "cancel":
                self._last = None

    def _drag(self, dx: float, dy: float) -> None:
        if self._buttons & (RIGHT | MIDDLE):
            self.orbit = self.orbit.panned(-dx, dy, self.aspect)
        elif self._buttons & LEFT:
            self.orbit = self.orbit.orbited(dx, dy)

    def _key(self, key: str, modifiers: list[Any]) -> None:
        step = 1 / 48
        match key:
            case "Home":
                self._look(0)
            case "PageDown":
                self._look(self._index + 1)
            case "PageUp":
                self._look(self._index - 1)
            case "Escape":
                self.caption = ""
            case "Enter":
                self._closed = True
            case "Backspace":
                self.caption = self.caption[:-1]
            case "ArrowLeft":
                self.orbit = self.orbit.orbited(-step, 0)
            case "ArrowRight":
                self.orbit = self.orbit.orbited(step, 0)
            case "ArrowUp":
                self.orbit = self.orbit.orbited(0, -step)
            case "ArrowDown":
                self.orbit = self.orbit.orbited(0, step)
            case " " if not self.caption:
                self.paused = not self.paused
            case _ if len(key) == 1 and not {"Control", "Alt", "Meta"} & {m for m in modifiers if isinstance(m, str)}:
                self._type(key)

    def _type(self, text: str) -> None:
        printable = "".join(c if c.isprintable() else " " for c in text)
        if not printable:
            return
        if self._closed:
            self.caption, self._closed = "", False
        self.caption = (self.caption + printable)[-MAX_CAPTION:]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and abs(value) < 1e12


def _within(value: float) -> float:
    return max(-1.0, min(2.0, float(value)))
