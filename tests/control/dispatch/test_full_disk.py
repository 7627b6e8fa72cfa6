"""A disk that is full under the running server: said, nothing half done, and well again without a restart."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from footlights.v1 import session_pb2

from footlights import errors
from footlights.store.launches import launch_rows
from tests.control.harness import Control, Report, State, control, problem

PAD = {"pad": "x" * 250}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 3 MiB; skipped where this user may not mount one."""
    directory = tmp_path / "disk"
    directory.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(directory)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount: {mounted.stderr.decode().strip()}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


@pytest.fixture
async def cramped(small_disk: Path) -> AsyncIterator[Control]:
    """A control plane on the small disk."""
    async with control(small_disk) as running:
        await running.apply()
        yield running


def fill(directory: Path) -> Path:
    """Take all the space there is left."""
    ballast = directory / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            for size in (1 << 16, 1 << 12):
                while True:
                    file.write(b"\0" * size)
        except OSError:
            pass
    assert shutil.disk_usage(directory).free < 1 << 16
    return ballast


async def test_a_full_disk_is_said_and_heals_without_a_restart(cramped: Control) -> None:
    """Writes are refused as 503, STORE_UNAVAILABLE; what was acknowledged is there, what was refused is not."""
    kept = [(await cramped.create(request_id="before")).session_id]
    ballast = fill(cramped.settings.data_dir)
    refused = []
    for number in range(400):
        try:
            kept.append((await cramped.create(request_id=f"r-{number}", labels=PAD)).session_id)
        except errors.Unavailable as error:
            refused.append((f"r-{number}", error))
            if len(refused) == 5:
                break
    over_rest = await cramped.rest(
        "POST", "/stream", json={"application": "fake", "labels": PAD}, headers={"idempotency-key": "rest"}
    )
    listed = await cramped.rest("GET", "/stream?limit=1000")
    with pytest.raises(errors.Unavailable):
        await cramped.terminate(kept[0])
    untouched = await cramped.get(kept[0])
    ballast.unlink()
    again = [(await cramped.create(request_id=key, labels=PAD)).session_id for key, _ in refused]
    await cramped.terminate(kept[0])

    assert len(refused) == 5
    assert {error.reason for _, error in refused} == {"STORE_UNAVAILABLE"}
    assert "Nothing was changed" in refused[0][1].message
    assert (over_rest.status_code, problem(over_rest)["reason"]) == (503, "STORE_UNAVAILABLE")
    assert sorted(item["session_id"] for item in listed.json()["items"]) == sorted(kept)
    assert untouched.state == State.PENDING
    assert len(set(again)) == 5
    assert not set(again) & set(kept)
    after = await cramped.rest("GET", "/stream?limit=1000")
    assert sorted(item["session_id"] for item in after.json()["items"]) == sorted([*kept[1:], *again])
    assert (await cramped.get(kept[0])).end_reason == session_pb2.Session.USER_TERMINATED


async def test_what_an_agent_reports_to_a_full_disk_is_recorded_once_there_is_space(cramped: Control) -> None:
    """Its link ends, since nothing unrecorded may be acknowledged; it tells all again, and no silence is counted."""
    agent = await cramped.agent()
    made = await cramped.running(agent)
    assignment = await agent.assignment(made.session_id)
    report = Report(
        launch_id=assignment.launch_id,
        epoch=assignment.epoch,
        state=Report.EXITED,
        exit_code=0,
        log_tail=["x" * 4000] * 20,
    )
    ballast = fill(cramped.settings.data_dir)
    await exhaust(cramped)
    await agent.say(report=report)
    ended = await agent.ended()
    with pytest.raises(errors.Unavailable):
        await cramped.new_agent("node-a", agent.token).open(launches=[report])
    during = await cramped.get(made.session_id)
    ballast.unlink()

    back = await cramped.new_agent("node-a", agent.token).open(launches=[report])
    await back.settled()

    assert ended.reason == "STORE_UNAVAILABLE"
    assert agent.forgotten == []
    assert during.state == State.READY
    assert (await cramped.get(made.session_id)).state == State.TERMINATED
    assert back.assigned == {}
    assert (await back.until("forget")).launch_id == assignment.launch_id


async def test_placing_goes_on_once_there_is_space(cramped: Control) -> None:
    """A pass that cannot be written leases nothing, and the loop lives to make the next one."""
    agent = await cramped.agent()
    waiting = await cramped.create()
    ballast = fill(cramped.settings.data_dir)
    await exhaust(cramped)
    with pytest.raises(errors.Unavailable):
        await cramped.place()
    loops = asyncio.create_task(cramped.plane.loops())
    try:
        held = await cramped.store.read(launch_rows.live_leases)
        ballast.unlink()
        assignment = await agent.assignment(waiting.session_id)
    finally:
        loops.cancel()
        await asyncio.gather(loops, return_exceptions=True)

    assert held == []
    assert assignment.session_id == waiting.session_id


async def exhaust(plane: Control) -> None:
    """Use up what the database's own files still have room for."""
    for labels in (PAD, {}):
        for _ in range(400):
            try:
                await plane.create(labels=labels, priority=-1)
            except errors.Unavailable:
                break
        else:
            pytest.fail("the disk never became full")
