"""From a bearer token to a caller."""

from __future__ import annotations

import hmac
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

from footlights import errors
from footlights.auth import tokens
from footlights.auth.roles import Caller, Role
from footlights.store import Store
from footlights.store import tokens as rows
from footlights.store.coalescing import Coalescer

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from footlights.store.schema import TokenRow

_REPLICA = Caller("replica", Role.REPLICA, "")


class Authentication:
    """Proves tokens against the store; what was proved is remembered for a few seconds, and never a refusal."""

    TTL_S = 5.0
    MAX_REMEMBERED = 10_000

    def __init__(self, store: Store, key: bytes, clock: Callable[[], datetime], replica_proof: str = "") -> None:
        """Take the store, the key that digests are made with, and the wall clock that expiry is held against.

        ``replica_proof`` is what other replicas present; empty where there are none.
        """
        self._key, self._clock, self._replica_proof = key, clock, replica_proof
        self._rows: Coalescer[str, TokenRow | None] = Coalescer(store, lambda ids: lambda tx: rows.some(tx, ids))
        self._proved: OrderedDict[str, tuple[float, TokenRow]] = OrderedDict()

    async def caller(self, authorization: str) -> Caller:
        """Return who presents an ``Authorization`` header.

        Raises:
            errors.Unauthenticated: there is none, or it is not a token that is good now.
        """
        scheme, _, text = authorization.partition(" ")
        if not authorization:
            raise errors.Unauthenticated(
                "No token was given. Send the header 'Authorization: Bearer TOKEN'.", reason="TOKEN_MISSING"
            )
        if scheme.lower() != "bearer":
            raise errors.Unauthenticated(
                f"The authorization scheme {scheme!r} is not known here. Send 'Authorization: Bearer TOKEN'.",
                reason="TOKEN_INVALID",
            )
        if self._replica_proof and hmac.compare_digest(text.encode(), self._replica_proof.encode()):
            return _REPLICA
        row = await self._prove(text.strip())
        if row.revoked_time is not None:
            raise errors.Unauthenticated("The token was revoked. Ask for a new one.", reason="TOKEN_REVOKED")
        if row.expire_time is not None and row.expire_time <= self._clock():
            raise errors.Unauthenticated("The token has expired. Ask for a new one.", reason="TOKEN_EXPIRED")
        return Caller(row.subject, Role(row.role), row.token_id)

    def forget(self, token_id: str) -> None:
        """Forget what was proved of a token: it was revoked."""
        for text in [text for text, (_, row) in self._proved.items() if row.token_id == token_id]:
            del self._proved[text]

    async def _prove(self, text: str) -> TokenRow:
        now = time.monotonic()
        known = self._proved.get(text)
        if known is not None and now - known[0] < self.TTL_S:
            return known[1]
        presented = tokens.parse(text)
        row = None
        if presented is not None:
            row = await self._rows(presented.token_id)
        if presented is None or row is None or not tokens.matches(presented, self._key, row.digest):
            raise errors.Unauthenticated(
                "The token is not one of this control plane's. Check that all of it was copied.",
                reason="TOKEN_INVALID",
            )
        self._proved[text] = (now, row)
        self._proved.move_to_end(text)
        # The oldest are first: whoever called once, as agents do, is not remembered for longer than it helps.
        while now - next(iter(self._proved.values()))[0] >= self.TTL_S or len(self._proved) > self.MAX_REMEMBERED:
            self._proved.popitem(last=False)
        return row
