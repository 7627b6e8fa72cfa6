"""What the runbook and deploy/README.md tell people to type, and where they lead them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from footlights.cli.app import app
from footlights.lifecycle import EndReason
from tests.deploy import DEPLOY
from tests.deploy.commands import accept

RUNBOOK = DEPLOY.parent / "docs" / "runbook.md"
README = DEPLOY / "README.md"
_NOT_OURS = {
    *("--no-deps", "--previous", "--clean", "--if-exists", "--dbname", "--now"),
    *("--allowed-peer-ip", "--bind", "--iptables", "--namespace"),
}
"""Options of other programs that the prose names."""


def _blocks(path: Path) -> list[str]:
    return re.findall(r"^ *```sh\n(.*?)^ *```", path.read_text(), re.MULTILINE | re.DOTALL)


def _commands(path: Path) -> list[str]:
    """Every ``footlights …`` line of a document's examples, without comments and redirections."""
    lines = [line for block in _blocks(path) for line in block.replace("\\\n", " ").splitlines()]
    return [line.strip() for line in lines if line.strip().startswith("footlights ")]


@pytest.mark.parametrize("line", sorted({*_commands(RUNBOOK), *_commands(README)}))
def test_commands_can_be_typed(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Our CLI takes every command of an example as it stands.
    """
    words = shlex.split(line, comments=True)
    accept(monkeypatch, words[: words.index(">")] if ">" in words else words, {})


def test_commands_in_prose_are_there() -> None:
    """
    Every ``footlights …`` and every option that the prose names is one of the command line's.
    """
    root: Any = typer.main.get_command(app)
    options: set[str] = set()
    commands: list[Any] = [root]
    while commands:
        command = commands.pop()
        options |= {option for parameter in command.params for option in parameter.opts}
        commands += getattr(command, "commands", {}).values()
    text = re.sub(r"```.*?```", "", RUNBOOK.read_text() + README.read_text(), flags=re.DOTALL)

    for words in re.findall(r"`footlights ([a-z][^`]*)`", text):
        command = root
        for word in words.split():
            if not hasattr(command, "commands"):
                break
            assert word in command.commands, words
            command = command.commands[word]
    named = {
        word for code in re.findall(r"`([^`\n]*)`", text) for word in re.findall(r"(?<![\w-])--[a-z][a-z-]+", code)
    }
    assert named - _NOT_OURS <= options


def test_every_alert_leads_somewhere() -> None:
    """
    Each alert's runbook_url is a heading of the runbook, and each heading there is an alert.
    """
    part = RUNBOOK.read_text().partition("## What each alert means")[2]
    headings = re.findall(r"^### (\w+)$", part, re.MULTILINE)
    rules = [
        rule
        for group in yaml.safe_load((DEPLOY / "prometheus/alerts.yaml").read_text())["groups"]
        for rule in group["rules"]
    ]

    assert rules
    assert set(headings) == {rule["alert"] for rule in rules}
    assert len(set(headings)) == len(headings)
    for rule in rules:
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"


def test_every_end_is_explained() -> None:
    """
    Whatever a session may end of is in the runbook.
    """
    text = RUNBOOK.read_text()

    assert [end for end in EndReason if f"`{end}`" not in text] == [EndReason.USER_TERMINATED, EndReason.COMPLETED]


@pytest.mark.parametrize("path", [RUNBOOK, README], ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    """
    Each relative link names a file, and its fragment a heading there.
    """
    for link in re.findall(r"\]\(([^)]+)\)", path.read_text()):
        file, _, fragment = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), link
        if fragment:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            assert fragment in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}, link
