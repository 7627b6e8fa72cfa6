"""Leader leases: work that one replica does for all. Its holder writes under a fencing token.

A replica whose lease was taken over may not know it yet: its token is an older one, so its writes are refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import structlog

from footlights import errors
from footlights.store.cluster import leader_leases

if TYPE_CHECKING:
    from footlights.control.replication.membership import Membership
    from footlights.store import Store, Transaction, Unit

log = structlog.get_logger(__name__)
T = TypeVar("T")


class LeaseSuperseded(errors.Conflict):
    """Another replica has taken the lease; nothing was written."""


class LeaderLease:
    """One replica's part in a kind of work."""

    def __init__(self, work: str, store: Store, membership: Membership, *, may: bool = True) -> None:
        """Create it without holding the lease; ``may`` says whether the work is one of this replica's roles."""
        self._work, self._store, self._membership, self._may = work, store, membership, may
        self._token: int | None = None
        self._term = 0

    @property
    def held(self) -> bool:
        """Whether this replica had it when it last looked."""
        return self._token is not None

    async def claim(self) -> bool:
        """Take the lease where no living replica has it; say whether this replica has it."""
        if not self._may:
            return False
        if not self._store.shared:
            self._token = 0
            return True
        if self.held and self._term != self._membership.term:
            self.lost()
        if not self.held:
            term, me = self._membership.term, self._membership.me
            token = await self._store.write(
                lambda tx: leader_leases.claim(tx, self._work, me) if self._membership.joined else None
            )
            self._term, self._token = term, token
            if token is not None:
                log.info("lease_claimed", work=self._work, token=token)
        return self.held

    def guarded(self, unit: Unit[T]) -> Unit[T]:
        """Return ``unit`` so that it writes only while this replica holds the lease.

        The unit raises ``LeaseSuperseded`` where another replica has taken it.
        """
        token = self._token

        def checked(tx: Transaction) -> T:
            if token is None or not leader_leases.holds(tx, self._work, token):
                raise LeaseSuperseded(
                    f"Another replica has taken over the work {self._work!r}.",
                    reason=errors.LocalReason.WORK_SUPERSEDED,
                )
            return unit(tx)

        return checked if self._store.shared else unit

    async def write(self, unit: Unit[T]) -> T:
        """Write a unit under the lease. Raises ``LeaseSuperseded``, and what ``Store.write`` does."""
        return await self._store.write(self.guarded(unit))

    def lost(self) -> None:
        """Note that another replica has the lease."""
        if self.held:
            log.warning("lease_lost", work=self._work)
        self._token = None
