"""How many requests or sockets are open at once: in all, and of one user, one session and one grant.

A place is taken after the grant was verified, so that only viewers can fill them, and no viewer those of others.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING

from footlights.errors import Exhausted, Reason
from footlights.frontdoor.answers import FrontDoorError
from footlights.frontdoor.checks import overloaded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from footlights.frontdoor.interfaces import PlaceLimits, ViewerGrant


class Places:
    """The places of one kind, such as ``requests``."""

    def __init__(self, kind: str, limits: PlaceLimits) -> None:
        self._kind, self._limits = kind, limits
        self._taken: Counter[tuple[str, str]] = Counter()
        self._total = 0

    @property
    def taken(self) -> int:
        """How many are taken, in all."""
        return self._total

    @contextlib.contextmanager
    def hold(self, grant: ViewerGrant) -> Iterator[None]:
        """Take a place while the body runs.

        Raises:
            FrontDoorError: 429 ``VIEWER_LIMIT`` where the user, the session or the grant has as many as it may have;
                503 ``FRONT_DOOR_FULL`` where all are taken.
        """
        free = self._limits.total - self._total
        owners = (
            (("grant", grant.nonce), self._limits.per_grant),
            (("session", grant.session_id), self._limits.per_session),
            (("user", grant.subject), free),
        )
        if not free:
            raise overloaded()
        for (what, name), most in owners:
            if self._taken[what, name] >= most:
                raise _too_many(self._kind, what, most)
        self._total += 1
        for owner, _ in owners:
            self._taken[owner] += 1
        try:
            yield
        finally:
            self._total -= 1
            for owner, _ in owners:
                self._taken[owner] -= 1
                if not self._taken[owner]:
                    del self._taken[owner]


def _too_many(kind: str, what: str, most: int) -> FrontDoorError:
    return FrontDoorError(
        Exhausted(
            f"{most} {kind} of this {what} are open already, as many as it may have: close some, or try again.",
            reason=Reason.VIEWER_LIMIT,
            metadata={"kind": kind, "of": what, "limit": str(most)},
            retry_after_s=1.0,
        )
    )
