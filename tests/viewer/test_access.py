"""Who may use the ports of a real viewer process that was given a launch's secret."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import aiohttp
import pytest
from yarl import URL

from footlights.protocol.launch_secrets import HEADER, MEMBER
from footlights.viewer.access import ROOTS_MEMBER, SessionFile, read_session_file
from footlights.viewer.stream.whep import FRAGMENT
from tests.launch import knocking
from tests.viewer.stages import StageMaker
from tests.viewer.viewer_process import ViewerProcess

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "fls_of-this-launch"


def test_a_secret_stage_comes_with_the_session_file(tmp_path: Path) -> None:
    """It replaces that of the command line, and shows in no text."""
    url = "https://store/a.usd?X-Amz-Signature=abc"
    (tmp_path / "session.json").write_text(json.dumps({"usd_stage_uri": url, ROOTS_MEMBER: ["https://store/"]}))

    found = read_session_file({"FOOTLIGHTS_SESSION_FILE": str(tmp_path / "session.json")})

    assert (found.usd_stage_uri, found.stage_roots) == (url, ("https://store/",))
    assert "abc" not in repr(found)


@pytest.mark.parametrize(
    "content", ["{}", json.dumps({MEMBER: SECRET})], ids=["a launch without a secret", "a launch with one"]
)
def test_the_secret_is_read_from_the_session_file(tmp_path: Path, content: str) -> None:
    """It is empty where the file has none, and where no file is named."""
    (tmp_path / "session.json").write_text(content)

    found = read_session_file({"FOOTLIGHTS_SESSION_FILE": str(tmp_path / "session.json")})

    assert found == SessionFile(json.loads(content).get(MEMBER, ""))
    assert SECRET not in repr(found)
    assert read_session_file({}) == SessionFile()


@pytest.mark.parametrize("content", ["", "[]", json.dumps({MEMBER: 5}), json.dumps({ROOTS_MEMBER: "/srv"})])
def test_a_session_file_that_makes_no_sense_opens_nothing(tmp_path: Path, content: str) -> None:
    """A viewer that cannot know who may look does not start."""
    (tmp_path / "session.json").write_text(content)

    with pytest.raises(ValueError, match=r"session file|Expecting"):
        read_session_file({"FOOTLIGHTS_SESSION_FILE": str(tmp_path / "session.json")})


async def test_both_ports_refuse_whoever_lacks_the_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signalling, status, readiness and notices; another launch's secret is none. With it they are served, and with a
    proof of it, as the front door's, once."""
    (tmp_path / "session.json").write_text(json.dumps({MEMBER: SECRET}))
    monkeypatch.setenv("FOOTLIGHTS_SESSION_FILE", str(tmp_path / "session.json"))
    maker = StageMaker(tmp_path / "cube.usda")
    maker.stage.GetRootLayer().Save()
    with ViewerProcess(str(maker.path), tmp_path / "log") as viewer:
        http = f"http://127.0.0.1:{viewer.http_port}/v1/streaming"
        requests = [
            ("POST", viewer.whep, {"Content-Type": "application/sdp"}),
            ("PATCH", f"{viewer.whep}/guessed", {}),
            ("DELETE", f"{viewer.whep}/guessed", {}),
            ("GET", f"{http}/ready", {}),
            ("GET", f"{http}/status", {}),
            ("POST", f"{http}/notice", {}),
        ]
        async with aiohttp.ClientSession() as client:
            await viewer.listening(client, viewer.whep, f"{http}/status")
            for method, url, headers in requests:
                for presented in ({}, {HEADER: ""}, {HEADER: "fls_of-another-launch"}, {HEADER: SECRET[:-1]}):
                    async with client.request(method, url, headers=headers | presented) as answer:
                        assert (answer.status, method, url) == (401, method, url)
                        assert SECRET not in await answer.text()
            shown = await knocking.proof(viewer.signal_port, SECRET, "PATCH", "/whep/guessed?x=%20a")
            name, _, value = shown.strip().partition(": ")
            target = URL(f"{viewer.whep}/guessed?x=%20a", encoded=True)
            for wanted in (404, 401):
                async with client.request("PATCH", target, headers={name: value, "Content-Type": FRAGMENT}) as answer:
                    assert answer.status == wanted
            for method, url, headers in requests[1:]:
                async with client.request(method, url, headers={**headers, HEADER: SECRET}) as answer:
                    assert answer.status != 401
