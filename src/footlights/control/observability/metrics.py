"""The metrics of the control plane, in base units and without labels that grow with users or sessions.

Counters and histograms count what this process did: add them up over replicas. The gauges of the fleet (sessions,
slots, nodes, stuck sessions) are read from the store, so every replica shows the same: take their maximum. What
concerns one process alone is in ``process_metrics``.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from footlights.control.observability.process_metrics import ProcessMetrics
from footlights.lifecycle import REASONS, EndReason, Fault, Phases, meaning

if TYPE_CHECKING:
    from collections.abc import Mapping

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

PAUSE_CAUSES = ("MASS_LOSS", "STALLED", "STORE_UNAVAILABLE", "STARTED")
"""Why expiry may pause."""

GRPC = "GRPC"
"""The method of what is counted as deprecated and came over gRPC."""

_START_BUCKETS = (0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 20, 30, 60, 120, 300, 900)


class Metrics(ProcessMetrics):
    """The metrics of one control plane, in a registry of their own."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        super().__init__(registry)
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        histogram = partial(Histogram, registry=registry)
        self._handled = counter(
            "grpc_server_handled_total",
            "Calls that ended, by gRPC status code.",
            ("grpc_service", "grpc_method", "grpc_code"),
        )
        self._handling = histogram(
            "grpc_server_handling_seconds",
            "Duration of calls; of streams until their end.",
            ("grpc_service", "grpc_method"),
        )
        self._deprecated = counter(
            "footlights_deprecated_requests_total",
            "Requests to paths, and over gRPC (method GRPC) to RPCs, that a later release may not have.",
            ("method", "path"),
        )
        self._ended = counter("footlights_session_ends_total", "Sessions that ended.", ("reason",))
        self.started = histogram(
            "footlights_session_start_seconds",
            "Time from the placement of a launch until it was ready.",
            buckets=_START_BUCKETS,
        ).observe
        self._sessions = gauge("footlights_sessions", "Sessions that have not ended.", ("state", "application"))
        self._slots = gauge("footlights_slots", "Slots of all devices.", ("kind", "state"))
        self._nodes = gauge("footlights_nodes", "Nodes.", ("state",))
        self.placed = histogram("footlights_placing_seconds", "Duration of a pass of the scheduler.").observe
        self._refused = counter("footlights_launches_refused_total", "Launches that a node refused.", ("reason",))
        self._failed = counter(
            "footlights_launch_failures_total",
            "Launches that failed before they were ready, by whose fault it is; APPLICATION: it said why itself.",
            ("fault", "reason"),
        )
        self.stuck = gauge("footlights_stuck_sessions", "Sessions whose end is overdue; their slots are withheld.").set
        self._slot_seconds = counter(
            "footlights_slot_seconds_total",
            "Time that slots were held by launches that have ended, by phase.",
            ("phase",),
        )
        self.spent(Phases())
        self._pools = gauge(
            "footlights_pool_instances", "Instances of pools: wanted, ready and starting.", ("pool", "state")
        )
        self._pool_sessions = counter(
            "footlights_pool_sessions_total",
            "Sessions that may take an instance of a pool: warm, if they did, or cold.",
            ("application", "start"),
        )
        self._brake = gauge("footlights_brake", "1 while expiry pauses for this reason.", ("reason",))
        self.brake(None)
        # A counter that appears with its first event shows Prometheus no increase: an alert would miss it.
        for end in EndReason:
            self._ended.labels(end.value)
        for reason, what in REASONS.items():
            if what.fault in (Fault.NODE, Fault.DEVICE):
                self._refused.labels(reason)
                self._failed.labels(what.fault.value, reason)

    def call(self, method: str, code: str, seconds: float) -> None:
        """Count a call that ended; ``method`` is ``/package.Service/Method``."""
        service, _, name = method.removeprefix("/").partition("/")
        self._handled.labels(service, name, code).inc()
        self._handling.labels(service, name).observe(seconds)

    def deprecated(self, method: str, path: str, requests: int = 1) -> None:
        """Count requests to a deprecated path, its template; over gRPC, `GRPC`, it is that of the RPC."""
        self._deprecated.labels(method, path).inc(requests)

    def ended(self, reason: str) -> None:
        """Count the end of a session."""
        self._ended.labels(reason).inc()

    def refused(self, reason: str) -> None:
        """Count a launch that a node refused."""
        self._refused.labels(reason or "UNKNOWN").inc()

    def failed(self, reason: str) -> None:
        """Count a launch that was refused, or failed before it was ready."""
        # What an application says is not a label: there is no end of it.
        self._failed.labels(meaning(reason).fault.value, (reason or "UNKNOWN") if reason in REASONS else "").inc()

    def spent(self, spent: Phases) -> None:
        """Count what a launch that has ended held its slots for, in slot-seconds."""
        self._slot_seconds.labels("starting").inc(spent.starting)
        self._slot_seconds.labels("used").inc(spent.used)
        self._slot_seconds.labels("ending").inc(spent.ending)
        self._slot_seconds.labels("warm").inc(spent.warm)

    def pools(self, counts: Mapping[str, tuple[int, int, int]]) -> None:
        """Replace the gauges of pools: how many instances are wanted, ready and starting, by pool."""
        self._pools.clear()
        for pool, numbers in counts.items():
            for state, number in zip(("wanted", "ready", "starting"), numbers, strict=True):
                self._pools.labels(pool, state).set(number)

    def came_to_pool(self, application: str, warm: bool) -> None:
        """Count a session that may take an instance of a pool, and whether it did."""
        self._pool_sessions.labels(application, "warm" if warm else "cold").inc()

    def brake(self, reason: str | None) -> None:
        """Set why expiry pauses; None while it goes on."""
        for each in PAUSE_CAUSES:
            self._brake.labels(each).set(each == reason)

    def fleet(
        self,
        sessions: dict[tuple[str, str], int],
        slots: dict[tuple[str, str], int],
        nodes: dict[str, int],
    ) -> None:
        """Replace the gauges: by (state, application), by (device kind, leased or free or unusable), by state."""
        for gauge in (self._sessions, self._slots, self._nodes):
            gauge.clear()
        for (state, application), count in sessions.items():
            self._sessions.labels(state, application).set(count)
        for (kind, state), count in slots.items():
            self._slots.labels(kind, state).set(count)
        for state, count in nodes.items():
            self._nodes.labels(state).set(count)

    def no_fleet(self) -> None:
        """Clear the gauges of the fleet: another replica sets them from now on."""
        self.fleet({}, {}, {})
        self.stuck(0)

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)
