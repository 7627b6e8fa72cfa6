"""The process launcher and its shim, on real processes.

Also the tests of ``shim``.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from footlights.launch.launcher import LaunchError, Phase
from footlights.launch.process import shim
from footlights.launch.process.launcher import CLUSTER_MARK, LAUNCH_MARK, ProcessLauncher
from footlights.lifecycle import Fault, meaning
from footlights.linux import cgroups, files, landlock, procfs
from tests.launch.plans import CLUSTER, command, make_plan, script
from tests.launch.waiting import ended, logged, until


@pytest.fixture
def launcher(root: Path) -> ProcessLauncher:
    return ProcessLauncher(root)


def shim_pid(directory: Path) -> int:
    return int(json.loads((directory / shim.STATE).read_text())["shim"]["pid"])


async def test_exit_status(launcher: ProcessLauncher, root: Path) -> None:
    """The exit status of an application that ends by itself is kept."""
    plan = make_plan(script("echo out; echo err >&2; exit 7"), root)

    await launcher.start(plan, b"")

    status = await ended(launcher, plan)
    assert (status.exit_code, status.message) == (7, "exited with status 7.")
    assert set((await launcher.log(plan)).lines) == {"out", "err"}


async def test_signal_status(launcher: ProcessLauncher, root: Path) -> None:
    """A death by signal is the signal's number, negative."""
    plan = make_plan(script("kill -SEGV $$"), root)

    await launcher.start(plan, b"")

    status = await ended(launcher, plan)
    assert (status.exit_code, status.message) == (-signal.SIGSEGV, "ended by SIGSEGV.")


async def test_environment_is_from_empty(
    launcher: ProcessLauncher, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The application sees its plan's environment and nothing of the agent's."""
    monkeypatch.setenv("FOOTLIGHTS_TOKEN", "the agent's secret")
    plan = make_plan(command("/usr/bin/env"), root)

    await launcher.start(plan, b"")
    await ended(launcher, plan)

    part = await launcher.log(plan)
    assert sorted(part.lines) == [f"{name}={value}" for name, value in plan.environment]


async def test_agents_death_is_not_the_applications(root: Path) -> None:
    """An application that another agent process started goes on when that is killed, and is adopted with its exit."""
    plan = make_plan(script("echo up; trap 'exit 3' TERM; while :; do read -t 1 x < /dev/zero; done"), root)
    from footlights.launch.plan import to_json

    agent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import asyncio, sys, pathlib\n"
        "from footlights.launch.plan import from_json\n"
        "from footlights.launch.process.launcher import ProcessLauncher\n"
        "async def main():\n"
        "    await ProcessLauncher(pathlib.Path(sys.argv[1])).start(from_json(sys.stdin.read()), b'')\n"
        "    print('started', flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n",
        str(root),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert agent.stdin is not None
    assert agent.stdout is not None
    agent.stdin.write(to_json(plan).encode())
    agent.stdin.close()
    assert await asyncio.wait_for(agent.stdout.readline(), 20) == b"started\n"
    agent.kill()
    await agent.wait()
    launcher = ProcessLauncher(root)

    assert (await launcher.status(plan)).phase is Phase.RUNNING
    await logged(launcher, plan, "up")
    await launcher.stop(plan)

    assert (await ended(launcher, plan)).exit_code == 3


async def test_second_start(launcher: ProcessLauncher, root: Path) -> None:
    """Starting the same plan again starts nothing, while it runs and after its end."""
    plan = make_plan(script("echo once; exec sleep 60"), root)

    await launcher.start(plan, b"")
    before = await until(lambda: launcher.status(plan), lambda status: bool(status.pids))
    await ProcessLauncher(root).start(plan, b"")

    assert (await launcher.status(plan)).pids == before.pids
    await launcher.stop(plan, kill=True)
    await ended(launcher, plan)
    await launcher.start(plan, b"")
    assert (await launcher.status(plan)).phase is Phase.EXITED


async def test_two_starts_at_once(launcher: ProcessLauncher, root: Path) -> None:
    """Two agents that start one plan at the same moment start one application."""
    plan = make_plan(script("echo once; exec sleep 60"), root)

    await asyncio.gather(*(ProcessLauncher(root).start(plan, b"") for _ in range(4)))

    assert await logged(launcher, plan, "once") == ("once",)
    found = await launcher.find(CLUSTER)
    assert len(found[plan.launch_id]) == 2  # one shim, one application
    await launcher.stop(plan, kill=True)
    await ended(launcher, plan)


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        (command("/no/such/program"), "COMMAND_NOT_FOUND"),
        (command("no-such-program-on-path"), "COMMAND_NOT_FOUND"),
        (command("/etc"), "COMMAND_NOT_FOUND"),
    ],
)
async def test_command_not_found(launcher: ProcessLauncher, root: Path, version: object, reason: str) -> None:
    """A command that is not there or no program is a launch error that names it, and nothing is left running."""
    plan = make_plan(version, root)  # type: ignore[arg-type]  # parametrised

    with pytest.raises(LaunchError, match="install it") as caught:
        await launcher.start(plan, b"")

    assert caught.value.reason == reason
    assert (await launcher.status(plan)).phase is Phase.UNKNOWN


async def test_exec_fails(launcher: ProcessLauncher, root: Path) -> None:
    """A failure that only the exec shows comes back with its reason, and is no launch."""
    broken = root / "broken"
    broken.write_text("#!/no/such/interpreter\n")
    broken.chmod(0o755)
    plan = make_plan(command(str(broken)), root)

    with pytest.raises(LaunchError) as caught:
        await launcher.start(plan, b"")

    assert (caught.value.reason, (await launcher.status(plan)).phase) == ("COMMAND_NOT_FOUND", Phase.UNKNOWN)


async def test_arguments_that_are_too_long_are_not_the_nodes_fault(launcher: ProcessLauncher, root: Path) -> None:
    """Or one user's would have every node left alone, one after the other: no other node would take them either."""
    plan = make_plan(command("/bin/true", "x" * (256 << 10)), root)

    with pytest.raises(LaunchError, match="too long") as caught:
        await launcher.start(plan, b"")

    assert meaning(caught.value.reason).fault is Fault.VERSION
    assert not caught.value.rejected


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory with 16 pages of space, all its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True)
    if done.returncode:
        pytest.skip("mounting a small disk needs root")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize("pages", range(9))
async def test_a_full_disk_is_the_nodes_fault(small_disk: Path, pages: int) -> None:
    """However little space is left, a start is executed, or is refused as what another node may do; nothing stays."""
    launcher = ProcessLauncher(small_disk)
    plan = make_plan(script("exit 0"), small_disk)
    with (small_disk / "filler").open("wb") as filler:
        filler.write(b"x" * 4096 * (16 - pages))
    problem: Exception | None = None
    try:
        await launcher.start(plan, b"")
        await ended(launcher, plan)
    except (LaunchError, OSError) as error:
        problem = error

    if isinstance(problem, LaunchError):
        assert (problem.reason, problem.rejected) == ("NODE_RESOURCES", True)
        assert "No space left on device" in problem.message
    elif problem is not None:
        assert isinstance(problem, OSError)
        assert problem.errno == errno.ENOSPC
    assert await launcher.find(CLUSTER) == {}


async def test_the_exit_status_outlives_a_full_disk(small_disk: Path) -> None:
    """An application that ends while its node's disk is full has its true exit status, not one that was lost."""
    launcher = ProcessLauncher(small_disk)
    go = small_disk.parent / "go"
    plan = make_plan(script(f"while [ ! -e {go} ]; do sleep 0.02; done; exit 7"), small_disk)
    await launcher.start(plan, b"")
    with contextlib.suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(b"x" * 4096)

    go.touch()

    assert (await ended(launcher, plan)).exit_code == 7


async def test_working_directory_missing(launcher: ProcessLauncher, root: Path) -> None:
    """A working directory that is not there is named."""
    version = command("/bin/true")
    version.working_directory = "/no/such/directory"

    with pytest.raises(LaunchError, match="/no/such/directory") as caught:
        await launcher.start(make_plan(version, root), b"")

    assert caught.value.reason == "WORKING_DIRECTORY_NOT_FOUND"


async def test_whole_tree_ends(launcher: ProcessLauncher, root: Path) -> None:
    """Children that left the group, the session and their parent are ended with the rest."""
    plan = make_plan(
        script(
            "trap 'exit 0' TERM\n"
            "(trap '' TERM; setsid setsid sh -c 'trap \"\" TERM; echo gone; exec sleep 61' &) \n"
            "sleep 62 & echo up; wait"
        ),
        root,
        grace_s=0.3,
    )
    await launcher.start(plan, b"")
    await logged(launcher, plan, "gone")
    await logged(launcher, plan, "up")
    running = await until(lambda: launcher.status(plan), lambda status: len(status.pids) == 3)

    await launcher.stop(plan)

    assert (await ended(launcher, plan)).exit_code == 0
    assert [pid for pid in running.pids if (read := procfs.read_stat(pid)) and not read.dead] == []


async def test_leftovers_end_with_the_application(launcher: ProcessLauncher, root: Path) -> None:
    """What an application leaves behind when it exits is ended, and only then has the launch ended."""
    plan = make_plan(script("setsid sleep 60 & exit 4"), root)

    await launcher.start(plan, b"")

    assert (await ended(launcher, plan)).exit_code == 4
    assert await launcher.find(CLUSTER) == {}


async def test_grace_then_kill(launcher: ProcessLauncher, root: Path) -> None:
    """An application that ignores SIGTERM gets its grace, and then SIGKILL."""
    plan = make_plan(script("trap 'echo deaf' TERM; echo up; while :; do sleep 0.02; done"), root, grace_s=0.4)
    await launcher.start(plan, b"")
    await logged(launcher, plan, "up")

    await launcher.stop(plan)
    await logged(launcher, plan, "deaf")

    end = await ended(launcher, plan)
    assert (end.exit_code, end.killed) == (-signal.SIGKILL, True)


async def test_an_end_in_time_is_no_kill(launcher: ProcessLauncher, root: Path) -> None:
    """Nor is one by SIGKILL from elsewhere."""
    polite = make_plan(script("trap 'exit 0' TERM; echo up; while :; do sleep 0.02; done"), root)
    await launcher.start(polite, b"")
    await logged(launcher, polite, "up")
    await launcher.stop(polite)
    assert (await ended(launcher, polite)).killed is False

    shot = make_plan(script("kill -9 $$"), root, launch_id="shot")
    await launcher.start(shot, b"")
    end = await ended(launcher, shot)
    assert (end.exit_code, end.killed) == (-signal.SIGKILL, False)


async def test_kill_shortens_the_grace(launcher: ProcessLauncher, root: Path) -> None:
    """A kill after a polite stop does not wait for the grace."""
    plan = make_plan(script("trap '' TERM; echo up; while :; do sleep 0.02; done"), root, grace_s=3600)
    await launcher.start(plan, b"")
    await logged(launcher, plan, "up")

    await launcher.stop(plan)
    await launcher.stop(plan, kill=True)

    assert (await ended(launcher, plan)).exit_code == -signal.SIGKILL


async def test_shim_killed(launcher: ProcessLauncher, root: Path) -> None:
    """With its shim the application's first process dies; what is left still runs, and a stop ends it."""
    plan = make_plan(script("setsid sh -c 'trap \"\" TERM; echo left; exec sleep 60' & sleep 61"), root)
    await launcher.start(plan, b"")
    await logged(launcher, plan, "left")

    os.kill(shim_pid(plan.directory), signal.SIGKILL)

    status = await until(lambda: launcher.status(plan), lambda status: "shim is gone" in status.message)
    assert status.phase is Phase.RUNNING
    await launcher.stop(plan)
    assert (await ended(launcher, plan)).exit_code is None


async def test_reused_pid(launcher: ProcessLauncher, root: Path) -> None:
    """A process that has the shim's pid, and not its start time, is neither adopted nor signalled."""
    plan = make_plan(script("exec sleep 60"), root)
    bystander = await asyncio.create_subprocess_exec("sleep", "60")
    identity = procfs.Identity.of(bystander.pid)
    assert identity is not None
    plan.directory.mkdir()
    stale = {**identity.to_json(), "start_ticks": identity.start_ticks - 1}
    files.replace_json(plan.directory / shim.STATE, {"shim": stale, "application": stale})

    assert (await launcher.status(plan)).phase is Phase.EXITED
    await launcher.stop(plan)
    await launcher.stop(plan, kill=True)

    assert bystander.returncode is None
    assert identity.alive()
    bystander.kill()
    await bystander.wait()


async def test_other_boot(launcher: ProcessLauncher, root: Path) -> None:
    """A launch of another boot has ended, its exit status unknown."""
    plan = make_plan(script("exec sleep 60"), root)
    plan.directory.mkdir()
    old = {"pid": os.getpid(), "start_ticks": 1, "boot_id": "another"}
    files.replace_json(plan.directory / shim.STATE, {"shim": old, "application": old})

    status = await launcher.status(plan)

    assert (status.phase, status.exit_code) == (Phase.EXITED, None)
    assert "restarted" in status.message


async def test_session_file(launcher: ProcessLauncher, root: Path) -> None:
    """Secrets are in the session file, which only the user can read, and nowhere else; discard removes it."""
    plan = make_plan(script('cat "$FOOTLIGHTS_SESSION_FILE"; echo; exec sleep 60'), root)

    await launcher.start(plan, b'{"password": "hunter2"}')

    await logged(launcher, plan, "hunter2")
    session = plan.directory / "session.json"
    assert stat.S_IMODE(session.stat().st_mode) == 0o600
    assert stat.S_IMODE(plan.directory.stat().st_mode) == 0o700
    others = [path for path in plan.directory.iterdir() if path.is_file() and path != session]
    assert not [path for path in others if b"hunter2" in path.read_bytes()]
    await launcher.stop(plan, kill=True)
    await ended(launcher, plan)
    await launcher.discard(plan)
    assert [path.name for path in plan.directory.iterdir()] == ["output"]
    assert (await launcher.status(plan)).phase is Phase.UNKNOWN


GUARDED = pytest.mark.skipif(landlock.version() < landlock.SIGNALS_SINCE, reason="this kernel's Landlock is too old")
GROUPED = pytest.mark.skipif(
    not (group := cgroups.own_group()) or not os.access(group, os.W_OK), reason="no control group may be made here"
)


@GUARDED
async def test_nothing_that_is_trusted_is_written_by_the_application(root: Path) -> None:
    """Not its exit status, not its order, not the agent's journal; its own state it may fill as it likes."""
    (root.parent / "agent" / "journal").mkdir(parents=True)
    launches = root.parent / "agent" / "launches"
    launcher = ProcessLauncher(launches, protected=root.parent / "agent")
    text = (
        "cd ../..; for name in exit.json exit.reserved shim.json order.json session.json output/x ../../journal/x; do "
        'echo forged 2>/dev/null > "$name" && echo "wrote $name"; done; rm -f shim.json && echo removed; '
        'mv order.json "$TMPDIR" 2>/dev/null && echo moved; '
        'touch "$HOME/a" "$TMPDIR/b" "$XDG_CACHE_HOME/c" && echo own; exit 7'
    )
    plan = make_plan(script(text), launches)

    await launcher.start(plan, b"{}")
    status = await ended(launcher, plan)

    assert (status.exit_code, (await launcher.log(plan)).lines[-1]) == (7, "own")
    assert not [line for line in (await launcher.log(plan)).lines if line.startswith(("wrote", "removed", "moved"))]


@GUARDED
async def test_the_shims_life_is_not_the_applications_to_end(launcher: ProcessLauncher, root: Path) -> None:
    """No signal of it reaches the shim, another session or anything else of the node."""
    neighbour = make_plan(script("exec sleep 60"), root)
    await launcher.start(neighbour, b"")
    [other] = (await until(lambda: launcher.status(neighbour), lambda status: bool(status.pids))).pids
    text = f"kill -9 $PPID 2>/dev/null && echo killed; kill -9 {other} {os.getpid()} 2>/dev/null && echo killed; exit 5"
    plan = make_plan(script(text), root)

    await launcher.start(plan, b"")

    assert (await ended(launcher, plan)).exit_code == 5
    assert (await launcher.log(plan)).lines == ()
    assert (await launcher.status(neighbour)).phase is Phase.RUNNING
    await launcher.stop(neighbour, kill=True)
    await ended(launcher, neighbour)


async def test_a_forged_exit_is_not_believed_while_its_shim_lives(root: Path) -> None:
    """Also on a kernel that cannot keep the application from writing one; nor is another's identity as the shim."""
    launcher = ProcessLauncher(root, guarded=False)
    forged = json.dumps({"exit_code": 0})
    dead = json.dumps({"shim": {"pid": 1, "start_ticks": 1, "boot_id": "x"}})
    plan = make_plan(
        script(f"cd ../..; echo '{forged}' > exit.json; echo '{dead}' > shim.json; echo up; exec sleep 60"), root
    )
    await launcher.start(plan, b"")
    await logged(launcher, plan, "up")

    assert (await launcher.status(plan)).phase is Phase.RUNNING

    await launcher.stop(plan, kill=True)
    assert (await ended(launcher, plan)).exit_code == -signal.SIGKILL


@GROUPED
async def test_a_process_without_parent_and_marks_is_still_of_its_launch(launcher: ProcessLauncher, root: Path) -> None:
    """Its shim killed, a double fork into its own session with an empty environment: seen, and ended, by its group."""
    plan = make_plan(script("setsid env -i /bin/sleep 64 & setsid env -i /bin/sleep 65 & echo up; wait"), root)
    await launcher.start(plan, b"")
    await logged(launcher, plan, "up")
    await until(lambda: launcher.status(plan), lambda status: len(status.pids) == 3)
    os.kill(shim_pid(plan.directory), signal.SIGKILL)

    status = await until(
        lambda: launcher.status(plan), lambda status: len(status.pids) == 2 and "shim is gone" in status.message
    )
    assert status.phase is Phase.RUNNING
    assert (await ProcessLauncher(root).status(plan)).phase is Phase.RUNNING
    assert await launcher.find(CLUSTER) == {plan.launch_id: status.pids}
    await launcher.stop(plan)
    assert (await ended(launcher, plan)).exit_code is None
    assert await launcher.find(CLUSTER) == {}
    await launcher.discard(plan)
    assert not [*cgroups.own_group().glob(f"*{plan.launch_id}")]  # type: ignore[union-attr]


async def test_the_next_session_finds_nothing_of_the_one_before(launcher: ProcessLauncher, root: Path) -> None:
    """HOME and all caches are made empty for each launch, and are gone when it is discarded."""
    text = (
        'find "$HOME" "$TMPDIR" "$XDG_RUNTIME_DIR" -type f; pwd; '
        'for d in "$HOME" "$TMPDIR" "$XDG_CACHE_HOME"; do echo s > "$d/f"; done'
    )
    first, second = make_plan(script(text), root), make_plan(script(text), root)
    for plan in (first, second):
        await launcher.start(plan, b"")
        await ended(launcher, plan)
        home = dict(plan.environment)["HOME"]
        assert (await launcher.log(plan)).lines == (home,)
        await launcher.discard(plan)
        assert not (plan.directory / "state").exists()


async def test_outside_root(launcher: ProcessLauncher, tmp_path: Path) -> None:
    """A plan whose directory is not below the root is refused, and nothing of it is removed."""
    plan = make_plan(script("exit 0"), tmp_path / "elsewhere")
    plan.directory.mkdir(parents=True)
    (plan.directory / "precious").touch()

    with pytest.raises(LaunchError, match="not below"):
        await launcher.start(plan, b"")
    with pytest.raises(LaunchError, match="not below"):
        await launcher.discard(plan)

    assert (plan.directory / "precious").exists()


async def test_output_is_bounded(root: Path) -> None:
    """Only the last segments are kept, and a reader is told that lines before them are lost."""
    launcher = ProcessLauncher(root, segment_bytes=4096, segments=3)
    plan = make_plan(script("i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done"), root)

    await launcher.start(plan, b"")
    await ended(launcher, plan)

    sizes = [path.stat().st_size for path in (plan.directory / "output").iterdir()]
    assert len(sizes) == 3
    assert max(sizes) <= 4096
    part = await launcher.log(plan)
    assert part.truncated
    assert part.lines[-1] == "line 2999"
    tail = await launcher.log(plan, tail_lines=2)
    assert (tail.lines, tail.truncated) == (("line 2998", "line 2999"), True)


async def test_follow(launcher: ProcessLauncher, root: Path) -> None:
    """A cursor continues where the part before it ended, and gives only whole lines."""
    gates = [root / "gate1", root / "gate2"]
    plan = make_plan(
        script(f"echo one; read x < {gates[0]}; printf 'tw'; read x < {gates[1]}; echo o; exec sleep 60"), root
    )
    for gate in gates:
        os.mkfifo(gate)
    await launcher.start(plan, b"")
    await logged(launcher, plan, "one")

    first = await launcher.log(plan)
    for gate in gates:
        await asyncio.to_thread(gate.write_text, "\n")
    second = await until(lambda: launcher.log(plan, cursor=first.cursor), lambda part: bool(part.lines))

    assert (first.lines, second.lines) == (("one",), ("two",))
    await launcher.stop(plan, kill=True)
    await ended(launcher, plan)


async def test_orphan(launcher: ProcessLauncher, root: Path) -> None:
    """Processes of a launch whose plan and directory are lost are found by their mark and ended."""
    plan = make_plan(script("exec sleep 60"), root)
    await launcher.start(plan, b"")
    for path in plan.directory.iterdir():
        if path.is_file():
            path.unlink()

    assert list(await launcher.find(CLUSTER)) == [plan.launch_id]
    assert await launcher.find("another-cluster") == {}
    await launcher.end_orphan(CLUSTER, plan.launch_id)

    await until(lambda: launcher.find(CLUSTER), lambda found: not found)
    assert not procfs.marked({CLUSTER_MARK: CLUSTER, LAUNCH_MARK: plan.launch_id})
