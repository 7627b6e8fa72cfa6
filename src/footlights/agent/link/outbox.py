"""What waits to be sent over the link: bounded, newest first, ends never lost.

Reports are not queued but marked: what is sent is how the launch is at the moment of sending.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from footlights.agent.v1.agent_pb2 import Inventory, LaunchReport, LinkRequest, LogPart, RelayRequest
from footlights.protocol import handshake

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from footlights.supervision import Supervisor

_MOST_LOG_PARTS = 64


class Outbox:
    """The messages that wait, in the order of their importance: ends and changes, devices, output."""

    def __init__(self, report: Callable[[str], LaunchReport | None], supervisor: Supervisor) -> None:
        self._report, self._supervisor = report, supervisor
        self._changed: dict[str, None] = {}
        self._lost: dict[str, LaunchReport] = {}
        self._inventory: Inventory | None = None
        self._logs: deque[LogPart] = deque()
        self._relays: dict[str, None] = {}
        self._asks_relays = False
        self._filled = asyncio.Event()
        self._closed = False
        self._room = asyncio.Event()
        self._room.set()

    def changed(self, launch_id: str) -> None:
        """Have a launch reported."""
        self._changed[launch_id] = None
        self._filled.set()

    def lost(self, report: LaunchReport) -> None:
        """Have the end of a launch reported that is no longer known here."""
        self._lost[report.launch_id] = report
        self._filled.set()

    def inventory(self, inventory: Inventory) -> None:
        """Have the inventory sent, in place of an older one that still waits."""
        self._inventory = inventory
        self._filled.set()

    def ask_relay(self, launch_id: str) -> bool:
        """Have the relay of a launch asked for; False where no control plane answers that."""
        if self._asks_relays:
            self._relays[launch_id] = None
            self._filled.set()
        return self._asks_relays

    async def log(self, part: LogPart) -> None:
        """Have output sent; waits while many parts wait already."""
        await self._room.wait()
        self._logs.append(part)
        if len(self._logs) >= _MOST_LOG_PARTS:
            self._room.clear()
        self._filled.set()

    def close(self) -> None:
        """Let who takes messages know that no more will come than wait now."""
        self._closed = True
        self._filled.set()

    def welcomed(self, features: Collection[str]) -> None:
        """Note what the control plane understands."""
        self._asks_relays = handshake.RELAYS in features

    def clear(self) -> None:
        """Drop everything: the next hello says it again."""
        self._changed.clear()
        self._lost.clear()
        self._inventory = None
        self._logs.clear()
        self._relays.clear()
        self._asks_relays = False
        self._room.set()
        self._filled.clear()

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return not (self._changed or self._lost or self._relays or self._logs or self._inventory is not None)

    async def next(self, timeout: float) -> LinkRequest | None:
        """Take the next message; None where there was none for ``timeout`` seconds, or is to be none."""
        try:
            async with asyncio.timeout(timeout):
                while True:
                    message = self._take()
                    if message is not None:
                        return message
                    if self._closed:
                        return None
                    self._filled.clear()
                    await self._filled.wait()
        except TimeoutError:
            return None

    def _take(self) -> LinkRequest | None:
        while self._changed:
            launch_id = next(iter(self._changed))
            del self._changed[launch_id]
            report = None
            with self._supervisor.isolated("reports", launch_id=launch_id):
                report = self._report(launch_id)
            if report is not None:
                return LinkRequest(report=report)
        if self._lost:
            return LinkRequest(report=self._lost.pop(next(iter(self._lost))))
        if self._relays:
            launch_id = next(iter(self._relays))
            del self._relays[launch_id]
            return LinkRequest(relay_request=RelayRequest(launch_id=launch_id))
        if self._inventory is not None:
            inventory, self._inventory = self._inventory, None
            return LinkRequest(inventory=inventory)
        if self._logs:
            part = self._logs.popleft()
            self._room.set()
            return LinkRequest(log_part=part)
        return None
