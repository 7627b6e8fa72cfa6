"""The secret of a launch at rest."""

from __future__ import annotations

import pytest

from footlights.auth import launch_secrets
from footlights.auth.secrets import Box
from footlights.errors import Internal


def test_it_is_opened_for_its_own_launch_only() -> None:
    """Sealed for one launch, it does not open as another's; where there is none, it is empty."""
    box = Box(lambda: [bytes(32)])
    sealed = launch_secrets.seal_new(box, "launch-1")

    opened = launch_secrets.open_sealed(box, "launch-1", sealed)

    assert opened.startswith("fls_")
    assert opened.encode() not in sealed
    with pytest.raises(Internal):
        launch_secrets.open_sealed(box, "launch-2", sealed)
    assert launch_secrets.open_sealed(box, "launch-1", None) == ""
