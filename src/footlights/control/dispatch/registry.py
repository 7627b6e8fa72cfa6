"""The links of this process, by node, and when those nodes were heard last that have none any more."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from footlights import errors
from footlights.agent.v1 import agent_pb2
from footlights.control.dispatch import rates
from footlights.control.dispatch.rates import Rate

if TYPE_CHECKING:
    from collections.abc import Callable

    from footlights.control.dispatch.link import AgentLink

HEARTBEATS_PER_S = 400
"""Heartbeats that one fleet sends a second at most: 2,000 nodes every 5 s, more nodes less often."""


def heartbeat_interval_s(shortest_s: float, nodes: int) -> float:
    """Return how often each of so many nodes is to send a heartbeat."""
    return max(shortest_s, nodes / HEARTBEATS_PER_S)


class LinkRegistry:
    """The links of this process, by node."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.monotonic = monotonic
        """The clock that measures silence."""
        self._links: dict[str, AgentLink] = {}
        self._ended: dict[str, tuple[int, float]] = {}
        """Of nodes whose link has ended, its epoch and when."""
        self._hellos: dict[str, Rate] = {}
        """How often each node has said hello."""
        self._started = monotonic()
        self.messages = 0
        """How many were heard in all."""
        self.fleet_size = 0
        """How many nodes have a link to any replica, as last counted."""

    def __contains__(self, node: object) -> bool:
        return node in self._links

    def __len__(self) -> int:
        return len(self._links)

    @property
    def links(self) -> list[AgentLink]:
        """The links that are open."""
        return list(self._links.values())

    def note_fleet_size(self, nodes: int) -> None:
        """Note how many nodes have a link to any replica."""
        self.fleet_size = nodes

    def get(self, node: str) -> AgentLink | None:
        """Return a node's link."""
        return self._links.get(node)

    def admit(self, node: str) -> None:
        """Count a hello of a node. Raises Exhausted where there were too many: each is written."""
        if self._hellos.setdefault(node, Rate(self.monotonic)).refuses(rates.HELLOS):
            raise errors.Exhausted(
                f"Node {node} has opened its link more than {rates.HELLOS.burst:.0f} times in a row. Wait a moment.",
                reason=errors.Reason.LINK_TOO_OFTEN,
                metadata={"node": node},
                retry_after_s=1,
            )

    def add(self, link: AgentLink) -> None:
        """Make ``link`` its node's link; an older one is closed."""
        older = self._links.get(link.node)
        self._links[link.node] = link
        self.touch(link)
        self._ended.pop(link.node, None)
        if older is not None:
            older.close(replaced(link.node, link.incarnation))

    def remove(self, link: AgentLink) -> bool:
        """Close a link and forget it; False where a newer one has taken its place."""
        link.close()
        if self._links.get(link.node) is not link:
            return False
        del self._links[link.node]
        self._ended[link.node] = (link.epoch, self.monotonic())
        return True

    def touch(self, link: AgentLink) -> None:
        """Note that a message was heard over a link at this moment."""
        self.messages += 1
        link.touch()

    async def find_other(self, node: str, incarnation: str, timeout_s: float, notice: agent_pb2.Notice) -> str:
        """Find another agent under this name whose link is here and alive, and warn it; return its incarnation.

        An agent that was restarted leaves a link behind that ends, or says nothing more. One that still responds is
        another agent, and of the two it has the node's launches. One that was silent for ``timeout_s`` is not asked.
        """
        link = self._links.get(node)
        if link is None or link.incarnation == incarnation or link.silent_for() > timeout_s:
            return ""
        if not await link.responds(timeout_s):
            return ""
        link.send(agent_pb2.LinkResponse(notice=notice))
        return link.incarnation

    # Who was heard when

    def keep(self, nodes: set[str]) -> None:
        """Forget when any other node was heard: it was forgotten itself."""
        for gone in self._ended.keys() - nodes:
            del self._ended[gone]
        self._hellos = {node: rate for node, rate in self._hellos.items() if not rate.is_unused(rates.HELLOS)}

    def has_met(self, node: str) -> bool:
        """Say whether a node has had a link to this process."""
        return node in self._links or node in self._ended

    def has_epoch(self, node: str, epoch: int) -> bool:
        """Say whether the newest link of a node, by its epoch, is or was one of this process."""
        link = self._links.get(node)
        if link is not None:
            return link.epoch == epoch
        return node in self._ended and self._ended[node][0] == epoch

    def silent_for(self, node: str) -> float:
        """Return for how many seconds nothing was heard of a node, at most since this process was started."""
        link = self._links.get(node)
        if link is not None:
            return link.silent_for()
        return self.monotonic() - self._ended.get(node, (0, self._started))[1]


def replaced(node: str, incarnation: str) -> errors.AlreadyExists:
    """Return the close reason of a link whose node has a newer one."""
    return errors.AlreadyExists(
        f"Node {node} has opened another link. If two machines have this name, rename one of them.",
        reason=errors.Reason.LINK_REPLACED,
        metadata={"node": node, "incarnation": incarnation},
    )


def unreachable(node: str) -> errors.Unavailable:
    """Return the error of a request to an agent that cannot be asked."""
    return errors.Unavailable(
        f"Node {node} cannot be asked: its agent is not connected or does not answer. Try again in a moment.",
        reason=errors.Reason.NODE_UNREACHABLE,
        metadata={"node": node},
        retry_after_s=5,
    )
