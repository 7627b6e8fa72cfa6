from __future__ import annotations

import http.server
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import footlights
from footlights.viewer.options import parse_options
from tests.deploy import DEPLOY
from tests.deploy.commands import accept

DOCKERFILES = sorted((DEPLOY / "docker").glob("*.Dockerfile"))
ROOT = DEPLOY.parent


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_hadolint_finds_nothing(path: Path) -> None:
    """
    Each Dockerfile passes hadolint, informational findings included.
    """
    run = subprocess.run([Path(sys.executable).parent / "hadolint", path], capture_output=True, text=True, check=False)

    assert (run.returncode, run.stdout) == (0, "")


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_images_are_small_and_not_root(path: Path) -> None:
    """
    Images are built in stages on a slim base that an argument pins, end as a user by number, and say their health.
    """
    text = path.read_text()
    stages = re.findall(r"^FROM (\S+)", text, re.MULTILINE)

    assert stages == ["${PYTHON_IMAGE}"] * 2
    assert re.search(r"^ARG PYTHON_IMAGE=python:3\.\d+-slim", text, re.MULTILINE)
    assert re.findall(r"^USER (.*)", text, re.MULTILINE) == ["${UID}:${UID}"]
    assert text.count("HEALTHCHECK") == 1
    assert text.count("STOPSIGNAL SIGTERM") == 1
    assert {"title", "description", "licenses", "version", "revision"} == set(
        re.findall(r"org\.opencontainers\.image\.(\w+)=", text)
    )


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_images_hold_what_was_tested(path: Path) -> None:
    """
    What is installed is checked by its hash, comes as wheels, and nothing is resolved anew; nothing in the image
    installs more.
    """
    text = path.read_text()
    first, last = text.split("\nFROM ")[1:]
    installs = re.findall(r"pip (?:--python \S+ )?(?:install|wheel) (.*?)(?: \\)?$", first, re.MULTILINE)

    assert len(installs) == 4
    assert [line.rpartition(" ")[2] for line in installs[:2]] == [
        "requirements/build.txt",
        f"requirements/{path.name.removesuffix('.Dockerfile')}.txt",
    ]
    assert all("--require-hashes --only-binary=:all: -r " in line for line in installs[:2])
    assert all("--no-deps --no-index" in line for line in installs[2:])
    assert "venv --without-pip" in first
    assert not re.search(r"\b(pip|gcc|build-essential|make)\b", last)
    assert 'image.version="${VERSION}"' in last
    assert f"ARG VERSION={footlights.__version__}\n" in last


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_images_copy_what_there_is(path: Path) -> None:
    """
    Every file that is copied into an image is in the repository.
    """
    for line in re.findall(r"^COPY (?!--from)(.*)", path.read_text(), re.MULTILINE):
        *sources, _ = line.split()
        assert all((ROOT / source).exists() for source in sources), line
        assert {f"!{source}" for source in sources} <= set((ROOT / ".dockerignore").read_text().splitlines()), line


def test_default_commands_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What an image runs without arguments is a command line that its program takes.
    """
    for name in ("control-plane", "agent"):
        text = (DEPLOY / "docker" / f"{name}.Dockerfile").read_text()
        environment = dict(re.findall(r"(FOOTLIGHTS_\w+)=(\S+)", text))
        accept(monkeypatch, [*_words(text, "ENTRYPOINT"), *_words(text, "CMD")], environment)
    viewer = (DEPLOY / "docker" / "viewer.Dockerfile").read_text()

    assert _words(viewer, "ENTRYPOINT") == ["footlights-viewer"]
    assert parse_options(_words(viewer, "CMD")).http_port == 8012


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_health_of_a_control_plane(tmp_path: Path, host: str) -> None:
    """
    The control plane's check follows /healthz on the port that it listens on, whatever address that is bound to.
    """
    with _answering(200) as port:
        (tmp_path / "endpoints.json").write_text(json.dumps({"http": f"http://{host}:{port}"}))
        assert _healthy("control-plane", {"/data": str(tmp_path)})
    with _answering(503) as port:
        (tmp_path / "endpoints.json").write_text(json.dumps({"http": f"http://{host}:{port}"}))
        assert not _healthy("control-plane", {"/data": str(tmp_path)})


def test_health_of_an_agent(tmp_path: Path) -> None:
    """
    The agent's check says that an agent is there exactly while one runs on the data directory, linked or not.
    """
    (tmp_path / "agent.lock").touch()
    assert not _healthy("agent", {"/data": str(tmp_path)})
    nowhere = ["--server=127.0.0.1:1", "--token=none", "--devices=software"]
    agent = subprocess.Popen(
        [Path(sys.executable).parent / "footlights", "agent", f"--data-dir={tmp_path}", *nowhere],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 20
        while not _healthy("agent", {"/data": str(tmp_path)}):
            assert agent.poll() is None, "the agent ended"
            assert time.monotonic() < deadline, "the agent runs, and the check does not see it"
    finally:
        agent.kill()
        agent.wait()

    assert not _healthy("agent", {"/data": str(tmp_path)})


def test_health_of_a_viewer(tmp_path: Path) -> None:
    """
    The viewer's check asks on the port that the viewer was started with.
    """
    cmdline = tmp_path / "cmdline"
    for status, healthy in ((200, True), (503, False)):
        with _answering(status) as port:
            cmdline.write_bytes(b"\0".join([b"footlights-viewer", b"--http-port", str(port).encode(), b""]))
            assert _healthy("viewer", {"/proc/1/cmdline": str(cmdline)}) is healthy


def _words(text: str, instruction: str) -> list[str]:
    (found,) = re.findall(rf"^{instruction} (\[.*\])$", text, re.MULTILINE)
    return [str(word) for word in json.loads(found)]


def _healthy(image: str, paths: dict[str, str]) -> bool:
    """Run an image's health check here, with paths of this machine in place of the image's."""
    text = (DEPLOY / "docker" / f"{image}.Dockerfile").read_text()
    (found,) = re.findall(r"^  CMD (\[.*\])$", text, re.MULTILINE)
    program, *arguments = json.loads(found)
    assert program == "python"
    for ours, theirs in paths.items():
        arguments = [argument.replace(ours, theirs) for argument in arguments]
    run = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=10)
    return run.returncode == 0


@contextmanager
def _answering(status: int) -> Iterator[int]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path in ("/healthz", "/v1/streaming/ready")
            self.send_response(status)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that it has above
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
