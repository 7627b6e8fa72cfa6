"""The secret of a launch, made and proved."""

from __future__ import annotations

from footlights.protocol import launch_secrets
from footlights.protocol.launch_secrets import Proofs, prove
from footlights.redaction import redact


def test_a_proof_is_good_once_and_for_its_request() -> None:
    """Of this secret and this challenge; nothing is proved where there is no secret."""
    secret, other = launch_secrets.new_secret(), launch_secrets.new_secret()
    proofs = Proofs(secret)
    good, bad = (prove(each, proofs.challenge, "POST", "/whep") for each in (secret, other))

    refused = [
        ("", "/whep"),
        (".", "/whep"),
        ("\udcff.\udcff", "/whep"),
        (bad, "/whep"),
        (good, "/other"),
        (secret, "/whep"),
    ]
    assert not any(proofs.accept(proof, "POST", target) for proof, target in refused)
    assert not proofs.accept(good, "DELETE", "/whep")
    assert [proofs.accept(good, "POST", "/whep") for _ in range(2)] == [True, False]
    assert not Proofs(secret).accept(good, "POST", "/whep")
    nothing = Proofs("")
    assert not nothing.accept(prove("", nothing.challenge, "GET", "/"), "GET", "/")


def test_what_is_kept_of_proofs_is_bounded() -> None:
    """A challenge is replaced after so many; those of the one before are no good then."""
    proofs, seen = Proofs("fls_s"), set()
    first = prove("fls_s", proofs.challenge, "GET", "/")
    assert proofs.accept(first, "GET", "/")
    for _ in range(3000):
        seen.add(proofs.challenge)
        assert proofs.accept(prove("fls_s", proofs.challenge, "GET", "/"), "GET", "/")

    assert len(seen) == 3
    assert not proofs.accept(first, "GET", "/")


def test_logs_do_not_show_it() -> None:
    """Its prefix is enough to find it in any text."""
    secret = launch_secrets.new_secret()

    assert redact(f"refused {secret}.") == "refused fls_[redacted]."
