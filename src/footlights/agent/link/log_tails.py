"""Output of launches, as the control plane asks for it: the last lines, and then each new one until cancelled."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from footlights.agent.v1.agent_pb2 import LogPart, LogRequest
from footlights.launch.launchers import traits_of
from footlights.protocol import bounds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from footlights.agent.launches.log_retention import LogRetention
    from footlights.agent.launches.table import KnownLaunches
    from footlights.agent.link.outbox import Outbox
    from footlights.launch.launcher import Launcher, LaunchPlan

_MOST_REQUESTS = 32
_DEFAULT_LINES = 100
_MOST_LINES = 10_000
_LINES = bounds.bound("LogPart", "lines")
_FOLLOW_S = 0.25
_READ_TIMEOUT_S = 15.0
_log = structlog.get_logger(__name__)


class NodeOutput:
    """The output of launches that run, that are over, and that are forgotten while their output is kept."""

    def __init__(self, table: KnownLaunches, retention: LogRetention, launchers: Mapping[str, Launcher]) -> None:
        self._table, self._retention, self._launchers = table, retention, launchers

    def find(self, launch_id: str) -> tuple[Launcher, LaunchPlan] | None:
        """Who can read a launch's output; None where the node has none."""
        record = self._table.get(launch_id)
        plan = record.plan if record is not None else self._retention.plan(launch_id)
        launcher = None if plan is None else self._launchers.get(traits_of(plan.version).name)
        return None if plan is None or launcher is None else (launcher, plan)


class LogTails:
    """The requests that are being answered. ``find`` says who can read a launch's output; None where it has none."""

    def __init__(
        self,
        outbox: Outbox,
        *,
        find: Callable[[str], tuple[Launcher, LaunchPlan] | None] = lambda _: None,
        is_over: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._outbox, self._find, self._is_over = outbox, find, is_over
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def request(self, request: LogRequest) -> None:
        """Begin to answer a request, or end one."""
        running = self._tasks.get(request.request_id)
        if request.cancel:
            if running is not None:
                running.cancel()
            return
        if running is not None:
            return
        task = asyncio.create_task(self._answer(request), name=f"log {request.request_id}")
        self._tasks[request.request_id] = task
        task.add_done_callback(lambda _task: self._tasks.pop(request.request_id, None))

    def cancel_all(self) -> None:
        """End every request: the link that asked is gone."""
        for task in self._tasks.values():
            task.cancel()

    async def close(self) -> None:
        """End every request, and wait for it."""
        tasks = list(self._tasks.values())
        self.cancel_all()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(self, request: LogRequest) -> None:
        error = ""
        try:
            if len(self._tasks) > _MOST_REQUESTS:
                error = f"the agent answers {_MOST_REQUESTS} log requests at once; try again later"
            else:
                await self._read(request)
        except LookupError as missing:
            error = str(missing.args[0])
        except TimeoutError:
            error = f"the output could not be read within {_READ_TIMEOUT_S:g} s"
        except Exception as failure:
            _log.exception("log_failed", launch_id=request.launch_id)
            error = f"the output could not be read: {failure or type(failure).__name__}"
        await self._outbox.log(LogPart(request_id=request.request_id, last=True, error=error))

    async def _read(self, request: LogRequest) -> None:
        wanted = min(request.tail_lines or _DEFAULT_LINES, _MOST_LINES)
        cursor = ""
        while True:
            found = self._find(request.launch_id)
            if found is None:
                raise LookupError(f"the node has no output of launch {request.launch_id}")
            launcher, plan = found
            # Asked before reading: what was written before the end is read after it is known.
            over = self._is_over(request.launch_id)
            async with asyncio.timeout(_READ_TIMEOUT_S):
                part = await launcher.log(plan, tail_lines=0 if cursor else wanted, cursor=cursor)
            await self._send(request.request_id, part.lines, truncated=part.truncated)
            moved = bool(part.lines) and part.cursor != cursor
            cursor = part.cursor
            if not request.follow or (over and not moved):
                return
            if not moved:
                await asyncio.sleep(_FOLLOW_S)

    async def _send(self, request_id: str, lines: Sequence[str], *, truncated: bool) -> None:
        batch: list[str] = []
        size = 0
        for whole in lines:
            line = bounds.cut_text(whole, _LINES.size)
            length = len(line.encode())
            if batch and (len(batch) == _LINES.items or size + length > _LINES.total):
                await self._outbox.log(LogPart(request_id=request_id, lines=batch, truncated=truncated))
                batch, size, truncated = [], 0, False
            batch.append(line)
            size += length
        if batch or truncated:
            await self._outbox.log(LogPart(request_id=request_id, lines=batch, truncated=truncated))
