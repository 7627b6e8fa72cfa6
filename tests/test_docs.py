"""The documents for contributors name folders and files that exist."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from footlights.agent.config import AgentConfig
from footlights.control.services import node_filters
from footlights.control.settings import ServerSettings
from footlights.filters import parse
from footlights.store.sessions import filtering

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src" / "footlights"
DOCUMENTS = [ROOT / "docs" / name for name in ("architecture.md", "adding.md", "security.md")]


def named_paths(document: Path) -> list[str]:
    """Every folder and file that a document names between backticks: what has a slash, or the ending of a file."""
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    found = re.findall(r"`([A-Za-z_][A-Za-z0-9_/.]*)`", text)
    return [path for path in found if path.endswith(("/", ".py", ".proto", ".js", ".toml", ".md", ".binpb"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_named_folders_and_files_exist(document: Path) -> None:
    """A path is relative to the repository or to the package, or, for a folder, to the room that its row names."""
    rooms = [SRC, ROOT, *(folder for folder in SRC.iterdir() if folder.is_dir())]
    missing = [path for path in named_paths(document) if not any((room / path).exists() for room in rooms)]

    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    """Every relative link of a document names a file."""
    links = re.findall(r"\]\(([^)#:]+)\)", document.read_text())

    assert [link for link in links if not (document.parent / link).exists()] == []


def test_lists_of_files_keep_their_promise() -> None:
    """No kind of addition needs more files than the number that its heading gives."""
    text = (ROOT / "docs" / "adding.md").read_text()
    promised = re.findall(r"^## .*\((\d+)\)\n(.*?)(?=^## |\Z)", text, flags=re.MULTILINE | re.DOTALL)
    counts = [(int(number), len(re.findall(r"^\d+\. ", body, flags=re.MULTILINE))) for number, body in promised]

    assert counts
    assert all(listed <= number for number, listed in counts)


def test_filters_in_the_document_are_read() -> None:
    """Every example of docs/filters.md is a filter, and every member that there is, is named."""
    text = (ROOT / "docs" / "filters.md").read_text()
    for kind, members in (("", filtering.MEMBERS), ("nodes", node_filters.MEMBERS)):
        examples = [
            line for block in re.findall(rf"^```{kind}\n(.*?)^```", text, re.M | re.S) for line in block.splitlines()
        ]
        assert examples
        assert all(parse(line, members) for line in examples)
        assert {name for name in members if f"`{name}" not in text} == set()


def test_each_attack_has_its_test() -> None:
    """Every row of docs/security.md's tables of attacks says what was, what is, and names tests that exist."""
    attacks = (ROOT / "docs" / "security.md").read_text().partition("\n## Attacks\n")[2]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in attacks.splitlines() if line[:1] == "|"]
    rows = [row for row in rows if row[0] != "attack" and set(row[0]) != {"-"}]
    named = [re.findall(r"`([\w/]+\.py)::(\w+)`", row[-1]) for row in rows]

    assert [row for row, tests in zip(rows, named, strict=True) if len(row) != 4 or not all(row) or not tests] == []
    assert [test for tests in named for test in tests if not is_defined(*test)] == []


def test_what_the_page_about_kit_names_exists() -> None:
    """Every option of docs/kit.md is one of ours, but Kit's own, and every recipe ships."""
    text = (ROOT / "docs" / "kit.md").read_text()
    named = set(re.findall(r"(?<![\w-])--([a-z][a-z-]+)", text))
    settings = {each.name.removesuffix("_s") for of in (ServerSettings, AgentConfig) for each in fields(of)}
    known = {name.replace("_", "-") for name in settings} | {f"no-{name.replace('_', '-')}" for name in settings}

    of_commands = {"set", "stage", "wait", "application", "version", "size", "wait-goal", "max-size"}
    assert named - known == {"exec", *of_commands}
    shipped = {path.stem for path in (SRC / "recipes").glob("*.yaml")}
    assert set(re.findall(r"`?((?:kit|isaac-sim)-\d[\d-]*)\b", text)) == {
        name for name in shipped if name != "usd-viewer"
    }


def is_defined(file: str, test: str) -> bool:
    path = ROOT / "tests" / file
    return path.exists() and re.search(rf"^(async )?def {test}\(", path.read_text(), re.MULTILINE) is not None
