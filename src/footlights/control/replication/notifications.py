"""Relays signals between replicas, as notifications of the database.

It is one more subscriber: what is published here within a few milliseconds travels together, and what another replica
says is published here to everybody except the relay, so nothing is echoed. Names that do not fit are left out, and a
reader that would have been told by name looks again at its next period: a notification is a hint.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import structlog

from footlights.store.engines.notify import MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Container

    from footlights.control.observability.metrics import Metrics
    from footlights.control.signals import Signals
    from footlights.store import Store
    from footlights.supervision import Supervisor

log = structlog.get_logger(__name__)

MAX_NAMES = 150
"""Of each kind in one notification."""

_TOGETHER_S = 0.005
_PERIOD_S = 60.0


@dataclass(frozen=True, slots=True)
class Notification:
    """What has changed, for other replicas. The names are those on the wire."""

    sessions: bool = False
    placing: bool = False
    catalogue: bool = False
    nodes: frozenset[str] = frozenset()
    """Whose assignments have changed, and whose links are not here."""
    fleet: frozenset[str] = frozenset()
    """Nodes that scheduling is to read again."""
    decided: frozenset[str] = frozenset()
    identities: frozenset[str] = frozenset()
    """Nodes that were revoked or enrolled again."""

    def __bool__(self) -> bool:
        return any(getattr(self, each.name) for each in fields(self))


class NotificationRelay:
    """Joins this replica's signals to those of the others."""

    def __init__(
        self,
        store: Store,
        signals: Signals,
        *,
        replica: str,
        linked: Container[str],
        metrics: Metrics,
        supervisor: Supervisor,
    ) -> None:
        """Subscribe at once; ``linked`` are the nodes whose links are here, so that others need not hear of them."""
        self._replica, self._linked, self._metrics, self._supervisor = replica, linked, metrics, supervisor
        self._ready = asyncio.Event()
        self._sessions = signals.sessions.subscribe(self._ready)
        self._placing = signals.placing.subscribe(self._ready)
        self._catalogue = signals.catalogue.subscribe(self._ready)
        self._assignments = signals.assignments.subscribe(self._ready)
        self._decisions = signals.decisions.subscribe(self._ready)
        self._identities = signals.identities.subscribe(self._ready)
        self._signals = signals
        self._wakeups = store.wakeups(heard=self._on_payload, missed=self.missed)

    async def run(self) -> None:
        """Relay until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._wakeups.run(), name="notifications-connection")
            group.create_task(
                self._supervisor.supervise("notifications", self._send_once, every_s=_PERIOD_S, wake=self._wait),
                name="notifications",
            )

    def collect(self) -> Notification:
        """Return what has changed here since the last time, as far as it concerns other replicas."""
        sessions, placing, catalogue = self._sessions.pending, self._placing.pending, self._catalogue.pending
        self._sessions.take()
        self._catalogue.take()
        return Notification(
            sessions=sessions,
            placing=placing,
            catalogue=catalogue,
            nodes=frozenset(node for node in self._assignments.take().items if node not in self._linked),
            fleet=self._placing.take().items,
            decided=self._decisions.take().items,
            identities=self._identities.take().items,
        )

    def hear(self, notification: Notification) -> None:
        """Publish here what another replica has said."""
        if notification.sessions:
            self._signals.sessions.publish(origin=self._sessions)
        if notification.placing or notification.fleet:
            self._signals.placing.publish(*notification.fleet, origin=self._placing)
        if notification.catalogue:
            self._signals.catalogue.publish(origin=self._catalogue)
        if notification.nodes:
            self._signals.assignments.publish(*notification.nodes, origin=self._assignments)
        if notification.decided:
            self._signals.decisions.publish(*notification.decided, origin=self._decisions)
        if notification.identities:
            self._signals.identities.publish(*notification.identities, origin=self._identities)

    def missed(self) -> None:
        """Publish that anything may have changed: notifications may have been lost."""
        self._signals.sessions.publish(everything=True, origin=self._sessions)
        self._signals.placing.publish(everything=True, origin=self._placing)
        self._signals.catalogue.publish(everything=True, origin=self._catalogue)
        self._signals.assignments.publish(everything=True, origin=self._assignments)

    def close(self) -> None:
        """Subscribe to nothing any more."""
        for each in (self._sessions, self._placing, self._catalogue, self._assignments, self._decisions):
            each.close()

    async def _wait(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._ready.wait()
        except TimeoutError:
            return
        await asyncio.sleep(_TOGETHER_S)

    async def _send_once(self) -> None:
        if notification := self.collect():
            self._wakeups.tell(encode(self._replica, notification))

    def _on_payload(self, text: str) -> None:
        with self._supervisor.isolated("notifications"):
            sender, notification = decode(text)
            if sender != self._replica and notification is not None:
                self._metrics.woken("notify")
                self.hear(notification)


def encode(sender: str, notification: Notification) -> str:
    """Return one notification as text; names beyond what it can carry are left out."""
    body: dict[str, Any] = {"from": sender}
    for name in ("sessions", "placing", "catalogue"):
        if getattr(notification, name):
            body[name] = True
    most = MAX_NAMES
    while True:
        for name in ("nodes", "fleet", "decided", "identities"):
            names = sorted(getattr(notification, name))[:most]
            if names:
                body[name] = names
            else:
                body.pop(name, None)
        text = json.dumps(body, separators=(",", ":"))
        if len(text) <= MAX_BYTES or not most:
            return text
        most //= 2


def decode(text: str) -> tuple[str, Notification | None]:
    """Return the sender and what it says; None where the text cannot be understood."""
    try:
        body = json.loads(text)
        return str(body["from"]), Notification(
            sessions=bool(body.get("sessions")),
            placing=bool(body.get("placing")),
            catalogue=bool(body.get("catalogue")),
            nodes=frozenset(str(item) for item in body.get("nodes", ())),
            fleet=frozenset(str(item) for item in body.get("fleet", ())),
            decided=frozenset(str(item) for item in body.get("decided", ())),
            identities=frozenset(str(item) for item in body.get("identities", ())),
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        log.warning("notification_unreadable")
        return "", None
