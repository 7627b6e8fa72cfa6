"""Boots a systemd, and runs commands beside it.

The root is made once, in the build folder; what the machine writes is in memory and gone with it. It has processes, a
network and control groups of its own. Where this machine has control groups of both versions, so has it, with the
controllers of the first and the programs (BPF) of the second.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
BUILD = REPOSITORY / "build" / "machine"
SUITE = "trixie"
"""Debian's first release whose systemd is built with the BPF framework."""
PACKAGES = ("dbus", "libbpf1", "libpam-systemd", "python3", "systemd", "systemd-sysv")
MASKED = ("console-getty", "getty@tty1", "systemd-logind", "systemd-networkd", "systemd-resolved")
CALLS = "bpf add_key keyctl request_key"
"""System calls that nspawn denies, and that systemd needs for our properties."""
BOOT_DEADLINE_S = 60.0
CGROUPS = Path("/sys/fs/cgroup")


class Machine:
    """One that is running."""

    def __init__(self, leader: int, directory: Path) -> None:
        self.leader = leader
        """The pid of its first process, as this machine sees it."""
        self.directory = directory
        """A directory that both machines have, at the same path."""
        self.enter = ("nsenter", "--target", str(leader), *(f"--{kind}" for kind in _NAMESPACES), "--")
        """Begins a command that runs in it."""

    def run(self, *command: str) -> str:
        """Run a command in it and return its output; fail where it fails."""
        done = subprocess.run([*self.enter, *command], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout


_JOIN = 'while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs"; shift; done; shift; exec "$@"'
"""Runs a command in control groups of its own, of every hierarchy: two machines in one would be each other's."""
_NAMESPACES = ("mount", "uts", "ipc", "net", "pid", "cgroup")


def missing() -> str:
    """Say what is not here that a machine needs; empty where it can be booted."""
    if os.geteuid() != 0:
        return "a machine is booted by root only"
    absent = [name for name in ("systemd-nspawn", "nsenter", "debootstrap") if shutil.which(name) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


@contextlib.contextmanager
def booted() -> Iterator[Machine]:
    """Boot a machine, and end it with all that runs in it."""
    root = make_root()
    name = f"footlights-test-{secrets.token_hex(4)}"
    directory = BUILD / name
    directory.mkdir(mode=0o700)
    binds = [f"--bind-ro={path}" for path in _interpreter()]
    console = os.open(directory / "console", os.O_WRONLY | os.O_CREAT, 0o600)
    groups = [str(_make_control_group(hierarchy / name)) for hierarchy in _hierarchies()]
    process = subprocess.Popen(
        [
            *("sh", "-ec", _JOIN, "sh", *groups, "--"),
            *("systemd-nspawn", "--quiet", "--boot", "--register=no", "--private-network", "--volatile=overlay"),
            *("--console=pipe", "--capability=all", f"--system-call-filter={CALLS}", f"--machine={name}"),
            *(() if Path("/run/systemd/system").exists() else ("--keep-unit",)),
            *(f"--directory={root}", f"--bind={directory}", *binds),
            # systemd 256 and 257 have control groups of the first version only where they are told to.
            "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1",
        ],
        stdin=subprocess.DEVNULL,
        stdout=console,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    os.close(console)
    try:
        yield _ready(process, directory)
    finally:
        # Nothing that it wrote is kept: its first process ends, and all others with it.
        for pid in _children(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _leave_control_groups(name)
        shutil.rmtree(directory, ignore_errors=True)


def make_root() -> Path:
    """Make the root, unless there is one."""
    BUILD.mkdir(parents=True, exist_ok=True)
    root = BUILD / SUITE
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if root.exists():
            return root
        draft = BUILD / f"{SUITE}.draft"
        shutil.rmtree(draft, ignore_errors=True)
        with (BUILD / "debootstrap.log").open("wb") as log:
            command = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(draft)]
            subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True)
        shutil.rmtree(draft / "var/cache/apt", ignore_errors=True)
        shutil.rmtree(draft / "var/lib/apt/lists", ignore_errors=True)
        for unit in MASKED:
            (draft / "etc/systemd/system" / f"{unit}.service").symlink_to("/dev/null")
        draft.rename(root)
    return root


def _interpreter() -> list[str]:
    """List what the machine needs of this one to run our code: the interpreter, its packages, the source."""
    base = Path(sys.base_prefix)
    own = [os.path.realpath(sys.executable), sysconfig.get_path("stdlib")]
    places = own if base == Path("/usr") else [str(base)]
    return list(dict.fromkeys([*places, sys.prefix, str(REPOSITORY)]))


def _ready(process: subprocess.Popen[bytes], directory: Path) -> Machine:
    end = time.monotonic() + BOOT_DEADLINE_S
    while True:
        assert process.poll() is None, f"the machine ended: {(directory / 'console').read_text()[-2000:]}"
        if children := _children(process.pid):
            machine = Machine(children[0], directory)
            asked = subprocess.run(
                [*machine.enter, "systemctl", "is-system-running"], capture_output=True, text=True, check=False
            )
            if asked.stdout.strip() in ("running", "degraded"):
                break
        assert time.monotonic() < end, f"the machine did not boot: {(directory / 'console').read_text()[-2000:]}"
        time.sleep(0.1)
    if not (CGROUPS / "cgroup.controllers").exists():
        # nspawn shows these read-only, and systemd has only what it can write to.
        names = " ".join(name for name in ("cpu", "cpuacct", "devices", "memory", "pids") if (CGROUPS / name).exists())
        machine.run("sh", "-ec", f"for one in {names}; do mount -o remount,bind,rw /sys/fs/cgroup/$one; done")
        machine.run("systemctl", "daemon-reexec")
    return machine


def _children(pid: int) -> list[int]:
    with contextlib.suppress(FileNotFoundError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _make_control_group(group: Path) -> Path:
    group.mkdir()
    for wanted in ("cpuset.cpus", "cpuset.mems"):
        if (group / wanted).exists() and not (group / wanted).read_text().strip():
            (group / wanted).write_text((group.parent / wanted).read_text())
    return group


def _leave_control_groups(name: str) -> None:
    for hierarchy in _hierarchies():
        for folder, _, _ in os.walk(hierarchy / name, topdown=False):
            processes = Path(folder) / "cgroup.procs"
            with contextlib.suppress(OSError):
                for pid in processes.read_text().split():
                    os.kill(int(pid), signal.SIGKILL)
            _remove_group(Path(folder))


def _remove_group(group: Path) -> None:
    end = time.monotonic() + 5.0
    while True:
        try:
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
        else:
            return


def _hierarchies() -> Sequence[Path]:
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    return [path for path in sorted(CGROUPS.iterdir()) if path.is_dir() and not path.is_symlink()]
