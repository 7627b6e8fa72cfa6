"""Applications as files."""

from __future__ import annotations

from pathlib import Path

import pytest

from footlights import recipes
from footlights.errors import InvalidArgument
from footlights.launch.recipe.recipe import validate

MANIFEST = """\
application: {application: app}
versions:
  - version: 1.0.0
    command: ["${ROOT:-/opt}/run", "$${HOME}", "{signal_port}"]
    default_usd_stage_uri: ${STAGE}
releases: {default: 1.0.0}
"""


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "app.yaml"
    path.write_text(MANIFEST)
    return path


@pytest.mark.parametrize("name", recipes.names())
def test_shipped(name: str) -> None:
    """Every recipe that ships is valid, its releases point at its versions, and it says how a viewer reaches it."""
    loaded = recipes.load(name, {"ACCEPT_EULA": "Y"})

    assert loaded.application.application == name
    known = {version.version for version in loaded.versions}
    assert loaded.releases["default"] in known
    assert set(loaded.releases.values()) <= known
    for version in loaded.versions:
        validate(version)
        assert version.signaling.whep_path or version.signaling.websocket_path


def test_names() -> None:
    """The recipes that ship are the viewer, Kit's generations and Isaac Sim."""
    assert recipes.names() == ["isaac-sim-6", "kit-106", "kit-107", "kit-108-110", "usd-viewer"]


def test_the_viewers_stages() -> None:
    """The viewer's default stage is one of the samples of this installation, unless said otherwise."""
    version = recipes.load("usd-viewer").versions[0]
    elsewhere = recipes.load("usd-viewer", {"FOOTLIGHTS_STAGES": "/srv/samples"}).versions[0]

    assert Path(version.default_usd_stage_uri).parent == recipes.stages()
    assert recipes.stages().is_dir()
    assert elsewhere.default_usd_stage_uri.startswith("/srv/samples/")
    assert elsewhere.allowed_stage_roots[0] == "/srv/samples"


def test_variables(manifest: Path) -> None:
    """Variables are filled in, a default stands for one that is not given, and placeholders of launches stay."""
    version = recipes.load(manifest, {"STAGE": "/a.usd"}).versions[0]
    other = recipes.load(str(manifest), {"STAGE": "/a.usd", "ROOT": "/srv"}).versions[0]

    assert list(version.command) == ["/opt/run", "${HOME}", "{signal_port}"]
    assert version.default_usd_stage_uri == "/a.usd"
    assert other.command[0] == "/srv/run"


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("", "", r"app\.yaml: versions\[0\]\.default_usd_stage_uri: \$\{STAGE\} has no value; set STAGE"),
        ("${STAGE}", "${", r"default_usd_stage_uri: contains"),
        ("${STAGE}", "${EULA:?Y}", r"default_usd_stage_uri: EULA has no value; set it to 'Y' where you agree"),
        ("${STAGE}", "[", r"app\.yaml: not valid YAML"),
        ("default_usd_stage_uri: ${STAGE}", "comand: []", r"app\.yaml: .*comand"),
        ("version: 1.0.0", "version: 1.0", r"app\.yaml: .*version"),
        ("application: {application: app}", "app: {}", r"must have a member 'application'"),
    ],
)
def test_refused(manifest: Path, old: str, new: str, problem: str) -> None:
    """An error names the file and the member."""
    manifest.write_text(MANIFEST.replace(old, new) if old else MANIFEST)

    variables = {"STAGE": "/a"} if "STAGE" in new or "version" in old or "comand" in new else {}
    with pytest.raises(InvalidArgument, match=problem):
        recipes.load(manifest, variables)


def test_no_such_file() -> None:
    """A file that is not there is an error that lists the recipes that ship."""
    with pytest.raises(InvalidArgument, match=r"usd-viewr: No such file or directory; .*usd-viewer"):
        recipes.load("usd-viewr")


@pytest.mark.parametrize("name", ["kit-106", "kit-107", "kit-108-110", "isaac-sim-6"])
def test_kit_is_reached_at_an_address_or_negotiates(name: str) -> None:
    """Each excludes the other: with an address it negotiates nothing, and is given no relay."""
    chosen = {
        how: recipes.load(name, {"ACCEPT_EULA": "Y", **variables}).versions
        for how, variables in {
            "address": {},
            "ice": {"KIT_PUBLIC_ADDRESS": "", "KIT_RELAY_PATH": "/v1/streaming/creds"},
        }.items()
    }
    for address, ice in zip(chosen["address"], chosen["ice"], strict=True):
        validate(address)
        validate(ice)
        settings = [token for token in address.command if "public" in token and "Port" not in token]
        assert len(settings) == (name != "kit-106")
        assert all(token.endswith("={public_address}") for token in settings)
        assert "{public_address}" not in "".join(ice.command)
        assert len(ice.command) == len(address.command)
        assert (address.signaling.relay_path, ice.signaling.relay_path) == ("", "/v1/streaming/creds")


def test_a_default_may_be_a_placeholder(tmp_path: Path) -> None:
    """Of a launch; what is given takes its place, also nothing."""
    file = tmp_path / "app.yaml"
    file.write_text("application: {application: a}\nversions:\n- command: ['${HOST:-{public_address}}:${PORT:-1}']\n")

    found = [recipes.load(file, given).versions[0].command[0] for given in ({}, {"HOST": ""}, {"HOST": "h"})]

    assert found == ["{public_address}:1", ":1", "h:1"]
