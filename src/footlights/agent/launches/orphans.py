"""Processes with the node's mark that belong to no launch: found, given time to be claimed, then ended."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from footlights.agent.clock import Clock
    from footlights.launch.launcher import Launcher

EVERY_S: Final = 15.0
_GRACE_S: Final = 60.0
_GIVE_UP_S: Final = 30.0
_AGAIN_S: Final = 0.2
_log = structlog.get_logger(__name__)


class Orphans:
    """Looks for them, in the launchers' own ways. ``mark`` is empty while the cluster is not known."""

    def __init__(
        self,
        launchers: Collection[Launcher],
        *,
        mark: Callable[[], str],
        is_known: Callable[[str], bool],
        clock: Clock,
        grace_s: float = _GRACE_S,
    ) -> None:
        self._launchers = launchers
        self._mark = mark
        self._is_known = is_known
        self._clock = clock
        self._grace_s = grace_s
        self._first_seen: dict[str, float] = {}

    async def look(self) -> None:
        """Look once, while there is a link: without one, no assignment could have claimed what is found."""
        if not self._mark():
            return
        now = self._clock.now()
        found = {launch_id for launcher in self._launchers for launch_id in await self._find(launcher)}
        orphans = {launch_id for launch_id in found if not self._is_known(launch_id)}
        for launch_id in self._first_seen.keys() - orphans:
            del self._first_seen[launch_id]
        for launch_id in orphans:
            if launch_id not in self._first_seen:
                self._first_seen[launch_id] = now
                _log.warning("orphan_found", launch_id=launch_id, ended_in_s=self._grace_s)
            elif now - self._first_seen[launch_id] >= self._grace_s:
                await self.end(launch_id)

    async def end(self, launch_id: str) -> bool:
        """End whatever carries a launch's mark; return whether nothing is left of it."""
        try:
            async with asyncio.timeout(_GIVE_UP_S):
                while True:
                    left = [one for one in self._launchers if launch_id in await self._find(one)]
                    if not left:
                        return True
                    _log.warning("orphan_ended", launch_id=launch_id)
                    for launcher in left:
                        await launcher.end_orphan(self._mark(), launch_id)
                    await asyncio.sleep(_AGAIN_S)
        except TimeoutError:
            _log.error("orphan_survives", launch_id=launch_id)
            return False

    async def _find(self, launcher: Launcher) -> dict[str, frozenset[int]]:
        try:
            return await launcher.find(self._mark())
        except Exception as error:
            _log.warning("orphans_unknown", launcher=launcher.name, error=str(error))
            return {}
