"""What a test asks of a playing video element."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from playwright.async_api import Frame, Page

_SAMPLE = """
async (selector) => {
  const video = document.querySelector(selector);
  if (!video || !video.videoWidth) return null;
  const canvas = document.createElement('canvas');
  canvas.width = 64; canvas.height = 36;
  const context = canvas.getContext('2d', {willReadFrequently: true});
  context.drawImage(video, 0, 0, 64, 36);
  const quality = video.getVideoPlaybackQuality();
  return {
    width: video.videoWidth, height: video.videoHeight, time: performance.now(),
    frames: quality.totalVideoFrames - quality.droppedVideoFrames,
    pixels: Array.from(context.getImageData(0, 0, 64, 36).data),
  };
}
"""


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at a video: its size, how many frames were shown so far, and a 64x36 RGBA copy of the picture."""

    width: int
    height: int
    frames: int
    time_ms: float
    pixels: tuple[int, ...]

    @property
    def contrast(self) -> float:
        """The standard deviation of the colour values; 0 is a blank picture."""
        values = [value for index, value in enumerate(self.pixels) if index % 4 != 3]
        mean = sum(values) / len(values)
        return float((sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5)

    def differs(self, other: Sample) -> float:
        """The mean absolute difference of the colour values."""
        return sum(abs(a - b) for a, b in zip(self.pixels, other.pixels, strict=True)) / len(self.pixels)


async def look(page: Page | Frame, selector: str) -> Sample | None:
    """Look at the video once; None while it has no picture."""
    seen: dict[str, Any] | None = await page.evaluate(_SAMPLE, selector)
    if seen is None:
        return None
    return Sample(seen["width"], seen["height"], seen["frames"], seen["time"], tuple(seen["pixels"]))
