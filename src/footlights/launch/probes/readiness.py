"""Asks a running launch whether it can be connected to, and who is there. Raises nothing: no answer is not ready."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from footlights.launch.launcher import LaunchPlan, LogPart
from footlights.launch.launchers import traits_of
from footlights.launch.probes import loopback
from footlights.launch.process import ownership
from footlights.v1.application_pb2 import Presence as PresenceRecipe
from footlights.v1.application_pb2 import Readiness

READY_PATH = "/v1/streaming/ready"
STATUS_PATH = "/v1/streaming/status"
PROBE_TIMEOUT_S = 3.0
_MAX_LOG_PARTS = 16
_REFUSED_WITHIN_S = 0.3

LogReader = Callable[[str], Awaitable[LogPart]]
"""Reads a launch's output from a cursor on; "" is its beginning."""


@dataclass(frozen=True, slots=True)
class ViewerPresence:
    """Who is connected. None is unknown, which is not zero."""

    viewers: int | None
    idle_s: float | None
    """Seconds since the last input, where the application says it."""


UNKNOWN = ViewerPresence(viewers=None, idle_s=None)


async def ready(
    plan: LaunchPlan,
    log_reader: LogReader,
    *,
    secret: str = "",
    pids: frozenset[int] = frozenset(),
    timeout_s: float = PROBE_TIMEOUT_S,
) -> bool:
    """Make the version's readiness check once; ``log_reader`` gives its output, for the check LOG.

    ``pids``: its processes, where they are known.
    """
    version = plan.version
    if answers := traits_of(version).answers:
        return answers().is_ready(plan)
    try:
        async with asyncio.timeout(timeout_s):
            match version.readiness.check:
                case Readiness.TCP:
                    return await _accepts(plan, pids)
                case Readiness.LOG:
                    return await _logged(version.readiness.log_text, log_reader)
                case _:
                    status, _ = await _ask(plan, version.readiness.path or READY_PATH, secret)
                    return status == 200
    except (OSError, ValueError, EOFError, TimeoutError):
        return False


async def presence(
    plan: LaunchPlan,
    *,
    secret: str = "",
    pids: frozenset[int] = frozenset(),
    timeout_s: float = PROBE_TIMEOUT_S,
) -> ViewerPresence:
    """Ask who is connected: by the application's own word, else by counting connections to the signalling port."""
    version, source = plan.version, plan.version.presence.source
    if source == PresenceRecipe.NONE:
        return UNKNOWN
    if answers := traits_of(version).answers:
        return ViewerPresence(viewers=answers().viewers(plan), idle_s=None)
    if source != PresenceRecipe.CONNECTIONS:
        try:
            async with asyncio.timeout(timeout_s):
                status, body = await _ask(plan, STATUS_PATH, secret)
            if status == 200:
                return _said(body)
        except TimeoutError:
            return UNKNOWN  # it has the route, or hangs: its connections would say less
        except (OSError, ValueError, EOFError):
            pass
        if source == PresenceRecipe.HTTP:
            return UNKNOWN
    if plan.own_network and not pids:
        return UNKNOWN
    inside = min(pids) if plan.own_network else None
    count = await asyncio.to_thread(ownership.connections, plan.ports.signal, inside)
    return ViewerPresence(viewers=count, idle_s=None)


async def _ask(plan: LaunchPlan, path: str, secret: str) -> tuple[int, bytes]:
    return await loopback.ask(plan.ports.http, path, secret=secret, source=traits_of(plan.version).asked_from)


def _said(body: bytes) -> ViewerPresence:
    """Read an application's own word; raises ValueError where it makes no sense."""
    try:
        value = json.loads(body)
    except RecursionError:
        raise ValueError("the status is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("the status is not an object")
    viewers, idle = value.get("viewers"), value.get("last_input_seconds_ago")
    if not isinstance(viewers, int) or isinstance(viewers, bool) or not 0 <= viewers < 2**31:
        raise ValueError(f"viewers is {viewers!r}")
    if isinstance(idle, bool) or not isinstance(idle, int | float) or not math.isfinite(idle) or idle < 0:
        idle = None
    return ViewerPresence(viewers=viewers, idle_s=None if idle is None else float(idle))


async def _accepts(plan: LaunchPlan, pids: frozenset[int]) -> bool:
    if plan.own_network and pids:
        return await asyncio.to_thread(ownership.listens, plan.ports.signal, min(pids))
    reader, writer = await loopback.connect(plan.ports.signal, traits_of(plan.version).asked_from)
    try:
        if not plan.own_network:
            return True
        # On the node the engine accepts, and closes at once where the application does not.
        async with asyncio.timeout(_REFUSED_WITHIN_S):
            return bool(await reader.read(1))
    except TimeoutError:
        return True
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _logged(text: str, log_reader: LogReader) -> bool:
    cursor = ""
    for _ in range(_MAX_LOG_PARTS):
        part = await log_reader(cursor)
        if any(text in line for line in part.lines):
            return True
        if not part.lines or part.cursor == cursor:
            return False
        cursor = part.cursor
    return False
