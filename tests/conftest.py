"""What holds for every test: it leaves no task, thread or child process behind.

Threads and processes that a fixture of a wider scope starts may live as long as that fixture. Everything else must end
with the test, or within a few seconds of grace.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil
import pytest
import structlog
from hypothesis import HealthCheck, settings

from tests.machine.machine import booted, missing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterator

    from tests.machine.machine import Machine

# Time limits for one example fail on a machine that is busy with something else; pytest's own timeout bounds a test.
settings.register_profile(
    "footlights", parent=settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("footlights")

GRACE_S: Final = 5.0

LASTING_THREADS: Final = {
    "_poll_wrapper": "gRPC's asyncio poller, one for the life of the process",
    "AnyIO worker": "starlette's thread pool ends its idle threads later by itself",
    "store-read": "a session's store starts them when it needs them; one that is left open still shows its store-write",
}
"""Parts of names of threads that may outlive a test, with the reason."""

LASTING_PROCESSES: Final = {
    "multiprocessing.resource_tracker": "multiprocessing's own, one for the life of the process",
    "multiprocessing.forkserver": "multiprocessing's own, one for the life of the process",
}
"""Parts of command lines of children that may outlive a test, with the reason."""

LONGEST: Final = ("system", "cli", "console", "browser", "skew", "simulate", "gateway", "certify", "control")
"""Folders whose files take the longest. Several workers are handed the files in this order, so that none is left with a
long one while the others have nothing to do."""

_baseline: pytest.StashKey[set[object]] = pytest.StashKey()
_of_wider_fixtures: set[object] = set()


@pytest.fixture(autouse=True)
def _logs_as_they_were() -> Iterator[None]:
    """A test that runs a command in its own process sets up logging: that is for itself, not for the tests after it.

    No logger is cached meanwhile: one that was would not be seen by ``capture_logs`` any more.
    """
    root, configure = logging.getLogger(), structlog.configure
    level = root.level

    def configure_uncached(**options: Any) -> None:
        configure(**options | {"cache_logger_on_first_use": False})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(structlog, "configure", configure_uncached)
        yield
    structlog.reset_defaults()
    ours = structlog.stdlib.ProcessorFormatter
    root.handlers[:] = [each for each in root.handlers if not isinstance(each.formatter, ours)]
    root.setLevel(level)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    tests = config.rootpath / "tests"

    def place(item: pytest.Item) -> int:
        folder = item.path.relative_to(tests).parts[0] if item.path.is_relative_to(tests) else ""
        return LONGEST.index(folder) if folder in LONGEST else len(LONGEST)

    items.sort(key=place)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, Any, Any]:
    item.stash[_baseline] = _running()
    return (yield)


class _WiderFixtures:
    """Notes what fixtures of a wider scope start.

    A plugin of its own: the hooks of a conftest are not called for a session's fixtures, which belong to no folder.
    """

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Generator[None, Any, Any]:
        if fixturedef.scope == "function":
            return (yield)
        before = _running()
        try:
            return (yield)
        finally:
            _of_wider_fixtures.update(_running() - before)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_WiderFixtures(), "wider-fixtures")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, Any, Any]:
    result = yield
    if item.get_closest_marker("shared_processes"):
        return result
    known = item.stash[_baseline] | _of_wider_fixtures
    deadline = time.monotonic() + GRACE_S
    while (left := _leaks(known)) and time.monotonic() < deadline:
        time.sleep(0.01)
    if left:
        pytest.fail(f"the test left behind: {', '.join(left)}", pytrace=False)
    return result


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    """A machine with a systemd of its own, for tests marked ``real``."""
    if reason := missing():
        pytest.skip(reason)
    with booted() as machine:
        yield machine


@pytest.fixture(autouse=True)
def ended_tasks(request: pytest.FixtureRequest) -> None:
    """Fail an asynchronous test that leaves tasks behind."""
    if inspect.iscoroutinefunction(getattr(request.function, "__wrapped__", request.function)):
        request.getfixturevalue("_ended_tasks")


@pytest.fixture
async def _ended_tasks() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    if left:
        _, left = await asyncio.wait(left, timeout=GRACE_S)
    if left:
        names = ", ".join(sorted(f"{task.get_name()} ({_where(task)})" for task in left))
        pytest.fail(f"the test left tasks behind: {names}", pytrace=False)


def _where(task: asyncio.Task[Any]) -> str:
    coroutine: Any = task.get_coro()
    return str(getattr(coroutine, "__qualname__", coroutine))


def _running() -> set[object]:
    """The live threads, and the pids of the live children."""
    return {*threading.enumerate(), *_children()}


def _children() -> set[int]:
    try:
        texts = [task.joinpath("children").read_text() for task in Path("/proc/self/task").iterdir()]
    except OSError:  # a thread ended meanwhile, or the kernel does not offer it
        return {child.pid for child in psutil.Process().children()}
    return {int(pid) for text in texts for pid in text.split()}


def _leaks(known: set[object]) -> list[str]:
    found = []
    for one in _running() - known:
        if isinstance(one, threading.Thread):
            if not any(part in one.name for part in LASTING_THREADS):
                found.append(f"thread {one.name}")
        elif isinstance(one, int):
            command = _command(one)
            if command and not any(part in command for part in LASTING_PROCESSES):
                found.append(f"process {one} ({command[:120]})")
    return found


def _command(pid: int) -> str:
    """The command line of a process; empty if it has ended, also if its parent has not collected it yet."""
    try:
        process = psutil.Process(pid)
        return "" if process.status() == psutil.STATUS_ZOMBIE else " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""
