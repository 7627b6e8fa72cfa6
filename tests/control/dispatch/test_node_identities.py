"""Enrollment and revocation, over the pipeline (`enrollment`, `issuing`, `credentials.authorities`)."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509
from footlights.agent.v1 import certificate_pb2
from footlights.v1 import enrollment_pb2, node_pb2

from footlights import errors
from footlights.auth import invitations
from footlights.auth.authority import SERVER_NAME, Authority, identity_of, new_key
from footlights.auth.roles import Caller, Role
from footlights.control.call.context import Call
from footlights.control.dispatch.rates import HELLOS
from tests.control.harness import Control, seconds


@pytest.fixture
def inviting(plane: Control) -> Control:
    """A control plane with a listener for agents."""
    plane.plane.identities.reached_at(":50052")
    return plane


async def invite(plane: Control, node: str = "gpu-1", **members: Any) -> enrollment_pb2.InviteNodeResponse:
    """Invite a node."""
    request = enrollment_pb2.InviteNodeRequest(node=node, **members)
    answer: enrollment_pb2.InviteNodeResponse = await plane.call("EnrollmentService.InviteNode", request)
    return answer


def request_of(code: str, node: str = "gpu-1", signing_request: bytes = b"") -> certificate_pb2.EnrollRequest:
    """Return what an agent asks for that has a code."""
    found = invitations.parse(code)
    assert found is not None
    asked = signing_request or new_key()[1]
    proof = invitations.request_proof(found.key, found.invitation_id, node, asked)
    return certificate_pb2.EnrollRequest(
        invitation_id=found.invitation_id, node=node, signing_request=asked, proof=proof
    )


async def enroll(plane: Control, request: certificate_pb2.EnrollRequest) -> certificate_pb2.EnrollResponse:
    """Ask as an agent does, without a token."""
    answer: certificate_pb2.EnrollResponse = await plane.call("CertificateService.Enroll", request, token="")
    return answer


async def revoke(plane: Control, node: str) -> enrollment_pb2.NodeIdentity:
    """Revoke a node, and hear of it."""
    request = enrollment_pb2.RevokeNodeRequest(node=node)
    answer: enrollment_pb2.NodeIdentity = await plane.call("EnrollmentService.RevokeNode", request)
    await plane.plane.identities.enforce()
    return answer


async def test_an_invited_agent_gets_a_certificate_of_its_node(inviting: Control) -> None:
    """Both sides prove that they know the code; the certificate says whose it is, and where it opens links."""
    code = (await invite(inviting)).code
    request = request_of(code)

    answer = await enroll(inviting, request)

    known = invitations.parse(code)
    assert known is not None
    assert answer.proof == invitations.answer_proof(known.key, answer.certificate, request.proof)
    certificate = certificate_pb2.Certificate.FromString(answer.certificate)
    assert (certificate.address, certificate.server_name) == (":50052", SERVER_NAME)
    identity = identity_of(certificate.chain)
    assert identity is not None
    assert identity.node == "gpu-1"
    leaf, issuer = x509.load_pem_x509_certificates(certificate.chain)
    leaf.verify_directly_issued_by(issuer)
    assert certificate.authorities == inviting.plane.issuer.authorities.certificates


async def test_an_invitation_is_used_once(inviting: Control) -> None:
    """The second agent with the same code is refused, as is one with a code in whose place there is another."""
    used, replaced = (await invite(inviting)).code, (await invite(inviting, "gpu-2")).code
    await enroll(inviting, request_of(used))
    await invite(inviting, "gpu-2")

    for code, node in ((used, "gpu-1"), (replaced, "gpu-2")):
        with pytest.raises(errors.Unauthenticated) as caught:
            await enroll(inviting, request_of(code, node))
        assert caught.value.reason == "INVITATION_INVALID"


async def test_an_invitation_ends_with_its_time(inviting: Control) -> None:
    """A second before it is good."""
    first_code = (await invite(inviting, ttl=seconds(60))).code
    second_code = (await invite(inviting, "gpu-2", ttl=seconds(60))).code
    inviting.clock.pass_s(59)
    await enroll(inviting, request_of(first_code))
    inviting.clock.pass_s(1)

    with pytest.raises(errors.Unauthenticated):
        await enroll(inviting, request_of(second_code, "gpu-2"))


async def test_who_does_not_know_the_code_gets_nothing(inviting: Control) -> None:
    """Another node, signing request, proof or id: one refusal for all, and the code stays good."""
    code = (await invite(inviting)).code
    other = request_of(code, "gpu-2")
    forged = request_of(code)
    forged.signing_request = new_key()[1]
    unproven = request_of(code)
    unproven.proof = bytes(32)
    unknown = request_of(code)
    unknown.invitation_id = "0" * 13

    refusals = []
    for request in (other, forged, unproven, unknown, certificate_pb2.EnrollRequest()):
        with pytest.raises(errors.Unauthenticated) as caught:
            await enroll(inviting, request)
        refusals.append((caught.value.reason, caught.value.message))

    assert len(set(refusals)) == 1
    assert (await enroll(inviting, request_of(code))).certificate


async def test_a_signing_request_that_is_none_is_named(inviting: Control) -> None:
    """To who knows the code; which stays good."""
    code = (await invite(inviting)).code
    with pytest.raises(errors.InvalidArgument) as caught:
        await enroll(inviting, request_of(code, signing_request=b"nonsense"))

    assert caught.value.violations[0].field == "signing_request"
    assert (await enroll(inviting, request_of(code))).certificate


async def test_without_a_listener_for_agents_nobody_enrolls(plane: Control) -> None:
    """The refusal says which option is missing, and the code stays good."""
    code = (await invite(plane)).code
    with pytest.raises(errors.FailedPrecondition, match="--agents-listen"):
        await enroll(plane, request_of(code))

    plane.plane.identities.reached_at(":1")
    assert (await enroll(plane, request_of(code))).certificate


@pytest.mark.parametrize("ttl_s", [0, -1, 86401])
async def test_an_invitation_is_short(plane: Control, ttl_s: float) -> None:
    """Up to a day; the refusal names the field."""
    with pytest.raises(errors.InvalidArgument) as caught:
        await invite(plane, ttl=seconds(ttl_s))

    assert caught.value.violations[0].field == "ttl"


async def test_a_repeated_invitation_has_the_same_code(inviting: Control) -> None:
    """With the same request id; the database has neither the code nor what it follows from in the clear."""
    first, again = [await invite(inviting, request_id="r1") for _ in range(2)]

    assert first == again
    found = invitations.parse(first.code)
    assert found is not None
    database = b"".join(path.read_bytes() for path in inviting.settings.data_dir.glob("footlights.db*"))
    assert found.invitation_id.encode() in database
    assert found.key not in database
    assert first.code.encode() not in database


async def test_revoking_ends_the_link_and_what_the_node_has(inviting: Control) -> None:
    """Its link ends with the reason; its tokens and its invitation are refused until it is invited again."""
    agent = await inviting.agent("gpu-1")
    code = (await invite(inviting)).code

    revoked = await revoke(inviting, "gpu-1")

    assert (await agent.ended()).reason == "NODE_REVOKED"
    assert revoked.HasField("revoked_time")
    with pytest.raises(errors.Unauthenticated) as caught:
        await inviting.new_agent("gpu-1", agent.token).open()
    assert caught.value.reason == "TOKEN_REVOKED"
    with pytest.raises(errors.Unauthenticated):
        await enroll(inviting, request_of(code))
    inviting.tokens.clear()
    with pytest.raises(errors.PermissionDenied) as denied:
        await inviting.agent("gpu-1")
    assert denied.value.reason == "NODE_REVOKED"
    node = await inviting.call("NodeService.GetNode", node_pb2.GetNodeRequest(node="gpu-1"))
    assert node.identity.HasField("revoked_time")

    await enroll(inviting, request_of((await invite(inviting)).code))

    node = await inviting.call("NodeService.GetNode", node_pb2.GetNodeRequest(node="gpu-1"))
    assert not node.identity.HasField("revoked_time")
    assert node.identity.HasField("expire_time")


async def test_who_is_revoked_takes_nothing_from_the_node(inviting: Control) -> None:
    """However often it comes it is only refused: the node may still open its link, and no notice is written of it."""
    await inviting.agent("gpu-1")
    await revoke(inviting, "gpu-1")
    inviting.tokens.clear()
    thief = inviting.new_agent("gpu-1", await inviting.token("NODE", "gpu-1"))
    for _ in range(int(HELLOS.burst) + 1):
        with pytest.raises(errors.PermissionDenied) as caught:
            await thief.open(hello={"incarnation": ""})
        assert caught.value.reason == "NODE_REVOKED"

    node = await inviting.call("NodeService.GetNode", node_pb2.GetNodeRequest(node="gpu-1"))
    assert not node.notices


async def test_a_certificate_that_has_expired_opens_no_link(inviting: Control) -> None:
    """Over a connection that was made before, either."""
    answer = await enroll(inviting, request_of((await invite(inviting)).code))
    identity = identity_of(certificate_pb2.Certificate.FromString(answer.certificate).chain)
    assert identity is not None
    call = Call("Link", ())
    call.caller = Caller("gpu-1", Role.NODE, "", identity)
    await inviting.plane.identities.admit("gpu-1", call)
    inviting.clock.pass_s(inviting.settings.certificate_ttl_s + 1)

    with pytest.raises(errors.Unauthenticated) as caught:
        await inviting.plane.identities.admit("gpu-1", call)
    assert caught.value.reason == "CERTIFICATE_INVALID"


@pytest.mark.parametrize("peer", ["inproc:", "unix:", "ipv4:127.0.0.1:40312", "ipv6:%5B::1%5D:7", "ipv4:192.0.2.1:7"])
async def test_a_node_that_has_a_certificate_shows_no_token(inviting: Control, peer: str) -> None:
    """From this machine, either: a proxy on it makes all callers seem to be here."""
    call = Call("Link", (), peer=peer)
    call.caller = Caller("gpu-1", Role.NODE, "t")
    await inviting.plane.identities.admit("gpu-1", call)
    await enroll(inviting, request_of((await invite(inviting)).code))

    with pytest.raises(errors.PermissionDenied) as caught:
        await inviting.plane.identities.admit("gpu-1", call)
    assert caught.value.reason == "CERTIFICATE_REQUIRED"


async def test_revoking_twice_keeps_the_first_time(plane: Control) -> None:
    """And what is not known cannot be revoked."""
    await plane.token("NODE", "gpu-1")
    first = await revoke(plane, "gpu-1")
    plane.clock.pass_s(60)

    assert await revoke(plane, "gpu-1") == first
    with pytest.raises(errors.NotFound) as caught:
        await revoke(plane, "gpu-2")
    assert caught.value.reason == "NODE_NOT_FOUND"


async def test_the_authority_outlives_a_restart(inviting: Control) -> None:
    """It is in the database, sealed; its certificate is in the data directory, for clients to trust."""
    authority = inviting.plane.issuer.authorities.newest
    published = (inviting.settings.data_dir / "ca.pem").read_bytes()
    database = b"".join(path.read_bytes() for path in inviting.settings.data_dir.glob("footlights.db*"))

    assert published == authority.certificates
    assert authority.key not in database
    assert authority.key[40:80] not in database
    assert Authority.load(published, authority.key).expire_time == authority.expire_time
