"""The secret of a launch, made and compared."""

from __future__ import annotations

from footlights.protocol import launch_secrets
from footlights.redaction import redact


def test_only_the_secret_itself_matches() -> None:
    """Not a part of it, not another one, and nothing where there is none."""
    secret, other = launch_secrets.new_secret(), launch_secrets.new_secret()

    assert launch_secrets.matches(secret, secret)
    assert not any(launch_secrets.matches(secret, each) for each in ("", secret[:-1], other, f"{secret} ", "\udcff"))
    assert not launch_secrets.matches("", "")


def test_logs_do_not_show_it() -> None:
    """Its prefix is enough to find it in any text."""
    secret = launch_secrets.new_secret()

    assert redact(f"refused {secret}.") == "refused fls_[redacted]."
