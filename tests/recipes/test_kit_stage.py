"""The program by which Kit opens a session's stage, in a process with a stand-in for Kit's API."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from footlights.recipes import KIT_STAGE

if TYPE_CHECKING:
    from pathlib import Path

KIT = """
import asyncio, runpy, sys, types

frames = 0

class App:
    def is_app_ready(self):
        return frames >= 5
    async def next_update_async(self):
        global frames
        frames += 1
        await asyncio.sleep(0)
    def post_quit(self, code=0):
        print("quit", code)

class Context:
    async def open_stage_async(self, address):
        # The application's own empty stage is there after a few frames, and would replace one that came before.
        print("opened" if frames >= 10 else "too early", address)
        if "raises" in address:
            raise RuntimeError(f"cannot resolve {address}")
        return ("missing" not in address, f"no such file: {address}" if "echoes" in address else "no such file")

app, context = App(), Context()
kit, usd = types.ModuleType("omni.kit"), types.ModuleType("omni.usd")
kit_app = types.ModuleType("omni.kit.app")
kit_app.get_app, usd.get_context = lambda: app, lambda: context
omni = types.ModuleType("omni")
omni.kit, omni.usd, kit.app = kit, usd, kit_app
sys.modules.update({"omni": omni, "omni.kit": kit, "omni.kit.app": kit_app, "omni.usd": usd})
loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
runpy.run_path(sys.argv[1], run_name="__main__")
assert frames == 0, "a script must not hold Kit's start up"
loop.run_until_complete(asyncio.gather(*asyncio.all_tasks(loop)))
"""
SIGNED = "https://store/a.usd?sig=hunter2"


def run(tmp_path: Path, content: object) -> str:
    """Have Kit's stand-in run it; return what came out."""
    program = tmp_path / "kit.py"
    program.write_text(KIT)
    environ = {}
    if content is not None:
        (tmp_path / "session.json").write_text(json.dumps(content))
        environ["FOOTLIGHTS_SESSION_FILE"] = str(tmp_path / "session.json")
    command = [sys.executable, str(program), str(KIT_STAGE)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize(
    ("content", "opened"),
    [
        ({"usd_stage_uri": SIGNED}, f"opened {SIGNED}\nOpened the stage https://store/a.usd.\n"),
        ({"usd_stage_uri": "/srv/a b;id.usd"}, "opened /srv/a b;id.usd\nOpened the stage /srv/a b;id.usd.\n"),
        ({"usd_stage_uri": ""}, ""),
        ({"usd_stage_uri": 7}, ""),
        ({}, ""),
        (None, ""),
    ],
)
def test_it_opens_the_sessions_stage(tmp_path: Path, content: object, opened: str) -> None:
    """Whole and unparsed, once the application is up and has made its own."""
    assert run(tmp_path, content) == opened


@pytest.mark.parametrize("kind", ["missing", "missing-echoes", "raises"])
def test_a_stage_that_does_not_open_ends_kit(tmp_path: Path, kind: str) -> None:
    """With a last line by which the session says why; a signature is in nothing that Footlights writes."""
    lines = run(tmp_path, {"usd_stage_uri": f"https://store/{kind}.usd?sig=hunter2"}).splitlines()

    assert lines[-1] == "quit 1"
    failure = json.loads(lines[-2].removeprefix("FOOTLIGHTS_FAILURE: "))
    assert failure["reason"] == "STAGE_NOT_OPENED"
    assert failure["message"].startswith(f"Kit did not open https://store/{kind}.usd")
    assert "hunter2" not in lines[-2]
