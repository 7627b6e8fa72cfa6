"""From a bearer token or a certificate to a caller."""

from __future__ import annotations

import hmac
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Protocol

from footlights import errors
from footlights.auth import tokens
from footlights.auth.authority import identity_of
from footlights.auth.roles import Caller, Role
from footlights.lifecycle import known
from footlights.store import Store
from footlights.store import tokens as rows
from footlights.store.coalescing import Coalescer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from footlights.store.schema import TokenRow


_PROOF = "flp_"
_REPLICA = Caller("replica", Role.REPLICA, "")


class Authenticator(Protocol):
    """Says who calls."""

    async def caller(self, authorization: str, certificate: bytes = b"") -> Caller:
        """Return the caller that presents an ``Authorization`` header, or has opened its connection with a certificate.

        Raises Unauthenticated where there is none, or its credentials are not valid now.
        """


class CertificateAuthenticator:
    """Takes the certificate of a connection for the identity of its caller; asks another one where there is none.

    A listener that asks for certificates has checked that they lead to our authority, and are valid now.
    """

    def __init__(self, cluster: str, others: Authenticator) -> None:
        self._cluster, self._others = cluster, others

    async def caller(self, authorization: str, certificate: bytes = b"") -> Caller:
        """See `Authenticator`."""
        if not certificate:
            return await self._others.caller(authorization)
        identity = identity_of(certificate)
        if identity is None or identity.cluster != self._cluster:
            raise errors.Unauthenticated(
                "The certificate is not of this cluster. Invite the node: footlights nodes invite",
                reason=errors.Reason.CERTIFICATE_INVALID,
            )
        if not identity.node:
            return Caller(_REPLICA.subject, Role.REPLICA, "", identity)
        return Caller(identity.node, Role.NODE, "", identity)


class TokenAuthenticator:
    """Checks API tokens against the store. A valid token is remembered for a few seconds, a refusal never."""

    TTL_S = 5.0
    MAX_REMEMBERED = 10_000

    def __init__(
        self,
        store: Store,
        key: bytes,
        clock: Callable[[], datetime],
        replica_proofs: Callable[[], Sequence[str]] = list,
    ) -> None:
        self._key, self._clock, self._replica_proofs = key, clock, replica_proofs
        self._rows: Coalescer[str, TokenRow | None] = Coalescer(store, lambda ids: lambda tx: rows.some(tx, ids))
        self._valid: OrderedDict[str, tuple[float, TokenRow]] = OrderedDict()
        self._revoked = 0

    async def caller(self, authorization: str, certificate: bytes = b"") -> Caller:
        """See `Authenticator`."""
        scheme, _, text = authorization.partition(" ")
        if not authorization:
            raise errors.Unauthenticated(
                "No token was given. Send the header 'Authorization: Bearer TOKEN'.", reason=errors.Reason.TOKEN_MISSING
            )
        if scheme.lower() != "bearer":
            raise errors.Unauthenticated(
                f"The authorization scheme {scheme!r} is not supported. Send 'Authorization: Bearer TOKEN'.",
                reason=errors.Reason.TOKEN_INVALID,
            )
        if text.startswith(_PROOF) and any(
            hmac.compare_digest(text.encode(), proof.encode()) for proof in self._replica_proofs()
        ):
            return _REPLICA
        row = await self._find(text.strip())
        if row.revoked_time is not None:
            raise errors.Unauthenticated(
                "The token was revoked. Ask for a new one.", reason=errors.Reason.TOKEN_REVOKED
            )
        if row.expire_time is not None and row.expire_time <= self._clock():
            raise errors.Unauthenticated(
                "The token has expired. Ask for a new one.", reason=errors.Reason.TOKEN_EXPIRED
            )
        role = known(Role, row.role)
        if role is None:
            raise errors.PermissionDenied(
                f"The token has the role {row.role}, which this server does not know: a later release made it. Ask a "
                "server of that release, or use another token.",
                reason=errors.Reason.ROLE_UNKNOWN,
                metadata={"subject": row.subject, "role": row.role},
            )
        return Caller(row.subject, role, row.token_id)

    def forget(self, token_id: str) -> None:
        """Drop what is remembered of a token: it was revoked."""
        self._revoked += 1
        for text in [text for text, (_, row) in self._valid.items() if row.token_id == token_id]:
            del self._valid[text]

    def forget_subject(self, subject: str) -> None:
        """Drop what is remembered of a subject's tokens: they were revoked."""
        for token_id in {row.token_id for _, row in self._valid.values() if row.subject == subject}:
            self.forget(token_id)
        self._revoked += 1

    async def _find(self, text: str) -> TokenRow:
        now = time.monotonic()
        known = self._valid.get(text)
        if known is not None and now - known[0] < self.TTL_S:
            return known[1]
        presented = tokens.parse(text)
        row, revoked = None, self._revoked
        if presented is not None:
            row = await self._rows(presented.token_id)
        if presented is None or row is None or not tokens.matches(presented, self._key, row.digest):
            raise errors.Unauthenticated(
                "The token is not one of this control plane's. Check that all of it was copied.",
                reason=errors.Reason.TOKEN_INVALID,
            )
        if revoked == self._revoked:
            # Otherwise the row may be from before the revocation that came during the read.
            self._remember(text, row, now)
        return row

    def _remember(self, text: str, row: TokenRow, now: float) -> None:
        self._valid[text] = (now, row)
        self._valid.move_to_end(text)
        # The oldest are first: what is not used again, as by agents, is not kept beyond its time.
        while now - next(iter(self._valid.values()))[0] >= self.TTL_S or len(self._valid) > self.MAX_REMEMBERED:
            self._valid.popitem(last=False)
