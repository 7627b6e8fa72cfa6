"""``plane``: a whole control plane in process, as the tests of ``control`` have it."""

from __future__ import annotations

from tests.control.conftest import migrated, plane  # noqa: F401  fixtures
