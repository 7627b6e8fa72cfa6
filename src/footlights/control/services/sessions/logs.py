"""An application's output: from its agent, or what was kept of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from footlights import errors
from footlights.v1 import session_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from footlights.control.replication.peers import Peers


@dataclass(frozen=True, slots=True)
class Source:
    """Where a session's output is."""

    node: str
    launch_id: str
    ended: bool
    kept: tuple[str, ...]
    """The last lines, kept in the store when the launch ended."""


async def read(peers: Peers, source: Source, tail_lines: int) -> session_pb2.SessionLog:
    """Return the last lines.

    Raises:
        errors.Unavailable: the agent cannot be asked, and nothing was kept.
    """
    found = session_pb2.SessionLog()
    try:
        async for part in peers.log(source.node, source.launch_id, tail_lines=tail_lines, follow=False):
            found.lines.extend(part.lines)
            found.truncated |= part.truncated
    except (errors.Unavailable, errors.NotFound):
        if not source.ended:
            raise
        return _kept(source, tail_lines)
    return found


async def tail(peers: Peers, source: Source, tail_lines: int) -> AsyncIterator[session_pb2.SessionLog]:
    """Yield the last lines, then new ones until the launch has ended.

    Raises:
        errors.Unavailable: the agent cannot be asked, and nothing was kept.
    """
    said = False
    try:
        async for part in peers.log(source.node, source.launch_id, tail_lines=tail_lines, follow=True):
            said = True
            if part.lines or part.truncated:
                yield session_pb2.SessionLog(lines=part.lines, truncated=part.truncated)
    except (errors.Unavailable, errors.NotFound):
        if said or not source.ended:
            raise
        yield _kept(source, tail_lines)


def _kept(source: Source, tail_lines: int) -> session_pb2.SessionLog:
    lines = source.kept[-tail_lines:] if tail_lines else ()
    return session_pb2.SessionLog(lines=lines, truncated=True)
