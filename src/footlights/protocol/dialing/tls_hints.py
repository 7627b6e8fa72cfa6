"""Why a server that is there cannot be spoken to: one side uses TLS and the other does not, or does not trust it.

gRPC says that a handshake failed, or only that a socket was closed. Then the server is asked once more, without gRPC:
whether it answers a TLS handshake tells which it is. Nothing secret is sent.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Final

_TIMEOUT_S: Final = 2.0
_NOT_GRPC: Final = ("http1.x server", "missing selected ALPN", "HTTP status")
_STRANGE: Final = ("CERTIFICATE_VERIFY_FAILED", "Hostname Verification Check failed", "is not in peer certificate")


async def tls_hint(details: str, server: str, *, tls: bool) -> str:
    """Return what is wrong between a client and a server that is there, and the fix; empty where that is not known.

    Args:
        details: what gRPC says.
        server: the address that was dialled.
        tls: whether the client speaks TLS.
    """
    if any(part in details for part in _NOT_GRPC):
        return (
            f"{server} is a port of HTTP, and this is gRPC: give the address of the server's --grpc-listen, by default "
            "port 50051."
        )
    if any(part in details for part in _STRANGE):
        return (
            f"The certificate of {server} is not trusted, or not for that name. Give --ca-file with a copy of ca.pem "
            "from the server's data directory, or of the authority that its certificate is from. The server's "
            "--tls-names adds a name."
        )
    if tls and "WRONG_VERSION_NUMBER" in details:
        return (
            f"{server} has no TLS, and this side uses it. Start the server with a certificate; or, only if something "
            "else encrypts the connection, leave out --tls and --ca-file here and give --insecure."
        )
    if "Socket closed" not in details or not await _has_tls(server):
        return ""
    if not tls:
        return (
            f"{server} has TLS, and this side does not use it. Give --ca-file with a copy of ca.pem from the server's "
            "data directory, or --tls where the system trusts its certificate, and leave out --insecure."
        )
    return (
        f"{server} takes only callers with a certificate of a node or a replica. Give the address of the server's "
        "--grpc-listen; an agent is told the other one when it enrolls: footlights nodes invite"
    )


def is_other_certificate(details: str) -> bool:
    """Return whether gRPC says that a server has another certificate than the caller expects, or none."""
    return "WRONG_VERSION_NUMBER" in details or any(part in details for part in _STRANGE)


async def _has_tls(server: str) -> bool:
    host, _, port = server.removeprefix("dns:").lstrip("/").rpartition(":")
    if server.startswith("unix:") or not host or not port.isdigit():
        return False
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port), ssl=context)
    except (OSError, TimeoutError):  # ssl.SSLError is one
        return False
    writer.transport.abort()
    return True
