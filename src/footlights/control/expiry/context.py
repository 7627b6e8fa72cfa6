"""What every part of expiry works with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from footlights import errors
from footlights.control.replication.work_lease import LeaseSuperseded

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from datetime import datetime

    from footlights.control.clock import CautiousClock
    from footlights.control.observability.metrics import Metrics
    from footlights.control.replication.work_lease import LeaderLease
    from footlights.control.signals import Signals
    from footlights.store import Store, Transaction
    from footlights.supervision import Supervisor

CONCERNS_ALL = (LeaseSuperseded, errors.Unavailable)
"""Failures that would meet every other item of a pass as well."""


@dataclass(frozen=True, slots=True)
class ExpiryContext:
    """The collaborators of the expiry loop and its parts."""

    store: Store
    bus: Signals
    work: LeaderLease
    """The lease of what one replica does for all."""
    metrics: Metrics
    cautious: CautiousClock
    """What the age of stored moments is measured by."""
    monotonic: Callable[[], float]
    supervisor: Supervisor
    """Runs the loop, and isolates its parts and their items."""
    unwell_nodes: Callable[[Transaction, datetime], Collection[str]]
    """Which nodes are unwell at a moment."""
