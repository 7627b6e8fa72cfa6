"""Logs have one event per line, and no secrets (`logging`, `redaction`)."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

_SCRIPT = """
import structlog
from footlights.logging import set_up_logging
set_up_logging("{form}", "info")
def fail(secret):
    raise RuntimeError("no such thing: Bearer " + secret)
try:
    fail("fl_" + "0" * 13 + "_" + "s3cr3t" * 6)
except RuntimeError:
    structlog.get_logger("x").exception("failed", headers=["Authorization: Bearer hunter2hunter2"])
"""


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_failure_is_told_with_its_traceback_and_without_secrets(form: str) -> None:
    """A traceback says where and what, but no token: not in the message, a list, or a variable of a frame."""
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT.format(form=form)], capture_output=True, text=True, timeout=30, check=True
    )

    assert "RuntimeError: no such thing" in done.stderr
    assert "in fail" in done.stderr
    assert "s3cr3ts3cr3t" not in done.stderr
    assert "hunter2" not in done.stderr
    if form == "json":
        assert json.loads(done.stderr)["event"] == "failed"
