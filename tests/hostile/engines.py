"""Real podman and Docker for tests, on a network of their own, with an image that holds a shell and Python.

The network namespace is the node: the tests themselves are in it while an engine runs, so that neither ports, bridges
nor packet filters meet those of the machine. Needs root; a missing engine skips the test.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from footlights.launch.container.docker import DockerEngine
from footlights.launch.container.engine import Engine
from footlights.launch.container.podman import PodmanEngine

IMAGE = "localhost/hostile:1"
OWNED, OWNER = "/home/user/.cache/kept", 1500
"""A directory of the image, and whose it is."""
PYTHON = Path("/usr/bin/python3")
_CLONE_NEWNET = 0x40000000
_START_S = 60.0


@dataclass(frozen=True)
class RealEngine:
    """An engine that runs."""

    engine: Engine
    kept_in: tuple[Path, ...]
    """Where it keeps what containers write."""
    sockets: tuple[str, ...] = ()
    client: tuple[str, ...] = ()
    """What begins a command of its own."""

    def load(self, image: str, content: bytes, *changes: str) -> None:
        """Make an image of a root's archive, with instructions of a Dockerfile."""
        options = [option for change in changes for option in ("--change", change)]
        subprocess.run([*self.client, "import", *options, "-", image], input=content, check=True, capture_output=True)


@contextlib.contextmanager
def real_engine(name: str, directory: Path) -> Iterator[RealEngine]:
    """Run ``docker`` or ``podman`` with all of its files below a directory. Skips the test where it cannot."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    missing = [tool for tool in ("ip", "iptables", {"docker": "dockerd"}.get(name, name)) if not shutil.which(tool)]
    if missing or not PYTHON.exists():
        pytest.skip(f"{missing or PYTHON} is not installed")
    run = {"docker": _docker, "podman": _podman}[name]
    with own_network(), run(directory) as engine:
        yield engine


@contextlib.contextmanager
def own_network() -> Iterator[None]:
    """Put this thread, and what it starts, into a network namespace of its own, with a loopback that is up."""
    library = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    if library.unshare(_CLONE_NEWNET) != 0:
        os.close(before)
        pytest.skip(f"no network namespaces here: {os.strerror(ctypes.get_errno())}")
    try:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        yield
    finally:
        assert library.setns(before, _CLONE_NEWNET) == 0
        os.close(before)


@contextlib.contextmanager
def cable(node: str, *others: str) -> Iterator[tuple[str, ...]]:
    """Connect this network to one of another machine, which has all of the other addresses.

    Yields what begins a command that runs there.
    """
    holder = subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; exec sleep 86400"], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    enter = ("nsenter", f"--net=/proc/{holder.pid}/ns/net", "--")
    there = " ".join(enter)
    try:
        for command in (
            f"ip link add node0 type veth peer name other0 netns {holder.pid}",
            f"ip addr add {node}/24 dev node0",
            "ip link set node0 up",
            f"{there} ip link set lo up",
            f"{there} ip addr add {others[0]}/24 dev other0",
            *(f"{there} ip addr add {address}/32 dev other0" for address in others[1:]),
            f"{there} ip link set other0 up",
            f"{there} ip route add default via {node}",
            *(f"ip route add {address}/32 via {others[0]}" for address in others[1:]),
        ):
            subprocess.run(command.split(), check=True)
        yield enter
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


@contextlib.contextmanager
def _docker(directory: Path) -> Iterator[RealEngine]:
    socket, log = directory / "docker.sock", directory / "dockerd.log"
    data = directory / "data"
    options = [f"--data-root={data}", f"--exec-root={directory / 'exec'}", f"--pidfile={directory / 'pid'}"]
    with log.open("wb") as output:
        daemon = subprocess.Popen(
            ["dockerd", *options, f"--host=unix://{socket}", "--bridge=none"], stdout=output, stderr=output
        )
    client = ["docker", f"--host=unix://{socket}"]
    try:
        end = time.monotonic() + _START_S
        while subprocess.run([*client, "version"], capture_output=True).returncode != 0:
            if daemon.poll() is not None or time.monotonic() > end:
                pytest.skip(f"dockerd does not run here: {log.read_text()[-2000:]}")
            time.sleep(0.2)
        subprocess.run([*client, "import", "-", IMAGE], input=image_tar(), check=True, capture_output=True)
        kept = (data / "containers", data / "volumes")
        yield RealEngine(DockerEngine(socket), kept, (str(socket),), tuple(client))
        left = subprocess.run([*client, "ps", "--all", "--quiet"], capture_output=True, text=True).stdout.split()
        for container in left:
            subprocess.run([*client, "rm", "--force", container], capture_output=True)
    finally:
        daemon.terminate()
        daemon.wait(30)
        for place in (directory / "exec" / "netns").glob("*"):
            subprocess.run(["umount", place], capture_output=True)


@contextlib.contextmanager
def _podman(directory: Path) -> Iterator[RealEngine]:
    configuration = directory / "containers.conf"
    configuration.write_text(
        '[containers]\ndefault_ulimits = ["nofile=20000:20000", "nproc=8192:8192"]\n'
        '[engine]\nevents_logger = "file"\nruntime = "crun"\n'
    )
    # A hybrid tree of control groups confuses podman 4.
    hidden = "umount /sys/fs/cgroup/unified 2>/dev/null; echo; exec sleep 86400"
    holder = subprocess.Popen(["unshare", "--mount", "sh", "-c", hidden], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    roots = f"--root {directory / 'root'} --runroot {directory / 'run'} --network-config-dir {directory / 'networks'}"
    program = directory / "podman"
    program.write_text(
        f"#!/bin/sh\nCONTAINERS_CONF={configuration} exec nsenter --mount=/proc/{holder.pid}/ns/mnt -- "
        f'podman {roots} "$@"\n'
    )
    program.chmod(0o755)
    try:
        done = subprocess.run([program, "import", "-", IMAGE], input=image_tar(), capture_output=True)
        if done.returncode != 0:
            pytest.skip(f"podman does not run here: {done.stderr.decode()[-2000:]}")
        places = (directory / "root" / "overlay-containers", directory / "root" / "volumes")
        yield RealEngine(PodmanEngine(program=str(program)), places, client=(str(program),))
    finally:
        subprocess.run([program, "rm", "--all", "--force", "--time", "0"], capture_output=True)
        holder.kill()
        holder.wait()
        holder.stdout.close()


def image_tar(**programs_of_its_own: bytes) -> bytes:
    """Make the root of an image from this machine's own Python, shell and libraries, and of programs by their paths."""
    programs = [PYTHON.resolve(), *(Path(path) for path in ("/bin/sh", "/bin/sleep", "/bin/cat"))]
    library = Path(f"/usr/lib/{programs[0].name}")
    modules = [path for path in library.rglob("*") if path.is_file() and "test" not in path.parts]
    shared = [path for path in modules if path.suffix == ".so"]
    # Loaded by threads that end with their process, by no name that ldd sees.
    late = Path("/usr/lib").glob("*-linux-gnu/libgcc_s.so.1")
    files = {*programs, *modules, *late, *(Path(line) for each in (*programs, *shared) for line in _libraries(each))}
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", dereference=True) as tar:
        for link in ("bin", "lib", "lib64"):
            if Path("/", link).is_symlink():
                entry = tarfile.TarInfo(link)
                entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink(f"/{link}")
                tar.addfile(entry)
        for path in sorted(files):
            tar.add(path, Path(os.path.realpath(path.parent), path.name).relative_to("/"))
        entry = tarfile.TarInfo(OWNED.lstrip("/"))
        entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, 0o755, OWNER, OWNER
        tar.addfile(entry)
        for name, program in programs_of_its_own.items():
            entry = tarfile.TarInfo(name)
            entry.mode, entry.size = 0o755, len(program)
            tar.addfile(entry, io.BytesIO(program))
        entry = tarfile.TarInfo(str(PYTHON.relative_to("/")))
        entry.type, entry.linkname = tarfile.SYMTYPE, programs[0].name
        tar.addfile(entry)
    return content.getvalue()


def _libraries(program: Path) -> list[str]:
    said = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
    return [word for word in said.split() if word.startswith("/")]
