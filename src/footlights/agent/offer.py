"""Which launchers the node offers: those that an operator enabled and that can start something now."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from collections.abc import Mapping

    from footlights.launch.launcher import Launcher

CHECK_S: Final = 15.0
_TIMEOUT_S: Final = 30.0
_log = structlog.get_logger(__name__)


class LauncherOffer:
    """Asks the launchers, and remembers what they said."""

    def __init__(self, launchers: Mapping[str, Launcher]) -> None:
        self._launchers = launchers
        self._missing = dict.fromkeys(launchers, "it was not asked yet")

    @property
    def names(self) -> tuple[str, ...]:
        """What can be started now."""
        return tuple(name for name in self._launchers if not self._missing[name])

    @property
    def notes(self) -> tuple[str, ...]:
        """A sentence for an operator on each launcher that is enabled and cannot be used."""
        return tuple(f"launcher {name} is not offered: {why}" for name, why in self._missing.items() if why)

    def why_not(self, name: str) -> str:
        """Why a launcher is not offered; empty where it is."""
        if name not in self._launchers:
            return f"this node does not offer the launcher {name}, but {', '.join(sorted(self._launchers))}"
        why = self._missing[name]
        return f"the launcher {name} cannot be used on this node now: {why}" if why else ""

    async def refresh(self) -> None:
        """Ask every launcher whether it can start something."""
        for name, launcher in self._launchers.items():
            why = await _unavailable(launcher)
            if why != self._missing[name]:
                self._missing[name] = why
                if why:
                    _log.warning("launcher_unavailable", launcher=name, problem=why)
                else:
                    _log.info("launcher_available", launcher=name)


async def _unavailable(launcher: Launcher) -> str:
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            return await launcher.unavailable()
    except TimeoutError:
        return f"it did not answer within {_TIMEOUT_S:g} s"
    except Exception as error:
        _log.exception("launcher_check_failed", launcher=launcher.name)
        return f"it cannot be checked: {error or type(error).__name__}"
