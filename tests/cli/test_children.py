"""The processes that ``footlights up`` runs, and how they are tied together (`bond`)."""

from __future__ import annotations

import os
from pathlib import Path

from footlights.cli.local.children import Child


async def test_what_earlier_runs_wrote_is_not_its_output(tmp_path: Path) -> None:
    """A child that ends is explained by its own lines alone: its log file is kept from run to run."""
    log = tmp_path / "child.log"
    log.write_text("Serving http=http://127.0.0.1:1\n")

    child = await Child.start("child", ["--nonsense"], log, os.environ)
    failed = await child.ended()

    assert "the child ended with 2" in str(failed)
    assert "No such option: --nonsense" in str(failed)
    assert "Serving" not in str(failed)
