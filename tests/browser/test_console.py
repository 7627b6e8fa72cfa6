"""The console in a real browser, from the start of a session to its end."""

from __future__ import annotations

from playwright.async_api import Page, expect

from tests.browser.video import Sample, look
from tests.system.stack import Stack, until

VIDEO = "[data-testid=stream-video]"
SHARP_S = 60.0
"""The encoder sharpens a picture that stands still over some sixty frames: 15 seconds on a machine that draws four."""


async def _sample(page: Page) -> Sample:
    sample: Sample = await until(lambda: look(page, VIDEO), what="a picture")
    return sample


async def test_a_session_in_the_console(viewer: Stack, page: Page) -> None:
    """Start usd-viewer in the console, see it move at 1280x720, orbit it with the mouse, type into it, terminate it."""
    await page.goto(f"{viewer.http}/console/#token={viewer.token}")
    assert viewer.token not in page.url or await _token_gone(page, viewer.token)

    await page.get_by_test_id("start-session").first.click()
    await page.get_by_test_id("start-submit").click()
    timeline = page.get_by_test_id("timeline")
    await expect(timeline).to_be_visible(timeout=10_000)

    first = await _sample(page)
    frames = await _frames_in_two_seconds(page)
    assert (first.width, first.height) == (1280, 720)
    # How fast is the bench's business; that it is a moving picture is this test's, on a busy machine too.
    assert frames >= 5
    assert (await _sample(page)).contrast > 10

    # The stage moves by itself: it is paused first, so that what changes is the drag's doing, then the typing's.
    await page.locator(VIDEO).click()
    await page.keyboard.press("Space")
    still = await until(lambda: _still(page), timeout_s=SHARP_S, what="the paused stage stands still")
    await _drag(page)
    await until(lambda: _differs(page, still, 3), what="the picture changes after a drag")
    turned = await until(lambda: _still(page), timeout_s=SHARP_S, what="the picture stands still again")
    await page.keyboard.type("hello footlights, " * 4)
    await until(lambda: _differs(page, turned, 0.3), what="what is typed shows in the picture")

    sessions = await viewer.get("/stream")
    (session,) = sessions["items"]
    assert session["state"] == "ACTIVE"

    await page.get_by_test_id("terminate").first.click()
    await page.get_by_test_id("confirm-terminate").click()
    ended = await viewer.session_in(session["session_id"], "TERMINATED")
    assert ended["end_reason"] == "USER_TERMINATED"
    assert ended["timeline"][-1]["stage"] == "ENDED"


async def test_a_viewer_is_told_of_a_drain(viewer: Stack, page: Page) -> None:
    """By a banner over the picture, with the time that is left; it goes with the drain."""
    created = await viewer.post("/stream", {"application": "usd-viewer"})
    await viewer.session_in(created["session_id"], "READY", "ACTIVE", timeout_s=60)
    await page.goto(f"{viewer.http}/console/#token={viewer.token}")
    await page.goto(f"{viewer.http}/console/#/sessions/{created['session_id']}")
    await _sample(page)
    banner = page.get_by_test_id("viewer-notice")
    await expect(banner).to_have_count(0)

    await viewer.post("/nodes/node-a:drain", {"deadline": "240s"})
    await expect(banner).to_contain_text("Ends in 3 min", timeout=20_000)
    await expect(banner).to_contain_text("The machine is taken out of use; the session ends at")
    await viewer.post("/nodes/node-a:uncordon", {})
    await expect(banner).to_have_count(0, timeout=20_000)


async def _token_gone(page: Page, token: str) -> bool:
    async def gone() -> bool:
        return token not in page.url

    return bool(await until(gone, what="the token leaves the address bar"))


async def _frames_in_two_seconds(page: Page) -> int:
    before = await _sample(page)

    async def later() -> Sample | None:
        now = await _sample(page)
        return now if now.time_ms - before.time_ms >= 2000 else None

    after: Sample = await until(later, what="two seconds pass")
    return after.frames - before.frames


async def _still(page: Page) -> Sample | None:
    """Return a sample where five looks in a row show the same picture."""
    first = await _sample(page)
    for _ in range(5):
        await page.wait_for_timeout(100)
        if (await _sample(page)).differs(first) > 0.15:
            return None
    return first


async def _differs(page: Page, before: Sample, least: float) -> bool:
    return (await _sample(page)).differs(before) > least


async def _drag(page: Page) -> None:
    box = await page.locator(VIDEO).bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    await page.mouse.move(x, y)
    await page.mouse.down()
    await page.mouse.move(x + 250, y + 60, steps=12)
    await page.mouse.up()
