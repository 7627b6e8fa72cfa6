"""How much of something callers may take that show nothing: so much in all, and less from one address.

Without the second bound one client of which nothing is known takes all that there is, and keeps out everybody else.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING

from footlights.control.call.context import peer_address
from footlights.errors import Reason, Unavailable
from footlights.http.client_addresses import client_of

if TYPE_CHECKING:
    from collections.abc import Iterator

RETRY_AFTER_S = 1.0


class Shares:
    """Counts what is taken, in all and by address."""

    def __init__(self, what: str, *, most: int, most_of_one: int) -> None:
        """Create it; ``what`` is the plural of what is counted, for the refusal."""
        self._what, self._most, self._most_of_one = what, most, most_of_one
        self._all = 0
        self._of: Counter[str] = Counter()

    @contextlib.contextmanager
    def take(self, peer: str) -> Iterator[None]:
        """Take one while the body runs; ``peer`` is the caller, in gRPC's form.

        Raises Unavailable where all are taken, or as many as one address may take.
        """
        address = client_of(peer_address(peer))
        if self._all >= self._most:
            raise self._refused(self._most, "")
        if self._of[address] >= self._most_of_one:
            raise self._refused(self._most_of_one, " of one address")
        self._all += 1
        self._of[address] += 1
        try:
            yield
        finally:
            self._all -= 1
            self._of[address] -= 1
            if not self._of[address]:
                del self._of[address]

    def _refused(self, most: int, whose: str) -> Unavailable:
        return Unavailable(
            f"There are {most} {self._what}{whose}, as many as may be. Try again.",
            reason=Reason.OVERLOADED,
            retry_after_s=RETRY_AFTER_S,
        )
