"""``plane``: a whole control plane in process, as in the tests of ``control``."""

from tests.control.conftest import migrated, plane

__all__ = ["migrated", "plane"]
