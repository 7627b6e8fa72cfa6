"""Who a node is: its enrollment, its certificates, and the end of its link once they are void.

An invited agent trades its code for a certificate. With that it opens its link at the listener for agents, which takes
no connection without one, and over the link it renews it. A token opens a link too, for one release and from this
machine, unless the node has enrolled: then nothing but its certificate does.
"""

from __future__ import annotations

import asyncio
import hmac
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

import structlog

from footlights import errors, ids
from footlights.agent.v1 import certificate_pb2
from footlights.auth import invitations
from footlights.control.call.context import peer_address
from footlights.control.call.shares import Shares
from footlights.store.cluster.sealed_values import INVITATION
from footlights.store.coalescing import Coalescer
from footlights.store.nodes import identities

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from datetime import datetime

    from footlights.auth.authority import Authority, CertificateIdentity
    from footlights.auth.secrets import Box
    from footlights.control.call.context import Call
    from footlights.control.credentials.authorities import Authorities
    from footlights.control.dispatch.link import AgentLink
    from footlights.control.dispatch.registry import LinkRegistry
    from footlights.control.signals import Signals
    from footlights.store import Store, Transaction
    from footlights.store.schema import NodeIdentityRow
    from footlights.supervision import Supervisor

log = structlog.get_logger(__name__)

LOOP = "identities"
PERIOD_S = 5.0
"""How often all links are compared with the store; a revocation that is heard of ends its link at once."""

_MOST_PODS = 64
"""Each asks Kubernetes, and waits for those before it."""
_MOST_PODS_OF_ONE = 16
"""Who calls is not known: one address may not keep out the others."""

RENEWALS_S = 30.0
"""The shortest time between two certificates of one link."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """What certificates of nodes are made with."""

    authorities: Authorities
    cluster: str
    ttl_s: float

    def issue(self, request: bytes, node: str, enrollment: str, now: datetime) -> Issued:
        """Return a certificate for the key of a request. Raises InvalidArgument that names ``signing_request``."""
        authority = self.authorities.newest
        signed = authority.node_certificate(
            request, cluster=self.cluster, node=node, enrollment=enrollment, now=now, ttl_s=self.ttl_s
        )
        return Issued(signed, min(now + timedelta(seconds=self.ttl_s), authority.expire_time), authority)


class Issued(NamedTuple):
    """A certificate of a node."""

    chain: bytes
    expire_time: datetime
    authority: Authority


class _Held:
    """What the link of a node is held with."""

    def __init__(self, link: AgentLink, shown: CertificateIdentity) -> None:
        self.epoch, self.enrollment = link.epoch, shown.enrollment
        self._told = b""
        self._expire_time = shown.expire_time
        self._asked = -RENEWALS_S

    def may_renew(self, now_s: float) -> bool:
        """Say whether it may have another certificate now, and count that as given; on the monotonic clock."""
        if now_s - self._asked < RENEWALS_S:
            return False
        self._asked = now_s
        return True

    def renewed(self, expire_time: datetime, told: bytes) -> None:
        """Note until when its newest certificate is good, and what it was told to trust."""
        self._expire_time, self._told = expire_time, told

    def is_news(self, known: bytes) -> bool:
        """Say whether it was not told over this link to trust these authorities, and count that as told."""
        is_news, self._told = self._told != known, known
        return is_news

    def is_over(self, enrollment: str | None, now: datetime) -> bool:
        """Say whether it is void: its node has another enrollment, or its time is over."""
        return self.enrollment != enrollment or self._expire_time <= now


class NodeIdentities:
    """Admits nodes, renews their certificates, and ends the links of those that are void."""

    def __init__(
        self,
        store: Store,
        signals: Signals,
        links: LinkRegistry,
        *,
        issuer: Issuer,
        clock: Callable[[], datetime],
        supervisor: Supervisor,
        tokens: bool = True,
    ) -> None:
        """``tokens``: whether nodes may show tokens from other machines."""
        self._store, self._links, self._issuer, self._tokens = store, links, issuer, tokens
        self._clock, self._supervisor = clock, supervisor
        self._changes = signals.identities.subscribe()
        self._rows: Coalescer[str, NodeIdentityRow | None] = Coalescer(store, lambda names: lambda tx: _some(tx, names))
        self._held: dict[str, _Held] = {}
        self._address: str | None = None

    def reached_at(self, address: str) -> None:
        """Note where agents open links with a certificate: ``HOST:PORT``, or ``:PORT`` of the host that they know."""
        self._address = address

    def certificate(self, issued: Issued | None) -> certificate_pb2.Certificate:
        """Return what an agent needs to open links with a certificate; None: with the one that it has.

        Raises FailedPrecondition where there is no listener for that.
        """
        if self._address is None:
            raise errors.FailedPrecondition(
                "This control plane has no listener on which agents prove themselves by certificates. Start it with "
                "--agents-listen, as in --agents-listen 0.0.0.0:50052."
            )
        return certificate_pb2.Certificate(
            chain=b"" if issued is None else issued.chain,
            authorities=self._issuer.authorities.certificates,
            address=self._address,
            server_name="" if issued is None else issued.authority.server_name,
        )

    async def admit(self, node: str, call: Call) -> None:
        """Check that a node may have a link.

        Raises PermissionDenied where it is revoked, or has a certificate and shows a token; Unauthenticated where its
        certificate is void.
        """
        row, shown = await self._rows(node), call.caller.certificate
        if shown is not None and (row is None or row.enrollment != shown.enrollment):
            raise _void(node)
        # It was good when its connection was made, which may have been long ago.
        if shown is not None and shown.expire_time <= self._clock():
            raise _void(node)
        if row is not None and row.revoked_time is not None:
            raise _revoked(node)
        if shown is not None:
            return
        address = peer_address(call.peer)
        is_far = bool(address) and not ids.is_loopback(address)
        # Where a proxy on this machine ends TLS everybody is near: of an enrolled node that changes nothing.
        enrolled = row is not None and row.enrollment and self._address is not None
        if enrolled or (is_far and not self._tokens):
            raise errors.PermissionDenied(
                f"The link of node {node} needs its certificate. Start its agent with the data directory that it "
                f"was enrolled with, or invite it: footlights nodes invite {node}",
                reason=errors.Reason.CERTIFICATE_REQUIRED,
                metadata={"node": node},
            )
        if is_far and node not in self._links:
            log.warning("node_token_used", node=node, peer=call.peer, fix="footlights nodes invite")

    async def opened(self, link: AgentLink, call: Call) -> None:
        """Note with which certificate a link was opened. Raises as ``admit`` does: what was true may have changed."""
        if (shown := call.caller.certificate) is not None:
            self._held[link.node] = _Held(link, shown)
        await self.admit(link.node, call)

    async def renew(self, link: AgentLink, request: certificate_pb2.CertificateRequest) -> None:
        """Send another certificate over a link that was opened with one.

        Raises InvalidArgument for a request that is none.
        """
        held = self._held.get(link.node)
        if held is None or held.epoch != link.epoch or not held.may_renew(self._links.monotonic()):
            log.warning("renewal_refused", node=link.node)
            return
        now = self._clock()
        issued = await asyncio.to_thread(self._issuer.issue, request.signing_request, link.node, held.enrollment, now)
        enrollment, authority = held.enrollment, issued.authority.key_id

        def write(tx: Transaction) -> bool:
            return identities.renew(tx, link.node, enrollment, expire_time=issued.expire_time, authority=authority)

        if not await self._store.write(write):
            link.close(_revoked(link.node))
            return
        answer = self.certificate(issued)
        held.renewed(issued.expire_time, answer.authorities)
        link.send_certificate(answer)
        log.info("certificate_renewed", node=link.node, expire_time=issued.expire_time.isoformat())

    async def run(self) -> None:
        """End the links of nodes whose identity is void, until cancelled."""
        await self._supervisor.supervise(
            LOOP, self.enforce, every_s=PERIOD_S, wake=self._wait, expected=(errors.Unavailable,)
        )

    async def enforce(self) -> None:
        """Compare all links with the store, and tell nodes of authorities that they do not know."""
        self._changes.take()
        await self._issuer.authorities.follow()
        links = self._links.links
        rows = await self._store.read(identities.standing)
        now = self._clock()
        for link in links:
            enrollment, revoked = rows.get(link.node, (None, False))
            held = self._held.get(link.node)
            if held is not None and held.epoch != link.epoch:
                held = None
            if revoked:
                link.close(_revoked(link.node))
            elif held is not None and held.is_over(enrollment, now):
                link.close(_void(link.node))
            elif held is not None:
                self._tell(link, held)
        for node in self._held.keys() - {link.node for link in self._links.links}:
            del self._held[node]

    def _tell(self, link: AgentLink, held: _Held) -> None:
        """Tell a node whom to trust, where it was not told over this link; it renews for another authority."""
        known = self._issuer.authorities.certificates
        if held.is_news(known):
            link.send_certificate(self.certificate(None))

    async def _wait(self, timeout_s: float) -> None:
        await self._changes.ready(timeout_s)


class CertificateService:
    """Serves agents that are invited, or are in pods of this cluster."""

    def __init__(
        self,
        store: Store,
        signals: Signals,
        nodes: NodeIdentities,
        *,
        issuer: Issuer,
        box: Box,
        clock: Callable[[], datetime],
        node_of_pod: Callable[[str], Awaitable[str]] | None = None,
    ) -> None:
        """``node_of_pod`` returns the node of the pod that a token is of; None: no pod enrolls here."""
        self._store, self._signals, self._nodes, self._issuer = store, signals, nodes, issuer
        self._box, self._clock, self._node_of_pod = box, clock, node_of_pod
        self._pods = Shares("enrollments of pods", most=_MOST_PODS, most_of_one=_MOST_PODS_OF_ONE)

    async def enroll(self, request: certificate_pb2.EnrollRequest, call: Call) -> certificate_pb2.EnrollResponse:
        """Trade an invitation for a certificate.

        Raises Unauthenticated where the invitation is none, or its code is not known to the agent.
        """
        # An anonymous caller: what costs is done after the proof.
        found = await self._store.read(lambda tx: identities.invitation(tx, request.invitation_id))
        if found is None or found.invitation_key is None:
            raise _not_invited()
        key = self._box.open(found.invitation_key, sealed_for(request.invitation_id))
        proof = invitations.request_proof(key, request.invitation_id, request.node, request.signing_request)
        if not hmac.compare_digest(proof, request.proof) or found.node != request.node:
            raise _not_invited()

        def check(tx: Transaction, now: datetime) -> None:
            row = identities.invitation(tx, request.invitation_id, lock=True)
            if row is None or row.invitation_expire_time is None or row.invitation_expire_time <= now:
                raise _not_invited()

        answer = (await self._enroll(request.signing_request, found.node, check, call)).SerializeToString()
        return certificate_pb2.EnrollResponse(
            certificate=answer, proof=invitations.answer_proof(key, answer, request.proof)
        )

    async def enroll_pod(self, request: certificate_pb2.EnrollPodRequest, call: Call) -> certificate_pb2.Certificate:
        """Give the agent of a pod a certificate of its node.

        Raises FailedPrecondition where no pod enrolls here; Unauthenticated where the token is not one of an agent's
        pod on that node; PermissionDenied where the node is revoked.
        """
        if self._node_of_pod is None:
            raise errors.FailedPrecondition(
                "No pods enroll at this control plane. Start it with --kubernetes-agents NAMESPACE:NAME, the service "
                "account of agents' pods, or invite the node: footlights nodes invite"
            )
        with self._pods.take(call.peer):
            node = await self._node_of_pod(request.token)
        if not node or node != request.node:
            raise errors.Unauthenticated(
                f"The pod is on node {node!r}, and this agent is {request.node!r}. Give it the name of its node.",
                reason=errors.Reason.INVITATION_INVALID,
            )
        ids.check_node("node", node)

        def check(tx: Transaction, now: datetime) -> None:
            # A revocation meanwhile waits, and holds then.
            row = identities.locked(tx, node)
            if row.revoked_time is None:
                return
            # Whoever invites it again lets it in, though this is not by the code.
            if row.invitation_expire_time is None or row.invitation_expire_time <= now:
                raise _revoked(node)

        return await self._enroll(request.signing_request, node, check, call)

    async def _enroll(
        self, signing_request: bytes, node: str, check: Callable[[Transaction, datetime], None], call: Call
    ) -> certificate_pb2.Certificate:
        """Give a node its first certificate, where ``check`` raises nothing in the transaction that writes it."""
        now, enrollment = self._clock(), ids.new_id()
        issued = await asyncio.to_thread(self._issuer.issue, signing_request, node, enrollment, now)
        answer = self._nodes.certificate(issued)
        authority = issued.authority.key_id

        def use(tx: Transaction) -> None:
            check(tx, now)
            identities.enroll(tx, node, enrollment, now=now, expire_time=issued.expire_time, authority=authority)

        await self._store.write(use)
        log.info("node_enrolled", node=node, peer=call.peer, expire_time=issued.expire_time.isoformat())
        # The link of an agent that had this name before is over.
        self._signals.identities.publish(node)
        return answer


def sealed_for(invitation_id: str) -> bytes:
    """Return what the key of an invitation is bound to while it is sealed."""
    return f"{INVITATION}{invitation_id}".encode()


def _some(tx: Transaction, nodes: Sequence[str]) -> list[NodeIdentityRow | None]:
    known = identities.some(tx, nodes)
    return [known.get(node) for node in nodes]


def _not_invited() -> errors.Unauthenticated:
    return errors.Unauthenticated(
        "The invitation is unknown, used, expired, or for another node. Invite it again: footlights nodes invite NODE",
        reason=errors.Reason.INVITATION_INVALID,
    )


def _revoked(node: str) -> errors.PermissionDenied:
    return errors.PermissionDenied(
        f"The identity of node {node} was revoked. If it is to come back: footlights nodes invite {node}",
        reason=errors.Reason.NODE_REVOKED,
        metadata={"node": node},
    )


def _void(node: str) -> errors.Unauthenticated:
    return errors.Unauthenticated(
        f"The certificate of node {node} has expired, or the node was enrolled again since. Invite it: "
        f"footlights nodes invite {node}",
        reason=errors.Reason.CERTIFICATE_INVALID,
    )
