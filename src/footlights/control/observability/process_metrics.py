"""The metrics of one server process: its links, its use of the store, the lag of its event loop, what it turns away.

Add them up over replicas, or show them by ``instance``. Only ``footlights_replicas`` is the same for all.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from footlights import __version__

if TYPE_CHECKING:
    from datetime import datetime

SHED = ("CALLS", "LINKS", "STORE", "QUEUE")
"""Why something is turned away: too many calls at once, too many links, too many writes, too long a queue."""

WAKEUPS = ("notify", "poll")

LOOPS = (
    "scheduling",
    "expiry",
    "liveness",
    "assignments",
    "reports",
    "membership",
    "notifications",
    "peers",
    "loop_lag",
    "certificate",
)
"""The names under which loops are supervised."""

_COMMIT_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_LAG_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class ProcessMetrics:
    """The metrics of one process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        histogram = partial(Histogram, registry=registry)
        # CPU, memory, open descriptors, start time: the names that every Prometheus client gives them.
        ProcessCollector(registry=registry)
        self.linked = gauge("footlights_links", "Open links of agents to this process.").set
        self.committed = histogram(
            "footlights_store_commit_seconds",
            "Duration of one group of writes, its commit included.",
            buckets=_COMMIT_BUCKETS,
        ).observe
        self.queued = gauge("footlights_store_queued", "Writes that wait for the store.").set
        self._shed = counter("footlights_calls_shed_total", "Calls and links that were turned away.", ("reason",))
        self._replicas = gauge(
            "footlights_replicas", "Server processes on this store, as seen by this one.", ("state",)
        )
        self._wakeups = counter(
            "footlights_wakeups_total",
            "Reads of the store by what caused them: a notification or a period.",
            ("source",),
        )
        self.lagged = histogram(
            "footlights_loop_lag_seconds",
            "Lag of the event loop: how much longer a sleep took than asked.",
            buckets=_LAG_BUCKETS,
        ).observe
        self._loop_failures = counter(
            "footlights_loop_failures_total", "Passes of a loop that failed, and items that were skipped.", ("loop",)
        )
        self._certificate = gauge(
            "footlights_certificate_expiry_timestamp_seconds",
            "Expiry of the serving certificate (Unix seconds); 0 without TLS.",
        )
        info = gauge("footlights_build_info", "1, with the version of the software as a label.", ("version",))
        info.labels(__version__).set(1)
        # A counter that appears with its first event shows Prometheus no increase: an alert would miss it.
        for loop in LOOPS:
            self._loop_failures.labels(loop)
        for reason in SHED:
            self._shed.labels(reason)
        for source in WAKEUPS:
            self._wakeups.labels(source)
        self.replicas(live=1, gone=0)

    def shed(self, reason: str) -> None:
        """Count a call or a link that was turned away; ``reason`` is one of ``SHED``."""
        self._shed.labels(reason).inc()

    def replicas(self, *, live: int, gone: int) -> None:
        """Set how many replicas the store knows: those that are alive, and those that are gone and not removed yet."""
        self._replicas.labels("live").set(live)
        self._replicas.labels("gone").set(gone)

    def woken(self, source: Literal["notify", "poll"]) -> None:
        """Count a read of the store that a notification, or a period, was the reason for."""
        self._wakeups.labels(source).inc()

    def loop_failed(self, loop: str) -> None:
        """Count a failed pass of a loop, or an item that it skipped."""
        self._loop_failures.labels(loop).inc()

    def certified(self, until: datetime) -> None:
        """Set the expiry of the serving certificate."""
        self._certificate.set(until.timestamp())
