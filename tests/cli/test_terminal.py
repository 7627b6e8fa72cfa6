"""The command line on a terminal: a live line while it waits, colours, interruption (`live`, `progress`)."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from footlights.v1 import session_pb2

from tests.cli.samples import S, milestones, pending, session
from tests.client.standin import Frame, Standin, frame, frames

FOOTLIGHTS = (sys.executable, "-m", "footlights.cli")


@pytest.fixture
def standin() -> Iterator[Standin]:
    yield from Standin().serve()


def environ(standin: Standin, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "NO_COLOR" and "FOOTLIGHTS" not in name}
    return {**kept, "TERM": "xterm-256color", "FOOTLIGHTS_SERVER": standin.address, **more}


def on_terminal(arguments: list[str], stream: str, env: dict[str, str]) -> tuple[int, str, str]:
    """Run a command with one stream on a terminal: exit code, what the terminal got, what the other stream got."""
    ours, theirs = pty.openpty()
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: theirs}
    process = subprocess.Popen([*FOOTLIGHTS, *arguments], env=env, stdin=subprocess.DEVNULL, **streams)
    os.close(theirs)
    shown = bytearray()

    def read() -> None:
        with contextlib.suppress(OSError):  # how Linux says that the other end is closed
            while data := os.read(ours, 65536):
                shown.extend(data)

    reader = threading.Thread(target=read)
    reader.start()
    out, err = process.communicate(timeout=60)
    reader.join(10)
    os.close(ours)
    return process.returncode, shown.decode(), (err if stream == "stdout" else out).decode()


def test_waiting_is_a_live_line_on_stderr(standin: Standin) -> None:
    """The line is redrawn with each step and gone at the end; stdout has the answer and no control characters."""
    steps = milestones((S.Milestone.QUEUED, 0), (S.Milestone.PLACED, 1), (S.Milestone.APPLICATION_READY, 3))

    changes = [
        pending("s-1", 1),
        session(S.STARTING, revision=2, timeline=steps[:2]),
        session(revision=3, timeline=steps),
    ]
    standin.on("CreateSession", pending("s-1"))
    standin.on("FollowSessions", frames(*changes))

    code, shown, out = on_terminal(
        ["sessions", "create", "usd-viewer", "--wait", "-o", "name"], "stderr", environ(standin)
    )

    assert (code, out) == (0, "s-1\n")
    assert "number 3 in the queue" in shown
    assert "QUEUED +0.0s → PLACED +1.0s" in shown
    assert "\x1b[2K" in shown


@pytest.mark.parametrize(("more", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_states_are_coloured_unless_nobody_wants_it(standin: Standin, more: dict[str, str], coloured: bool) -> None:
    """NO_COLOR is obeyed on a terminal too; the text is the same."""
    standin.on("GetSession", session())

    code, shown, err = on_terminal(["sessions", "show", "s-1"], "stdout", environ(standin, **more))

    assert (code, err) == (0, "")
    assert ("\x1b[32mREADY" in shown) is coloured
    assert ("\x1b" in shown) is coloured
    assert "READY" in shown


def test_an_encoding_that_lacks_characters_is_named(standin: Standin) -> None:
    """It was said that an argument is no UTF-8."""
    standin.on("GetSession", session(labels={"team": "→"}))
    env = environ(standin, PYTHONIOENCODING="latin-1")

    done = subprocess.run(
        [*FOOTLIGHTS, "sessions", "show", "s-1"], env=env, capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert "characters that latin-1" in done.stderr
    assert "PYTHONUTF8=1" in done.stderr


@pytest.mark.parametrize("follow", [False, True])
def test_of_an_applications_output_a_terminal_obeys_colours_alone(standin: Standin, follow: bool) -> None:
    """What sets its title or clipboard, or moves the cursor, is shown as text; colours end with their line."""
    lines = ["\x1b[1;31mred\tand \x1b]52;c;Y2F0\x07\x1b[2J\x9b2J\u202eodd\r", "plain"]
    standin.on("GetSessionLog", session_pb2.SessionLog(lines=lines))
    standin.on("TailSessionLog", lambda _: iter([session_pb2.SessionLog(lines=lines)]))

    options = ["--follow"] if follow else []
    code, shown, err = on_terminal(["sessions", "log", "s-1", *options], "stdout", environ(standin))

    assert (code, err) == (0, "")
    escaped = "\\x1b]52;c;Y2F0\\x07\\x1b[2J\\x9b2J\\u202eodd"
    assert shown.splitlines() == [f"\x1b[1;31mred\tand {escaped}\x1b[0m", "plain"]


def test_an_interrupted_wait_is_130_and_says_that_the_session_goes_on(standin: Standin) -> None:
    """Ctrl-C ends the waiting, not the session."""
    watched = threading.Event()

    def forever(_: Any) -> Iterator[Frame]:
        yield frame(session(S.STARTING, timeline=milestones((S.Milestone.QUEUED, 0))))
        watched.set()
        standin.stopping.wait(30)

    standin.on("CreateSession", pending("s-1"))
    standin.on("FollowSessions", forever)
    process = subprocess.Popen(
        [*FOOTLIGHTS, "sessions", "create", "usd-viewer", "--wait"],
        env=environ(standin),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert watched.wait(30)
    assert "QUEUED" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)

    assert (process.returncode, out) == (130, "")
    assert err == "The session continues. To end it: footlights sessions terminate s-1\n"
