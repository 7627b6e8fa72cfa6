"""``footlights caches``: what it says where there is nothing; the rest is in ``tests/agent/test_warm_caches.py``."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from footlights.cli.app import app


def test_where_nothing_is_kept(tmp_path: Path) -> None:
    """It lists nothing, takes from no session that is not here, and says so."""
    for arguments, status, said in (
        (("list",), 0, "No caches are kept."),
        (("take", "s-1"), 1, "no session s-1 is on this node"),
        (("remove", "kit", "1.0.0"), 0, "No caches are kept for kit 1.0.0."),
    ):
        done = CliRunner().invoke(app, ["caches", *arguments, "--data-dir", str(tmp_path)])

        assert said in done.stderr
        assert (done.exit_code == 0) is (status == 0)
