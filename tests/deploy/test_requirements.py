"""What is installed where Footlights runs is locked by hash (`scripts/lock`), and can be listed (`scripts/sbom`)."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.deploy import DEPLOY

pytestmark = pytest.mark.slow

ROOT = DEPLOY.parent
EXTRAS = {"control-plane": ["postgres"], "agent": ["viewer", "container", "systemd"], "viewer": ["viewer"], "build": []}
"""File of requirements -> the extras that it covers; that of the build covers the build's own instead."""
LOCK = "is not locked: run scripts/lock"


@pytest.mark.parametrize("name", EXTRAS)
def test_every_package_is_locked_by_hash(name: str) -> None:
    """
    Each line is one version, that of constraints.txt, with hashes of its files; there is no address and no option.
    """
    versions = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")
    )
    known = {_normalized(package): version for package, version in versions.items()}
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    lines = text.replace("\\\n", "").splitlines()

    for line in lines:
        found = re.fullmatch(r"([\w.-]+)==(\S+)( ; [^#]+?)?((?: +--hash=sha256:[0-9a-f]{64})+) *", line)
        assert found, line
        assert known[_normalized(found[1])] == found[2], line
    assert len(lines) >= 5
    assert "://" not in text


@pytest.mark.parametrize("name", EXTRAS)
def test_every_dependency_is_locked(name: str) -> None:
    """
    Whatever pyproject.toml declares for what runs there is in its file.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [
        *project["project"]["dependencies"],
        *(each for extra in EXTRAS[name] for each in project["project"]["optional-dependencies"][extra]),
    ]
    if name == "build":
        wanted = project["build-system"]["requires"]
    locked = re.findall(r"^([\w.-]+)==", (ROOT / "requirements" / f"{name}.txt").read_text(), re.MULTILINE)
    missing = {_normalized(re.split(r"[\[<>=!~; ]", each)[0]) for each in wanted} - set(map(_normalized, locked))

    assert not missing, f"{sorted(missing)} {LOCK}"
    assert re.search(rf"\block {name} ", (ROOT / "scripts" / "lock").read_text())


def test_an_environment_is_listed(tmp_path: Path) -> None:
    """
    scripts/sbom writes every package of an environment with version, licence and what it needs, as CycloneDX, and
    Footlights itself as what they belong to.
    """
    subprocess.run([ROOT / "scripts" / "sbom", sys.executable, tmp_path / "sbom.json"], check=True, timeout=100)
    made = json.loads((tmp_path / "sbom.json").read_text())
    packages = {_normalized(each["name"]): each for each in made["components"]}
    needs = {each["ref"]: set(each.get("dependsOn", ())) for each in made["dependencies"]}

    assert (made["bomFormat"], made["specVersion"]) == ("CycloneDX", "1.6")
    assert made["metadata"]["component"]["name"] == "footlights"
    assert packages["grpcio"]["purl"].startswith("pkg:pypi/grpcio@")
    assert packages["grpcio"]["licenses"]
    assert packages["grpcio"]["bom-ref"] in needs[made["metadata"]["component"]["bom-ref"]]
    locked = re.findall(r"^([\w.-]+)==", (ROOT / "requirements/control-plane.txt").read_text(), re.MULTILINE)
    assert set(map(_normalized, locked)) <= packages.keys()


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
