"""What the certificate of a process is made for."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from footlights.auth.authority import Authority, new_label
from footlights.control.credentials.authorities import Authorities
from footlights.control.credentials.issuing import ServerCertificate, names
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


class Rotating(Authorities):
    """Authorities that others replace just when they are looked at."""

    following: Sequence[Authority] = ()

    @property
    def all(self) -> tuple[Authority, ...]:
        """Those before the change."""
        found = super().all
        if self.following:
            self._found, self._certificates = (
                tuple(self.following),
                b"".join(each.certificates for each in self.following),
            )
            self.following = ()
        return found


def test_an_authority_that_comes_while_certificates_are_made_gets_one(tmp_path: Path) -> None:
    """Not only once one of the others is due, weeks later: nodes that ask for its name would see none."""
    old, new, newest = (Authority.create("c", NOW, label) for label in ("", new_label(), new_label()))
    known = Rotating([old])
    process = ServerCertificate(known, "c", ["localhost"], directory=tmp_path, clock=lambda: NOW)
    known.following = [new, old]
    assert known.all == (old,)
    known.following = [newest, new, old]

    process.renew()

    assert list(process.shown.by_authority) == [old.key_id, new.key_id, newest.key_id]
