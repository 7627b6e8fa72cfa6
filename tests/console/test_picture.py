"""The picture and the input, against an application's end of WHEP that really encodes and listens."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.console.conftest import Server
from tests.console.test_page import start

pytestmark = pytest.mark.browser
PLAYS = 20_000
"""Milliseconds until a picture must be there, on a busy machine."""


@pytest.fixture
def playing(opened: Page, server: Server) -> Page:
    """A session whose picture is shown."""
    start(opened, server, "usd-viewer")
    expect(opened.get_by_test_id("picture")).to_have_attribute("data-state", "playing", timeout=PLAYS)
    return opened


def received(server: Server, kind: str, enough: int = 1) -> list[dict[str, Any]]:
    """The input messages of one type, as soon as there are so many."""
    deadline = time.monotonic() + 10
    while True:
        found = server.do(lambda: [one for one in server.stand_in.whep.received if one["type"] == kind])
        if len(found) >= enough:
            return found
        assert time.monotonic() < deadline, f"{len(found)} of {enough} {kind} messages: {found}"


def until(page: Page, expression: str) -> None:
    """Wait for what the page computes; Playwright's own way needs `unsafe-eval`, which the policy refuses."""
    deadline = time.monotonic() + PLAYS / 1000
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, expression


def centre(page: Page) -> tuple[float, float]:
    box = page.get_by_test_id("stream-video").bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_picture_plays_and_its_figures_are_shown(playing: Page, server: Server) -> None:
    """
    Frames are decoded at the application's size, H.264 was asked for first, and rate, latency, codec and bit rate
    are shown; the timeline has all its steps.
    """
    frames = "document.querySelector('video').getVideoPlaybackQuality().totalVideoFrames"
    before = playing.evaluate(frames)
    until(playing, f"{frames} > {before} + 10")

    video = "document.querySelector('video')"
    assert playing.evaluate(f"[{video}.videoWidth, {video}.videoHeight, {video}.muted]") == [640, 360, True]
    expect(playing.get_by_test_id("stream-stats")).to_have_text(re.compile(r"\d+ fps\d+ ms640.360H264\d+\.\d Mb/s"))
    offer = server.stand_in.whep.offers[0]
    first = re.search(r"^m=video \d+ \S+ (\d+)", offer, re.MULTILINE)
    assert first is not None
    assert f"a=rtpmap:{first[1]} H264/90000" in offer
    assert "a=recvonly" in offer
    assert len(playing.locator("[data-status=done]").all()) == 5


def test_what_is_not_shown_is_said(playing: Page) -> None:
    """What the application leaves out of its content, as its hello counts it, is one small list over the picture; what
    is no such thing there breaks nothing."""
    said = playing.get_by_test_id("left-out")
    expect(said.locator("summary")).to_have_text(re.compile("1"))
    said.locator("summary").click()
    expect(said).to_contain_text("Volume prims: 3 (first: /World/Smoke)")


def test_pointer_is_sent_in_parts_of_the_picture(playing: Page, server: Server) -> None:
    """
    Down, move and up arrive in order with positions from 0 to 1, buttons as the DOM numbers them, also from outside
    of the picture while a button is held.
    """
    x, y = centre(playing)
    playing.mouse.move(x, y)
    playing.mouse.down(button="right")
    playing.mouse.move(x + 50, y)
    playing.mouse.move(2, y)
    playing.mouse.up(button="right")

    messages = received(server, "pointer", 3)
    while messages[-1]["action"] != "up":
        messages = received(server, "pointer", len(messages) + 1)
    assert [messages[0][name] for name in ("action", "x", "y", "button", "buttons")] == ["down", 0.5, 0.5, 2, 2]
    assert {one["action"] for one in messages[1:-1]} == {"move"}
    assert [messages[-1][name] for name in ("action", "x", "button", "buttons")] == ["up", 0, 2, 0]


def test_letterbox_is_not_part_of_the_picture(playing: Page) -> None:
    """
    Where the element is wider or higher than the picture, positions count from the picture's own edges.
    """
    script = """async () => {
      const main = document.querySelector('script[type=module]').src;
      const { contentBox } = await import(main.replace('main.js', 'stream/input.js'));
      const video = (width, height) => ({ videoWidth: 1280, videoHeight: 720,
        getBoundingClientRect: () => ({ left: 10, top: 20, width, height }) });
      return [contentBox(video(2000, 720)), contentBox(video(1280, 1000)), contentBox(video(640, 360))];
    }"""

    assert playing.evaluate(script) == [
        {"left": 370, "top": 20, "width": 1280, "height": 720},
        {"left": 10, "top": 160, "width": 1280, "height": 720},
        {"left": 10, "top": 20, "width": 640, "height": 360},
    ]


def test_a_proxys_prefix_is_kept(opened: Page) -> None:
    """
    Where the server names an origin of its own, players also try the page's, below the prefix that the page has there.
    """
    script = """async () => {
      const main = document.querySelector('script[type=module]').src;
      const { ownOrigin } = await import(main.replace('main.js', 'stream/attempts.js'));
      const own = (path, page) => ownOrigin(new URL(path, 'http://10.0.0.1:8080'),
        { origin: 'https://a.example', pathname: page }).href;
      return [own('/stream/1/whep?a=b', '/console/'), own('/stream/1/whep', '/lights/console/'),
        own('/lights/stream/1/whep', '/lights/console/'), own('/stream/1/whep', '/player.html')];
    }"""

    assert opened.evaluate(script) == [
        "https://a.example/stream/1/whep?a=b",
        "https://a.example/lights/stream/1/whep",
        "https://a.example/lights/stream/1/whep",
        "https://a.example/stream/1/whep",
    ]


def test_moves_are_sent_once_a_frame(playing: Page, server: Server) -> None:
    """
    A mouse that reports a thousand times a second does not flood the application: the last place of a frame counts.
    """
    playing.evaluate(
        """() => new Promise((done) => requestAnimationFrame(() => {
          const surface = document.querySelector('.surface');
          const box = surface.getBoundingClientRect();
          document.querySelector('.keyboard').focus();
          for (let at = 0; at <= 500; at += 1) {
            surface.dispatchEvent(new PointerEvent('pointermove', { pointerId: 1, bubbles: true,
              clientX: box.left + box.width * at / 500, clientY: box.top }));
          }
          requestAnimationFrame(() => requestAnimationFrame(done));
        }))"""
    )

    messages = received(server, "pointer")
    assert len(messages) == 1
    assert (messages[0]["action"], messages[0]["x"]) == ("move", 1)


def test_keys_go_to_the_application_only_while_it_is_controlled(playing: Page, server: Server) -> None:
    """
    Before a click keys stay with the page; after it they go to the application with their modifiers; Escape gives
    them back and lets go of what is held; Tab always leads on.
    """
    playing.keyboard.press("q")
    playing.mouse.click(*centre(playing))
    expect(playing.get_by_test_id("keyboard")).to_be_focused()
    playing.keyboard.press("a")
    playing.keyboard.down("Shift")
    playing.keyboard.press("B")
    keys = received(server, "key", 5)
    described = [(one["action"], one["key"], one["code"], one["modifiers"]) for one in keys]
    assert described == [
        ("down", "a", "KeyA", []),
        ("up", "a", "KeyA", []),
        ("down", "Shift", "ShiftLeft", ["Shift"]),
        ("down", "B", "KeyB", ["Shift"]),
        ("up", "B", "KeyB", ["Shift"]),
    ]
    playing.keyboard.up("Shift")
    playing.keyboard.down("w")
    playing.keyboard.press("Escape")

    expect(playing.get_by_test_id("keyboard")).not_to_be_focused()
    last = received(server, "key", 8)[-1]
    assert (last["action"], last["code"]) == ("up", "KeyW")
    playing.keyboard.up("w")
    playing.mouse.click(*centre(playing))
    playing.keyboard.press("Tab")
    expect(playing.get_by_test_id("keyboard")).not_to_be_focused()
    assert len(received(server, "key", 8)) == 8


def test_text_that_has_no_keys_is_sent_as_text(playing: Page, server: Server) -> None:
    """
    What an input method or an on-screen keyboard makes arrives as text, once, and no key is sent for it.
    """
    playing.mouse.click(*centre(playing))

    playing.keyboard.insert_text("舞台")

    assert [one["text"] for one in received(server, "text")] == ["舞台"]
    assert received(server, "key", 0) == []


def test_wheel_scrolls_the_application_only_while_it_is_controlled(playing: Page, server: Server) -> None:
    """
    A page can be scrolled past the picture; after a click the wheel belongs to the application.
    """
    playing.set_viewport_size({"width": 1360, "height": 500})
    playing.mouse.move(*centre(playing))
    playing.mouse.wheel(0, 100)
    until(playing, "scrollY > 0")
    assert received(server, "wheel", 0) == []

    playing.mouse.click(*centre(playing))
    at = playing.evaluate("scrollY")
    playing.mouse.wheel(30, -100)

    (message,) = received(server, "wheel")
    assert (message["dx"], message["dy"]) == (30, -100)
    assert playing.evaluate("scrollY") == at


def test_lost_picture_says_why_and_comes_back(playing: Page, server: Server) -> None:
    """
    When the application's end goes away the reason is shown, and the page connects again by itself with a new grant.
    """
    session_id = playing.url.rpartition("/")[2]

    server.wait(server.stand_in.whep.close(session_id))

    picture = playing.get_by_test_id("picture")
    expect(picture).not_to_have_attribute("data-state", "playing", timeout=PLAYS)
    expect(playing.get_by_test_id("connecting")).to_contain_text(re.compile("was lost|closed|No media connection"))
    expect(picture).to_have_attribute("data-state", "playing", timeout=PLAYS)
    connects = [path for method, path in server.stand_in.requests if path.endswith(":connect")]
    assert len(connects) == 2


def test_refused_offer_says_why(opened: Page, server: Server) -> None:
    """
    The front door's own words are shown where the picture would be.
    """
    server.stand_in.whep.refuse = True
    start(opened, server, "usd-viewer")

    expect(opened.get_by_test_id("connecting")).to_contain_text("does not answer on its signal port", timeout=PLAYS)


def test_localhost_and_its_address_are_one_server(opened: Page, server: Server) -> None:
    """
    A page opened by 127.0.0.1 plays what the server offers at localhost, which to a browser is another origin.
    """
    server.stand_in.public = server.url.replace("127.0.0.1", "localhost") + "/"
    start(opened, server, "usd-viewer")

    expect(opened.get_by_test_id("picture")).to_have_attribute("data-state", "playing", timeout=PLAYS)


def test_leaving_frees_the_viewer(playing: Page, server: Server) -> None:
    """
    Another view, and a closed page, delete the WHEP resource: no time-out is needed to notice that the viewer has gone.
    """
    session_id = playing.url.rpartition("/")[2]

    playing.get_by_test_id("nav-sessions").click()

    row = playing.locator(f"[data-session='{session_id}']")
    expect(row.get_by_test_id("session-state")).to_have_attribute("data-state", "READY")
    row.click()
    expect(playing.get_by_test_id("picture")).to_have_attribute("data-state", "playing", timeout=PLAYS)
    playing.goto("about:blank")
    deadline = time.monotonic() + 10
    while server.stand_in.sessions[session_id]["state"] != "READY":
        assert time.monotonic() < deadline


def test_nobody_takes_the_picture_from_its_owner_by_looking_in(opened: Page, server: Server) -> None:
    """
    An operator who opens somebody else's session is asked before the page connects.
    """
    session = server.do(lambda: server.stand_in.add("usd-viewer", username="linus", state="READY"))

    opened.goto(server.page(f"sessions/{session['session_id']}"))
    opened.get_by_test_id("watch").click()

    expect(opened.get_by_test_id("picture")).to_have_attribute("data-state", "playing", timeout=PLAYS)


def test_who_was_disconnected_does_not_come_back_by_itself(playing: Page, server: Server) -> None:
    """
    By a call: the page says so, asks for no other grant, and comes back when it is told to.
    """
    session = next(iter(server.stand_in.sessions))
    server.do(lambda: server.stand_in.thrown_out.add(session))
    server.wait(server.stand_in.whep.close_all())

    expect(playing.get_by_test_id("connecting")).to_contain_text(
        "You were disconnected from this session.", timeout=15_000
    )
    offers = len(server.stand_in.whep.offers)
    server.do(server.stand_in.thrown_out.clear)
    playing.get_by_test_id("connecting").get_by_role("button").click()

    expect(playing.get_by_test_id("picture")).to_have_attribute("data-state", "playing", timeout=15_000)
    assert (offers, len(server.stand_in.whep.offers)) == (1, 2)
