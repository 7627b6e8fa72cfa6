"""Which boundary a unit is given, what a node must have for it, and how the end of one is read.

Also the tests of ``unit``, ``support``, ``exits``, ``devices`` and of the launcher on a stand-in. That the properties
do what they are for is shown by ``tests/hostile/test_systemd.py`` on a booted systemd.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from footlights.v1.application_pb2 import Systemd, Version

from footlights.errors import InvalidArgument
from footlights.launch.launcher import LaunchError, LaunchPlan, Phase, Ports
from footlights.launch.launchers import SYSTEMD, traits_of
from footlights.launch.recipe.recipe import validate
from footlights.launch.systemd import devices, exits, support, unit
from footlights.launch.systemd.launcher import SystemdLauncher
from footlights.launch.systemd.unit_journal import UnitJournal
from footlights.protocol.isolation import Isolation
from tests.launch.plans import CLUSTER, command, make_plan
from tests.launch.standin_systemd import StandinSystemd
from tests.launch.waiting import ended

VIEW = unit.UnitView(readable=("/opt/app",), memory_bytes=10 << 30)


def version(*argv: str, **members: Any) -> Version:
    made = command(*(argv or ("/bin/sleep", "60")))
    made.systemd.CopyFrom(Systemd(**members))
    return made


def properties(plan: LaunchPlan, view: unit.UnitView = VIEW) -> dict[str, Any]:
    service, _ = unit.units_of(plan, plan.argv, view)
    return {name: value for name, _, value in service.properties}


# The recipe


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"read_only_paths": ["opt/app"]}, "read_only_paths[0]"),
        ({"read_only_paths": ["/opt/app", "/opt/../etc"]}, "read_only_paths[1]"),
        ({"read_only_paths": ["/"]}, "read_only_paths[0]"),
        ({"read_only_paths": ["/opt//app/"]}, "read_only_paths[0]"),
        ({"read_only_paths": ["https://example.com/"]}, "read_only_paths[0]"),
        ({"read_only_paths": [f"/opt/{number}" for number in range(65)]}, "read_only_paths"),
        ({"memory_bytes": -1}, "memory_bytes"),
        ({"disk_bytes": 4096}, "disk_bytes"),
        ({"tasks": -1}, "tasks"),
        ({"processors": float("nan")}, "processors"),
        ({"processors": 0.001}, "processors"),
    ],
)
def test_recipe_is_checked(members: dict[str, Any], field: str) -> None:
    """A version whose unit could not be made is refused with the field."""
    with pytest.raises(InvalidArgument) as caught:
        validate(version(**members))

    assert [each.field for each in caught.value.violations] == [f"version.systemd.{field}"]


@pytest.mark.parametrize("name", ["LD_PRELOAD", "LD_LIBRARY_PATH", "PATH", "HOME", "LANG", "EXIT_STATUS", "ANYTHING"])
def test_no_variable_reaches_root(name: str, root: Path) -> None:
    """A version sets any variable for its application, and none for the unit's last command, which is root's."""
    made, plain = version(), version()
    made.environment[name] = "/opt/app/own.so"
    validate(made)

    found, other = properties(make_plan(made, root)), properties(make_plan(plain, root))

    assert found["Environment"] == other["Environment"]
    assert f"{name}=/opt/app/own.so" in found["ExecStartEx"][0][1]


def test_recipe_is_one_launchers() -> None:
    """A version asks for a unit by its member; it needs a command, and it is for one launcher."""
    validate(version(memory_bytes=1 << 30, disk_bytes=1 << 30, tasks=10, processors=0.5, read_only_paths=["/opt/app"]))
    assert traits_of(version()) is SYSTEMD
    assert SYSTEMD.isolation is Isolation.PROCESS
    without = version()
    del without.command[:]
    both = version()
    both.container.image = "app:1"
    for wrong in (without, both):
        with pytest.raises(InvalidArgument):
            validate(wrong)


# The unit


def test_a_unit_is_a_boundary(root: Path) -> None:
    """A user of its own, an empty read-only root, no privileges, no devices, no way to get any."""
    plan = make_plan(version(), root)
    found = properties(plan)
    filters = [(name, value) for name, _, value in unit.units_of(plan, plan.argv, VIEW)[0].properties]

    assert found["DynamicUser"] is True
    assert found["NoNewPrivileges"] is True
    assert found["CapabilityBoundingSet"] == found["AmbientCapabilities"] == found["RestrictNamespaces"] == 0
    assert found["RootDirectory"].startswith(str(root))
    assert found["ProtectSystem"] == "strict"
    assert (found["PrivateDevices"], found["DevicePolicy"], found["DeviceAllow"]) == (True, "closed", [])
    assert [value for name, value in filters if name == "SystemCallFilter"] == [
        [True, ["@system-service"]],
        [False, ["io_uring_setup", "io_uring_enter", "io_uring_register"]],
    ]
    assert "AF_UNIX" not in found["RestrictAddressFamilies"][1]
    read_only = [inside for _, inside, *_ in found["BindReadOnlyPaths"]]
    assert "/opt/app" in read_only
    assert not {"/", "/etc", "/home", "/root", "/run", "/var"} & set(read_only)
    written = {inside for _, inside, *_ in found["BindPaths"]}
    assert written == {"/tmp", "/var/tmp", "/run/footlights/exit"}


def test_a_unit_listens_on_its_own_ports_only(root: Path) -> None:
    """Its three ports may be bound and no other; the node's loopback and link-local addresses are not reached."""
    ports = Ports(signal=20000, media=20001, http=20002)
    plan = make_plan(version(), root, ports=ports)

    found = properties(plan, replace(VIEW, denied_networks=("10.0.0.0/8", "fd00::/8")))

    assert found["SocketBindDeny"] == [(0, 0, 0, 0)]
    assert found["SocketBindAllow"] == [(0, 6, 1, 20000), (0, 6, 1, 20002), (0, 17, 1, 20001)]
    denied = {(bytes(address), bits) for _, address, bits in found["IPAddressDeny"]}
    assert {(b"\x7f\0\0\0", 8), (b"\0" * 15 + b"\x01", 128), (b"\xa9\xfe\0\0", 16)} < denied
    assert {(b"\x0a\0\0\0", 8), (b"\xfd" + b"\0" * 15, 8)} < denied
    assert [bytes(address) for _, address, _ in found["IPAddressAllow"]] == [bytes([127, 70, 76, 1])]


def test_a_unit_is_limited(root: Path) -> None:
    """The version's limits hold, and defaults where it has none."""
    own = make_plan(version(memory_bytes=1 << 30, processors=1.5, tasks=99, disk_bytes=5 << 20), root)
    none = make_plan(version(), root)

    limited, default = properties(own), properties(none)

    assert (limited["MemoryMax"], limited["TasksMax"], limited["LimitNPROC"]) == (1 << 30, 99, 99)
    assert limited["MemorySwapMax"] == default["MemorySwapMax"] == 0
    assert limited["CPUQuotaPerSecUSec"] == 1_500_000
    sizes = [options for _, options in limited["TemporaryFileSystem"]]
    assert all(f"size={5 << 20}," in options for options in sizes)
    _, mount = unit.units_of(own, own.argv, VIEW)
    assert f"size={5 << 20}," in {name: value for name, _, value in mount.properties}["Options"]
    assert (default["MemoryMax"], default["TasksMax"]) == (8 << 30, unit.DEFAULT_TASKS)
    assert "CPUQuotaPerSecUSec" not in default


def test_a_secret_is_in_no_property(root: Path) -> None:
    """Properties are read by anybody: a variable that holds a secret comes by a credential, and a shell sets it."""
    plan = replace(make_plan(version("/bin/echo", "a"), root), secret_environment=(("OMNI_PASS", "{omni_pass}"),))

    found = properties(plan)

    [[_, argv, _]] = found["ExecStartEx"]
    assert argv[-7:-4] == ["/bin/sh", "-c", argv[-5]]
    assert argv[-4:] == ["sh", f"/run/credentials/{unit.service_name(plan)}/environment", "/bin/echo", "a"]
    assert ("environment", str(plan.directory / "environment")) in found["LoadCredential"]
    assert "OMNI_PASS" not in str(found)


def test_a_unit_runs_what_the_plan_says(root: Path) -> None:
    """Arguments are passed as they are; the secrets by a credential of systemd, never in the environment."""
    plan = make_plan(version("/bin/echo", "$HOME", "%n", "a b"), root, grace_s=2.5)

    found = properties(plan)

    [[program, argv, flags]] = found["ExecStartEx"]
    assert (program, argv[0], flags) == (unit.ENV, unit.ENV, ["no-env-expand"])
    assert argv[-4:] == ["/bin/echo", "$HOME", "%n", "a b"]
    assert f"FOOTLIGHTS_SESSION_FILE=/run/credentials/{unit.service_name(plan)}/session.json" in argv
    assert found["LoadCredential"] == [("session.json", str(plan.directory / "session.json"))]
    assert f"HOME={unit.HOME}" in found["Environment"]
    assert found["LogNamespace"] == "footlights"
    assert found["TimeoutStopUSec"] == 2_500_000
    assert properties(make_plan(version(), root, grace_s=0))["TimeoutStopUSec"] == 1_000_000


def test_names(root: Path) -> None:
    """A unit's name says its cluster and launch; what could not be a name is refused."""
    plan = make_plan(version(), root, launch_id="l-1")

    name = unit.service_name(plan)

    assert name.startswith(unit.prefix(CLUSTER))
    assert unit.launch_of(name, CLUSTER) == "l-1"
    assert unit.prefix("another") != unit.prefix(CLUSTER)
    with pytest.raises(LaunchError):
        unit.service_name(replace(plan, launch_id="../x"))


@pytest.mark.parametrize("path", ["/var/lib/a-b/c.d", "/.hidden/é_:x", "/a/.b"])
def test_mount_names_are_systemds(path: str) -> None:
    """A mount unit is named as systemd-escape does it, or systemd would not take it."""
    if shutil.which("systemd-escape") is None:
        pytest.skip("no systemd-escape here")
    said = subprocess.run(
        ["systemd-escape", "--path", "--suffix=mount", path], capture_output=True, text=True, check=True
    )

    assert unit.mount_name(path) == said.stdout.strip()


# What a node must have


@pytest.mark.parametrize(
    ("systemd", "features", "controllers", "said"),
    [
        ("257.9-1", "+SECCOMP +BPF_FRAMEWORK", {"cpu", "memory", "pids", "io"}, ""),
        ("249", "+SECCOMP +BPF_FRAMEWORK", {"cpu", "memory", "pids"}, "too old"),
        ("252", "+SECCOMP -BPF_FRAMEWORK", {"cpu", "memory", "pids"}, "SocketBindDeny would not hold"),
        ("257", "-SECCOMP +BPF_FRAMEWORK", {"cpu", "memory", "pids"}, "SystemCallFilter"),
        ("257", "+SECCOMP +BPF_FRAMEWORK", None, "no control groups v2"),
        ("257", "+SECCOMP +BPF_FRAMEWORK", {"cpu", "memory"}, "TasksMax would not hold"),
    ],
)
def test_what_a_node_lacks(systemd: str, features: str, controllers: set[str] | None, said: str) -> None:
    """A node on which a property would not hold says which, and does not offer the launcher."""
    lacks = support.lacks(systemd, features, controllers)

    assert said in lacks if said else not lacks


def test_controllers(tmp_path: Path) -> None:
    """They are read from control groups v2, or where both versions are, from the groups that systemd has itself."""
    groups, proc = tmp_path / "cgroup", tmp_path / "proc"
    (proc / "1").mkdir(parents=True)
    (proc / "1/cgroup").write_text("3:memory:/init.scope\n2:pids:/\n1:name=systemd:/init.scope\n0::/init.scope\n")
    groups.mkdir()
    assert support.controllers(proc, groups) is None

    (groups / "unified").mkdir()
    (groups / "unified/cgroup.controllers").write_text("\n")
    found = support.controllers(proc, groups)
    assert found is not None
    assert {"memory"} == found & {"cpu", "memory", "pids"}

    (groups / "cgroup.controllers").write_text("cpu memory pids\n")
    assert support.controllers(proc, groups) == frozenset({"cpu", "memory", "pids"})


def test_a_group_is_populated(tmp_path: Path) -> None:
    """A launch is over only when its control group has no process; one that is gone has none."""
    group = tmp_path / "unified/footlights.slice/a.service"
    group.mkdir(parents=True)
    (group / "cgroup.events").write_text("populated 1\nfrozen 0\n")

    assert support.populated(tmp_path, "/footlights.slice/a.service")
    assert not support.populated(tmp_path, "/footlights.slice/b.service")
    (group / "cgroup.events").write_text("populated 0\nfrozen 0\n")
    assert not support.populated(tmp_path, "/footlights.slice/a.service")


# How it ended


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("success exited 0", 0, "status 0"),
        ("exit-code exited 7", 7, "status 7"),
        ("signal killed KILL", -9, "SIGKILL"),
        ("core-dump dumped SEGV", -11, "SIGSEGV"),
        ("oom-kill killed KILL", -9, "memory"),
        ("timeout killed KILL", -9, "grace"),
        ("resources - -", None, "lost"),
    ],
)
def test_ends(tmp_path: Path, text: str, code: int | None, said: str) -> None:
    """What systemd says of an end is read as an exit status and words."""
    path = tmp_path / "exit"
    exits.reserve(path)
    assert exits.read(path) is None
    assert exits.read(tmp_path / "none") is None
    with path.open("r+") as file:
        file.write(f"{text}\n")

    found = exits.read(path)

    assert found is not None
    assert found.exit_code == code
    assert said in found.message
    assert (found.killed, bool(found.cause)) == (said == "grace", said == "memory")


# Its device


def test_device_nodes_by_specification(root: Path, tmp_path: Path) -> None:
    """A launch gets the nodes that the CDI specification names for its device, and those for all."""

    def node(path: str) -> dict[str, str]:
        return {"path": path}

    specification = {
        "cdiVersion": "0.6.0",
        "kind": "nvidia.com/gpu",
        "containerEdits": {"deviceNodes": [node("/dev/nvidiactl"), node("/etc/shadow"), node("/dev/../etc/shadow")]},
        "devices": [
            {"name": name, "containerEdits": {"deviceNodes": [node(f"/dev/nvidia{number}")]}}
            for number, name in enumerate(("GPU-a", "GPU-b"))
        ],
    }
    (tmp_path / "nvidia.json").write_text(json.dumps(specification))
    (tmp_path / "broken.yaml").write_text("{")
    plan = make_plan(version(), root, device_kind="GPU", device_uuid="GPU-b")

    assert devices.nodes_of(plan, specifications=[tmp_path]) == ("/dev/nvidia1", "/dev/nvidiactl")


def test_device_nodes_by_the_driver(root: Path, tmp_path: Path) -> None:
    """Without a specification the driver says which node a GPU has; one that nobody knows is not started."""
    for number in range(2):
        folder = tmp_path / f"proc/driver/nvidia/gpus/0000:0{number}:00.0"
        folder.mkdir(parents=True)
        text = f"Model: \t\t NVIDIA L40S\nGPU UUID: \t GPU-{number}\nDevice Minor: \t {number + 4}\n"
        (folder / "information").write_text(text)
    for name in ("nvidia4", "nvidia5", "nvidiactl", "nvidia-uvm", "dri/renderD129"):
        (tmp_path / "dev" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "dev" / name).touch()
    (tmp_path / "dev/dri/by-path").mkdir()
    (tmp_path / "dev/dri/by-path/pci-0000:01:00.0-render").symlink_to("../renderD129")
    plan = make_plan(version(), root, device_kind="GPU", device_uuid="GPU-1")

    found = devices.nodes_of(plan, specifications=[], filesystem=tmp_path)

    assert found == ("/dev/dri/renderD129", "/dev/nvidia-uvm", "/dev/nvidia5", "/dev/nvidiactl")
    other = make_plan(version(), root, device_kind="GPU", device_uuid="GPU-9")
    with pytest.raises(LaunchError) as caught:
        devices.nodes_of(other, specifications=[], filesystem=tmp_path)
    assert (caught.value.reason, caught.value.rejected) == ("DEVICE_NODES_UNKNOWN", True)
    assert devices.nodes_of(make_plan(version(), root)) == ()


# The launcher


@pytest.fixture
async def systemd() -> AsyncIterator[StandinSystemd]:
    made = StandinSystemd()
    yield made
    await made.end()


def launcher(root: Path, systemd: StandinSystemd, *allowed: str) -> SystemdLauncher:
    return SystemdLauncher(root, systemd, cast("UnitJournal", systemd), allowed_roots=allowed)


async def test_a_node_without_systemd_says_so(root: Path, systemd: StandinSystemd) -> None:
    """A node whose systemd does not answer offers nothing, and another node may do."""
    systemd.absent = "no such socket"
    made = launcher(root, systemd)

    assert "no such socket" in await made.unavailable()
    with pytest.raises(LaunchError) as caught:
        await made.start(make_plan(version(), root), b"{}")
    assert (caught.value.reason, caught.value.rejected) == ("SYSTEMD_REFUSED", True)


async def test_only_allowed_paths_are_shown(root: Path, tmp_path: Path, systemd: StandinSystemd) -> None:
    """Paths and stages lie below the node's allowed roots, also where a link leads; the command among what is shown."""
    allowed, outside = tmp_path / "allowed", tmp_path / "outside"
    for folder in (allowed / "app", outside):
        folder.mkdir(parents=True)
    (allowed / "link").symlink_to(outside)
    made = launcher(root, systemd, str(allowed))
    stages = version()
    stages.allowed_stage_roots.append(str(outside))
    default = version()
    default.default_usd_stage_uri = f"{outside}/a.usd"
    refused = {
        "PATH_NOT_ALLOWED": [version(read_only_paths=[str(outside)]), version(read_only_paths=[f"{allowed}/link"])],
        "PATH_NOT_FOUND": [version(read_only_paths=[f"{allowed}/none"])],
        "COMMAND_NOT_FOUND": [version(f"{allowed}/app/none"), version("no-such-command")],
    }
    refused["PATH_NOT_ALLOWED"] += [stages, default]

    await made.prepare(make_plan(version(read_only_paths=[f"{allowed}/app"]), root))
    for reason, versions in refused.items():
        for each in versions:
            with pytest.raises(LaunchError) as caught:
                await made.prepare(make_plan(each, root))
            assert caught.value.reason == reason

    program = allowed / "app" / "run"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    with pytest.raises(LaunchError, match="read_only_paths"):
        await made.prepare(make_plan(version(str(program)), root))
    await made.prepare(make_plan(version(str(program), read_only_paths=[str(allowed)]), root))


async def test_nothing_is_shown_that_an_application_may_replace(
    root: Path, tmp_path: Path, systemd: StandinSystemd
) -> None:
    """What containers of the node write to is shown whole: below, they could put a link in its place meanwhile."""
    (tmp_path / "projects" / "a" / "in").mkdir(parents=True)
    made = SystemdLauncher(
        root,
        systemd,
        cast("UnitJournal", systemd),
        allowed_roots=[str(tmp_path)],
        writable_roots=[f"{tmp_path}/projects/*"],
    )
    await made.prepare(make_plan(version(read_only_paths=[f"{tmp_path}/projects/a"]), root))
    with pytest.raises(LaunchError, match="could be replaced") as caught:
        await made.prepare(make_plan(version(read_only_paths=[f"{tmp_path}/projects/a/in"]), root))
    assert caught.value.reason == "PATH_NOT_ALLOWED"


async def test_a_command_that_is_no_program(root: Path, tmp_path: Path, systemd: StandinSystemd) -> None:
    """It is refused before the unit is made: what executes it in there could not tell."""
    made = launcher(root, systemd, str(tmp_path))
    for name, text, said in (
        ("text", b"no program\n", "does not begin with '#!'"),
        ("script", b"#!/none/python\n", "'/none/python' is not on this node"),
        ("a=b", b"#!/bin/sh\n", "without '='"),
    ):
        (tmp_path / name).write_bytes(text)
        (tmp_path / name).chmod(0o755)
        with pytest.raises(LaunchError, match=said) as caught:
            await made.prepare(make_plan(version(str(tmp_path / name), read_only_paths=[str(tmp_path)]), root))
        assert caught.value.reason == "COMMAND_NOT_EXECUTABLE"


async def test_a_start_that_failed_says_why(root: Path, systemd: StandinSystemd) -> None:
    """The reason is systemd's own, with what it said; nothing is left of the launch."""
    plan = make_plan(version("/bin/sh", "-c", "exit 203"), root)
    made = launcher(root, systemd)
    systemd.result = "failed"

    with pytest.raises(LaunchError) as caught:
        await made.start(plan, b"{}")

    assert caught.value.reason == "COMMAND_NOT_EXECUTABLE"
    assert "Failed to execute it" in caught.value.message
    assert (await made.status(plan)).phase is Phase.UNKNOWN


async def test_the_session_file_is_the_agents(root: Path, systemd: StandinSystemd) -> None:
    """The secrets lie in a file that only the agent's user and systemd read, and go with the launch."""
    plan = make_plan(version("/bin/true"), root)
    made = launcher(root, systemd)
    await made.start(plan, b'{"key": "secret"}')
    file = plan.directory / "session.json"

    assert (file.read_text(), file.stat().st_mode & 0o777) == ('{"key": "secret"}', 0o600)
    await ended(made, plan)
    await made.discard(plan)
    assert list(plan.directory.iterdir()) == []


async def test_files_that_are_left_are_told(root: Path, systemd: StandinSystemd) -> None:
    """While its /tmp is there, a launch is not said to be removed; it is waited for a while."""
    plan = make_plan(version("/bin/true"), root)
    made = launcher(root, systemd)
    await made.start(plan, b"{}")
    await ended(made, plan)
    (plan.directory / unit.TMP).mkdir()
    kept = plan.directory / unit.TMP / "file"
    kept.touch()

    with pytest.raises(LaunchError) as caught:
        await made.discard(plan)
    assert caught.value.reason == "STATE_LEFT"
    removing = asyncio.create_task(made.discard(plan))
    await asyncio.sleep(0)
    kept.unlink()
    await removing

    assert list(plan.directory.iterdir()) == []


async def test_an_end_that_nobody_saw(root: Path, systemd: StandinSystemd) -> None:
    """A unit that is gone without a word has ended, with a status that is not known."""
    plan = make_plan(version("/bin/true"), root)
    made = launcher(root, systemd)
    await made.start(plan, b"{}")
    await ended(made, plan)
    exits.reserve(plan.directory / unit.EXIT)

    status = await made.status(plan)
    assert (status.phase, status.exit_code) == (Phase.EXITED, None)

    (plan.directory / "unit.json").write_text(json.dumps({"boot_id": "another", "control_group": ""}))
    assert "restarted" in (await made.status(plan)).message
