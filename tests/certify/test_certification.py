"""``footlights apps test``: each misbehaviour of an application is a line, with what to do about it.

Covers ``certify.findings``, ``certify.node``, ``certify.trial`` and ``certify.viewing``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from footlights import recipes
from footlights.agent.config import AgentConfig
from footlights.certify.node import TrialNode
from footlights.cli.app import app

APPLICATION = Path(__file__).with_name("application.py")


@pytest.fixture
def recipe(tmp_path: Path) -> Any:
    """Write the file of an application with faults."""
    stages = tmp_path / "stages"
    stages.mkdir()
    (stages / "a.usda").touch()

    def write(*faults: str, limits: dict[str, str] | None = None, **members: Any) -> Path:
        ports = ["{signal_port}", "{media_port}", "{http_port}"]
        version = {
            "version": "1.0.0",
            "command": [sys.executable, str(APPLICATION), *ports, "{usd_stage_uri}", *faults],
            "default_usd_stage_uri": str(stages / "a.usda"),
            "allowed_stage_roots": [str(stages)],
            "limits": {"start_timeout": "20s", "stop_grace_period": "2s", **(limits or {})},
            "readiness": {"check": "HTTP"},
            "signaling": {"whep_path": "/whep", "checks_secret": True},
            **members,
        }
        file = tmp_path / "application.yaml"
        file.write_text(yaml.safe_dump({"application": {"application": "tried"}, "versions": [version]}))
        return file

    return write


def tried(file: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["apps", "test", str(file), "--devices", "software", "--settle", "1500ms", *options])


def verdicts(result: Result) -> dict[str, str]:
    return {line["check"]: line["verdict"] for line in json.loads(result.stdout)}


def test_an_application_that_keeps_the_contract_passes(recipe: Any) -> None:
    """Every line, and exit code 0; a person reads them as they come."""
    result = tried(recipe())

    lines = [line.split()[:2] for line in result.stdout.splitlines()]
    assert result.exit_code == 0, result.output
    assert {verdict for verdict, _ in lines} == {"PASS"}
    assert [check for _, check in lines] == [
        "RECIPE",
        "COLD_START",
        "STAGE_OPENED",
        "OUTPUT",
        "PORTS",
        "VIEWERS",
        "SECRET",
        "PRESENCE",
        "NOTICE",
        "STAYS_READY",
        "STOP",
        "PROCESS_TREE",
        "LEFT_OVER",
        "WARM_START",
        "STAGE_REFUSED",
    ]


def test_each_misbehaviour_is_a_line(recipe: Any) -> None:
    """All at once, so that one hides none of the others."""
    result = tried(
        recipe(
            *("other_port", "flood", "one_viewer", "open_door", "no_status", "no_notice", "no_end"),
            "any_stage",
        ),
        "-o",
        "json",
    )

    found = verdicts(result)
    assert result.exit_code == 1
    assert {check for check, verdict in found.items() if verdict == "FAIL"} == {"OUTPUT", "PORTS", "SECRET", "STOP"}
    assert {check for check, verdict in found.items() if verdict == "WARN"} == {
        "VIEWERS",
        "PRESENCE",
        "NOTICE",
        "STAGE_REFUSED",
    }
    assert all(line["fix"] for line in json.loads(result.stdout) if line["verdict"] in ("FAIL", "WARN"))


def test_no_output_of_an_application_is_obeyed_by_the_terminal(tmp_path: Path) -> None:
    """What it says at its end is shown, with its escape sequences as text, also to programs."""
    program = tmp_path / "says.py"
    program.write_text("print('\\x1b[2Jred\\x9b2J\\u202e')")
    version = {
        "version": "1.0.0", "command": [sys.executable, str(program)], "signaling": {"whep_path": "/whep"},
        "readiness": {"check": "HTTP"},
    }  # fmt: skip
    file = tmp_path / "application.yaml"
    file.write_text(yaml.safe_dump({"application": {"application": "tried"}, "versions": [version]}))

    shown = CliRunner().invoke(app, ["apps", "test", str(file), "--devices", "software"], color=True)
    for_programs = tried(file, "-o", "json")

    assert shown.exit_code == for_programs.exit_code == 1
    assert "\\x1b[2Jred\\x9b2J\\u202e" in shown.stdout
    assert for_programs.stdout.isascii()
    assert "\x1b[2Jred\x9b2J\u202e" in json.loads(for_programs.stdout)[1]["detail"]


def test_one_that_signals_by_websocket_is_watched_by_it(recipe: Any) -> None:
    """Through the agent, which checks the launch's secret for it."""
    found = verdicts(tried(recipe("websocket", signaling={"websocket_path": "/sign_in"}), "-o", "json"))

    assert found == dict.fromkeys(found, "PASS")
    assert {"VIEWERS", "SECRET"} <= set(found)


def test_one_that_ends_with_its_viewers_is_told(recipe: Any) -> None:
    """And one that fails without a reason."""
    found = verdicts(tried(recipe("ends_with_viewers", "no_reason"), "-o", "json"))

    assert {check for check, verdict in found.items() if verdict == "FAIL"} == {"STAYS_READY"}
    assert found["STAGE_REFUSED"] == "WARN"


def test_one_that_daemonises_is_told(recipe: Any) -> None:
    """Before it is ready, and after: its session ends with the process that was started."""
    early = tried(recipe("daemon"), "-o", "json")
    late = tried(recipe("late_daemon"), "-o", "json")

    assert "Stay in the foreground" in json.loads(early.stdout)[-1]["fix"]
    failed = {line["check"]: line["fix"] for line in json.loads(late.stdout) if line["verdict"] == "FAIL"}
    assert "Stay in the foreground" in failed["PROCESS_TREE"]


def test_one_that_does_not_become_ready_fails_with_what_was_seen(recipe: Any) -> None:
    """Nothing listens where viewers would be sent: that is no ready application, whatever it answers."""
    result = tried(recipe("no_signal", limits={"start_timeout": "6s"}), "-o", "json")

    last = json.loads(result.stdout)[-1]
    assert result.exit_code == 1
    assert (last["check"], last["verdict"]) == ("COLD_START", "FAIL")
    assert "nothing listens on its signalling port" in last["detail"]


def test_a_recipe_that_would_be_refused_is_not_launched(recipe: Any) -> None:
    """With the words of the refusal."""
    result = tried(recipe(readiness={"check": "LOG"}))

    assert result.exit_code == 1
    assert result.stdout.startswith("FAIL  RECIPE")
    assert "readiness.log_text" in result.stdout


async def test_a_trial_leaves_nothing_on_the_node(recipe: Any, tmp_path: Path) -> None:
    """Its journal entry goes last of all, after its container or processes, and before the next trial begins."""
    version = recipes.load(recipe()).versions[0]
    config = AgentConfig(server="unix:/nowhere", data_dir=tmp_path / "node", devices="software", launchers=("process",))
    async with TrialNode.opened(config) as node:
        async with node.trial(version, {}, version.default_usd_stage_uri) as trial:
            assert await node.started(trial)
            assert list((tmp_path / "node").rglob("journal/*.json"))
        assert not list((tmp_path / "node").rglob("journal/*.json"))
