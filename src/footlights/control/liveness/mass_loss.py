"""The mass-loss brake: silence of one node is a node's fault, silence of most of them at once is our own.

While it holds, reaping marks and ends nothing. It is a judgement of this moment and of this process: it is made anew
at every pass, lets go by itself, and nothing of it is stored.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from footlights.control.observability.metrics import Metrics

log = structlog.get_logger(__name__)

MAX_MASS_LOSS_S = 300.0
"""After so long, silence is believed: this process has been well all the while, so the nodes are gone."""


class Cause(enum.StrEnum):
    """Why reaping pauses."""

    MASS_LOSS = "MASS_LOSS"
    STALLED = "STALLED"
    STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
    STARTED = "STARTED"


@dataclass(frozen=True, slots=True)
class Hold:
    """A brake that holds."""

    cause: Cause
    message: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Silence:
    """How long a node that is not called silent yet has said nothing, in seconds."""

    seconds: float
    linked: bool
    """Whether it has had a link to this process at all."""


class Brake:
    """Says whether what reaping sees may be believed."""

    def __init__(
        self,
        patience_s: float,
        metrics: Metrics,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float],
    ) -> None:
        """Begin without a hold.

        Args:
            patience_s: The silence after which a node is called unreachable.
            metrics: Where ``footlights_brake`` is set.
            clock: The wall clock, for people.
            monotonic: The clock that measures.
        """
        self._patience_s, self._metrics = patience_s, metrics
        self._clock, self._monotonic = clock, monotonic
        self._started = monotonic()
        self._excused: tuple[Cause, str] = (Cause.STALLED, "")
        self._excused_until = -math.inf
        self._mass_since: float | None = None
        self.hold: Hold | None = None
        """The hold, as last judged; None while reaping goes on."""

    def late(self, seconds: float) -> None:
        """Note that a pass came, or took, so many seconds longer than it should: nobody could be heard meanwhile."""
        if seconds > self._patience_s / 2:
            self._excuse(Cause.STALLED, f"This server stood still for {seconds:.0f} s and heard nobody.")

    def failed(self, error: str) -> None:
        """Note that the store has failed: links break with it."""
        self._excuse(Cause.STORE_UNAVAILABLE, error)
        self._set(*self._excused)

    def judge(self, nodes: Mapping[str, Silence]) -> bool:
        """Look at all nodes that are not called silent yet; return whether the brake holds."""
        found = self._stall() or self._start(nodes) or self._mass_loss(nodes)
        if found is None:
            self._release()
        else:
            self._set(*found)
        return found is not None

    def _excuse(self, cause: Cause, message: str) -> None:
        self._excused = cause, message
        # Whoever is well is heard within the time that a silent one is given.
        self._excused_until = self._monotonic() + self._patience_s

    def _stall(self) -> tuple[Cause, str] | None:
        return self._excused if self._monotonic() < self._excused_until else None

    def _start(self, nodes: Mapping[str, Silence]) -> tuple[Cause, str] | None:
        missing = sum(1 for node in nodes.values() if not node.linked)
        if not missing or self._monotonic() - self._started > self._patience_s:
            return None
        return Cause.STARTED, f"This server has just started and waits for {missing} of {len(nodes)} nodes."

    def _mass_loss(self, nodes: Mapping[str, Silence]) -> tuple[Cause, str] | None:
        lapsed = any(node.seconds > self._patience_s for node in nodes.values())
        # Heartbeats are spread over an interval: of nodes that are lost together some lapse a little later.
        suspects = sum(1 for node in nodes.values() if node.seconds > self._patience_s * 2 / 3)
        if not lapsed or suspects < 2 or suspects * 2 <= len(nodes):
            self._mass_since = None
            return None
        now = self._monotonic()
        self._mass_since = now if self._mass_since is None else self._mass_since
        if now - self._mass_since > MAX_MASS_LOSS_S:
            return None
        return Cause.MASS_LOSS, f"{suspects} of {len(nodes)} nodes fell silent together: more likely our fault."

    def _set(self, cause: Cause, message: str) -> None:
        known = self.hold
        if known is None or known.cause is not cause:
            log.warning("brake_on", reason=cause.value, message=message)
            self._metrics.brake(cause)
        same = known is not None and known.cause is cause
        self.hold = Hold(cause, message, known.since if known is not None and same else self._clock())

    def _release(self) -> None:
        if self.hold is not None:
            log.info("brake_off", reason=self.hold.cause.value)
            self._metrics.brake(None)
        self.hold = None
