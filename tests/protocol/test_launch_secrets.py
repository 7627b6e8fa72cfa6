"""The secret of a launch, made, compared and kept at rest.

Also the tests of ``auth/launch_secrets``.
"""

from __future__ import annotations

import pytest

from footlights.auth import launch_secrets as at_rest
from footlights.auth.secrets import Box
from footlights.errors import Internal
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


def test_it_is_opened_for_its_own_launch_only() -> None:
    """Sealed for one launch, it does not open as another's; where there is none, it is empty."""
    box = Box(bytes(32))
    sealed = at_rest.seal_new(box, "launch-1")

    opened = at_rest.open_sealed(box, "launch-1", sealed)

    assert opened.startswith("fls_")
    assert opened.encode() not in sealed
    with pytest.raises(Internal):
        at_rest.open_sealed(box, "launch-2", sealed)
    assert at_rest.open_sealed(box, "launch-1", None) == ""
