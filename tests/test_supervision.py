"""Every loop under one policy: a failed pass is logged, counted and tried again, and hurts nobody else."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from footlights import supervision
from footlights.supervision import UNREADY_AFTER, Supervisor


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(supervision, "LONGEST_PAUSE_S", 0.001)


async def _until_raises(supervisor: Supervisor, name: str, outcomes: list[Exception | None]) -> None:
    """Run a loop whose passes have these outcomes, until they are used up."""
    done = asyncio.Event()

    async def once() -> None:
        if not outcomes:
            done.set()
            await asyncio.Event().wait()
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome

    async with asyncio.timeout(10):
        task = asyncio.create_task(supervisor.supervise(name, once, every_s=0))
        await done.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_any_failure_is_logged_with_its_traceback_counted_and_tried_again() -> None:
    """A pass may raise anything; the loop goes on."""
    counted: list[str] = []
    with capture_logs() as logs:
        await _until_raises(Supervisor(counted.append), "placing", [ValueError("odd"), None, KeyError("odder")])
    assert counted == ["placing", "placing"]
    assert [(entry["event"], entry["failures_in_a_row"]) for entry in logs] == [("loop_failed", 1), ("loop_failed", 1)]
    assert all(isinstance(entry["exc_info"], Exception) for entry in logs)


async def test_an_expected_failure_has_no_traceback() -> None:
    """What an operator has to mend outside the process is said in one line."""
    supervisor = Supervisor()
    tried, again = False, asyncio.Event()

    async def once() -> None:
        nonlocal tried
        if tried:
            again.set()
            await asyncio.Event().wait()
        tried = True
        raise OSError("no route")

    with capture_logs() as logs:
        task = asyncio.create_task(supervisor.supervise("store", once, every_s=0, expected=(OSError,)))
        async with asyncio.timeout(10):
            await again.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert logs[0]["exc_info"] is None
    assert logs[0]["error"] == "no route"


async def test_a_loop_that_keeps_failing_makes_the_process_unready_until_it_works_again() -> None:
    """Readiness turns after several failures in a row, and back after one pass that works."""
    supervisor = Supervisor()
    seen: list[list[str]] = []
    failures, over = UNREADY_AFTER, asyncio.Event()

    async def once() -> None:
        nonlocal failures
        seen.append(supervisor.failing)
        failures -= 1
        if failures >= 0:
            raise ValueError
        if failures < -1:
            over.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(supervisor.supervise("placing", once, every_s=0))
    async with asyncio.timeout(10):
        await over.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert seen[UNREADY_AFTER - 1 :] == [[], ["placing"], []]
    assert supervisor.failing == []


def test_one_bad_item_does_not_fail_the_rest() -> None:
    """It is logged with what it is, and counted; what concerns all items is raised."""
    counted: list[str] = []
    supervisor = Supervisor(counted.append)
    reached = []
    with capture_logs() as logs:
        for item in (1, 2, 3):
            with supervisor.isolated("expiry", through=(OSError,), session_id=item):
                if item == 2:
                    raise ValueError("bad row")
                reached.append(item)
        with pytest.raises(OSError, match="gone"), supervisor.isolated("expiry", through=(OSError,)):
            raise OSError("gone")
    assert reached == [1, 3]
    assert counted == ["expiry"]
    assert [(entry["event"], entry["session_id"]) for entry in logs] == [("item_skipped", 2)]
