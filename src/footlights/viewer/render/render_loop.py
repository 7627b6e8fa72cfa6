"""The render thread: opens the stage, then draws a picture every 1/fps seconds while there are viewers."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from footlights.viewer.failure import FailureReason, ViewerFailure

if TYPE_CHECKING:
    from collections.abc import Callable

    from footlights.viewer.options import ViewerOptions
    from footlights.viewer.render.camera import Orbit
    from footlights.viewer.render.renderer import Overlay
    from footlights.viewer.scene.roots import StageRoots

log = logging.getLogger("footlights.viewer.render")

MAX_PENDING_INPUT = 1024
"""Messages between two pictures. Older ones are dropped: a pointer only needs its latest place."""

SUPERSAMPLING = (1.5, 1.25, 1.0)
"""How much larger than the stream a picture is drawn: the first that the machine keeps up with."""

SMALLER = (0.75, 0.5)
"""The same where even the coarsest level of detail is too slow: better a soft picture than a slow one."""

SHARE_OF_FRAME = 0.65
"""How much of a frame's time drawing may take at the start."""

LATENESS_WINDOW = 60
"""Pictures over which it is decided that drawing is too slow."""

EASE_WINDOW = 300
"""Pictures in time, one after the other, before a better quality is tried that should fit."""

REST = 8
"""Pictures without any change before one is drawn in the best quality, however long that takes."""


@dataclass(frozen=True, slots=True)
class Quality:
    """How a picture is drawn."""

    supersampling: float
    detail: int  # level of detail, 0 is the finest
    cost: float  # what it takes to draw, in comparison


def ladder(wanted: float, triangles: list[int]) -> list[Quality]:
    """The qualities to choose from, the best first: `wanted` is a supersampling, or 0 for as much as there is time for.

    `triangles` has how many there are at each level of detail.
    """
    sizes = [wanted] if wanted else list(SUPERSAMPLING)
    least = len(triangles) - 1
    steps = [(size, 0) for size in sizes] + [(sizes[-1], level) for level in range(1, least + 1)]
    if not wanted:
        steps += [(size, least) for size in SMALLER]
    # Measured: a megapixel costs about as much as 40,000 triangles.
    return [Quality(size, level, triangles[level] + 40_000 * size * size) for size, level in steps]


@dataclass(slots=True)
class StageProgress:
    """The state of the render thread, for other threads to read. Only the render thread writes it."""

    step: str = "starting"
    frames: int = 0
    fps: float = 0.0
    render_ms: float = 0.0
    triangles: int = 0
    stage: str = ""
    ready: bool = False
    paused: bool = False
    caption: str = ""
    supersampling: float = 1.0
    drawn_triangles: int = 0  # at the present level of detail
    left_out: list[dict[str, Any]] = field(default_factory=list)  # what of the stage is not shown: LeftOut.report


class RenderLoop:
    """Owns the scene, the controls and the renderer.

    `on_ready` is called once, after the first picture; `on_failure` once, if the thread cannot continue; both in the
    render thread.
    """

    def __init__(
        self,
        options: ViewerOptions,
        roots: StageRoots,
        on_ready: Callable[[], None],
        on_failure: Callable[[ViewerFailure], None],
    ) -> None:
        self._options, self._roots = options, roots
        self._on_ready = on_ready
        self._on_failure = on_failure
        self._sink: Callable[[Any, float], None] | None = None
        self.progress = StageProgress()
        self._input: deque[dict[str, Any]] = deque(maxlen=MAX_PENDING_INPUT)
        self._wake = threading.Condition()
        self._watched = False
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="render", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """End the thread after its current picture; gives up waiting after `timeout` seconds."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def deliver_to(self, sink: Callable[[Any, float], None]) -> None:
        """Give every later picture to `sink`, in the render thread.

        A picture is an `av.VideoFrame` (BGRA, at least the stream's size) with its time in seconds.
        """
        self._sink = sink

    def watch(self, watched: bool) -> None:
        """Draw only while this is True."""
        with self._wake:
            self._watched = watched
            self._wake.notify()

    def post(self, message: dict[str, Any]) -> None:
        """Apply an input message before the next picture."""
        self._input.append(message)

    def _run(self) -> None:
        try:
            self._prepare()
            self._on_ready()
            self._draw_until_stopped()
        except ViewerFailure as failure:
            self._on_failure(failure)
        except Exception as error:
            log.exception("the render thread failed")
            self._on_failure(
                ViewerFailure(FailureReason.INTERNAL, f"the renderer failed: {type(error).__name__}: {error}")
            )

    def _prepare(self) -> None:
        options, progress = self._options, self.progress
        began = time.monotonic()
        progress.step = "opening the stage"
        from footlights.viewer.scene.fetch import local_stage
        from footlights.viewer.scene.stage import load_scene

        # What was downloaded is there until its pictures are read.
        with local_stage(options.usd_stage_uri, self._roots) as source:
            scene = load_scene(source.path, source.name, source.roots)
            progress.stage, progress.triangles = scene.name, scene.triangle_count
            opened = time.monotonic()
            progress.step = "starting the renderer"
            from footlights.viewer.render.renderer import Renderer

            best = options.ssaa or SUPERSAMPLING[0]
            self._renderer = Renderer(
                scene, options.width, options.height, best, options.renderer, device=options.device_uuid
            )
            self._qualities = ladder(options.ssaa, self._renderer.triangles)
            self._step = 0

        from footlights.viewer.controls import Controls

        self._controls = Controls(scene, options.width / options.height)
        self._timeline, self._animated = scene.timeline, scene.animated or any(v.follow for v in scene.views)
        self._shown: tuple[tuple[float, Orbit], Overlay, Any] | None = None  # the last picture, and of what it is
        self._rested = 0  # pictures since something has changed
        self._fine = False  # whether the last one is of the best quality, and not of the present one
        self._played = 0.0
        self._draw()
        self._calibrate()
        progress.left_out = scene.left_out.report()
        for line in scene.left_out.lines():
            log.warning("stage %s: not shown as authored: %s", scene.name, line)
        progress.ready, progress.step = True, "ready"
        log.info(
            "stage %s: %d triangles, %d batches, %d moving parts, opened in %.2f s, first frame after %.2f s",
            scene.name, scene.triangle_count, len(scene.batches), len(scene.joints) - 1,
            opened - began, time.monotonic() - began,
        )  # fmt: skip

    def _calibrate(self) -> None:
        """Start with a quality that leaves time for encoding, rather than to stutter first."""
        enough = SHARE_OF_FRAME / self._options.fps
        last = max(k for k, quality in enumerate(self._qualities) if quality.supersampling >= 1)
        self._change(0)
        while (best := min(self._timed_draw() for _ in range(2))) >= enough:
            if self._step == last:
                return  # softer pictures are for when it has proved too slow for some time
            # The next, or the first that may do by what this one took, if that is far off.
            now = self._qualities[self._step].cost
            likely = (k for k, quality in enumerate(self._qualities) if quality.cost / now * best < 2 * enough)
            self._change(min(max(self._step + 1, next(likely, last)), last))

    def _timed_draw(self) -> float:
        began = time.monotonic()
        self._draw(fresh=True)
        return time.monotonic() - began

    def _change(self, step: int) -> None:
        """Draw with another quality from now on."""
        self._step, quality = step, self._qualities[step]
        self._apply(quality)
        self._fine = False
        self.progress.supersampling = quality.supersampling
        self.progress.drawn_triangles = self._renderer.triangles[quality.detail]
        self._shown = None
        self._late = self._eased = 0

    def _apply(self, quality: Quality) -> None:
        self._renderer.resize(self._options.width, self._options.height, quality.supersampling)
        self._renderer.set_detail(quality.detail)

    def _draw_until_stopped(self) -> None:
        period = 1.0 / self._options.fps
        due = time.monotonic()
        self._recent: deque[float] = deque(maxlen=LATENESS_WINDOW)
        self._late = self._eased = 0
        while self._wait_until_watched():
            now = time.monotonic()
            if now - due > 0.25:  # after a pause, or a stall: do not try to catch up
                due = now
                self._recent.clear()
            elif due > now:
                time.sleep(due - now)
            started = time.monotonic()
            frame = self._draw(advance=period)
            if self._sink is not None:
                self._sink(frame, started)
            due += period
            self._account(started, period)

    def _wait_until_watched(self) -> bool:
        with self._wake:
            while not self._watched and not self._stopping:
                self.progress.fps = 0.0
                self._wake.wait()
            return not self._stopping

    def _draw(self, advance: float = 0.0, *, fresh: bool = False) -> Any:
        """The next picture; the last one again where nothing has changed, unless it is to be `fresh`."""
        from footlights.viewer.render.renderer import Overlay

        controls = self._controls
        while self._input:
            controls.apply(self._input.popleft())
        if not controls.paused:
            self._played += advance
        progress = self.progress
        progress.paused, progress.caption = controls.paused, controls.caption
        right = "paused" if controls.paused else f"{progress.fps:.0f} fps" if progress.fps else ""
        overlay = Overlay(controls.caption, self._options.title or progress.stage.replace("_", " "), right)
        moment = self._timeline.at(self._played) if self._animated else self._timeline.start
        controls.follow(moment)
        progress.frames += 1
        view = (moment, controls.orbit)
        last = self._shown
        self._rested = self._rested + 1 if last is not None and last[0] == view and not fresh else 0
        if last is not None and self._rested:
            finer = self._step > 0 and not self._fine and self._rested >= REST
            # Once it is drawn at its best, a changed figure in a corner is not worth a slow picture.
            still = last[1] == overlay or (self._step > 0 and last[1].caption == overlay.caption)
            if still and not finer:
                return last[2]
            if finer:
                self._apply(self._qualities[0])
                self._fine = True
        elif self._fine:
            self._apply(self._qualities[self._step])
            self._fine = False
        frame = self._frame(self._renderer.render(moment, controls.orbit, overlay))
        self._shown = (view, overlay, frame)
        return frame

    @staticmethod
    def _frame(picture: Any) -> Any:
        import numpy as np
        from av.video.frame import VideoFrame

        height, width, _ = picture.shape
        frame = VideoFrame(width, height, "bgra")
        plane: Any = frame.planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(height, plane.line_size)
        rows[:, : width * 4].reshape(height, width, 4)[:] = picture
        return frame

    def _account(self, started: float, period: float) -> None:
        now = time.monotonic()
        progress = self.progress
        progress.render_ms += 0.1 * ((now - started) * 1000 - progress.render_ms)
        self._recent.append(now)
        span = self._recent[-1] - self._recent[0]
        if len(self._recent) > 5 and span > 0:
            progress.fps = (len(self._recent) - 1) / span
        # A picture at rest says nothing of the quality.
        if self._rested:
            return
        spent = now - started
        # One that took the time of three counts as three.
        self._late = max(0, self._late + (min(4, int(spent / period)) or -1))
        if self._late > LATENESS_WINDOW // 2 and self._step + 1 < len(self._qualities):
            self._change(self._step + 1)
            self._say("drawing is too slow for %d fps")
            return
        better, present = self._qualities[max(0, self._step - 1)], self._qualities[self._step]
        fits = self._step > 0 and spent * better.cost / present.cost < 0.8 * SHARE_OF_FRAME / self._options.fps
        self._eased = self._eased + 1 if fits else 0
        if self._eased >= EASE_WINDOW:
            self._change(self._step - 1)
            self._say("there is time for a better picture at %d fps")

    def _say(self, why: str) -> None:
        progress = self.progress
        log.info(
            f"{why}: supersampling is now %.2f, %d triangles",
            self._options.fps, progress.supersampling, progress.drawn_triangles,
        )  # fmt: skip
