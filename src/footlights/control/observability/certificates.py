"""The certificate chain that this process serves with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509

from footlights.errors import InvalidArgument

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from footlights.control.observability.metrics import Metrics
    from footlights.supervision import Supervisor

LOOP = "certificate"
PERIOD_S = 60.0


async def watch(path: Path, metrics: Metrics, *, supervisor: Supervisor, period_s: float = PERIOD_S) -> None:
    """Keep the expiry metric that of the file, which may be renewed, until cancelled."""

    async def once() -> None:
        metrics.certified(expiry(path))

    await supervisor.supervise(LOOP, once, every_s=period_s)


def expiry(path: Path) -> datetime:
    """Return when a chain expires (UTC): the earliest expiry of one of its certificates.

    Raises InvalidArgument where ``tls_cert`` cannot be read, or holds no certificate.
    """
    return min(certificate.not_valid_after_utc for certificate in _chain(path))


def name(path: Path) -> str:
    """Return a name that the first certificate is valid for; empty where it has none. Raises as ``expiry``."""
    try:
        names = _chain(path)[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    known: list[str] = names.get_values_for_type(x509.DNSName)
    # Any name will do for what a wildcard covers.
    return known[0].replace("*", "replica", 1) if known else ""


def _chain(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise InvalidArgument("tls_cert", f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise InvalidArgument("tls_cert", f"{path} holds no certificate in PEM: {error}.") from error
