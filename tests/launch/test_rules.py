"""What a node allows to containers: images and mounts. Also covers ``writable``."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from footlights.launch.container.rules import ContainerRules, full_name
from footlights.launch.launcher import LaunchError
from footlights.launch.writable import nested

DIGEST = "@sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("kit:1", "docker.io/library/kit:1"),
        ("team/kit", "docker.io/team/kit"),
        ("localhost/kit", "localhost/kit"),
        ("registry.example.com/kit:1", "registry.example.com/kit:1"),
        ("registry:5000/kit", "registry:5000/kit"),
    ],
)
def test_registries(image: str, name: str) -> None:
    """An image without a registry is from the one that engines take then."""
    assert full_name(image) == name


@pytest.mark.parametrize(
    ("image", "allowed"),
    [
        ("registry.example.com/team/kit:1", True),
        (f"registry.example.com/team/kit{DIGEST}", True),
        ("registry.example.com/team/more/kit", True),
        ("registry.example.com/teams/kit", False),
        ("registry.example.com/kit", False),
        ("registry.example.com.evil.example/team/kit", False),
        ("kit:1", False),
        ("docker.io/library/viewer:1", True),
        ("viewer:1", True),
    ],
)
def test_allowed_registries(image: str, allowed: bool) -> None:
    """Only images of the places that the operator allows are run; without any, all are."""
    rules = ContainerRules(image_registries=("registry.example.com/team", "docker.io/library/viewer"))
    ContainerRules().check_image(image)

    if allowed:
        rules.check_image(image)
        return
    with pytest.raises(LaunchError, match=r"none of the registries .* \(--image-registries\)") as caught:
        rules.check_image(image)
    assert (caught.value.reason, caught.value.rejected) == ("IMAGE_REFUSED", True)


def test_digests() -> None:
    """Where the operator says so, a tag is refused, which may be another image tomorrow."""
    rules = ContainerRules(image_digests=True)

    rules.check_image(f"kit{DIGEST}")
    with pytest.raises(LaunchError, match=r"'kit:1' is not named by digest.*write name@sha256"):
        rules.check_image("kit:1")


def test_mounts(tmp_path: Path) -> None:
    """A mount lies below a root of its kind, where it really is, links followed; others are refused."""
    readable, writable, elsewhere = (tmp_path / name for name in ("readable", "writable", "elsewhere"))
    for directory in (readable, writable, elsewhere):
        (directory / "in").mkdir(parents=True)
    (readable / "out").symlink_to(elsewhere)
    (readable / "link").symlink_to("in")
    rules = ContainerRules(allowed_roots=(str(readable),), writable_roots=(str(writable),))

    assert rules.mounts([f"{readable}/in:/a:ro", f"{writable}:/b", f"{writable}:/c:ro", f"{readable}/link:/d:ro"]) == (
        (f"{readable}/in:/a:ro", f"{writable}:/b", f"{writable}:/c:ro", f"{readable}/in:/d:ro"),
        (),
    )
    for mount, words in {
        f"{readable}/in:/a": "may be written",
        f"{readable}/out:/a:ro": "may be read",
        f"{elsewhere}:/a:ro": "may be read",
        f"{tmp_path}:/a:ro": "may be read",
        "/:/a:ro": "may be read",
        f"{readable}-2:/a:ro": "may be read",
        f"{readable}/none:/a:ro": "No such file",
    }.items():
        with pytest.raises(LaunchError, match=words) as caught:
            rules.mounts([mount])
        assert (caught.value.reason, caught.value.rejected) == ("MOUNT_REFUSED", True)
    with pytest.raises(LaunchError, match=r"\(none\): allow one \(--allowed-roots\)"):
        ContainerRules().mounts([f"{readable}/in:/a:ro"])


def test_the_engines_socket(tmp_path: Path) -> None:
    """No socket is mounted, wherever it lies: the engine's is as good as root."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "docker.sock"))
        with pytest.raises(LaunchError, match="sockets and devices are not mounted"):
            ContainerRules(allowed_roots=(str(tmp_path),)).mounts([f"{tmp_path}/docker.sock:/a:ro"])


def test_nothing_is_mounted_that_an_application_may_replace(tmp_path: Path) -> None:
    """What it writes to is mounted whole: below, it could put a link in a place between the look and the start."""
    (tmp_path / "out" / "in").mkdir(parents=True)
    (tmp_path / "projects" / "a" / "in").mkdir(parents=True)
    (tmp_path / "projects" / "link").symlink_to("/etc")
    rules = ContainerRules(allowed_roots=(str(tmp_path),), writable_roots=(f"{tmp_path}/out", f"{tmp_path}/projects/*"))

    mounts = [f"{tmp_path}/out:/a", f"{tmp_path}/projects/a:/b", f"{tmp_path}/projects/a:/c:ro"]
    assert rules.mounts(mounts) == (tuple(mounts), ())
    for mount, words in {
        f"{tmp_path}/out/in:/a": "could be replaced",
        f"{tmp_path}/out/in:/a:ro": "could be replaced",
        f"{tmp_path}/projects/a/in:/a:ro": f"lies in '{tmp_path}/projects/a'",
        f"{tmp_path}/projects:/a": "may be written",
        f"{tmp_path}/projects/link:/a": "may be written",
    }.items():
        with pytest.raises(LaunchError, match=words) as caught:
            rules.mounts([mount])
        assert (caught.value.reason, caught.value.rejected) == ("MOUNT_REFUSED", True)
    assert nested(("/srv/out", "/srv/projects/*")) is None
    assert nested(("/srv/*", "/srv/out")) == ("/srv/*", "/srv/out")


def test_volumes() -> None:
    """A volume is shared only where the operator says so, and written only where he says that; others are own."""
    rules = ContainerRules(shared_volumes=("kit-*", "out:rw", "kit-w*:rw"))

    assert rules.mounts(["kit-1:/a", "kit-2:/b:ro", "data:/c", "out:/d", "out:/e:ro", "kit-w1:/f"]) == (
        ("kit-1:/a:ro", "kit-2:/b:ro", "out:/d", "out:/e:ro", "kit-w1:/f"),
        ("/c",),
    )
    assert ContainerRules().mounts(["kit-1:/a"]) == ((), ("/a",))
