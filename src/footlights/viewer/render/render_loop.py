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
    from footlights.viewer.scene.roots import StageRoots

log = logging.getLogger("footlights.viewer.render")

MAX_PENDING_INPUT = 1024
"""Messages between two pictures. Older ones are dropped: a pointer only needs its latest place."""

SUPERSAMPLING = (1.5, 1.25, 1.0)
"""How much larger than the stream a picture is drawn: the first that the machine keeps up with."""

SHARE_OF_FRAME = 0.65
"""How much of a frame's time drawing may take at the start."""

LATENESS_WINDOW = 60
"""Pictures over which it is decided that drawing is too slow."""


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

            wanted = options.ssaa or SUPERSAMPLING[0]
            self._steps = [wanted] if options.ssaa else list(SUPERSAMPLING)
            self._renderer = Renderer(scene, options.width, options.height, wanted, options.renderer)

        from footlights.viewer.controls import Controls

        self._controls = Controls(scene, options.width / options.height)
        self._timeline = scene.timeline
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
        """Start with a supersampling that leaves time for encoding, rather than to stutter first."""
        while True:
            best = min(self._timed_draw() for _ in range(2))
            if best < SHARE_OF_FRAME / self._options.fps or len(self._steps) == 1:
                self.progress.supersampling = self._steps[0]
                return
            self._step_down()

    def _timed_draw(self) -> float:
        began = time.monotonic()
        self._draw()
        return time.monotonic() - began

    def _step_down(self) -> None:
        del self._steps[0]
        self.progress.supersampling = self._steps[0]
        self._renderer.resize(self._options.width, self._options.height, self._steps[0])

    def _draw_until_stopped(self) -> None:
        period = 1.0 / self._options.fps
        due = time.monotonic()
        self._recent: deque[float] = deque(maxlen=LATENESS_WINDOW)
        self._late = 0
        while self._wait_until_watched():
            now = time.monotonic()
            if now - due > 0.25:  # after a pause, or a stall: do not try to catch up
                due = now
                self._recent.clear()
                self._late = 0
            elif due > now:
                time.sleep(due - now)
            started = time.monotonic()
            frame = self._draw(advance=period)
            if self._sink is not None:
                self._sink(frame, started)
            due += period
            self._account(started, due)

    def _wait_until_watched(self) -> bool:
        with self._wake:
            while not self._watched and not self._stopping:
                self.progress.fps = 0.0
                self._wake.wait()
            return not self._stopping

    def _draw(self, advance: float = 0.0) -> Any:
        import numpy as np
        from av.video.frame import VideoFrame

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
        picture = self._renderer.render(self._timeline.at(self._played), controls.orbit, overlay)
        height, width, _ = picture.shape
        frame = VideoFrame(width, height, "bgra")
        plane: Any = frame.planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(height, plane.line_size)
        rows[:, : width * 4].reshape(height, width, 4)[:] = picture
        progress.frames += 1
        return frame

    def _account(self, started: float, due: float) -> None:
        now = time.monotonic()
        progress = self.progress
        progress.render_ms += 0.1 * ((now - started) * 1000 - progress.render_ms)
        self._recent.append(now)
        span = self._recent[-1] - self._recent[0]
        if len(self._recent) > 5 and span > 0:
            progress.fps = (len(self._recent) - 1) / span
        self._late = self._late + 1 if now > due else max(0, self._late - 1)
        if self._late > LATENESS_WINDOW // 2 and len(self._steps) > 1:
            self._late = 0
            self._step_down()
            log.info("drawing is too slow for %d fps: supersampling is now %.2f", self._options.fps, self._steps[0])
