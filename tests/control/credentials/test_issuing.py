"""What the certificate of a process is made for."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from footlights.auth.authority import Authority
from footlights.control.credentials.issuing import names
from footlights.control.settings import ServerSettings

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def test_names_in_other_letters_are_as_clients_look_for_them() -> None:
    """Those of the public URL too, which is there also where somebody else ends TLS."""
    settings = ServerSettings(
        data_dir=Path("/nowhere"),
        public_url="https://b\u00fccher.example",
        tls_names=("m\u00fcnchen.example", "\u00fc" * 100, "192.0.2.1"),
    )

    pair = Authority.create("c", NOW).server_certificate("c", names(settings), now=NOW, ttl_s=60)

    [leaf, _] = x509.load_pem_x509_certificates(pair.chain)
    found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {"xn--bcher-kva.example", "xn--mnchen-3ya.example"} <= set(found.get_values_for_type(x509.DNSName))
    assert "192.0.2.1" in {str(each) for each in found.get_values_for_type(x509.IPAddress)}
