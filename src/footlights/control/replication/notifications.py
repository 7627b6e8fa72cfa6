"""Passing wake-ups on to other replicas, and hearing theirs.

What changes within a few milliseconds travels together. Names that do not fit are left out, and whoever would have
been woken by name looks at its next period: a wake-up is a hint.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import structlog

from footlights.control.replication.signals import Bus, News
from footlights.store.engines.notify import MAX_BYTES

if TYPE_CHECKING:
    from footlights.control.observability.metrics import Metrics
    from footlights.store import Store

log = structlog.get_logger(__name__)

_TOGETHER_S = 0.005
_MOST_NAMES = 150
"""Of each kind in one notification."""


class Passing:
    """Joins this replica's bus to the others'."""

    def __init__(self, store: Store, bus: Bus, me: str, metrics: Metrics) -> None:
        """Take what is joined, and by which name this replica knows its own words."""
        self._bus, self._me, self._metrics = bus, me, metrics
        self._wakeups = store.wakeups(heard=self._heard, missed=bus.missed)
        self._due = False

    async def run(self) -> None:
        """Pass on and hear until cancelled."""
        self._bus.pass_on = self._changed
        try:
            await self._wakeups.run()
        finally:
            self._bus.pass_on = None

    def _changed(self) -> None:
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_later(_TOGETHER_S, self._flush)

    def _flush(self) -> None:
        self._due = False
        news, self._bus.news = self._bus.news, News()
        if news:
            self._wakeups.tell(encode(self._me, news))

    def _heard(self, text: str) -> None:
        sender, news = decode(text)
        if sender != self._me and news is not None:
            self._metrics.woken("notify")
            self._bus.heard(news)


def encode(sender: str, news: News) -> str:
    """Return news as one notification; names beyond what it can carry are left out."""
    body: dict[str, Any] = {"from": sender}
    if news.sessions:
        body["sessions"] = True
    if news.placing:
        body["placing"] = True
    if news.catalogue:
        body["catalogue"] = True
    most = _MOST_NAMES
    while True:
        for name in ("nodes", "fleet", "decided"):
            names = sorted(getattr(news, name))[:most]
            if names:
                body[name] = names
            else:
                body.pop(name, None)
        text = json.dumps(body, separators=(",", ":"))
        if len(text) <= MAX_BYTES or not most:
            return text
        most //= 2


def decode(text: str) -> tuple[str, News | None]:
    """Return who told what; no news where it is of a kind that is not known here."""
    news = News()
    try:
        body = json.loads(text)
        sender = str(body["from"])
        news.sessions, news.placing = bool(body.get("sessions")), bool(body.get("placing"))
        news.catalogue = bool(body.get("catalogue"))
        for name in ("nodes", "fleet", "decided"):
            getattr(news, name).update(str(item) for item in body.get(name, ()))
    except (ValueError, TypeError, KeyError, AttributeError):
        log.warning("wakeup_odd")
        return "", None
    return sender, news
