"""EnrollmentService: invites nodes, revokes their identities, and replaces the authority of their certificates."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import structlog

from footlights import errors, ids
from footlights.auth import invitations, tokens
from footlights.auth.authority import LIFE
from footlights.control.call import bounds
from footlights.control.dispatch.node_identities import sealed_for
from footlights.protocol.times import timestamp
from footlights.store.nodes import identities, node_rows
from footlights.v1 import enrollment_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from footlights.auth.authority import Authority
    from footlights.auth.secrets import Box
    from footlights.control.call.context import Call
    from footlights.control.credentials.authorities import Authorities
    from footlights.control.services.writes import Writes
    from footlights.control.signals import Signals
    from footlights.store import Store, Transaction
    from footlights.store.schema import NodeIdentityRow

log = structlog.get_logger(__name__)

DEFAULT_TTL_S = 900.0
_DAY_S = 86_400
MAX_TTL_S = 86_400


class EnrollmentService:
    """Serves invitations and revocations."""

    def __init__(
        self,
        store: Store,
        writes: Writes,
        signals: Signals,
        *,
        key: bytes,
        box: Box,
        clock: Callable[[], datetime],
        forget: Callable[[str], None],
        authorities: Authorities,
    ) -> None:
        """``key`` makes the codes of repeatable calls; ``forget`` drops what is remembered of a node's tokens."""
        self._store, self._writes, self._signals = store, writes, signals
        self._key, self._box = key, box
        self._clock, self._forget, self._authorities = clock, forget, authorities

    async def invite_node(
        self, request: enrollment_pb2.InviteNodeRequest, call: Call
    ) -> enrollment_pb2.InviteNodeResponse:
        """Invite a node; only this answer has the code."""
        ids.check_node("node", request.node)
        ttl_s = DEFAULT_TTL_S
        if request.HasField("ttl"):
            fix = "Leave it out for 15 minutes."
            ttl_s = bounds.bounded("ttl", request.ttl, most_s=MAX_TTL_S, fix=fix)
        expire_time = self._clock() + timedelta(seconds=ttl_s)
        keyed = partial(tokens.mint_for, self._key, call.caller.subject, request.request_id)
        minted = keyed() if request.request_id else tokens.mint()
        invitation = invitations.parse(invitations.code(minted))
        assert invitation is not None

        def write(tx: Transaction) -> enrollment_pb2.InviteNodeResponse:
            # Answers are remembered, and no secret may be.
            sealed = self._box.seal(invitation.key, sealed_for(invitation.invitation_id))
            identities.invite(tx, request.node, invitation.invitation_id, sealed, expire_time=expire_time)
            answer = enrollment_pb2.InviteNodeResponse(expire_time=timestamp(expire_time))
            if not request.validate_only:
                answer.invitation_id = invitation.invitation_id
            return answer

        def done(answer: enrollment_pb2.InviteNodeResponse) -> None:
            log.info("node_invited", node=request.node, invitation_id=answer.invitation_id)

        answer = await self._writes.run(request, call, write, answer=enrollment_pb2.InviteNodeResponse, done=done)
        if (made := answer.invitation_id) and not request.validate_only:
            code = invitations.code(minted if made == minted.token_id else keyed(made))
            answer.MergeFrom(enrollment_pb2.InviteNodeResponse(code=code))
        return answer

    async def revoke_node(self, request: enrollment_pb2.RevokeNodeRequest, call: Call) -> enrollment_pb2.NodeIdentity:
        """Revoke a node's identity."""
        now = self._clock()

        def write(tx: Transaction) -> enrollment_pb2.NodeIdentity:
            known = identities.get(tx, request.node) or node_rows.get(tx, request.node)
            if known is None and not identities.has_token(tx, request.node):
                raise errors.NotFound(
                    f"node: there is no node {request.node!r}, and nothing that one could link with. List nodes with "
                    "GET /v1/nodes.",
                    reason=errors.Reason.NODE_NOT_FOUND,
                    metadata={"field": "node", "node": request.node},
                )
            return identity_message(identities.revoke(tx, request.node, now=now))

        def done(_: enrollment_pb2.NodeIdentity) -> None:
            log.info("node_revoked", node=request.node)
            self._forget(request.node)
            self._signals.identities.publish(request.node)

        return await self._writes.run(request, call, write, answer=enrollment_pb2.NodeIdentity, done=done)

    async def get_authorities(
        self, request: enrollment_pb2.GetAuthoritiesRequest, call: Call
    ) -> enrollment_pb2.Authorities:
        """Return the authorities, the newest first."""
        now = self._clock()
        await self._authorities.follow()
        counts = await self._store.read(lambda tx: identities.counts_by_authority(tx, now=now))
        return authorities_message(self._authorities.all, counts)

    async def rotate_authority(
        self, request: enrollment_pb2.RotateAuthorityRequest, call: Call
    ) -> enrollment_pb2.Authorities:
        """Make another authority."""
        now, life_s = self._clock(), LIFE.total_seconds()
        if request.HasField("ttl"):
            life_s = bounds.bounded("ttl", request.ttl, most_s=int(life_s), fix="Leave it out for ten years.")
            if life_s < _DAY_S:
                raise errors.InvalidArgument("ttl", "must be a day at least: certificates of nodes end with it.")

        def write(tx: Transaction) -> enrollment_pb2.Authorities:
            found = self._authorities.rotate(tx, now=now, life=timedelta(seconds=life_s))
            answer = authorities_message(found, identities.counts_by_authority(tx, now=now))
            if request.validate_only:
                answer.items[0].ClearField("authority_id")
                answer.items[0].ClearField("certificate")
            return answer

        return await self._writes.run(
            request, call, write, answer=enrollment_pb2.Authorities, done=self._authorities_changed
        )

    async def retire_authorities(
        self, request: enrollment_pb2.RetireAuthoritiesRequest, call: Call
    ) -> enrollment_pb2.Authorities:
        """Retire all authorities but the newest."""
        now = self._clock()

        def write(tx: Transaction) -> enrollment_pb2.Authorities:
            found = self._authorities.retire(tx, now=now, force=request.force)
            return authorities_message(found, identities.counts_by_authority(tx, now=now))

        return await self._writes.run(
            request, call, write, answer=enrollment_pb2.Authorities, done=self._authorities_changed
        )

    def _authorities_changed(self, _: enrollment_pb2.Authorities) -> None:
        # Whoever follows identities follows these.
        self._signals.identities.publish("")


def authorities_message(found: Sequence[Authority], counts: Mapping[str | None, int]) -> enrollment_pb2.Authorities:
    """Return authorities as callers see them; ``counts`` are of nodes, by authority."""
    shown = enrollment_pb2.Authorities()
    for each in found:
        first = counts.get(None, 0) if each is found[-1] else 0
        shown.items.add(
            authority_id=each.key_id,
            create_time=timestamp(each.begin_time),
            expire_time=timestamp(each.expire_time),
            node_count=counts.get(each.key_id, 0) + first,
            certificate=each.certificates.decode(),
        )
    return shown


def identity_message(row: NodeIdentityRow) -> enrollment_pb2.NodeIdentity:
    """Return an identity as callers see it."""
    shown = enrollment_pb2.NodeIdentity(node=row.node)
    for name in ("enrolled_time", "expire_time", "revoked_time", "invitation_expire_time"):
        if (time := getattr(row, name)) is not None:
            getattr(shown, name).CopyFrom(timestamp(time))
    return shown
