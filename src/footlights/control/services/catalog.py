"""Resolved versions and profiles, remembered for a moment: thousands of sessions a second name the same few versions.

A change in this process is seen by the next request; one at another replica as soon as its signal arrives, and after
``TTL_S`` in any case. What is not found is not remembered.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from footlights.control.services.sessions import resolve
from footlights.v1 import application_pb2

if TYPE_CHECKING:
    from collections.abc import Callable

    from footlights.control.services.sessions.resolve import Resolved
    from footlights.control.signals import Signals
    from footlights.launch.recipe.limits import InstallationLimits
    from footlights.store import Store


class Catalog:
    """Resolves versions and profiles, from memory where it is recent."""

    TTL_S = 1.0
    MOST = 1000

    def __init__(
        self,
        store: Store,
        bus: Signals,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        installation: InstallationLimits,
    ) -> None:
        self._installation = installation
        self._store, self._changes, self._monotonic = store, bus.catalogue.subscribe(), monotonic
        self._known: dict[tuple[str, str, str], tuple[float, Resolved]] = {}
        self._generation = 0
        """Grows with every change that was heard: what was read before it is not remembered."""

    async def resolve(self, application: str, version: str, profile: str) -> Resolved:
        """Return what ``resolve.resolve`` returns, with needs and limits that the caller may change.

        Raises NotFound where the application, version or profile is unknown; FailedPrecondition where the profile is
        not for this version.
        """
        if self._changes.pending or len(self._known) >= self.MOST:
            self._changes.take()
            self._known.clear()
            self._generation += 1
        key, now = (application, version, profile), self._monotonic()
        known = self._known.get(key)
        if known is None or now - known[0] >= self.TTL_S:
            generation = self._generation
            found = await self._store.read(lambda tx: resolve.resolve(tx, *key, installation=self._installation))
            known = now, found
            if not self._changes.pending and generation == self._generation:
                self._known[key] = known
        needs, limits = application_pb2.Needs(), application_pb2.Limits()
        needs.CopyFrom(known[1].needs)
        limits.CopyFrom(known[1].limits)
        return replace(known[1], needs=needs, limits=limits)
