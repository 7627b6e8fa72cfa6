"""The registry of launchers: every version has one, and what it is like is told without loading it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from footlights.v1.application_pb2 import Container, FakeBehavior, Version

from footlights.launch.launchers import LAUNCHERS, LauncherSettings, traits_of
from footlights.protocol.isolation import Isolation


@pytest.mark.parametrize(
    ("version", "name"),
    [
        (Version(command=["a"]), "process"),
        (Version(), "process"),
        (Version(container=Container(image="a"), command=["a"]), "container"),
        (Version(fake=FakeBehavior()), "fake"),
    ],
)
def test_the_launcher_of_a_version(version: Version, name: str) -> None:
    """Its member says it; a plain command is a process."""
    assert traits_of(version).name == name


def test_every_launcher_opens_under_its_name(tmp_path: Path) -> None:
    """What is registered can be made, and says the name that it is registered under."""
    for name, traits in LAUNCHERS.items():
        assert traits.open(LauncherSettings(root=tmp_path)).name == traits.name == name


def test_traits_load_no_launcher() -> None:
    """The control plane, which only reads traits, does not import an engine's client."""
    code = "import sys; from footlights.launch import launchers; sys.exit('footlights.launch.launcher' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_nodes_network_isolates_nothing() -> None:
    """A container on the node's network reaches its loopback and its neighbours' ports: it counts as not isolated."""
    container, fake = LAUNCHERS["container"], LAUNCHERS["fake"]

    assert container.isolation_with(node_network=False) is Isolation.CONTAINER
    assert container.isolation_with(node_network=True) is Isolation.NONE
    assert fake.isolation_with(node_network=True) is Isolation.CONTAINER
