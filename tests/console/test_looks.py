"""Themes, contrast, narrow screens and the keyboard: what everybody needs to use the page."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.console.conftest import Server
from tests.console.look import furnish
from tests.console.test_page import start

pytestmark = [pytest.mark.slow, pytest.mark.browser]

CONTRASTS = """() => {
  const probe = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const style = getComputedStyle(document.documentElement);
  const luminance = (name) => {
    probe.fillStyle = style.getPropertyValue(name).trim();
    probe.fillRect(0, 0, 1, 1);
    const parts = [...probe.getImageData(0, 0, 1, 1).data].slice(0, 3).map((part) => part / 255)
      .map((part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const contrast = (one, other) => {
    const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (light + 0.05) / (dark + 0.05);
  };
  const pairs = [['--accent-ink', '--accent'], ['--accent-text', '--accent-soft'], ['--stage-text', '--stage']];
  pairs.push(['--stage-muted', '--stage']);
  for (const text of ['--text', '--muted', '--faint', '--accent-text', '--good', '--wait', '--bad', '--busy'])
    for (const ground of ['--bg', '--surface', '--sunken', '--hover']) pairs.push([text, ground]);
  for (const tone of ['good', 'wait', 'bad', 'busy', 'off']) pairs.push([`--${tone}`, `--${tone}-soft`]);
  return pairs.map(([one, other]) => [one, other, contrast(one, other)]).filter(([, , ratio]) => ratio < 4.5);
}"""
VIEWS = ["sessions", "sessions?tab=history", "start", "nodes", "tokens", "applications/usd-viewer"]
WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_can_be_read(opened: Page, theme: str) -> None:
    """
    Every text colour has a contrast of 4.5 or more on every surface that it is used on (WCAG 2.2, 1.4.3).
    """
    opened.emulate_media(color_scheme="dark" if theme == "dark" else "light")

    assert opened.evaluate(CONTRASTS) == []


def test_theme_follows_the_system_until_it_is_chosen(opened: Page, server: Server) -> None:
    """
    Without a choice the page is as the system is; a choice is kept over a reload and leads back to the system.
    """
    ground = "getComputedStyle(document.documentElement).getPropertyValue('--bg').trim()"
    opened.emulate_media(color_scheme="dark")
    dark = opened.evaluate(ground)
    opened.emulate_media(color_scheme="light")
    light = opened.evaluate(ground)
    assert dark != light

    opened.get_by_test_id("theme").click()
    opened.get_by_test_id("theme").click()
    assert opened.evaluate(ground) == dark
    opened.reload()
    opened.get_by_test_id("nav-sessions").wait_for()
    assert opened.evaluate(ground) == dark
    opened.get_by_test_id("theme").click()
    assert opened.evaluate(ground) == light


@pytest.mark.parametrize("width", [360, 768, 1024, 1920])
def test_no_view_is_wider_than_the_screen(opened: Page, server: Server, width: int) -> None:
    """
    No view must be scrolled sideways, from a small telephone to a large screen.
    """
    server.do(lambda: furnish(server.stand_in))
    opened.set_viewport_size({"width": width, "height": 800})
    first = next(iter(server.stand_in.sessions))
    wider = {}
    views = [
        "sessions",
        "sessions?tab=history",
        "start",
        "nodes",
        "tokens",
        "applications/usd-viewer",
        f"sessions/{first}",
    ]
    for view in views:
        opened.goto(server.page(view))
        opened.locator("main h1").wait_for()
        expect(opened.locator(".skeleton")).to_have_count(0)
        wider[view] = opened.evaluate(WIDER)

    assert {view: by for view, by in wider.items() if by > 0} == {}


@pytest.mark.parametrize("application", ["crasher", "huge"])
def test_what_stands_in_the_pictures_place_is_never_cut_off(opened: Page, server: Server, application: str) -> None:
    """
    The text of a failure or of waiting makes its frame grow where the picture's shape is too low for it.
    """
    opened.set_viewport_size({"width": 360, "height": 800})
    start(opened, server, application)
    stage = opened.get_by_test_id("ended" if application == "crasher" else "waiting")
    stage.wait_for()

    assert stage.evaluate("(one) => one.scrollHeight - one.clientHeight") == 0


def test_everything_is_reached_by_keyboard(opened: Page, server: Server) -> None:
    """
    Tab goes through the page and comes out again; a row is opened and a dialog left without a mouse.
    """
    server.do(lambda: server.stand_in.add("slow", username="linus", state="STARTING"))
    row = opened.get_by_test_id("session-row").get_by_role("link")
    expect(row).to_be_visible()
    row.focus()
    opened.keyboard.press("Enter")
    expect(opened.get_by_test_id("terminate")).to_be_visible()
    opened.get_by_test_id("terminate").focus()
    opened.keyboard.press("Enter")
    expect(opened.get_by_role("dialog")).to_be_visible()
    assert opened.evaluate("document.activeElement.closest('dialog') !== null")
    opened.keyboard.press("Escape")
    expect(opened.get_by_role("dialog")).to_have_count(0)

    seen = set()
    for _ in range(40):
        opened.keyboard.press("Tab")
        seen.add(opened.evaluate("document.activeElement.dataset.testid ?? document.activeElement.className"))
    assert {"nav-sessions", "nav-nodes", "theme", "sign-out", "terminate", "extend", "log", "skip"} <= seen


def test_everything_has_a_name(opened: Page, server: Server) -> None:
    """
    Every button, link and field of every view says what it is to somebody who does not see it.
    """
    server.do(lambda: furnish(server.stand_in))
    nameless = """() => [...document.querySelectorAll('button, a[href], input, select, textarea')]
      .filter((one) => !(one.textContent.trim() || one.ariaLabel || one.labels?.length || one.title))
      .map((one) => one.outerHTML.slice(0, 120))"""
    found = {}
    for view in VIEWS:
        opened.goto(server.page(view))
        opened.locator("main h1").wait_for()
        expect(opened.locator(".skeleton")).to_have_count(0)
        found[view] = opened.evaluate(nameless)

    assert {view: what for view, what in found.items() if what} == {}
