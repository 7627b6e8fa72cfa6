"""The mass-loss guard: silence of one node is the node's fault, silence of most of them at once is more likely ours.

While it pauses expiry, nothing is marked and nothing ends. It judges this process at this moment: at every pass again,
it lets go by itself, and nothing of it is stored.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from footlights.store.cluster import replica_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from footlights.control.observability.metrics import Metrics

log = structlog.get_logger(__name__)

MAX_MASS_LOSS_S = 300.0
"""After so long, silence is believed: this process has been well all the while, so the nodes are gone."""


class PauseCause(enum.StrEnum):
    """Why expiry pauses."""

    MASS_LOSS = "MASS_LOSS"
    STALLED = "STALLED"
    STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
    STARTED = "STARTED"


@dataclass(frozen=True, slots=True)
class Pause:
    """Why expiry pauses, and since when."""

    cause: PauseCause
    message: str
    since: datetime


@dataclass(frozen=True, slots=True)
class NodeSilence:
    """For how long nothing was heard of a node that is not called unreachable yet."""

    seconds: float
    linked: bool
    """Whether it has had a link to this process at all."""


class MassLossGuard:
    """Says whether what expiry sees may be believed."""

    def __init__(
        self,
        timeout_s: float,
        metrics: Metrics,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float],
    ) -> None:
        """Create it without a pause; ``timeout_s`` is the silence after which a node is called unreachable."""
        self._timeout_s, self._metrics = timeout_s, metrics
        self._clock, self._monotonic = clock, monotonic
        self._started = monotonic()
        self._excused: tuple[PauseCause, str] = (PauseCause.STALLED, "")
        self._excused_until = -math.inf
        self._mass_since: float | None = None
        self.pause: Pause | None = None
        """Why expiry pauses, as last judged; None while it goes on."""

    def shown(self) -> replica_rows.ActiveGuard | None:
        """Return the pause as this replica records it, for others to show."""
        pause = self.pause
        return None if pause is None else replica_rows.ActiveGuard(pause.cause.value, pause.message, pause.since)

    def late(self, seconds: float) -> None:
        """Note that a pass came, or took, so many seconds longer than it should: nothing could be heard meanwhile."""
        if seconds > self._timeout_s / 2:
            self._excuse(PauseCause.STALLED, f"This server stood still for {seconds:.0f} s and heard no node.")

    def failed(self, error: str) -> None:
        """Note that the store has failed: links break with it."""
        self._excuse(PauseCause.STORE_UNAVAILABLE, error)
        self._set(*self._excused)

    def judge(self, nodes: Mapping[str, NodeSilence]) -> bool:
        """Look at all nodes that are not called unreachable yet; return whether expiry pauses."""
        found = self._stall() or self._start(nodes) or self._mass_loss(nodes)
        if found is None:
            self._release()
        else:
            self._set(*found)
        return found is not None

    def _excuse(self, cause: PauseCause, message: str) -> None:
        self._excused = cause, message
        # A node that is well is heard within the time that a silent one is given.
        self._excused_until = self._monotonic() + self._timeout_s

    def _stall(self) -> tuple[PauseCause, str] | None:
        return self._excused if self._monotonic() < self._excused_until else None

    def _start(self, nodes: Mapping[str, NodeSilence]) -> tuple[PauseCause, str] | None:
        missing = sum(1 for node in nodes.values() if not node.linked)
        if not missing or self._monotonic() - self._started > self._timeout_s:
            return None
        return PauseCause.STARTED, f"This server has just started and waits for {missing} of {len(nodes)} nodes."

    def _mass_loss(self, nodes: Mapping[str, NodeSilence]) -> tuple[PauseCause, str] | None:
        over = any(node.seconds > self._timeout_s for node in nodes.values())
        # Heartbeats are spread over an interval: of nodes that are lost together some are over a little later.
        suspects = sum(1 for node in nodes.values() if node.seconds > self._timeout_s * 2 / 3)
        if not over or suspects < 2 or suspects * 2 <= len(nodes):
            self._mass_since = None
            return None
        now = self._monotonic()
        self._mass_since = now if self._mass_since is None else self._mass_since
        if now - self._mass_since > MAX_MASS_LOSS_S:
            return None
        return PauseCause.MASS_LOSS, f"{suspects} of {len(nodes)} nodes fell silent together: more likely our fault."

    def _set(self, cause: PauseCause, message: str) -> None:
        known = self.pause
        if known is None or known.cause is not cause:
            log.warning("expiry_paused", reason=cause.value, message=message)
            self._metrics.brake(cause)
        same = known is not None and known.cause is cause
        self.pause = Pause(cause, message, known.since if known is not None and same else self._clock())

    def _release(self) -> None:
        if self.pause is not None:
            log.info("expiry_resumed", reason=self.pause.cause.value)
            self._metrics.brake(None)
        self.pause = None
