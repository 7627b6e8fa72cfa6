"""What the `systemd` launcher promises beyond the contract, on a booted systemd; also the tests of ``unit_journal``.

That nothing leaves a unit is shown by ``tests/hostile/test_systemd.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import pytest
from footlights.v1.application_pb2 import Systemd, Version

from footlights.launch import firewall
from footlights.launch.caches import CacheStore
from footlights.launch.launcher import Launcher, LaunchError, LaunchPlan, Phase, Ports, Status
from footlights.launch.launchers import SYSTEMD
from footlights.launch.systemd import unit
from tests.launch.plans import PORTS, command, make_plan, script
from tests.launch.waiting import ended, logged, until
from tests.machine.launcher import make
from tests.machine.machine import Machine
from tests.machine.remote import Remote

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

GPU = "GPU-0e0ff5c2-7a3b-4f6e-9d3c-000000000001"
ASK = (
    "import socket, sys; s = socket.create_connection(('127.0.0.1', int(sys.argv[1])), 3, (sys.argv[2], 0)); "
    "s.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n'); print(s.recv(99).split()[1].decode())"
)

REACH = """
import socket, sys
port, answered, own = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
for source in (None, (answered, own), ("127.0.0.1", own)):
    for target in (answered, "127.0.0.1"):
        try:
            with socket.create_connection((target, port), 2, source):
                print("reached", target, "from", source)
        except OSError as error:
            print(target, "from", source, error)
"""
"""Tries to connect to a port of another session, by all of the loopback network that is not closed to units."""


@dataclass
class Booted:
    """A machine, and launchers in it."""

    machine: Machine
    root: Path
    allowed: Path
    """A directory of the machine that its applications may be shown."""
    launchers: list[Remote]

    def launcher(self) -> Launcher:
        """Start a new agent's."""
        self.launchers.append(Remote(self.machine.enter, make, self.root, str(self.allowed)))
        return cast("Launcher", self.launchers[-1])

    async def start(self, version: Version, **options: object) -> tuple[Launcher, LaunchPlan]:
        launcher, plan = self.launcher(), make_plan(version, self.root, **options)  # type: ignore[arg-type]
        await launcher.prepare(plan)
        await launcher.start(plan, b'{"key": "secret"}')
        return launcher, plan

    def ask(self, port: str, source: str = SYSTEMD.asked_from) -> str:
        """Ask an application for its root, as the agent does; return the status, or what went wrong."""
        return self.machine.run("sh", "-c", 'python3 -c "$@" 2>&1 || true', "sh", ASK, port, source)

    @contextlib.contextmanager
    def filtered(self) -> Iterator[None]:
        """Have the packet filter loaded for the length of the block, by this machine's nft."""
        nft = ["nsenter", f"--net=/proc/{self.machine.leader}/ns/net", "--", "nft"]
        text = firewall.rules(firewall.FirewallSettings(first_port=PORTS.signal, last_port=PORTS.signal + 99))
        subprocess.run([*nft, "-f", "-"], input=text, text=True, check=True)
        try:
            yield
        finally:
            subprocess.run([*nft, "delete", "table", "inet", "footlights"], check=True)


@pytest.fixture
async def booted(machine: Machine) -> AsyncIterator[Booted]:
    root = machine.directory / f"launches-{secrets.token_hex(4)}"
    allowed = machine.directory / f"allowed-{secrets.token_hex(4)}"
    for folder in (root, allowed):
        folder.mkdir(mode=0o700)
    made = Booted(machine, root, allowed, [])
    yield made
    for each in made.launchers:
        await each.disconnect()


def unit_of(text: str, **members: object) -> Version:
    version = script(text)
    version.systemd.CopyFrom(Systemd(**{"memory_bytes": 128 << 20, "disk_bytes": 8 << 20, **members}))  # type: ignore[arg-type]
    return version


def serving() -> Version:
    """A version that answers on its HTTP port, at every address."""
    version = unit_of("true")
    version.command[:] = ["/usr/bin/python3", "-m", "http.server", "--directory", "/usr/share/doc", "{http_port}"]
    return version


async def over(launcher: Launcher, plan: LaunchPlan) -> Status:
    await launcher.stop(plan, kill=True)
    return await ended(launcher, plan)


async def test_an_exit_that_no_agent_saw_is_kept(booted: Booted) -> None:
    """An application goes on when its agent is killed, and the next agent reads the status it ended with meanwhile."""
    launcher, plan = await booted.start(unit_of("echo up; until [ -e /tmp/go ]; do sleep 0.1; done; exit 7"))
    await logged(launcher, plan, "up")
    name = unit.service_name(plan)

    await booted.launchers.pop().kill()
    assert booted.machine.run("systemctl", "is-active", name).strip() == "active"
    booted.machine.run("touch", f"{plan.directory}/tmp/go")
    booted.machine.run("sh", "-c", f"while systemctl is-active -q {name}; do sleep 0.1; done")

    launcher = booted.launcher()
    status = await ended(launcher, plan)
    assert (status.phase, status.exit_code) == (Phase.EXITED, 7)
    assert (await launcher.log(plan)).lines == ("up",)


async def test_an_exit_without_a_grace_is_kept(booted: Booted) -> None:
    """One that is given no time to stop says all the same with which status it ended by itself."""
    launcher, plan = await booted.start(unit_of("exit 9"), grace_s=0.0)

    assert (await ended(launcher, plan)).exit_code == 9


async def test_its_variables_are_not_roots(booted: Booted) -> None:
    """What a version sets reaches its application alone, and not the last command, which is root's, nor its loader."""
    version = unit_of("echo $LD_LIBRARY_PATH $EXIT_STATUS; exit 5")
    version.environment.update(
        {"LD_PRELOAD": "/none.so", "LD_LIBRARY_PATH": "/opt/app", "EXIT_STATUS": "0", "ENV": "/x"}
    )
    launcher, plan = await booted.start(version)

    status = await ended(launcher, plan)

    assert status.exit_code == 5
    lines = (await launcher.log(plan)).lines
    assert lines[-1] == "/opt/app 0"
    assert sum("/none.so" in line for line in lines) == 1  # the shell's own, and no other command's


async def test_the_end_is_the_control_groups(booted: Booted) -> None:
    """What an application leaves behind, in a session of its own and without its environment, ends with it."""
    escape = "setsid env -i sh -c 'trap \"\" TERM; echo escaped; sleep 600; true' & sleep 1; exit 3"
    launcher, plan = await booted.start(unit_of(escape), grace_s=1.0)
    await logged(launcher, plan, "escaped")

    status = await ended(launcher, plan)

    assert status.exit_code == 3
    assert "sleep 600" not in booted.machine.run("sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")


async def test_nothing_of_a_session_is_left(booted: Booted) -> None:
    """Its home, /tmp and /dev/shm are gone with its last process, and its directory when it is discarded."""
    text = "for place in ~ /tmp /var/tmp /dev/shm; do echo mine >$place/file; done; echo written; exec sleep 60"
    launcher, plan = await booted.start(unit_of(text))
    await logged(launcher, plan, "written")
    assert booted.machine.run("cat", f"{plan.directory}/tmp/file").strip() == "mine"

    await over(launcher, plan)
    await launcher.discard(plan)

    assert str(plan.directory) not in booted.machine.run("cat", "/proc/self/mounts")
    assert list(plan.directory.iterdir()) == []
    second, again = await booted.start(unit_of("ls -A ~ /tmp /var/tmp /dev/shm"))
    await ended(second, again)
    assert not [line for line in (await second.log(again)).lines if "file" in line]


async def test_it_sees_what_is_named(booted: Booted) -> None:
    """Stage roots and named paths are there to be read; their neighbours, and the node's own files, are not."""
    for name in ("stages", "assets", "other"):
        (booted.allowed / name).mkdir()
        (booted.allowed / name / "file").write_text(name)
        (booted.allowed / name / "file").chmod(0o644)
    text = (
        f"cd {booted.allowed}; cat */file; echo; touch stages/new assets/new 2>&1; "
        "ls /etc/shadow /root/.profile /var/lib 2>&1; "
        "id -u; ls /proc | grep -c '^[0-9]'; cat $FOOTLIGHTS_SESSION_FILE"
    )
    version = unit_of(text, read_only_paths=[str(booted.allowed / "assets")])
    version.allowed_stage_roots.append(str(booted.allowed / "stages"))
    launcher, plan = await booted.start(version)

    await ended(launcher, plan)

    said = "\n".join((await launcher.log(plan)).lines)
    assert "assetsstages\n" in said
    assert said.count("Read-only file system") == 2
    assert said.count("ls: cannot access") == 3
    assert '{"key": "secret"}' in said
    outside = unit_of("true", read_only_paths=["/var/log"])
    with pytest.raises(LaunchError) as caught:
        await booted.start(outside)
    assert (caught.value.reason, caught.value.rejected) == ("PATH_NOT_ALLOWED", True)


async def test_it_reads_what_is_kept_for_its_version(booted: Booted) -> None:
    """A cache is there, warm and read-only; beside it, and around it, its home is its own."""
    warm = booted.allowed / "warm" / "home" / ".cache" / "ov"
    warm.mkdir(parents=True)
    (warm / "shader").write_text("compiled\n")
    text = (
        "cat ~/.cache/ov/shader; for name in shader new; do echo bad >~/.cache/ov/$name; done; echo own >~/.cache/own"
    )
    version = unit_of(text)
    version.application, version.cache_paths[:] = "kit", ["~/.cache/ov"]
    store = CacheStore(booted.root.parent / "caches")
    store.take(version, str(booted.allowed / "warm"), "/home", owner=os.geteuid(), most_bytes=1 << 20)

    launcher, plan = await booted.start(version)
    status = await ended(launcher, plan)

    lines = (await launcher.log(plan)).lines
    assert (status.exit_code, lines[0]) == (0, "compiled")
    assert sum("Read-only file system" in line for line in lines) == 2
    await launcher.discard(plan)
    assert store.remove("kit", "1.0.0")


async def test_it_has_no_way_around_its_filter(booted: Booted) -> None:
    """Rings (io_uring), by which sockets of any family could be made, are not permitted; other calls work."""
    version = unit_of("true")
    call = "c = ctypes.CDLL(None, use_errno=True); r = c.syscall(425, 4, bytes(120)); print(r, ctypes.get_errno())"
    version.command[:] = ["/usr/bin/python3", "-c", f"import ctypes, os; {call}; print(os.getpid() > 0)"]

    launcher, plan = await booted.start(version)
    await ended(launcher, plan)

    assert (await launcher.log(plan)).lines == ("-1 1", "True")


async def test_it_gets_its_own_device_alone(booted: Booted) -> None:
    """Of the node's devices it sees and opens its own; the others are not there, and cannot be made."""
    nodes = [{"path": f"/dev/nvidia{number}"} for number in range(2)]
    specification = {
        "cdiVersion": "0.6.0",
        "kind": "nvidia.com/gpu",
        "devices": [{"name": GPU, "containerEdits": {"deviceNodes": nodes[:1]}}],
    }
    text = json.dumps(specification)
    booted.machine.run("sh", "-ec", 'mkdir -p /etc/cdi; echo "$1" >/etc/cdi/nvidia.json', "sh", text)
    # The zeros and the noise of /dev/zero and /dev/urandom, as devices of a node.
    for number, minor in enumerate((5, 9)):
        booted.machine.run("sh", "-ec", f"[ -e /dev/nvidia{number} ] || mknod -m 666 /dev/nvidia{number} c 1 {minor}")
    look = "head -c 8 /dev/nvidia0 | od -An -tx1; ls /dev/nvidia*; mknod /tmp/n c 1 9 2>&1; echo $CUDA_VISIBLE_DEVICES"

    launcher, plan = await booted.start(unit_of(look), device_kind="GPU", device_uuid=GPU)
    await ended(launcher, plan)

    lines = (await launcher.log(plan)).lines
    assert [line.strip() for line in lines[:2]] == ["00 00 00 00 00 00 00 00", "/dev/nvidia0"]
    assert "Operation not permitted" in lines[2]
    assert lines[3] == GPU
    with pytest.raises(LaunchError) as caught:
        await booted.start(unit_of(look), device_kind="GPU", device_uuid="GPU-unknown")
    assert caught.value.reason == "DEVICE_NODES_UNKNOWN"


async def test_it_is_reached_by_the_agent_alone(booted: Booted) -> None:
    """On the node it answers the address that the agent asks from; loopback's other addresses get no answer."""
    launcher, plan = await booted.start(serving())
    port = str(plan.ports.http)

    assert await until(lambda: asyncio.to_thread(booted.ask, port), lambda said: said == "200\n") == "200\n"
    other = booted.ask(port, "127.0.0.1")
    assert "TimeoutError" in other or "timed out" in other
    await over(launcher, plan)


async def test_it_is_not_reached_by_another_session(booted: Booted) -> None:
    """With the packet filter the address that the agent asks from, and that applications answer, leads none to another.

    Without it one does that takes the address for its own.
    """
    launcher, plan = await booted.start(serving())
    port = str(plan.ports.http)
    assert await until(lambda: asyncio.to_thread(booted.ask, port), lambda said: said == "200\n") == "200\n"
    other = unit_of("true")
    other.command[:] = ["/usr/bin/python3", "-c", REACH, port, SYSTEMD.asked_from, "{signal_port}"]

    async def reached() -> list[str]:
        ports = Ports(signal=PORTS.signal + 4, media=PORTS.media + 4, http=PORTS.http + 4)
        trying, tried = await booted.start(other, ports=ports)
        await ended(trying, tried)
        return [line for line in (await trying.log(tried)).lines if line.startswith("reached")]

    assert await reached()
    with booted.filtered():
        assert await reached() == []
        assert booted.ask(port) == "200\n"
    await over(launcher, plan)


async def test_it_is_limited(booted: Booted) -> None:
    """Memory, tasks and processors are bounded: one that wants more memory is killed."""
    version = unit_of("true", memory_bytes=64 << 20, tasks=50, processors=0.5)
    version.command[:] = ["/usr/bin/python3", "-c", "x = [bytearray(1 << 20) for _ in range(400)]"]
    launcher, plan = await booted.start(version)
    # That it was memory, systemd knows with control groups v2 alone.
    assert (await ended(launcher, plan)).exit_code == -signal.SIGKILL

    launcher, plan = await booted.start(unit_of("exec sleep 60", tasks=50, processors=0.5))
    shown = booted.machine.run(
        "systemctl", "show", unit.service_name(plan), "-p", "TasksMax,CPUQuotaPerSecUSec,MemoryMax"
    )
    assert {"TasksMax=50", "CPUQuotaPerSecUSec=500ms", f"MemoryMax={128 << 20}"} == set(shown.split())
    await over(launcher, plan)


async def test_it_says_what_did_not_work(booted: Booted) -> None:
    """A start that systemd could not make says why, in systemd's words."""
    program = booted.allowed / "program"
    program.write_text("no program")
    program.chmod(0o755)
    version = command(str(program))
    version.systemd.CopyFrom(Systemd(read_only_paths=[str(program)]))

    elsewhere = unit_of("true")
    elsewhere.working_directory = "/tmp/none"

    for each, reason in ((version, "COMMAND_NOT_EXECUTABLE"), (elsewhere, "WORKING_DIRECTORY_NOT_FOUND")):
        with pytest.raises(LaunchError) as caught:
            await booted.start(each)
        assert caught.value.reason == reason
    assert "systemd says: Changing to the requested working directory failed" in caught.value.message


async def test_its_journal_is_its_own(booted: Booted) -> None:
    """Its log holds what it wrote, of any form, and nothing that others wrote about it or in its name."""
    text = "printf 'caf\\351\\n'; echo; printf 'a\\tb\\n'; head -c 100000 /dev/zero | tr '\\0' x; echo; printf end"
    launcher, plan = await booted.start(unit_of(text))
    name = unit.service_name(plan)
    booted.machine.run("sh", "-c", f"echo forged | systemd-cat -t {name}")
    booted.machine.run("sh", "-c", f"echo forged | systemd-cat -t {name} --namespace=footlights")
    await ended(launcher, plan)

    lines = (await launcher.log(plan)).lines

    assert lines[:2] == ("caf\ufffd", "a\tb")  # journald leaves out empty lines
    assert "".join(lines[2:-1]) == "x" * 100_000
    assert lines[-1] == "end"
    part = await launcher.log(plan, tail_lines=1)
    assert (part.lines, part.truncated) == (("end",), True)
    assert (await launcher.log(plan, cursor="not a cursor")).lines == lines
    # Nothing of it is in the node's own journal, where it could push out other entries.
    last = ("--lines=1", "--output=cat", "_TRANSPORT=stdout", f"_SYSTEMD_UNIT={name}")
    assert booted.machine.run("journalctl", "--quiet", *last) == ""
    assert booted.machine.run("journalctl", "--namespace=footlights", *last) == "end\n"


async def test_a_machine_that_lacks_something(booted: Booted) -> None:
    """This one lacks nothing; the launcher says so by what systemd and the kernel say."""
    assert await booted.launcher().unavailable() == ""
    other = replace(make_plan(unit_of("true"), booted.root), launch_id="l-none")
    assert (await booted.launcher().status(other)).phase is Phase.UNKNOWN
