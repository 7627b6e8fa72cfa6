"""Settings for all tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# Time limits for one example fail on a machine that is busy with something else; pytest's own timeout bounds a test.
settings.register_profile(
    "footlights", parent=settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("footlights")
