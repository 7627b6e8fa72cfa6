"""One policy for every loop of the server and the agent: what happens when a pass fails.

A loop is a function that makes one pass. It is run again and again, as soon as there is work or its period is over. A
pass that raises is logged with its traceback, counted, and tried again after a growing pause; no other loop notices. A
process whose loop fails several times in a row says that it is not ready.

Within a pass that works through many items, `Supervisor.isolated` keeps one bad item from failing the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    Wake = Callable[[float], Awaitable[object]]
    """Returns as soon as there is work, and at the latest after so many seconds."""

log = structlog.get_logger(__name__)

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
LONGEST_EXPECTED_PAUSE_S = 1.0
"""After a failure that is expected: what it waits for, such as a database, usually comes back soon."""
UNREADY_AFTER = 5
"""Failed passes in a row after which the process is not ready."""


class Supervisor:
    """Runs the loops of one process."""

    def __init__(self, failed: Callable[[str], None] = lambda _: None) -> None:
        """Create a supervisor without a loop.

        Args:
            failed: Called with the loop's name after each failed pass and each skipped item, to count them.
        """
        self._failed = failed
        self._in_a_row: dict[str, int] = {}

    @property
    def failing(self) -> list[str]:
        """The loops that have failed so often in a row that the process is not ready."""
        return sorted(name for name, count in self._in_a_row.items() if count >= UNREADY_AFTER)

    async def supervise(
        self,
        name: str,
        once: Callable[[], Awaitable[object]],
        *,
        every_s: float,
        wake: Wake = asyncio.sleep,
        expected: tuple[type[Exception], ...] = (),
        longest_pause_s: float | None = None,
    ) -> None:
        """Call ``once`` until cancelled.

        Args:
            name: What the loop is called in logs and metrics.
            once: Makes one pass.
            every_s: The longest time between two passes, in seconds.
            wake: Waits for work before each pass.
            expected: Failures that are logged without a traceback, such as a database that is not reachable.
            longest_pause_s: The longest pause after a failure, where the usual one would be noticed.
        """
        self._in_a_row[name] = 0
        try:
            while True:
                await wake(every_s)
                try:
                    await once()
                except Exception as error:
                    await self._back_off(name, error, expected, longest_pause_s)
                else:
                    self._in_a_row[name] = 0
        finally:
            del self._in_a_row[name]

    @contextlib.contextmanager
    def isolated(self, name: str, *, through: tuple[type[Exception], ...] = (), **fields: object) -> Iterator[None]:
        """Log and count what the body raises, and go on.

        Args:
            name: The loop.
            through: Failures that concern every item and are raised as they are, such as a lost database.
            fields: What the item is, for the log.
        """
        try:
            yield
        except through:
            raise
        except Exception:
            self._failed(name)
            log.exception("item_skipped", loop=name, **fields)

    async def _back_off(
        self, name: str, error: Exception, expected: tuple[type[Exception], ...], longest_pause_s: float | None
    ) -> None:
        self._in_a_row[name] += 1
        self._failed(name)
        bound = LONGEST_PAUSE_S if longest_pause_s is None else longest_pause_s
        longest = min(bound, FIRST_PAUSE_S * 2 ** min(self._in_a_row[name] - 1, 10))
        pause_s = random.uniform(longest / 2, longest)  # noqa: S311 - spreads retries, guards nothing
        known = isinstance(error, expected)
        log.warning(
            "loop_failed",
            loop=name,
            failures_in_a_row=self._in_a_row[name],
            retry_in_s=round(pause_s, 2),
            error=str(error),
            exc_info=None if known else error,
        )
        await asyncio.sleep(pause_s)
