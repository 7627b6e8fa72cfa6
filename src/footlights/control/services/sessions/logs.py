"""An application's output: from its node's agent, or the last lines that the store kept."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from footlights import errors
from footlights.control.services.sessions import access
from footlights.store.launches import launch_rows
from footlights.v1 import session_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from footlights.auth.roles import Caller
    from footlights.control.replication.peers import Peers
    from footlights.store import Transaction

MAX_LOG_BYTES = 3 << 20
"""Of one answer: the newest lines. A stock gRPC client takes 4 MiB."""


@dataclass(frozen=True, slots=True)
class LogSource:
    """The launch whose output is read."""

    session_id: str
    node: str
    launch_id: str
    ended: bool
    kept: tuple[str, ...]
    """The last lines, stored when the launch ended."""


def find(tx: Transaction, caller: Caller, session_id: str) -> LogSource:
    """Return a session's current launch, or its last one.

    Raises NotFound where there is no session that the caller may see, or it was never launched.
    """
    row = access.find(tx, caller, session_id)
    launch = launch_rows.get(tx, row.launch_id) if row.launch_id else launch_rows.last(tx, session_id)
    if launch is None:
        raise _missing(session_id, "It has not been launched.")
    return LogSource(session_id, launch.node, launch.launch_id, launch.ended_time is not None, tuple(launch.log_tail))


async def read(peers: Peers, source: LogSource, tail_lines: int) -> session_pb2.SessionLog:
    """Return the last lines, as many as a client takes.

    Raises Unavailable where the agent cannot be reached, and nothing was kept.
    """
    lines: deque[str] = deque()
    size, truncated = 0, False
    try:
        async for part in peers.log(source.node, source.launch_id, tail_lines=tail_lines, follow=False):
            truncated |= part.truncated
            for line in part.lines:
                lines.append(line)
                size += len(line.encode())
            while size > MAX_LOG_BYTES:
                size -= len(lines.popleft().encode())
                truncated = True
    except (errors.Unavailable, errors.NotFound) as error:
        if not source.ended:
            raise _refused(source, error) from None
        return _kept(source, tail_lines)
    return session_pb2.SessionLog(lines=lines, truncated=truncated)


async def tail(peers: Peers, source: LogSource, tail_lines: int) -> AsyncIterator[session_pb2.SessionLog]:
    """Yield the last lines, then new ones until the launch has ended.

    Raises Unavailable where the agent cannot be reached, and nothing was kept.
    """
    has_output = False
    try:
        async for part in peers.log(source.node, source.launch_id, tail_lines=tail_lines, follow=True):
            has_output = True
            if part.lines or part.truncated:
                yield session_pb2.SessionLog(lines=part.lines, truncated=part.truncated)
    except (errors.Unavailable, errors.NotFound) as error:
        if has_output or not source.ended:
            raise _refused(source, error) from None
        yield _kept(source, tail_lines)


def _refused(source: LogSource, error: errors.Error) -> errors.Error:
    """Return what a client is told where an agent's log cannot be read: it knows sessions, not launches."""
    return _missing(source.session_id, error.message) if isinstance(error, errors.NotFound) else error


def _missing(session_id: str, why: str) -> errors.NotFound:
    return errors.NotFound(
        f"Session {session_id} has no log. {why}",
        reason=errors.Reason.LOG_NOT_FOUND,
        metadata={"session_id": session_id},
    )


def _kept(source: LogSource, tail_lines: int) -> session_pb2.SessionLog:
    lines = source.kept[-tail_lines:] if tail_lines else ()
    return session_pb2.SessionLog(lines=lines, truncated=True)
