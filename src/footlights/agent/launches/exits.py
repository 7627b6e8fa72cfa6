"""Notices at once that a process has ended, without asking again and again (pidfd_open(2))."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Set

_MOST = 64
"""A tree may have thousands of processes; the end of its first ones is what matters."""


class ExitWatch:
    """Calls back when any of a set of processes ends. A hint only: the receiver looks for itself at intervals too."""

    def __init__(self, ended: Callable[[], None]) -> None:
        self._ended = ended
        self._descriptors: dict[int, int] = {}

    @property
    def watches(self) -> bool:
        """Whether the end of anything would be noticed."""
        return bool(self._descriptors)

    def watch(self, pids: Set[int]) -> None:
        """Watch these and no others."""
        for pid in self._descriptors.keys() - pids:
            self._drop(pid)
        for pid in sorted(pids - self._descriptors.keys())[: _MOST - len(self._descriptors)]:
            try:
                descriptor = os.pidfd_open(pid)
            except (OSError, AttributeError):
                continue
            self._descriptors[pid] = descriptor
            asyncio.get_running_loop().add_reader(descriptor, self._fire, pid)

    def close(self) -> None:
        """Watch nothing."""
        for pid in list(self._descriptors):
            self._drop(pid)

    def _fire(self, pid: int) -> None:
        self._drop(pid)
        self._ended()

    def _drop(self, pid: int) -> None:
        descriptor = self._descriptors.pop(pid, None)
        if descriptor is not None:
            asyncio.get_running_loop().remove_reader(descriptor)
            os.close(descriptor)
