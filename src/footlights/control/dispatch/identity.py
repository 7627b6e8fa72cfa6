"""Duplicate identities: two agents with one name and token, as where a machine was cloned.

The one that was there first has the node's sessions. So a second agent is refused

* while the first one is alive, whichever replica has its link (it is asked, and responds);
* while sessions run under this name that the second one does not know, and it is on another machine or in another
  boot: the first one may only be cut off. The second agent is told what to do. After ``claim_after_s`` it is let in,
  because by then the first one has ended by itself what it could not report.

An agent that was killed and started again on its machine is neither: its old link ends, and its journal, or at least
its boot, is the same.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from google.protobuf.message import DecodeError

from footlights import errors
from footlights.store.coalescing import Coalescer
from footlights.store.nodes import node_rows
from footlights.v1 import agent_pb2, node_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from footlights.control.dispatch.registry import LinkRegistry
    from footlights.control.replication.peers import Peers
    from footlights.store import Store, Transaction
    from footlights.store.nodes.node_rows import LivingLaunch
    from footlights.store.schema import NodeRow

log = structlog.get_logger(__name__)

REASON = errors.Reason.DUPLICATE_IDENTITY

_RESPONSE_HEARTBEATS = 1.5
"""An agent that is alive is heard within so many heartbeats."""
_RESPONSE_TIMEOUT_S = 12.0
"""The longest that a new agent waits for its welcome."""
_CLAIM_SLACK = 1.2
"""The first agent counts its own time without a link; it began to count a little later."""


@dataclass(frozen=True, slots=True)
class _Known:
    """What the store has of a node."""

    row: NodeRow | None
    living: Sequence[LivingLaunch]

    def beyond(self, hello: agent_pb2.Hello) -> list[LivingLaunch]:
        """Return what runs there that the agent does not know."""
        if not self.living:
            return []
        claimed = {report.launch_id for report in hello.launches}
        return [each for each in self.living if each.launch_id not in claimed]


class DuplicateIdentities:
    """Refuses second agents."""

    def __init__(
        self,
        store: Store,
        links: LinkRegistry,
        peers: Peers,
        *,
        heartbeat_s: float,
        abandon_after_s: float,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._links, self._peers = store, links, peers
        self._timeout_s = min(_RESPONSE_HEARTBEATS * heartbeat_s, _RESPONSE_TIMEOUT_S)
        self._claim_after_s = abandon_after_s * _CLAIM_SLACK
        self._clock, self._monotonic = clock, monotonic
        self._known: Coalescer[str, _Known] = Coalescer(store, lambda names: lambda tx: _look(tx, names))
        self._waiting: dict[str, tuple[int, float]] = {}
        """By node, its epoch and since when a second agent waits: it starts over once the first one was back."""

    async def check(self, hello: agent_pb2.Hello) -> int:
        """Return the node's epoch as it was read; a link that begins on it is its newest.

        Raises AlreadyExists where another agent has this name; both are told.
        """
        known = await self._known(hello.node)
        row, unknown = known.row, known.beyond(hello)
        notice = agent_pb2.Notice(reason=REASON, message=_notice(hello))
        other = await self._links.find_other(hello.node, hello.incarnation, self._timeout_s, notice)
        # The agent whose own link is the newest one need not wait for a replica that may be gone. A node that is not
        # known has its link nowhere: where that has changed since, the link's beginning finds another epoch.
        if not other and row is not None and row.incarnation != hello.incarnation:
            other = await self._peers.find_other(hello.node, hello.incarnation, self._timeout_s, notice)
        if other:
            await self._refuse(hello, other)
        if row is not None and unknown and self._must_wait(row, hello, unknown):
            await self._refuse_for_now(hello, row, unknown)
        self._waiting.pop(hello.node, None)
        return 0 if row is None else row.epoch

    def _must_wait(self, row: NodeRow, hello: agent_pb2.Hello, unknown: Sequence[LivingLaunch]) -> bool:
        """Say whether an agent that does not know what runs on its node may be on another machine."""
        before, now = _boot_id(row), hello.facts.boot_id
        if row.incarnation == hello.incarnation or (before and before == now):
            return False
        if all(launch.state == "ASSIGNED" for launch in unknown):
            return False
        epoch, since = self._waiting.get(hello.node, (0, 0.0))
        if epoch != row.epoch:
            epoch, since = self._waiting[hello.node] = row.epoch, self._monotonic()
        return self._monotonic() - since < self._claim_after_s

    async def _refuse(self, hello: agent_pb2.Hello, incarnation: str) -> None:
        await self._note(hello, _notice(hello))
        raise errors.AlreadyExists(
            f"Another agent is linked as {hello.node} and alive. If this machine was cloned from it, give this one its "
            "own node name and token; if the other is to go, stop it first.",
            reason=REASON,
            metadata={"node": hello.node, "incarnation": incarnation},
        )

    async def _refuse_for_now(self, hello: agent_pb2.Hello, row: NodeRow, unknown: Sequence[LivingLaunch]) -> None:
        count = len(unknown)
        await self._note(
            hello,
            f"{_notice(hello)} It does not know the {count} sessions that run as {hello.node}, whose agent has no "
            "link now. If that machine is gone for good, forget the node: its sessions end.",
        )
        raise errors.AlreadyExists(
            f"{count} sessions run as {hello.node} that this agent does not know: they may run on another machine "
            "that is cut off. If this machine was cloned, give it its own node name and token. If its disk was "
            f"replaced, say that they are gone: footlights nodes forget {hello.node}. Otherwise it is let in "
            f"{self._claim_after_s:.0f} s after its first try.",
            reason=REASON,
            metadata={"node": hello.node, "incarnation": row.incarnation},
        )

    async def _note(self, hello: agent_pb2.Hello, text: str) -> None:
        log.warning("link_duplicate", node=hello.node, host=hello.facts.hostname)
        now = self._clock()
        await self._store.write(lambda tx: node_rows.notice(tx, hello.node, REASON, text, now=now))


def _look(tx: Transaction, names: Sequence[str]) -> list[_Known]:
    """Return nodes as they are known, and what runs there."""
    rows, living = node_rows.some(tx, names), node_rows.living(tx, names)
    return [_Known(rows.get(name), living.get(name, ())) for name in names]


def _boot_id(row: NodeRow) -> str:
    """Return in which boot a node was when its last link began; empty where that is not known."""
    try:
        return node_pb2.NodeFacts.FromString(row.facts).boot_id
    except DecodeError:
        log.warning("node_facts_unreadable", node=row.node)
        return ""


def _notice(hello: agent_pb2.Hello) -> str:
    host = hello.facts.hostname or "a host without a name"
    return (
        f"A second agent, on {host}, tries to link as {hello.node} with the same token. "
        "Give each machine its own node name and token."
    )
