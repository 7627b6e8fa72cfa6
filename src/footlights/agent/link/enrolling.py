"""How an invited agent gets its first certificate.

The agent need not know the control plane's certificate: neither side sends the code, and each proves to the other that
it knows it. So TLS is used where the server has it, with whatever certificate, and nobody in between gains anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ssl
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Final, TypeVar

import grpc
import structlog
from cryptography import x509
from grpc import aio

from footlights.agent.v1.certificate_pb2 import Certificate, EnrollPodRequest, EnrollRequest, EnrollResponse
from footlights.agent.v1.certificate_pb2_grpc import CertificateServiceStub
from footlights.auth import invitations
from footlights.auth.authority import new_key
from footlights.errors import FailedPrecondition, InvalidArgument, LocalReason
from footlights.protocol.dialing.proxies import channel_options, proxy_hint
from footlights.protocol.dialing.tls_hints import tls_hint

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from footlights.agent.config import AgentConfig
    from footlights.agent.link.identity import LinkIdentity

_AnswerT = TypeVar("_AnswerT")

_TIMEOUT_S: Final = 10.0
_POD_TIMEOUT_S: Final = 25.0
"""The control plane asks Kubernetes twice."""
_PAUSE_S: Final = 1.0
_FINAL: Final = {
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNIMPLEMENTED,
}
"""Answers that trying again does not change."""
_log = structlog.get_logger(__name__)


async def enroll(config: AgentConfig, identity: LinkIdentity, stop: asyncio.Event) -> None:
    """Trade the configured code for a certificate, once: a code that was traded before is passed over, as is none.

    An agent that has a certificate goes on with it where its code is refused.

    Tries until it is answered or ``stop`` is set.

    Raises InvalidArgument where the code is none; FailedPrecondition where it was refused.
    """
    code = config.read_code()
    if not code and identity.enrolled is not None:
        return  # the file of a code that was traded is emptied or removed
    invitation = invitations.parse(code)
    if invitation is None:
        raise InvalidArgument(
            "enroll", "is no invitation, or has a typo. Copy all that footlights nodes invite prints."
        )
    if identity.enrolled is not None and identity.enrolled.invitation_id == invitation.invitation_id:
        return
    key, signing_request = new_key()
    proof = invitations.request_proof(invitation.key, invitation.invitation_id, config.node, signing_request)
    request = EnrollRequest(
        invitation_id=invitation.invitation_id, node=config.node, signing_request=signing_request, proof=proof
    )
    may_go_on = identity.enrolled is not None
    server, answer = await _answered(config, stop, partial(_ask, config, request), may_go_on=may_go_on)
    if answer is None:
        return
    if not hmac.compare_digest(answer.proof, invitations.answer_proof(invitation.key, answer.certificate, proof)):
        raise _refused(f"{server} does not know the code: it is not the control plane that the code is from")
    await asyncio.to_thread(identity.keep, key, Certificate.FromString(answer.certificate), invitation.invitation_id)
    _log.info("enrolled", server=server, node=config.node)


async def enroll_pod(config: AgentConfig, identity: LinkIdentity, stop: asyncio.Event) -> None:
    """Trade the token of this pod's service account for a certificate, where there is none that is valid.

    Unlike a code the token is sent, so the control plane's certificate is verified. Tries as ``enroll`` does.

    Raises InvalidArgument where the token cannot be read; FailedPrecondition where it was refused.
    """
    if identity.is_valid:
        return
    key, signing_request = new_key()

    async def ask(server: str) -> Certificate:
        request = EnrollPodRequest(node=config.node, signing_request=signing_request, token=config.read_pod_token())
        async with _verified_channel(config, server) as channel:
            answer: Certificate = await CertificateServiceStub(channel).EnrollPod(request, timeout=_POD_TIMEOUT_S)
            return answer

    server, answer = await _answered(config, stop, ask, may_go_on=False)
    if answer is not None:
        await asyncio.to_thread(identity.keep, key, answer, "")
        _log.info("enrolled", server=server, node=config.node)


async def _answered(
    config: AgentConfig, stop: asyncio.Event, ask: Callable[[str], Awaitable[_AnswerT]], *, may_go_on: bool
) -> tuple[str, _AnswerT | None]:
    """Ask one server after the other until one answers; return it and its answer, None where ``stop`` is set.

    ``may_go_on``: a refusal is no reason to leave: then too the answer is None.

    Raises FailedPrecondition where one refuses.
    """
    for turn in count():
        if stop.is_set():
            break
        server = config.servers[turn % len(config.servers)]
        try:
            return server, await ask(server)
        except (aio.AioRpcError, OSError, TimeoutError) as error:
            said = (error.details() or "") if isinstance(error, aio.AioRpcError) else str(error)
            if isinstance(error, aio.AioRpcError) and error.code() in _FINAL:
                if may_go_on:
                    # A code that nobody used in time: the certificate may be as good as before.
                    _log.warning("enrollment_refused", server=server, error=said, consequence="as before")
                    break
                raise _refused(f"{server} refused: {said}") from error
            hint = await tls_hint(said, server, tls=config.uses_tls(server)) or proxy_hint(server)
            _log.warning("enrollment_delayed", server=server, error=said, **({"fix": hint} if hint else {}))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PAUSE_S):
                    await stop.wait()
    return "", None


async def _ask(config: AgentConfig, request: EnrollRequest, server: str) -> EnrollResponse:
    async with await _channel(config, server) as channel:
        answer: EnrollResponse = await CertificateServiceStub(channel).Enroll(request, timeout=_TIMEOUT_S)
        return answer


async def _channel(config: AgentConfig, server: str) -> aio.Channel:
    if config.ca_file is not None or not config.uses_tls(server):
        return _verified_channel(config, server)
    host, _, port = server.rpartition(":")
    direct = channel_options(server)
    shown = await asyncio.wait_for(
        asyncio.to_thread(ssl.get_server_certificate, (host.strip("[]"), int(port)), timeout=_TIMEOUT_S), _TIMEOUT_S
    )
    # Whatever it is, it is the one that is talked to; who has it is proved by the answer.
    options = [*direct, ("grpc.ssl_target_name_override", name)] if (name := _name(shown)) else [*direct]
    return aio.secure_channel(server, grpc.ssl_channel_credentials(shown.encode()), options=options)


def _verified_channel(config: AgentConfig, server: str) -> aio.Channel:
    if not config.uses_tls(server):
        return aio.insecure_channel(server, options=channel_options(server))
    roots = None if config.ca_file is None else config.ca_file.read_bytes()
    return aio.secure_channel(server, grpc.ssl_channel_credentials(roots), options=channel_options(server))


def _name(certificate: str) -> str:
    """Return a name that a certificate is valid for; empty where it has none but addresses."""
    try:
        found = x509.load_pem_x509_certificate(certificate.encode())
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        return ""
    known: list[str] = names.get_values_for_type(x509.DNSName)
    return known[0].replace("*", "any", 1) if known else ""


def _refused(why: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"The node was not enrolled: {why} Invite it again: footlights nodes invite",
        reason=LocalReason.NOT_ENROLLED,
    )
